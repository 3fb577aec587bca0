"""Which organ: its anatomy, its segment, and the way to TotalSegmentator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.panels.shared.organ_finder import OrganFinder
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, quietly


class OrganGroup:
    """The group "Organ" of the Synthesis panel."""

    def __init__(
        self, ui: Any, scene: Any, say: Callable[[str], None], organ_changed: Callable[[], None]
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Synthesis panel.
            scene: where segmentations are looked for.
            say: shows a sentence to the person.
            organ_changed: called when the anatomy changes, as other models fit then.
        """
        self._ui = ui
        self._scene = scene
        self._say = say
        self._organ_changed = organ_changed
        self._parameters: Any = None
        self._finder = OrganFinder(scene, say)
        ui.organComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_organ())
        ui.segmentSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose_node)
        ui.segmentSelector.connect("currentSegmentChanged(QString)", self._choose_segment)
        ui.totalSegmentatorButton.connect("clicked()", self.find_organs)

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self.refresh()

    def enter(self) -> None:
        """Choose the organs that TotalSegmentator has found meanwhile."""
        found = self._finder.found() if self._parameters is not None else None
        if found is not None:
            self._parameters.segmentation = found
            self._match_segment()
            self.refresh()

    def find_organs(self) -> None:
        """Open TotalSegmentator with this scan, or say how to get it."""
        self._finder.open(self._parameters.volume if self._parameters is not None else None)

    def refresh(self) -> None:
        """Show the parameters; writes nothing."""
        if self._parameters is None:
            return
        asked = self._parameters.synthesis
        fill_combo(self._ui.organComboBox, texts.organs(), asked.organ)
        selector = self._ui.segmentSelector
        with quietly(selector):
            if selector.currentNode() is not self._parameters.segmentation:
                selector.setCurrentNode(self._parameters.segmentation)
            if selector.currentSegmentID() != self._parameters.segment_id:
                selector.setCurrentSegmentID(self._parameters.segment_id)
        has_segment = bool(self._parameters.segmentation and self._parameters.segment_id)
        self._ui.clipCheckBox.enabled = has_segment

    def _choose_organ(self) -> None:
        organ = chosen_of(self._ui.organComboBox)
        if self._parameters is None or not organ:
            return
        self._parameters.synthesis.organ = organ
        self._match_segment()
        self._organ_changed()

    def _choose_node(self, node: Any) -> None:
        if self._parameters is None:
            return
        self._parameters.segmentation = node
        self._parameters.segment_id = self._ui.segmentSelector.currentSegmentID()
        self._match_segment()

    def _choose_segment(self, segment_id: str) -> None:
        if self._parameters is None:
            return
        self._parameters.segment_id = segment_id
        organ = self._organ_of(segment_id)
        if organ and organ != self._parameters.synthesis.organ:
            self._parameters.synthesis.organ = organ
            self._organ_changed()
        self.refresh()

    def _match_segment(self) -> None:
        """Choose the segment of the anatomy, if one is named so and none of another organ is meant."""
        node = self._parameters.segmentation
        if node is None:
            self._parameters.segment_id = ""
            return
        organ = self._parameters.synthesis.organ
        if self._organ_of(self._parameters.segment_id) == organ:
            return
        ids = list(node.GetSegmentation().GetSegmentIDs())
        fitting = [segment_id for segment_id in ids if self._organ_of(segment_id) == organ]
        if fitting:
            self._parameters.segment_id = fitting[0]
        self.refresh()

    def _organ_of(self, segment_id: str) -> str:
        """Anatomy that a segment's name tells; empty if it tells none."""
        node = self._parameters.segmentation
        segment = node.GetSegmentation().GetSegment(segment_id) if node and segment_id else None
        name = (segment.GetName() or "").lower() if segment else ""
        found = [organ for organ in texts.organs() if organ in name]
        other = any(word in name for word in ("vessel", "cyst", "tumor", "lesion"))
        return found[0] if len(found) == 1 and not other else ""
