"""How a heat map is made: noise level N, guidance scale S, plane, slices, and what few people change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from slicer.i18n import tr as _

from difftumor.parameters import ANOMALY_RECOMMENDED, AnomalyParameters
from DiffTumorSlicerLib.jobs.case_models import CaseModel
from DiffTumorSlicerLib.jobs.parameter_node import RECOMMENDED, ModuleParameters
from DiffTumorSlicerLib.panels.shared.field_widgets import limit, limits_of
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, quietly

MIDDLE = 50  # of the guidance slider: the model's own scale
DECADE = 49  # positions from the middle to a tenth or to ten times of it
FEWEST_LEVELS = int(limits_of(AnomalyParameters, "steps")[0])
LARGEST_SCALE = limits_of(AnomalyParameters, "guidance_scale")[1]


class MapSettingsGroup:
    """The group "How" of the Anomaly panel."""

    def __init__(self, ui: Any, sliders_moved: Callable[[], None]) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Anomaly panel.
            sliders_moved: called when the person has changed N or S.
        """
        self._ui = ui
        self._moved = sliders_moved
        self._parameters: Any = None
        self._model = CaseModel("", "")
        ui.noiseSlider.connect("valueChanged(int)", self._take_noise)
        ui.noiseSpinBox.connect("valueChanged(int)", self._take_noise)
        ui.guidanceSlider.connect("valueChanged(int)", self._take_position)
        ui.guidanceSpinBox.connect("valueChanged(double)", self._take_scale)
        ui.levelsSpinBox.connect("valueChanged(int)", self._take_levels)
        ui.recommendedButton.connect("clicked()", self.recommend)
        for box, name in (
            ("planeComboBox", "plane"),
            ("kindComboBox", "map_kind"),
            ("normalisationComboBox", "normalisation"),
            ("weightingComboBox", "guidance_weighting"),
        ):
            widget = getattr(ui, box)
            widget.connect(
                "currentIndexChanged(int)",
                lambda _row, widget=widget, name=name: self._take_choice(widget, name),
            )
        ui.rangeComboBox.connect("currentIndexChanged(int)", lambda _row: self._take_range())
        self._set_ranges()

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self.refresh()

    def set_model(self, model: CaseModel) -> None:
        """Fill in what another model recommends; what was set for this one stays."""
        self._model = model
        if self._parameters is not None and self._parameters.values_of != model.id:
            self.recommend()
        self.refresh()

    def recommend(self) -> None:
        """Set everything to what the model recommends."""
        if self._parameters is None:
            return
        pack, values = self._parameters.anomaly, self._model.recommended
        for name in RECOMMENDED:
            setattr(pack, name, type(ANOMALY_RECOMMENDED[name])(values[name]))
        plain = {item.name: item.default for item in fields(AnomalyParameters)}
        for name in ("gate", "largest_component", "guidance_stop", "guidance_weighting"):
            setattr(pack, name, plain[name])
        self._parameters.values_of = self._model.id
        self.refresh()
        self._moved()

    def choose(self, noise_level: int, guidance_scale: float) -> None:
        """Set N and S, as a press on a picture of the sheet does."""
        if self._parameters is None:
            return
        self._parameters.anomaly.noise_level = int(noise_level)
        self._parameters.anomaly.guidance_scale = float(guidance_scale)
        self.refresh()

    def refresh(self) -> None:
        """Show the parameters; writes nothing."""
        if self._parameters is None:
            return
        ui, asked = self._ui, self._parameters.anomaly
        with quietly(
            ui.noiseSlider, ui.noiseSpinBox, ui.guidanceSlider, ui.guidanceSpinBox, ui.levelsSpinBox
        ):
            _set(ui.noiseSlider, max(asked.noise_level, 1))
            _set(ui.noiseSpinBox, max(asked.noise_level, 1))
            _set(ui.guidanceSlider, self._position(asked.guidance_scale))
            _set(ui.guidanceSpinBox, asked.guidance_scale)
            _set(ui.levelsSpinBox, max(asked.steps, FEWEST_LEVELS))
        fill_combo(ui.planeComboBox, planes(), asked.plane)
        fill_combo(ui.rangeComboBox, ranges(self._model.of_brain), self._parameters.slice_range)
        fill_combo(ui.kindComboBox, kinds(), asked.map_kind)
        fill_combo(ui.normalisationComboBox, normalizations(), asked.normalisation)
        fill_combo(ui.weightingComboBox, weightings(), asked.guidance_weighting)

    # ------------------------------------------------------------------------------------ inside

    def _take_noise(self, value: int) -> None:
        if self._parameters is not None and value != self._parameters.anomaly.noise_level:
            self._parameters.anomaly.noise_level = value
            self.refresh()
            self._moved()

    def _take_position(self, position: int) -> None:
        """The guidance slider: a position, not a scale."""
        middle = (
            float(self._model.recommended["guidance_scale"])
            or ANOMALY_RECOMMENDED["guidance_scale"]
        )
        scale = 0.0 if position <= 0 else middle * 10 ** ((position - MIDDLE) / DECADE)
        self._take_scale(scale if position == MIDDLE else _rounded(scale))

    def _take_scale(self, value: float) -> None:
        if self._parameters is not None and value != self._parameters.anomaly.guidance_scale:
            self._parameters.anomaly.guidance_scale = min(value, LARGEST_SCALE)
            self.refresh()
            self._moved()

    def _take_levels(self, value: int) -> None:
        if self._parameters is not None:
            self._parameters.anomaly.steps = value

    def _take_choice(self, box: Any, name: str) -> None:
        value = chosen_of(box)
        if self._parameters is not None and value:
            setattr(self._parameters.anomaly, name, value)

    def _take_range(self) -> None:
        value = chosen_of(self._ui.rangeComboBox)
        if self._parameters is not None and value:
            self._parameters.slice_range = value

    def _position(self, scale: float) -> int:
        """Where the guidance slider stands for a scale."""
        middle = (
            float(self._model.recommended["guidance_scale"])
            or ANOMALY_RECOMMENDED["guidance_scale"]
        )
        if scale <= 0:
            return 0
        return min(max(round(MIDDLE + DECADE * math.log10(scale / middle)), 1), 100)

    def _set_ranges(self) -> None:
        """Limits from the engine's own fields."""
        limit(AnomalyParameters, "noise_level", self._ui.noiseSlider, self._ui.noiseSpinBox)
        limit(AnomalyParameters, "guidance_scale", self._ui.guidanceSpinBox)
        limit(AnomalyParameters, "steps", self._ui.levelsSpinBox)


def planes() -> dict[str, str]:
    """Planes as the engine names them, in words."""
    return {"axial": _("Axial"), "coronal": _("Coronal"), "sagittal": _("Sagittal")}


def ranges(of_brain: bool) -> dict[str, str]:
    """Choices of slices as the parameter node names them, in words."""
    return {
        "slice": _("This slice"),
        "visible": _("What the views show"),
        "organ": _("The whole brain") if of_brain else _("The whole organ"),
    }


def kinds() -> dict[str, str]:
    """Kinds of maps as the engine names them, in words."""
    return {
        "guided": _("What the guidance changed"),
        "one-sided": _("What became healthier, one side only"),
        "signed": _("Healthy minus image, signed"),
        "absolute": _("All that changed, as in the papers"),
    }


def normalizations() -> dict[str, str]:
    """Normalizations as the engine names them, in words."""
    return {
        "volume": _("The highest value of all slices"),
        "slice": _("The highest value of each slice"),
        "none": _("Nothing, in the model's units"),
    }


def weightings() -> dict[str, str]:
    """Guidance weightings as the engine names them, in words."""
    return {"constant": _("The same in all steps"), "noise": _("As strong as the noise")}


def _rounded(value: float) -> float:
    """Three digits, which is as finely as a slider can be meant."""
    return float(f"{value:.3g}")


def _set(widget: Any, value: Any) -> None:
    if widget.value != value:
        widget.value = value
