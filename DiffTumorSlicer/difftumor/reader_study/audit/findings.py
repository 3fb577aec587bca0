"""What an audit finds, with remedies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from difftumor.reader_study.statistics.estimates import Estimate

Severity = Literal["leak", "look"]

# What to do, by kind; the kinds are in the order of the report.
REMEDIES = {
    "content": "Remove the file or the text from the package; make the study again if it came from there.",
    "header": "Make the study again with this program: its neutral copies have one header for all cases.",
    "file size": "Make the study again: all copies must have one grid, one voxel type and no compression.",
    "file time": "Set one time for all files (make the study again, or touch -d), and pack them in one step.",
    "dtype": "Make the study again: all copies must be stored as 16-bit whole numbers without a scale.",
    "spacing": "Make the study again with one voxel size and one field of view for all cases.",
    "copies": "Make the study again: all readers must get the same voxels of a case.",
    "rounding": "Write synthetic and real cases through the same steps: whole HU, one range of values, one scale; "
    "look for inputs that were rescaled or saved as 8 bit before.",
    "histogram": "Take real and synthetic cases from the same scanners, phases and patients' habitus; look for a "
    "window or a scale that was applied to one kind only.",
    "noise": "Take real and synthetic cases from the same scanners, kernels and slice thicknesses; do not resample "
    "one kind only.",
    "seam": "Blend with a wider feather, or at the lesion's border; add the noise that the generator lost, "
    "and compare again.",
    "start": "Use one rule for the first display of all cases (the lesion's center with the same jitter).",
    "order": "Make the study again with another seed; orders and names must be drawn at random.",
    "balance": "Choose cases again, as many of each kind in every organ and size class (study create does so).",
    "classifier": "No single figure need tell by itself: look at those with the highest areas in the table, and "
    "remove what makes them differ.",
}


@dataclass(frozen=True)
class Finding:
    """Something that gives the truth away, or might.

    Attributes:
        kind: of REMEDIES.
        severity: leak: do not release the study; look: a person has to decide.
        what: a sentence.
    """

    kind: str
    severity: Severity
    what: str

    @property
    def remedy(self) -> str:
        """What to do."""
        return REMEDIES[self.kind]


@dataclass(frozen=True)
class Measured:
    """How well one figure tells the truth by itself.

    Attributes:
        kind: of REMEDIES.
        name: in words.
        area: the farthest from 0.5 of the AUCs of each choice against the others, within an organ; 0.5 tells nothing.
        p: permutation p, adjusted for all figures that were looked at.
    """

    kind: str
    name: str
    area: float
    p: float


@dataclass(frozen=True)
class ClassifierFigures:
    """A logistic regression on all figures together, cross-validated.

    Attributes:
        auc: with DeLong's interval; without a value if there are too few cases.
        p: permutation p; NaN if not done.
        permutations: how many were drawn.
    """

    auc: Estimate
    p: float
    permutations: int


@dataclass(frozen=True)
class AuditReport:
    """Result of an audit.

    Attributes:
        study_id, title, type: of the study.
        cases: by truth, those that count.
        files: that were looked at.
        findings: leaks first.
        measured: figures of images and of orders, the most telling first.
        classifier: of images.
        notes: what could not be looked at, and how little the numbers of cases show.
    """

    study_id: str
    title: str
    type: str
    cases: dict[str, int]
    files: int
    findings: tuple[Finding, ...]
    measured: tuple[Measured, ...]
    classifier: ClassifierFigures
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """No leak was found."""
        return not any(finding.severity == "leak" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the remedies; what was not computed is NaN."""
        content = asdict(self)
        content["clean"] = self.clean
        content["findings"] = [{**asdict(f), "remedy": f.remedy} for f in self.findings]
        return content


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Leaks first, then in the order of REMEDIES."""
    kinds = list(REMEDIES)
    return tuple(sorted(findings, key=lambda f: (f.severity != "leak", kinds.index(f.kind))))


def listed(values: Sequence[str], most: int = 4) -> str:
    """Some of the values, and how many more."""
    shown = ", ".join(values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown
