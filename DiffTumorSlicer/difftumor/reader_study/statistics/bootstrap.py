"""Pooled figures over readers: both readers and cases are a sample, so both are drawn anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from difftumor.reader_study.statistics.estimates import LEVEL, Estimate, nothing

DRAWS = 2000
Floats = NDArray[np.float64]
# (readers, cases) weights of one draw -> figure
Figure = Callable[[Floats, Floats], float]


def readers_by_cases(
    figure: Figure,
    positive: NDArray[np.bool_],
    readers: int,
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """A pooled figure with the percentile interval of the readers x cases bootstrap (Owen 2007, "pigeonhole").

    Readers are drawn with replacement, and independently cases, positives and negatives each to their own number
    since a study fixes both; a drawn reader brings the answers to the drawn cases.  One reader is not drawn: the
    interval is then about this reader, and its method says so.

    Args:
        figure: takes how often each reader (R,) and each case (C,) was drawn; NaN: the draw has no figure.
        positive: (C,) truth of the cases.
        readers: R.

    Returns:
        the figure of all, each taken once, as value.
    """
    cases = positive.size
    value = figure(np.ones(readers), np.ones(cases))
    if np.isnan(value):
        return nothing("no case", int(cases))
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in (np.flatnonzero(positive), np.flatnonzero(~positive)) if kind.size]
    found = np.empty(draws)
    of_cases, of_readers = np.empty(cases), np.ones(readers)
    for n in range(draws):
        for kind in kinds:
            of_cases[kind] = _times_drawn(rng, kind.size)
        if readers > 1:
            of_readers = _times_drawn(rng, readers)
        found[n] = figure(of_readers, of_cases)
    found = found[np.isfinite(found)]
    method = "bootstrap of readers and cases" if readers > 1 else "bootstrap of cases (one reader)"
    if found.size < draws / 2 or np.ptp(found) == 0:
        return nothing("no spread", int(cases), value)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(value), float(low), float(high), int(cases), method)


def share_figure(right: Floats) -> Figure:
    """Share of right calls over readers and cases.

    Args:
        right: (R, C): 1 right, 0 wrong, NaN: this reader did not read this case (or it does not count).
    """
    known = np.isfinite(right)
    hits = np.where(known, right, 0.0)
    read = known.astype(float)

    def figure(of_readers: Floats, of_cases: Floats) -> float:
        total = of_readers @ read @ of_cases
        return float(of_readers @ hits @ of_cases / total) if total else float("nan")

    return figure


def auc_figure(scores: Floats, positive: NDArray[np.bool_]) -> Figure:
    """Mean of the readers' own AUCs: confidence scales differ between people, so cases are compared within each.

    Args:
        scores: (R, C), NaN where a reader did not read a case.
        positive: (C,) truth.
    """
    levels = np.unique(scores[np.isfinite(scores)])[:, None]
    at_level = (scores[:, None, :] == levels).astype(float)  # (R, levels, C): ratings are few
    above, below = at_level[:, :, positive], at_level[:, :, ~positive]

    def figure(of_readers: Floats, of_cases: Floats) -> float:
        ill, well = above @ of_cases[positive], below @ of_cases[~positive]  # (R, levels)
        pairs = ill.sum(axis=1) * well.sum(axis=1)
        won = (ill * (np.cumsum(well, axis=1) - well / 2)).sum(axis=1)
        some = pairs > 0
        weight = of_readers[some].sum()
        if not weight:
            return float("nan")
        return float(of_readers[some] @ (won[some] / pairs[some]) / weight)

    return figure


def _times_drawn(rng: np.random.Generator, number: int) -> Floats:
    """How often each of `number` things comes when as many are drawn with replacement."""
    return np.bincount(rng.integers(0, number, number), minlength=number).astype(float)
