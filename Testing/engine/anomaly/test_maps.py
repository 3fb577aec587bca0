"""Map kinds, smoothing, scaling, thresholds, gate: small arrays that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from difftumor.anomaly import maps

DARK, BRIGHT, BOTH = (maps.direction_signs(word, 1) for word in ("dark", "bright", "both"))


def planes(*rows) -> np.ndarray:
    """(1, 1, 1, W) from one row of numbers."""
    return np.asarray(rows, np.float32)[None, None]


X = planes([0.2, 0.5, 0.9, 0.4])
HEALTHY = planes([0.6, 0.5, 0.5, 0.3])
UNGUIDED = planes([0.3, 0.4, 0.8, 0.3])


@pytest.mark.parametrize(
    ("kind", "signs", "expected"),
    [
        ("absolute", DARK, [0.4, 0, 0.4, 0.1]),
        ("absolute", BRIGHT, [0.4, 0, 0.4, 0.1]),
        ("one-sided", DARK, [0.4, 0, 0, 0]),
        ("one-sided", BRIGHT, [0, 0, 0.4, 0.1]),
        ("one-sided", BOTH, [0.4, 0, 0.4, 0.1]),
        ("signed", DARK, [0.4, 0, -0.4, -0.1]),
        ("signed", BRIGHT, [-0.4, 0, 0.4, 0.1]),
        ("guided", DARK, [0.3, 0.1, 0, 0]),
        ("guided", BRIGHT, [0, 0, 0.3, 0]),
        ("guided", BOTH, [0.3, 0.1, 0.3, 0]),
    ],
)
def test_each_kind_of_map_on_four_pixels(kind, signs, expected):
    got = maps.difference(kind, X, HEALTHY, UNGUIDED, signs)
    assert got.shape == (1, 1, 4)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-6)


def test_channels_are_added_each_in_its_own_direction():
    x = np.concatenate([X, X], axis=1)
    healthy = np.concatenate([HEALTHY, HEALTHY], axis=1)
    signs = maps.direction_signs("dark, bright", 2)
    got = maps.difference("one-sided", x, healthy, None, signs)
    np.testing.assert_allclose(got[0, 0], [0.4, 0, 0.4, 0.1], atol=1e-6)
    both = maps.difference("absolute", x, healthy, None, signs)
    np.testing.assert_allclose(both[0, 0], [0.8, 0, 0.8, 0.2], atol=1e-6)


def test_directions_are_words_and_refused_with_the_allowed_ones():
    assert maps.direction_signs("hypodense", 3).tolist() == [1, 1, 1]
    for wrong in ("up", "dark,bright", ""):
        with pytest.raises(ValueError, match="allowed dark, bright or both"):
            maps.direction_signs(wrong, 3)


def test_the_guided_map_asks_for_the_unguided_rewriting():
    with pytest.raises(ValueError, match="S = 0"):
        maps.difference("guided", X, HEALTHY, None, DARK)


images = hnp.arrays(np.float32, (2, 2, 5, 6), elements=st.floats(-1, 1, width=32))


@settings(max_examples=40, deadline=None)
@given(images, images, images)
def test_a_perfect_rewriting_gives_an_empty_map_and_kinds_keep_their_order(x, healthy, unguided):
    signs = maps.direction_signs("dark", 2)
    for kind in ("one-sided", "signed", "absolute"):
        assert not maps.difference(kind, x, x, None, signs).any()
    assert not maps.difference("guided", x, healthy, healthy, signs).any()
    one_sided, signed, absolute = (
        maps.difference(kind, x, healthy, unguided, signs)
        for kind in ("one-sided", "signed", "absolute")
    )
    assert (one_sided >= signed - 1e-5).all()
    assert (absolute >= one_sided - 1e-5).all()
    assert (maps.difference("guided", x, healthy, unguided, signs) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 8, 8), elements=st.floats(0, 1, width=32)),
    hnp.arrays(bool, (2, 8, 8)),
    st.floats(0, 6),
)
def test_smoothing_stays_in_the_organ_and_adds_nothing(values, organ, sigma_mm):
    got = maps.smooth(values, organ, sigma_mm, (2.0, 2.0))
    assert not got[~organ].any()
    assert (got >= 0).all()
    for plane, smoothed, inside in zip(values, got, organ, strict=True):
        assert smoothed.sum() <= plane[inside].sum() * (1 + 1e-5) + 1e-6
    if sigma_mm == 0:
        assert np.array_equal(got, np.where(organ, values, 0))


def test_smoothing_is_measured_in_millimeters_of_each_axis():
    point = np.zeros((1, 41, 41), np.float32)
    point[0, 20, 20] = 1
    got = maps.smooth(point, np.ones_like(point, bool), 4.0, (1.0, 2.0))[0]
    rows, columns = np.meshgrid(np.arange(41) - 20, np.arange(41) - 20, indexing="ij")
    for offsets, mm in ((rows, 1.0), (columns, 2.0)):
        width = np.sqrt((got * (mm * offsets) ** 2).sum() / got.sum())
        assert width == pytest.approx(4.0, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 4, 4), elements=st.floats(-2, 2, width=32)),
    st.sampled_from(["slice", "volume", "none"]),
)
def test_scaled_maps_lie_between_zero_and_one_and_keep_the_order(values, how):
    factors = maps.scale_factors(values, how)
    got = maps.scaled(values, factors[:, None, None])
    assert got.min() >= 0
    assert got.max() <= 1
    assert np.isfinite(got).all()
    for plane, result in zip(values, got, strict=True):
        order = np.argsort(plane.ravel(), kind="stable")
        assert (np.diff(result.ravel()[order]) >= -1e-6).all()
        if how == "slice" and plane.max() > 2e-9:
            assert result.max() == pytest.approx(1)
    if how == "volume" and values.max() > 2e-9:
        assert got.max() == pytest.approx(1)


def test_an_empty_map_scales_to_an_empty_map():
    nothing = np.zeros((2, 3, 3), np.float32)
    for how in ("slice", "volume", "none"):
        factors = maps.scale_factors(nothing, how)
        assert not maps.scaled(nothing, factors[:, None, None]).any()


def test_a_map_of_rounding_errors_is_an_empty_map():
    rounding = np.zeros((1, 2, 2), np.float32)
    rounding[0, 0, 0] = 1e-40
    for how in ("slice", "volume"):
        got = maps.scaled(rounding, maps.scale_factors(rounding, how)[:, None, None])
        assert np.isfinite(got).all()
        assert not got.any()
    assert maps.gated(np.ones(1), rounding, 0.5, 0.0).all()


def test_otsu_separates_two_heaps_and_is_guarded_where_there_is_nothing():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.2, 0.03, 400), rng.normal(0.8, 0.03, 100)
    found = maps.otsu_threshold(np.concatenate([low, high]))
    assert low.max() - 0.01 < found < high.min()
    for nothing in (np.zeros(10), np.full((4, 4), 0.3), np.zeros(0)):
        assert maps.otsu_threshold(nothing) is None
    organ = np.ones((2, 1, 4), bool)
    two = np.asarray([[[0, 0, 1, 1]], [[0, 0, 0, 0]]], np.float32)
    found = maps.thresholds(two, organ, "otsu", 0.35, "slice")
    assert 0 < found[0] < 1
    assert found[1] == np.inf
    together = maps.thresholds(two, organ, "otsu", 0.35, "volume")
    assert together[0] == together[1] < 1
    assert maps.thresholds(two, organ, "fixed", 0.35, "slice").tolist() == [0.35, 0.35]


def test_otsu_equals_the_published_one(shared):
    checked = 0
    for path in sorted((shared / "parity" / "anomaly").glob("small64*_pipeline_*.npz")):
        with np.load(path) as stored:
            for key in stored.files:
                if not key.endswith("_otsu") or f"{key[:-5]}_map" not in stored.files:
                    continue
                values = stored[f"{key[:-5]}_map"]
                assert maps.otsu_threshold(values) == pytest.approx(float(stored[key]), rel=1e-4)
                checked += 1
    assert checked > 5


def test_the_gate_empties_healthy_slices_and_faint_maps():
    values = np.zeros((4, 2, 2), np.float32)
    values[0, 0, 0] = values[1, 0, 0] = 0.5
    values[2, 0, 0] = 0.01
    got = maps.gated(np.asarray([0.9, 0.1, 0.9, 0.9]), values, 0.5, 0.05)
    assert got.tolist() == [False, True, True, True]


def test_one_noisy_slice_does_not_make_a_volume_diseased():
    assert maps.volume_probability([0.0] * 10 + [0.9] + [0.0] * 10) == pytest.approx(0.3)
    assert maps.volume_probability([0.1, 0.9, 0.9, 0.9, 0.1]) == pytest.approx(0.9)
    assert maps.volume_probability([0.7]) == pytest.approx(0.7)
    assert maps.volume_probability([0.2, 0.8]) == pytest.approx(0.5)


def test_the_largest_component_is_kept_whole():
    mask = np.zeros((5, 5, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True  # corners connect
    mask[4, 4, 0] = True
    got = maps.largest_component(mask)
    assert got.sum() == 2
    assert got[0, 0, 0]
    assert not maps.largest_component(np.zeros_like(mask)).any()


def test_statistics_of_no_voxels_are_none_and_those_of_some_are_right():
    assert maps.value_statistics(np.zeros(0))["mean"] is None
    facts = maps.value_statistics(np.arange(101, dtype=np.int16))
    assert facts == {"voxels": 101, "mean": 50, "sd": 29.155, "p5": 5, "median": 50, "p95": 95}
