"""Neutral copies: all cases alike in everything but what they show.

One grid of one size along R, A, S with its center at 0, int16 HU, one header, no names, places, dates or comments.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import Grid, crop_grid
from difftumor.images.resampling import covering_box, resample
from difftumor.reader_study.study import StudyError

AIR_HU = -1024
HU_RANGE = (AIR_HU, 3071)  # 12 bits: what a scanner stores
SMALLEST_MM = 16.0
ORGAN_CROP_MM = 80.0
_SAME_MM = 1e-3


@dataclass(frozen=True)
class Frame:
    """The grid of all cases.

    Attributes:
        shape: voxels along R, A, S.
        spacing_mm: their size.
        exact: every scan has voxels of this size along R, A, S, so they are copied as they are; else all cases are
            interpolated.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    exact: bool

    @property
    def size_mm(self) -> NDArray[np.float64]:
        """Extent to the outer edges."""
        return np.asarray(np.asarray(self.shape) * np.asarray(self.spacing_mm))


def common_frame(
    grids: Sequence[Grid],
    spacing_mm: Sequence[float] | None,
    field_mm: Sequence[float] | None,
    *,
    crop_mm: float | None = None,
) -> Frame:
    """The grid that suits all scans.

    Args:
        grids: of the scans.
        spacing_mm: None: the coarsest of the scans along each axis, so that none is finer than it was.
        field_mm: None: what the smallest scan can fill along each axis.
        crop_mm: largest size along each axis, where `field_mm` is None.

    Raises:
        StudyError: the field would be too small to show anything.
    """
    along = np.array([_spacing_along_ras(grid) for grid in grids])
    spacing = np.round(along.max(axis=0) if spacing_mm is None else np.asarray(spacing_mm), 6)
    if field_mm is None:
        extents = np.array([np.diff(grid.bounds_ras, axis=0)[0] for grid in grids])
        size = extents.min(axis=0) + _SAME_MM
        size = size if crop_mm is None else np.minimum(size, crop_mm)
    else:
        size = np.asarray(field_mm, float) + _SAME_MM
    shape = np.floor(size / spacing).astype(int)
    if (shape * spacing < SMALLEST_MM - spacing).any() or shape.min() < 2:
        raise StudyError(
            f"The common field of all cases would be only {np.round(size, 1).tolist()} mm. Leave very small scans "
            "out, or choose field and voxel size yourself."
        )
    exact = bool((np.abs(along - spacing) < _SAME_MM).all()) and all(map(_is_upright, grids))
    i, j, k = shape.tolist()
    x, y, z = spacing.tolist()
    return Frame((i, j, k), (x, y, z), exact)


def place(frame: Frame, scan: Grid, start_ras: Sequence[float]) -> tuple[Grid, NDArray[np.float64]]:
    """Where in a scan the frame lies: around the start, moved so that it stays inside where it can.

    Returns:
        the grid in the patient, and the start in the copy (RAS mm from its center, whole mm).
    """
    start = np.asarray(start_ras, float)
    low, high = scan.bounds_ras
    half = frame.size_mm / 2
    inside = np.clip(start, low + half, np.maximum(high - half, low + half))
    center = np.where(high - low >= 2 * half - _SAME_MM, inside, (low + high) / 2)
    target = crop_grid(center, frame.shape, frame.spacing_mm)
    if frame.exact:
        # Onto the scan's own voxels: nothing is interpolated.
        corner = scan.to_ras(np.rint(scan.to_ijk(target.affine[:3, 3])))
        center = center + corner - target.affine[:3, 3]
        target = crop_grid(center, frame.shape, frame.spacing_mm)
    return target, np.rint(np.clip(start - center, -half, half)) + 0.0


def neutral_copy(
    array: NDArray[np.generic], scan: Grid, target: Grid, *, exact: bool
) -> NDArray[np.int16]:
    """The scan on the grid of a case: HU (X, Y, Z) along R, A, S, whole numbers; air beyond the scan.

    Scans that are much finer along an axis are averaged over the voxel first, or they would look noisier than others.

    Args:
        array: (I, J, K) HU.
        scan: its grid.
        target: of `place`.
        exact: of the frame.
    """
    box = covering_box(target, scan, margin=8)
    values, part = array[box], scan.cropped(box)
    ratio = np.asarray(target.spacing)[_ras_axis(scan)] / scan.spacing
    if not exact and (ratio > 1.5).any():
        # A Gaussian as wide as what a voxel of the case averages over beyond one of the scan.
        sigma = np.sqrt(np.maximum(ratio**2 - 1, 0) / 12)
        values = ndimage.gaussian_filter(values.astype(np.float32), sigma, mode="nearest")
    hu = np.rint(resample(values, part, target, order=0 if exact else 1, fill=AIR_HU))
    whole: NDArray[np.int16] = np.clip(hu, *HU_RANGE).astype(np.int16)
    return whole


def write_case(hu: NDArray[np.int16], spacing_mm: Sequence[float], path: Path) -> None:
    """Write a case: NIfTI-1 without compression (quick to load, and of equal size), center at 0."""
    grid = crop_grid((0.0, 0.0, 0.0), hu.shape, spacing_mm)
    image = nib.Nifti1Image(np.asfortranarray(hu), grid.affine, dtype=np.int16)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_slope_inter(1.0, 0.0)
    nib.save(image, path)


def packed_mask(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Lesions of a neutral copy for the key: the box that holds them, as bits."""
    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    bits = base64.b64encode(zlib.compress(np.packbits(part).tobytes(), 9)).decode()
    first = crop_grid((0.0, 0.0, 0.0), mask.shape, spacing_mm).to_ras(low)
    return {
        "first_voxel_ras": np.round(first, 4).tolist(),
        "spacing_mm": [float(v) for v in spacing_mm],
        "shape": list(part.shape),
        "bits": bits,
    }


def distance_to_lesion(packed: dict[str, Any], mark_ras: Sequence[float]) -> float:
    """From a mark to the nearest voxel of a packed mask, 0 inside; mm."""
    shape = tuple(packed["shape"])
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed["bits"])), np.uint8)
    mask = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
    spacing = np.asarray(packed["spacing_mm"])
    centers = np.argwhere(mask) * spacing + np.asarray(packed["first_voxel_ras"])
    beyond = np.maximum(np.abs(centers - np.asarray(mark_ras)) - spacing / 2, 0)
    return float(np.linalg.norm(beyond, axis=1).min())


def _ras_axis(grid: Grid) -> list[int]:
    """For each axis of the voxels the one of R, A, S that it is nearest to."""
    return [int(a) for a in np.abs(grid.affine[:3, :3] / grid.spacing).argmax(axis=0)]


def _spacing_along_ras(grid: Grid) -> NDArray[np.float64]:
    """Voxel size along R, A, S."""
    result = np.full(
        3, grid.spacing.max()
    )  # of a grid turned by 45 degrees two axes are nearest to one
    for axis, spacing in zip(_ras_axis(grid), grid.spacing, strict=True):
        result[axis] = spacing
    return result


def _is_upright(grid: Grid) -> bool:
    """Whether the axes of the voxels are R, A and S, in any order and direction."""
    turned = np.sort(np.abs(grid.affine[:3, :3] / grid.spacing), axis=0)
    return bool(np.allclose(turned, [[0] * 3, [0] * 3, [1] * 3], atol=1e-4))
