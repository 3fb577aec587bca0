"""`difftumor evaluate`: figures of predicted tumors against references."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from difftumor.commands.console import Reporter, say
from difftumor.grids import Grid
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import read_mask, read_volume
from difftumor.measuring.evaluation import (
    KEY_COLUMNS,
    Case,
    EvaluationError,
    aligned,
    figures_table,
    pair_cases,
    paper_tables,
    published_figures,
    read_metadata,
    summarize_groups,
    with_metadata,
)
from difftumor.measuring.metrics import TOLERANCE_MM, CaseFigures, Interval, evaluate_case
from difftumor.options import UsageError
from difftumor.provenance import versions, write_json

RULES = [
    "Pieces are 26-connected; sizes are diameters of the sphere of equal volume; early: at most 20 mm.",
    "A tumor is found if the prediction covers more than the given share of its voxels (0: any voxel).",
    "A false positive is a predicted piece without a voxel of a reference tumor.",
    "A patient is called positive if the prediction of a scan holds more than the given volume.",
    "DSC and NSD: means over scans with a tumor in the reference; NSD is of surfaces weighed by area.",
    "Intervals: BCa bootstrap over patients; Clopper-Pearson where all or none are counted.",
]


@dataclass(kw_only=True)
class Evaluate:
    """Compare predicted tumors with references: DSC, NSD, tumors found, false positives, patients.

    Two files, or two folders whose files are named alike (anna-segmentation.nii.gz and anna-tumors.nii.gz). With
    --organ the tables of the paper are printed with its figures beside.
    """

    predictions: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="PREDICTIONS")]]
    """File or folder of segmentations."""
    references: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="REFERENCES")]]
    """File or folder of reference labels."""
    label: tuple[int, ...] = (2,)
    """Labels of the predictions that are tumor; 2 as `difftumor segment` writes; 0: all above 0."""
    reference_label: tuple[int, ...] = (0,)
    """The same of the references; 0: all above 0, as in the -tumors files of `difftumor phantom`."""
    organ: str | None = None
    """Organ of all cases (liver, pancreas, kidney); else the column organ of the metadata."""
    metadata: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Table with a column case, and organ, fold, patient, sex, age or others."""
    by: tuple[str, ...] | None = None
    """Columns to group by; default: all but case and patient."""
    tolerance: float = TOLERANCE_MM
    """Of NSD, mm."""
    covered: float = 0.0
    """Share of a tumor that must be exceeded for it to count as found; 0: any voxel."""
    least_volume: float = 0.0
    """Predicted volume that must be exceeded for a patient to be called positive, mm3."""
    partial: bool = False
    """Leave references without a prediction out."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json|FILE.csv")] = None
    """All figures as JSON, or one row per case as CSV."""
    quiet: bool = False
    """Print results and errors only."""
    overwrite: bool = False
    """Replace an existing report."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        if not (0 <= self.covered < 1 and self.tolerance >= 0 and self.least_volume >= 0):
            raise UsageError("--covered must be 0 to below 1, the other limits not negative")
        if self.report is not None:
            if self.report.suffix.lower() not in (".json", ".csv"):
                raise UsageError(f"the report is JSON or CSV; {self.report} ends in neither")
            check_outputs([self.report], [], overwrite=self.overwrite)
        try:
            cases = pair_cases(self.predictions, self.references, partial=self.partial)
            if self.metadata is not None:
                cases = with_metadata(cases, read_metadata(self.metadata), str(self.metadata))
            columns = self._columns(cases)
        except EvaluationError as error:
            raise UsageError(str(error)) from None
        with Reporter(self.quiet) as reporter:
            figures = []
            for number, case in enumerate(cases):
                reporter("comparing", number, len(cases))
                figures.append(self._figures(case, reporter))
            reporter("summing up", 0, 1)
            groups = summarize_groups(cases, figures, columns)
        tables = paper_tables(groups, self.organ)
        say(aligned(figures_table(groups)))
        for title, rows in tables.items():
            say(f"\n{title}\n{aligned(rows)}")
        if tables:
            published = published_figures()
            say(f"\nPublished: {published['source']} {published['notes'][-1]}")
        self._write(cases, figures, groups, tables)
        return 0

    def _columns(self, cases: Sequence[Case]) -> list[str]:
        """What to group by."""
        known = [key for key in cases[0].facts if key not in KEY_COLUMNS]
        if self.by is None:
            return known
        if strange := [name for name in self.by if name not in known]:
            raise EvaluationError(
                f"the metadata have no column {strange[0]!r}"
                + (f"; there are {', '.join(known)}" if known else ": give --metadata FILE.csv")
            )
        return list(self.by)

    def _figures(self, case: Case, reporter: Reporter) -> CaseFigures:
        """Read one pair and compare, on the grid of the reference."""
        grid = read_volume(case.reference).grid
        reference = _mask(case.reference, self.reference_label, grid, reporter)
        prediction = _mask(case.prediction, self.label, grid, reporter)
        if self.label == (2,) and not prediction.any():
            present = np.unique(read_volume(case.prediction).array)
            if len(present) == 2 and present[1] == 1:
                reporter.note(
                    f"Note: {case.prediction} holds only the label 1. If that is the tumor, give --label 1."
                )
        return evaluate_case(
            prediction,
            reference,
            grid.spacing.tolist(),
            tolerance_mm=self.tolerance,
            least_covered=self.covered,
            least_mm3=self.least_volume,
        )

    def _write(
        self,
        cases: Sequence[Case],
        figures: Sequence[CaseFigures],
        groups: dict[str, dict[str, dict[str, Interval]]],
        tables: dict[str, list[list[str]]],
    ) -> None:
        """The report."""
        if self.report is None:
            return
        with staged([self.report], overwrite=self.overwrite) as (path,):
            if path.suffix.lower() == ".csv":
                _write_csv(cases, figures, path)
            else:
                write_json(self._content(cases, figures, groups, tables), path)
        say(f"{len(cases)} cases in {self.report}")

    def _content(
        self,
        cases: Sequence[Case],
        figures: Sequence[CaseFigures],
        groups: dict[str, dict[str, dict[str, Interval]]],
        tables: dict[str, list[list[str]]],
    ) -> dict[str, Any]:
        return {
            "schema": "difftumor-evaluation",
            "schema_version": 1,
            "rules": RULES,
            "options": {
                "label": list(self.label),
                "reference_label": list(self.reference_label),
                "tolerance_mm": self.tolerance,
                "covered": self.covered,
                "least_volume_mm3": self.least_volume,
                "organ": self.organ,
            },
            "groups": {
                column: {
                    value: {name: found.to_dict() for name, found in per_figure.items()}
                    for value, per_figure in values.items()
                }
                for column, values in groups.items()
            },
            "paper_tables": tables,
            "published": published_figures()["source"] if tables else None,
            "cases": [
                {
                    "case": case.name,
                    "prediction": str(case.prediction.resolve()),
                    "reference": str(case.reference.resolve()),
                    **{f"metadata_{key}": value for key, value in case.facts.items()},
                    **found.to_dict(),
                }
                for case, found in zip(cases, figures, strict=True)
            ],
            "versions": versions(),
        }


def _mask(path: Path, labels: Sequence[int], grid: Grid, reporter: Reporter) -> NDArray[np.bool_]:
    """The voxels of some labels, all above 0 for (0,)."""
    if any(label < 0 for label in labels) or not labels:
        raise UsageError(f"labels are whole numbers from 0, not {list(labels)}")
    if tuple(labels) == (0,):
        # Tumors carry a number each: that several labels are taken together is meant.
        return read_mask(path, None, grid, warn=_quiet_about_labels(reporter), allow_empty=True)
    parts = [read_mask(path, one, grid, warn=reporter.note, allow_empty=True) for one in labels]
    return np.asarray(np.logical_or.reduce(parts))


def _quiet_about_labels(reporter: Reporter) -> Any:
    def note(sentence: str) -> None:
        if "several labels" not in sentence:
            reporter.note(sentence)

    return note


def _write_csv(cases: Sequence[Case], figures: Sequence[CaseFigures], path: Path) -> None:
    """One row per case."""
    columns = sorted({key for case in cases for key in case.facts})
    rows = []
    for case, found in zip(cases, figures, strict=True):
        early = [tumor for tumor in found.tumors if tumor.early]
        facts = found.to_dict()
        rows.append(
            {
                "case": case.name,
                **{key: case.facts.get(key, "") for key in columns},
                "dsc": facts["dice"],
                "nsd": facts["surface_dice"],
                "tumors": len(found.tumors),
                "tumors_found": sum(tumor.found for tumor in found.tumors),
                "early_tumors": len(early),
                "early_tumors_found": sum(tumor.found for tumor in early),
                "false_positives": found.false_positives,
                "reference_mm3": found.reference_mm3,
                "predicted_mm3": found.predicted_mm3,
                "called_positive": int(found.called_positive),
            }
        )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
