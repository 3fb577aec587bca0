"""What is measured of anomaly maps on slices whose lesions are known, and the maps of rules without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.anomaly.maps import scale_factors, scaled, smooth, thresholds
from difftumor.parameters import ThresholdRule
from training.data.slice_choice import LOOK_ALIKES_MM2
from training.loop.measures import auroc, dice

PAPER_THRESHOLD = 0.35
FOUND_SHARE = 0.25  # of a lesion's pixels that must be marked for it to count as found
BOOTSTRAPS = 1000

Planes = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices with everything that is known of them.

    Attributes:
        images: float32 (n, C, H, W) in the model's range.
        organ, tumor: bool (n, H, W).
        look_alikes: uint8 (n, H, W), 0 where there is none.
        diseased: bool (n,).
        patient: int (n,).
        spacing_mm: size of a pixel.
    """

    images: NDArray[np.float32]
    organ: NDArray[np.bool_]
    tumor: NDArray[np.bool_]
    look_alikes: NDArray[np.uint8]
    diseased: NDArray[np.bool_]
    patient: NDArray[np.int32]
    spacing_mm: tuple[float, float]

    def __len__(self) -> int:
        return len(self.images)

    def some(self, rows: NDArray[np.integer]) -> Slices:
        """A part of them."""
        arrays = (self.images, self.organ, self.tumor, self.look_alikes, self.diseased)
        return Slices(*(array[rows] for array in arrays), self.patient[rows], self.spacing_mm)

    @property
    def with_look_alikes(self) -> NDArray[np.bool_]:
        """Whether a slice shows at least 28 mm2 of healthy look-alikes (a cyst of 3 mm radius), (n,)."""
        pixel = self.spacing_mm[0] * self.spacing_mm[1]
        return np.asarray((self.look_alikes > 0).sum((1, 2)) * pixel >= LOOK_ALIKES_MM2)


@dataclass(frozen=True)
class Gate:
    """When a slice comes out empty; see difftumor.anomaly.maps.gated."""

    probability: float
    floor: float


def organ_rule(slices: Slices, signs: Sequence[float], sigma_mm: float) -> Planes:
    """A map without any network: median of the organ minus the pixel, smoothed, positive part, summed over channels.

    Args:
        slices: what is judged.
        signs: (C,) 1 where lesions are dark, -1 where they are bright; 0 leaves a channel out.
        sigma_mm: width of the Gaussian.

    Returns: float32 (n, H, W), 0 outside the organ.
    """
    total = np.zeros(slices.organ.shape, np.float32)
    for channel, sign in enumerate(signs):
        if not sign:
            continue
        for k, (image, organ) in enumerate(
            zip(slices.images[:, channel], slices.organ, strict=True)
        ):
            below = np.where(organ, sign * (np.median(image[organ]) - image), 0)[None]
            smoothed = smooth(below.astype(np.float32), organ[None], sigma_mm, slices.spacing_mm)
            total[k] += np.maximum(smoothed[0], 0)
    return total


def marks(
    maps: Planes,
    organ: NDArray[np.bool_],
    empty: NDArray[np.bool_],
    rule: ThresholdRule = "fixed",
    threshold: float = PAPER_THRESHOLD,
) -> NDArray[np.bool_]:
    """Marked pixels of maps scaled slice by slice, as the engine marks them.

    Args:
        maps: (n, H, W), 0 outside the organ.
        organ: bool (n, H, W).
        empty: slices (n,) that come out unmarked.
        rule: "fixed" or "otsu".
        threshold: of the scaled map, for "fixed".
    """
    found = scaled(maps, scale_factors(maps, "slice")[:, None, None])
    limits = thresholds(found, organ, rule, threshold, "slice")
    return (found > limits[:, None, None]) & ~empty[:, None, None]


def measure(maps: Planes, slices: Slices, empty: NDArray[np.bool_]) -> dict[str, float]:
    """Figures of one kind of map.

    Args:
        maps: (n, H, W) of all slices, 0 outside the organ.
        slices: what they were made of.
        empty: slices (n,) that come out unmarked: they count as Dice 0 where there is a lesion.
    """
    ill = np.flatnonzero(slices.diseased)
    well = np.flatnonzero(~slices.diseased)
    alike = well[slices.with_look_alikes[well]]
    organ = slices.organ
    paper, otsu = marks(maps, organ, empty), marks(maps, organ, empty, "otsu")
    in_organ = [auroc(slices.tumor[k][slices.organ[k]], maps[k][slices.organ[k]]) for k in ill]
    in_crop = [auroc(slices.tumor[k], maps[k]) for k in ill]
    tried = np.arange(0.05, 0.96, 0.05)
    curve = [np.mean(_dices(marks(maps, organ, empty, threshold=t), slices, ill)) for t in tried]
    found, lesions = 0, 0
    for k in ill:
        hit, all_lesions = _found(paper[k], slices.tumor[k])
        found, lesions = found + hit, lesions + all_lesions
    dices = _dices(paper, slices, ill)
    low, high = interval(dices, slices.patient[ill])
    return {
        "pixel_auroc_organ": float(np.nanmean(in_organ)),
        "pixel_auroc_crop": float(np.nanmean(in_crop)),
        "dice_35": float(np.mean(dices)),
        "dice_35_low": low,
        "dice_35_high": high,
        "dice_otsu": float(np.mean(_dices(otsu, slices, ill))),
        "dice_best": float(np.max(curve)),
        "best_threshold": round(float(tried[int(np.argmax(curve))]), 2),
        "lesions": lesions,
        "lesions_found": found / max(lesions, 1),
        "healthy_marked": float(paper[well].any((1, 2)).mean()) if len(well) else float("nan"),
        "healthy_with_look_alikes_marked": float(paper[alike].any((1, 2)).mean())
        if len(alike)
        else float("nan"),
        "image_auroc_of_map": auroc(slices.diseased, maps.max((1, 2))),
    }


def dices_35(maps: Planes, slices: Slices, empty: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice at the papers' threshold of each diseased slice."""
    marked = marks(maps, slices.organ, empty)
    return _dices(marked, slices, np.flatnonzero(slices.diseased))


def interval(values: NDArray[np.float64], patient: NDArray[np.integer]) -> tuple[float, float]:
    """95 % interval of a mean by drawing patients anew (slices of one patient are alike)."""
    rng = np.random.default_rng(0)
    names = np.unique(patient)
    sums = np.array([values[patient == name].sum() for name in names])
    counts = np.array([(patient == name).sum() for name in names])
    drawn = rng.integers(len(names), size=(BOOTSTRAPS, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _dices(
    marked: NDArray[np.bool_], slices: Slices, rows: NDArray[np.integer]
) -> NDArray[np.float64]:
    return np.array([dice(marked[k], slices.tumor[k]) for k in rows])


def _found(marked: NDArray[np.bool_], tumor: NDArray[np.bool_]) -> tuple[int, int]:
    """Lesions of a slice of which enough is marked, and all of them."""
    parts, count = ndimage.label(tumor)
    shares = [marked[parts == label].mean() for label in range(1, count + 1)]
    return sum(bool(share >= FOUND_SHARE) for share in shares), count
