"""Tumors made by a formula instead of a network: the baseline of Hu et al. (CVPR 2023).

    CT' = CT - texture * Gaussian(mask, edge_sigma) * contrast_hu        inside the organ

The texture is twice smoothed noise between 0 and 1 (appendix A of our specification of DiffTumor). Works
on HU arrays (X, Y, Z) of 1 mm voxels along +R, +A, +S and needs no weights. As with the shapes, the
numbers are drawn first and applied without any randomness. Published for the liver; segmenters trained
on such tumors saw the window [-21, 189] HU, to nine of ten scans of which tumors were added.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from difftumor.synthesis.elastic import Mask
from difftumor.synthesis.shapes import (
    ORGANS,
    SIZES,
    SizeRule,
    TumorShape,
    TumorShapeError,
    box_center,
    check_organ,
    sample_center,
    sample_lesion,
    tumor_mask,
)

# Counts differ from DiffTumor's, and the large ones are smaller.
MODELLED_SIZES: dict[str, tuple[SizeRule, ...]] = {
    "tiny": (replace(SIZES["tiny"], count=(3, 10)),),
    "small": (replace(SIZES["small"], count=(3, 10)),),
    "medium": (replace(SIZES["medium"], count=(2, 5)),),
    "large": (replace(SIZES["large"], count=(1, 3), semi_axes=(24, 40)),),
}
MODELLED_SIZES["mix"] = (
    MODELLED_SIZES["tiny"][0],
    replace(SIZES["small"], count=(5, 10)),
    MODELLED_SIZES["medium"][0],
    MODELLED_SIZES["large"][0],
)
COARSE_SIGMAS = (3.0, 6.0, 9.0, 12.0, 15.0)
FINE_SIGMAS = (4.0, 7.0)
FLOOR = 0.12
"""Texture values up to here do not count for its mean."""
EXTREME = 6.2
"""Minimum and maximum of a published texture field before its rescaling, in standard deviations.

Measured as 6.2 on average (5.0 to 8.3; three fields of 420 x 300 x 320 for each of COARSE_SIGMAS); they
lie in the corners, where the mirrored border makes the smoothed noise rougher.
"""
SMALLEST_FIELD = 96
TRUNCATE = 4.0


@dataclass(frozen=True)
class ModelledTumor:
    """What makes the look of the tumors of one scan. JSON-serialisable, replayable.

    Attributes:
        seed: of the noise behind the texture.
        coarse_sigma: Gaussian that smooths the noise, voxels (mm), one of COARSE_SIGMAS.
        fine_sigma: Gaussian that smooths the random dots, voxels (mm), one of FINE_SIGMAS.
        base: lowest density of the dots, 0.04 to 0.06.
        spread: highest density less the lowest, 0.19 to 0.21.
        level: mean of the texture, 0.5 to 0.55.
        edge_sigma: Gaussian that softens the mask, voxels (mm), 1 to 2.
        contrast_hu: darkening where texture and softened mask are 1, 65 to 145 HU.
    """

    seed: int
    coarse_sigma: float
    fine_sigma: float
    base: float
    spread: float
    level: float
    edge_sigma: float
    contrast_hu: float

    def __post_init__(self) -> None:
        """Refuse what makes no texture; wider than what is drawn, so that one can try things."""
        limits = {
            "seed": (0, 2**64 - 1),
            "coarse_sigma": (0.5, 50.0),
            "fine_sigma": (0.5, 50.0),
            "base": (0.01, 0.5),
            "spread": (0.0, 0.5),
            "level": (0.0, 1.0),
            "edge_sigma": (0.0, 10.0),
            "contrast_hu": (-1000.0, 1000.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            kinds = int if name == "seed" else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; it must be from {low} to {high}")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelledTumor:
        """Build from what `to_dict` gave.

        Raises:
            ValueError: if a field is missing, unknown or out of range.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"this describes no modeled tumor: {error}") from error


def sample_modelled_tumor(rng: np.random.Generator) -> ModelledTumor:
    """Draw texture, edge and contrast as Hu et al. do; one draw serves all tumors of a scan."""
    return ModelledTumor(
        seed=int(rng.integers(2**63)),
        coarse_sigma=float(rng.choice(COARSE_SIGMAS)),
        fine_sigma=float(rng.choice(FINE_SIGMAS)),
        base=rng.uniform(0.04, 0.06),
        spread=rng.uniform(0.19, 0.21),
        level=rng.uniform(0.5, 0.55),
        edge_sigma=rng.uniform(1.0, 2.0),
        contrast_hu=rng.uniform(65.0, 145.0),
    )


def sample_modelled_lesions(
    rng: np.random.Generator,
    organ_mask: NDArray[Any],
    organ: str = "liver",
    size: str | None = None,
) -> tuple[TumorShape, ...]:
    """Draw the shapes of the tumors of one scan with the counts of Hu et al.

    Differs from Hu et al.: where slices between 0.3 and 0.7 of the organ's height have no candidate, the
    range widens as in DiffTumor; other organs than the liver, which they did not use, are not eroded.

    Args:
        rng: source of all numbers.
        organ_mask: bool or 0/1 (X, Y, Z), 1 mm voxels.
        organ: one of tumor_shapes.ORGANS.
        size: one of MODELLED_SIZES ("mix" has all of them); None draws it, all with equal chances.

    Returns:
        shapes for `synthesis.shapes.tumor_mask` or `add_modelled_tumors`.

    Raises:
        TumorShapeError: for an empty or too small organ, or an unknown size or organ.
    """
    if size is None:
        size = str(rng.choice(list(MODELLED_SIZES)))
    for name, value, choices in (("size", size, MODELLED_SIZES), ("organ", organ, ORGANS)):
        if value not in choices:
            raise TumorShapeError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    inner = trim_box(check_organ(organ_mask))
    return tuple(
        sample_lesion(rng, rule, sample_center(rng, inner, inside_edge=organ == "liver"))
        for rule in MODELLED_SIZES[size]
        for _ in range(int(rng.integers(*rule.count, endpoint=True)))
    )


def add_modelled_tumors(
    ct_hu: ArrayLike,
    organ_mask: NDArray[Any],
    lesions: Iterable[TumorShape],
    tumor: ModelledTumor,
) -> tuple[NDArray[np.float32], Mask]:
    """Add random tumors to a scan, which keeps the outermost planes of the organ's box free of them.

    Args:
        ct_hu: (X, Y, Z) HU.
        organ_mask: bool or 0/1 (X, Y, Z).
        lesions: from `sample_modelled_lesions`.
        tumor: from `sample_modelled_tumor`.

    Returns:
        float32 (X, Y, Z) HU, a new array; and the tumor mask, bool (X, Y, Z).

    Raises:
        TumorShapeError: for an empty organ, or tumors that nowhere meet it.
    """
    inner = trim_box(check_organ(organ_mask))
    mask = tumor_mask(inner, lesions)
    return apply_modelled_tumor(ct_hu, inner, mask, tumor), mask


def apply_modelled_tumor(
    ct_hu: ArrayLike,
    organ_mask: NDArray[Any] | None,
    tumor_mask: NDArray[Any],
    tumor: ModelledTumor,
) -> NDArray[np.float32]:
    """Darken a scan where a given mask says, an ellipsoid for example.

    Args:
        ct_hu: (X, Y, Z) HU.
        organ_mask: bool (X, Y, Z), nothing changes outside it; None changes things everywhere.
        tumor_mask: bool (X, Y, Z), at least one voxel.
        tumor: from `sample_modelled_tumor` or a side-car.

    Returns:
        float32 (X, Y, Z) HU, a new array, equal to `ct_hu` beyond four edge sigmas of the tumor.

    Raises:
        ValueError: if the shapes differ, the mask is empty, or nothing of it lies in the organ.
    """
    result = np.array(ct_hu, dtype=np.float32)
    tumor_mask = np.asarray(tumor_mask, dtype=bool)
    organ = None if organ_mask is None else np.asarray(organ_mask, dtype=bool)
    for name, mask in (("tumor mask", tumor_mask), ("organ mask", organ)):
        if mask is not None and mask.shape != result.shape:
            raise ValueError(f"the {name} has shape {mask.shape}, the CT {result.shape}")
    if not (tumor_mask if organ is None else tumor_mask & organ).any():
        where = "" if organ is None else " inside the organ"
        raise ValueError(f"the tumor mask has no voxel{where}; move the tumor or check the masks")
    margin = int(TRUNCATE * tumor.edge_sigma + 0.5) + 1
    tight = ndimage.find_objects(tumor_mask.view(np.uint8))[0]
    box = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in tight)
    weight = tumor_mask[box].astype(np.float32)
    weight = ndimage.gaussian_filter(weight, tumor.edge_sigma, truncate=TRUNCATE)
    if organ is not None:
        weight *= organ[box]
    result[box] += weight * modelled_change(weight.shape, tumor)
    return result


def modelled_change(shape: Sequence[int], tumor: ModelledTumor) -> NDArray[np.float32]:
    """Return what full weight adds to the HU: float32 of `shape`, -contrast_hu to 0."""
    return np.float32(-tumor.contrast_hu) * texture_field(shape, tumor)


def texture_field(shape: Sequence[int], tumor: ModelledTumor) -> NDArray[np.float32]:
    """Make the texture of one region.

    Uniform noise is smoothed and rescaled to densities between base and base + spread; dots fall with
    these densities and are smoothed again; the result is scaled so that its mean (of values above
    FLOOR) is `level` in a large field.
    Differs from Hu et al., who cut regions out of ten stored fields of 420 x 300 x 320 voxels: here
    just the region is made, of noise that continues periodically, and rescaled by the extremes
    (EXTREME) and the mean (`counted_mean`) of a stored field. The statistics are those of its inside.

    Args:
        shape: of the region, voxels (mm).
        tumor: its seed and parameters.

    Returns:
        float32 of `shape`, 0 to 1; the same numbers give the same texture.
    """
    rng = np.random.Generator(np.random.PCG64(tumor.seed))
    # Six sigmas apart the periodic copies of the noise no longer know of each other.
    smallest = max(SMALLEST_FIELD, math.ceil(6 * max(tumor.coarse_sigma, tumor.fine_sigma)))
    size = [max(n, smallest) for n in shape]

    def smooth(field: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        return np.asarray(ndimage.gaussian_filter(field, sigma, mode="wrap", truncate=TRUNCATE))

    coarse = smooth(rng.random(size, dtype=np.float32), tumor.coarse_sigma)
    # Uniform noise has the variance 1/12, of which a Gaussian keeps a part.
    deviation = math.sqrt(_kept_variance(tumor.coarse_sigma) / 12)
    unit = np.clip(0.5 + (coarse - 0.5) / (2 * EXTREME * deviation), 0, 1)
    dots = rng.random(size, dtype=np.float32) < tumor.base + tumor.spread * unit
    fine = smooth(dots.astype(np.float32), tumor.fine_sigma)
    texture = np.clip(fine * (tumor.level / counted_mean(tumor)), 0, 1)
    return np.ascontiguousarray(texture[tuple(slice(n) for n in shape)])


def counted_mean(tumor: ModelledTumor) -> float:
    """Mean over a large field of the smoothed dots above FLOOR, before they are scaled to `level`.

    The smoothed dots are close to normal: their variance is that of the density, smoothed once more,
    and that of the dots about it. The mean of a normal variable above a threshold follows.
    """
    mean = tumor.base + tumor.spread / 2
    coarse, fine = tumor.coarse_sigma**2, tumor.fine_sigma**2
    density = (tumor.spread / (2 * EXTREME)) ** 2 * (coarse / (coarse + fine)) ** 1.5
    deviation = math.sqrt(density + mean * (1 - mean) * _kept_variance(tumor.fine_sigma))
    threshold = (FLOOR - mean) / deviation
    above = math.erfc(threshold / math.sqrt(2)) / 2
    if above < 1e-9:
        return FLOOR
    height = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    return mean + deviation * height / above


def _kept_variance(sigma: float) -> float:
    """Part of the variance of white noise that a 3-D Gaussian leaves: (2 sqrt(pi) sigma)^-3."""
    return (2 * math.sqrt(math.pi) * sigma) ** -3


def trim_box(organ_mask: Mask) -> Mask:
    """Drop the outermost plane on each side of the organ's bounding box, as Hu et al. do.

    Raises:
        TumorShapeError: if nothing is left.
    """
    box = ndimage.find_objects(organ_mask.view(np.uint8))[0]
    inner = np.zeros_like(organ_mask)
    part = tuple(slice(s.start + 1, max(s.stop - 1, s.start + 1)) for s in box)
    inner[part] = organ_mask[part]
    if not inner.any():
        raise TumorShapeError(
            f"the organ is too small for a tumor: it has {int(organ_mask.sum())} voxels around "
            f"{box_center(organ_mask)}. Check the organ mask and its label"
        )
    return inner
