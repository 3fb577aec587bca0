"""Elastic deformation of masks by a few control points, as DiffTumor bends its ellipsoids.

A 3 x 3 grid of displacements spans a plane of the array from corner to corner; cubic B-splines
carry it to every voxel, and all slices across the plane move alike:

    index     0 . . . . . . . . N-1     source = index + displacement(index)
    control   x        x        x       value  = the voxel nearest to source; 0 beyond 0 .. N-1
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

PLANES = ((0, 1), (1, 2), (0, 2))
CONTROL_POINTS = 3
CONTROL_SHAPE = (len(PLANES), 2, CONTROL_POINTS, CONTROL_POINTS)

Mask = NDArray[np.bool_]


def deform(mask: Mask, displacements: ArrayLike) -> Mask:
    """Bend a mask in the planes (0, 1), (1, 2) and (0, 2), one after the other.

    Args:
        mask: bool (X, Y, Z), every axis at least 2.
        displacements: (3, 2, P, P) voxels: plane, component (0 moves along the plane's first axis),
            control points. Positive values fetch from higher indices, so the content moves down.

    Returns:
        bool (X, Y, Z), a new array.

    Raises:
        ValueError: if the mask or the displacements have another form.
    """
    control = np.asarray(displacements, dtype=np.float64)
    if mask.ndim != 3 or min(mask.shape) < 2:
        raise ValueError(f"mask has shape {mask.shape}; it needs three axes of 2 or more voxels")
    if control.ndim != 4 or control.shape[:2] != CONTROL_SHAPE[:2]:
        raise ValueError(f"displacements have shape {control.shape} instead of (3, 2, P, P)")
    for plane, grid in zip(PLANES, control, strict=True):
        mask = _deform_plane(mask, grid, plane)
    return mask


def displacement_field(control: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Interpolate control points over a plane with cubic B-splines.

    Index i of a plane of N voxels lies at i (P - 1) / (N - 1) on the grid of P control points. The
    spline passes through the control points; beyond the grid it is mirrored about the outer ones.

    Args:
        control: (2, P, P) displacements, voxels.
        shape: (N, M) of the plane, both at least 2.

    Returns:
        float64 (2, N, M) displacements, voxels.
    """
    scale = zip(shape, control.shape[1:], strict=True)
    points = np.meshgrid(*(np.arange(n) * (p - 1) / (n - 1) for n, p in scale), indexing="ij")
    return np.stack([ndimage.map_coordinates(c, points, order=3, mode="mirror") for c in control])


def _deform_plane(mask: Mask, control: NDArray[np.float64], plane: tuple[int, int]) -> Mask:
    """Fetch every voxel from where its displacement points, alike in all slices of the plane."""
    shape = [mask.shape[axis] for axis in plane]
    sources = displacement_field(control, shape) + np.indices(shape)
    last = np.array(shape).reshape(2, 1, 1) - 1
    # A source outside the array is background, even if by less than half a voxel.
    inside = np.all((sources >= 0) & (sources <= last), axis=0)
    i, j = np.clip(np.floor(sources + 0.5), 0, last).astype(np.intp)
    slices = np.moveaxis(mask, plane, (0, 1))
    return np.moveaxis(slices[i, j] & inside[:, :, np.newaxis], (0, 1), plane)
