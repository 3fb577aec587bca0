"""How a generated tumor enters the scan: our feathered blend, and the published rule per organ.

One formula serves both: inside the region out = HU + w (generated - reference), where the reference is
the scan clipped to the model's window, so that calcium, fat and air beyond the window survive. Outside
the region (w = 0) nothing is computed and nothing changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WINDOW_HU = (-175.0, 250.0)
TRUNCATE = 4.0  # the Gaussian rim ends at this many sigmas, as in the published code


def feather_weight(
    mask: NDArray[np.bool_], spacing_mm: NDArray[np.float64], sigma_mm: float
) -> NDArray[np.float32]:
    """Soft weight of a tumor mask: the mask convolved with a Gaussian.

    Args:
        mask: bool (I, J, K), already padded by `feather_margin` voxels where the grid allows it.
        spacing_mm: (3,) voxel size.
        sigma_mm: width of the rim in mm; 0 returns the hard mask.

    Returns:
        float32 (I, J, K) in [0, 1].
    """
    weight = mask.astype(np.float32)
    if sigma_mm > 0:
        sigma = sigma_mm / np.asarray(spacing_mm, float)
        weight = ndimage.gaussian_filter(weight, sigma, mode="nearest", truncate=TRUNCATE)
    return np.clip(weight, 0.0, 1.0)


def feather_margin(spacing_mm: NDArray[np.float64], sigma_mm: float) -> NDArray[np.int64]:
    """Voxels (3,) by which the rim can reach beyond the mask."""
    return np.floor(TRUNCATE * sigma_mm / np.asarray(spacing_mm, float) + 0.5).astype(np.int64)


def blend(
    hu: NDArray[np.generic],
    generated: NDArray[np.float32],
    reference: NDArray[np.float32] | None,
    weight: NDArray[np.float32],
) -> NDArray[np.generic]:
    """Out = HU + w (generated - reference), in the voxel type of the scan.

    Args:
        hu: the scan in the region's box, any voxel type, HU.
        generated: float32 HU, same shape.
        reference: float32 HU that `generated` is to be compared with; None: the scan clipped to the window.
        weight: float32 in [0, 1], same shape.

    Returns:
        array of the type of `hu` (integers rounded), equal to `hu` where `weight` is 0.
    """
    scan = hu.astype(np.float32)
    if reference is None:
        reference = np.clip(scan, *WINDOW_HU)
    blended = scan + weight * (generated - reference)
    if np.issubdtype(hu.dtype, np.integer):
        limits = np.iinfo(hu.dtype.name)
        blended = np.clip(np.rint(blended), limits.min, limits.max)
    return np.where(weight > 0, blended, hu).astype(hu.dtype)


def blend_as_published(
    ct01: NDArray[np.float32],
    generated: NDArray[np.float32],
    mask: NDArray[np.bool_],
    organ: str,
    sigma_voxels: float,
) -> NDArray[np.float32]:
    """Blend one crop as DiffTumor's code does (spec section 3.2).

    Liver and kidney: (1 - w) ct + w clip(generated), clipped to [0, 1], w = Gaussian(mask, sigma).
    Pancreas: the decoded crop replaces everything, unclipped.

    Args:
        ct01: crop scaled to [0, 1], float32 (X, Y, Z) of 1 mm voxels.
        generated: decoded crop, scaled to [0, 1] but not clipped.
        mask: tumor, bool (X, Y, Z).
        organ: 'liver', 'pancreas' or 'kidney': the anatomy.
        sigma_voxels: drawn from U(0, 4) by the published code.

    Returns:
        float32 (X, Y, Z).
    """
    if organ == "pancreas":
        return generated.astype(np.float32)
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma_voxels, truncate=TRUNCATE)
    mixed: NDArray[np.float32] = (1 - weight) * ct01 + weight * np.clip(generated, 0, 1)
    return np.clip(mixed, 0, 1)


def to_unit(hu: NDArray[np.generic]) -> NDArray[np.float32]:
    """HU clipped to the window and scaled to [0, 1]."""
    low, high = WINDOW_HU
    unit: NDArray[np.floating] = (np.clip(hu, low, high) - low) / (high - low)
    return unit.astype(np.float32)


def from_unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Back from [0, 1] to HU, not clipped."""
    low, high = WINDOW_HU
    return (values * (high - low) + low).astype(np.float32)
