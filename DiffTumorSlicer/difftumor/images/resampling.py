"""How values move from one grid to another, and which voxels of a grid another one covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import SNAP, Box, Grid, apply_affine, corners_of


def covering_box(source: Grid, target: Grid, margin: int = 0) -> Box:
    """Find the voxels of `target` whose centers can lie inside the field of `source`.

    The box bounds the field in index space, so for grids turned against each other its corners lie outside the field.

    Args:
        source: grid whose field (to the voxel edges) is to be covered.
        target: grid that is searched.
        margin: voxels of `target` added on every side before the box is clipped.

    Returns:
        slices into an array on `target`, clipped to it; empty (start == stop) where nothing overlaps.

    Examples:
        >>> from difftumor.grids import crop_grid
        >>> box = covering_box(crop_grid((4, 4, 4), (3, 3, 3)), Grid((10, 10, 10), np.eye(4)))
        >>> [(part.start, part.stop) for part in box]  # the field reaches from 2.5 to 5.5 mm
        [(3, 6), (3, 6), (3, 6)]
    """
    field = source.to_ras(corners_of([-0.5] * 3, np.asarray(source.shape) - 0.5))
    return _clipped_box(target.to_ijk(field), target.shape, margin)


def resample(
    array: NDArray[Any], source: Grid, target: Grid, *, order: int, fill: float = 0
) -> NDArray[Any]:
    """Carry values from one grid to another.

    Linear interpolation is not low-passed first: coarser targets alias exactly as in the published pipelines. Within
    half a voxel outside the first and last center the edge value continues; beyond, `fill`. Only the box of `array`
    that `target` needs is read, so a crop out of a huge int16 volume costs the crop.

    Args:
        array: (I, J, K) on `source`, any real type or bool.
        source: grid of `array`.
        target: grid of the result; where it is much larger than the source, crop it first (`covering_box`).
        order: 1 for linear (images), 0 for nearest (labels).
        fill: value outside the field of `source`.

    Returns:
        array of `target.shape`: float32 for order 1, the type of `array` for order 0.

    Raises:
        ValueError: if the shape of `array` is not that of `source`, or `order` is not 0 or 1.

    Examples:
        >>> source = Grid((2, 1, 1), np.eye(4))
        >>> fine = Grid((5, 1, 1), np.diag([0.5, 1.0, 1.0, 1.0]))
        >>> values = np.array([0, 10], dtype=np.int16).reshape(2, 1, 1)
        >>> resample(values, source, fine, order=1, fill=-1).ravel().tolist()
        [0.0, 5.0, 10.0, 10.0, -1.0]
        >>> resample(values, source, fine, order=0, fill=-1).ravel().tolist()
        [0, 10, 10, 10, -1]
    """
    if array.shape != source.shape:
        raise ValueError(f"The array has shape {array.shape}, but its grid has {source.shape}.")
    if order not in (0, 1):
        raise ValueError(f"order is 0 (nearest) or 1 (linear), not {order}.")
    result = np.full(target.shape, fill, dtype=np.float32 if order else array.dtype)
    target_box = covering_box(source, target)
    if _is_empty(target_box):
        return result

    matrix = np.linalg.inv(source.affine) @ target.cropped(target_box).affine
    shape = result[target_box].shape
    needed = apply_affine(matrix, corners_of([0] * 3, np.asarray(shape) - 1))
    source_box = _clipped_box(needed, source.shape, margin=1)
    if _is_empty(
        source_box
    ):  # a turned grid can pass by the source although the boxes of the two overlap
        return result
    values = array[source_box]
    matrix[:3, 3] -= [part.start for part in source_box]
    low = -0.5 - np.asarray([part.start for part in source_box])
    high = low + np.asarray(source.shape)

    axes = _matching_axes(matrix[:3, :3])
    if axes is None:
        result[target_box] = _resample_turned(values, matrix, shape, low, high, order, fill)
    else:
        result[target_box] = _resample_aligned(values, matrix, shape, axes, low, high, order, fill)
    return result


def _resample_aligned(
    values: NDArray[Any],
    matrix: NDArray[np.float64],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    order: int,
    fill: float,
) -> NDArray[Any]:
    """Interpolate axis by axis; target axis `axes[d]` runs along axis d of `values`."""
    outside: list[tuple[int, NDArray[np.bool_]]] = []
    steps = []
    for d, axis in enumerate(axes):
        at = _snapped(matrix[d, axis] * np.arange(shape[axis]) + matrix[d, 3])
        outside.append((axis, (at < low[d] - SNAP) | (at > high[d] + SNAP)))
        steps.append((shape[axis] / values.shape[d], d, np.clip(at, 0, values.shape[d] - 1)))
    if order:
        values = values.astype(np.float32)
    for _, d, at in sorted(
        steps, key=lambda step: step[0]
    ):  # the axis that shrinks most comes first
        values = _lerp(values, at, d) if order else values.take(np.floor(at + 0.5).astype(int), d)
    values = values.transpose(np.argsort(axes))
    if any(beyond.any() for _, beyond in outside):
        values = values.copy()
        for axis, beyond in outside:
            index: list[Any] = [slice(None)] * 3
            index[axis] = beyond
            values[tuple(index)] = fill
    return values


def _lerp(values: NDArray[np.float32], at: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Interpolate float32 values linearly along one axis at the coordinates `at`, which lie inside."""
    below = np.floor(at).astype(int)
    weight = (at - below).astype(np.float32)
    if not weight.any():
        return values.take(below, axis)
    weight = weight.reshape([-1 if d == axis else 1 for d in range(3)])
    first = values.take(below, axis)
    step = values.take(np.minimum(below + 1, values.shape[axis] - 1), axis)
    step -= first
    step *= weight
    first += step
    return first


def _resample_turned(
    values: NDArray[Any],
    matrix: NDArray[np.float64],
    shape: tuple[int, ...],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    order: int,
    fill: float,
) -> NDArray[Any]:
    """Interpolate through a general affine, target indices to indices of `values`."""
    dtype = np.dtype(np.float32) if order else values.dtype
    # SciPy has no bool and no float16: both pass exactly through uint8 and float32.
    carried = {"bool": np.uint8, "float16": np.float32}.get(dtype.name, dtype.newbyteorder("="))
    values = values.astype(carried, copy=False)
    result = ndimage.affine_transform(
        values, matrix[:3, :3], matrix[:3, 3], shape, values.dtype, order, mode="nearest"
    )
    corners = apply_affine(matrix, corners_of([0] * 3, np.asarray(shape) - 1))
    if (
        (corners < low) | (corners > high)
    ).any():  # otherwise every voxel lies inside: the field is convex
        i, j = np.ogrid[: shape[0], : shape[1]]
        for k in range(shape[2]):  # one plane at a time keeps the coordinates small
            beyond = np.zeros(shape[:2], dtype=bool)
            for d in range(3):
                at = matrix[d, 0] * i + matrix[d, 1] * j + (matrix[d, 2] * k + matrix[d, 3])
                beyond |= (at < low[d] - SNAP) | (at > high[d] + SNAP)
            result[:, :, k][beyond] = fill
    return np.asarray(result.astype(dtype, copy=False))


def _matching_axes(linear: NDArray[np.float64]) -> tuple[int, ...] | None:
    """Return for each row the one column that matters, or None if the axes of the two grids are turned."""
    size = np.abs(linear)
    axes = tuple(int(axis) for axis in size.argmax(axis=1))
    rest = size.copy()
    rest[range(3), axes] = 0
    # 1e-7 of a voxel per voxel is 1e-4 voxels over a thousand: no value changes by a visible
    # amount.
    if len(set(axes)) < 3 or (rest > 1e-7 * size.max()).any():
        return None
    return axes


def _clipped_box(points: NDArray[np.float64], shape: Sequence[int], margin: int) -> Box:
    """Bound index-space points (n, 3) by a box of whole voxels with a margin, clipped to `shape`."""
    start = np.ceil(points.min(axis=0) - SNAP).astype(int) - margin
    stop = np.floor(points.max(axis=0) + SNAP).astype(int) + 1 + margin
    start, stop = (np.clip(edge, 0, shape) for edge in (start, stop))
    first, second, third = (slice(int(a), int(max(a, b))) for a, b in zip(start, stop, strict=True))
    return first, second, third


def _is_empty(box: Box) -> bool:
    """Tell whether a clipped box holds no voxel."""
    return any(part.start >= part.stop for part in box)


def _snapped(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace coordinates that are whole numbers but for rounding by the whole number."""
    whole = np.round(at)
    return np.where(np.abs(at - whole) < SNAP, whole, at)
