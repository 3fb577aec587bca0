"""The ellipsoid that a person places: a Box ROI as handles, the inscribed ellipsoid as meaning.

Slicer has no ellipsoid of its own. The ROI is what is saved with the scene; the companion model, which
shows the ellipsoid, follows it and is made again when needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from difftumor.ellipsoids import rotation_degrees, rotation_matrix
from difftumor.parameters import Ellipsoid
from DiffTumorSlicerLib.scene.geometry import (
    SceneError,
    has_nonlinear_parent,
    to_array,
    to_vtk,
    to_world,
)
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid
from DiffTumorSlicerLib.translation import tr as _

DEFAULT_RADIUS_MM = 10.0
SMALLEST_SPAN_VOXELS = 3.0  # of a new ellipsoid, so that a first press cannot fail for its size
COLOR = (1.0, 0.78, 0.2)
HANDLE_SCALE = 1.8  # of Slicer's 3: the handles of a small tumor would cover it
# Handles dragged at an angle leave axes a hair off square; what is more is a shear by a transform.
SQUARE = 1e-4


def ellipsoid_axes(linear: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axes and radii of the image of the unit ball under a matrix.

    Args:
        linear: (3, 3), not singular; columns at right angles are kept as axes, in their order.

    Returns:
        rotation (3, 3), right-handed, with the axes as columns; radii (3,).

    Raises:
        SceneError: the matrix squeezes the ball flat.
    """
    radii = np.linalg.norm(linear, axis=0)
    if not (np.isfinite(linear).all() and radii.min() > 0 and abs(np.linalg.det(linear)) > 1e-9):
        raise SceneError(_("The ellipsoid is flat. Pull its handles apart, or place a new one."))
    axes = linear / radii
    left, stretch, right = np.linalg.svd(axes)
    if np.abs(stretch - 1).max() < SQUARE:
        axes = left @ right
    else:
        turned, radii, _right = np.linalg.svd(linear)
        # The axes of a sheared ball are others; each takes the place of the one that it is nearest to.
        near = np.abs(turned.T @ axes)
        best = max(permutations(range(3)), key=lambda p: sum(near[p[i], i] for i in range(3)))
        axes, radii = turned[:, best], radii[list(best)]
        axes = axes * np.where((axes * linear).sum(axis=0) < 0, -1.0, 1.0)
    if np.linalg.det(axes) < 0:  # a mirrored ellipsoid is the same ellipsoid
        axes = axes * np.array([1.0, 1.0, -1.0])
    return axes, radii


def ellipsoid_of(roi_node: Any) -> Ellipsoid:
    """The ellipsoid inscribed in a ROI, in the patient's RAS mm, under any linear transform.

    Raises:
        SceneError: the ROI has no place yet, is flat, too small or too large, or lies under a transform that
            bends space.
    """
    if roi_node.GetNumberOfControlPoints() == 0:
        raise SceneError(
            _("The ellipsoid has no place yet. Press Place and click where the tumor shall be.")
        )
    matrix = to_world(roi_node) @ to_array(roi_node.GetObjectToNodeMatrix())
    axes, radii = ellipsoid_axes(matrix[:3, :3] * (np.array(roi_node.GetSize()) / 2))
    center = tuple(float(v) for v in matrix[:3, 3])
    try:
        return Ellipsoid(center, tuple(float(r) for r in radii), rotation_degrees(axes))  # type: ignore[arg-type]
    except ValueError as error:
        raise SceneError(
            _("The ellipsoid cannot be used: {error}. Change its size.").format(error=error)
        ) from error


def set_roi(roi_node: Any, ellipsoid: Ellipsoid) -> None:
    """Give a ROI the place, size and turn of an ellipsoid in the patient; its transform stays.

    Raises:
        SceneError: the ROI lies under a transform that bends space.
    """
    to_node = np.linalg.inv(to_world(roi_node))
    linear = rotation_matrix(ellipsoid.rotation_deg) * np.asarray(ellipsoid.radii_mm)
    axes, radii = ellipsoid_axes(to_node[:3, :3] @ linear)
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = to_node[:3, :3] @ np.asarray(ellipsoid.center_ras) + to_node[:3, 3]
    modifying = roi_node.StartModify()
    roi_node.SetCenter(*matrix[:3, 3])
    roi_node.SetSize(*(2 * radii))
    roi_node.SetAndObserveObjectToNodeMatrix(to_vtk(matrix))
    roi_node.EndModify(modifying)


def suggested_radius_mm(volume_node: Any | None) -> float:
    """A radius for a new ellipsoid: 10 mm, more where the voxels are coarse.

    Raises:
        SceneError: the volume has no place in the patient.
    """
    if volume_node is None:
        return DEFAULT_RADIUS_MM
    coarsest = float(volume_grid(volume_node).spacing.max())
    return max(DEFAULT_RADIUS_MM, SMALLEST_SPAN_VOXELS * coarsest / 2)


class EllipsoidHandles:
    """A ROI to hold and a model to see; tells its listeners of every change."""

    def __init__(self, scene: Any) -> None:
        """Watch a scene. Nothing is added to it before the first placement."""
        self._scene = scene
        self._roi: Any | None = None
        self._model: Any | None = None
        self._matrix = vtk.vtkTransform()
        self._visible = True
        self._listeners: list[Callable[[], None]] = []
        self._roi_tags: list[int] = []
        event = slicer.vtkMRMLScene
        self._scene_tags = [
            scene.AddObserver(event.NodeRemovedEvent, self._on_node_removed),
            scene.AddObserver(event.StartCloseEvent, self._on_scene_closing),
        ]

    @property
    def roi_node(self) -> Any | None:
        """The ROI, or None before the first placement."""
        return self._roi

    @property
    def model_node(self) -> Any | None:
        """The companion that shows the ellipsoid; None while there is nothing to show."""
        return self._model

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener()` after every change, also when the ROI has left the scene."""
        self._listeners.append(listener)

    def adopt(self, roi_node: Any | None) -> None:
        """Take a ROI of the scene (loaded, or chosen) as the handles; None lets go of the present one."""
        if roi_node is self._roi:
            return
        self._let_go()
        if roi_node is not None:
            self._roi = roi_node
            event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            self._roi_tags = [
                roi_node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_roi_changed),
                roi_node.AddObserver(
                    slicer.vtkMRMLMarkupsNode.PointModifiedEvent, self._on_roi_changed
                ),
                roi_node.AddObserver(event, self._on_roi_changed),
            ]
            _show_handles(roi_node)
        self._follow()
        self._tell()

    def place_at(
        self, ras: Sequence[float], radius_mm: float | Sequence[float] | None = DEFAULT_RADIUS_MM
    ) -> None:
        """Put the ellipsoid somewhere.

        Args:
            ras: center in the patient's RAS mm.
            radius_mm: of a ball along R, A, S, or three radii; None moves the present ellipsoid only.

        Raises:
            SceneError: the ROI lies under a transform that bends space.
        """
        center = tuple(float(v) for v in ras)
        present = None
        if radius_mm is None and self._roi is not None and self._roi.GetNumberOfControlPoints():
            present = ellipsoid_of(self._roi)
        if present is not None:
            self.set(Ellipsoid(center, present.radii_mm, present.rotation_deg))  # type: ignore[arg-type]
            return
        radii = np.broadcast_to(DEFAULT_RADIUS_MM if radius_mm is None else radius_mm, 3)
        self.set(Ellipsoid(center, tuple(float(r) for r in radii)))  # type: ignore[arg-type]

    def set(self, ellipsoid: Ellipsoid) -> None:
        """Give the handles this place, size and turn; the first call adds the ROI to the scene.

        Raises:
            SceneError: the ROI lies under a transform that bends space.
        """
        if self._roi is None:
            roi = self._scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Tumor ellipsoid")
            roi.SetROIType(slicer.vtkMRMLMarkupsROINode.ROITypeBox)
            roi.CreateDefaultDisplayNodes()
            set_roi(roi, ellipsoid)
            self.adopt(roi)
        else:
            set_roi(self._roi, ellipsoid)

    def parameters(self) -> Ellipsoid:
        """The ellipsoid in the patient's RAS mm.

        Raises:
            SceneError: nothing is placed, or as in `ellipsoid_of`.
        """
        if self._roi is None:
            raise SceneError(
                _("There is no ellipsoid yet. Press Place and click where the tumor shall be.")
            )
        return ellipsoid_of(self._roi)

    def set_visible(self, visible: bool) -> None:
        """Show or hide handles and ellipsoid, for example when the panel is left."""
        self._visible = visible
        for node in (self._roi, self._model):
            if node is not None and node.GetDisplayNode() is not None:
                node.GetDisplayNode().SetVisibility(visible)

    def release(self) -> None:
        """Remove observers and the companion; the ROI stays in the scene."""
        self._let_go()
        self._listeners.clear()
        for tag in self._scene_tags:
            self._scene.RemoveObserver(tag)
        self._scene_tags = []

    # ------------------------------------------------------------------------------------ observers

    def _on_roi_changed(self, *_: Any) -> None:
        self._follow()
        self._tell()

    @vtk.calldata_type(vtk.VTK_OBJECT)  # type: ignore[untyped-decorator]
    def _on_node_removed(self, _scene: Any, _event: str, node: Any) -> None:
        if node is self._roi:
            self._let_go()
            self._tell()
        elif node is self._model:
            self._model = None

    def _on_scene_closing(self, *_: Any) -> None:
        if self._roi is not None:
            self._let_go()
            self._tell()

    # -------------------------------------------------------------------------------------- inside

    def _let_go(self) -> None:
        """Forget the ROI and remove the companion."""
        for tag in self._roi_tags:
            self._roi.RemoveObserver(tag)  # type: ignore[union-attr]
        self._roi_tags, self._roi = [], None
        model, self._model = self._model, None
        if model is not None and self._scene.IsNodePresent(model):
            display = model.GetDisplayNode()
            self._scene.RemoveNode(model)
            if display is not None:
                self._scene.RemoveNode(display)

    def _follow(self) -> None:
        """Bring the companion to where the ROI is."""
        roi = self._roi
        shown = False
        if roi is not None and roi.GetNumberOfControlPoints() and not has_nonlinear_parent(roi):
            shown = True
            matrix = to_world(roi) @ to_array(roi.GetObjectToNodeMatrix())
            matrix[:3, :3] *= np.array(roi.GetSize()) / 2
            self._matrix.SetMatrix(to_vtk(matrix))
            if self._model is None:
                self._model = _companion(self._scene, self._matrix)
        if self._model is not None:
            self._model.GetDisplayNode().SetVisibility(shown and self._visible)
            self._model.Modified()  # otherwise only views that render for another reason follow

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()


def _show_handles(roi_node: Any) -> None:
    """Handles for moving, turning and sizing, and nothing that hides the anatomy."""
    display = roi_node.GetDisplayNode()
    if display is None:
        roi_node.CreateDefaultDisplayNodes()
        display = roi_node.GetDisplayNode()
    if display is None:
        return
    display.SetFillVisibility(False)
    display.SetInteractionHandleScale(HANDLE_SCALE)
    display.SetGlyphScale(HANDLE_SCALE)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(False)
    display.SetHandlesInteractive(True)
    display.SetTranslationHandleVisibility(True)
    display.SetRotationHandleVisibility(True)
    display.SetScaleHandleVisibility(True)


def _companion(scene: Any, transform: Any) -> Any:
    """A unit sphere carried along by `transform`: outline in the slices, translucent in 3-D; never saved."""
    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(1.0)
    sphere.SetThetaResolution(48)
    sphere.SetPhiResolution(32)
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetTransform(transform)
    moved.SetInputConnection(sphere.GetOutputPort())
    model = slicer.vtkMRMLModelNode()
    display = slicer.vtkMRMLModelDisplayNode()
    for node in (model, display):
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)
    model.SetName("Tumor ellipsoid (shown)")
    model.SetSelectable(False)
    display.SetColor(COLOR)
    display.SetOpacity(0.35)
    display.SetBackfaceCulling(False)
    display.SetVisibility2D(True)
    display.SetSliceIntersectionThickness(2)
    scene.AddNode(display)
    scene.AddNode(model)
    model.SetPolyDataConnection(moved.GetOutputPort())
    model.SetAndObserveDisplayNodeID(display.GetID())
    return model
