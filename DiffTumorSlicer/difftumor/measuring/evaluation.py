"""Evaluation of many cases: which files belong together, groups of a metadata table, and the tables.

The figures themselves are in `metrics`.  Beside ours the tables show what DiffTumor (Chen et al., CVPR 2024)
published, from `Resources/published_figures.json`: other scans, hence orientation and no comparison.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difftumor.measuring.metrics import CaseFigures, Interval, summarize
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.cards import resources_folder

PUBLISHED = "published_figures.json"
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
ENDINGS = re.compile(r"[-_](segmentations?|predictions?|tumou?rs?|labels?|seg|pred|mask|gt)$", re.I)
BESIDE = re.compile(r"[-_](probability|agreement|uncertainty)$", re.I)  # no labels
KEY_COLUMNS = ("case", "patient")
Rows = list[list[str]]


class EvaluationError(ValueError):
    """Files or tables that do not go together."""


@dataclass(frozen=True)
class Case:
    """One scan of an evaluation.

    Attributes:
        name: of the case.
        prediction, reference: files.
        facts: of the metadata table: organ, fold, sex and so on; texts.
    """

    name: str
    prediction: Path
    reference: Path
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def patient(self) -> str:
        """Whose scan it is."""
        return self.facts.get("patient", self.name)


def pair_cases(predictions: Path, references: Path, *, partial: bool = False) -> list[Case]:
    """Find the reference of each prediction.

    Names of files belong together if they are equal up to the format and an ending such as -segmentation, -tumors,
    _label or _seg.

    Args:
        predictions: two files, or two folders.
        references: likewise.
        partial: leave references without a prediction out; otherwise they are refused, since what a program failed on
            would vanish from its figures.

    Raises:
        EvaluationError: no pair, or a prediction without a reference; names them.
        FileNotFoundError: a path does not exist.
    """
    for path in (predictions, references):
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path}. Check the path.")
    if predictions.is_file() and references.is_file():
        return [Case(case_name(references), predictions, references)]
    if not (predictions.is_dir() and references.is_dir()):
        raise EvaluationError(
            f"{predictions} and {references} are a file and a folder. Give two files, or two folders."
        )
    found, wanted = _by_name(predictions), _by_name(references)
    if stray := sorted(set(found) - set(wanted)):
        raise EvaluationError(
            f"{references} holds no reference for {len(stray)} of {len(found)} predictions, for example "
            f"{found[stray[0]].name}. Names must be equal up to endings such as -segmentation and -tumors."
        )
    if (missing := sorted(set(wanted) - set(found))) and not partial:
        raise with_remedy(
            EvaluationError(
                f"{predictions} holds no prediction for {len(missing)} of {len(wanted)} references, for "
                f"example {wanted[missing[0]].name}."
            ),
            Remedy("leave_out"),
        )
    if not found:
        raise EvaluationError(f"{predictions} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    return [Case(name, found[name], wanted[name]) for name in sorted(found)]


def case_name(path: Path) -> str:
    """Name of a file without format and ending: "anna-tumors.nii.gz" is the case anna."""
    stem = _stem(path)
    return ENDINGS.sub("", stem) or stem


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """A table of cases: CSV with a column "case", and any of organ, fold, patient, sex, age and others.

    Ages are put into decades ("60-69").

    Raises:
        EvaluationError: no such column, or a case twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} is no CSV table ({error}).") from None
    if not rows or "case" not in rows[0]:
        raise EvaluationError(
            f'{path} has no rows with a column "case". Its first line names them.'
        )
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        facts = {k.strip(): (v or "").strip() for k, v in row.items() if k and isinstance(v, str)}
        name = facts.pop("case")
        if name in table:
            raise EvaluationError(f"{path} names the case {name!r} twice.")
        if "age" in facts:
            facts["age"] = _decade(facts["age"])
        table[name] = facts
    return table


def with_metadata(
    cases: Sequence[Case], table: Mapping[str, Mapping[str, str]], source: str
) -> list[Case]:
    """Cases with their row of the table.  Raises: EvaluationError: a case has none."""
    if missing := [case.name for case in cases if case.name not in table]:
        raise EvaluationError(
            f"{source} has no row for {len(missing)} of {len(cases)} cases, for example {missing[0]!r}."
        )
    return [Case(c.name, c.prediction, c.reference, dict(table[c.name])) for c in cases]


def summarize_groups(
    cases: Sequence[Case], figures: Sequence[CaseFigures], by: Sequence[str], seed: int = 0
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Figures of all cases and of each group.

    Args:
        cases: in one order.
        figures: likewise.
        by: columns of the metadata.
        seed: of the bootstrap.

    Returns:
        {"all": {"all": figures}, column: {value: figures}}; a case without a value is in the group "not known".
    """
    found = {"all": {"all": summarize(figures, [case.patient for case in cases], seed)}}
    for column in by:
        groups: dict[str, list[int]] = {}
        for index, case in enumerate(cases):
            groups.setdefault(case.facts.get(column) or "not known", []).append(index)
        found[column] = {
            value: summarize([figures[n] for n in chosen], [cases[n].patient for n in chosen], seed)
            for value, chosen in sorted(groups.items())
        }
    return found


def figures_table(groups: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> Rows:
    """One row per group and figure, with a head: value, SD, interval, cases."""
    rows = [["group", "figure", "value", "SD", "95 % interval", "of", "cases"]]
    for column, values in groups.items():
        for value, figures in values.items():
            name = "all" if column == "all" else f"{column} {value}"
            for figure, found in figures.items():
                if found.cases:
                    rows.append([name, figure, *_cells(figure, found)])
    return rows


def paper_tables(
    groups: Mapping[str, Mapping[str, Mapping[str, Interval]]], organ: str | None
) -> dict[str, Rows]:
    """Our figures in the layout of the paper's tables, with the published ones beside.

    Args:
        groups: of `summarize_groups`; with columns organ and fold where they are known.
        organ: of all cases; None: the column organ tells, and without it there are no tables.

    Returns:
        title -> rows, the first is the head.
    """
    published = published_figures()
    ours = groups.get("organ") or ({organ: groups["all"]["all"]} if organ else {})
    organs = [o for o in ("liver", "pancreas", "kidney") if o in ours]
    if not organs:
        return {}
    early: Rows = [["segmenter", "trained with", *organs]]
    overlap: Rows = [["segmenter", "trained with", *organs]]
    for network, per_training in published["dsc"].items():
        for training, values in per_training.items():
            row = [f"{values[o]['mean']:.1f} ± {values[o]['sd']:.1f}" for o in organs]
            overlap.append([network, training, *row])
        sources = published["early_tumor_sensitivity"][network]
        for training in sources["liver"]:
            row = [f"{sources[o][training][o]:.1f}" for o in organs]
            early.append([network, training, *row])
    early.append(["this evaluation", ""] + [_with_interval(ours[o], EARLY) for o in organs])
    overlap.append(["this evaluation", ""] + [_with_spread(ours[o], "DSC") for o in organs])
    tables = {
        "Sensitivity to early tumors (at most 20 mm), %": early,
        "DSC over all stages, mean ± SD, %": overlap,
    }
    folds = groups.get("fold", {})
    if folds and len(organs) == 1:
        for figure in ("DSC", "NSD"):
            tables[f"Five folds, {organs[0]}, {figure}, %"] = _fold_table(
                published["five_fold"][organs[0]], folds, figure
            )
    return tables


def published_figures() -> dict[str, Any]:
    """What the paper reports, in per cent, with its source."""
    content: dict[str, Any] = json.loads(
        (resources_folder() / PUBLISHED).read_text(encoding="utf-8")
    )
    return content


def aligned(rows: Rows) -> str:
    """A table as text with columns of equal width."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


EARLY = "early tumor sensitivity"


def _fold_table(
    published: Mapping[str, Any], folds: Mapping[str, Mapping[str, Interval]], figure: str
) -> Rows:
    names = sorted(folds)
    heads = [f"fold{n}" for n in range(5)]
    rows = [["segmenter", "trained with", *heads, "average"]]
    for network, trainings in published.items():
        for training, figures in trainings.items():
            cells = [f"{figures[figure][head]:.1f}" for head in heads]
            rows.append([network, training, *cells, f"{figures[figure]['average']:.1f}"])
    values = [folds[name][figure].value for name in names]
    # Folds may be called 0 or fold0; more than five or other names keep their order.
    at = {
        name if name.startswith("fold") else f"fold{name}": v
        for name, v in zip(names, values, strict=True)
    }
    if set(at) <= set(heads):
        row = [_percent(at.get(head, math.nan)) for head in heads]
    else:
        row = [_percent(v) for v in values[:5]] + ["-"] * (5 - len(values))
    known = [v for v in values if not math.isnan(v)]
    mean = sum(known) / len(known) if known else math.nan
    return [*rows, ["this evaluation", "", *row, _percent(mean)]]


def _cells(figure: str, found: Interval) -> list[str]:
    share = figure != "false positives per scan"
    tell: Callable[[float], str] = (
        _percent if share else (lambda v: "-" if math.isnan(v) else f"{v:.2f}")
    )
    unit = " %" if share else ""
    ends = f"{tell(found.low)} to {tell(found.high)}" if not math.isnan(found.low) else "-"
    spread = tell(found.sd) if figure in ("DSC", "NSD", "false positives per scan") else "-"
    return [tell(found.value) + unit, spread, ends, f"{found.count:g}", str(found.cases)]


def _with_interval(figures: Mapping[str, Interval], name: str) -> str:
    found = figures[name]
    return f"{_percent(found.value)} ({_percent(found.low)} to {_percent(found.high)})"


def _with_spread(figures: Mapping[str, Interval], name: str) -> str:
    found = figures[name]
    return f"{_percent(found.value)} ± {_percent(found.sd)}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _decade(text: str) -> str:
    """The ten years that an age lies in: 60-69 for 67; what is no number stays as it is."""
    try:
        first = int(float(text)) // 10 * 10
    except (ValueError, OverflowError):
        return text
    return f"{first}-{first + 9}"


def _by_name(folder: Path) -> dict[str, Path]:
    """Images of a folder by the name of their case.  Raises: EvaluationError: two for one case."""
    found: dict[str, Path] = {}
    for path in _images(folder.iterdir()):
        name = case_name(path)
        if name in found:
            raise EvaluationError(
                f"{found[name].name} and {path.name} in {folder} are both the case {name!r}. Put the "
                "files of one kind into a folder of their own."
            )
        found[name] = path
    return found


def _stem(path: Path) -> str:
    suffix = next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.is_file()
        and not path.name.startswith(".")
        and path.name.lower().endswith(IMAGE_SUFFIXES)
        and not BESIDE.search(_stem(path))
    )
