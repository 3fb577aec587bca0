"""A figure with its interval; shares with Wilson's, per cents rounded half up."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from scipy import stats
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure of a study.

    Attributes:
        value: NaN: there is nothing to compute it from.
        low, high: ends of its confidence interval; NaN: it has none.
        cases: how many answers (of agreement: pairs) entered.
        method: how the interval was made.
        hits: numerator of a share, None for other figures.
    """

    value: float
    low: float
    high: float
    cases: int
    method: str
    hits: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None for what does not exist."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def nothing(why: str, cases: int = 0, value: float = math.nan) -> Estimate:
    """A figure without an interval, or without a value; `why` says the reason."""
    return Estimate(value, math.nan, math.nan, cases, why)


def share(hits: int, cases: int, level: float = LEVEL) -> Estimate:
    """Share of hits with Wilson's score interval (Wilson 1927, statsmodels).

    Args:
        hits: 0 to `cases`.
        cases: 0 gives a figure without a value.

    Raises:
        ValueError: more hits than cases, or fewer than 0.
    """
    if not 0 <= hits <= cases:
        raise ValueError(f"a share needs 0 to {cases} hits of {cases} cases, got {hits}")
    if cases == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, "no case", 0)
    low, high = proportion_confint(hits, cases, alpha=1 - level, method="wilson")
    # At 0 and at all hits the ends are exact; rounding of the formula may leave 1e-17.
    low, high = (0.0 if hits == 0 else float(low)), (1.0 if hits == cases else float(high))
    return Estimate(hits / cases, low, high, cases, "Wilson", hits)


def against_chance(hits: int, cases: int, chance: float = 0.5) -> float:
    """Two-sided p of the exact binomial test that the share of hits is `chance`; NaN without cases."""
    return float(stats.binomtest(hits, cases, chance).pvalue) if cases else math.nan


def percent(value: float | Fraction, digits: int = 1) -> str:
    """A share as per cent, rounded half up as in the paper (61/80 is 76.3, not 76.2); "-" for NaN.

    A binary fraction cannot hold most halves, so that shares of counts should come as a Fraction; a float is taken
    as the shortest decimal number that reads the same.
    """
    if isinstance(value, Fraction):
        # floor(x + 1/2) in whole numbers
        scale = 100 * 10**digits
        rounded = (2 * value.numerator * scale + value.denominator) // (2 * value.denominator)
        return str(Decimal(rounded).scaleb(-digits))
    if math.isnan(value):
        return "-"
    exact = Decimal(repr(float(value))) * 100
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


def percent_of(found: Estimate) -> str:
    """An estimate in per cent, from its counts where it has them."""
    if found.hits is not None and found.cases:
        return percent(Fraction(found.hits, found.cases))
    return percent(found.value)
