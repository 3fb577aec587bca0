"""How long a heat map will take, told before it starts: from the model's card, then from what was measured."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.case_models import CaseModel
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.segments import organ_mask
from DiffTumorSlicerLib.scene.slice_ranges import organ_slices, visible_slices
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid

LIVE_S = 1.0  # a slice that takes less can follow the sliders


class MapEstimate:
    """Remembers how fast models were, and how many slices the organ has."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._seconds: dict[tuple[str, str], float] = {}  # of one network pass
        self._span: tuple[tuple[Any, ...], tuple[int, int]] = ((), (0, 0))

    def measured(
        self,
        model: CaseModel,
        device: str,
        elapsed_s: float,
        slices: int,
        asked: tuple[int, int],
    ) -> None:
        """Remember how long a map has taken.

        Args:
            model: that made it.
            device: as the settings name it.
            elapsed_s: of the whole job.
            slices: how many were computed.
            asked: noise level and steps.
        """
        pace = elapsed_s / (max(slices, 1) * model.passes(*asked))
        key = model.id, device
        # The first job also loads the model; later ones tell the speed better.
        self._seconds[key] = min(pace, self._seconds.get(key, pace))

    def seconds_per_slice(
        self, parameters: ModuleParameters, model: CaseModel, device: str
    ) -> float | None:
        """What one slice takes with the chosen N and steps; None while nothing tells it."""
        asked = parameters.anomaly
        passes = model.passes(asked.noise_level, asked.steps)
        measured = self._seconds.get((model.id, device))
        if measured is not None:
            return measured * passes
        expected = model.expected.get("cuda" if device == "cuda" else "cpu")
        if expected is None:
            return None
        return expected * passes / model.passes(None, None)

    def is_live(self, parameters: ModuleParameters, model: CaseModel, device: str) -> bool:
        """Whether a slice is fast enough to follow the sliders."""
        seconds = self.seconds_per_slice(parameters, model, device)
        return seconds is not None and seconds < LIVE_S

    def words(self, parameters: ModuleParameters, inputs: Any, device: str) -> str:
        """How many slices, and how long they take; "" if that cannot be told."""
        try:
            count = self._count(parameters, inputs)
        except SceneError:
            return ""  # pressing the button says what is wrong
        if not count:
            return ""
        slices = _("1 slice") if count == 1 else _("{count} slices").format(count=count)
        seconds = self.seconds_per_slice(parameters, inputs.model, device)
        if seconds is None:
            return _("{slices}. How long one takes is known after the first.").format(slices=slices)
        return _("{slices}, about {time}.").format(
            slices=slices, time=texts.duration(max(1.0, seconds * count))
        )

    def _count(self, parameters: ModuleParameters, inputs: Any) -> int:
        if parameters.slice_range == "slice":
            return 1
        grid, plane = volume_grid(inputs.scan), parameters.anomaly.plane
        first, end = self._organ_span(parameters, inputs, grid, plane)
        if parameters.slice_range == "visible":
            low, high = visible_slices(self._scene, grid, plane)
            first, end = max(first, low), min(end, high)
        return max(end - first, 0)

    def _organ_span(
        self, parameters: ModuleParameters, inputs: Any, grid: Any, plane: str
    ) -> tuple[int, int]:
        """First and one past the last slice of the organ; looked up again only when something changed."""
        area, segment_id, scan = parameters.area, parameters.area_segment_id, inputs.scan
        if area is None or not segment_id:
            return organ_slices(None, grid, plane)
        state = (
            *(area.GetID(), segment_id, area.GetMTime(), area.GetSegmentation().GetMTime()),
            *(scan.GetID(), grid.shape, grid.affine.tobytes(), plane),
        )
        if state != self._span[0]:
            mask = organ_mask(area, segment_id, scan)
            self._span = (state, organ_slices(mask, grid, plane))
        return self._span[1]
