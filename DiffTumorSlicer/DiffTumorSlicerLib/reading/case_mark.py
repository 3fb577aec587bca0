"""The place that a reader marked in a case: one point without a name, not saved with the scene.  MRML only."""

from __future__ import annotations

from typing import Any

import slicer

from DiffTumorSlicerLib.scene.volume_nodes import remove_node

NAME = "Mark"


class CaseMark:
    """A point list of one point or none."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._node_id = ""

    @property
    def display_id(self) -> str:
        """Id of its display node; empty if there is none."""
        node = self._node()
        return str(node.GetDisplayNodeID()) if node is not None else ""

    def show(self, point: tuple[float, float, float] | None) -> None:
        """Show the mark at a place, RAS mm, or nowhere."""
        node = self._node()
        if point is None:
            if node is not None:
                node.RemoveAllControlPoints()
            return
        node = node or self._add()
        if node.GetNumberOfControlPoints() == 0:
            node.AddControlPoint(point)
            node.SetNthControlPointLocked(0, True)
        else:
            node.SetNthControlPointPosition(0, *point)

    def remove(self) -> None:
        """Take it out of the scene."""
        node, self._node_id = self._node(), ""
        if node is not None:
            remove_node(self._scene, node)

    def _node(self) -> Any:
        return self._scene.GetNodeByID(self._node_id) if self._node_id else None

    def _add(self) -> Any:
        node = slicer.vtkMRMLMarkupsFiducialNode()
        node.SetName(NAME)
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)
        node = self._scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetPointLabelsVisibility(False)
        display.SetPropertiesLabelVisibility(False)
        # A click beside the old place marks the new one; the point itself takes no mouse.
        node.SetLocked(True)
        self._node_id = node.GetID()
        return node
