"""Studies with more than two choices (organ of origin): confusion, precision and recall of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from difftumor.reader_study.statistics.estimates import LEVEL, Estimate, against_chance, share


@dataclass(frozen=True)
class RecognitionFigures:
    """How well classes are told apart.

    Attributes:
        choices: the classes.
        confusion: (truth, choice) counts.
        precision, recall: of each class.
        macro_precision, macro_recall: means over the classes that have a value; NaN if none has.
        accuracy: over all cases.
        p_chance: exact two-sided p of accuracy against 1 / number of classes.
    """

    choices: tuple[str, ...]
    confusion: NDArray[np.int64]
    precision: dict[str, Estimate]
    recall: dict[str, Estimate]
    macro_precision: float
    macro_recall: float
    accuracy: Estimate
    p_chance: float


def recognition_figures(
    truths: Sequence[str], answers: Sequence[str], choices: Sequence[str], level: float = LEVEL
) -> RecognitionFigures:
    """Figures of classes; precision has no value where a class was never chosen, recall where it never was true."""
    # scikit-learn refuses empty lists.
    table = (
        confusion_matrix(truths, answers, labels=list(choices))
        if len(truths)
        else np.zeros((len(choices), len(choices)), int)
    )
    hits, told, true = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    precision = {c: share(int(hits[i]), int(told[i]), level) for i, c in enumerate(choices)}
    recall = {c: share(int(hits[i]), int(true[i]), level) for i, c in enumerate(choices)}
    right, cases = int(hits.sum()), int(table.sum())
    return RecognitionFigures(
        tuple(choices),
        table,
        precision,
        recall,
        _mean([found.value for found in precision.values()]),
        _mean([found.value for found in recall.values()]),
        share(right, cases, level),
        against_chance(right, cases, 1 / len(choices)),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
