"""From an image and its healthy rewriting to a heat map, and from the heat map to a segmentation.

All functions are pure and work on slices of the model's pixels, (n, C, H, W) or (n, H, W). The order
matters and is always: difference and its positive part, then smoothing, then scaling, then threshold.
A trial on phantoms (specification, section 12) found that the other order loses most of the map: the
error of the round trip has both signs and cancels where the lesion's does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.parameters import MapKind, Normalization, ThresholdRule

Planes = NDArray[np.float32]

# What lesions look like against healthy tissue; a model's card says it, per channel if need be.
DIRECTIONS = {"dark": 1.0, "bright": -1.0, "both": 0.0}
OTSU_BINS = 256
# A map whose values all lie within this share of its maximum has nothing to separate.
CONSTANT = 1e-6
# Below rounding of the model's range: dividing by it would make a map of noise, or of infinities.
NOTHING = 1e-9


def direction_signs(direction: str, channels: int) -> NDArray[np.float32]:
    """Signs (channels,) of "healthy minus image" at a lesion: 1, -1, or 0 for either.

    Args:
        direction: "dark", "bright" or "both" (CT also "hypodense", "hyperdense"); one word for all channels, or
            one per channel, separated by commas.

    Raises:
        ValueError: another word, or another number of them.
    """
    same = {"hypodense": "dark", "hyperdense": "bright"}
    words = [same.get(word.strip(), word.strip()) for word in direction.split(",")]
    if not set(words) <= set(DIRECTIONS) or len(words) not in (1, channels):
        raise ValueError(
            f"direction: got {direction!r}, allowed dark, bright or both, once or for each of {channels} channels"
        )
    return np.asarray([DIRECTIONS[word] for word in words * (channels // len(words))], np.float32)


def difference(
    kind: MapKind,
    x: Planes,
    healthy: Planes,
    unguided: Planes | None,
    signs: NDArray[np.float32],
) -> Planes:
    """Where an image departs from its healthy rewriting.

    guided      sum_c [x_hat(S) - x_hat(0)]+   what the guidance changed; the error of the round trip cancels
    one-sided   sum_c [x_hat(S) - x]+          what the rewriting changed
    signed      sum_c (x_hat(S) - x)           the same, not cut at zero
    absolute    sum_c |x - x_hat(S)|           the papers' map (Wolleb et al. 2022; Babaei et al.)

    [d]+ is the positive part of sign_c d, and |d| where sign_c is 0. The signed map is positive where the image
    departs in the lesion's direction; without one (sign 0) where the image is brighter than healthy.

    Args:
        kind: which of them.
        x: image, float32 (n, C, H, W).
        healthy: x_hat at the asked guidance scale, same shape.
        unguided: x_hat at S = 0, same shape; needed by "guided" only.
        signs: (C,) of `direction_signs`.

    Returns:
        float32 (n, H, W).

    Raises:
        ValueError: "guided" without `unguided`.
    """
    if kind == "guided":
        if unguided is None:
            raise ValueError("map_kind: 'guided' needs the rewriting at S = 0")
        change = healthy - unguided
    else:
        change = healthy - x
    if kind == "absolute":
        return np.asarray(np.abs(change).sum(axis=1), dtype=np.float32)
    sign = signs[:, None, None]
    if kind == "signed":
        return np.asarray((np.where(sign == 0, -1, sign) * change).sum(axis=1), dtype=np.float32)
    parts = np.where(sign == 0, np.abs(change), np.maximum(sign * change, 0))
    return np.asarray(parts.sum(axis=1), dtype=np.float32)


def smooth(
    planes: Planes, organ: NDArray[np.bool_], sigma_mm: float, spacing_mm: Sequence[float]
) -> Planes:
    """Smooth maps in the plane and keep the organ only; after the positive part, never before.

    Args:
        planes: float32 (n, H, W).
        organ: bool (n, H, W).
        sigma_mm: width of the Gaussian; 0 leaves the values as they are.
        spacing_mm: size of a pixel, rows and columns.

    Returns:
        float32 (n, H, W), 0 outside the organ.
    """
    inside = np.where(organ, planes, 0).astype(np.float32)
    if sigma_mm > 0:
        sigma = (0.0, sigma_mm / spacing_mm[0], sigma_mm / spacing_mm[1])
        inside = ndimage.gaussian_filter(inside, sigma, mode="constant")
    return np.where(organ, inside, 0).astype(np.float32)


def scale_factors(planes: Planes, how: Normalization) -> NDArray[np.float32]:
    """Factors (n,) that bring maps to [0, 1]: negative values become 0, the maximum 1.

    Outside the organ a map is 0, so this is the papers' min-max of each slice for "slice".

    Args:
        planes: float32 (n, H, W), 0 outside the organ.
        how: "slice" and "volume" divide by the maximum of each slice or of all; "none" leaves the values as they
            are, in units of the model's range, and `scaled` cuts them at 1.
    """
    highest = planes.reshape(len(planes), -1).max(axis=1, initial=0.0)
    if how == "none":
        return np.ones(len(planes), np.float32)
    if how == "volume":
        highest = np.full(len(planes), highest.max(initial=0.0))
    some = highest > NOTHING
    return np.where(some, 1 / np.where(some, highest, 1), 0).astype(np.float32)


def scaled(values: NDArray[np.float32], factors: NDArray[np.float32] | float) -> Planes:
    """Maps in [0, 1]; `factors` of `scale_factors`, shaped to fit."""
    shares: NDArray[np.floating] = np.clip(values * factors, 0.0, 1.0)
    return shares.astype(np.float32)


def otsu_threshold(values: NDArray[Any]) -> float | None:
    """Otsu's threshold of 256 bins, or None where all values are equal and nothing can be separated.

    SimpleITK's, as Slicer has it; scikit-image's of the published code differs by less than 1e-4 of the maximum.

    Args:
        values: any shape; finite.
    """
    flat = np.asarray(values, np.float32).ravel()
    if not flat.size or float(np.ptp(flat)) <= CONSTANT * float(np.abs(flat).max()):
        return None
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.SetNumberOfHistogramBins(OTSU_BINS)
    threshold.SetReturnBinMidpoint(True)
    threshold.Execute(sitk.GetImageFromArray(flat[None]))
    return float(threshold.GetThreshold())


def thresholds(
    scaled_planes: Planes,
    organ: NDArray[np.bool_],
    rule: ThresholdRule,
    fixed: float,
    how: Normalization,
) -> NDArray[np.float64]:
    """Threshold of each slice (n,): what lies above it is marked. Infinite where there is nothing to mark.

    Args:
        scaled_planes: float32 (n, H, W) in [0, 1].
        organ: bool (n, H, W); Otsu looks at its pixels.
        rule: "fixed" (Babaei et al.: 0.35 of the scaled map) or "otsu" (Wolleb et al.).
        fixed: threshold of the rule "fixed".
        how: normalization of the maps; those that were scaled together are separated together.
    """
    if rule == "fixed":
        return np.full(len(scaled_planes), fixed)
    if how == "slice":
        found = [
            otsu_threshold(plane[inside])
            for plane, inside in zip(scaled_planes, organ, strict=True)
        ]
    else:
        found = [otsu_threshold(scaled_planes[organ])] * len(scaled_planes)
    return np.asarray([np.inf if value is None else value for value in found])


def gated(
    probabilities: NDArray[np.float64],
    planes: Planes,
    gate_probability: float,
    floor: float,
) -> NDArray[np.bool_]:
    """Slices (n,) that come out empty: the classifier calls them healthy, or their map is faint.

    A scaled map always has a maximum of 1, on a healthy slice too, so that a threshold alone always marks something.

    Args:
        probabilities: of disease, (n,), on the un-noised slice.
        planes: maps before scaling, (n, H, W), in units of the model's range.
        gate_probability: least probability of a marked slice.
        floor: least maximum of the map of a marked slice.
    """
    highest = planes.reshape(len(planes), -1).max(axis=1, initial=0.0)
    return np.asarray((probabilities < gate_probability) | (highest < floor) | (highest <= NOTHING))


def volume_probability(probabilities: Sequence[float]) -> float:
    """Confidence for the whole volume: the highest mean of three neighboring slices.

    A lesion shows in neighboring slices; the highest single one of many would call most healthy volumes diseased.
    """
    values = np.asarray(probabilities, np.float64)
    width = min(3, len(values))
    return float(np.convolve(values, np.full(width, 1 / width), mode="valid").max())


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask (I, J, K), corners connect; an empty mask stays empty."""
    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def count_components(mask: NDArray[np.bool_]) -> int:
    """Number of connected parts of a mask (I, J, K), corners connect."""
    return int(ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[1])


def value_statistics(values: NDArray[np.generic]) -> dict[str, float | int | None]:
    """Number, mean, standard deviation and 5th, 50th, 95th percentile of voxels; None where there are none."""
    if not values.size:
        return {"voxels": 0, "mean": None, "sd": None, "p5": None, "median": None, "p95": None}
    numbers = values.astype(np.float64)
    low, middle, high = np.percentile(numbers, (5, 50, 95))
    return {
        "voxels": int(values.size),
        "mean": round(float(numbers.mean()), 3),
        "sd": round(float(numbers.std()), 3),
        "p5": round(float(low), 3),
        "median": round(float(middle), 3),
        "p95": round(float(high), 3),
    }
