"""`qMRMLNodeComboBox`: the scene's nodes of certain classes, in a combo box that follows the scene."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.pythonqt import emit, native_signal
from Testing.slicer_stand_in.scene_widgets import Observations, menu_option

_SCENE_EVENTS = (
    slicer.vtkMRMLScene.NodeAddedEvent,
    slicer.vtkMRMLScene.NodeRemovedEvent,
    slicer.vtkMRMLScene.EndBatchProcessEvent,
    slicer.vtkMRMLScene.EndCloseEvent,
)


class NodeComboBox(QtWidgets.QWidget):
    """A combo box of the scene's nodes of certain classes."""

    currentNodeChanged = QtCore.Signal((object,), (bool,))
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._scene: slicer.vtkMRMLScene | None = None
        self._scene_observations, self._node_observations = Observations(), Observations()
        self._node_types: list[str] = []
        self._hidden_types: list[str] = []
        self._attributes: dict[str, tuple[str, str | None]] = {}
        self._none_enabled, self._none_text = False, "None"
        self._show_hidden, self._show_child_types = False, True
        self._options = {"addEnabled": True, "removeEnabled": True, "editEnabled": False,
                         "renameEnabled": False, "selectNodeUponCreation": True}  # fmt: skip
        self._base_name = ""
        self._ids: list[str | None] = []
        self._current_id: str | None = None
        self._box.currentIndexChanged.connect(self._on_index)
        self._box.activated.connect(
            lambda _: emit(self, "nodeActivated(vtkMRMLNode*)", self.currentNode())
        )
        native_signal(self, "destroyed()").connect(self._scene_observations.clear)
        native_signal(self, "destroyed()").connect(self._node_observations.clear)

    # ---------------------------------------------------------------------------- scene and nodes

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        if scene is self._scene:
            return
        self._scene_observations.clear()
        self._scene = scene
        if scene is not None:
            for event in _SCENE_EVENTS:
                self._scene_observations.add(scene, event, lambda *_: self._refill())
        self._refill()

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        return (
            self._scene.GetNodeByID(self._current_id) if self._scene and self._current_id else None
        )

    def setCurrentNode(self, node: slicer.vtkMRMLNode | str | None) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) or node is None else node.GetID())

    def setCurrentNodeID(self, node_id: str | None) -> None:
        if node_id and node_id in self._ids:
            self._box.setCurrentIndex(self._ids.index(node_id))
        elif self._none_enabled and self._ids:
            self._box.setCurrentIndex(0)
        else:
            self._box.setCurrentIndex(-1)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._box.setCurrentIndex(index + self._none_enabled)

    def nodeCount(self) -> int:
        return len(self._ids) - self._none_enabled

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        return self._scene.GetNodeByID(self._ids[index + self._none_enabled])

    def addNode(self, node_type: str = "") -> slicer.vtkMRMLNode:
        kind = node_type or self._node_types[0]
        name = self._base_name or slicer.__dict__[kind]().GetNodeTagName()
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(name))
        if self._options["selectNodeUponCreation"]:
            self.setCurrentNode(node)
        emit(self, "nodeAddedByUser(vtkMRMLNode*)", node)
        return node

    def removeCurrentNode(self) -> None:
        if self.currentNode() is not None:
            self._scene.RemoveNode(self.currentNode())

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._attributes[node_type] = (name, None if value is None else str(value))
        self._refill()

    def _fits(self, node: slicer.vtkMRMLNode) -> bool:
        """Whether the node is listed."""
        if node.GetHideFromEditors() and not self._show_hidden:
            return False
        if any(node.IsA(kind) for kind in self._hidden_types):
            return False
        for kind in self._node_types:
            if not (node.IsA(kind) if self._show_child_types else node.GetClassName() == kind):
                continue
            name, value = self._attributes.get(kind, ("", None))
            if name and node.GetAttribute(name) is None:
                continue
            if not name or value is None or node.GetAttribute(name) == value:
                return True
        return False

    def _refill(self) -> None:
        """List the nodes anew; the current one stays, if it is still there."""
        if self._scene is not None and self._scene.IsBatchProcessing():
            return
        self._node_observations.clear()
        nodes = []
        if self._scene is not None and self._node_types:
            nodes = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
            nodes = [node for node in nodes if self._fits(node)]
        none = [None] if self._none_enabled else []
        self._ids = [*none, *(node.GetID() for node in nodes)]
        self._box.blockSignals(True)
        self._box.clear()
        self._box.addItems(
            [*(self._none_text for _ in none), *(node.GetName() or "" for node in nodes)]
        )
        for node in nodes:
            self._node_observations.add(
                node, vtk.vtkCommand.ModifiedEvent, lambda caller, _: self._rename(caller)
            )
        # Without "none" there is always a current node, if there is any.
        first = 0 if self._ids else -1
        index = self._ids.index(self._current_id) if self._current_id in self._ids else first
        self._box.setCurrentIndex(index)
        self._box.blockSignals(False)
        self._on_index(index)

    def _rename(self, node: slicer.vtkMRMLNode) -> None:
        if node.GetID() in self._ids:
            self._box.setItemText(self._ids.index(node.GetID()), node.GetName() or "")

    def _on_index(self, index: int) -> None:
        node_id = self._ids[index] if 0 <= index < len(self._ids) else None
        if node_id == self._current_id:
            return
        self._current_id = node_id
        node = self.currentNode()
        emit(self, "currentNodeChanged(vtkMRMLNode*)", node)
        emit(self, "currentNodeChanged(bool)", node is not None)
        emit(self, "currentNodeIDChanged(QString)", node_id or "")

    # --------------------------------------------------------------------------------- properties

    def _set(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        self._refill()

    def _set_none_text(self, value: str) -> None:
        self._set("_none_text", value)

    nodeTypes = QtCore.Property(
        "QStringList",
        lambda self: self._node_types,
        lambda self, value: self._set(
            "_node_types", [value] if isinstance(value, str) else list(value)
        ),
    )
    hideChildNodeTypes = QtCore.Property(
        "QStringList",
        lambda self: self._hidden_types,
        lambda self, value: self._set("_hidden_types", list(value)),
    )
    noneEnabled = QtCore.Property(
        bool, lambda self: self._none_enabled, lambda self, v: self._set("_none_enabled", v)
    )
    noneDisplay = QtCore.Property(str, lambda self: self._none_text, _set_none_text)
    showHidden = QtCore.Property(
        bool, lambda self: self._show_hidden, lambda self, v: self._set("_show_hidden", v)
    )
    showChildNodeTypes = QtCore.Property(
        bool, lambda self: self._show_child_types, lambda self, v: self._set("_show_child_types", v)
    )
    baseName = QtCore.Property(
        str, lambda self: self._base_name, lambda self, v: self.__dict__.update(_base_name=v)
    )
    currentNodeID = QtCore.Property(
        str, lambda self: self._current_id or "", lambda self, v: self.setCurrentNodeID(v)
    )
    sizeAdjustPolicy = QtCore.Property(
        QtWidgets.QComboBox.SizeAdjustPolicy,
        lambda self: self._box.sizeAdjustPolicy(),
        lambda self, v: self._box.setSizeAdjustPolicy(v),
    )
    addEnabled = menu_option("addEnabled")
    removeEnabled = menu_option("removeEnabled")
    editEnabled = menu_option("editEnabled")
    renameEnabled = menu_option("renameEnabled")
    selectNodeUponCreation = menu_option("selectNodeUponCreation")
