"""Which model, which images, and the organ or brain that is looked at: of heat maps and of segmentations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
from slicer.i18n import tr as _

from difftumor.images.sequences import SEQUENCES
from difftumor.parameters import AnomalyParameters
from difftumor.weights import models
from DiffTumorSlicerLib.jobs.case_images import bent, chosen_sequences, find_sequence_nodes
from DiffTumorSlicerLib.jobs.case_models import CaseModel, anomaly_rows, model_facts
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared.field_widgets import tip_of
from DiffTumorSlicerLib.panels.shared.organ_finder import OrganFinder
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, keep_narrow, quietly
from DiffTumorSlicerLib.scene.geometry import SceneError, has_nonlinear_parent
from DiffTumorSlicerLib.scene.hardening import harden_clone
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid

BRAIN = "brain"
NO_ORGAN = ("vessel", "cyst", "tumor", "lesion", "anomaly")  # words in names of other segments


@dataclass(frozen=True)
class Place:
    """Where the parameter node keeps what is chosen here, and which models are offered.

    Attributes:
        pack: with the model.
        area, segment: segmentation and segment of the organ or brain.
        offered: rows of `difftumor.weights.models.list_models` -> those that are offered, best first.
        organ_needed: whether a CT model does nothing without its organ.
        stands_for: parameters and field that hold the model.
    """

    pack: str = "anomaly"
    area: str = "area"
    segment: str = "area_segment_id"
    offered: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = anomaly_rows
    organ_needed: bool = True
    stands_for: tuple[type, str] = (AnomalyParameters, "model")


class MapInputGroup:
    """The group "Images and model" of the Anomaly and of the Segmentation panel."""

    def __init__(
        self,
        ui: Any,
        scene: Any,
        say: Callable[[str], None],
        model_changed: Callable[[], None],
        place: Place | None = None,
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the panel.
            scene: where images and segmentations are looked for.
            say: shows a sentence to the person.
            model_changed: called when another model is chosen, as it recommends other values.
            place: where the choice is kept; that of heat maps if None.
        """
        self._place = place or Place()
        self._ui = ui
        self._scene = scene
        self._say = say
        self._model_changed = model_changed
        self._parameters: Any = None
        self._rows: list[dict[str, Any]] = []
        self._model = CaseModel("", "")
        self._looked: tuple[Any, ...] = ()  # when sequences and organs were looked for last
        self._finder = OrganFinder(scene, say)
        ui.mapModelComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_model())
        ui.findSequencesButton.connect("clicked()", self.find_sequences)
        ui.findAreaButton.connect("clicked()", self.find_area)
        ui.areaSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose_area)
        ui.areaSelector.connect("currentSegmentChanged(QString)", self._choose_segment)
        ui.mapRemedyButton.connect("clicked()", self.harden)
        keep_narrow(ui.t1Selector, ui.t1cSelector, ui.t2Selector, ui.flairSelector)
        self.read_models()
        self._tell_models()

    def use(self, place: Place) -> None:
        """Choose among other models, and keep the choice in another place."""
        if place != self._place:
            self._place = place
            self._looked = ()
            self.read_models()

    @property
    def model(self) -> CaseModel:
        """Facts of the chosen model."""
        return self._model

    @property
    def area(self) -> Any:
        """The segmentation of the organ or brain, or None."""
        return None if self._parameters is None else getattr(self._parameters, self._place.area)

    @property
    def segment_id(self) -> str:
        """The segment in it, or ""."""
        return "" if self._parameters is None else getattr(self._parameters, self._place.segment)

    @property
    def _pack(self) -> Any:
        return getattr(self._parameters, self._place.pack)

    @property
    def images(self) -> dict[str, Any]:
        """Channel -> volume node or None, for the chosen model."""
        if self._parameters is None:
            return {}
        if not self._model.of_brain:
            return {self._model.channels[0]: self._parameters.volume}
        chosen = chosen_sequences(self._parameters)
        return {name: chosen.get(name) for name in self._model.channels}

    @property
    def scan(self) -> Any:
        """The image that a map is laid over, None while one is missing."""
        images = list(self.images.values())
        return images[-1] if images and all(images) else None

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self._looked = ()
        self.read_models()

    def enter(self) -> None:
        """Look for new models, and choose the organs that TotalSegmentator has found meanwhile."""
        self.read_models()
        found = self._finder.found()
        if found is not None and self._parameters is not None:
            setattr(self._parameters, self._place.area, found)
            self._match_segment()

    def read_models(self) -> None:
        """Look which models there are; called when the Models panel changed them, and on entering."""
        try:
            self._rows = self._place.offered(models.list_models())
        except models.ModelError as error:  # the registry of the installation cannot be read
            self._rows = []
            self._say(str(error))
        self._model = CaseModel("", "")  # read anew
        self.refresh()

    def next_step(self) -> str:
        """What is still missing before a map can be made; "" if nothing is."""
        if self._parameters is None:
            return _("Next: choose a scan in the section Volumes.")
        if not self._pack.model:
            return _("Next: choose a model.")
        if not self._model.of_brain and self._parameters.volume is None:
            return _("Next: choose a scan in the section Volumes.")
        if self._model.of_brain and not all(self.images.values()):
            return _("Next: choose the missing sequences, or load them and press “Find by name”.")
        try:
            for node in self.images.values():
                volume_grid(node)  # without it there is no place for a map
        except SceneError as error:
            return str(error)
        needs_organ = self._place.organ_needed and not self._model.of_brain
        if needs_organ and self._model.organs and not self._segment_is_chosen():
            return _("Next: choose the segment of the organ that the model knows.")
        if not self._model.installed:
            return _("Next: get the chosen model in the section Models, or choose another one.")
        return ""

    # ---------------------------------------------------------------------------------- actions

    def find_sequences(self) -> None:
        """Choose the sequences by the names of the loaded volumes."""
        if self._parameters is None:
            return
        found = self._take_sequences()
        missing = [name for name in self._model.channels if name not in found]
        if missing:
            words = ", ".join(_sequence_titles().get(name, name) for name in missing)
            self._say(
                _("Not found by name: {missing}. Load or choose them above.").format(missing=words)
            )
        else:
            self._say("")
        self.refresh()

    def find_area(self) -> None:
        """Lead to what outlines the organ or the brain."""
        if self._model.of_brain:
            self._say(
                _(
                    "Make a brain mask with HD-BET (extension HDBrainExtraction) or SwissSkullStripper from the "
                    "Extensions Manager, or outline the brain in the module Segment Editor, and choose it here. "
                    "Images that are skull-stripped already need none."
                )
            )
            return
        self._finder.open(self._parameters.volume if self._parameters is not None else None)

    def harden(self) -> None:
        """Copy all images that lie under a bending transform, apply it to the copies, and choose these."""
        if self._parameters is None:
            return
        names = []
        try:
            with slicer.util.WaitCursor():
                for name, node in self.images.items():
                    if node is None or not has_nonlinear_parent(node):
                        continue
                    copy = harden_clone(self._scene, node)
                    names.append(copy.GetName())
                    field = f"sequence_{name}" if self._model.of_brain else "volume"
                    setattr(self._parameters, field, copy)
                if self.area is not None and has_nonlinear_parent(self.area):
                    setattr(
                        self._parameters, self._place.area, harden_clone(self._scene, self.area)
                    )
        except SceneError as error:
            self._say(str(error))
            return
        self._say(
            _("You now work on {names}. The originals stay as they were.").format(
                names=", ".join(f"“{name}”" for name in names)
            )
        )

    # ----------------------------------------------------------------------------------- showing

    def tick(self) -> None:
        """See whether what can be told by name has come; called by the module's timer."""
        if self._parameters is not None:
            self._look_around()

    def refresh(self) -> None:
        """Show the parameters; writes nothing but sequences and an organ that can be told by name."""
        if self._parameters is None:
            return
        chosen = self._pack.model
        fill_combo(self._ui.mapModelComboBox, self._titles(chosen), chosen)
        if self._model.id != chosen:
            self._model = model_facts(chosen, self._rows)
            self._model_changed()
        self._tell_models()
        brain = self._model.of_brain
        self._look_around()
        self._ui.sequencesFrame.visible = brain
        for name in ("scanLabel", "scanNameLabel"):
            getattr(self._ui, name).visible = not brain
        volume = self._parameters.volume
        say_name = volume.GetName() if volume is not None else _("none, see the section Volumes")
        if self._ui.scanNameLabel.text != say_name:
            self._ui.scanNameLabel.text = say_name
        for name in SEQUENCES:
            for part in ("Label", "Selector"):
                getattr(self._ui, f"{name}{part}").visible = name in self._model.channels
        self._ui.areaLabel.text = _("Brain mask:") if brain else _("Organ outline:")
        selector = self._ui.areaSelector
        with quietly(selector):
            if selector.currentNode() is not self.area:
                selector.setCurrentNode(self.area)
            if selector.currentSegmentID() != self.segment_id:
                selector.setCurrentSegmentID(self.segment_id)
        self._ui.mapRemedyButton.visible = bool(bent(self.images.values()))

    # ------------------------------------------------------------------------------------ inside

    def _titles(self, chosen: str) -> dict[str, str]:
        """Words for each model that is offered; one that is chosen stays in the list in any case."""
        titles = {}
        for row in self._rows:
            title = row["title"]
            titles[row["id"]] = (
                title if row["installed"] else _("{title} (not installed)").format(title=title)
            )
        if chosen and chosen not in titles:
            titles[chosen] = chosen
        return titles

    def _tell_models(self) -> None:
        """The tool tip says what the model is for, and what the chosen one is."""
        words = (tip_of(*self._place.stands_for), self._model.description)
        self._ui.mapModelComboBox.toolTip = "\n".join(filter(None, words))

    def _choose_model(self) -> None:
        model = chosen_of(self._ui.mapModelComboBox)
        if self._parameters is None or not model or model == self._pack.model:
            return
        self._pack.model = model
        self.refresh()
        self._match_segment()

    def _look_around(self) -> None:
        """Choose what can be told by name, once after each change of model or scan."""
        volume = self._parameters.volume
        state = (self._model.id, volume.GetID() if volume is not None else "", *_seen(self._scene))
        if state == self._looked:
            return
        self._looked = state
        if self._model.of_brain and not any(self.images.values()):
            self._take_sequences()
        if self.area is None:
            self._match_segment()

    def _take_sequences(self) -> dict[str, Any]:
        found = find_sequence_nodes(self._scene, self._parameters.volume)
        for name in SEQUENCES:
            if name in self._model.channels and name in found:
                setattr(self._parameters, f"sequence_{name}", found[name])
        return found

    def _choose_area(self, node: Any) -> None:
        if self._parameters is None:
            return
        setattr(self._parameters, self._place.area, node)
        self._set_segment(self._ui.areaSelector.currentSegmentID())
        if node is not None:
            self._match_segment()

    def _choose_segment(self, segment_id: str) -> None:
        if self._parameters is not None:
            self._set_segment(segment_id)

    def _set_segment(self, segment_id: str) -> None:
        setattr(self._parameters, self._place.segment, segment_id)

    def _segment_is_chosen(self) -> bool:
        return self.area is not None and bool(self.segment_id)

    def _match_segment(self) -> None:
        """Choose the segment that is named like the model's organ; the person's own choice stays."""
        organs = (BRAIN,) if self._model.of_brain else self._model.organs
        node, chosen = self.area, self.segment_id
        if node is not None and chosen and _is_named(node, chosen, organs):
            return
        nodes = [node] if node is not None else _segmentations(self._scene, self._parameters)
        for one in nodes:
            for segment_id in one.GetSegmentation().GetSegmentIDs():
                if _is_named(one, segment_id, organs):
                    setattr(self._parameters, self._place.area, one)
                    self._set_segment(segment_id)
                    return
        if node is None:
            self._set_segment("")


def _sequence_titles() -> dict[str, str]:
    return {"t1": _("T1"), "t1c": _("T1 contrast"), "t2": _("T2"), "flair": _("FLAIR")}


def _seen(scene: Any) -> tuple[int, ...]:
    """Changes when an image, a segmentation or a segment comes or goes."""
    name = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    segments = [node.GetSegmentation().GetNumberOfSegments() for node in nodes]
    return (scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), *segments)


def _segmentations(scene: Any, parameters: Any) -> list[Any]:
    """All segmentations, first the one that the Synthesis panel uses."""
    name = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    return sorted(nodes, key=lambda node: node is not parameters.segmentation)


def _is_named(node: Any, segment_id: str, organs: tuple[str, ...]) -> bool:
    """Whether a segment's name tells one of the organs and nothing else."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    name = (segment.GetName() or "").lower() if segment is not None else ""
    return any(o in name for o in organs) and not any(w in name for w in NO_ORGAN)
