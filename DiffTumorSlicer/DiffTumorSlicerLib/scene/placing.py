"""Where the user points: one click in a view, the crosshair, or where the slice views meet.  MRML only.

Nothing here observes anything: the owner asks `take` again and again, so that a node which leaves the
scene while a click is awaited cannot call back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from DiffTumorSlicerLib.scene.volume_nodes import remove_node

Point = tuple[float, float, float]

SLICE_NAMES = ("Red", "Yellow", "Green")
CAMERA_MM = (150.0, 450.0)  # how far a camera may be from what it is to show


class ClickPlacement:
    """Wait for one click in any view.

    A point list is put into place mode, as Slicer's own Markups module does it; it is not saved with
    the scene and goes away with the click.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._node_id = ""

    @property
    def waiting(self) -> bool:
        """Whether a click is awaited."""
        return bool(self._node_id)

    def start(self) -> None:
        """Await a click; the next one in a view counts."""
        self.stop()
        node = slicer.vtkMRMLMarkupsFiducialNode()
        node.SetName("Tumor center")
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)
        node = self._scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        node.SetMaximumNumberOfControlPoints(1)
        display = node.GetDisplayNode()
        display.SetPointLabelsVisibility(False)
        display.SetSaveWithScene(False)
        self._node_id = node.GetID()
        selection = self._singleton("vtkMRMLSelectionNode")
        interaction = self._singleton("vtkMRMLInteractionNode")
        selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
        selection.SetActivePlaceNodeID(self._node_id)
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)

    def stop(self) -> None:
        """Await no click any more; the mouse moves the views again."""
        if not self._node_id:
            return
        node = self._scene.GetNodeByID(self._node_id)
        self._node_id = ""
        interaction = self._singleton("vtkMRMLInteractionNode")
        if interaction.GetCurrentInteractionMode() == interaction.Place:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        if node is not None:
            remove_node(self._scene, node)

    def take(self) -> Point | None:
        """The clicked point in world RAS mm, once; None as long as nothing was clicked.

        Leaving place mode in any other way (a right click, Escape, another tool) ends the waiting.
        """
        if not self._node_id:
            return None
        node = self._scene.GetNodeByID(self._node_id)
        if node is None:
            self.stop()
            return None
        if node.GetNumberOfDefinedControlPoints() > 0:
            point = tuple(float(v) for v in node.GetNthControlPointPositionWorld(0))
            self.stop()
            return point  # type: ignore[return-value]
        interaction = self._singleton("vtkMRMLInteractionNode")
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            self.stop()
        return None

    def _singleton(self, class_name: str) -> Any:
        """Selection or interaction node; made if the scene has none yet."""
        node = self._scene.GetNodeByID(f"{class_name}Singleton")
        return node or self._scene.AddNode(getattr(slicer, class_name)())


def pointed_position(scene: Any) -> Point | None:
    """The crosshair's position while it is shown, else where the three slice views meet.

    Returns:
        world RAS mm, or None if there is neither a crosshair nor three slice views.
    """
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None and crosshair.GetCrosshairMode() != crosshair.NoCrosshair:
        return tuple(float(v) for v in crosshair.GetCrosshairRAS())  # type: ignore[return-value]
    return viewed_position(scene)


def viewed_position(scene: Any) -> Point | None:
    """Where the three slice views meet, wherever the crosshair is.

    Returns:
        world RAS mm, or None if there are no slice views.
    """
    slices = [scene.GetNodeByID(f"vtkMRMLSliceNode{name}") for name in SLICE_NAMES]
    slices = [node for node in slices if node is not None]
    if not slices:
        return None
    planes = [_plane(node) for node in slices]
    normals = np.array([normal for normal, _ in planes])
    origins = np.array([origin for _, origin in planes])
    if len(planes) == 3 and abs(np.linalg.det(normals)) > 0.05:
        meeting = np.linalg.solve(normals, (normals * origins).sum(axis=1))
    else:  # two views show the same direction: then the middle of the first view
        meeting = origins[0]
    return tuple(float(v) for v in meeting)  # type: ignore[return-value]


def show_position(scene: Any, point: Point) -> None:
    """Move every slice view to a point with the zoom that it has, and let every camera look at it."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        scene.GetNthNodeByClass(index, "vtkMRMLSliceNode").JumpSliceByOffsetting(*point)
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLCameraNode")):
        camera = scene.GetNthNodeByClass(index, "vtkMRMLCameraNode")
        view = np.subtract(camera.GetPosition(), camera.GetFocalPoint())
        distance = np.linalg.norm(view)
        view = view / distance if distance > 0 else np.array([0.0, 1.0, 0.0])
        away = float(np.clip(distance, *CAMERA_MM))
        camera.SetFocalPoint(*point)
        camera.SetPosition(*(np.asarray(point) + away * view))
        camera.ResetClippingRange()


def _plane(slice_node: Any) -> tuple[np.ndarray, np.ndarray]:
    """Normal (3,) and middle (3,) of a slice view in RAS mm."""
    matrix = slice_node.GetSliceToRAS()
    column = [[matrix.GetElement(row, c) for row in range(3)] for c in (2, 3)]
    normal = np.array(column[0])
    return normal / np.linalg.norm(normal), np.array(column[1])
