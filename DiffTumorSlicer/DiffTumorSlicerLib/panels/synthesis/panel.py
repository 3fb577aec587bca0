"""The Synthesis panel: place, press, watch, look, and go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from difftumor.parameters import SynthesisParameters
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters, synthesis_request
from DiffTumorSlicerLib.jobs.states import SYNTHESIS, JobState
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.progress import Progress
from DiffTumorSlicerLib.panels.shared.run_button import RunButton
from DiffTumorSlicerLib.panels.shared.shortcuts import Shortcuts
from DiffTumorSlicerLib.panels.shared.surroundings import Surroundings
from DiffTumorSlicerLib.panels.shared.widgets import say
from DiffTumorSlicerLib.panels.synthesis.organ_group import OrganGroup
from DiffTumorSlicerLib.panels.synthesis.place_group import PlaceGroup
from DiffTumorSlicerLib.panels.synthesis.result_group import ResultGroup
from DiffTumorSlicerLib.panels.synthesis.tumor_group import TumorGroup
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid

KEYS = {
    "placeButton": "P",
    "hereButton": "H",
    "goButton": "G",
    "newSeedButton": "N",
    "variantsButton": "V",
    "compareButton": "C",
    "blinkButton": "B",
    "removeLastButton": "Ctrl+Backspace",
}


class SynthesisPanel:
    """Joins its four groups, and starts and follows the jobs."""

    def __init__(self, around: Surroundings) -> None:
        session, scene = around.session, around.scene
        self._session = session
        self._requirements = around.requirements
        self._parameters: Any = None
        self._center: tuple[float, float, float] | None = None
        self.widget, self.ui = around.load("SynthesisPanel")
        ui = self.ui
        ui.moreGroup.collapsed = True
        self.progress = Progress(ui.progressBar, ui.progressLabel, ui.messageLabel)
        self.place = PlaceGroup(ui, scene, self.progress.say)
        self.tumor = TumorGroup(ui, self.progress.say, self.place.follow_size)
        self.organ = OrganGroup(ui, scene, self.progress.say, self.tumor.follow_organ)
        self.result = ResultGroup(ui, scene, session, self.progress.say, self.place.set_visible)
        ui.variantsButton.connect("clicked()", self.make_variants)
        self._shortcuts = Shortcuts(self.widget)
        for name, key in KEYS.items():
            self._shortcuts.add(key, getattr(ui, name))
        self.run_button = RunButton(
            ui.synthesizeButton, _("Synthesize"), self._shortcuts, self.synthesize, self.cancel
        )
        self.refresh()

    # ------------------------------------------------------------------------------------ state

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        if parameters is None:
            self.progress.forget()
        self._parameters = parameters
        for group in (self.place, self.organ, self.tumor, self.result):
            group.set_parameter_node(parameters)
        self.refresh()

    def enter(self) -> None:
        """Look what has changed while another module was open."""
        self.organ.enter()
        self.tumor.read_models()

    def leave(self) -> None:
        """Give views and mouse back while another module is open; a job goes on."""
        self.place.leave()
        self.result.leave()

    def cleanup(self) -> None:
        """Let go of the scene and the keys."""
        self.leave()
        self.place.cleanup()
        self._shortcuts.remove()

    def tick(self) -> None:
        """Follow the mouse and the clock; called by the module's timer."""
        self.place.tick()
        self.result.tick()

    def refresh(self) -> None:
        """Show the state of scene and parameters; writes nothing but a result of another scan."""
        if self._parameters is not None:
            result, volume = self._parameters.result, self._parameters.volume
            if result is not None and volume is not result and input_of(result) is not volume:
                self._parameters.result = None  # a tumor never goes into the result of another scan
        for group in (self.place, self.organ, self.tumor, self.result):
            group.refresh()
        step = "" if self.run_button.running else self.next_step()
        say(self.ui.hintLabel, step if step != self.progress.said else "")

    def next_step(self) -> str:
        """What is still missing before a tumor can be made; "" if nothing is."""
        if self._parameters is None or self._parameters.volume is None:
            return _("Next: choose a scan in the section Volumes.")
        try:
            volume_grid(self._parameters.volume)  # without it nothing can be placed either
        except SceneError as error:
            return str(error)
        if self.place.random:
            if self._parameters.segmentation is None or not self._parameters.segment_id:
                return _("Next: choose the segment of the organ that the tumors shall be in.")
        elif self.place.problem:
            return self.place.problem
        elif self.place.ellipsoid is None:
            return _("Next: press “Place by click” and click where the tumor shall be.")
        if not self.tumor.is_installed:
            return _("Next: get the chosen model in the section Models, or choose another one.")
        return ""

    # ------------------------------------------------------------------------------------- jobs

    def synthesize(self) -> None:
        """Make the tumor that is asked for."""
        if not self.run_button.running:
            self._start(self._session.synthesize)

    def make_variants(self) -> None:
        """Make three variants to choose from."""
        if not self.run_button.running:
            self._start(self._session.variants)

    def cancel(self) -> None:
        """Stop the job."""
        if self.run_button.running:
            self._session.cancel(self._session.states[SYNTHESIS].number)

    def follow(self, state: JobState) -> None:
        """Show how the job is getting on, and its result; called by the session."""
        if state.panel != SYNTHESIS:
            return
        self.run_button.show(state.running)
        self.ui.variantsButton.enabled = not state.running
        self.result.busy = state.running
        self.progress.follow(state)
        if state.kind == "done":
            self._show_results(state)
        self.refresh()

    def asked(self) -> SynthesisParameters:
        """The request as the engine takes it.

        Raises:
            SessionError: something is missing or out of range; says what to do.
        """
        missing = self.next_step()
        if missing:
            raise SessionError(missing)
        place = None if self.place.random else self.place.ellipsoid
        try:
            return SynthesisParameters(ellipsoid=place, **synthesis_request(self._parameters))
        except ValueError as error:
            raise SessionError(str(error)) from error

    def _start(self, request: Callable[..., Any]) -> None:
        """Send a request to the session, or say why not."""
        self.result.leave()
        if not self.progress.attempt(lambda: self._send(request)):
            self.refresh()

    def _send(self, request: Callable[..., Any]) -> None:
        asked = self.asked()
        self._requirements.ensure()
        request(
            asked,
            self._parameters.volume,
            segmentation_node=self._parameters.segmentation,
            segment_id=self._parameters.segment_id or None,
            roi_node=None if self.place.random else self.place.roi_node,
            into=self.result.result,
            device=settings.device(),
        )
        self._center = asked.ellipsoid.center_ras if asked.ellipsoid is not None else None

    def _show_results(self, state: JobState) -> None:
        scene = self.widget.mrmlScene()
        nodes = [scene.GetNodeByID(node_id) for node_id in state.result_node_ids]
        nodes = [node for node in nodes if node is not None]
        if not nodes or self._parameters is None:
            return
        if len(nodes) == 1:
            self._parameters.result = nodes[0]
            self.result.show_result(nodes[0], self._center)
        else:
            self.result.show_variants(nodes, self._center)
