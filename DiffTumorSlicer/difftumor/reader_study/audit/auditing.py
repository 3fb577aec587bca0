"""The audit of a study before its release: form of the files, figures of the images, orders, a classifier."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.reader_study.audit.association import (
    ALPHA,
    CLASSIFIER_PERMUTATIONS,
    PERMUTATIONS,
    associations,
    classify,
    order_p,
)
from difftumor.reader_study.audit.features import Features, image_features
from difftumor.reader_study.audit.findings import (
    AuditReport,
    Finding,
    Measured,
    Severity,
    sorted_findings,
)
from difftumor.reader_study.audit.form import form_findings
from difftumor.reader_study.audit.showings import Showing, first_showings, read_showings
from difftumor.reader_study.key import Key, Study, read_key

MOST_MISSING = 0.2  # share of cases without a figure from which on it is left out
# Where the surroundings are what readers look at, only these figures of an image are tested.
FORM_KINDS = ("rounding", "start")
Callback = Callable[[str, int, int], None]
Columns = dict[tuple[str, str], NDArray[np.float64]]


def audit_study(
    study: Study,
    *,
    callback: Callback | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    classifier_permutations: int = CLASSIFIER_PERMUTATIONS,
) -> AuditReport:
    """Look for everything that tells the truth without the lesion.

    What must be equal in all files is compared; what differs between cases is tested against the truth at a level of
    1 % for all figures of images together, for all orders together, and for the classifier.

    Args:
        study: with its key and packages beside it.
        callback: called with stage, done, total; may raise Cancelled.
        seed: of permutations and folds.
        permutations: fewer are quicker and see less.
        classifier_permutations: likewise.

    Raises:
        StudyError: key or packages are missing or damaged.
    """
    report = callback or (lambda *_: None)
    key = read_key(study)
    report("comparing files", 0, 1)
    packages, showings = read_showings(study, key)
    findings = form_findings(packages, showings, key)
    cases = first_showings(showings)
    truths = [case.truth for case in cases]
    notes: list[str] = []
    columns, left_out = _columns(cases, study.facts.type == "organ_recognition", report)
    notes += left_out
    measured: list[Measured] = []
    strata = ["all" if study.facts.type == "organ_recognition" else case.organ for case in cases]
    if columns and len(set(truths)) > 1:
        table = np.stack(list(columns.values()), axis=1)
        found, critical = associations(table, truths, strata, permutations=permutations, seed=seed)
        measured = [
            Measured(kind, name, one.area, one.p)
            for (kind, name), one in zip(columns, found, strict=True)
        ]
        findings += [_told(one, truths) for one in measured if one.p <= ALPHA]
        notes.append(_sharpness(truths, critical))
    findings += _order_findings(showings, permutations, seed)
    if study.facts.type != "organ_recognition":
        findings += _balance(cases, key, permutations, seed)
    report("training a classifier", 0, 1)
    classifier = classify(
        np.stack(list(columns.values()), axis=1) if columns else np.zeros((len(cases), 0)),
        np.array([truth == study.facts.choices[0] for truth in truths], bool),
        permutations=classifier_permutations,
        seed=seed,
    )
    if classifier.p <= ALPHA:
        area = classifier.auc
        findings.append(
            Finding(
                "classifier",
                "leak",
                f"A logistic regression on {len(columns)} figures, none of the lesion itself, tells "
                f"{study.facts.choices[0]} with an area of {area.value:.2f} ({area.low:.2f} to {area.high:.2f}), "
                f"p = {classifier.p:.3f}.",
            )
        )
    elif not classifier.permutations:
        notes.append(f"No classifier was trained: it {classifier.auc.method}")
    return AuditReport(
        study.facts.study_id,
        study.facts.title,
        study.facts.type,
        dict(Counter(truths)),
        len(showings),
        sorted_findings(findings),
        tuple(sorted(measured, key=lambda one: (one.p, -abs(one.area - 0.5)))),
        classifier,
        tuple(notes),
    )


def _columns(
    cases: Sequence[Showing], form_only: bool, callback: Callback
) -> tuple[Columns, list[str]]:
    """Figures of all cases that can be tested, and notes on those that cannot."""
    # A lesion that only some kinds of cases have (detection) must not decide which figures there are.
    seams = all(case.lesions is not None for case in cases)
    rows: list[Features] = []
    for done, case in enumerate(cases):
        callback("measuring images", done, len(cases))
        found = image_features(case.path, case.lesions if seams else None)
        for axis, value in zip("RAS", case.start_ras, strict=True):
            found["start", f"{axis} of the first display"] = value
        rows.append(found)
    columns: Columns = {}
    rare = 0
    for name in dict.fromkeys(name for row in rows for name in row):
        if form_only and name[0] not in FORM_KINDS:
            continue
        values = np.array([row.get(name, math.nan) for row in rows], float)
        missing = ~np.isfinite(values)
        if missing.mean() > MOST_MISSING:
            rare += 1
            continue
        values[missing] = np.median(values[~missing])
        if np.ptp(values) > 0:
            columns[name] = values
    notes = []
    if not seams:
        notes.append("Not all cases have a lesion: its surroundings were not looked at")
    if form_only:
        notes.append(
            "Noise and histogram were not tested: the surroundings are part of the question"
        )
    if rare:
        notes.append(f"{rare} figures could not be measured in enough cases, and were left out")
    return columns, notes


def _told(one: Measured, truths: Sequence[str]) -> Finding:
    kinds = " and ".join(sorted(set(truths)))
    return Finding(
        one.kind,
        "leak",
        f"The {one.name} differs between {kinds} cases: area {one.area:.2f}, adjusted p = {one.p:.4f}.",
    )


def _sharpness(truths: Sequence[str], critical: float) -> str:
    """How large an area must be to be found with so many cases."""
    counts = sorted(Counter(truths).values())
    m, n = counts[0], sum(counts) - counts[0]
    area = 0.5 + critical * math.sqrt((m + n + 1) / (12 * m * n))
    if area >= 1:
        return (
            f"With {m} cases of a kind not even a figure that tells all cases apart can be shown to be more than "
            "chance. The audit of images needs about ten cases of each kind"
        )
    return (
        f"With {m} and {n} cases a single figure is found if its area is about {area:.2f} or more (or "
        f"{1 - area:.2f} or less); what tells less may stay unseen"
    )


def _order_findings(showings: Sequence[Showing], permutations: int, seed: int) -> Iterator[Finding]:
    """Orders of reading, of names and of writing to the disk that go with the truth, and equal orders."""
    by_reader: dict[str, list[Showing]] = {}
    for showing in showings:
        if not showing.practice and not showing.repeat:
            by_reader.setdefault(showing.reader, []).append(showing)
    orders: dict[str, tuple[Severity, Callable[[Showing], Any]]] = {
        "reading order": ("leak", lambda one: one.position),
        "order of the file names": ("leak", lambda one: one.token),
        # Does not travel with a copy, but with the disk.
        "order of writing to the disk": ("look", lambda one: one.path.stat().st_ctime_ns),
    }
    tests = len(by_reader) * len(orders)
    enough = max(permutations, int(2 * tests / ALPHA))
    for reader, own in by_reader.items():
        for name, (severity, place) in orders.items():
            truths = [one.truth for one in sorted(own, key=place)]
            if len(set(truths)) < 2:
                continue
            what, p = order_p(truths, permutations=enough, seed=seed)
            if p * tests <= ALPHA:
                yield Finding(
                    "order",
                    severity,
                    f"The {name} of {reader} is not random: {what} (adjusted p = {p * tests:.4f}).",
                )
    readers = list(by_reader)
    sequences = {reader: [one.case_id for one in by_reader[reader]] for reader in readers}
    for n, first in enumerate(readers):
        for second in readers[n + 1 :]:
            if len(sequences[first]) > 1 and sequences[first] == sequences[second]:
                yield Finding(
                    "order",
                    "look",
                    f"{first} and {second} read in the same order, and may compare notes.",
                )


def _balance(cases: Sequence[Showing], key: Key, permutations: int, seed: int) -> Iterator[Finding]:
    """Organs and sizes that go with the truth."""
    truths = [case.truth for case in cases]
    if len(set(truths)) < 2:
        return
    organs = sorted({case.organ for case in cases})
    if len(organs) > 1:
        is_organ = np.array([[case.organ == organ for organ in organs] for case in cases], float)
        found, _ = associations(
            is_organ, truths, ["all"] * len(cases), permutations=permutations, seed=seed
        )
        for organ, one in zip(organs, found, strict=True):
            if one.p <= ALPHA:
                yield Finding(
                    "balance", "leak", f"The organ tells the truth: {organ}, p = {one.p:.4f}."
                )
    sizes = [key.cases[case.case_id].size_mm for case in cases]
    if all(size is not None for size in sizes):
        column = np.array(sizes, float)[:, None]
        found, _ = associations(
            column, truths, [case.organ for case in cases], permutations=permutations, seed=seed
        )
        if found[0].p <= ALPHA:
            yield Finding(
                "balance",
                "look",
                f"The size of the lesions differs: area {found[0].area:.2f}, p = {found[0].p:.4f}.",
            )
