"""Which slices of a scan the person looks at, and how to go to one.  MRML only.

A slice is a voxel slice of the scan along the voxel axis that is nearest to the plane's normal, as the engine
counts them (`difftumor.anomaly.layout`), whatever way the views are turned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.layout import PLANES, slice_axis
from difftumor.grids import Grid
from DiffTumorSlicerLib.scene.comparing import OWN_VIEWS
from DiffTumorSlicerLib.scene.geometry import SceneError, to_array
from DiffTumorSlicerLib.scene.placing import Point, viewed_position
from DiffTumorSlicerLib.translation import tr as _

AXES = "RAS"  # letters of the patient's axes
OBLIQUE_DEG = 1.0


def this_slice(scene: Any, grid: Grid, plane: Any) -> int:
    """Index of the slice on screen.

    Args:
        scene: of the views.
        grid: of the scan, in the patient's space.
        plane: 'axial', 'coronal' or 'sagittal'.

    Raises:
        SceneError: no slice view, or they show a place outside the scan.
    """
    point = viewed_position(scene)
    if point is None:
        raise SceneError(
            _(
                "There is no slice view on screen. Choose a layout with slice views, or let all slices "
                "of the organ count."
            )
        )
    axis = slice_axis(grid, plane)
    index = round(float(grid.to_ijk(np.asarray(point))[axis]))
    if not 0 <= index < grid.shape[axis]:
        raise SceneError(
            _(
                "The {plane} slice on screen lies outside the scan. Move to a slice of the scan, or let "
                "all slices of the organ count."
            ).format(plane=plane)
        )
    return index


def visible_slices(scene: Any, grid: Grid, plane: Any) -> tuple[int, int]:
    """The slices that the views of the other planes show from edge to edge.

    Returns:
        first and one past the last index.

    Raises:
        SceneError: no such view, or they show a place outside the scan.
    """
    axis = slice_axis(grid, plane)
    low, high = -np.inf, np.inf
    for corners, normal in _view_corners(scene):
        along = grid.affine[:3, axis] / grid.spacing[axis]
        if abs(normal @ along) > 0.5:  # a view of the slices themselves
            continue
        index = grid.to_ijk(corners)[:, axis]
        low, high = max(low, index.min()), min(high, index.max())
    if not np.isfinite([low, high]).all():
        raise SceneError(
            _(
                "No view shows from where to where: choose a layout that has another plane than the "
                "{plane} one, or let all slices of the organ count."
            ).format(plane=plane)
        )
    first, last = max(round(low), 0), min(round(high), grid.shape[axis] - 1)
    if first > last:
        raise SceneError(
            _(
                "The views show a place outside the scan. Move to the scan, or let all slices of the "
                "organ count."
            )
        )
    return first, last + 1


def organ_slices(organ: NDArray[np.bool_] | None, grid: Grid, plane: Any) -> tuple[int, int]:
    """First and one past the last slice that hold some of the organ; of the whole scan without one."""
    axis = slice_axis(grid, plane)
    if organ is None:
        return 0, grid.shape[axis]
    held = np.flatnonzero(organ.any(axis=tuple(d for d in range(3) if d != axis)))
    return (int(held[0]), int(held[-1]) + 1) if held.size else (0, 0)


def show_slice(scene: Any, grid: Grid, axis: int, index: int) -> None:
    """Let the views of a plane show one of its slices; where they look in the plane stays."""
    point = viewed_position(scene)
    middle = (np.asarray(grid.shape) - 1) / 2
    at = grid.to_ijk(np.asarray(point)) if point is not None else middle
    at = np.clip(at, 0, np.asarray(grid.shape) - 1)
    at[axis] = index
    target = grid.to_ras(at)
    along = grid.affine[:3, axis] / grid.spacing[axis]
    for node in user_slice_nodes(scene):
        if abs(_normal(node) @ along) > 0.5:
            node.JumpSliceByOffsetting(*(float(v) for v in target))


def brightest(array: NDArray[Any], grid: Grid, axis: int, index: int) -> Point:
    """RAS mm of the highest value of a slice."""
    plane = array.take(index, axis=axis)
    at = [int(n) for n in np.unravel_index(int(plane.argmax()), plane.shape)]
    at.insert(axis, index)
    return tuple(float(v) for v in grid.to_ras(np.asarray(at, float)))  # type: ignore[return-value]


def is_oblique(grid: Grid) -> bool:
    """Whether the voxel axes are turned against the patient's, so that slices and views cross."""
    axes = np.abs(grid.affine[:3, :3] / grid.spacing)
    return bool(axes.max(axis=0).min() < np.cos(np.deg2rad(OBLIQUE_DEG)))


def turn_views(scene: Any, volume: Any) -> None:
    """Turn the person's slice views into the slices of a scan, as the button of Slicer's views does."""
    for node in user_slice_nodes(scene):
        node.RotateToVolumePlane(volume)


def user_slice_nodes(scene: Any) -> list[Any]:
    """The person's slice views that are on screen; all of them where no layout says which."""
    name = "vtkMRMLSliceNode"
    found = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    found = [node for node in found if not (node.GetLayoutName() or "").startswith(OWN_VIEWS)]
    return [node for node in found if node.IsMappedInLayout()] or found


def normal_axis(plane: Any) -> int:
    """The patient's axis (R, A, S: 0, 1, 2) along which the slices of a plane follow each other."""
    return PLANES[plane][0]


def position_of(grid: Grid, plane: Any, index: int) -> float:
    """Position of a slice along the patient's axis, mm, as the engine counts it: in the slice's middle."""
    at = (np.asarray(grid.shape) - 1) / 2
    at[slice_axis(grid, plane)] = index
    return float(grid.to_ras(at)[normal_axis(plane)])


def slice_at(grid: Grid, plane: Any, position_mm: float) -> int:
    """The slice at a position as of `position_of`.

    Positions are remembered rather than indices: Slicer reverses an axis of a left-handed volume when it
    reads its file.
    """
    first, second = (position_of(grid, plane, index) for index in (0, 1))
    last = grid.shape[slice_axis(grid, plane)] - 1
    return min(max(round((position_mm - first) / (second - first)), 0), last)


def _view_corners(scene: Any) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Corners (4, 3) in RAS mm and normal (3,) of each slice view."""
    views = []
    for node in user_slice_nodes(scene):
        to_ras = to_array(node.GetXYToRAS())
        wide, high = node.GetDimensions()[:2]
        pixels = np.array([(x, y, 0, 1) for x in (0, wide) for y in (0, high)], float)
        views.append(((pixels @ to_ras.T)[:, :3], _normal(node)))
    return views


def _normal(node: Any) -> NDArray[np.float64]:
    column = to_array(node.GetSliceToRAS())[:3, 2]
    return column / np.linalg.norm(column)
