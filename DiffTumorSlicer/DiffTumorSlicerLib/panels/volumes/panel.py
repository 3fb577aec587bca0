"""The Volumes panel: which scan, what is known about it, and what speaks against it."""

from __future__ import annotations

from html import escape
from typing import Any

import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.jobs.sample_phantom import PhantomError, PhantomMaker
from DiffTumorSlicerLib.panels.shared.surroundings import Surroundings
from DiffTumorSlicerLib.panels.shared.widgets import say, switch_to_module
from DiffTumorSlicerLib.scene.geometry import SceneError, has_nonlinear_parent
from DiffTumorSlicerLib.scene.hardening import harden_clone
from DiffTumorSlicerLib.scene.volume_nodes import modality_of
from DiffTumorSlicerLib.scene.volumes_info import volume_facts, volume_warnings

FACTS = ("modality", "size", "orientation", "range", "model")


class VolumesPanel:
    """Choose or load a scan; facts and warnings follow the choice."""

    def __init__(self, around: Surroundings) -> None:
        self._scene = around.scene
        self._session = around.session
        self._parameters: Any = None
        self._described: tuple[Any, ...] = ()
        self._phantom = PhantomMaker(around.scene)
        self._awaiting: list[str] | None = None  # volumes before the DICOM module was opened
        self.widget, self.ui = around.load("VolumesPanel")
        self.ui.loadFileButton.connect("clicked()", self.load_file)
        self.ui.loadDicomButton.connect("clicked()", self.open_dicom)
        self.ui.phantomButton.connect("clicked()", self.make_phantom)
        self.ui.remedyButton.connect("clicked()", self.harden)
        say(self.ui.volumesMessage, "")
        self.refresh()

    @property
    def volume(self) -> Any:
        """The chosen scan, or None."""
        return self._parameters.volume if self._parameters is not None else None

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self._described = ()

    def enter(self) -> None:
        """Choose the scan that was loaded in the DICOM module meanwhile, if one was."""
        if self._awaiting is not None:
            awaited, self._awaiting = self._awaiting, None
            self._choose_new(awaited)

    def cleanup(self) -> None:
        """End what still runs."""
        self._phantom.close()

    # --------------------------------------------------------------------------------- loading

    def load_file(self) -> None:
        """Load a scan from a file, with Slicer's own dialog, and choose it."""
        before = self._volumes()
        slicer.util.openAddVolumeDialog()
        self._choose_new(before)

    def open_dicom(self) -> None:
        """Go to Slicer's DICOM module; what is loaded there is chosen when the person comes back."""
        if getattr(slicer.modules, "dicom", None) is None:
            say(
                self.ui.volumesMessage,
                _("This Slicer has no DICOM module. Load the scan from a file instead."),
            )
            return
        self._awaiting = self._volumes()
        switch_to_module("DICOM")

    def make_phantom(self) -> None:
        """Make the sample phantom, or stop making it."""
        if self._phantom.busy:
            self._phantom.close()
            say(self.ui.volumesMessage, _("Stopped. The scene is as it was."))
        else:
            self._phantom.start(self._session.host.python)
            say(self.ui.volumesMessage, _("Making the phantom. This takes some seconds…"))
        self._show_phantom()

    def harden(self) -> None:
        """Copy the scan and apply its bending transform to the copy, and choose the copy."""
        if self.volume is None:
            return
        organs = self._parameters.segmentation
        try:
            with slicer.util.WaitCursor():
                copy = harden_clone(self._scene, self.volume)
                if organs is not None and has_nonlinear_parent(organs):
                    self._parameters.segmentation = harden_clone(self._scene, organs)
        except SceneError as error:
            say(self.ui.volumesMessage, str(error))
            return
        original = self.volume.GetName()
        self._choose(copy)
        say(
            self.ui.volumesMessage,
            _("You now work on “{copy}”. “{original}” stays as it was.").format(
                copy=copy.GetName(), original=original
            ),
        )

    def tick(self) -> None:
        """Look after the phantom; called by the module's timer."""
        try:
            made = self._phantom.poll()
        except PhantomError as error:
            say(self.ui.volumesMessage, _("The phantom could not be made. {why}").format(why=error))
            self._show_phantom()
            return
        if made is None:
            return
        volume, segmentation = made
        self._choose(volume)
        if self._parameters is not None:
            self._parameters.segmentation = segmentation
            self._parameters.segment_id = "liver"
        say(self.ui.volumesMessage, _("The phantom is ready; its organs are outlined."))
        self._show_phantom()

    # --------------------------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show the facts of the chosen scan; cheap while nothing has changed."""
        if self._scene.IsBatchProcessing():
            return  # a scene that is being loaded: its subject hierarchy is not joined to its nodes yet
        node = self.volume
        state = _state_of(node)
        if state == self._described:
            return
        self._described = state
        facts = _facts_of(node)
        self.ui.emptyLabel.visible = node is None
        self.ui.factsFrame.visible = bool(facts)
        for name in FACTS:
            getattr(self.ui, f"{name}Value").text = facts.get(name, "")
        self.ui.remedyButton.visible = node is not None and has_nonlinear_parent(node)
        say(self.ui.warningsLabel, as_warnings(volume_warnings(node) if node is not None else []))

    def _show_phantom(self) -> None:
        busy = self._phantom.busy
        self.ui.phantomButton.text = _("Stop") if busy else _("Sample phantom")

    def _volumes(self) -> list[str]:
        """Ids in the order in which the volumes came; sorted as text, 10 would come before 9."""
        name = "vtkMRMLScalarVolumeNode"
        count = self._scene.GetNumberOfNodesByClass(name)
        return [self._scene.GetNthNodeByClass(n, name).GetID() for n in range(count)]

    def _choose_new(self, before: list[str]) -> None:
        """Choose what was loaded, if something was."""
        new = [node_id for node_id in self._volumes() if node_id not in before]
        if new:
            self._choose(self._scene.GetNodeByID(new[-1]))
            say(self.ui.volumesMessage, "")

    def _choose(self, node: Any) -> None:
        if self._parameters is not None:
            self._parameters.volume = node
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        self.refresh()


def as_warnings(notes: list[str]) -> str:
    """Sentences as rich text, each with a word that says that it is a warning."""
    lead = _("Please note:")
    return "<br>".join(f"<b>{escape(lead)}</b> {escape(note)}" for note in notes)


def _facts_of(node: Any) -> dict[str, str]:
    """Facts of a volume; none of one whose place is not clear, the warnings then tell why."""
    try:
        facts = volume_facts(node) if node is not None else {}
    except SceneError:
        return {}
    if facts:
        facts["size"] = _("{size} of {spacing}").format(**facts)
    return facts


def _state_of(node: Any) -> tuple[Any, ...]:
    """Changes with everything that the panel says about a node."""
    if node is None:
        return (None,)
    image, parent = node.GetImageData(), node.GetParentTransformNode()
    return (
        node.GetID(),
        node.GetMTime(),
        modality_of(node.GetScene(), node),
        image.GetMTime() if image is not None else -1,
        (parent.GetID(), parent.GetMTime(), parent.GetTransformToWorldMTime())
        if parent is not None
        else None,
    )
