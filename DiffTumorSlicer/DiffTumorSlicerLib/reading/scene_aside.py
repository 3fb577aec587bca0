"""The person's own outlines, points and models, put out of sight while somebody reads, and brought back.  MRML only.

Slicer shows what has a display node in every slice view, so the reading's views would show it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Volumes are shown where a view asks for them; a slice view's own display node only draws its outline.
LEFT_ALONE = ("vtkMRMLVolumeDisplayNode", "vtkMRMLSliceDisplayNode")


class SceneAside:
    """Hides what is visible in a scene, without forgetting what it was."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._hidden: list[str] = []  # ids of display nodes

    def hide(self, except_for: str = "") -> None:
        """Hide what is visible; called again, also what has come since.

        Args:
            except_for: id of a display node that stays as it is.
        """
        for index in range(self._scene.GetNumberOfNodesByClass("vtkMRMLDisplayNode")):
            node = self._scene.GetNthNodeByClass(index, "vtkMRMLDisplayNode")
            if node.GetID() == except_for or not node.GetVisibility():
                continue
            if any(node.IsA(kind) for kind in LEFT_ALONE):
                continue
            node.SetVisibility(False)
            self._hidden.append(node.GetID())

    def bring_back(self) -> None:
        """Show again what was hidden."""
        hidden, self._hidden = self._hidden, []
        for node_id in hidden:
            node = self._scene.GetNodeByID(node_id)
            if node is not None:
                node.SetVisibility(True)


class SceneEvents:
    """Tells before the scene is closed, replaced or joined by another one."""

    def __init__(self, scene: Any, tell: Callable[[], None]) -> None:
        """Listen to `scene`; `tell` is called while it is still as it was."""
        self._scene = scene
        events = (scene.StartCloseEvent, scene.StartImportEvent, scene.StartRestoreEvent)
        self._tags = [scene.AddObserver(event, lambda *_: tell()) for event in events]

    def stop(self) -> None:
        """Listen no more."""
        tags, self._tags = self._tags, []
        for tag in tags:
            self._scene.RemoveObserver(tag)
