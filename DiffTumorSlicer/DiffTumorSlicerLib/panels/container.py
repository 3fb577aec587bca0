"""All panels of the module together, and the one timer that keeps them going."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
import vtk

from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.anomaly.panel import AnomalyPanel
from DiffTumorSlicerLib.panels.models.panel import ModelsPanel
from DiffTumorSlicerLib.panels.reading.panel import ReaderStudyPanel
from DiffTumorSlicerLib.panels.segmentation.panel import SegmentationPanel
from DiffTumorSlicerLib.panels.shared.surroundings import Requirements, Surroundings
from DiffTumorSlicerLib.panels.shared.widgets import quietly
from DiffTumorSlicerLib.panels.synthesis.panel import SynthesisPanel
from DiffTumorSlicerLib.panels.volumes.panel import VolumesPanel
from DiffTumorSlicerLib.session import Session

TICK_MS = 30


class Panels:
    """The sections of the module's widget.

    A further task is one more section in DiffTumorSlicer.ui, one .ui and one class beside these.
    """

    def __init__(
        self,
        widget: Any,
        session: Session,
        *,
        scene: Any,
        ui_folder: Path,
        requirements: Requirements,
    ) -> None:
        """Build all panels into the sections of `widget`.

        Args:
            widget: loaded from DiffTumorSlicer.ui.
            session: jobs of this module; it is polled from here.
            scene: the MRML scene.
            ui_folder: with the .ui files.
            requirements: of the worker's Python.
        """
        self._session = session
        self._parameters: Any = None
        self._tags: tuple[Any, list[Any]] | None = None
        self._guis: list[Any] = []
        self._entered = False
        self._dirty = True
        ui = slicer.util.childWidgetVariables(widget)

        def around(section: Any) -> Surroundings:
            return Surroundings(section, ui_folder, scene, session, requirements)

        self.volumes = VolumesPanel(around(ui.volumesSection))
        self.synthesis = SynthesisPanel(around(ui.synthesisSection))
        self.anomaly = AnomalyPanel(around(ui.anomalySection))
        self.segmentation = SegmentationPanel(around(ui.segmentationSection))
        self.models = ModelsPanel(around(ui.modelsSection), self._read_models)
        study_section = ui.readerStudySection
        self.reader_study = ReaderStudyPanel(
            around(study_section),
            others=[
                w for n, w in vars(ui).items() if n.endswith("Section") and w is not study_section
            ],
            step_aside=self._step_aside,
        )
        self._listeners: tuple[Any, ...] = (
            self.anomaly.follow,
            self.synthesis.follow,
            self.segmentation.follow,
            self.models.follow,
        )
        for listener in self._listeners:
            session.add_listener(listener)
        self._timer = qt.QTimer()
        self._timer.interval = TICK_MS
        self._timer.connect("timeout()", self.tick)
        self._timer.start()

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node (`jobs.parameter_node.ModuleParameters`), or none."""
        wrapper: Any = parameters  # the decorator gives the class more than it says
        self._disconnect()
        self._parameters = parameters
        if parameters is not None:
            node = wrapper.parameterNode
            tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_modified)
            self._tags = (node, tag)
            for panel in (self.volumes, self.anomaly, self.synthesis, self.segmentation):
                self._guis.append(wrapper.connectGui(panel.ui))
        self.volumes.set_parameter_node(parameters)
        self.anomaly.set_parameter_node(parameters)
        self.synthesis.set_parameter_node(parameters)
        self.segmentation.set_parameter_node(parameters)
        self._dirty = True
        self.refresh()
        self._dirty = True  # while a scene is loaded, node selectors do not know its nodes yet

    def enter(self) -> None:
        """The module is opened."""
        self._entered = True
        self.volumes.enter()
        self.anomaly.enter()
        self.synthesis.enter()
        self.segmentation.enter()
        self.models.enter()
        self._dirty = True
        self.refresh()

    def exit(self) -> None:
        """Another module is opened; a job goes on."""
        self._entered = False
        self.reader_study.leave()
        self._step_aside()

    def cleanup(self) -> None:
        """The module goes away; a second call does nothing."""
        self._timer.stop()
        for listener in self._listeners:
            self._session.remove_listener(listener)
        self._listeners = ()
        self._disconnect()
        self._parameters = None
        self.reader_study.cleanup()
        self.volumes.cleanup()
        self.anomaly.cleanup()
        self.synthesis.cleanup()
        self.segmentation.cleanup()

    def say(self, text: str) -> None:
        """Show a sentence to the person."""
        self.synthesis.progress.say(text)

    def tick(self) -> None:
        """Look after jobs, mouse and clock; called by the timer."""
        self._session.poll()
        self.volumes.tick()
        if self._entered:
            self.reader_study.tick()
        if self._entered and not self.reader_study.in_room:
            self.anomaly.tick()
            self.synthesis.tick()
            self.segmentation.tick()
            self.refresh()

    def refresh(self) -> None:
        """Show what has changed in the scene since the last time."""
        self.volumes.refresh()
        if self._dirty:
            self._dirty = False
            self._show_nodes()
            self.anomaly.refresh()
            self.synthesis.refresh()
            self.segmentation.refresh()

    def _step_aside(self) -> None:
        """Let the panels give back the views that they use."""
        self.anomaly.leave()
        self.synthesis.leave()

    def _show_nodes(self) -> None:
        """Let the node selectors show what the parameter node holds."""
        if self._parameters is None:
            return
        for selector, node in (
            (self.volumes.ui.volumeSelector, self._parameters.volume),
            (self.synthesis.ui.roiSelector, self._parameters.roi),
            (self.synthesis.ui.resultSelector, self._parameters.result),
            *self.anomaly.selectors(),
            *self.segmentation.selectors(),
        ):
            if selector.currentNode() is not node:
                with quietly(selector):
                    selector.setCurrentNode(node)

    def _read_models(self) -> None:
        """Models came or went."""
        self.anomaly.inputs.read_models()
        self.synthesis.tumor.read_models()
        self.segmentation.inputs.read_models()

    def _on_modified(self, *_: Any) -> None:
        self._dirty = True

    def _disconnect(self) -> None:
        """Let go of the parameter node."""
        if self._parameters is not None:
            for gui in self._guis:
                self._parameters.disconnectGui(gui)
        if self._tags is not None:
            node, tag = self._tags
            node.RemoveObserver(tag)
        self._guis, self._tags = [], None
