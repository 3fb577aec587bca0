"""`qMRMLSegmentSelectorWidget`: a segmentation, and one of its segments."""

from __future__ import annotations

import slicer
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.node_combo_box import NodeComboBox
from Testing.slicer_stand_in.pythonqt import emit, native_signal, python_class
from Testing.slicer_stand_in.scene_widgets import MrmlWidget, Observations, menu_option


class SegmentSelector(MrmlWidget):
    """A combo box for the segmentation and one for its segment."""

    currentNodeChanged = QtCore.Signal((object,), (bool,))
    currentSegmentChanged = QtCore.Signal(str)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._nodes = python_class(NodeComboBox, "qMRMLNodeComboBox")()
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = False
        self._segments = QtWidgets.QComboBox()
        self._none_enabled, self._ids, self._segment_id = False, [], ""
        self._options = {"editEnabled": False, "multiSelection": False}
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._nodes, 1)
        layout.addWidget(self._segments, 1)
        self._observations = Observations()
        self._nodes.connect("currentNodeChanged(vtkMRMLNode*)", self._on_node)
        self._segments.currentIndexChanged.connect(self._on_segment)
        native_signal(self, "destroyed()").connect(self._observations.clear)

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    def currentNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self._nodes.currentNode()

    def currentNodeID(self) -> str:
        return self._nodes.currentNodeID

    def currentSegmentID(self) -> str:
        return self._segment_id

    def segmentIDs(self) -> list[str]:
        return [one for one in self._ids if one]

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self._nodes.setCurrentNode(node)

    def setCurrentNodeID(self, node_id: str) -> None:
        self._nodes.setCurrentNodeID(node_id)

    def setCurrentSegmentID(self, segment_id: str) -> None:
        if segment_id in self._ids:
            self._segments.setCurrentIndex(self._ids.index(segment_id))

    def _on_node(self, node: slicer.vtkMRMLNode | None) -> None:
        self._observations.clear()
        if node is not None:
            for event in (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved,
                          slicer.vtkSegmentation.SegmentModified):  # fmt: skip
                self._observations.add(node.GetSegmentation(), event, lambda *_: self._refill())
        self._refill()
        emit(self, "currentNodeChanged(vtkMRMLNode*)", node)
        emit(self, "currentNodeChanged(bool)", node is not None)

    def _refill(self) -> None:
        node = self.currentNode()
        segmentation = node.GetSegmentation() if node is not None else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation else []
        none = [""] if self._none_enabled else []
        self._ids = [*none, *ids]
        self._segments.blockSignals(True)
        self._segments.clear()
        self._segments.addItems(
            [*("None" for _ in none), *(segmentation.GetSegment(one).GetName() for one in ids)]
        )
        index = self._ids.index(self._segment_id) if self._segment_id in self._ids else 0
        self._segments.setCurrentIndex(index if self._ids else -1)
        self._segments.blockSignals(False)
        self._on_segment(self._segments.currentIndex())

    def _on_segment(self, index: int) -> None:
        segment_id = self._ids[index] if 0 <= index < len(self._ids) else ""
        if segment_id != self._segment_id:
            self._segment_id = segment_id
            emit(self, "currentSegmentChanged(QString)", segment_id)

    def _set_none_enabled(self, value: bool) -> None:
        self._none_enabled = value
        self._nodes.noneEnabled = value
        self._refill()

    noneEnabled = QtCore.Property(bool, lambda self: self._none_enabled, _set_none_enabled)
    segmentationNodeSelectorVisible = QtCore.Property(
        bool,
        lambda self: not QtWidgets.QWidget.isHidden(self._nodes),
        lambda self, value: QtWidgets.QWidget.setVisible(self._nodes, value),
    )
    editEnabled = menu_option("editEnabled")
    multiSelection = menu_option("multiSelection")
