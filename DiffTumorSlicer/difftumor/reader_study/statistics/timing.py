"""Reading times, and whether readers get better or faster over the study."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.tools.sm_exceptions import PerfectSeparationError, PerfectSeparationWarning

from difftumor.reader_study.statistics.estimates import LEVEL, Estimate, nothing, share

PER_CASES = 50  # slopes are told per so many cases


@dataclass(frozen=True)
class Times:
    """Reading times in seconds, without pauses; NaN without cases."""

    cases: int
    median: float
    lower_quartile: float
    upper_quartile: float
    mean: float
    total: float


@dataclass(frozen=True)
class Learning:
    """Change over the order of reading.

    Attributes:
        halves: accuracy in the first and in the second half of the session.
        odds_ratio: of being right, per 50 cases further (logistic regression).
        time_ratio: of the reading time, per 50 cases further (regression of its logarithm).
    """

    halves: tuple[Estimate, Estimate]
    odds_ratio: Estimate
    time_ratio: Estimate


def reading_times(seconds: ArrayLike) -> Times:
    """Summary of times (N,)."""
    values = np.asarray(seconds, float)
    if not values.size:
        return Times(0, math.nan, math.nan, math.nan, math.nan, 0.0)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Times(
        values.size,
        float(median),
        float(low),
        float(high),
        float(values.mean()),
        float(values.sum()),
    )


def learning(
    positions: Sequence[int], right: Sequence[bool], seconds: Sequence[float], level: float = LEVEL
) -> Learning:
    """Learning and tiring of one reader.

    Args:
        positions: place of each case in the reader's order.
        right: whether it was called right.
        seconds: reading time; cases with none (0) do not enter its slope.
    """
    order = np.argsort(positions, kind="stable")
    place = np.asarray(positions, float)[order] / PER_CASES
    called = np.asarray(right, bool)[order]
    spent = np.asarray(seconds, float)[order]
    middle = (place.size + 1) // 2
    first, second = (
        share(int(part.sum()), part.size, level) for part in (called[:middle], called[middle:])
    )
    return Learning(
        (first, second), _odds_ratio(place, called, level), _time_ratio(place, spent, level)
    )


def _odds_ratio(place: np.ndarray, right: np.ndarray, level: float) -> Estimate:
    """exp(slope) of the logistic regression of right on place; none where it does not converge."""
    if place.size < 3 or right.all() or not right.any() or np.ptp(place) == 0:
        return nothing("no spread", int(place.size))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PerfectSeparationWarning)
        warnings.simplefilter("error", RuntimeWarning)
        try:
            fit = sm.GLM(
                right.astype(float), sm.add_constant(place), family=sm.families.Binomial()
            ).fit()
            low, high = np.exp(fit.conf_int(alpha=1 - level)[1])
            value = float(np.exp(fit.params[1]))
        except (PerfectSeparationError, PerfectSeparationWarning, RuntimeWarning):
            return nothing("right and wrong are separated in time", int(place.size))
    return Estimate(value, float(low), float(high), int(place.size), "logistic regression")


def _time_ratio(place: np.ndarray, seconds: np.ndarray, level: float) -> Estimate:
    """exp(slope) of the regression of log seconds on place, with Student's interval."""
    place, seconds = place[seconds > 0], seconds[seconds > 0]
    if place.size < 3 or np.ptp(place) == 0:
        return nothing("too few cases", int(place.size))
    fit = stats.linregress(place, np.log(seconds))
    reach = float(stats.t.ppf((1 + level) / 2, place.size - 2)) * fit.stderr
    low, value, high = np.exp([fit.slope - reach, fit.slope, fit.slope + reach])
    return Estimate(float(value), float(low), float(high), int(place.size), "log-linear regression")
