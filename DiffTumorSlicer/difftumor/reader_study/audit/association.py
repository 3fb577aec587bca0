"""Does a figure go with the truth? Permutation tests that take all figures together, and a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from difftumor.reader_study.audit.findings import ClassifierFigures
from difftumor.reader_study.statistics.estimates import nothing
from difftumor.reader_study.statistics.roc import auc, delong

ALPHA = 0.01  # of all figures of a kind of test together
PERMUTATIONS = 2000
CLASSIFIER_PERMUTATIONS = 199
EXCEEDED = 20  # so many better permutations are enough to know that p is large
FOLDS = 5
FEWEST_FOR_CLASSIFIER = 10  # of each kind
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """Of one figure: the AUC farthest from 0.5, and p adjusted for all figures tested with it."""

    area: float
    p: float


def associations(
    columns: Floats,
    truths: Sequence[str],
    strata: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> tuple[list[Association], float]:
    """Test each column against the truth; Westfall and Young's maximum over columns keeps the error of all.

    Values are ranked within strata (organs differ), truths are permuted within strata, and the rank sums of each
    truth are standardized by their spread over the permutations.

    Args:
        columns: (cases, figures) without NaN.
        truths: (cases,).
        strata: likewise.

    Returns:
        one association per column, and the score (standard deviations of a rank sum) from which on p is at most
        ALPHA.
    """
    truth = np.asarray(truths)
    kinds = np.unique(truth)
    rng = np.random.default_rng(seed)
    drawn = np.tile(truth, (permutations + 1, 1))  # the first row stays as it is
    centered, won, pairs = np.zeros(columns.shape), 0.0, 0.0
    for name in dict.fromkeys(strata):
        cases = np.flatnonzero(np.asarray(strata) == name)
        ranks = stats.rankdata(columns[cases], axis=0)
        centered[cases] = ranks - ranks.mean(axis=0)
        own = (truth[cases] == kinds[:, None]).astype(float)  # (kinds, cases)
        number = own.sum(axis=1, keepdims=True)
        won = won + own @ ranks - number * (number + 1) / 2  # Mann and Whitney's U
        pairs = pairs + number * (cases.size - number)
        drawn[1:, cases] = rng.permuted(drawn[1:, cases], axis=1)
    areas = won / np.maximum(pairs, 1)  # (kinds, figures)
    farthest = areas[np.abs(areas - 0.5).argmax(axis=0), np.arange(columns.shape[1])]
    sums = np.stack([(drawn == kind) @ centered for kind in kinds])  # (kinds, draws, figures)
    spread = sums[:, 1:].std(axis=1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.abs(np.where(spread > 0, sums / spread, 0)).max(axis=0)
    highest = score[1:].max(axis=1, initial=0)
    adjusted = (1 + (highest[:, None] >= score[0] - 1e-9).sum(axis=0)) / (permutations + 1)
    found = [Association(float(a), float(p)) for a, p in zip(farthest, adjusted, strict=True)]
    return found, float(np.quantile(highest, 1 - ALPHA))


def order_p(
    truths: Sequence[str], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> tuple[str, float]:
    """Whether an order was drawn at random: the most conspicuous of some figures, and p adjusted for all of them.

    Figures, for each kind: its mean rank (one kind first), and how alike cases 1 to 4 apart are (runs, alternation).

    Args:
        truths: in the order in question, two kinds at least.
    """
    truth = np.asarray(truths)
    rows = np.vstack(
        [truth, np.random.default_rng(seed).permuted(np.tile(truth, (permutations, 1)), axis=1)]
    )
    place = np.arange(truth.size) - (truth.size - 1) / 2
    names, columns = [], []
    for kind in np.unique(truth)[: None if len(set(truths)) > 2 else 1]:
        sign = np.where(rows == kind, 1.0, -1.0)
        names.append(f"{kind} cases come early or late")
        columns.append(sign @ place)
        for lag in range(1, min(5, truth.size)):
            names.append(f"cases {lag} apart are alike or unlike too often")
            columns.append((sign[:, :-lag] * sign[:, lag:]).sum(axis=1))
    table = np.stack(columns, axis=1)
    spread = table[1:].std(axis=0)
    score = np.abs(table - table[1:].mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    best = int(score[0].argmax())
    p = (1 + (score[1:].max(axis=1) >= score[0, best] - 1e-9).sum()) / (permutations + 1)
    return names[best], float(p)


def classify(
    columns: Floats,
    positive: NDArray[np.bool_],
    *,
    permutations: int = CLASSIFIER_PERMUTATIONS,
    seed: int = 0,
) -> ClassifierFigures:
    """AUC of a ridge-penalized logistic regression on all figures, cross-validated, with a permutation p.

    Permutations stop once EXCEEDED of them were as good (Besag and Clifford 1991): p is then large anyway.

    Args:
        columns: (cases, figures) without NaN.
        positive: (cases,).
    """
    fewest = int(min(positive.sum(), (~positive).sum()))
    if fewest < FEWEST_FOR_CLASSIFIER or not columns.shape[1]:
        why = f"needs {FEWEST_FOR_CLASSIFIER} cases of each kind"
        return ClassifierFigures(nothing(why, int(positive.size)), math.nan, 0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))

    def scores(truth: NDArray[np.bool_]) -> Floats:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        with config_context(assume_finite=True, skip_parameter_validation=True):  # a third faster
            found: Floats = cross_val_predict(
                model, columns, truth, cv=folds, method="decision_function"
            )
            return found

    found = delong(scores(positive), positive)
    rng = np.random.default_rng(seed)
    better = done = 0
    while done < permutations and better < EXCEEDED:
        drawn = rng.permutation(positive)
        better += auc(scores(drawn), drawn) >= found.value
        done += 1
    p = better / done if better == EXCEEDED else (better + 1) / (done + 1)
    return ClassifierFigures(found, float(p), done)
