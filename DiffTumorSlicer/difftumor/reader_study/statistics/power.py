"""Planning: how many cases a study needs."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from difftumor.reader_study.statistics.estimates import LEVEL

MOST_CASES = 200_000


def wilson_width(expected: float, cases: int, level: float = LEVEL) -> float:
    """Width of Wilson's interval of a share that comes out as expected.

    Args:
        expected: 0 to 1; taken as it is, not rounded to whole hits.
    """
    low, high = proportion_confint(expected * cases, cases, alpha=1 - level, method="wilson")
    return float(high - low)


def cases_for_width(expected: float, width: float, level: float = LEVEL) -> int:
    """Fewest cases whose Wilson interval is at most so wide: of the positives for sensitivity, of all for accuracy.

    Args:
        expected: share that is hoped for, 0 to 1.
        width: of the whole interval, above 0 and below 1 (0.1 is plus and minus five points).

    Raises:
        ValueError: out of range, or more than MOST_CASES cases.
    """
    if not (0 <= expected <= 1 and 0 < width < 1):
        raise ValueError(
            f"the expected share must be 0 to 1 and the width between 0 and 1; got {expected} and {width}"
        )
    if wilson_width(expected, MOST_CASES, level) > width:
        raise ValueError(f"a width of {width} needs more than {MOST_CASES} cases")
    few, enough = 0, MOST_CASES
    while enough - few > 1:  # the width falls with the number of cases
        middle = (few + enough) // 2
        if wilson_width(expected, middle, level) > width:
            few = middle
        else:
            enough = middle
    return enough


def power_against_chance(
    expected: float, cases: int, chance: float = 0.5, alpha: float = 0.05
) -> float:
    """Chance that the exact two-sided binomial test against `chance` rejects at `alpha`."""
    hits = np.arange(cases + 1)
    under_chance = stats.binom.pmf(hits, cases, chance)
    order = np.argsort(under_chance, kind="stable")
    # The p of scipy.stats.binomtest: all outcomes that are as unlikely, within its tolerance.
    ends = np.searchsorted(under_chance[order], under_chance * (1 + 1e-7), side="right")
    p = np.cumsum(under_chance[order])[ends - 1]
    return float(stats.binom.pmf(hits[p <= alpha], cases, expected).sum())


def cases_for_power(
    expected: float, power: float = 0.8, chance: float = 0.5, alpha: float = 0.05
) -> int:
    """Fewest cases from which on the test against guessing keeps the wished power.

    Power of an exact test has saw teeth; the answer is the first number after which none of the next 50 falls below.

    Raises:
        ValueError: nothing to find (expected is chance), or more than 5000 cases.
    """
    if math.isclose(expected, chance) or not (0 <= expected <= 1 and 0 < power < 1):
        raise ValueError(
            f"the expected share must be 0 to 1 and differ from {chance}, the power between 0 and 1; got "
            f"{expected} and {power}"
        )
    run = 0
    for cases in range(1, 5051):
        run = run + 1 if power_against_chance(expected, cases, chance, alpha) >= power else 0
        if run == 51:
            return cases - 50
    raise ValueError(f"more than 5000 cases are needed to tell {expected} from {chance}")
