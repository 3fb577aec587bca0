"""Ellipsoids in patient space: the one function behind panel, command line and ROI handles."""

from __future__ import annotations

import numpy as np

from difftumor.grids import Grid

Box = tuple[slice, slice, slice]


def rotation_matrix(rotation_deg: tuple[float, float, float]) -> np.ndarray:
    """Turn angles about R, then A, then S (extrinsic) into M = Rz Ry Rx.

    Args:
        rotation_deg: degrees about the patient's right, anterior and superior axes.

    Returns:
        (3, 3) float64; column k is the direction of the ellipsoid's own axis k in RAS.

    Examples:
        >>> rotation_matrix((0, 0, 90)).round(3).tolist()  # axis 0 points to A, axis 1 to -R
        [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (sin_x, sin_y, sin_z) = np.sin(np.deg2rad(rotation_deg))
    (cos_x, cos_y, cos_z) = np.cos(np.deg2rad(rotation_deg))
    about_r = np.array([[1, 0, 0], [0, cos_x, -sin_x], [0, sin_x, cos_x]])
    about_a = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    about_s = np.array([[cos_z, -sin_z, 0], [sin_z, cos_z, 0], [0, 0, 1]])
    rotation: np.ndarray = about_s @ about_a @ about_r
    return rotation


def rotation_degrees(matrix: np.ndarray) -> tuple[float, float, float]:
    """Turn angles of a rotation matrix; the inverse of `rotation_matrix`.

    Where the second angle is 90 or -90 degrees only the difference (or sum) of the other two has a
    meaning; then the third is 0.

    Args:
        matrix: (3, 3), orthonormal and right-handed to within 1e-6.

    Returns:
        degrees about R in [-180, 180], about A in [-90, 90], about S in [-180, 180].

    Raises:
        ValueError: if the matrix is no rotation.

    Examples:
        >>> [round(angle) for angle in rotation_degrees(rotation_matrix((10, 20, 30)))]
        [10, 20, 30]
    """
    m = np.asarray(matrix, float)
    if (
        m.shape != (3, 3)
        or not np.allclose(m @ m.T, np.eye(3), rtol=0, atol=1e-6)
        or np.linalg.det(m) < 0
    ):
        raise ValueError(f"matrix must be a right-handed rotation (3, 3), got {m.tolist()}")
    cos_a = np.hypot(m[0, 0], m[1, 0])
    about_a = np.arctan2(-m[2, 0], cos_a)
    if cos_a > 1e-9:
        about_r, about_s = np.arctan2(m[2, 1], m[2, 2]), np.arctan2(m[1, 0], m[0, 0])
    else:
        about_r, about_s = np.arctan2(-m[1, 2], m[1, 1]), 0.0
    r, a, s = np.rad2deg([about_r, about_a, about_s])
    return float(r), float(a), float(s)


def half_extent_mm(
    radii_mm: tuple[float, float, float], rotation_deg: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    """Half side lengths (3,) in mm of the RAS-aligned box around an ellipsoid.

    Examples:
        >>> half_extent_mm((3, 2, 1), (0, 0, 90)).round(3).tolist()
        [2.0, 3.0, 1.0]
    """
    extent: np.ndarray = np.linalg.norm(
        rotation_matrix(rotation_deg) * np.asarray(radii_mm, float), axis=1
    )
    return extent


def ellipsoid_box(
    grid: Grid,
    center_ras: tuple[float, float, float],
    radii_mm: tuple[float, float, float],
    rotation_deg: tuple[float, float, float] = (0, 0, 0),
) -> Box:
    """Smallest index box of `grid` that holds every voxel center of the ellipsoid.

    Returns:
        three slices, clipped to the grid; a slice is empty where the ellipsoid lies outside.

    Examples:
        >>> box = ellipsoid_box(Grid((10, 10, 10), np.eye(4)), (5, 5, 0), (2, 1, 1))
        >>> [(part.start, part.stop) for part in box]
        [(3, 8), (4, 7), (0, 2)]
    """
    to_index = np.linalg.inv(grid.affine)
    axes = rotation_matrix(rotation_deg) * np.asarray(radii_mm, float)
    center = to_index[:3, :3] @ np.asarray(center_ras, float) + to_index[:3, 3]
    # The extent of an ellipsoid along an index axis is the norm of the mapped half axes' row.
    half = np.linalg.norm(to_index[:3, :3] @ axes, axis=1)
    first = np.ceil(center - half - 1e-9).astype(np.int64)
    stop = np.floor(center + half + 1e-9).astype(np.int64) + 1
    first = np.clip(first, 0, grid.shape)
    stop = np.maximum(np.clip(stop, 0, grid.shape), first)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))  # type: ignore[return-value]


def ellipsoid_mask(
    grid: Grid,
    center_ras: tuple[float, float, float],
    radii_mm: tuple[float, float, float],
    rotation_deg: tuple[float, float, float] = (0, 0, 0),
) -> np.ndarray:
    """Voxel centers of `grid` inside an ellipsoid: |diag(1/r) M^T (p - c)| <= 1.

    Args:
        grid: any orientation, spacing and handedness.
        center_ras: center in RAS mm.
        radii_mm: half axes in mm along the ellipsoid's own axes, > 0.
        rotation_deg: see `rotation_matrix`.

    Returns:
        bool array of `grid.shape`.

    Raises:
        ValueError: if a radius is not positive or a number is not finite.

    Examples:
        >>> ball = ellipsoid_mask(Grid((3, 3, 1), np.eye(4)), (1, 1, 0), (1, 1, 1))
        >>> ball[:, :, 0].astype(int).tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    radii = np.asarray(radii_mm, float)
    if not (np.isfinite(radii).all() and (radii > 0).all()):
        raise ValueError(f"radii_mm must be three positive lengths in mm, got {tuple(radii_mm)}")
    if not (np.isfinite(center_ras).all() and np.isfinite(rotation_deg).all()):
        raise ValueError("center_ras and rotation_deg must be finite numbers")
    mask = np.zeros(grid.shape, bool)
    box = ellipsoid_box(grid, center_ras, radii_mm, rotation_deg)
    # One affine map takes voxel indices to the unit ball, so only the box is ever computed.
    to_ball = rotation_matrix(rotation_deg).T / radii[:, None]
    linear = to_ball @ grid.affine[:3, :3]
    offset = to_ball @ (grid.affine[:3, 3] - np.asarray(center_ras, float))
    i, j, k = np.ogrid[box]
    distance = sum(
        (row[0] * i + row[1] * j + row[2] * k + start) ** 2
        for row, start in zip(linear, offset, strict=True)
    )
    mask[box] = distance <= 1.0
    return mask
