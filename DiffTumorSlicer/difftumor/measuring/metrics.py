"""How good a segmentation of tumors is: overlap, surfaces, tumors found, false alarms, patients called right.

The rules, where papers leave room (DiffTumor, Chen et al., CVPR 2024, does not publish its detection code):

* Pieces of a mask are 26-connected.  A tumor of the reference is *found* if the prediction covers more than a given
  share of its voxels; the default, 0, means any voxel.
* A *false positive* is a piece of the prediction without a voxel of the reference's tumors.
* Sizes are diameters of the sphere of equal volume; early means at most 20 mm.
* A patient is *called positive* if the prediction of one of their scans holds more than a given volume of tumor; the
  default is 0 mm3.
* Where prediction and reference are both empty, DSC and NSD do not exist (NaN) and do not enter means; where one is
  empty they are 0.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.measuring.lesions import EARLY_DIAMETER_MM, equivalent_diameter_mm, label_components

CONNECTIVITY = 26
TOLERANCE_MM = 2.0
# Ends of the size classes in mm, and what a table calls them.
SIZE_CLASSES = {"<= 10 mm": (0.0, 10.0), "10-20 mm": (10.0, 20.0), "> 20 mm": (20.0, math.inf)}
DRAWS = 2000


@dataclass(frozen=True)
class TumorFound:
    """One tumor of the reference.

    Attributes:
        diameter_mm: of the sphere of equal volume.
        covered: share of its voxels that the prediction holds.
        found: by the rule.
    """

    diameter_mm: float
    covered: float
    found: bool

    @property
    def early(self) -> bool:
        """Whether it is an early-stage tumor."""
        return self.diameter_mm <= EARLY_DIAMETER_MM


@dataclass(frozen=True)
class CaseFigures:
    """Figures of one scan; volumes in mm3, NaN where a figure does not exist."""

    dice: float
    surface_dice: float
    tumors: tuple[TumorFound, ...]
    false_positives: int
    reference_mm3: float
    predicted_mm3: float
    called_positive: bool

    @property
    def has_tumor(self) -> bool:
        """Whether the reference holds a tumor."""
        return bool(self.tumors)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None for what does not exist."""
        facts = asdict(self)
        facts["tumors"] = [asdict(tumor) for tumor in self.tumors]
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in facts.items()
        }


@dataclass(frozen=True)
class Interval:
    """A figure over many cases.

    Attributes:
        value: the ratio of sums (for a mean: of values and their number); NaN: there is no case.
        low, high: ends of its confidence interval.
        sd: sample standard deviation of the cases' own ratios; NaN below two cases.
        cases: how many entered.
        count: the denominator: cases, tumors, patients.
        method: how the interval was made.
    """

    value: float
    low: float
    high: float
    sd: float
    cases: int
    count: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None for what does not exist."""
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """DSC = 2 |P and T| / (|P| + |T|) of two masks of one shape; NaN if both are empty.

    Example: two voxels each, one in common.
        >>> dice(np.array([True, True, False]), np.array([False, True, True]))
        0.5
        >>> dice(np.zeros(3, bool), np.zeros(3, bool))
        nan
    """
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else math.nan


def surface_dice(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
) -> float:
    """NSD: share of both surfaces that lies within a tolerance of the other (Nikolov et al. 2018).

    Surfaces are weighed by their area, as in the published evaluation; MONAI computes it.

    Args:
        prediction: masks (I, J, K).
        reference: likewise.
        spacing_mm: voxel size.
        tolerance_mm: at least 0.

    Returns:
        0 to 1; 0 if one mask is empty, NaN if both are.

    Example: a cube moved by one voxel of 1 mm.
        >>> cube = np.pad(np.ones((4, 4, 4), bool), 3)
        >>> surface_dice(np.roll(cube, 1, axis=0), cube, (1, 1, 1), tolerance_mm=1.0)
        1.0
        >>> surface_dice(np.zeros_like(cube), cube, (1, 1, 1))
        0.0
    """
    some = prediction | reference
    if not some.any():
        return math.nan
    if not prediction.any() or not reference.any():
        return 0.0
    # Late, because MONAI takes seconds to import.
    import torch
    from monai.metrics.surface_dice import compute_surface_dice

    # Cut to what matters, with a rim of background: surfaces may not touch the border.
    box = ndimage.find_objects(some.view(np.uint8))[0]
    cut = [np.pad(mask[box], 2) for mask in (prediction, reference)]
    first, second = (torch.from_numpy(mask.astype(np.uint8))[None, None] for mask in cut)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI about itself
        found = compute_surface_dice(
            first,
            second,
            class_thresholds=[float(tolerance_mm)],
            include_background=True,
            spacing=[float(mm) for mm in spacing_mm],
            use_subvoxels=True,
        )
    return float(found[0, 0])


def evaluate_case(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    least_covered: float = 0.0,
    least_mm3: float = 0.0,
) -> CaseFigures:
    """All figures of one scan.

    Args:
        prediction: tumor masks (I, J, K).
        reference: likewise.
        spacing_mm: voxel size; the axes are at right angles.
        tolerance_mm: of NSD.
        least_covered: share of a tumor that must be exceeded for it to count as found, 0 to below 1.
        least_mm3: predicted volume that must be exceeded for the patient to be called positive.

    Raises:
        ValueError: the masks differ in shape, or a limit is out of range.

    Example: of two tumors one is found, and there is one false alarm.
        >>> reference, prediction = np.zeros((2, 9, 3, 3), bool)
        >>> reference[0, 0, 0] = reference[4, 0, 0] = prediction[0, 0, 0] = prediction[8, 0, 0] = True
        >>> figures = evaluate_case(prediction, reference, (1, 1, 1))
        >>> [tumor.found for tumor in figures.tumors], figures.false_positives, figures.dice
        ([True, False], 1, 0.5)
    """
    if prediction.shape != reference.shape:
        raise ValueError(
            f"the prediction has shape {prediction.shape}, the reference {reference.shape}"
        )
    if not 0 <= least_covered < 1 or least_mm3 < 0:
        raise ValueError(
            "the share of a tumor must be 0 to below 1 and the volume not negative; got "
            f"{least_covered} and {least_mm3}"
        )
    voxel = float(np.prod(np.asarray(spacing_mm, float)))
    pieces, count = label_components(reference, CONNECTIVITY)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(pieces[prediction], minlength=count + 1)[1:]
    tumors = tuple(
        TumorFound(equivalent_diameter_mm(size * voxel), hit / size, hit / size > least_covered)
        for size, hit in zip(sizes.tolist(), hits.tolist(), strict=True)
    )
    alarms, number = label_components(prediction, CONNECTIVITY)
    true_ones = np.unique(alarms[reference])
    predicted = float(prediction.sum()) * voxel
    return CaseFigures(
        dice=dice(prediction, reference),
        surface_dice=surface_dice(prediction, reference, spacing_mm, tolerance_mm),
        tumors=tumors,
        false_positives=number - int((true_ones > 0).sum()),
        reference_mm3=float(reference.sum()) * voxel,
        predicted_mm3=predicted,
        called_positive=predicted > least_mm3,
    )


def interval(
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
    clusters: Sequence[str] | None = None,
    *,
    proportion: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A ratio of sums over cases with its bootstrap confidence interval (BCa, cases drawn anew).

    Args:
        numerators: of each case; NaN leaves the case out.
        denominators: of each case; None: 1, which makes a mean. Cases with 0 are left out.
        clusters: patient of each case; patients are drawn, not their scans. None: each case is a patient.
        proportion: numerators count some of what the denominators count. If all or none are counted the bootstrap
            knows no spread; the interval is then the exact one of Clopper and Pearson.
        level: of the interval.
        seed: of the draws.

    Example: 3 of 4 tumors are found in one scan, 1 of 4 in another.
        >>> found = interval([3, 1], [4, 4], proportion=True)
        >>> found.value, found.count, found.method
        (0.5, 8.0, 'bootstrap (BCa)')
        >>> found = interval([2, 3], [2, 3], proportion=True)  # all are found: exact
        >>> found.value, round(found.low, 3), found.high, found.method
        (1.0, 0.478, 1.0, 'Clopper-Pearson')
    """
    from scipy import stats  # late, because it takes long to import

    top = np.asarray(numerators, float)
    bottom = np.ones(top.shape) if denominators is None else np.asarray(denominators, float)
    names = np.arange(top.size) if clusters is None else np.asarray(clusters)
    kept = np.isfinite(top) & (bottom > 0)
    top, bottom, names = top[kept], bottom[kept], names[kept]
    if not top.size:
        return Interval(math.nan, math.nan, math.nan, math.nan, 0, 0, "none")
    value, count = float(top.sum() / bottom.sum()), float(bottom.sum())
    spread = float(np.std(top / bottom, ddof=1)) if top.size > 1 else math.nan

    def made(low: float, high: float, method: str) -> Interval:
        return Interval(value, low, high, spread, int(top.size), count, method)

    if proportion and value in (0, 1):
        alpha, n = (1 - level) / 2, count
        low = float(stats.beta.ppf(alpha, n, 1)) if value else 0.0
        high = 1.0 if value else float(stats.beta.ppf(1 - alpha, 1, n))
        return made(low, high, "Clopper-Pearson")
    _, at = np.unique(names, return_inverse=True)
    top, bottom = np.bincount(at, weights=top), np.bincount(at, weights=bottom)
    if top.size < 2:
        return made(math.nan, math.nan, "one patient")
    if np.ptp(top / bottom) == 0:
        return made(value, value, "no spread")
    # SciPy 1.15 renamed the argument.
    random = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    found = stats.bootstrap(
        (top, bottom),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        n_resamples=DRAWS,
        paired=True,
        vectorized=True,
        confidence_level=level,
        method="BCa",
        **{random: np.random.default_rng(seed)},
    ).confidence_interval
    return made(float(found.low), float(found.high), "bootstrap (BCa)")


def summarize(
    cases: Sequence[CaseFigures], patients: Sequence[str] | None = None, seed: int = 0
) -> dict[str, Interval]:
    """Figures over cases, by name: DSC, NSD, sensitivities, false positives per scan.

    DSC and NSD are of the scans whose reference holds a tumor, as in the papers: elsewhere a DSC is 0 or does not
    exist, and false positives tell more.

    Args:
        cases: the figures of each scan.
        patients: whose scan it is; None: each a patient of its own.
        seed: of the bootstrap.
    """
    ill = [case for case in cases if case.has_tumor]
    whose = list(patients) if patients is not None else [str(n) for n in range(len(cases))]
    of_ill = [name for name, case in zip(whose, cases, strict=True) if case.has_tumor]

    def counted(hits: Sequence[float], of: Sequence[float]) -> Interval:
        return interval(hits, of, whose, proportion=True, seed=seed)

    def tumor_wise(low: float, high: float) -> Interval:
        chosen = [[t for t in c.tumors if low < t.diameter_mm <= high] for c in cases]
        return counted([sum(t.found for t in each) for each in chosen], [len(t) for t in chosen])

    figures = {
        "DSC": interval([case.dice for case in ill], None, of_ill, seed=seed),
        "NSD": interval([case.surface_dice for case in ill], None, of_ill, seed=seed),
        "tumor-wise sensitivity": tumor_wise(0, math.inf),
        "early tumor sensitivity": tumor_wise(0, EARLY_DIAMETER_MM),
    }
    for name, (low, high) in SIZE_CLASSES.items():
        figures[f"tumor-wise sensitivity, {name}"] = tumor_wise(low, high)
    figures["false positives per scan"] = interval(
        [case.false_positives for case in cases], None, whose, seed=seed
    )
    people: dict[str, list[CaseFigures]] = {}
    for name, case in zip(whose, cases, strict=True):
        people.setdefault(name, []).append(case)
    sick = [any(case.has_tumor for case in scans) for scans in people.values()]
    called = [any(case.called_positive for case in scans) for scans in people.values()]
    for name, state in (("sensitivity", True), ("specificity", False)):
        figures[f"patient-level {name}"] = interval(
            [a == b == state for a, b in zip(sick, called, strict=True)],
            [a == state for a in sick],
            proportion=True,
            seed=seed,
        )
    return figures
