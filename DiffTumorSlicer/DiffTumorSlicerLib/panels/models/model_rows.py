"""A model's row in words: its line in the list, its state, and all that is known of it."""

from __future__ import annotations

from html import escape
from typing import Any

import qt
from slicer.i18n import tr as _

from difftumor.remedies import Advice
from difftumor.weights import models
from difftumor.weights.registry import pinned
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.panels.shared import texts

ID_ROLE = 0x0100  # Qt.UserRole, where a row keeps the id of its model


def item_of(row: dict[str, Any]) -> Any:
    """A row of the list."""
    size = texts.file_size(row["bytes"])
    columns = [
        _short_title(row),
        state_of(row),
        size,
        ", ".join(texts.organs().get(organ, organ) for organ in row["organs"]),
        row["licence"],
    ]
    item = qt.QTreeWidgetItem(columns)
    item.setData(0, ID_ROLE, row["id"])
    for index, text in enumerate(columns):
        item.setToolTip(index, row["title"] if index == 0 else text)
    return item


def _short_title(row: dict[str, Any]) -> str:
    """A published model without its publisher, whom the details name; its own column tells the organ."""
    _publisher, colon, rest = row["title"].partition(": ")
    return rest[:1].upper() + rest[1:] if colon and not row["bundled"] else row["title"]


def state_of(row: dict[str, Any]) -> str:
    """Installed or not, and whether it is what it was."""
    if not row["installed"]:
        return _("damaged") if row["advice"] else _("not installed")
    if row["verified"] is False:
        return _("changed")
    return _("part of the module") if row["bundled"] else _("installed, verified")


def is_pinned_only(row: dict[str, Any]) -> bool:
    """Whether a model is not installed, but the checksum of an earlier copy is remembered."""
    entry = models.registry().get(row["id"])
    return bool(entry and not row["installed"] and not row["bundled"] and pinned(entry))


def details_of(row: dict[str, Any]) -> str:
    """What is known of a model, as rich text."""
    lines = [
        f"<b>{escape(row['title'])}</b> ({escape(texts.tasks().get(row['task'], row['task']))})"
    ]
    if row["tumor_types"]:
        sizes = ", ".join(texts.sizes().get(kind, kind) for kind in row["tumor_types"])
        lines.append(_("Tumors: {sizes}").format(sizes=escape(sizes)))
    expected = row["expected"]
    if expected:
        lines.append(
            _(
                "Expected: {gpu} on a graphics card, {cpu} without, per {unit}; {memory:g} GB of memory"
            ).format(
                gpu=texts.duration(expected["seconds_gpu"]),
                cpu=texts.duration(expected["seconds_cpu"]),
                unit=escape(expected["per"]),
                memory=expected["memory_gb"],
            )
        )
    licence = escape(row["licence"])
    if row["licence_url"]:
        licence = f'<a href="{escape(row["licence_url"])}">{licence}</a>'
    lines.append(
        _("License: {licence}. {notice}").format(
            licence=licence, notice=escape(row["licence_notice"] or "")
        )
    )
    if row["page"]:
        lines.append(f'<a href="{escape(row["page"])}">{escape(_("Page of the authors"))}</a>')
    if row["advice"]:
        told = sentence_of(Advice.from_json(row["advice"]))
        lines.append(f"<b>{escape(_('Please note:'))}</b> {escape(told)}")
    return "<br>".join(lines)
