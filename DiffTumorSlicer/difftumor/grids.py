"""Voxel grids: a shape and an affine.

A grid says where the centers of an (I, J, K) array lie in the patient: its affine carries voxel indices to RAS
millimeters. Integer indices are voxel centers, so the field of a grid reaches half a voxel beyond its first and last
center:

    index       -0.5    0     1     2    ...   n-1   n-0.5
                  |-----x-----|-----x-----| ... --x-----|
                edge  center                          edge

Any invertible affine is a grid: left-handed, oblique, anisotropic, or sheared by a tilted gantry. Nothing here knows
files, HU or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Box = tuple[slice, slice, slice]

MIN_SPACING_MM = 0.01
MAX_SPACING_MM = 100.0
# |det| over the product of the spacings: 1 for right angles, 0.87 for a gantry tilted by 30
# degrees, 0 for a plane.
MIN_SKEWNESS = 0.01

# Coordinates nearer than this to a whole number (in voxels) are that number: rounding of the
# inverse affine is about
# 1e-10, and a voxel that maps onto a voxel must get exactly its value.
SNAP = 1e-5


class GridError(ValueError):
    """A shape or an affine that describes no volume in space."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an array lie.

    Args:
        shape: number of voxels along I, J, K; three positive integers.
        affine: float64 (4, 4), voxel indices (i, j, k, 1) to RAS millimeters; stored read-only.

    Raises:
        GridError: if the shape is not three positive integers, or the affine is not finite, not invertible, or has a
            voxel size outside [0.01, 100] mm.

    Examples:
        >>> grid = Grid((4, 4, 2), np.diag([1.0, 1.0, 3.0, 1.0]))
        >>> grid
        Grid(4 x 4 x 2 voxels of 1 x 1 x 3 mm)
        >>> grid.to_ras([1, 2, 1]).tolist(), grid.to_ijk([1, 2, 1.5]).tolist()
        ([1.0, 2.0, 3.0], [1.0, 2.0, 0.5])
        >>> round(grid.voxel_volume_mm3, 6)
        3.0
        >>> grid.bounds_ras.tolist()  # half a voxel beyond the first and last center
        [[-0.5, -0.5, -1.5], [3.5, 3.5, 4.5]]
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _check_shape(self.shape))
        object.__setattr__(self, "affine", _check_affine(self.affine))

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance in mm between neighboring centers along I, J, K: the column norms of the affine, (3,)."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0), dtype=np.float64)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm3: the absolute determinant, which also holds for a sheared grid."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def is_left_handed(self) -> bool:
        """Whether I, J, K form a left-handed system in RAS."""
        return bool(np.linalg.det(self.affine[:3, :3]) < 0)

    @property
    def center_ras(self) -> NDArray[np.float64]:
        """Center of the field in RAS mm, (3,); between two voxels along an axis with an even count."""
        return self.to_ras((np.asarray(self.shape) - 1) / 2)

    @property
    def bounds_ras(self) -> NDArray[np.float64]:
        """Smallest and largest RAS coordinate of the field (to the voxel edges), in mm, (2, 3)."""
        corners = self.to_ras(corners_of([-0.5] * 3, np.asarray(self.shape) - 0.5))
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def to_ras(self, ijk: ArrayLike) -> NDArray[np.float64]:
        """Carry voxel coordinates (..., 3), fractions allowed, to RAS mm (..., 3)."""
        return apply_affine(self.affine, ijk)

    def to_ijk(self, ras: ArrayLike) -> NDArray[np.float64]:
        """Carry RAS mm (..., 3) to fractional voxel coordinates (..., 3)."""
        return apply_affine(np.linalg.inv(self.affine), ras)

    def contains(self, ras: ArrayLike) -> NDArray[np.bool_]:
        """Tell which RAS points (..., 3) lie in the field, voxel edges included; bool (...)."""
        ijk = self.to_ijk(ras)
        inside = (ijk >= -0.5 - SNAP) & (ijk <= np.asarray(self.shape) - 0.5 + SNAP)
        return np.asarray(inside.all(axis=-1))

    def centers(self, box: Box | None = None) -> NDArray[np.float64]:
        """Return the RAS mm of all voxel centers, or of those in `box`, as (i, j, k, 3)."""
        spans = [
            np.arange(n)[part]
            for n, part in zip(self.shape, box or (slice(None),) * 3, strict=True)
        ]
        i, j, k = (self.affine[:3, d] * span[:, None] for d, span in enumerate(spans))
        return i[:, None, None] + j[None, :, None] + k[None, None, :] + self.affine[:3, 3]

    def cropped(self, box: Box) -> Grid:
        """Return the grid of `array[box]` (steps of 1); the voxels keep their places.

        Raises:
            GridError: if the box holds no voxel or has a step other than 1.

        Examples:
            >>> part = Grid((4, 4, 2), np.eye(4)).cropped((slice(1, 3), slice(None), slice(0, 1)))
            >>> part.shape, part.to_ras([0, 0, 0]).tolist()
            ((2, 4, 1), [1.0, 0.0, 0.0])
        """
        spans = [part.indices(n) for n, part in zip(self.shape, box, strict=True)]
        if any(step != 1 for _, _, step in spans):
            raise GridError(f"A box of a grid has slices with step 1, not {box}.")
        affine = self.affine.copy()
        affine[:3, 3] = self.to_ras([start for start, _, _ in spans])
        i, j, k = (stop - start for start, stop, _ in spans)
        return Grid((i, j, k), affine)

    def same_as(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Tell whether both grids have one shape and no voxel center differs by more than `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = corners_of(
            [0] * 3, np.asarray(self.shape) - 1
        )  # differences are affine: largest at a corner
        apart = np.linalg.norm(self.to_ras(corners) - other.to_ras(corners), axis=-1)
        return bool(apart.max() <= tolerance_mm)

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        spacing = " x ".join(f"{mm:.4g}" for mm in self.spacing)
        return f"Grid({size} voxels of {spacing} mm)"


def crop_grid(
    center_ras: ArrayLike,
    shape: Sequence[int] = (96, 96, 96),
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Grid:
    """Build a grid with axes along +R, +A, +S around a point.

    Args:
        center_ras: (3,) RAS mm of the center of the field, index (n - 1) / 2: between two voxels where n is even.
        shape: voxels along R, A, S.
        spacing_mm: voxel size along R, A, S in mm.

    Returns:
        the grid.

    Raises:
        GridError: if the center is not three finite numbers, or shape or spacing are out of range.

    Examples:
        >>> crop_grid((10, 0, 0), (2, 3, 3)).to_ras([0, 1, 1]).tolist()
        [9.5, 0.0, 0.0]
    """
    center = np.asarray(center_ras, dtype=np.float64)
    if center.shape != (3,) or not np.isfinite(center).all():
        raise GridError(
            f"The center of a crop is three finite RAS coordinates in mm, not {center}."
        )
    affine = np.diag([*map(float, spacing_mm), 1.0])
    affine[:3, 3] = center - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(_check_shape(shape), affine)


def slice_of(array: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """View of one slice; `ndarray.take` would copy the whole of a volume that was read from a NIfTI file."""
    view: NDArray[Any] = array[(slice(None),) * axis + (index,)]
    return view


def corners_of(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Return the eight corners of an index-space box, (8, 3)."""
    pairs = np.stack([np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)])
    return np.stack(np.meshgrid(*pairs.T, indexing="ij"), axis=-1).reshape(8, 3)


def apply_affine(affine: NDArray[Any], points: ArrayLike) -> NDArray[np.float64]:
    """Apply a (4, 4) affine to points (..., 3)."""
    carried = np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]
    return np.asarray(carried, dtype=np.float64)


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return three positive integers as Python ints, or raise GridError."""
    counts = tuple(np.asarray(shape, dtype=object).ravel())
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in counts)
    if len(counts) != 3 or not whole or min(counts, default=0) < 1:
        raise GridError(
            "A volume has three axes with at least one voxel each, but this one has shape "
            f"{tuple(shape)}. Give a single 3-D image."
        )
    i, j, k = (int(n) for n in counts)
    return i, j, k


def _check_affine(affine: ArrayLike) -> NDArray[np.float64]:
    """Return a read-only float64 (4, 4) copy of an invertible affine in mm, or raise GridError."""
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise GridError(f"An affine is a 4 x 4 matrix whose last row is 0 0 0 1, not\n{matrix}")
    if not np.isfinite(matrix).all():
        raise GridError(
            "The geometry of the image contains values that are not finite, so its place in the "
            f"patient is unknown. Export it again from its source. The affine was\n{matrix}"
        )
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    sizes = " x ".join(f"{mm:.4g}" for mm in spacing)
    if spacing.min() < MIN_SPACING_MM or spacing.max() > MAX_SPACING_MM:
        raise GridError(
            f"The voxel size of {sizes} mm lies outside {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} "
            "mm. The file may give its lengths in another unit (meter, micron) or lack a "
            "spacing: correct the spacing in its header."
        )
    skewness = abs(np.linalg.det(matrix[:3, :3] / spacing))
    if skewness < MIN_SKEWNESS:
        raise GridError(
            "The three axes of the image lie in one plane (the affine cannot be inverted), so no "
            "voxel has a place of its own. Correct the directions in its header. The affine "
            f"was\n{matrix}"
        )
    matrix.setflags(write=False)
    return matrix
