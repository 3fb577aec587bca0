"""The Anomaly panel: choose, move the sliders, press, and see where the image departs from healthy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from difftumor.anomaly.layout import slice_axis
from DiffTumorSlicerLib.anomaly.request import Cell, show_cell
from DiffTumorSlicerLib.anomaly.results import maps_of
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters, anomaly_request
from DiffTumorSlicerLib.jobs.states import ANOMALY, JobState
from DiffTumorSlicerLib.panels.anomaly.estimate import MapEstimate
from DiffTumorSlicerLib.panels.anomaly.heat_group import HeatGroup
from DiffTumorSlicerLib.panels.anomaly.input_group import MapInputGroup
from DiffTumorSlicerLib.panels.anomaly.settings_group import MapSettingsGroup
from DiffTumorSlicerLib.panels.anomaly.sweep_group import SweepGroup
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.progress import Progress
from DiffTumorSlicerLib.panels.shared.run_button import RunButton
from DiffTumorSlicerLib.panels.shared.shortcuts import Shortcuts
from DiffTumorSlicerLib.panels.shared.surroundings import Surroundings
from DiffTumorSlicerLib.panels.shared.widgets import say
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.scene.slice_ranges import (
    is_oblique,
    show_slice,
    this_slice,
    turn_views,
    visible_slices,
)
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid

KEYS = {
    "peakButton": "T",
    "curveButton": "U",
    "healthyButton": "Y",
    "segmentMapButton": "M",
}
LIVE, MAP, SWEEP = "live", "map", "sweep"
REWRITING = (
    "rewriting slices as healthy"  # the engine's name of the stage that grows with the slices
)


class AnomalyPanel:
    """Joins its groups, and starts and follows the jobs."""

    def __init__(self, around: Surroundings) -> None:
        scene, session = around.scene, around.session
        self._scene = scene
        self._session = session
        self._section = around.section
        self._requirements = around.requirements
        self._parameters: Any = None
        self._running = ""  # what kind of job runs
        self._live_wanted = False
        self._scan_id = ""  # of the scan that maps were looked for last
        self._ready_s = 0.0  # when the job had a worker with its model, and the slices began
        self.widget, self.ui = around.load("AnomalyPanel")
        ui = self.ui
        ui.moreMapGroup.collapsed = True
        ui.sweepGroup.collapsed = True
        self.progress = Progress(ui.mapProgressBar, ui.mapProgressLabel, ui.mapMessageLabel)
        self.settings = MapSettingsGroup(ui, self._sliders_moved)
        self.heat = HeatGroup(ui, scene, session, self.progress.say)
        self.sweep = SweepGroup(ui, self.progress.say, self.make_sheet, self._take_cell)
        self.estimate = MapEstimate(scene)
        self.inputs = MapInputGroup(ui, scene, self.progress.say, self._model_changed)
        ui.turnViewsButton.connect("clicked()", self._turn_views)
        self._shortcuts = Shortcuts(self.widget)
        for name, key in KEYS.items():
            self._shortcuts.add(key, getattr(ui, name))
        self.run_button = RunButton(
            ui.runButton, _("Make the map"), self._shortcuts, self.run, self.cancel
        )
        self.refresh()

    # ------------------------------------------------------------------------------------ state

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        if parameters is None:
            self.progress.forget()
        self._parameters = parameters
        self._live_wanted = False
        for group in (self.settings, self.inputs, self.heat, self.sweep):
            group.set_parameter_node(parameters)
        self._scan_id = ""
        self.refresh()

    def selectors(self) -> tuple[tuple[Any, Any], ...]:
        """Node selectors and what they should show."""
        ui, p = self.ui, self._parameters
        return (
            (ui.t1Selector, p.sequence_t1),
            (ui.t1cSelector, p.sequence_t1c),
            (ui.t2Selector, p.sequence_t2),
            (ui.flairSelector, p.sequence_flair),
            (ui.mapSelector, p.map),
            (ui.otherSelector, p.other_map),
        )

    def enter(self) -> None:
        """Look what has changed while another module was open."""
        self.inputs.enter()

    def leave(self) -> None:
        """Give the views back while another module is open; a job goes on."""
        self.heat.leave()

    def cleanup(self) -> None:
        """Let go of the scene, the keys and the pictures."""
        self.leave()
        self._shortcuts.remove()
        self.sweep.cleanup()

    def tick(self) -> None:
        """Follow the views and the sliders; called by the module's timer."""
        self.heat.tick()
        if self._section.collapsed:
            return
        self.inputs.tick()
        self._show_estimate()
        if self._live_wanted and not self._running:
            self._live_wanted = False
            if self.ui.liveCheckBox.checked:
                self._start(self._ask_live, LIVE)

    def refresh(self) -> None:
        """Show the state of scene and parameters; writes nothing but a map of another scan."""
        self.settings.refresh()
        self.inputs.refresh()
        if self._parameters is not None:
            self._follow_scan()
        self.heat.refresh()
        self.sweep.refresh()
        step = "" if self._running else self.inputs.next_step()
        say(self.ui.mapHintLabel, step if step != self.progress.said else "")
        scan = self.inputs.scan
        self.ui.turnViewsButton.visible = scan is not None and _lies_at_an_angle(scan)
        self._show_estimate()

    # ------------------------------------------------------------------------------------- jobs

    def run(self) -> None:
        """Make the map that is asked for."""
        if self._running in ("", LIVE):
            self._start(self._ask_map, MAP)

    def make_sheet(self) -> None:
        """Make the sheet over N and S for the slice on screen."""
        if self._running in ("", LIVE):
            self._start(self._ask_sheet, SWEEP)

    def cancel(self) -> None:
        """Stop the job; finished slices stay."""
        if self._running:
            self._session.cancel(self._session.states[ANOMALY].number)

    def follow(self, state: JobState) -> None:
        """Show how the job is getting on, and its result; called by the session."""
        if state.panel != ANOMALY:
            return
        kind = self._running
        if state.running:
            if not self._ready_s and state.stage.endswith(REWRITING):
                self._ready_s = state.elapsed_s
            if kind != LIVE:  # a line that comes and goes with each move of a slider only disturbs
                self.progress.follow(state)
            self._show_running(kind or MAP)
            return
        self._show_running("")
        if kind != LIVE or state.kind == "failed":
            self.progress.follow(state)
        self._take(state)
        self.refresh()

    def _take(self, state: JobState) -> None:
        """Show what a job has brought, also one that was cancelled."""
        if self._parameters is None:
            return
        report = state.report
        if report.get("kind") == SWEEP:
            self.sweep.show(dict(report))
        node = self._scene.GetNodeByID(state.result_node_id) if state.result_node_id else None
        if node is not None:
            if state.kind == "done":
                asked = self._parameters.anomaly
                self.estimate.measured(
                    self.inputs.model,
                    settings.device(),
                    state.elapsed_s - self._ready_s,
                    int(report.get("slices") or 1),
                    (asked.noise_level, asked.steps),
                )
            self.heat.choose(node)

    def _ask_map(self) -> int:
        return self._session.anomaly(self._values(self._slices()), **self._nodes())

    def _ask_live(self) -> int:
        index = self._index_on_screen()
        return self._session.anomaly(self._values((index, index + 1)), live=True, **self._nodes())

    def _ask_sheet(self) -> int:
        levels, scales = self.sweep.wanted()
        index = self._index_on_screen()
        nodes = self._nodes()
        return self._session.sweep(
            self._values((index, index + 1)), nodes.pop("images"), levels, scales, **nodes
        )

    def _values(self, slices: tuple[int, int] | None) -> dict[str, Any]:
        return {**anomaly_request(self._parameters), "slices": slices}

    def _nodes(self) -> dict[str, Any]:
        images = self.inputs.images
        return {
            "images": images if self.inputs.model.of_brain else next(iter(images.values())),
            "segmentation_node": self._parameters.area,
            "segment_id": self._parameters.area_segment_id or None,
            "device": settings.device(),
        }

    def _slices(self) -> tuple[int, int] | None:
        """The slices that are asked for; None means all of the organ."""
        if self._parameters.slice_range == "slice":
            index = self._index_on_screen()
            return index, index + 1
        if self._parameters.slice_range == "visible":
            plane = self._parameters.anomaly.plane
            return visible_slices(self._scene, volume_grid(self.inputs.scan), plane)
        return None

    def _index_on_screen(self) -> int:
        """The slice on screen; views between two slices move to its middle, where its map is seen undiluted."""
        grid, plane = volume_grid(self.inputs.scan), self._parameters.anomaly.plane
        index = this_slice(self._scene, grid, plane)
        show_slice(self._scene, grid, slice_axis(grid, plane), index)
        return index

    def _start(self, request: Callable[[], int], kind: str) -> None:
        """Send a request to the session, or say why not."""
        missing = self.inputs.next_step()
        if missing:
            self.progress.say(missing)
            self.refresh()
            return
        if not self.progress.attempt(lambda: self._send(request, kind)):
            self._show_running("")
            self.refresh()

    def _send(self, request: Callable[[], int], kind: str) -> None:
        self._requirements.ensure()
        self._running, self._ready_s = kind, 0.0
        request()

    # ---------------------------------------------------------------------------------- sliders

    def _sliders_moved(self) -> None:
        self._live_wanted = True

    def _model_changed(self) -> None:
        """Another model recommends other values."""
        self.settings.set_model(self.inputs.model)
        self.sweep.set_model(self.inputs.model)

    def _take_cell(self, cell: Cell) -> None:
        """A picture of the sheet was pressed."""
        if self._parameters is None or not self._scene.IsNodePresent(cell.source):
            self.progress.say(
                _("The scan of this sheet is not in the scene any more. Make a new sheet.")
            )
            return
        self.settings.choose(cell.noise_level, cell.guidance_scale)
        self.heat.choose(show_cell(self._scene, cell))
        self.progress.say(
            _("N {level} and S {scale} are chosen. Press “{button}” for more slices.").format(
                level=cell.noise_level, scale=f"{cell.guidance_scale:g}", button=_("Make the map")
            )
        )

    def _show_estimate(self) -> None:
        """Tell before the start how long it will take, and offer live updates where that is short."""
        if self._parameters is None:
            return
        estimate = self.estimate
        text = ""
        if not self._running and not self.inputs.next_step():
            text = estimate.words(self._parameters, self.inputs, settings.device())
        say(self.ui.estimateLabel, text)
        live = estimate.is_live(self._parameters, self.inputs.model, settings.device())
        if self.ui.liveCheckBox.enabled != live:
            self.ui.liveCheckBox.enabled = live
        if not live and self.ui.liveCheckBox.checked:
            self.ui.liveCheckBox.checked = False

    # -------------------------------------------------------------------------------- inside

    def _follow_scan(self) -> None:
        """With another scan, work on the newest of its maps, or on none."""
        scan, shown = self.inputs.scan, self._parameters.map
        if scan is None or scan.GetID() == self._scan_id:
            return
        self._scan_id = scan.GetID()
        if shown is None or input_of(shown) is not scan:
            maps = maps_of(self._scene, scan)
            self._parameters.map = maps[-1] if maps else None

    def _turn_views(self) -> None:
        if self.inputs.scan is not None:
            turn_views(self._scene, self.inputs.scan)

    def _show_running(self, kind: str) -> None:
        self._running = kind
        long = kind in (MAP, SWEEP)
        self.run_button.show(long)
        self.ui.sweepButton.enabled = not long
        self.heat.busy = long


def _lies_at_an_angle(scan: Any) -> bool:
    try:
        return is_oblique(volume_grid(scan))
    except SceneError:
        return False
