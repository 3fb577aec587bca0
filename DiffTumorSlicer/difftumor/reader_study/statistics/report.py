"""The report of a study: a page, tables and plots, written together or not at all."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difftumor.images.outputs import staged
from difftumor.provenance import versions, write_json
from difftumor.reader_study.answers import Answers, write_answers_csv
from difftumor.reader_study.pages import NOTICE, heading, page, paragraph, picture, table
from difftumor.reader_study.statistics.plots import plot_all, plot_names
from difftumor.reader_study.statistics.study_figures import (
    ALL_READERS,
    EVERYTHING,
    StudyFigures,
    counted,
    json_ready,
)
from difftumor.reader_study.statistics.tables import (
    agreement_table,
    figures_table,
    flat_rows,
    interval,
    p_value,
    paper_table,
    plain,
    planning_table,
    recognition_tables,
    times_table,
)
from difftumor.remedies import Remedy, with_remedy

SCHEMA, SCHEMA_VERSION = "difftumor-study-report", 1
PAGE, FIGURES_JSON, FIGURES_CSV, TABLE_CSV, ANSWERS = (
    "index.html",
    "figures.json",
    "figures.csv",
    "table1.csv",
    "answers.csv",
)
WORDS = {
    "intervals": "Sensitivity, specificity and accuracy of each reader with their intervals",
    "roc": "ROC curves of each reader",
    "confusion": "Counts of answers by truth",
    "times": "Reading time and share of right answers over the order of reading",
}
METHODS = (
    "Practice cases and second readings do not count; of a repeated case the first answer does. Intervals are 95 %: "
    "Wilson's for shares of one reader; for all readers the percentiles of a bootstrap that draws readers and cases "
    "(too narrow with few readers); DeLong's for areas, from confidence 1 to 5 signed by the choice; for all readers "
    "the mean of their areas. p: exact two-sided binomial test, of all readers as if each reading were of another "
    "case. Cohen's kappa with its large-sample interval, Fleiss' kappa with Gwet's, over cases that all read. Per "
    "cents are rounded half up."
)


def report_files(figures: StudyFigures) -> tuple[str, ...]:
    """Names of all files of a report."""
    tables = (TABLE_CSV,) if figures.positive == "real" else ()
    plots = tuple(f"{name}.png" for name in plot_names(figures))
    return (PAGE, FIGURES_JSON, FIGURES_CSV, *tables, ANSWERS, *plots)


def write_report(
    answers: Answers, figures: StudyFigures, folder: Path, *, overwrite: bool = False
) -> None:
    """Write the report into a folder that exists.

    Raises:
        FileExistsError: a file is there, and `overwrite` is not set.
    """
    names = report_files(figures)
    if not overwrite and (there := [name for name in names if (folder / name).exists()]):
        raise with_remedy(
            FileExistsError(f"{folder / there[0]} exists already."), Remedy("overwrite_folder")
        )
    with staged([folder / name for name in names], overwrite=overwrite) as paths:
        at = dict(zip(names, paths, strict=True))
        plots = {name: at[f"{name}.png"] for name in plot_names(figures)}
        plot_all(figures, counted(answers), plots, answers.facts.choices)
        write_json(report_content(answers, figures), at[FIGURES_JSON])
        _write_rows(list(flat_rows(figures)), at[FIGURES_CSV])
        if TABLE_CSV in at:
            with at[TABLE_CSV].open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(paper_table(figures))
        write_answers_csv(answers.rows, at[ANSWERS])
        at[PAGE].write_text(report_page(answers, figures, plots), encoding="utf-8")


def report_content(answers: Answers, figures: StudyFigures) -> dict[str, Any]:
    """Content of figures.json."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "notice": NOTICE,
        "study": answers.facts.to_dict(),
        "figures": json_ready(figures),
        "paper_table": paper_table(figures) if figures.positive == "real" else None,
        "methods": METHODS,
        "versions": versions(),
    }


def report_page(answers: Answers, figures: StudyFigures, plots: dict[str, Path]) -> str:
    """The page."""
    parts = [paragraph(_what_was_read(answers, figures), "quiet")]
    parts += [paragraph(sentence) for sentence in sentences(figures)]

    def shown(name: str) -> list[str]:
        return [picture(plots[name], WORDS[name])] if name in plots else []

    if figures.groups:
        parts += [
            heading("Figures"),
            table(figures_table(figures)),
            *shown("intervals"),
            *shown("roc"),
        ]
    for title, rows in recognition_tables(figures).items():
        parts += [heading(title), table(rows)]
    parts += [heading("Truth and answers"), *shown("confusion")]
    if figures.positive == "real":
        words = (
            "The paper's readers, cases and synthetic tumors were others: for orientation, not a comparison. "
            "Positives are the real tumors. The last column says from which counts of 120 real and 120 synthetic cases "
            "a published row comes, or that it cannot come from them."
        )
        parts += [
            heading("Beside Table 1 of the paper (DiffTumor, CVPR 2024)"),
            paragraph(words, "quiet"),
        ]
        parts.append(table(paper_table(figures)))
    parts += [heading("Agreement"), table(agreement_table(figures))]
    parts += [heading("Time and learning"), table(times_table(figures)), *shown("times")]
    if len(rows := planning_table(figures)) > 1:
        words = "Cases of the kind in question (real for sensitivity, both for accuracy), read by one reader."
        parts += [heading("For the next study"), paragraph(words, "quiet"), table(rows)]
    parts += [heading("How it was computed"), paragraph(METHODS, "quiet")]
    return page(f"{answers.facts.title}: reader study", NOTICE, parts)


def sentences(figures: StudyFigures) -> list[str]:
    """What came out, in words, a sentence per reader."""
    told = []
    for group in figures.groups:
        if (
            group.group != EVERYTHING
            or group.reader == ALL_READERS
            or not group.accuracy.calls.cases
        ):
            continue
        p = group.accuracy.p_chance
        verdict = "not to be told from guessing"
        if p < 0.05:
            verdict = (
                "better than guessing"
                if group.accuracy.accuracy.value > 0.5
                else "worse than guessing"
            )
        told.append(
            f"{group.reader} answered {interval(group.accuracy.accuracy)} % of {group.accuracy.calls.cases} cases "
            f"rightly: {verdict} ({p_value(p)}). Area under the ROC curve {plain(group.auc)}."
        )
    for reader, found in figures.recognition.items():
        if reader != ALL_READERS and found.accuracy.cases:
            told.append(
                f"{reader} named {interval(found.accuracy)} % of {found.accuracy.cases} cases rightly "
                f"({p_value(found.p_chance)} against guessing among {len(found.choices)})."
            )
    return told


def _what_was_read(answers: Answers, figures: StudyFigures) -> str:
    facts = answers.facts
    rows = counted(answers)
    cases = len({row.case_id for row in rows})
    readers = len(figures.readers)
    left = [f"{count} {why}" for why, count in figures.left_out.items() if count]
    words = (
        f"Study {facts.study_id} of {facts.created}: {facts.question} {len(rows)} answers of {readers} "
        f"reader{'' if readers == 1 else 's'} to {cases} cases."
    )
    if left:
        words += f" Not counted: {', '.join(left)}."
    unfinished = [
        f"{code} ({told['answered']} of {told['total']})"
        for code, told in answers.journals.items()
        if told.get("answered", 0) < told.get("total", 0)
    ]
    if unfinished:
        words += f" Not finished: {', '.join(unfinished)}."
    if figures.late:
        words += f" {figures.late} answers came after the time limit and count."
    return words


def _write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: "" if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()}
            for row in rows
        )
