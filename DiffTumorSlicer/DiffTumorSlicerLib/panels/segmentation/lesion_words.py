"""The measurements of lesions in words: columns, rows, and what is told of the chosen one."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from DiffTumorSlicerLib.scene.results import sidecar_of
from DiffTumorSlicerLib.segmentation.results import SEGMENTED, is_draft, is_edited

NUMBER_ROLE = 0x0100  # Qt.UserRole, where a line keeps the number of its row
EARLY_MM = 20


def columns(modality: str) -> tuple[str, ...]:
    """Heads of the table, for a CT or an MR image."""
    value = _("HU") if modality != "MR" else _("Signal")
    return (
        _("Lesion"), _("ml"), _("Ø mm"), _("Axial mm"), value, _("To organ"), _("Prob."),
    )  # fmt: skip


def item_of(row: dict[str, Any], number: int) -> Any:
    """A line of the table."""
    cells = [
        row["name"],
        f"{row['volume_mm3'] / 1000:.1f}"
        if row["volume_mm3"] >= 100
        else f"{row['volume_mm3'] / 1000:.2f}",
        f"{row['equivalent_diameter_mm']:.0f}" + (_(" early") if row["early"] else ""),
        f"{row['longest_axial_diameter_mm']:.0f}",
        f"{row['hu_mean']:.0f} ± {row['hu_sd']:.0f}",
        "–" if row["contrast_hu"] is None else f"{row['contrast_hu']:+.0f}",
        "–" if row["mean_probability"] is None else f"{row['mean_probability']:.2f}",
    ]
    item = qt.QTreeWidgetItem(cells)
    item.setData(0, NUMBER_ROLE, number)
    for column in range(1, len(cells)):
        item.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    item.setToolTip(0, details_of(row))
    return item


def row_of(item: Any) -> int:
    """Number of the row of a line."""
    found = item.data(0, NUMBER_ROLE)
    return -1 if found is None else int(found)


def details_of(row: dict[str, Any]) -> str:
    """All that is known of a lesion, in a sentence or two."""
    r, a, s = row["position_ras"]
    parts = [
        _("{name}: {volume} ml, diameter of a sphere of that volume {diameter} mm, longest in an axial slice "
          "{axial} mm.").format(
            name=row["name"],
            volume=f"{row['volume_mm3'] / 1000:.2f}",
            diameter=f"{row['equivalent_diameter_mm']:.1f}",
            axial=f"{row['longest_axial_diameter_mm']:.1f}",
        ),
        _("At R {r}, A {a}, S {s} mm.").format(r=f"{r:.0f}", a=f"{a:.0f}", s=f"{s:.0f}"),
    ]  # fmt: skip
    if row["early"]:
        parts.append(_("Early: at most {limit} mm.").format(limit=EARLY_MM))
    if row.get("agreement") is not None:
        parts.append(
            _("{share} of the models agree.").format(share=f"{100 * row['agreement']:.0f} %")
        )
    return " ".join(parts)


def facts_of(node: Any, rows: list[dict[str, Any]]) -> str:
    """What a result is, in a sentence or two."""
    told = sidecar_of(node)
    result = told.get("result", {})
    words = []
    if not rows:
        words.append(_("No tumor was found."))
    volumes = result.get("volumes_mm3") or {}
    if "WT" in volumes and not is_edited(node):
        words.append(
            _("Whole tumor {whole} ml, core {core} ml, enhancing {enhancing} ml.").format(
                whole=f"{volumes['WT'] / 1000:.1f}",
                core=f"{volumes['TC'] / 1000:.1f}",
                enhancing=f"{volumes['ET'] / 1000:.1f}",
            )
        )
    if node.GetAttribute(SEGMENTED) == "learned" and is_draft(node):
        words.append(_("A draft: the next learning takes its place, unless you press Keep."))
    return " ".join(words)
