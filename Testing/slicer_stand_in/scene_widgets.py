"""What the stand-ins that show MRML nodes have in common: a scene, and observers of it."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.pythonqt import emit


class SceneWidget(QtWidgets.QWidget):
    """A widget that is given the scene and passes it on."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._scene: slicer.vtkMRMLScene | None = None

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        if scene is not self._scene:
            self._scene = scene
            emit(self, "mrmlSceneChanged(vtkMRMLScene*)", scene)


class MrmlWidget(SceneWidget):
    """`qMRMLWidget`, which also tells its scene."""

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self._scene


class Observations:
    """VTK observers that end together."""

    def __init__(self) -> None:
        self._tags: list[tuple[vtk.vtkObject, int]] = []

    def add(self, observed: vtk.vtkObject, event: Any, function: Any) -> None:
        self._tags.append((observed, observed.AddObserver(event, function)))

    def clear(self) -> None:
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags = []


def menu_option(name: str) -> QtCore.Property:
    """A property that matters to the pop-up menu only, which the stand-in does not have."""
    return QtCore.Property(
        bool,
        lambda self: self._options[name],
        lambda self, v: self._options.update({name: v}),
    )
