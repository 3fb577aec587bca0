"""Figures of reader studies equal slow, independent ones, on ordinary and on degenerate tables."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

pytest.importorskip("statsmodels", reason="needs the extra 'study'")

from difftumor.reader_study.statistics.accuracy import accuracy_figures, count_calls
from difftumor.reader_study.statistics.agreement import cohen_kappa, fleiss_kappa, landis_koch
from difftumor.reader_study.statistics.bootstrap import auc_figure, readers_by_cases, share_figure
from difftumor.reader_study.statistics.estimates import against_chance, percent, percent_of, share
from difftumor.reader_study.statistics.power import (
    cases_for_power,
    cases_for_width,
    power_against_chance,
    wilson_width,
)
from difftumor.reader_study.statistics.recognition import recognition_figures
from difftumor.reader_study.statistics.roc import auc, delong, roc_points, signed_scores
from difftumor.reader_study.statistics.timing import learning, reading_times

Z = 1.959963984540054
EXACT = {"rel": 0, "abs": 1e-9}
TABLES = [(0, 0), (0, 1), (1, 1), (0, 120), (120, 120), (119, 120), (64, 120), (1, 2), (3, 7)]


def same(found, expected):
    assert found == pytest.approx(expected, nan_ok=True, **EXACT)


@pytest.mark.parametrize(("hits", "cases"), TABLES)
def test_shares_have_the_interval_of_the_formula(hits, cases):
    found = share(hits, cases)
    if cases == 0:
        assert math.isnan(found.value)
        assert found.to_dict()["value"] is None
        return
    p = hits / cases
    middle = (p + Z * Z / (2 * cases)) / (1 + Z * Z / cases)
    reach = Z / (1 + Z * Z / cases) * math.sqrt(p * (1 - p) / cases + Z * Z / (4 * cases * cases))
    same([found.value, found.low, found.high], [p, middle - reach, middle + reach])


def test_impossible_shares_are_refused():
    with pytest.raises(ValueError, match="0 to 3 hits"):
        share(4, 3)


@pytest.mark.parametrize(("hits", "cases"), [*TABLES, (5, 10), (17, 40), (160, 240)])
@pytest.mark.parametrize("chance", [0.5, 1 / 3])
def test_the_test_against_chance_adds_up_all_outcomes_as_unlikely(hits, cases, chance):
    weights = [
        math.comb(cases, k) * Fraction(chance) ** k * (1 - Fraction(chance)) ** (cases - k)
        for k in range(cases + 1)
    ]
    unlikely = sum(w for w in weights if float(w) <= float(weights[hits]) * (1 + 1e-7))
    same(against_chance(hits, cases, chance), float(unlikely) if cases else math.nan)


def test_per_cents_are_rounded_half_up():
    cases = [(119, 120, "99.2"), (64, 120, "53.3"), (183, 240, "76.3"), (61, 80, "76.3"), (1, 1, "100.0"),
             (0, 9, "0.0"), (3, 80, "3.8"), (1, 2000, "0.1"), (1, 2001, "0.0")]  # fmt: skip
    assert [percent_of(share(a, b)) for a, b, _ in cases] == [text for *_, text in cases]
    assert percent(0.7625) == "76.3"  # as a person reads the number
    assert percent(0.76251, 2) == "76.25"
    assert percent(math.nan) == percent_of(share(0, 0)) == "-"


def test_calls_are_counted_one_by_one():
    truths = ["real", "real", "synthetic", "real", "synthetic", "synthetic", "synthetic"]
    choices = ["real", "synthetic", "synthetic", "real", "real", "synthetic", "synthetic"]
    found = accuracy_figures(count_calls(truths, choices, "real"))
    assert (found.sensitivity.hits, found.sensitivity.cases) == (2, 3)
    assert (found.specificity.hits, found.specificity.cases) == (3, 4)
    assert (found.accuracy.hits, found.accuracy.cases) == (5, 7)
    nothing = accuracy_figures(count_calls([], [], "real"))
    assert math.isnan(nothing.accuracy.value)
    assert math.isnan(nothing.p_chance)
    only_real = accuracy_figures(count_calls(["real"] * 3, ["real"] * 3, "real"))
    assert (only_real.sensitivity.value, only_real.accuracy.value) == (1, 1)
    assert math.isnan(only_real.specificity.value)


def slow_delong(scores, truth):
    """All pairs, one by one."""
    above = [s for s, t in zip(scores, truth, strict=True) if t]
    below = [s for s, t in zip(scores, truth, strict=True) if not t]
    pairs = [[(a > b) + 0.5 * (a == b) for b in below] for a in above]
    m, n = len(above), len(below)
    area = sum(map(sum, pairs)) / (m * n)
    v10 = [sum(row) / n for row in pairs]
    v01 = [sum(pairs[i][j] for i in range(m)) / m for j in range(n)]
    variance = sum((v - area) ** 2 for v in v10) / (m - 1) / m
    variance += sum((v - area) ** 2 for v in v01) / (n - 1) / n
    return area, variance


@pytest.mark.parametrize("seed", range(30))
def test_the_area_and_its_interval_equal_those_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(rng.integers(6, 40)) % 3 > 0)
    scores = rng.integers(-5, 6, truth.size) + 2 * truth  # many ties
    area, variance = slow_delong(scores, truth)
    found = delong(scores, truth)
    reach = Z * math.sqrt(variance)
    same(found.value, area)
    same([found.low, found.high], [max(0, area - reach), min(1, area + reach)])


def test_areas_of_degenerate_tables():
    perfect = delong([1, 2, 3, 4, 5, 6], [False] * 3 + [True] * 3)
    assert (perfect.value, perfect.high) == (1, 1)
    same(perfect.low, 0.025 ** (1 / 3))
    wrong = delong([1, 2, 3, 4, 5, 6], [True] * 3 + [False] * 3)
    same([wrong.value, wrong.low, wrong.high], [0, 0, 1 - perfect.low])
    alike = delong([3] * 6, [True, False] * 3)
    assert (alike.value, alike.method) == (0.5, "all answers alike")
    assert math.isnan(alike.low)
    for truth in ([True] * 4, [False] * 4, []):
        assert math.isnan(delong([1.0] * len(truth), truth).value)
    assert delong([1, 3, 2], [False, True, False]).method == "Clopper-Pearson of separate pairs"
    assert delong([1, 2, 3], [False, True, False]).method == "one case of a kind"


def test_scores_are_confidences_signed_by_the_choice():
    scores = signed_scores(["real", "synthetic", "real"], [5, 3, None], "real")
    assert scores.tolist() == [5, -3, 1]
    false_rate, true_rate = roc_points(scores, [True, False, False])
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)


def slow_cohen(first, second, choices):
    n = len(first)
    p = {(a, b): 0.0 for a, b in product(choices, choices)}
    for pair in zip(first, second, strict=True):
        p[pair] += 1 / n
    row = {a: sum(p[a, b] for b in choices) for a in choices}
    column = {b: sum(p[a, b] for a in choices) for b in choices}
    agreed = sum(p[a, a] for a in choices)
    chance = sum(row[a] * column[a] for a in choices)
    kappa = (agreed - chance) / (1 - chance)
    # Fleiss, Cohen and Everitt 1969, equation 13
    first_term = sum(p[a, a] * (1 - (row[a] + column[a]) * (1 - kappa)) ** 2 for a in choices)
    second_term = (1 - kappa) ** 2 * sum(
        p[a, b] * (column[a] + row[b]) ** 2 for a, b in product(choices, choices) if a != b
    )
    third = (kappa - chance * (1 - kappa)) ** 2
    return kappa, math.sqrt(max(0.0, first_term + second_term - third) / n) / (1 - chance)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("choices", [("real", "synthetic"), ("liver", "pancreas", "kidney")])
def test_cohens_kappa_equals_the_formula(seed, choices):
    rng = np.random.default_rng(seed)
    first = [choices[0], choices[1], *rng.choice(choices, rng.integers(3, 50))]
    second = [str(a if rng.random() < 0.6 else rng.choice(choices)) for a in first]
    second[:2] = choices[1], choices[0]
    found = cohen_kappa([str(a) for a in first], second, choices)
    kappa, error = slow_cohen([str(a) for a in first], second, choices)
    same(found.value, kappa)
    same([found.low, found.high], [max(-1, kappa - Z * error), min(1, kappa + Z * error)])


def test_kappa_of_degenerate_tables():
    choices = ("real", "synthetic")
    assert math.isnan(cohen_kappa([], [], choices).value)
    assert cohen_kappa(["real"] * 4, ["real"] * 4, choices).method == "one choice only"
    assert cohen_kappa(["real", "synthetic"], ["real", "synthetic"], choices).value == 1
    assert cohen_kappa(["real"] * 4, ["real", "real", "synthetic", "real"], choices).value == 0
    assert [landis_koch(k) for k in (math.nan, -0.1, 0.1, 0.5, 0.95)] == [
        "-", "poor", "slight", "moderate", "almost perfect"]  # fmt: skip


def slow_fleiss(table):
    cases, readers = len(table), sum(table[0])
    share_of = [sum(row[j] for row in table) / (cases * readers) for j in range(len(table[0]))]
    agreed = sum(sum(c * (c - 1) for c in row) / (readers * (readers - 1)) for row in table) / cases
    chance = sum(p * p for p in share_of)
    return (agreed - chance) / (1 - chance)


@pytest.mark.parametrize("seed", range(10))
def test_fleiss_kappa_equals_the_formula(seed):
    rng = np.random.default_rng(seed)
    table = rng.multinomial(4, [0.5, 0.3, 0.2], rng.integers(3, 30))
    found = fleiss_kappa(table)
    same(found.value, slow_fleiss(table.tolist()))
    assert found.low <= found.value <= found.high


def test_fleiss_kappa_of_degenerate_tables():
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])).method == "one choice only"
    assert fleiss_kappa(np.array([[1, 0], [0, 1]])).method == "no case read by two"
    assert math.isnan(fleiss_kappa(np.zeros((0, 2), int)).value)
    whole = fleiss_kappa(np.array([[3, 0], [0, 3], [3, 0]]))
    assert (whole.value, whole.method) == (1, "no spread")
    with pytest.raises(ValueError, match="same number of readers"):
        fleiss_kappa(np.array([[3, 0], [1, 1]]))


@pytest.mark.parametrize("seed", range(10))
def test_recognition_counts_each_class(seed):
    rng = np.random.default_rng(seed)
    choices = ("liver", "pancreas", "kidney")
    truths = [str(c) for c in rng.choice(choices, 30)]
    answers = [
        str(c) for c in rng.choice(choices[: 2 + seed % 2], 30)
    ]  # kidney is never said in half
    found = recognition_figures(truths, answers, choices)
    pairs = list(zip(truths, answers, strict=True))
    for i, c in enumerate(choices):
        told, true = [p for p in pairs if p[1] == c], [p for p in pairs if p[0] == c]
        both = sum(p == (c, c) for p in pairs)
        same(found.precision[c].value, both / len(told) if told else math.nan)
        same(found.recall[c].value, both / len(true) if true else math.nan)
        assert found.confusion[i].tolist() == [sum(p == (c, d) for p in pairs) for d in choices]
    assert found.accuracy.hits == sum(a == b for a, b in pairs)


def test_recognition_without_answers_has_no_figures():
    found = recognition_figures([], [], ("liver", "kidney"))
    assert found.confusion.tolist() == [[0, 0], [0, 0]]
    assert math.isnan(found.macro_recall)
    assert math.isnan(found.accuracy.value)


def test_times_and_learning():
    assert math.isnan(reading_times([]).median)
    found = reading_times([1, 2, 3, 4, 10])
    assert (found.median, found.lower_quartile, found.upper_quartile, found.total) == (3, 2, 4, 20)
    places = list(range(1, 201))
    faster = [20 * 0.5 ** (p / 50) for p in places]
    # odds that grow by half every 50 cases, in expectation: whole counts in blocks
    right = [(p * 7919) % 1000 / 1000 < 1 / (1 + math.exp(-0.4054651 * p / 50)) for p in places]
    learned = learning(places[::-1], right[::-1], faster[::-1])
    same(learned.time_ratio.value, 0.5)
    assert learned.odds_ratio.low < 1.5 < learned.odds_ratio.high
    assert learned.halves[0].cases == learned.halves[1].cases == 100
    assert learned.halves[0].hits == sum(right[:100])


def slow_logistic(x, y):
    """Newton's steps, written out."""
    design, beta = np.column_stack([np.ones(len(x)), x]), np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        information = design.T @ (design * (p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(information, design.T @ (y - p))
    return beta[1], math.sqrt(np.linalg.inv(information)[1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_the_odds_ratio_is_that_of_a_logistic_regression(seed):
    rng = np.random.default_rng(seed)
    places = rng.permutation(60)
    right = rng.random(60) < 0.3 + places / 150
    slope, error = slow_logistic(places / 50, right.astype(float))
    found = learning(places.tolist(), right.tolist(), [1.0] * 60).odds_ratio
    assert found.value == pytest.approx(math.exp(slope), rel=1e-6)
    assert found.low == pytest.approx(math.exp(slope - Z * error), rel=1e-6)


def test_learning_of_degenerate_sessions():
    for right in ([True] * 10, [False] * 10, [False] * 5 + [True] * 5, [True], []):
        found = learning(list(range(len(right))), right, [0.0] * len(right))
        assert math.isnan(found.odds_ratio.value)
        assert math.isnan(found.time_ratio.value)


def test_the_bootstrap_of_shares_and_areas_starts_at_the_plain_figures():
    rng = np.random.default_rng(3)
    positive = np.arange(30) % 2 == 0
    scores = rng.integers(-5, 6, (3, 30)) + 2.0 * positive
    scores[0, 4] = np.nan  # one reader left a case out
    right = np.where(np.isfinite(scores), (scores > 0) == positive, np.nan)
    found = readers_by_cases(share_figure(right), positive, 3, draws=300)
    same(found.value, float(np.nanmean(right)))
    area = readers_by_cases(auc_figure(scores, positive), positive, 3, draws=300)
    own = [auc(s[np.isfinite(s)], positive[np.isfinite(s)]) for s in scores]
    same(area.value, float(np.mean(own)))
    assert area.low < area.value < area.high
    again = readers_by_cases(auc_figure(scores, positive), positive, 3, draws=300)
    assert again == area  # seeded


def test_one_drawn_weight_is_one_copied_reader_and_case():
    rng = np.random.default_rng(5)
    positive = np.arange(12) % 2 == 0
    scores = rng.integers(-5, 6, (2, 12)).astype(float)
    readers, cases = np.array([2.0, 1.0]), rng.integers(0, 3, 12).astype(float)
    copies = np.repeat(np.arange(12), cases.astype(int))
    expected = np.mean([auc(scores[r][copies], positive[copies]) for r in (0, 0, 1)])
    same(auc_figure(scores, positive)(readers, cases), float(expected))


def test_bootstraps_of_degenerate_tables():
    positive = np.array([True, True, False, False])
    right = readers_by_cases(share_figure(np.ones((2, 4))), positive, 2, draws=50)
    assert (right.value, right.method) == (1, "no spread")
    nobody = readers_by_cases(share_figure(np.full((1, 4), np.nan)), positive, 1, draws=50)
    assert math.isnan(nobody.value)
    one = np.array([[1.0, 0, 1, 1]])
    assert "one reader" in readers_by_cases(share_figure(one), positive, 1, draws=50).method
    real_only = np.array([True, True])
    assert math.isnan(readers_by_cases(auc_figure(np.ones((2, 2)), real_only), real_only, 2).value)


@pytest.mark.parametrize("expected", [0.5, 0.75, 0.95, 1.0])
def test_the_number_of_cases_is_the_least_that_is_enough(expected):
    cases = cases_for_width(expected, 0.2)
    assert wilson_width(expected, cases) <= 0.2 < wilson_width(expected, cases - 1)


def test_power_is_the_chance_of_rejecting():
    cases, expected = 37, 0.7
    slow = sum(
        math.comb(cases, k) * expected**k * (1 - expected) ** (cases - k)
        for k in range(cases + 1)
        if against_chance(k, cases) <= 0.05
    )
    same(power_against_chance(expected, cases), slow)
    least = cases_for_power(0.7, 0.8)
    assert power_against_chance(0.7, least) >= 0.8 > power_against_chance(0.7, least - 1)
    for bad in ((0.5, 0.8), (0.7, 1.0), (1.2, 0.8)):
        with pytest.raises(ValueError, match="expected share"):
            cases_for_power(*bad)
    with pytest.raises(ValueError, match="width"):
        cases_for_width(0.5, 0)
    with pytest.raises(ValueError, match="more than"):
        cases_for_width(0.5, 1e-4)
