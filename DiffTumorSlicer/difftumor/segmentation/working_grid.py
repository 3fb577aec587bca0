"""The grid that a segmentation network works on, and which of its voxels a result needs. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import SNAP, Box, Grid


def oriented_grid(grid: Grid, spacing_mm: Sequence[float]) -> Grid:
    """The scan's own axes in the order nearest to R, A, S, resampled to another voxel size.

    As published (reorientation to RAS, then a new spacing): an oblique scan stays oblique, and the first voxel's center
    stays where it is.

    Args:
        grid: of the scan.
        spacing_mm: voxel size along the new axes.
    """
    directions = grid.affine[:3, :3] / grid.spacing
    # axes[d] is the axis of the scan that runs along R, A or S.
    axes = max(
        permutations(range(3)),
        key=lambda order: sum(abs(directions[d, axis]) for d, axis in enumerate(order)),
    )
    affine, start, shape = np.eye(4), np.zeros(3), []
    for d, (axis, mm) in enumerate(zip(axes, spacing_mm, strict=True)):
        sign = 1.0 if directions[d, axis] >= 0 else -1.0
        affine[:3, d] = sign * directions[:, axis] * mm
        start[axis] = 0 if sign > 0 else grid.shape[axis] - 1
        shape.append(round((grid.shape[axis] - 1) * grid.spacing[axis] / mm + 1))
    affine[:3, 3] = grid.to_ras(start)
    x, y, z = shape
    return Grid((x, y, z), affine)


def needed_voxels(region: NDArray[np.bool_], grid: Grid, working: Grid) -> NDArray[np.bool_]:
    """Voxels of a working grid that linear interpolation reads for the voxels of a region.

    Args:
        region: bool on `grid`, not empty.
        grid: of the scan.
        working: the other grid; beyond its border the nearest voxel counts.

    Returns:
        bool of `working.shape`.
    """
    result = np.zeros(working.shape, bool)
    last = np.asarray(working.shape) - 1
    matrix = np.linalg.inv(working.affine) @ grid.affine
    for k in np.flatnonzero(region.any(axis=(0, 1))):  # plane by plane: coordinates are large
        i, j = np.nonzero(region[:, :, k])
        at = np.stack([i, j, np.full(i.size, k)], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]
        whole = np.rint(at)
        at = np.where(np.abs(at - whole) < SNAP, whole, at)
        ends = [np.clip(f(at).astype(np.intp), 0, last) for f in (np.floor, np.ceil)]
        for corner in product((0, 1), repeat=3):
            result[tuple(ends[side][:, d] for d, side in enumerate(corner))] = True
    return result


def box_around(mask: NDArray[np.bool_]) -> Box:
    """The smallest box that holds a mask (I, J, K), which is not empty."""
    spans = []
    for axis in range(3):
        at = np.flatnonzero(mask.any(axis=tuple(d for d in range(3) if d != axis)))
        spans.append(slice(int(at[0]), int(at[-1]) + 1))
    i, j, k = spans
    return i, j, k


def grown(mask: NDArray[np.bool_], grid: Grid, reach_mm: float) -> NDArray[np.bool_]:
    """A mask and all voxels whose center is at most `reach_mm` from one of its own."""
    margin = np.ceil(reach_mm / grid.spacing).astype(int) + 1
    box = tuple(
        slice(max(part.start - int(m), 0), min(part.stop + int(m), n))
        for part, m, n in zip(box_around(mask), margin, mask.shape, strict=True)
    )
    result = np.zeros(mask.shape, bool)
    result[box] = ndimage.distance_transform_edt(~mask[box], grid.spacing) <= reach_mm
    return result
