"""How well confidence orders cases: area under the ROC curve with DeLong's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from difftumor.reader_study.statistics.estimates import LEVEL, Estimate, nothing


def signed_scores(
    choices: Sequence[str], confidences: Sequence[int | None], positive: str
) -> NDArray[np.float64]:
    """Confidence 1 to 5, negative for the other choice: -5 (surely synthetic) to 5 (surely real).

    An answer without confidence counts as the least, 1, so that a study that does not ask for it has the
    scores -1 and 1.
    """
    return np.array(
        [
            (1.0 if choice == positive else -1.0) * (confidence or 1)
            for choice, confidence in zip(choices, confidences, strict=True)
        ]
    )


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive case scores above a negative one, ties half; NaN if one kind is missing."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    if truth.all() or not truth.any():
        return math.nan
    return float(roc_auc_score(truth, values))


def delong(scores: ArrayLike, positive: ArrayLike, level: float = LEVEL) -> Estimate:
    """AUC with the interval of DeLong, DeLong and Clarke-Pearson (1988), cut at 0 and 1.

    Placements V10 (of each positive among the negatives) and V01 come from midranks (Sun and Xu 2014):
    var = var(V10) / m + var(V01) / n.  Where all pairs are ordered alike that variance is 0 although the AUC is
    not known exactly: then the interval is Clopper and Pearson's of the min(m, n) pairs without common cases.

    Args:
        scores: (N,), high for positive.
        positive: (N,) truth.
    """
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    cases = int(truth.size)
    area = auc(values, truth)
    if math.isnan(area):
        return nothing("cases of one kind only", cases)
    above, below = values[truth], values[~truth]
    m, n = above.size, below.size
    if area in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / min(m, n))
        low, high = (bound, 1.0) if area else (0.0, 1 - bound)
        return Estimate(area, low, high, cases, "Clopper-Pearson of separate pairs")
    if min(m, n) < 2:
        return nothing("one case of a kind", cases, area)
    ranks = stats.rankdata(np.concatenate([above, below]))
    v10 = (ranks[:m] - stats.rankdata(above)) / n
    v01 = 1 - (ranks[m:] - stats.rankdata(below)) / m
    variance = float(v10.var(ddof=1) / m + v01.var(ddof=1) / n)
    if variance == 0:
        return nothing("all answers alike", cases, area)
    reach = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(variance)
    return Estimate(area, max(0.0, area - reach), min(1.0, area + reach), cases, "DeLong")


def roc_points(
    scores: ArrayLike, positive: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of all thresholds, from (0, 0) to (1, 1); both kinds must be there."""
    false_rate, true_rate, _ = roc_curve(np.asarray(positive, bool), np.asarray(scores, float))
    return false_rate, true_rate
