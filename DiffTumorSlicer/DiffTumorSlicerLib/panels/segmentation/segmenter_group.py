"""How a trained model segments: overlap of its windows, smallest piece, threshold, and which models work together."""

from __future__ import annotations

import math
from typing import Any

from slicer.i18n import tr as _

from difftumor.weights import models
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, quietly
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.segments import box_of, organ_mask
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid
from DiffTumorSlicerLib.segmentation.models import is_learned, partners, recommended

OVERLAPS = (0.5, 0.75)
WINDOW_MM = 96.0  # of the published models and of the demonstration
MIRRORED = 8  # times the work


class SegmenterGroup:
    """The group "Settings" of the Segmentation panel."""

    def __init__(self, ui: Any) -> None:
        """Connect the group; `ui` are the widgets of the Segmentation panel."""
        self._ui = ui
        self._parameters: Any = None
        self._model = ""
        self._partners: list[dict[str, Any]] = []
        self._seconds: dict[tuple[str, str], float] = {}  # of one window
        self._size: tuple[tuple[Any, ...], tuple[float, ...]] = ((), ())
        ui.moreSegmentGroup.collapsed = True
        ui.overlapComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_overlap())
        ui.partnersList.connect("itemSelectionChanged()", self._choose_partners)

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self._model = ""

    def set_model(self, model: str) -> None:
        """Take over what another model recommends, and offer what it can be combined with."""
        if self._parameters is None:
            return
        if self._parameters.segmenter_values_of != model:
            values = recommended(model)
            self._parameters.segmenting.min_diameter_mm = float(values["min_diameter_mm"] or 0.0)
            self._parameters.segmenting.tumor_threshold = float(values["tumor_threshold"] or 0.0)
            self._parameters.segmenting.others = ""
            self._parameters.segmenter_values_of = model
        self._model = model
        self._partners = partners(models.list_models(), model)
        self.refresh()

    def refresh(self) -> None:
        """Show the parameters; writes nothing."""
        if self._parameters is None:
            return
        ui, asked = self._ui, self._parameters.segmenting
        words = {
            "0.5": _("Faster (overlap 0.5)"),
            "0.75": _("Thorough, as published (overlap 0.75)"),
        }
        if asked.overlap not in OVERLAPS:
            words[f"{asked.overlap:g}"] = _("Overlap {value}").format(value=f"{asked.overlap:g}")
        fill_combo(ui.overlapComboBox, words, f"{asked.overlap:g}")
        learned = bool(self._model) and is_learned(self._model)
        for name in ("overlapLabel", "overlapComboBox", "clipCheckBox", "flipsCheckBox",
                     "probabilityCheckBox", "moreSegmentGroup"):  # fmt: skip
            getattr(ui, name).visible = not learned
        for name in ("partnersLabel", "partnersList"):
            getattr(ui, name).visible = bool(self._partners)
        titles = [row["title"] for row in self._partners]
        chosen = asked.others.split("\n")
        with quietly(ui.partnersList):
            if [ui.partnersList.item(n).text() for n in range(ui.partnersList.count)] != titles:
                ui.partnersList.clear()
                ui.partnersList.addItems(titles)
            for number, row in enumerate(self._partners):
                ui.partnersList.item(number).setSelected(row["id"] in chosen)

    # ---------------------------------------------------------------------------------- estimate

    def measured(self, device: str, elapsed_s: float, windows: int) -> None:
        """Remember how fast the models were; the first job also loads them."""
        if windows <= 0:
            return
        key = self._key(device)
        pace = elapsed_s / (windows * self._passes)
        self._seconds[key] = min(pace, self._seconds.get(key, pace))

    def estimate(self, inputs: Any, device: str) -> str:
        """How long the next press will take, as far as it can be told."""
        if is_learned(self._model):
            return _("About as long as learning took.")
        pace = self._seconds.get(self._key(device))
        if pace is None:
            return _("How long it takes is known after the first time.")
        try:
            windows = self._windows(inputs)
        except SceneError:
            return ""  # pressing the button says what is wrong
        seconds = pace * windows * self._passes
        return _("About {time}, or at once where only threshold or smallest piece changed.").format(
            time=texts.duration(max(1.0, seconds))
        )

    @property
    def _passes(self) -> int:
        return MIRRORED if self._parameters.segmenting.flips else 1

    def _key(self, device: str) -> tuple[str, str]:
        return self._model, device

    def _windows(self, inputs: Any) -> float:
        """Windows that touch the box around the organ, for all models together."""
        others = self._parameters.segmenting.others
        members = 1 + len(list(filter(None, others.split("\n"))))
        step = WINDOW_MM * (1 - self._parameters.segmenting.overlap)
        return members * math.prod(max(1.0, size / step + 1) for size in self._extent(inputs))

    def _extent(self, inputs: Any) -> tuple[float, ...]:
        """Size of the organ, or of the scan, along its voxel axes in mm."""
        scan, area, segment_id = inputs.scan, inputs.area, inputs.segment_id
        grid = volume_grid(scan)
        whole = tuple(n * s for n, s in zip(grid.shape, grid.spacing, strict=True))
        if area is None or not segment_id:
            return whole
        state = (scan.GetID(), area.GetID(), segment_id, area.GetMTime(), grid.affine.tobytes())
        if self._size[0] != state:
            mask = organ_mask(area, segment_id, scan)
            spans = [p.stop - p.start for p in box_of(mask)] if mask.any() else [0, 0, 0]
            self._size = (state, tuple(n * s for n, s in zip(spans, grid.spacing, strict=True)))
        return self._size[1]

    # ------------------------------------------------------------------------------------ inside

    def _choose_overlap(self) -> None:
        chosen = chosen_of(self._ui.overlapComboBox)
        if self._parameters is not None and chosen:
            self._parameters.segmenting.overlap = float(chosen)

    def _choose_partners(self) -> None:
        if self._parameters is None:
            return
        titles = [item.text() for item in self._ui.partnersList.selectedItems()]
        chosen = [row["id"] for row in self._partners if row["title"] in titles]
        self._parameters.segmenting.others = "\n".join(chosen)
