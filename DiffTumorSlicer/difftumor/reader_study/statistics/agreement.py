"""How far readers agree, with each other and with themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix
from statsmodels.stats import inter_rater

from difftumor.reader_study.statistics.estimates import LEVEL, Estimate, nothing


def cohen_kappa(
    first: Sequence[str], second: Sequence[str], choices: Sequence[str], level: float = LEVEL
) -> Estimate:
    """Cohen's kappa of two readings of the same cases, with its large-sample interval (statsmodels).

    Args:
        first: choices, in one order of cases.
        second: likewise.
        choices: all that can be chosen.

    Returns:
        without a value where both always chose the same one thing: chance explains all agreement then.
    """
    if not first:
        return nothing("no case read twice")
    table = confusion_matrix(first, second, labels=list(choices))
    if (table.sum(0) * table.sum(1)).sum() == table.sum() ** 2:
        return nothing("one choice only", len(first))
    with np.errstate(invalid="ignore", divide="ignore"):  # its z is 0 / 0 for whole agreement
        found = inter_rater.cohens_kappa(table)
    value, error = float(found.kappa), float(found.std_kappa)
    if not error > 0:
        return nothing("no spread", len(first), value)
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    low, high = max(-1.0, value - reach), min(1.0, value + reach)
    return Estimate(value, low, high, len(first), "large sample")


def fleiss_kappa(counts: NDArray[np.int64], level: float = LEVEL) -> Estimate:
    """Fleiss' kappa of several readers (statsmodels) with Gwet's interval over cases (Gwet 2008, t quantiles).

    The error is that of the cases' own contributions, chance agreement being estimated too:
    kappa_i = (agreed_i - chance) / (1 - chance) - 2 (1 - kappa) (chance_i - chance) / (1 - chance).

    Args:
        counts: (cases, choices), how many readers chose what; the same number of readers for each case.

    Raises:
        ValueError: rows differ in their sum.
    """
    table = np.asarray(counts, int)
    cases = int(table.shape[0])
    readers = np.unique(table.sum(axis=1))
    if cases == 0 or readers[0] < 2:
        return nothing("no case read by two")
    if readers.size > 1:
        raise ValueError("each case needs the same number of readers for Fleiss' kappa")
    if (table.sum(axis=0) > 0).sum() < 2:
        return nothing("one choice only", cases)
    value = float(inter_rater.fleiss_kappa(table))
    number = int(readers[0])
    chosen = table.mean(axis=0) / number
    chance = float((chosen**2).sum())
    agreed = ((table**2).sum(axis=1) - number) / (number * (number - 1))
    own = agreed - chance - 2 * (1 - value) * (table @ chosen / number - chance)
    if cases < 2 or np.ptp(own) == 0:
        return nothing("no spread", cases, value)
    error = float(own.std(ddof=1)) / (1 - chance) / math.sqrt(cases)
    reach = float(stats.t.ppf((1 + level) / 2, cases - 1)) * error
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach), cases, "Gwet")


def landis_koch(kappa: float) -> str:
    """The customary word for a kappa (Landis and Koch 1977)."""
    if math.isnan(kappa):
        return "-"
    words = ("poor", "slight", "fair", "moderate", "substantial", "almost perfect")
    return words[sum(kappa > end for end in (0.0, 0.2, 0.4, 0.6, 0.8))]
