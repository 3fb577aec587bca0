"""The paper's Visual Turing Test (DiffTumor, Chen et al., CVPR 2024, Table 1), and which of its rows are counts.

A row gives sensitivity, specificity and accuracy in per cent with one decimal.  With 120 real and 120 synthetic
cases each must be a whole number of cases, and accuracy follows from the other two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from difftumor.measuring.evaluation import published_figures
from difftumor.reader_study.statistics.accuracy import Calls
from difftumor.reader_study.statistics.estimates import percent

MOST_SEARCHED = 240  # cases of both kinds together, in the search for numbers that would fit


@dataclass(frozen=True)
class PublishedRow:
    """A reader's row of the paper.

    Attributes:
        sensitivity, specificity, accuracy: per cent.
        calls: the counts that give all three after rounding half up; None: there are none with the paper's numbers
            of cases.
        reason: why there are none, in words; empty if there are.
    """

    organ: str
    reader: str
    sensitivity: float
    specificity: float
    accuracy: float
    calls: Calls | None
    reason: str


def published_rows() -> tuple[PublishedRow, ...]:
    """All rows of the paper's Table 1, checked."""
    table = published_figures()["visual_turing_test"]
    real, synthetic = table["positives"], table["negatives"]
    return tuple(
        check_row(
            organ, reader, row["sensitivity"], row["specificity"], row["accuracy"], real, synthetic
        )
        for organ, readers in table["organs"].items()
        for reader, row in readers.items()
    )


def check_row(
    organ: str,
    reader: str,
    sensitivity: float,
    specificity: float,
    accuracy: float,
    positives: int,
    negatives: int,
) -> PublishedRow:
    """Whether a row can come from so many cases.

    Args:
        sensitivity: per cent with one decimal, rounded half up.
        specificity: likewise.
        accuracy: likewise.
        positives: real and synthetic cases.
        negatives: likewise.
    """
    figures = (sensitivity, specificity, accuracy)
    fits = next(_fitting(figures, positives, negatives), None)
    reason = "" if fits else _reason(figures, positives, negatives)
    return PublishedRow(organ, reader, *figures, fits, reason)


def counts_of(per_cent: float, cases: int) -> list[int]:
    """Numbers of `cases` that are told as this per cent: [64] for 53.3 of 120, [] for 97.1 of 120."""
    near = int(per_cent * cases / 100)
    told = f"{per_cent:.1f}"
    return [
        k
        for k in range(max(0, near - 1), min(cases, near + 2) + 1)
        if percent(Fraction(k, cases)) == told
    ]


def _fitting(
    figures: tuple[float, float, float], positives: int, negatives: int
) -> Iterator[Calls]:
    """Counts that give all three figures."""
    together = set(counts_of(figures[2], positives + negatives))
    for real in counts_of(figures[0], positives):
        for synthetic in counts_of(figures[1], negatives):
            if real + synthetic in together:
                yield Calls(positives, real, negatives, synthetic)


def _reason(figures: tuple[float, float, float], positives: int, negatives: int) -> str:
    """What does not fit, and the fewest cases that would."""
    words = []
    for name, value, cases in (
        ("sensitivity", figures[0], positives),
        ("specificity", figures[1], negatives),
        ("accuracy", figures[2], positives + negatives),
    ):
        if not counts_of(value, cases):
            words.append(f"no count of {cases} gives {name} {value:.1f}")
    if not words:
        words.append(f"accuracy {figures[2]:.1f} does not follow from the other two")
    elif not _accuracy_follows(figures, positives, negatives):
        words.append("accuracy does not follow from the other two either")
    if fewest := _fewest(figures):
        words.append(
            f"the fewest cases that fit are {fewest.positives} real and {fewest.negatives} synthetic "
            f"({fewest.true_positives}/{fewest.positives}, {fewest.true_negatives}/{fewest.negatives})"
        )
    return "; ".join(words)


def _accuracy_follows(figures: tuple[float, float, float], positives: int, negatives: int) -> bool:
    """Whether accuracy lies where rounded sensitivity and specificity put it."""
    middle = (figures[0] * positives + figures[1] * negatives) / (positives + negatives)
    return abs(middle - figures[2]) <= 0.1 + 1e-9


def _fewest(figures: tuple[float, float, float]) -> Calls | None:
    """The smallest set of cases, as even as possible, that gives the row."""
    for total in range(2, MOST_SEARCHED + 1):
        evenness = [(abs(total - 2 * real), real) for real in range(1, total)]
        for _, real in sorted(evenness):
            for found in _fitting(figures, real, total - real):
                return found
    return None
