"""The report of an audit as a page and as JSON."""

from __future__ import annotations

import math
from typing import Any

from difftumor.provenance import versions
from difftumor.reader_study.audit.findings import AuditReport
from difftumor.reader_study.pages import NOTICE, heading, page, paragraph, table
from difftumor.reader_study.statistics.study_figures import json_ready

SCHEMA, SCHEMA_VERSION = "difftumor-study-audit", 1
SHOWN = 15  # figures in tables
SECRET = "This report tells of the truth of the study: it stays with the coordinator, and never goes to a reader."
METHODS = (
    "File size, time, permissions and every header field must be equal in all files of all packages; copies of a case "
    "must be equal byte by byte; nothing of the key may occur in a text or header. Figures of images leave the lesion "
    "out (noise and histogram from 8 mm on, the seam in two rings around it, 3 mm or two voxels wide); they are ranked "
    "within organs and tested by 2000 permutations of the truth, adjusted for all figures together. Orders are tested "
    "likewise. The classifier is a logistic regression, cross-validated in five parts, with a permutation p. Each of "
    "these has a level of 1 %: about three clean studies of a hundred raise an alarm by chance."
)


def audit_content(report: AuditReport) -> dict[str, Any]:
    """Content of the JSON file."""
    content: dict[str, Any] = json_ready(report.to_dict() | {"classifier": report.classifier})
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "notice": SECRET,
        **content,
        "methods": METHODS,
        "versions": versions(),
    }


def verdict(report: AuditReport) -> str:
    """The result in a sentence."""
    number = sum(finding.severity == "leak" for finding in report.findings)
    if number:
        return (
            f"Do not release this study: {number} thing{'s' if number > 1 else ''} other than the lesion "
            f"{'give' if number > 1 else 'gives'} the truth away, or might."
        )
    return "Nothing but the lesion was found to give the truth away."


def findings_rows(report: AuditReport) -> list[list[str]]:
    """What was found, and what to do, with a head."""
    return [
        ["kind", "weight", "what was found", "what to do"],
        *([f.kind, f.severity, f.what, f.remedy] for f in report.findings),
    ]


def figures_rows(report: AuditReport) -> list[list[str]]:
    """The most telling figures, with a head."""
    return [
        ["kind", "figure", "area (0.5 tells nothing)", "adjusted p"],
        *([m.kind, m.name, f"{m.area:.2f}", f"{m.p:.4f}"] for m in report.measured[:SHOWN]),
    ]


def classifier_line(report: AuditReport) -> str:
    """The classifier in a sentence."""
    area = report.classifier.auc
    if math.isnan(area.value):
        return f"No classifier was trained: it {area.method}."
    return (
        f"A classifier on all figures together: area {area.value:.2f} ({area.low:.2f} to {area.high:.2f}), "
        f"p = {report.classifier.p:.3f} by {report.classifier.permutations} permutations."
    )


def audit_page(report: AuditReport) -> str:
    """The page."""
    counts = ", ".join(f"{count} {truth}" for truth, count in sorted(report.cases.items()))
    parts = [
        paragraph(verdict(report), "good" if report.clean else "bad"),
        paragraph(
            f"Study {report.study_id}: {counts}; {report.files} files were compared.", "quiet"
        ),
    ]
    if report.findings:
        parts += [heading("Findings"), table(findings_rows(report), sentences=True)]
    parts += [heading("All figures together"), paragraph(classifier_line(report))]
    if report.measured:
        parts += [heading("Figures, the most telling first"), table(figures_rows(report))]
    parts += [paragraph(f"{note}.", "quiet") for note in report.notes]
    parts += [heading("How it was looked for"), paragraph(METHODS, "quiet")]
    return page(f"{report.title}: leak audit", f"{NOTICE} {SECRET}", parts)
