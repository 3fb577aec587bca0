"""Grids: geometry, and carrying values between them, against slow and obvious versions."""

from __future__ import annotations

import time
import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from difftumor.grids import Grid, GridError, crop_grid
from difftumor.images.resampling import covering_box, resample


def affine_of(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), turn_deg=(0.0, 0.0, 0.0), shear=0.0):
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    skew = np.eye(3)
    skew[1, 2] = shear
    affine[:3, :3] = rotation @ skew @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def random_grid(rng: np.random.Generator, shape=None, aligned=False) -> Grid:
    """Any grid: left- or right-handed, oblique, anisotropic, sometimes sheared or with swapped axes."""
    shape = shape or tuple(int(n) for n in rng.integers(1, 14, 3))
    turn = np.zeros(3) if aligned else rng.uniform(-180, 180, 3)
    affine = affine_of(
        rng.uniform(0.4, 4, 3), turn_deg=turn, shear=0 if aligned else rng.choice([0, 0.3])
    )
    affine[:3, :3] = affine[:3, rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine[:3, 3] = rng.uniform(-5, 5, 3) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def slow_resample(array, source, target, order, fill):
    """One voxel at a time: clamp inside the field, `fill` beyond, linear or nearest."""
    result = np.full(target.shape, fill, dtype=np.float64)
    for index in product(*map(range, target.shape)):
        at = np.linalg.inv(source.affine) @ target.affine @ [*index, 1]
        at = at[:3]
        if (at < -0.5).any() or (at > np.array(source.shape) - 0.5).any():
            continue
        at = np.clip(at, 0, np.array(source.shape) - 1)
        if order == 0:
            result[index] = array[tuple(np.floor(at + 0.5).astype(int))]
            continue
        low = np.floor(at).astype(int)
        value = 0.0
        for corner in product((0, 1), repeat=3):
            voxel = np.minimum(low + corner, np.array(source.shape) - 1)
            weights = np.where(corner, at - low, 1 - (at - low))
            value += weights.prod() * array[tuple(voxel)]
        result[index] = value
    return result


def test_a_hand_checkable_linear_crop():
    source = Grid((4, 1, 1), affine_of())
    values = np.array([0.0, 10, 20, 40], dtype=np.float32).reshape(4, 1, 1)
    target = Grid((6, 1, 1), affine_of(origin=(-0.75, 0, 0), spacing=(0.75, 1, 1)))
    # centers at -0.75 | 0 | 0.75 | 1.5 | 2.25 | 3: the first lies beyond the edge at -0.5
    got = resample(values, source, target, order=1, fill=-1)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.ravel(), [-1, 0, 7.5, 15, 25, 40])


def test_the_edge_value_continues_for_half_a_voxel_and_fill_begins_beyond():
    source = Grid((2, 2, 2), affine_of(spacing=(2, 2, 2)))
    values = np.arange(8, dtype=np.int16).reshape(2, 2, 2) + 1
    at_edge = Grid((3, 1, 1), affine_of(origin=(-1.0, 0, 0), spacing=(-0.01, 1, 1)))
    for order in (0, 1):
        got = resample(values, source, at_edge, order=order, fill=-7)
        assert got.ravel().tolist() == [1, -7, -7]
    assert resample(values, source, at_edge, order=0, fill=0).dtype == np.int16


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("order", [0, 1])
def test_resampling_equals_the_slow_version_on_any_pair_of_grids(order, aligned):
    rng = np.random.default_rng(10 * order + aligned)
    overlaps = 0
    for _ in range(40):
        source, target = random_grid(rng, aligned=aligned), random_grid(rng, aligned=aligned)
        array = rng.integers(-1000, 1000, source.shape).astype(np.int16)
        got = resample(array, source, target, order=order, fill=-5000)
        expected = slow_resample(array, source, target, order, -5000)
        overlaps += (expected != -5000).any()
        if order:
            np.testing.assert_allclose(got, expected, atol=0.02)
        else:
            np.testing.assert_array_equal(got, expected)
    assert overlaps >= 20


def test_a_grid_turned_against_the_crop_agrees_with_scipy_over_a_whole_crop():
    rng = np.random.default_rng(0)
    source = Grid((50, 60, 40), affine_of((0.8, 0.9, 2.5), (-10, 5, 30), (20, -35, 70), shear=0.2))
    array = rng.normal(size=source.shape).astype(np.float32)
    target = crop_grid(source.center_ras)
    at = np.moveaxis(source.to_ijk(target.centers()), -1, 0)
    expected = map_coordinates(array, at, order=1, mode="nearest")
    expected[~source.contains(target.centers())] = 9
    np.testing.assert_allclose(
        resample(array, source, target, order=1, fill=9), expected, atol=1e-5
    )


def test_the_same_grid_gives_the_very_same_values():
    rng = np.random.default_rng(1)
    for aligned in (True, False):
        grid = random_grid(rng, (9, 8, 7), aligned=aligned)
        array = rng.normal(size=grid.shape).astype(np.float32)
        np.testing.assert_array_equal(resample(array, grid, grid, order=1), array)
        labels = rng.integers(0, 200, grid.shape).astype(np.uint8)
        np.testing.assert_array_equal(resample(labels, grid, grid, order=0), labels)


def test_a_linear_field_is_exact_on_any_grid():
    rng = np.random.default_rng(2)
    slope = np.array([3.0, -2.0, 5.0])
    for _ in range(20):
        source = random_grid(rng, (12, 12, 12))
        inner = Grid(
            (5, 4, 3), affine_of((0.3, 0.3, 0.3), source.center_ras, rng.uniform(-180, 180, 3))
        )
        got = resample(source.centers() @ slope, source, inner, order=1, fill=np.nan)
        np.testing.assert_allclose(got, inner.centers() @ slope, atol=1e-3)


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.uint16, np.int32, np.float16, np.float64, ">i2"]
)
@pytest.mark.parametrize("turn", [0, 30])
def test_every_voxel_type_passes(dtype, turn):
    source = Grid((6, 6, 6), affine_of())
    array = (np.arange(216).reshape(6, 6, 6) % 2).astype(dtype)
    target = Grid((4, 4, 4), affine_of(origin=(1, 1, 1), turn_deg=(0, 0, turn)))
    nearest = resample(array, source, target, order=0)
    assert nearest.dtype == np.dtype(dtype)
    assert resample(array, source, target, order=1).dtype == np.float32
    if turn == 0:
        np.testing.assert_array_equal(nearest, array[1:5, 1:5, 1:5])


def test_grids_that_do_not_meet_give_only_fill():
    source, far = Grid((5, 5, 5), affine_of()), Grid((3, 3, 3), affine_of(origin=(100, 0, 0)))
    assert (resample(np.ones((5, 5, 5)), source, far, order=1, fill=-1024) == -1024).all()
    assert any(part.start == part.stop for part in covering_box(source, far))
    # Turned by 45 degrees the boxes overlap in a corner although the fields do not meet.
    corner = Grid(
        (10, 10, 1), affine_of(origin=(-5.2, 4.5, 0), turn_deg=(0, 0, 45), spacing=(0.5, 0.5, 1))
    )
    expected = slow_resample(np.ones((5, 5, 5)), source, corner, 1, -1)
    np.testing.assert_allclose(
        resample(np.ones((5, 5, 5)), source, corner, order=1, fill=-1), expected
    )


def test_a_crop_of_a_huge_volume_reads_only_its_own_box():
    plane = np.arange(1024, dtype=np.int16)[:, None, None]
    huge = np.broadcast_to(plane, (1024, 1024, 2000))  # 4.2 GB if it were touched
    for turn in (0, 20):
        source = Grid(huge.shape, affine_of((0.5, 0.5, 0.5), turn_deg=(0, 0, turn)))
        target = crop_grid(source.center_ras)
        tracemalloc.start()
        begin = time.process_time()
        got = resample(huge, source, target, order=1, fill=-1024)
        spent = time.process_time() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 250e6
        assert spent < 10
        expected = source.to_ijk(target.center_ras)[0]
        assert abs(got.mean() - expected) < 0.01


def test_covering_box_holds_every_voxel_whose_center_is_in_the_field():
    rng = np.random.default_rng(3)
    for _ in range(60):
        source, target = random_grid(rng), random_grid(rng)
        inside = source.contains(target.centers())
        box = covering_box(source, target)
        outside = inside.copy()
        outside[box] = False
        assert not outside.any()
        for part, n in zip(covering_box(source, target, margin=2), target.shape, strict=True):
            assert 0 <= part.start <= part.stop <= n


def test_covering_box_is_tight_for_aligned_grids():
    source = Grid((4, 4, 4), affine_of(origin=(3, 3, 3)))  # field 2.5 ... 6.5
    target = Grid((20, 20, 20), affine_of(spacing=(-1, 1, 0.5), origin=(19, 0, 0)))
    assert covering_box(source, target) == (slice(13, 17), slice(3, 7), slice(5, 14))
    assert covering_box(source, target, margin=1)[0] == slice(12, 18)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_points_go_to_ras_and_back(seed):
    rng = np.random.default_rng(seed)
    grid = random_grid(rng)
    ijk = rng.uniform(-50, 50, (4, 2, 3))
    np.testing.assert_allclose(grid.to_ijk(grid.to_ras(ijk)), ijk, atol=1e-8)
    np.testing.assert_allclose(grid.to_ras([0, 0, 0]), grid.affine[:3, 3])


def test_facts_of_a_grid():
    grid = Grid((10, 20, 5), affine_of((0.7, 0.8, 2.5), (1, 2, 3), (10, 20, 30)))
    np.testing.assert_allclose(grid.spacing, [0.7, 0.8, 2.5])
    assert grid.voxel_volume_mm3 == pytest.approx(1.4)
    assert not grid.is_left_handed
    assert Grid((2, 2, 2), affine_of((1, 1, -1))).is_left_handed
    sheared = Grid((10, 20, 5), affine_of((0.7, 0.8, 2.5), shear=0.4))
    assert sheared.voxel_volume_mm3 == pytest.approx(1.4)
    assert sheared.spacing[2] > 2.5
    box = Grid((4, 4, 4), affine_of((-1, 2, 1), (3, 0, 0)))
    np.testing.assert_allclose(box.bounds_ras, [[-0.5, -1, -0.5], [3.5, 7, 3.5]])
    np.testing.assert_allclose(box.center_ras, [1.5, 3, 1.5])
    assert box.contains([3.5, 7, 3.5])
    assert not box.contains([3.51, 7, 3.5])
    assert repr(grid) == "Grid(10 x 20 x 5 voxels of 0.7 x 0.8 x 2.5 mm)"


def test_a_cropped_grid_keeps_its_voxels_in_place():
    grid = random_grid(np.random.default_rng(4), (9, 8, 7))
    box = (slice(2, 6), slice(None), slice(-3, None))
    part = grid.cropped(box)
    assert part.shape == (4, 8, 3)
    np.testing.assert_allclose(part.centers(), grid.centers()[box])
    np.testing.assert_allclose(grid.centers(box), grid.centers()[box])
    with pytest.raises(GridError, match="step 1"):
        grid.cropped((slice(0, 4, 2), slice(None), slice(None)))
    with pytest.raises(GridError, match="at least one voxel"):
        grid.cropped((slice(4, 4), slice(None), slice(None)))


def test_crop_grid_lies_around_its_center_with_axes_along_ras():
    even = crop_grid((10, -20, 30), (4, 4, 4), (1, 2, 3))
    np.testing.assert_allclose(even.center_ras, [10, -20, 30])
    np.testing.assert_allclose(even.to_ras([0, 0, 0]), [8.5, -23, 25.5])
    odd = crop_grid((10, -20, 30), (5, 5, 5))
    np.testing.assert_allclose(odd.to_ras([2, 2, 2]), [10, -20, 30])
    assert crop_grid((0, 0, 0)).shape == (96, 96, 96)
    for center in [(0, 0), (0, 0, np.nan), (np.inf, 0, 0)]:
        with pytest.raises(GridError, match="three finite RAS"):
            crop_grid(center)


def test_same_as_measures_the_largest_shift_of_a_voxel():
    grid = Grid((100, 100, 100), affine_of())
    tilted = Grid((100, 100, 100), affine_of(turn_deg=(0, 0, 1e-3)))  # 1.7e-5 rad * 140 mm
    assert grid.same_as(Grid((100, 100, 100), affine_of(origin=(5e-4, 0, 0))))
    assert not grid.same_as(tilted)
    assert grid.same_as(tilted, tolerance_mm=0.01)
    assert not grid.same_as(Grid((100, 100, 99), affine_of()))


def test_a_grid_cannot_be_changed_and_does_not_share_its_affine():
    affine = affine_of()
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 5
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


BAD_AFFINES = {
    "not finite": affine_of(origin=(np.nan, 0, 0)),
    "one plane": affine_of() * [[1, 1, 0, 1]] + np.outer([1, 0, 0, 0], [0, 0, 1, 0]),
    "outside 0.01 to 100 mm": affine_of((0.001, 0.001, 0.001)),
    "another unit": affine_of((700, 700, 1000)),
    "voxel size of 0 x": affine_of((0, 1, 1)),
    "last row": np.diag([1.0, 1, 1, 2]),
    "4 x 4": np.eye(3),
}


@pytest.mark.parametrize("reason", BAD_AFFINES)
def test_an_affine_that_places_no_voxels_is_refused(reason):
    with pytest.raises(GridError, match=reason):
        Grid((4, 4, 4), BAD_AFFINES[reason])


@pytest.mark.parametrize(
    "shape", [(4, 4), (4, 4, 0), (4, 4, 4, 4), (4, -1, 4), (4, 4.5, 4), (True, 4, 4), ()]
)
def test_a_shape_that_is_no_volume_is_refused(shape):
    with pytest.raises(GridError, match="three axes"):
        Grid(shape, np.eye(4))


def test_resample_names_what_does_not_fit():
    grid = Grid((2, 2, 2), np.eye(4))
    with pytest.raises(ValueError, match=r"\(3, 2, 2\).*\(2, 2, 2\)"):
        resample(np.zeros((3, 2, 2)), grid, grid, order=1)
    with pytest.raises(ValueError, match="order is 0"):
        resample(np.zeros((2, 2, 2)), grid, grid, order=3)
