"""Contrast and texture of one lesion in an image, with the same measure for any way it was made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

# Bands between Gaussians of these widths in mm (voxels): 0 is the image itself.
BANDS_MM = ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0))
MARGIN = 24  # voxels around the lesion that are looked at
GAP_MM = 3.0  # of the surroundings to any tumor
REACH_MM = 18.0
MIN_VOXELS = 40


@dataclass(frozen=True)
class LesionTexture:
    """What a reader sees of a lesion.

    Attributes:
        contrast_hu: mean inside less median of the organ around it.
        sd_hu: standard deviation inside, one voxel off the edge.
        smooth_sd_hu: the same after a Gaussian of 1 mm inside the lesion: texture without grain.
        band_ratios: standard deviation in each of BANDS_MM, inside over around: the spectrum compared with
            that of the surroundings.
    """

    contrast_hu: float
    sd_hu: float
    smooth_sd_hu: float
    band_ratios: tuple[float, ...]

    def values(self) -> dict[str, float]:
        """Numbers by name."""
        bands = {
            f"band {low:g}-{high:g} mm": ratio
            for (low, high), ratio in zip(BANDS_MM, self.band_ratios, strict=True)
        }
        return {
            "contrast HU": self.contrast_hu,
            "sd HU": self.sd_hu,
            "sd HU, 1 mm smoothed": self.smooth_sd_hu,
        } | bands


def measure_texture(
    image: NDArray, lesion: Mask, organ: Mask, tumors: Mask
) -> LesionTexture | None:
    """Measure a lesion on the 1 mm grid.

    Args:
        image: HU (I, J, K).
        lesion: the lesion's voxels.
        organ: the organ's, lesions included.
        tumors: every tumor in the image; the surroundings keep away from them.

    Returns: None if the lesion or the organ around it is too small to measure.
    """
    box = ndimage.find_objects(lesion.astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - MARGIN), s.stop + MARGIN) for s in box)
    image, lesion = image[box].astype(np.float64), lesion[box]
    core = ndimage.binary_erosion(lesion)
    distance = ndimage.distance_transform_edt(~lesion)
    clear = ndimage.distance_transform_edt(~(tumors[box] | lesion)) > GAP_MM
    around = ndimage.binary_erosion(organ[box]) & clear & (distance < REACH_MM)
    if core.sum() < MIN_VOXELS or around.sum() < MIN_VOXELS:
        return None
    return LesionTexture(
        float(image[lesion].mean() - np.median(image[around])),
        float(image[core].std()),
        float(masked_blur(image, lesion, 1.0)[core].std()),
        tuple(
            band_sd(image, lesion, core, *band) / band_sd(image, around, around, *band)
            for band in BANDS_MM
        ),
    )


def band_sd(image: NDArray, support: Mask, where: Mask, low_mm: float, high_mm: float) -> float:
    """Standard deviation of what lies between two Gaussians, using only voxels of `support`."""
    band = masked_blur(image, support, low_mm) - masked_blur(image, support, high_mm)
    return float(band[where].std())


def masked_blur(image: NDArray, support: Mask, sigma: float) -> NDArray:
    """Gaussian mean over the voxels of a mask only (normalized convolution); 0 where it is empty."""
    if sigma == 0:
        return np.where(support, image, 0)
    weight = ndimage.gaussian_filter(support.astype(np.float64), sigma)
    total = ndimage.gaussian_filter(np.where(support, image, 0), sigma)
    return np.divide(total, weight, out=np.zeros_like(total), where=support)
