"""Tables of a report: figures, the paper's Table 1 beside ours, agreement, times, planning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from difftumor.reader_study.statistics.agreement import landis_koch
from difftumor.reader_study.statistics.estimates import Estimate, percent, percent_of
from difftumor.reader_study.statistics.power import cases_for_power, cases_for_width
from difftumor.reader_study.statistics.published import PublishedRow, published_rows
from difftumor.reader_study.statistics.study_figures import (
    ALL_READERS,
    EVERYTHING,
    GroupFigures,
    StudyFigures,
)

Rows = list[list[str]]
SHARES = ("sensitivity", "specificity", "accuracy")
WIDTHS = (0.2, 0.1)
NEAR_GUESSING = 0.05  # what is nearer to 50 % needs thousands of cases to be told from it


def figures_table(figures: StudyFigures) -> Rows:
    """Sensitivity, specificity, accuracy, AUC of each reader, per organ and pooled."""
    rows = [
        [
            "reader",
            "sensitivity, %",
            "specificity, %",
            "accuracy, %",
            "p against 50 %",
            "AUC",
            "answers",
        ]
    ]
    if any(group.detection for group in figures.groups):
        rows[0] += ["lesions marked, %", "false marks per 100 cases"]
    for name in dict.fromkeys(group.group for group in figures.groups):
        rows.append(["all organs" if name == EVERYTHING else name])
        for group in figures.groups:
            if group.group == name:
                rows.append(_figures_row(group))
    return rows


def recognition_tables(figures: StudyFigures) -> dict[str, Rows]:
    """Precision and recall of each class, and the confusion, by reader."""
    tables = {}
    for reader, found in figures.recognition.items():
        rows = [["truth", *(f"called {c}" for c in found.choices), "recall, %", "precision, %"]]
        for choice, counts in zip(found.choices, found.confusion.tolist(), strict=True):
            rows.append(
                [
                    choice,
                    *map(str, counts),
                    interval(found.recall[choice]),
                    interval(found.precision[choice]),
                ]
            )
        means = [percent(found.macro_recall), percent(found.macro_precision)]
        rows.append(["mean of classes", *[""] * len(found.choices), *means])
        tables[
            f"{reader}: {interval(found.accuracy)} % right, {p_value(found.p_chance)} against guessing"
        ] = rows
    return tables


def paper_table(figures: StudyFigures, published: tuple[PublishedRow, ...] | None = None) -> Rows:
    """Ours in the layout of the paper's Table 1, the paper's rows above; with what their counts would be."""
    rows = [["organ", "reader", "sensitivity, %", "specificity, %", "accuracy, %", "counts"]]
    paper = published_rows() if published is None else published
    names = dict.fromkeys(
        [*(row.organ for row in paper), *(group.group for group in figures.groups)]
    )
    organs = {group.group for group in figures.groups} - {EVERYTHING}
    for organ in names:
        for row in paper:
            if row.organ == organ:
                shown = [
                    f"{value:.1f}" for value in (row.sensitivity, row.specificity, row.accuracy)
                ]
                rows.append([organ, f"{row.reader} (paper)", *shown, _counts(row)])
        for group in figures.groups:
            if (
                group.reader != ALL_READERS
                and group.group == organ
                and (organ != EVERYTHING or not organs)
            ):
                calls = group.accuracy.calls
                told = f"{calls.true_positives}/{calls.positives}, {calls.true_negatives}/{calls.negatives}"
                rows.append(
                    ["all" if organ == EVERYTHING else organ, group.reader, *_shares(group), told]
                )
    return rows


def agreement_table(figures: StudyFigures) -> Rows:
    """Kappas between readers, and of readers with themselves."""
    rows = [["readers", "figure", "value", "in words", "cases"]]
    if len(figures.readers) > 1:
        rows.append(["all", "Fleiss' kappa", *_kappa(figures.fleiss)])
    for (first, second), found in figures.between.items():
        rows.append([f"{first} and {second}", "Cohen's kappa", *_kappa(found)])
    for own in figures.own:
        if own.agreed.cases:
            rows.append(
                [
                    f"{own.reader}, twice",
                    "same answer, %",
                    interval(own.agreed),
                    "",
                    str(own.agreed.cases),
                ]
            )
            rows.append([f"{own.reader}, twice", "Cohen's kappa", *_kappa(own.kappa)])
    return rows


def times_table(figures: StudyFigures) -> Rows:
    """Reading times, and what changed over the study."""
    rows = [["reader", "seconds per case: median (quartiles)", "total, min", "right in the 1st half, %",
             "in the 2nd half, %", "odds of being right, x per 50 cases", "time, x per 50 cases"]]  # fmt: skip
    times = {g.reader: g.times for g in figures.groups if g.group == EVERYTHING}
    for reader, learned in figures.learning.items():
        spent = times.get(reader)
        told = ["-", "-"]
        if spent is not None and spent.cases:
            told = [
                f"{spent.median:.1f} ({spent.lower_quartile:.1f} to {spent.upper_quartile:.1f})",
                f"{spent.total / 60:.1f}",
            ]
        halves = [interval(half) for half in learned.halves]
        rows.append([reader, *told, *halves, plain(learned.odds_ratio), plain(learned.time_ratio)])
    return rows


def planning_table(figures: StudyFigures) -> Rows:
    """Cases that the next study needs, if figures come out as they did here."""
    rows = [["figure", "found, %", *(f"cases for an interval of {percent(w, 0)} points" for w in WIDTHS),
             "cases to tell from 50 % (power 80 %)"]]  # fmt: skip
    for name in SHARES:
        found = figures.groups[0].pooled.get(name) if figures.groups else None
        if found is None or math.isnan(found.value):
            continue
        enough = "-"
        if name == "accuracy" and abs(found.value - 0.5) >= NEAR_GUESSING:
            enough = str(cases_for_power(found.value))
        needed = [str(cases_for_width(found.value, width)) for width in WIDTHS]
        rows.append([name, percent(found.value), *needed, enough])
    return rows


def flat_rows(figures: StudyFigures) -> Iterator[dict[str, Any]]:
    """Every figure as a row of figures.csv; shares, not per cents."""
    for group in figures.groups:
        named = {
            "sensitivity": group.accuracy.sensitivity,
            "specificity": group.accuracy.specificity,
            "accuracy": group.accuracy.accuracy,
            "auc": group.auc,
            **{f"{name}, readers x cases": found for name, found in group.pooled.items()},
        }
        if group.detection:
            named["lesions marked"] = group.detection.sensitivity
            named["false marks per case"] = group.detection.false_marks
        for name, found in named.items():
            p = group.accuracy.p_chance if name == "accuracy" else math.nan
            yield _flat(group.reader, group.group, name, found, p)
        yield _flat(
            group.reader,
            group.group,
            "median seconds",
            Estimate(
                group.times.median, group.times.lower_quartile, group.times.upper_quartile, group.times.cases,
                "quartiles",
            ),
        )  # fmt: skip
    for reader, known in figures.recognition.items():
        yield _flat(reader, EVERYTHING, "accuracy", known.accuracy, known.p_chance)
        for choice in known.choices:
            yield _flat(reader, choice, "precision", known.precision[choice])
            yield _flat(reader, choice, "recall", known.recall[choice])
    for pair, found in figures.between.items():
        yield _flat(" and ".join(pair), EVERYTHING, "Cohen's kappa", found)
    yield _flat(ALL_READERS, EVERYTHING, "Fleiss' kappa", figures.fleiss)
    for own in figures.own:
        yield _flat(own.reader, EVERYTHING, "same answer twice", own.agreed)
        yield _flat(own.reader, EVERYTHING, "Cohen's kappa with themselves", own.kappa)
    for reader, learned in figures.learning.items():
        yield _flat(
            reader, EVERYTHING, "odds ratio of being right per 50 cases", learned.odds_ratio
        )
        yield _flat(reader, EVERYTHING, "ratio of reading time per 50 cases", learned.time_ratio)


def interval(found: Estimate) -> str:
    """A share in per cent with its interval."""
    if math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return percent_of(found)
    return f"{percent_of(found)} ({percent(found.low)} to {percent(found.high)})"


def plain(found: Estimate) -> str:
    """A figure that is no share, with its interval."""
    if math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def p_value(p: float) -> str:
    """P as papers write it."""
    if math.isnan(p):
        return "-"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _figures_row(group: GroupFigures) -> list[str]:
    row = [group.reader, *_shares(group), p_value(group.accuracy.p_chance), plain(group.auc)]
    row.append(str(group.accuracy.calls.cases))
    if group.detection:
        row += [interval(group.detection.sensitivity), interval(group.detection.false_marks)]
    return row


def _shares(group: GroupFigures) -> list[str]:
    """The three shares; of all readers with the bootstrap's intervals, where it has some."""
    cells = []
    for name in SHARES:
        own: Estimate = getattr(group.accuracy, name)
        pooled = group.pooled.get(name)
        if pooled is not None and not math.isnan(pooled.low):
            cells.append(f"{percent_of(own)} ({percent(pooled.low)} to {percent(pooled.high)})")
        else:
            cells.append(interval(own))
    return cells


def _counts(row: PublishedRow) -> str:
    if row.calls is None:
        return f"not from 120 + 120 cases: {row.reason}"
    c = row.calls
    return f"{c.true_positives}/{c.positives}, {c.true_negatives}/{c.negatives}"


def _kappa(found: Estimate) -> list[str]:
    return [plain(found), landis_koch(found.value), str(found.cases)]


def _flat(
    reader: str, group: str, name: str, found: Estimate, p: float = math.nan
) -> dict[str, Any]:
    cells = {key: "" if value is None else value for key, value in found.to_dict().items()}
    return {
        "reader": reader,
        "group": group,
        "figure": name,
        **{key: cells[key] for key in ("value", "low", "high", "hits", "cases", "method")},
        "p_chance": "" if math.isnan(p) else p,
    }
