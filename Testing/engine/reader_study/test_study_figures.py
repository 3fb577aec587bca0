"""From merged answers to all figures; the paper's Table 1 from counts; intervals that cover."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("statsmodels", reason="needs the extra 'study'")

from difftumor.reader_study.answers import AnswerRow, Answers
from difftumor.reader_study.statistics.accuracy import Calls
from difftumor.reader_study.statistics.agreement import cohen_kappa, fleiss_kappa
from difftumor.reader_study.statistics.bootstrap import auc_figure, readers_by_cases, share_figure
from difftumor.reader_study.statistics.estimates import share
from difftumor.reader_study.statistics.published import check_row, counts_of, published_rows
from difftumor.reader_study.statistics.roc import delong
from difftumor.reader_study.statistics.study_figures import ALL_READERS, json_ready, study_figures
from difftumor.reader_study.study import StudyFacts

REAL, SYNTHETIC = "real", "synthetic"


def row(reader, case, choice, truth=None, **more):
    truth = truth or (REAL if case % 2 else SYNTHETIC)
    given = {
        "token": f"{reader}{case}",
        "organ": ("liver", "kidney")[case % 4 // 2],
        "kind": truth,
        "size_mm": 12.0,
        "confidence": 3,
        "seconds": 5.0 + case,
        "position": case + 1,
    } | more
    return AnswerRow(reader=reader, case_id=f"case{case}", truth=truth, choice=choice, **given)


def merged(rows, kind="visual_turing_test"):
    return Answers(StudyFacts("0" * 12, "A study", kind, "2026-11-20"), {}, tuple(rows))


def test_rows_of_the_paper_come_from_counts_or_are_said_not_to():
    rows = {(row.organ, row.reader): row for row in published_rows()}
    assert len(rows) == 8
    assert rows["liver", "R2"].calls == Calls(120, 119, 120, 64)
    counts = {key: row.calls and (row.calls.true_positives, row.calls.true_negatives)
              for key, row in rows.items()}  # fmt: skip
    assert counts == {
        ("liver", "R1"): None,
        ("liver", "R2"): (119, 64),
        ("pancreas", "R1"): None,
        ("pancreas", "R2"): (120, 53),
        ("kidney", "R1"): (115, 44),
        ("kidney", "R2"): (118, 66),
        ("kidney", "R3"): (119, 49),
        ("kidney", "R4"): (117, 62),
    }
    assert rows["liver", "R1"].reason == (
        "no count of 120 gives specificity 2.9; accuracy does not follow from the other two either; "
        "the fewest cases that fit are 26 real and 34 synthetic (26/26, 1/34)"
    )
    assert "35 real and 25 synthetic (34/35, 0/25)" in rows["pancreas", "R1"].reason


def test_counts_of_a_per_cent():
    assert counts_of(53.3, 120) == [64]
    assert counts_of(97.1, 120) == []
    assert counts_of(0.0, 120) == [0]
    assert counts_of(50.0, 3000) == [1499, 1500, 1501]
    only_accuracy = check_row("liver", "X", 99.2, 53.3, 80.0, 120, 120)
    assert only_accuracy.reason.startswith("accuracy 80.0 does not follow")


def test_a_study_by_hand():
    # eight cases; odd ones are real; A is right but for case 0, B always says real
    rows = [row("A", n, REAL if n % 2 or n == 0 else SYNTHETIC) for n in range(8)]
    rows += [row("B", n, REAL) for n in range(8)]
    rows += [
        row("A", 1, SYNTHETIC, token="Ax", repeat_of="A1", position=9),
        row("A", 90, REAL, practice=True),
        row("B", 91, "", late=True),
    ]
    found = study_figures(merged(rows), draws=200)
    assert found.left_out == {"practice": 1, "repeated": 1, "unanswered": 1}
    assert [(g.reader, g.group) for g in found.groups] == [
        (reader, group) for reader in (ALL_READERS, "A", "B") for group in ("all", "liver", "kidney")
    ]  # fmt: skip
    everyone, one, other = found.groups[0], found.groups[3], found.groups[6]
    assert one.accuracy.calls == Calls(4, 4, 4, 3)
    assert other.accuracy.calls == Calls(4, 4, 4, 0)
    assert everyone.accuracy.calls == one.accuracy.calls + other.accuracy.calls
    assert everyone.pooled["specificity"].value == 3 / 8
    assert everyone.pooled["accuracy"].low <= 11 / 16 <= everyone.pooled["accuracy"].high
    assert (one.auc.value, other.auc.value) == (0.875, 0.5)
    assert everyone.auc.value == (0.875 + 0.5) / 2
    assert found.groups[4].accuracy.calls == Calls(2, 2, 2, 1)  # liver: cases 0, 1, 4, 5
    assert one.times.median == 8.5
    assert found.own[0].agreed.hits == 0
    assert found.own[0].agreed.cases == 1
    assert found.own[1].agreed.cases == 0
    assert found.between["A", "B"].value == 0
    assert found.fleiss.cases == 8
    text = json.dumps(json_ready(found), allow_nan=False)
    assert json.loads(text)["between"]["A, B"]["value"] == 0


def test_an_unfinished_study_and_one_reader_have_figures():
    for rows in ([], [row("A", 1, REAL)], [row("A", n, SYNTHETIC) for n in range(4)]):
        found = study_figures(merged(rows), draws=50)
        json.dumps(json_ready(found), allow_nan=False)
        assert found.groups[0].accuracy.calls.cases == len(rows)
        assert math.isnan(found.fleiss.value)


def test_recognition_has_no_positive_choice():
    organs = ("liver", "pancreas", "kidney")
    rows = [
        row("A", n, organs[n % 3], truth=organs[n // 2 % 3], organ=organs[n // 2 % 3])
        for n in range(12)
    ]
    found = study_figures(merged(rows, "organ_recognition"), draws=50)
    assert found.positive is None
    assert found.groups == ()
    assert set(found.recognition) == {ALL_READERS, "A"}
    assert found.recognition["A"].accuracy.hits == sum(r.correct for r in rows)


def test_detection_counts_marks():
    near, away = (
        {"mark_ras": (0.0, 0.0, 0.0), "mark_mm_from_lesion": 0.0},
        {"mark_ras": (9.0, 9.0, 9.0)},
    )
    rows = [
        row("A", 0, "lesion", "lesion", found=True, **near),
        row("A", 1, "lesion", "lesion", found=False, **away),  # beside it: a miss and a false mark
        row("A", 2, "none", "lesion", found=False),
        row("A", 3, "lesion", "none", **away),
        row("A", 4, "none", "none"),
        row("A", 5, "lesion", "lesion", found=False),  # said, not marked
    ]
    group = study_figures(merged(rows, "detection"), draws=50).groups[0]
    assert (group.detection.sensitivity.hits, group.detection.sensitivity.cases) == (1, 4)
    assert (group.detection.false_marks.hits, group.detection.false_marks.cases) == (2, 6)
    assert group.accuracy.calls == Calls(4, 3, 2, 1)


def covered(intervals, truth):
    inside = [found.low <= truth <= found.high for found in intervals]
    return sum(inside) / len(inside)


def test_intervals_cover_in_simulation():
    """95 % of 200 simulations; one standard error is 1.5 points."""
    rng = np.random.default_rng(11)
    hits = rng.binomial(120, 0.76, 200)
    assert 0.91 < covered([share(int(k), 120) for k in hits], 0.76) < 0.99
    truth = np.arange(80) % 2 == 0
    area = 0.7602499389065233  # of two unit normals one apart: Phi(1 / sqrt 2)
    areas = [delong(rng.normal(size=80) + truth, truth) for _ in range(200)]
    assert 0.91 < covered(areas, area) < 0.99
    kappas, of_three = [], []
    for _ in range(200):
        first = rng.choice(["a", "b"], 100)
        second = np.where(rng.random(100) < 0.5, first, rng.choice(["a", "b"], 100))
        kappas.append(cohen_kappa(first.tolist(), second.tolist(), ("a", "b")))
        said = rng.random(60) < 0.5
        same = rng.random((60, 3)) < math.sqrt(0.5)
        called = np.where(same, said[:, None], rng.random((60, 3)) < 0.5).sum(axis=1)
        of_three.append(fleiss_kappa(np.stack([called, 3 - called], axis=1)))
    assert 0.91 < covered(kappas, 0.5) < 0.99
    assert 0.91 < covered(of_three, 0.5) < 0.99


def test_figures_over_readers_cover_in_simulation():
    """Readers differ in skill, cases in difficulty; both are drawn anew in each of 80 studies."""
    rng = np.random.default_rng(12)
    positive = np.arange(60) % 2 == 0
    shares, areas = [], []
    for seed in range(80):
        skill, ease = rng.normal(0, 0.4, (6, 1)), rng.normal(0, 0.8, (1, 60))
        latent = 0.8 + skill + ease + rng.normal(size=(6, 60))
        right = (latent > 0).astype(float)
        shares.append(readers_by_cases(share_figure(right), positive, 6, draws=200, seed=seed))
        scores = np.where(positive, latent, -latent)
        areas.append(
            readers_by_cases(auc_figure(scores, positive), positive, 6, draws=200, seed=seed)
        )
    # P(latent > 0) with variance 0.16 + 0.64 + 1
    assert covered(shares, 0.7245075) > 0.88
    assert covered(areas, normal_area()) > 0.88


def normal_area():
    """P(a > -b) of a reader's two latent values: mean 1.6, variance 4 skill + 2 (ease + noise)."""
    return 0.5 * (1 + math.erf(1.6 / math.sqrt(4 * 0.16 + 2 * 1.64) / math.sqrt(2)))
