"""The Segmentation panel: press and get outlines with a table, or paint a few slices and let the rest follow."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from difftumor.images.sequences import SEQUENCES
from difftumor.parameters import LearningParameters, SegmentationParameters
from DiffTumorSlicerLib.jobs.parameter_node import (
    ModuleParameters,
    learning_request,
    segmentation_request,
)
from DiffTumorSlicerLib.jobs.states import SEGMENTATION, JobState
from DiffTumorSlicerLib.panels.anomaly.input_group import MapInputGroup, Place
from DiffTumorSlicerLib.panels.segmentation.learning_group import LearningGroup
from DiffTumorSlicerLib.panels.segmentation.lesion_group import LesionGroup
from DiffTumorSlicerLib.panels.segmentation.segmenter_group import SegmenterGroup
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.progress import Progress
from DiffTumorSlicerLib.panels.shared.run_button import RunButton
from DiffTumorSlicerLib.panels.shared.shortcuts import Shortcuts
from DiffTumorSlicerLib.panels.shared.surroundings import Surroundings
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, say
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.segmentation.models import learning_rows, segmenter_rows
from DiffTumorSlicerLib.segmentation.results import is_segmented, results_of

KEYS = {"paintButton": "P", "goToSliceButton": "G"}
TRAINED, LEARNED = "trained", "learned"
PLACES = {
    TRAINED: Place(
        *("segmenting", "segmented_organ", "segmented_organ_id", segmenter_rows),
        organ_needed=False,
        stands_for=(SegmentationParameters, "models"),
    ),
    LEARNED: Place(
        *("learning", "segmented_organ", "segmented_organ_id", learning_rows),
        stands_for=(LearningParameters, "model"),
    ),
}


class SegmentationPanel:
    """Joins its groups, and starts and follows the jobs."""

    def __init__(self, around: Surroundings) -> None:
        scene, session = around.scene, around.session
        self._scene = scene
        self._session = session
        self._section = around.section
        self._requirements = around.requirements
        self._parameters: Any = None
        self._scan_id = ""  # of the scan that results were looked for last
        self.widget, self.ui = around.load("SegmentationPanel")
        ui = self.ui
        self.progress = Progress(
            ui.segmentProgressBar, ui.segmentProgressLabel, ui.segmentMessageLabel
        )
        self.settings = SegmenterGroup(ui)
        self.inputs = MapInputGroup(
            ui, scene, self.progress.say, self._model_changed, PLACES[TRAINED]
        )
        self.learning = LearningGroup(ui, scene, self.progress.say, self.inputs)
        self.lesions = LesionGroup(ui, scene, self.progress.say, self._organ)
        ui.wayComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_way())
        for name in SEQUENCES:
            getattr(ui, f"{name}Selector").connect(
                "currentNodeChanged(vtkMRMLNode*)",
                lambda node, name=name: self._choose_sequence(name, node),
            )
        ui.learnAgainButton.connect("clicked()", self.run)
        self._shortcuts = Shortcuts(self.widget)
        for name, key in KEYS.items():
            self._shortcuts.add(key, getattr(ui, name))
        self.run_button = RunButton(
            ui.segmentButton, _("Segment"), self._shortcuts, self.run, self.cancel
        )
        self.refresh()

    # ------------------------------------------------------------------------------------ state

    @property
    def way(self) -> str:
        """Whether a trained model segments, or slices are learned from."""
        return TRAINED if self._parameters is None else self._parameters.segmenting_way

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        if parameters is None:
            self.progress.forget()
        self._parameters = parameters
        self._scan_id = ""
        self.settings.set_parameter_node(parameters)
        self.inputs.use(PLACES[self.way])
        for group in (self.inputs, self.learning, self.lesions):
            group.set_parameter_node(parameters)
        self.refresh()

    def selectors(self) -> tuple[tuple[Any, Any], ...]:
        """Node selectors and what they should show."""
        ui, p = self.ui, self._parameters
        sequences = ((getattr(ui, f"{n}Selector"), getattr(p, f"sequence_{n}")) for n in SEQUENCES)
        return (*sequences, (ui.labelsSelector, p.painted), (ui.segmentedSelector, p.segmented))

    def enter(self) -> None:
        """Look what has changed while another module was open."""
        self.inputs.enter()
        self.learning.refresh()

    def cleanup(self) -> None:
        """Let go of the keys and of what was learned."""
        self._shortcuts.remove()
        self.learning.cleanup()

    def tick(self) -> None:
        """Follow views and labels; called by the module's timer."""
        if self._section.collapsed or self._parameters is None:
            return
        self.inputs.tick()
        if self.way == LEARNED and self.learning.tick():
            self.refresh()

    def refresh(self) -> None:
        """Show the state of scene and parameters; writes nothing but a result of another scan."""
        ui = self.ui
        ways = {TRAINED: _("With a trained model"), LEARNED: _("Learn from slices that I paint")}
        fill_combo(ui.wayComboBox, ways, self.way)
        self.inputs.use(PLACES[self.way])
        self.inputs.refresh()
        learned = self.way == LEARNED
        ui.trainedGroup.visible = not learned
        ui.paintGroup.visible = ui.moreLearnGroup.visible = learned
        ui.segmentRunGroup.title = _("2   Learn") if learned else _("Segment")
        self.run_button.rename(_("Learn from my slices") if learned else _("Segment"))
        if self._parameters is not None:
            self._follow_scan()
        self.settings.refresh()
        self.learning.refresh()
        self.lesions.refresh()
        step = "" if self.run_button.running else self.next_step()
        say(ui.segmentHintLabel, step if step != self.progress.said else "")
        say(ui.segmentEstimateLabel, "" if self.run_button.running or step else self._estimate())

    def next_step(self) -> str:
        """What is still missing; "" if nothing is."""
        step = self.inputs.next_step()
        return step or (self.learning.next_step() if self.way == LEARNED else "")

    # ------------------------------------------------------------------------------------- jobs

    def run(self) -> None:
        """Segment, or learn."""
        if self.run_button.running:
            return
        missing = self.next_step()
        if missing:
            self.progress.say(missing)
        elif self.progress.attempt(self._ask):
            return
        self.refresh()

    def cancel(self) -> None:
        """Stop the job; nothing is changed."""
        if self.run_button.running:
            self._session.cancel(self._session.states[SEGMENTATION].number)

    def follow(self, state: JobState) -> None:
        """Show how the job is getting on, and its result; called by the session."""
        if state.panel != SEGMENTATION:
            return
        self.progress.follow(state)
        self.run_button.show(state.running)
        self.ui.wayComboBox.enabled = self.ui.learnAgainButton.enabled = not state.running
        self.lesions.busy = state.running
        if not state.running:
            self._take(state)
        self.refresh()

    def _take(self, state: JobState) -> None:
        """Show what a job has brought."""
        node = self._scene.GetNodeByID(state.result_node_id) if state.result_node_id else None
        if node is None or self._parameters is None:
            return
        if state.report.get("learned"):
            self.learning.learned(node, state.elapsed_s)
        else:
            windows = int(state.report.get("windows") or 0)
            self.settings.measured(settings.device(), state.elapsed_s, windows)
        scan = input_of(node)
        self._scan_id = scan.GetID() if scan is not None else ""
        self.lesions.choose(node)

    def _ask(self) -> None:
        """Send the request to the session."""
        self._requirements.ensure()
        images = self.inputs.images
        area, segment_id = self._organ()
        given = images if self.inputs.model.of_brain else next(iter(images.values()))
        nodes = {
            "segmentation_node": area, "segment_id": segment_id or None, "device": settings.device(),
        }  # fmt: skip
        p = self._parameters
        if self.way == LEARNED:
            self._session.learn(
                learning_request(p),
                given,
                self.learning.labels,
                model_folder=self.learning.model_folder,
                **nodes,
            )
            return
        self._session.segment(
            {**segmentation_request(p), "plane": p.learning.plane},
            given,
            probability=p.keep_probability,
            **nodes,
        )

    def _estimate(self) -> str:
        """How long the next press will take, as far as it can be told."""
        if self._parameters is None:
            return ""
        if self.way == LEARNED:
            return self.learning.estimate()
        return self.settings.estimate(self.inputs, settings.device())

    def _organ(self) -> tuple[Any, str]:
        """Segmentation and segment of the organ; none while only the segmentation is chosen."""
        area, segment_id = self.inputs.area, self.inputs.segment_id
        return (area, segment_id) if area is not None and segment_id else (None, "")

    # ---------------------------------------------------------------------------------- inside

    def _choose_way(self) -> None:
        way = chosen_of(self.ui.wayComboBox)
        if self._parameters is not None and way and way != self._parameters.segmenting_way:
            self._parameters.segmenting_way = way
            self.progress.say("")
            self.refresh()

    def _choose_sequence(self, name: str, node: Any) -> None:
        if self._parameters is not None:
            setattr(self._parameters, f"sequence_{name}", node)

    def _model_changed(self) -> None:
        """Another model recommends other values."""
        if self.way == TRAINED:
            self.settings.set_model(self.inputs.model.id)

    def _follow_scan(self) -> None:
        """With another scan, work on the newest of its results, or on none."""
        scan, shown = self.inputs.scan, self._parameters.segmented
        if scan is None or scan.GetID() == self._scan_id:
            return
        self._scan_id = scan.GetID()
        if not is_segmented(shown) or input_of(shown) is not scan:
            found = results_of(self._scene, scan)
            self._parameters.segmented = found[-1] if found else None
