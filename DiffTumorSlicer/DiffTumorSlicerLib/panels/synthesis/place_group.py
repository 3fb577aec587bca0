"""Where the tumor goes: the ellipsoid's handles and its numbers, both ways, and three ways to place it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from slicer.i18n import tr as _

from difftumor.parameters import Ellipsoid, SynthesisParameters
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared.field_widgets import limit
from DiffTumorSlicerLib.panels.shared.texts import PLACED_RADIUS_MM
from DiffTumorSlicerLib.panels.shared.widgets import quietly
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.placing import ClickPlacement, pointed_position, show_position
from DiffTumorSlicerLib.scene.slice_ranges import AXES
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid
from DiffTumorSlicerLib.synthesis.ellipsoid import SMALLEST_SPAN_VOXELS, EllipsoidHandles

FARTHEST_MM = 10_000.0


class PlaceGroup:
    """The group "Where" of the Synthesis panel.

    The box in the scene is the only truth: the numbers show it, and writing a number moves it.
    """

    def __init__(self, ui: Any, scene: Any, say: Callable[[str], None]) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Synthesis panel.
            scene: where the handles live.
            say: shows a sentence to the person.
        """
        self._ui = ui
        self._scene = scene
        self._say = say
        self._parameters: Any = None
        self._handles = EllipsoidHandles(scene)
        self._handles.add_listener(self._on_moved)
        self._moved = True
        self._shown: Ellipsoid | None = None
        self._click = ClickPlacement(scene)
        self._spins = {
            key: [getattr(ui, f"{key}{axis}SpinBox") for axis in AXES]
            for key in ("center", "radius", "rotation")
        }
        self._set_ranges()
        for spins in self._spins.values():
            for spin in spins:
                spin.connect("valueChanged(double)", lambda _value: self.write_numbers())
        ui.placedRadio.connect("toggled(bool)", self._choose_mode)
        ui.placeButton.connect("toggled(bool)", self._await_click)
        ui.hereButton.connect("clicked()", self.place_here)
        ui.goButton.connect("clicked()", self.go)
        ui.showCheckBox.connect("toggled(bool)", self._handles.set_visible)
        ui.countSpinBox.connect("valueChanged(int)", self._write_count)

    # ------------------------------------------------------------------------------------ state

    @property
    def random(self) -> bool:
        """Whether tumors are placed at random in the organ."""
        return bool(self._parameters is not None and self._parameters.random_placement)

    @property
    def ellipsoid(self) -> Ellipsoid | None:
        """The ellipsoid in the patient, or None if none was placed or its box has no clear place."""
        try:
            return self._handles.parameters()
        except SceneError:
            return None

    @property
    def problem(self) -> str:
        """Why the box that is there holds no ellipsoid; "" if it does, or if there is no box."""
        if self._handles.roi_node is None:
            return ""
        try:
            self._handles.parameters()
        except SceneError as error:
            return str(error)
        return ""

    @property
    def roi_node(self) -> Any:
        """The box of the handles, or None."""
        return self._handles.roi_node

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._click.stop()
        self._parameters = parameters
        self.refresh()

    def follow_size(self, before: str, now: str) -> None:
        """Resize an ellipsoid that still has the size it was placed with, as its tumor type changes."""
        placed, old = self.ellipsoid, PLACED_RADIUS_MM.get(before)
        if placed is not None and old and all(abs(r - old) < 0.01 for r in placed.radii_mm):
            self._handles.set(replace(placed, radii_mm=(PLACED_RADIUS_MM[now],) * 3))
            self.refresh()

    def leave(self) -> None:
        """Await no click while another module is open."""
        self._click.stop()

    def set_visible(self, visible: bool) -> None:
        """Show or hide the ellipsoid with its handles, and say so in the panel."""
        with quietly(self._ui.showCheckBox):
            self._ui.showCheckBox.checked = visible
        self._handles.set_visible(visible)

    def cleanup(self) -> None:
        """Let go of the scene."""
        self._click.stop()
        self._handles.release()
        self._parameters = None

    # ---------------------------------------------------------------------------------- placing

    def place_here(self) -> None:
        """Put the ellipsoid where the person points without a click."""
        self._ui.placeButton.checked = False
        point = pointed_position(self._scene)
        if point is None:
            self._say(_("There is no slice view to point with. Show one, or place by click."))
            return
        self._place(point)

    def go(self) -> None:
        """Show the middle of the ellipsoid in every slice view."""
        if self._shown is None:
            self._say(
                _("No ellipsoid is placed yet. Press “Place by click” and click into a slice.")
            )
            return
        show_position(self._scene, self._shown.center_ras)

    def _place(self, point: tuple[float, float, float]) -> None:
        """Make the handles if there are none, and put them there with the size of the tumor type."""
        if self._parameters is None:
            return
        try:
            radius = max(
                PLACED_RADIUS_MM.get(self._parameters.synthesis.size, 8.0),
                SMALLEST_SPAN_VOXELS * self._coarsest_mm() / 2,
            )
            self._handles.place_at(point, radius)
        except SceneError as error:
            self._say(str(error))
            return
        self._parameters.roi = self._handles.roi_node
        self._ui.placedRadio.checked = True
        self.set_visible(True)
        self._say("")
        self.refresh()

    def _await_click(self, on: bool) -> None:
        if not on:
            self._click.stop()
            return
        self._click.start()
        self._say(_("Click into a view where the middle of the tumor shall be."))

    def _choose_mode(self, placed: bool) -> None:
        if self._parameters is not None:
            self._parameters.random_placement = not placed
        self.refresh()

    def _write_count(self, count: int) -> None:
        if self._parameters is not None:
            self._parameters.synthesis.count = count

    def _coarsest_mm(self) -> float:
        """Largest spacing of the scan; 0 while there is none."""
        volume = self._parameters.volume
        return float(volume_grid(volume).spacing.max()) if volume is not None else 0.0

    # ---------------------------------------------------------------------------------- numbers

    def write_numbers(self) -> None:
        """Move, size and turn the handles as the numbers say."""
        if self._handles.roi_node is None:
            return
        values = {key: tuple(s.value for s in spins) for key, spins in self._spins.items()}
        wanted = Ellipsoid(values["center"], values["radius"], values["rotation"])
        try:
            self._handles.set(wanted)
        except SceneError as error:
            self._say(str(error))
            return
        self.set_visible(True)
        # What was typed stays as typed, although other angles may describe the same turn.
        self._shown = self._handles.parameters()

    def tick(self) -> None:
        """Take a click, and follow the handles; called by the module's timer."""
        point = self._click.take()
        if point is not None:
            self._place(point)
        if self._ui.placeButton.checked and not self._click.waiting:
            self._ui.placeButton.checked = False
            if point is None:
                self._say("")
        if self._moved:
            self._show_numbers()

    def refresh(self) -> None:
        """Show the state of the scene; writes nothing."""
        self._adopt()
        with quietly(self._ui.placedRadio, self._ui.randomRadio):
            self._ui.randomRadio.checked = self.random
            self._ui.placedRadio.checked = not self.random
        self._ui.placedFrame.visible = not self.random
        self._ui.randomFrame.visible = self.random
        if self._parameters is not None:
            with quietly(self._ui.countSpinBox):
                self._ui.countSpinBox.value = self._parameters.synthesis.count or 0
        self._show_numbers()

    def _on_moved(self) -> None:
        self._moved = True  # many events of one drag are shown once

    def _show_numbers(self) -> None:
        self._moved = False
        now = self.ellipsoid
        placed = now is not None
        if self._ui.numbersFrame.enabled != placed:
            self._ui.numbersFrame.enabled = placed
            self._ui.goButton.enabled = placed
        if now is None or now == self._shown:
            return
        self._shown = now
        for key, triple in zip(
            self._spins, (now.center_ras, now.radii_mm, now.rotation_deg), strict=True
        ):
            for spin, value in zip(self._spins[key], triple, strict=True):
                with quietly(spin):
                    spin.value = value

    def _adopt(self) -> None:
        """Hold the box that the parameter node names, and no other."""
        roi = self._parameters.roi if self._parameters is not None else None
        if roi is not self._handles.roi_node:
            self._handles.adopt(roi)
            self._shown = None
            self._handles.set_visible(self._ui.showCheckBox.checked)

    def _set_ranges(self) -> None:
        """Limits from the engine's own fields; positions have none but a sensible one."""
        for spin in self._spins["center"]:
            spin.minimum, spin.maximum = -FARTHEST_MM, FARTHEST_MM
        limit(Ellipsoid, "radii_mm", *self._spins["radius"])
        limit(Ellipsoid, "rotation_deg", *self._spins["rotation"])
        limit(SynthesisParameters, "count", self._ui.countSpinBox)
        self._ui.countSpinBox.minimum = 0  # automatic
