"""Right and wrong calls: sensitivity, specificity, accuracy, with intervals and the test against guessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from difftumor.reader_study.statistics.estimates import LEVEL, Estimate, against_chance, share


@dataclass(frozen=True)
class Calls:
    """Counts of calls.

    Attributes:
        positives: cases whose truth is the positive choice ("real": Table 1 of DiffTumor).
        true_positives: of these, those called so.
        negatives, true_negatives: the same of all other cases.
    """

    positives: int
    true_positives: int
    negatives: int
    true_negatives: int

    def __add__(self, other: Calls) -> Calls:
        return Calls(
            self.positives + other.positives,
            self.true_positives + other.true_positives,
            self.negatives + other.negatives,
            self.true_negatives + other.true_negatives,
        )

    @property
    def cases(self) -> int:
        """All cases."""
        return self.positives + self.negatives

    @property
    def right(self) -> int:
        """Cases called right."""
        return self.true_positives + self.true_negatives


@dataclass(frozen=True)
class AccuracyFigures:
    """Sensitivity, specificity and accuracy of one set of calls.

    Attributes:
        p_chance: exact two-sided p of accuracy against 50 %; NaN without cases.
    """

    calls: Calls
    sensitivity: Estimate
    specificity: Estimate
    accuracy: Estimate
    p_chance: float


def count_calls(truths: Sequence[str], choices: Sequence[str], positive: str) -> Calls:
    """Count calls; both sequences are of equal length, any choice but `positive` is the negative one."""
    pairs = list(zip(truths, choices, strict=True))
    ill = [choice == positive for truth, choice in pairs if truth == positive]
    well = [choice != positive for truth, choice in pairs if truth != positive]
    return Calls(len(ill), sum(ill), len(well), sum(well))


def accuracy_figures(calls: Calls, level: float = LEVEL) -> AccuracyFigures:
    """The three shares with Wilson intervals."""
    return AccuracyFigures(
        calls,
        share(calls.true_positives, calls.positives, level),
        share(calls.true_negatives, calls.negatives, level),
        share(calls.right, calls.cases, level),
        against_chance(calls.right, calls.cases),
    )
