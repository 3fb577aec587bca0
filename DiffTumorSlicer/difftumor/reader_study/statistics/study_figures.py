"""All figures of a study from its merged answers: per reader, per organ, pooled; agreement; learning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.reader_study.answers import AnswerRow, Answers
from difftumor.reader_study.statistics.accuracy import (
    AccuracyFigures,
    accuracy_figures,
    count_calls,
)
from difftumor.reader_study.statistics.agreement import cohen_kappa, fleiss_kappa
from difftumor.reader_study.statistics.bootstrap import (
    DRAWS,
    auc_figure,
    readers_by_cases,
    share_figure,
)
from difftumor.reader_study.statistics.estimates import Estimate, nothing, share
from difftumor.reader_study.statistics.recognition import RecognitionFigures, recognition_figures
from difftumor.reader_study.statistics.roc import delong, signed_scores
from difftumor.reader_study.statistics.timing import Learning, Times, learning, reading_times

EVERYTHING = "all"
ALL_READERS = "all readers"
ORGANS = ("liver", "pancreas", "kidney")


@dataclass(frozen=True)
class GroupFigures:
    """One reader, or all of them, in one group of cases.

    Attributes:
        reader: code, or ALL_READERS.
        group: an organ, or EVERYTHING.
        accuracy: counts and Wilson intervals; of all readers as if each reading were of another case, which is too
            narrow: `pooled` is right there.
        auc: DeLong's; of all readers the mean of theirs.
        times: of the answers.
        detection: of studies with marks.
        pooled: of all readers: sensitivity, specificity, accuracy, auc with the bootstrap over readers and cases.
    """

    reader: str
    group: str
    accuracy: AccuracyFigures
    auc: Estimate
    times: Times
    detection: DetectionFigures | None
    pooled: dict[str, Estimate]


@dataclass(frozen=True)
class DetectionFigures:
    """Marks.

    Attributes:
        sensitivity: cases with a lesion that were said to have one and marked at it.
        false_marks: cases, of all, with a mark that is not at a lesion; a case has one mark at most.
    """

    sensitivity: Estimate
    false_marks: Estimate


@dataclass(frozen=True)
class OwnAgreement:
    """A reader's two readings of the repeated cases."""

    reader: str
    agreed: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class StudyFigures:
    """Everything that a report tells.

    Attributes:
        positive: the choice that counts as positive; None: more than two choices (`recognition` holds the figures).
        readers: codes.
        groups: all readers first, then each; within each EVERYTHING first, then organs.
        recognition: by reader (ALL_READERS first), for studies with more than two choices.
        between: Cohen's kappa of each pair of readers, over the cases that both read.
        fleiss: of all readers, over the cases that all read.
        own: agreement of each reader with themselves.
        learning: by reader.
        left_out: why rows do not count, and how many: practice, repeated, unanswered.
        late: answers after the time limit; they count.
    """

    positive: str | None
    readers: tuple[str, ...]
    groups: tuple[GroupFigures, ...]
    recognition: dict[str, RecognitionFigures]
    between: dict[tuple[str, str], Estimate]
    fleiss: Estimate
    own: tuple[OwnAgreement, ...]
    learning: dict[str, Learning]
    left_out: dict[str, int]
    late: int


def study_figures(answers: Answers, *, draws: int = DRAWS, seed: int = 0) -> StudyFigures:
    """Compute everything.

    Practice does not count, of a repeated case the first reading does.  The first choice of the study is the positive
    one: "real" as in the paper, "lesion" in a detection study.

    Args:
        answers: merged; may be those of an unfinished study.
        draws: of the bootstraps.
        seed: likewise.
    """
    choices = answers.facts.choices
    answered = [row for row in answers.rows if row.choice in choices]
    rows = counted(answers)
    readers = tuple(dict.fromkeys(row.reader for row in answers.rows))
    positive = choices[0] if len(choices) == 2 else None
    groups: list[GroupFigures] = []
    for reader in (ALL_READERS, *readers) if positive else ():
        own = [row for row in rows if reader in (ALL_READERS, row.reader)]
        for group in groups_of(rows):
            chosen = [row for row in own if group in (EVERYTHING, row.organ)]
            groups.append(_group(reader, group, chosen, str(positive), draws, seed))
    return StudyFigures(
        positive,
        readers,
        tuple(groups),
        {} if positive else _recognition(rows, readers, choices),
        _between(rows, readers, choices),
        _fleiss(rows, readers, choices),
        tuple(_own(answered, reader, choices) for reader in readers),
        {reader: _learning([row for row in rows if row.reader == reader]) for reader in readers},
        {
            "practice": sum(row.practice for row in answers.rows),
            "repeated": sum(not r.practice and r.repeat_of is not None for r in answered),
            "unanswered": sum(not r.practice and r.choice not in choices for r in answers.rows),
        },
        sum(row.late for row in rows),
    )


def counted(answers: Answers) -> list[AnswerRow]:
    """The answers that enter the figures."""
    return [
        row
        for row in answers.rows
        if not row.practice and row.repeat_of is None and row.choice in answers.facts.choices
    ]


def groups_of(rows: Sequence[AnswerRow]) -> tuple[str, ...]:
    """EVERYTHING, and the organs if there are several."""
    there = {row.organ for row in rows}
    known = [organ for organ in ORGANS if organ in there]
    organs = [*known, *sorted(there.difference(known))]
    return (EVERYTHING, *organs) if len(organs) > 1 else (EVERYTHING,)


def json_ready(value: Any) -> Any:
    """Figures as JSON takes them; None for what does not exist, "a, b" for a pair of readers."""
    if isinstance(value, Estimate):
        return value.to_dict()
    if is_dataclass(value):
        return {item.name: json_ready(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {
            ", ".join(key) if isinstance(key, tuple) else key: json_ready(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _group(
    reader: str, group: str, rows: Sequence[AnswerRow], positive: str, draws: int, seed: int
) -> GroupFigures:
    """Figures of some rows."""
    calls = count_calls([r.truth for r in rows], [r.choice for r in rows], positive)
    pooled: dict[str, Estimate] = {}
    if reader == ALL_READERS:
        pooled = _pooled(rows, positive, draws, seed)
        area = pooled["auc"]
    else:
        scores = signed_scores([r.choice for r in rows], [r.confidence for r in rows], positive)
        area = delong(scores, [row.truth == positive for row in rows])
    return GroupFigures(
        reader,
        group,
        accuracy_figures(calls),
        area,
        reading_times([row.seconds for row in rows]),
        _detection(rows, positive),
        pooled,
    )


def _pooled(rows: Sequence[AnswerRow], positive: str, draws: int, seed: int) -> dict[str, Estimate]:
    """Figures of all readers with intervals over readers and cases."""
    if not rows:
        return {
            name: nothing("no case") for name in ("sensitivity", "specificity", "accuracy", "auc")
        }
    truth = {row.case_id: row.truth == positive for row in rows}
    places = {case: n for n, case in enumerate(truth)}
    lines = {reader: n for n, reader in enumerate(dict.fromkeys(row.reader for row in rows))}
    scores = np.full((len(lines), len(places)), math.nan)
    for row in rows:
        score = signed_scores([row.choice], [row.confidence], positive)[0]
        scores[lines[row.reader], places[row.case_id]] = score
    ill = np.array(list(truth.values()))
    right = np.where(np.isfinite(scores), (scores > 0) == ill, math.nan)
    figures = {
        "sensitivity": share_figure(np.where(ill, right, math.nan)),
        "specificity": share_figure(np.where(ill, math.nan, right)),
        "accuracy": share_figure(right),
        "auc": auc_figure(scores, ill),
    }
    return {
        name: readers_by_cases(figure, ill, len(lines), draws=draws, seed=seed)
        for name, figure in figures.items()
    }


def _detection(rows: Sequence[AnswerRow], positive: str) -> DetectionFigures | None:
    """Figures of marks; None: it is no matter of finding."""
    if all(row.found is None for row in rows):
        return None
    ill = [row for row in rows if row.truth == positive]
    false = [row.choice == positive and row.mark_ras is not None and not row.found for row in rows]
    return DetectionFigures(
        share(sum(bool(row.found) for row in ill), len(ill)), share(sum(false), len(rows))
    )


def _recognition(
    rows: Sequence[AnswerRow], readers: Sequence[str], choices: tuple[str, ...]
) -> dict[str, RecognitionFigures]:
    found = {}
    for reader in (ALL_READERS, *readers):
        own = [row for row in rows if reader in (ALL_READERS, row.reader)]
        found[reader] = recognition_figures(
            [row.truth for row in own], [row.choice for row in own], choices
        )
    return found


def _between(
    rows: Sequence[AnswerRow], readers: Sequence[str], choices: tuple[str, ...]
) -> dict[tuple[str, str], Estimate]:
    said = {name: {r.case_id: r.choice for r in rows if r.reader == name} for name in readers}
    found = {}
    for first, second in itertools.combinations(readers, 2):
        both = [case for case in said[first] if case in said[second]]
        found[first, second] = cohen_kappa(
            [said[first][case] for case in both], [said[second][case] for case in both], choices
        )
    return found


def _fleiss(
    rows: Sequence[AnswerRow], readers: Sequence[str], choices: tuple[str, ...]
) -> Estimate:
    counts: dict[str, NDArray[np.int64]] = {}
    for row in rows:
        counts.setdefault(row.case_id, np.zeros(len(choices), int))[choices.index(row.choice)] += 1
    whole = [count for count in counts.values() if count.sum() == len(readers)]
    return fleiss_kappa(np.array(whole).reshape(-1, len(choices)))


def _own(answered: Sequence[AnswerRow], reader: str, choices: tuple[str, ...]) -> OwnAgreement:
    first = {row.token: row for row in answered if row.reader == reader}
    pairs = [(first[r.repeat_of], r) for r in first.values() if r.repeat_of in first]
    before, after = [a.choice for a, _ in pairs], [b.choice for _, b in pairs]
    agreed = sum(a == b for a, b in zip(before, after, strict=True))
    return OwnAgreement(reader, share(agreed, len(pairs)), cohen_kappa(before, after, choices))


def _learning(rows: Sequence[AnswerRow]) -> Learning:
    return learning(
        [row.position for row in rows], [row.correct for row in rows], [row.seconds for row in rows]
    )
