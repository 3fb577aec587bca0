"""Measurements of lesions on grids of any orientation, and the working grid of segmentation networks."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftumor.grids import Grid
from difftumor.images.resampling import resample
from difftumor.measuring.tables import (
    longest_axial_diameter,
    measure_rows,
    number_lesions,
    write_table,
)
from difftumor.segmentation.working_grid import grown, needed_voxels, oriented_grid


def grid_of(shape, spacing, flips=(1, 1, 1), order=(0, 1, 2), turn=0.0):
    """Axes in any order and direction, turned about S."""
    linear = np.zeros((3, 3))
    for index, ras in enumerate(order):
        linear[ras, index] = flips[index] * spacing[index]
    c, s = math.cos(turn), math.sin(turn)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ linear
    affine[:3, 3] = (12.0, -40.0, 7.0)
    return Grid(shape, affine)


def ball(grid, center, radius):
    return np.linalg.norm(grid.centers() - np.asarray(center), axis=-1) <= radius


LPS = grid_of((60, 50, 40), (1.0, 1.2, 1.5), flips=(-1, -1, 1))
SAGITTAL = grid_of((40, 60, 50), (1.5, 0.9, 1.0), flips=(1, -1, 1), order=(0, 2, 1))
OBLIQUE = grid_of((60, 60, 40), (1.0, 1.0, 2.0), turn=0.4)


@pytest.mark.parametrize("grid", [LPS, SAGITTAL, OBLIQUE], ids=["LPS", "sagittal", "oblique"])
def test_a_ball_is_measured_in_millimeters(grid):
    center = grid.center_ras
    tumor = ball(grid, center, 9)
    scan = np.where(tumor, 60, 110).astype(np.int16)
    scan[tumor] += np.tile([-5, 5], tumor.sum())[: tumor.sum()].astype(np.int16)
    probability = np.where(tumor, 0.75, 0.1).astype(np.float32)
    (row,) = measure_rows(
        number_lesions(tumor), grid, scan, np.ones(grid.shape, bool), name="liver tumor",
        probability=probability,
    )  # fmt: skip
    assert row.name == "liver tumor 1"
    assert row.volume_mm3 == pytest.approx(4 / 3 * math.pi * 9**3, rel=0.04)
    assert row.equivalent_diameter_mm == pytest.approx(18, abs=0.2)
    assert row.longest_axial_diameter_mm == pytest.approx(18, abs=1.3)
    assert np.linalg.norm(np.subtract(row.position_ras, center)) < 1.5
    assert np.allclose(grid.to_ras(row.voxel), row.position_ras, atol=1e-2)
    assert abs(row.hu_mean - 60) < 0.1
    assert row.hu_sd == pytest.approx(5, abs=0.01)
    assert (row.organ_hu_mean, row.contrast_hu) == (110, pytest.approx(-50, abs=0.1))
    assert row.early
    assert (row.mean_probability, row.max_probability, row.agreement) == (0.75, 0.75, None)


def test_lesions_are_numbered_from_the_largest_and_corners_connect():
    grid = grid_of((30, 30, 30), (1, 1, 1))
    tumors = np.zeros(grid.shape, bool)
    tumors[2:4, 2:4, 2:4] = tumors[4:6, 4:6, 4:6] = True  # touch in a corner: 16 voxels
    tumors[10:16, 10:16, 10:16] = True
    tumors[20, 20, 20] = True
    numbers = number_lesions(tumors)
    assert [int((numbers == n).sum()) for n in (1, 2, 3)] == [216, 16, 1]
    rows = measure_rows(numbers, grid, np.zeros(grid.shape), origin=(100, 200, 300))
    assert [row.number for row in rows] == [1, 2, 3]
    assert rows[2].voxel == (120, 220, 320)
    assert rows[2].axial_index == 320
    assert rows[2].longest_axial_diameter_mm == 1
    assert rows[0].organ_hu_mean is None
    assert rows[0].contrast_hu is None


def test_a_bent_lesion_is_pointed_at_inside():
    grid = grid_of((30, 30, 3), (1, 1, 1))
    ring = ball(grid, grid.center_ras, 12) & ~ball(grid, grid.center_ras, 9)
    (row,) = measure_rows(number_lesions(ring), grid, np.zeros(grid.shape))
    assert ring[row.voxel]


def test_the_diameter_is_the_greatest_of_one_slice_not_of_all():
    grid = grid_of((40, 40, 10), (1.0, 2.0, 3.0))
    voxels = np.array([[5, 5, 0], [15, 5, 0], [5, 20, 1], [5, 25, 1], [30, 30, 9]])
    assert longest_axial_diameter(voxels, grid) == (pytest.approx(10 + 1.5), 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_diameter_of_any_lesion_is_that_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    grid = grid_of((12, 12, 4), (1.0, 0.7, 2.0))
    voxels = np.unique(rng.integers(0, [12, 12, 4], (int(rng.integers(1, 40)), 3)), axis=0)
    expected = 0.0
    for index in np.unique(voxels[:, 2]):
        points = grid.to_ras(voxels[voxels[:, 2] == index])
        expected = max(expected, np.linalg.norm(points[:, None] - points[None], axis=-1).max())
    assert longest_axial_diameter(voxels, grid)[0] == pytest.approx(expected + 0.85)


def test_tables_for_people_and_programs(tmp_path):
    grid = grid_of((20, 20, 20), (1, 1, 1))
    rows = measure_rows(number_lesions(ball(grid, grid.center_ras, 4)), grid, np.ones(grid.shape))
    write_table(rows, tmp_path / "t.csv")
    (line,) = csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8"))
    assert line["name"] == "tumor 1"
    assert float(line["r_mm"]) == rows[0].position_ras[0]
    assert line["organ_hu_mean"] == ""
    write_table(rows, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["lesions"][0]["early"] is True
    write_table([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text().startswith("number,name,volume_mm3")


def test_arrays_of_another_shape_are_refused():
    grid = grid_of((5, 5, 5), (1, 1, 1))
    with pytest.raises(ValueError, match="scan has shape"):
        measure_rows(np.zeros(grid.shape, int), grid, np.zeros((4, 5, 5)))


def test_the_working_grid_is_the_scan_in_ras_order():
    grid = grid_of((40, 60, 50), (3.0, 0.9, 0.8), flips=(1, -1, -1), order=(2, 0, 1))
    working = oriented_grid(grid, (1, 1, 1))
    assert np.allclose(working.affine[:3, :3], np.eye(3))
    assert working.shape == (54, 40, 118)
    # The corner with the least coordinates keeps its center.
    assert np.allclose(working.affine[:3, 3], grid.to_ras([0, 59, 49]))
    same = grid_of((20, 20, 20), (1, 1, 1))
    assert oriented_grid(same, (1, 1, 1)).same_as(same)
    oblique = oriented_grid(OBLIQUE, (1, 1, 1))
    assert np.allclose(oblique.affine[:3, 0], OBLIQUE.affine[:3, 0])


def test_the_working_grid_is_that_of_the_published_pipeline():
    from monai.data import MetaTensor
    from monai.transforms import Orientation, Spacing

    for grid in (LPS, SAGITTAL, grid_of((30, 40, 20), (0.7, 0.7, 5.0), flips=(-1, -1, 1))):
        ramp = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
        image = MetaTensor(ramp[None], affine=grid.affine)
        published = Spacing((1, 1, 1), mode="bilinear")(Orientation("RAS", labels=None)(image))
        working = oriented_grid(grid, (1, 1, 1))
        assert working.shape == tuple(published.shape[1:])
        assert np.allclose(working.affine, published.affine.numpy(), atol=1e-5)
        ours = resample(ramp, grid, working, order=1)
        assert np.abs(ours - published[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("grid", [LPS, SAGITTAL, OBLIQUE], ids=["LPS", "sagittal", "oblique"])
def test_needed_voxels_are_just_those_that_interpolation_reads(grid):
    working = oriented_grid(grid, (1.3, 1.0, 0.9))
    region = ball(grid, np.add(grid.center_ras, (3, -5, 2)), 7)
    needed = needed_voxels(region, grid, working)
    values = np.random.default_rng(0).normal(size=working.shape).astype(np.float32)
    expected = resample(values, working, grid, order=1)[region]
    poisoned = np.where(needed, values, np.float32(1e6))
    assert np.allclose(resample(poisoned, working, grid, order=1)[region], expected, atol=1e-3)
    assert needed.sum() < 8 * region.sum()


def test_on_the_same_grid_no_neighbors_are_needed():
    grid = grid_of((20, 20, 20), (1, 1, 1))
    region = ball(grid, grid.center_ras, 5)
    assert np.array_equal(needed_voxels(region, grid, oriented_grid(grid, (1, 1, 1))), region)


def test_a_grown_mask_reaches_in_millimeters():
    grid = grid_of((40, 40, 20), (1.0, 1.0, 3.0))
    mask = np.zeros(grid.shape, bool)
    mask[20, 20, 10] = True
    found = grown(mask, grid, 6)
    assert np.array_equal(found, ball(grid, grid.to_ras([20, 20, 10]), 6.0001))
