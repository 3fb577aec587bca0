"""What lies over the scan beside a segmentation: probability, agreement or uncertainty."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, quietly
from DiffTumorSlicerLib.scene.heat_display import (
    has_legend,
    hide_map,
    is_shown,
    show_legend,
    show_map,
    style_map,
)
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.segmentation.results import overlays_of

# Color table, from which value on it is shown (what is hardly probable would only veil the scan), and which value is
# brightest: classifiers of the same slices seldom differ by more than half of what they could.
LOOKS = {
    "probability": ("inferno", 0.05, 1.0),
    "agreement": ("cividis", 0.01, 1.0),
    "uncertainty": ("viridis", 0.05, 0.5),
}


class OverlayGroup:
    """The overlay of the group "Result"."""

    def __init__(self, ui: Any, scene: Any) -> None:
        self._ui = ui
        self._scene = scene
        self._parameters: Any = None
        self._shown_id = ""
        self._look: tuple[Any, ...] = ()
        ui.overlayComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose())
        ui.overlayLegendCheckBox.connect("toggled(bool)", self._show_legend)

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self._shown_id, self._look = "", ()

    def hide(self) -> None:
        """Take the overlay out of the views."""
        if self._shown_id:
            hide_map(self._scene, self._shown_id)
        self._shown_id, self._look = "", ()

    def refresh(self, result: Any) -> None:
        """Show the overlay that is asked for, if the result has it."""
        ui = self._ui
        if self._parameters is None:
            return
        found = overlays_of(result) if result is not None else {}
        kind = self._parameters.overlay if self._parameters.overlay in found else ""
        words = {"": _("None"), **{name: titles()[name] for name in found}}
        fill_combo(ui.overlayComboBox, words, kind)
        for name in ("overlayOpacityLabel", "overlayOpacitySlider", "overlayLegendCheckBox"):
            getattr(ui, name).visible = bool(kind)
        for name in ("overlayLabel", "overlayComboBox"):
            getattr(ui, name).visible = bool(found)
        node = found.get(kind)
        if node is None:
            self.hide()
            return
        look = (node.GetID(), kind, self._parameters.overlay_opacity)
        if look != self._look:
            self._apply(node, kind, input_of(result))
            self._look = look
        with quietly(ui.overlayLegendCheckBox):
            ui.overlayLegendCheckBox.checked = has_legend(node)

    def _apply(self, node: Any, kind: str, scan: Any) -> None:
        new = self._shown_id != node.GetID()
        if new:
            self.hide()
            style_map(self._scene, node, *LOOKS[kind])
        if scan is not None and (new or is_shown(self._scene, node)):
            show_map(self._scene, node, scan, self._parameters.overlay_opacity)
        self._shown_id = node.GetID()

    def _choose(self) -> None:
        if self._parameters is not None:
            self._parameters.overlay = chosen_of(self._ui.overlayComboBox)

    def _show_legend(self, on: bool) -> None:
        node = self._scene.GetNodeByID(self._shown_id) if self._shown_id else None
        if node is not None:
            show_legend(node, on, titles()[self._parameters.overlay])


def titles() -> dict[str, str]:
    """Kinds of overlays in words."""
    return {
        "probability": _("Probability of tumor"),
        "agreement": _("Agreement of the models"),
        "uncertainty": _("Uncertainty"),
    }
