"""The stand-ins of widgets that show MRML nodes, and the one that lets place a markup."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.node_combo_box import NodeComboBox
from Testing.slicer_stand_in.pythonqt import emit, native_signal, python_class
from Testing.slicer_stand_in.scene_widgets import MrmlWidget, Observations, SceneWidget
from Testing.slicer_stand_in.segment_selector import SegmentSelector


class _PlaceWidget(SceneWidget):
    """The button that puts the mouse into the mode that places a markup."""

    activeMarkupsPlaceModeChanged = QtCore.Signal(bool)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._button = python_class(QtWidgets.QPushButton)("Place")
        self._button.checkable = True
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._node_id: str | None = None
        self._was_active = False
        self._observations = Observations()
        self._button.connect("clicked(bool)", self.setPlaceModeEnabled)
        native_signal(self, "destroyed()").connect(self._observations.clear)

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        super().setMRMLScene(scene)
        self._observations.clear()
        for node in (self.interactionNode(), self.selectionNode()):
            if node is not None:
                self._observations.add(
                    node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._update()
                )

    def interactionNode(self) -> slicer.vtkMRMLInteractionNode | None:
        scene = self._scene
        return scene.GetFirstNodeByClass("vtkMRMLInteractionNode") if scene else None

    def selectionNode(self) -> slicer.vtkMRMLSelectionNode | None:
        scene = self._scene
        return scene.GetFirstNodeByClass("vtkMRMLSelectionNode") if scene else None

    def placeButton(self) -> QtWidgets.QPushButton:
        return self._button

    def currentNode(self) -> slicer.vtkMRMLMarkupsNode | None:
        scene = self._scene
        return scene.GetNodeByID(self._node_id) if scene and self._node_id else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self._node_id = node.GetID() if node is not None else None
        QtWidgets.QWidget.setEnabled(self._button, node is not None)
        self._update()

    def _is_active(self) -> bool:
        node, selection = self.currentNode(), self.selectionNode()
        return bool(
            node
            and selection
            and selection.GetActivePlaceNodeID() == node.GetID()
            and self.interactionNode().GetCurrentInteractionMode()
            == slicer.vtkMRMLInteractionNode.Place
        )

    def setPlaceModeEnabled(self, value: bool) -> None:
        node, interaction = self.currentNode(), self.interactionNode()
        if interaction is None or node is None:
            return
        if value:
            selection = self.selectionNode()
            selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
            selection.SetActivePlaceNodeID(node.GetID())
            interaction.SetPlaceModePersistence(0)
            interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.Place)
        elif self._is_active():
            interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.ViewTransform)
        self._update()

    def _update(self) -> None:
        active = self._is_active()
        QtWidgets.QAbstractButton.setChecked(self._button, active)
        if active != self._was_active:
            self._was_active = active
            emit(self, "activeMarkupsPlaceModeChanged(bool)", active)

    placeModeEnabled = QtCore.Property(bool, lambda self: self._is_active(), setPlaceModeEnabled)
    buttonsVisible = QtCore.Property(
        bool,
        lambda self: not QtWidgets.QWidget.isHidden(self._button),
        lambda self, value: QtWidgets.QWidget.setVisible(self._button, value),
    )


CLASSES = {
    "qMRMLWidget": MrmlWidget,
    "qMRMLNodeComboBox": NodeComboBox,
    "qMRMLSegmentSelectorWidget": SegmentSelector,
    "qSlicerMarkupsPlaceWidget": _PlaceWidget,
    "qSlicerWidget": SceneWidget,
}


def install() -> None:
    """Put the classes into the namespace `slicer`."""
    for name, kind in CLASSES.items():
        setattr(slicer, name, python_class(kind, name))
