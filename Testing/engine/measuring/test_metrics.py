"""Figures of segmentations: hand-made cases, MONAI's metrics, and a simulation of the intervals."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from scipy import ndimage

from difftumor.measuring.metrics import (
    CaseFigures,
    TumorFound,
    dice,
    evaluate_case,
    interval,
    summarize,
    surface_dice,
)


def blank(shape=(40, 40, 40)):
    return np.zeros(shape, bool)


def box(*spans, shape=(40, 40, 40)):
    mask = blank(shape)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def blobs(seed):
    """Smooth random masks."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((30, 28, 26)), 3)
    return field > np.quantile(field, 0.9)


@pytest.mark.parametrize("seed", range(5))
def test_dice_is_monai_s(seed):
    one, two = blobs(seed), blobs(seed) ^ blobs(seed + 50)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (one, two)]
    assert dice(one, two) == pytest.approx(float(compute_dice(*pair, include_background=True)))


def test_dice_of_boxes_and_of_nothing():
    assert dice(box((0, 10), (0, 10), (0, 10)), box((5, 15), (0, 10), (0, 10))) == 0.5
    assert dice(blank(), box((0, 1), (0, 1), (0, 1))) == 0
    assert math.isnan(dice(blank(), blank()))


def surface_dice_by_definition(one, two, spacing, tolerance):
    """Every face between a voxel in and a voxel out is a piece of surface; all distances are computed."""
    spacing = np.asarray(spacing, float)

    def faces(mask):
        places, areas = [], []
        for axis in range(3):
            area = np.prod(np.delete(spacing, axis))
            padded = np.pad(mask, 1)
            change = np.diff(padded.astype(np.int8), axis=axis)
            at = np.argwhere(change != 0).astype(float) - 1
            at[:, axis] += 0.5
            places.append(at * spacing)
            areas += [area] * len(at)
        return np.concatenate(places), np.asarray(areas)

    (at_1, area_1), (at_2, area_2) = faces(one), faces(two)
    apart = np.linalg.norm(at_1[:, None] - at_2[None], axis=-1)
    near_1, near_2 = apart.min(1) <= tolerance, apart.min(0) <= tolerance
    return (area_1[near_1].sum() + area_2[near_2].sum()) / (area_1.sum() + area_2.sum())


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.8, 2.5)])
@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_is_near_that_of_voxel_faces(seed, spacing):
    """Another definition of the surface (faces of voxels), hence near but not equal."""
    one = blobs(seed)
    two = np.roll(one, 2, axis=0) | np.roll(one, -1, axis=1)
    expected = surface_dice_by_definition(one, two, spacing, 2.0)
    assert surface_dice(one, two, spacing) == pytest.approx(expected, abs=0.05)
    assert 0.2 < expected < 1


def test_surface_dice_of_hand_made_cases():
    cube = box((10, 30), (10, 30), (10, 30))
    assert surface_dice(cube, cube, (1, 1, 1), 0) == 1
    assert surface_dice(cube, np.roll(cube, 2, axis=0), (1, 1, 1)) == 1  # all within 2 mm
    assert surface_dice(cube, np.roll(cube, 2, axis=0), (1.5, 1, 1)) < 1
    # 3 voxels along one axis: of six faces of each cube two have moved by 3, and of the four others a
    # strip of 3 to the nearest edge less the 2 mm that are allowed.
    faces = 6 * 20**2
    wrong = 2 * 20**2 - 4 * 20 * 2 + 4 * 20 * 1  # the rims of the moved faces stay near the sides
    found = surface_dice(cube, np.roll(cube, 3, axis=0), (1, 1, 1))
    assert found == pytest.approx(1 - wrong / faces, abs=0.06)
    assert surface_dice(cube, np.roll(cube, 3, axis=0), (1, 1, 1), 3.1) == 1
    assert surface_dice(cube, blank(), (1, 1, 1)) == 0
    assert surface_dice(blank(), cube, (1, 1, 1)) == 0
    assert math.isnan(surface_dice(blank(), blank(), (1, 1, 1)))
    filled = np.ones((8, 8, 8), bool)  # a mask that fills its volume has a surface all the same
    assert surface_dice(filled, filled, (1, 1, 1)) == 1


def test_tumors_found_and_false_alarms():
    reference = box((2, 12), (2, 12), (2, 12)) | box((20, 24), (20, 24), (20, 24))
    reference |= box((30, 31), (30, 31), (30, 31))
    prediction = box((2, 4), (2, 12), (2, 12))  # a fifth of the first
    prediction |= box((24, 26), (24, 26), (24, 26))  # beside the second, by a corner only
    prediction |= box((35, 37), (35, 37), (35, 37))  # far from all
    figures = evaluate_case(prediction, reference, (1, 1, 1))
    assert [t.found for t in figures.tumors] == [True, False, False]
    assert figures.tumors[0].covered == pytest.approx(0.2)
    assert figures.tumors[0].diameter_mm == pytest.approx((6000 / math.pi) ** (1 / 3))
    assert figures.false_positives == 2
    assert figures.called_positive
    assert figures.has_tumor
    assert figures.reference_mm3 == 1000 + 64 + 1
    strict = evaluate_case(prediction, reference, (1, 1, 1), least_covered=0.2)
    assert [t.found for t in strict.tumors] == [False, False, False]
    assert not evaluate_case(prediction, reference, (1, 1, 1), least_mm3=1000).called_positive


def test_voxels_that_share_a_corner_are_one_tumor():
    reference = box((2, 4), (2, 4), (2, 4)) | box((4, 6), (4, 6), (4, 6))
    figures = evaluate_case(reference, reference, (2, 1, 1))
    assert len(figures.tumors) == 1
    assert figures.tumors[0].diameter_mm == pytest.approx((6 * 32 / math.pi) ** (1 / 3))
    assert (figures.dice, figures.surface_dice, figures.false_positives) == (1, 1, 0)


def test_a_scan_without_tumor():
    clean = evaluate_case(blank(), blank(), (1, 1, 1))
    assert clean.to_dict()["dice"] is None
    assert not clean.called_positive
    alarm = evaluate_case(box((1, 2), (1, 2), (1, 2)), blank(), (1, 1, 1))
    assert (alarm.dice, alarm.surface_dice, alarm.false_positives) == (0, 0, 1)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="shape"):
        evaluate_case(blank(), blank((3, 3, 3)), (1, 1, 1))
    with pytest.raises(ValueError, match="share of a tumor"):
        evaluate_case(blank(), blank(), (1, 1, 1), least_covered=1)


def figures_of(dice_value, found, alarms=0, diameters=None, called=True):
    sizes = diameters or [15.0] * len(found)
    tumors = tuple(TumorFound(d, float(f), f) for d, f in zip(sizes, found, strict=True))
    return CaseFigures(dice_value, dice_value, tumors, alarms, 1.0, 1.0, called)


def test_summary_of_hand_made_cases():
    cases = [
        figures_of(0.8, [True, False], 1, [8.0, 30.0]),
        figures_of(0.6, [True], 0, [20.0]),
        figures_of(0.0, [], 2),  # without tumor, with alarms
        figures_of(math.nan, [], 0, called=False),
    ]
    found = summarize(cases)
    assert found["DSC"].value == pytest.approx(0.7)
    assert found["DSC"].sd == pytest.approx(np.std([0.8, 0.6], ddof=1))
    assert found["DSC"].cases == 2
    assert found["tumor-wise sensitivity"].value == pytest.approx(2 / 3)
    assert found["tumor-wise sensitivity"].count == 3
    assert found["early tumor sensitivity"].value == 1
    assert found["tumor-wise sensitivity, <= 10 mm"].count == 1
    assert found["tumor-wise sensitivity, 10-20 mm"].count == 1
    assert found["tumor-wise sensitivity, > 20 mm"].value == 0
    assert found["false positives per scan"].value == 0.75
    assert found["patient-level sensitivity"].value == 1
    assert found["patient-level specificity"].value == 0.5


def test_scans_of_one_patient_are_drawn_together():
    values = [0.9, 0.9, 0.9, 0.1, 0.1, 0.1]
    together = interval(values, clusters=["a"] * 3 + ["b"] * 3)
    alone = interval(values)
    assert together.value == alone.value == pytest.approx(0.5)
    assert together.high - together.low > alone.high - alone.low
    cases = [figures_of(0.5, [True], called=False), figures_of(0.5, [True], called=True)]
    assert summarize(cases, ["a", "a"])["patient-level sensitivity"].value == 1
    assert summarize(cases, ["a", "b"])["patient-level sensitivity"].value == 0.5


def test_intervals_of_little_data():
    nothing = interval([math.nan])
    assert math.isnan(nothing.value)
    assert nothing.to_dict()["low"] is None
    assert interval([0.7]).method == "one patient"
    assert interval([0.7, 0.7]).method == "no spread"
    all_found = interval([3, 2, 5], [3, 2, 5], proportion=True)
    # The rule of three, nearly: 0.025^(1/10).
    assert (all_found.low, all_found.high) == (pytest.approx(0.025**0.1), 1)
    none_found = interval([0, 0], [4, 6], proportion=True)
    assert (none_found.low, none_found.high) == (0, pytest.approx(1 - 0.025**0.1))
    assert interval([0.2, 0.9, 0.4]) == interval([0.2, 0.9, 0.4])  # the same draws


def test_intervals_cover_the_truth_about_as_often_as_they_say(monkeypatch):
    """25 patients with few tumors each, found with a chance of their own: clustered and skewed."""
    monkeypatch.setattr("difftumor.measuring.metrics.DRAWS", 400)
    rng = np.random.default_rng(7)
    runs, patients = 250, 25
    covered = {"sensitivity": 0, "mean": 0}
    for run in range(runs):
        tumors = rng.integers(1, 5, patients)
        hits = rng.binomial(tumors, rng.beta(4, 1, patients))  # truth 4 / 5
        found = interval(hits, tumors, proportion=True, seed=run)
        covered["sensitivity"] += found.low <= 0.8 <= found.high
        scores = rng.beta(5, 2, patients)  # truth 5 / 7
        found = interval(scores, seed=run)
        covered["mean"] += found.low <= 5 / 7 <= found.high
    # Binomial spread of 250 runs: 0.014; the bootstrap of 25 patients is a little narrow.
    for share in (count / runs for count in covered.values()):
        assert 0.90 <= share <= 0.99
