"""The heat map on screen: which one, its look, what it says, and what can be made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from DiffTumorSlicerLib.anomaly.exporting import map_file_stem, save_map_files
from DiffTumorSlicerLib.anomaly.results import (
    axis_of,
    healthy_of,
    is_map,
    plane_of,
    slices_of,
)
from DiffTumorSlicerLib.anomaly.segments import automatic_threshold, segment_map
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.anomaly.probability_group import ProbabilityGroup
from DiffTumorSlicerLib.panels.shared.saving import save_as
from DiffTumorSlicerLib.panels.shared.widgets import (
    chosen_of,
    fill_combo,
    keep_narrow,
    quietly,
    say,
)
from DiffTumorSlicerLib.scene.comparing import SideBySide
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.heat_display import (
    TABLES,
    has_legend,
    hide_map,
    is_shown,
    show_legend,
    show_map,
    style_map,
)
from DiffTumorSlicerLib.scene.placing import show_position, viewed_position
from DiffTumorSlicerLib.scene.results import MAP, input_of, sidecar_of
from DiffTumorSlicerLib.scene.slice_ranges import AXES, brightest, normal_axis, slice_at
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid
from DiffTumorSlicerLib.session import Session

FIELD_MM, WIDTH_MM = 220.0, 130.0  # a head or half an abdomen
ORIENTATIONS = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}


class HeatGroup:
    """The group "Heat map" of the Anomaly panel; hidden as long as there is none."""

    def __init__(self, ui: Any, scene: Any, session: Session, say: Callable[[str], None]) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Anomaly panel.
            scene: of the maps.
            session: removes maps.
            say: shows a sentence to the person.
        """
        self._ui = ui
        self._scene = scene
        self._session = session
        self._say = say
        self._parameters: Any = None
        self._shown_id = ""  # the map that was shown last
        self._applied: tuple[Any, ...] = ()
        self.busy = False  # a map is being made
        self._healthy_views = SideBySide(scene, "DiffTumorHealthy", {3: 5713})
        self._map_views = SideBySide(scene, "DiffTumorMaps", {2: 5722})
        self.probability = ProbabilityGroup(
            ui, scene, lambda: self.map, say, self._leave_comparisons
        )
        for selector in (ui.mapSelector, ui.otherSelector):
            selector.addAttribute("vtkMRMLScalarVolumeNode", MAP, "1")
        keep_narrow(ui.mapSelector, ui.otherSelector)
        ui.colorsComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_colors())
        ui.automaticButton.connect("clicked()", self.set_automatic_threshold)
        ui.legendCheckBox.connect("toggled(bool)", self._show_legend)
        ui.showMapCheckBox.connect("toggled(bool)", self._show_or_hide)
        ui.peakButton.connect("clicked()", self.go_to_peak)
        ui.healthyButton.connect("toggled(bool)", self._show_healthy)
        ui.compareMapsButton.connect("toggled(bool)", self._compare)
        ui.segmentMapButton.connect("clicked()", self.make_segmentation)
        ui.removeMapButton.connect("clicked()", self.remove)
        self._menu = qt.QMenu(ui.saveMapButton)
        for words, suffix in ((_("NIfTI…"), ".nii.gz"), (_("NRRD…"), ".nrrd")):
            entry = qt.QAction(words, self._menu)
            entry.connect("triggered()", lambda suffix=suffix: self._save(suffix))
            self._menu.addAction(entry)
        ui.saveMapButton.setMenu(self._menu)

    @property
    def map(self) -> Any:
        """The map that is worked on, or None."""
        node = self._parameters.map if self._parameters is not None else None
        return node if is_map(node) else None

    @property
    def other(self) -> Any:
        """The map that it is compared with, or None."""
        node = self._parameters.other_map if self._parameters is not None else None
        return node if is_map(node) and node is not self.map else None

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self.leave()
        self._parameters = parameters
        self._shown_id, self._applied = "", ()
        self.refresh()

    def leave(self) -> None:
        """Give the views back, as when another module is opened."""
        self._leave_comparisons()
        self.probability.leave()

    def tick(self) -> None:
        """Follow the views; called by the module's timer."""
        for views, button in (
            (self._healthy_views, self._ui.healthyButton),
            (self._map_views, self._ui.compareMapsButton),
        ):
            views.settle()
            if button.checked and not views.shown:
                button.checked = False
        self.probability.tick()

    # ---------------------------------------------------------------------------------- actions

    def choose(self, node: Any) -> None:
        """Work on a new map, and show it."""
        self._parameters.map = node
        self._shown_id = ""  # shown again, also in place of itself
        self.refresh()

    def set_automatic_threshold(self) -> None:
        """Set the threshold by Otsu's rule."""
        if self.map is None:
            return
        found = automatic_threshold(self.map)
        if found is None:
            self._say(_("The map is the same everywhere, so there is nothing to separate."))
            return
        self._parameters.anomaly.threshold = round(found, 2)
        self._say("")

    def go_to_peak(self) -> None:
        """Show the highest value of the slice in which the classifier is surest of disease."""
        node = self.map
        if node is None:
            return
        slices = [one for one in slices_of(node) if one.get("map_max", 1.0) > 0]
        marked = [one for one in slices if not one.get("gated")] or slices
        if not marked:
            self._say(_("Nothing is marked in this map."))
            return
        best = max(marked, key=lambda one: one["probability"])
        grid = volume_grid(node)
        index = slice_at(grid, plane_of(node), best["position_mm"])
        show_position(self._scene, brightest(volume_array(node), grid, axis_of(node), index))
        self._say("")

    def make_segmentation(self) -> None:
        """Turn what is shown into a segment."""
        node = self.map
        if node is None:
            return
        asked = self._parameters.anomaly
        try:
            segmentation, voxels = segment_map(
                self._scene, node, asked.threshold, largest=asked.largest_component
            )
        except SceneError as error:
            self._say(str(error))
            return
        ml = voxels * volume_grid(node).voxel_volume_mm3 / 1000
        self._say(
            _("{volume} ml above {threshold} are a segment of “{name}”.").format(
                volume=f"{ml:.2f}",
                threshold=f"{asked.threshold:.2f}",
                name=segmentation.GetName(),
            )
        )

    def remove(self) -> None:
        """Remove the map with all that belongs to it."""
        node = self.map
        if node is None:
            return
        self.leave()
        name, scan = node.GetName(), input_of(node)
        hide_map(self._scene, node.GetID())
        try:
            left = self._session.remove_map(node)
        except SceneError as error:
            self._say(str(error))
            return
        rest = [one for one in left if scan is None or input_of(one) is scan]
        self._parameters.map = rest[-1] if rest else None
        self._say(_("“{name}” was removed.").format(name=name))
        self.refresh()

    # ---------------------------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show the state of the scene, and let the chosen map look as the panel says."""
        if self._parameters is None:
            self._ui.heatGroup.visible = False
            return
        node = self.map
        self._ui.heatGroup.visible = node is not None
        fill_combo(self._ui.colorsComboBox, color_names(), self._parameters.map_colors)
        if node is None:
            self._show_no_map()
            return
        self._apply(node)
        say(self._ui.mapFactsLabel, facts_of(node))
        self._ui.healthyButton.enabled = bool(healthy_of(node)) and input_of(node) is not None
        self._ui.compareMapsButton.enabled = self.other is not None
        self._ui.curveButton.enabled = bool(slices_of(node))
        self._ui.removeMapButton.enabled = not self.busy
        with quietly(self._ui.showMapCheckBox, self._ui.legendCheckBox):
            self._ui.showMapCheckBox.checked = is_shown(self._scene, node)
            self._ui.legendCheckBox.checked = has_legend(node)
        self.probability.refresh()

    # ----------------------------------------------------------------------------------- inside

    def _apply(self, node: Any) -> None:
        """Colors, threshold and opacity; another map than before is shown."""
        asked = self._parameters
        look = (
            node.GetID(), asked.map_colors, asked.anomaly.threshold, asked.map_opacity,
        )  # fmt: skip
        if look == self._applied and self._shown_id == node.GetID():
            return
        self._applied = look
        style_map(self._scene, node, asked.map_colors, asked.anomaly.threshold)
        scan = input_of(node)
        new = self._shown_id != node.GetID()
        if new and self._shown_id:
            hide_map(self._scene, self._shown_id)
        if scan is not None and (new or is_shown(self._scene, node)):
            show_map(self._scene, node, scan, asked.map_opacity)
        self._shown_id = node.GetID()

    def _show_no_map(self) -> None:
        if self._shown_id:
            hide_map(self._scene, self._shown_id)
        self._shown_id, self._applied = "", ()

    def _choose_colors(self) -> None:
        colors = chosen_of(self._ui.colorsComboBox)
        if self._parameters is not None and colors:
            self._parameters.map_colors = colors

    def _show_legend(self, on: bool) -> None:
        if self.map is not None:
            show_legend(self.map, on, _("Anomaly"))

    def _show_or_hide(self, on: bool) -> None:
        node = self.map
        if node is None:
            return
        if not on:
            hide_map(self._scene, node.GetID())
        elif input_of(node) is not None:
            show_map(self._scene, node, input_of(node), self._parameters.map_opacity)

    def _leave_comparisons(self) -> None:
        self._ui.healthyButton.checked = False
        self._ui.compareMapsButton.checked = False
        self._healthy_views.hide()
        self._map_views.hide()

    def _show_healthy(self, on: bool) -> None:
        node = self.map
        if not on:
            self._healthy_views.hide()
            return
        healthy = healthy_of(node) if node is not None else []
        scan = input_of(node) if node is not None else None
        if not healthy or scan is None:
            return
        self._ui.compareMapsButton.checked = False
        self._ui.curveButton.checked = False
        opacity = self._parameters.map_opacity
        panes = (
            (_("Scan"), scan),
            (_("Map"), scan, node, opacity),
            (_("Rewritten as healthy"), healthy[0]),
        )
        self._healthy_views.show(
            panes, viewed_position(self._scene), orientation_of(node), FIELD_MM, WIDTH_MM
        )

    def _compare(self, on: bool) -> None:
        node, other = self.map, self.other
        if not on:
            self._map_views.hide()
            return
        if node is None or other is None:
            return
        asked = self._parameters
        style_map(self._scene, other, asked.map_colors, asked.anomaly.threshold)
        self._ui.healthyButton.checked = False
        self._ui.curveButton.checked = False
        panes = [
            (title, input_of(one) or one, one, asked.map_opacity)
            for title, one in ((_("First map"), node), (_("Second map"), other))
        ]
        self._map_views.show(
            panes, viewed_position(self._scene), orientation_of(node), FIELD_MM, WIDTH_MM
        )
        self._say(
            _("First: {first}. Second: {second}.").format(
                first=node.GetName(), second=other.GetName()
            )
        )

    def _save(self, suffix: str) -> None:
        node = self.map
        if node is None:
            return
        asked = self._parameters.anomaly
        save_as(
            self._ui.saveMapButton,
            _("Save the map"),
            map_file_stem(node),
            suffix,
            lambda path: save_map_files(
                self._scene, node, path, asked.threshold, largest=asked.largest_component
            ),
            self._say,
        )


def color_names() -> dict[str, str]:
    """Color tables as the parameter node names them, in words."""
    words = {"inferno": _("Inferno"), "viridis": _("Viridis"), "cividis": _("Cividis")}
    return {name: words[name] for name in TABLES}


def orientation_of(node: Any) -> str:
    """Orientation of views that show the slices of a map."""
    return ORIENTATIONS.get(plane_of(node), "Axial")


def facts_of(node: Any) -> str:
    """What a map says, in a sentence or two."""
    slices = slices_of(node)
    if not slices:
        return ""
    marked = [one for one in slices if not one.get("gated")]
    best = max(slices, key=lambda one: one["probability"])
    told = _("{count} slices, {marked} of them marked.")
    if len(slices) == 1:
        told = _("1 slice, marked.") if marked else _("1 slice, not marked.")
    words = [
        told.format(count=len(slices), marked=len(marked)),
        _("Highest probability of disease: {probability} at {axis} {position} mm.").format(
            probability=f"{best['probability']:.2f}",
            axis=AXES[normal_axis(plane_of(node))],
            position=f"{best['position_mm']:.1f}",
        ),
    ]
    if sidecar_of(node).get("result", {}).get("unfinished"):
        words.append(_("Cancelled before the last slice."))
    return " ".join(words)
