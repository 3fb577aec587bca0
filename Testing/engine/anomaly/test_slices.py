"""Slices of CT and MR as the models see them: places, values, the way back, and what is refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftumor.anomaly.layout import PLANES
from difftumor.anomaly.slices import (
    AnomalyError,
    SliceFormat,
    prepare,
    prepare_ct,
    prepare_mr,
    slice_axis,
)
from difftumor.ellipsoids import ellipsoid_mask, rotation_matrix
from difftumor.grids import Grid
from difftumor.images.mr import CaseError, check_same_geometry

CT = SliceFormat(32, (2.0, 2.0), (-50.0, 150.0))
MR = SliceFormat(48, (2.0, 2.0), None, (0.0, 1.0), ("t1", "t1ce", "t2", "flair"), "MR")


def a_grid(shape=(48, 52, 40), spacing=(1.1, 1.3, 2.0), rotation=(8, -12, 20), signs=(-1, 1, 1)):
    """An oblique, anisotropic grid around the origin, left-handed by default."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(rotation) * np.asarray(signs) * np.asarray(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def a_ball(grid: Grid, center=(0.0, 0.0, 0.0), radius=20.0) -> np.ndarray:
    return ellipsoid_mask(grid, center, (radius,) * 3)


def a_ramp(grid: Grid) -> np.ndarray:
    """An image that is linear in space: linear interpolation and symmetric filters keep it."""
    p = grid.centers()
    return (50 + p[..., 0] - 0.7 * p[..., 1] + 0.4 * p[..., 2]).astype(np.float32)


GRIDS = {
    "upright": a_grid(rotation=(0, 0, 0), signs=(1, 1, 1)),
    "left-handed": a_grid(rotation=(0, 0, 0)),
    "oblique": a_grid(),
    "flipped": a_grid(rotation=(3, 4, -5), signs=(-1, -1, 1)),
    "swapped": Grid((40, 48, 52), a_grid().affine[:, [2, 0, 1, 3]]),
}


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", GRIDS)
def test_pixels_show_the_image_at_their_place_and_the_way_back_returns_it(name, plane):
    grid = GRIDS[name]
    organ = a_ball(grid)
    stack = prepare_ct(a_ramp(grid), grid, organ, CT, plane)
    assert stack.images.shape == (len(stack), 1, 32, 32)
    assert stack.images.dtype == np.float32
    for image, inside, crop in zip(stack.images[:, 0], stack.organ, stack.grids, strict=True):
        p = crop.centers()[:, :, 0]
        expected = (50 + p[..., 0] - 0.7 * p[..., 1] + 0.4 * p[..., 2] + 50) / 200
        # At the organ's rim the mean of its voxels lies a little inwards.
        assert np.abs(image - expected)[inside].max() < 0.01
        assert not image[~inside].any()
    back = stack.to_volume(stack.images[:, 0])
    reached = (back > 0) & organ
    assert reached.sum() > 0.97 * organ.sum()
    assert not back[~organ].any()
    assert np.abs(back * 200 - 50 - a_ramp(grid))[reached].max() < 2.5


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", GRIDS)
def test_the_patient_is_shown_the_same_way_however_the_voxels_run(name, plane):
    grid = GRIDS[name]
    stack = prepare_ct(a_ramp(grid), grid, a_ball(grid), CT, plane)
    normal, rows, columns = PLANES[plane]
    crop = stack.grids[len(stack) // 2]
    step = crop.affine[:3, :3] / np.linalg.norm(crop.affine[:3, :3], axis=0)
    assert step[rows, 0] < -0.9  # to posterior or inferior
    assert step[columns, 1] < -0.9  # to the left, or to posterior
    assert np.abs(step[normal, 2]) > 0.9
    assert np.abs(grid.affine[normal, stack.axis]) > 0.9 * grid.spacing[stack.axis]
    assert crop.spacing[:2] == pytest.approx(CT.spacing_mm)
    assert stack.axis == slice_axis(grid, plane)
    ends = np.asarray(grid.centers()[..., normal])[a_ball(grid)]
    assert ends.min() - 3 < min(stack.positions_mm) < max(stack.positions_mm) < ends.max() + 3


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", GRIDS)
def test_a_bright_spot_comes_back_to_its_place(name, plane):
    grid = GRIDS[name]
    organ = a_ball(grid)
    spot = a_ball(grid, (5.0, -7.0, 4.0), 4.0)
    scan = np.where(spot, 140, 20).astype(np.int16)
    stack = prepare_ct(scan, grid, organ, CT, plane)
    back = stack.to_volume(stack.images[:, 0])
    middle = np.argwhere(back > 0.6 * back.max()).mean(axis=0)
    assert np.linalg.norm(grid.to_ras(middle) - (5.0, -7.0, 4.0)) < 1.0


def test_equal_pixels_and_voxels_are_taken_over_without_interpolation():
    grid = a_grid((30, 34, 12), (2.0, 2.0, 3.0), (0, 0, 0), (-1, -1, 1))
    organ = a_ball(grid, radius=17)
    scan = np.random.default_rng(0).integers(-50, 150, grid.shape).astype(np.int16)
    stack = prepare_ct(scan, grid, organ, CT)
    back = stack.to_volume(stack.images[:, 0])
    inside = np.zeros_like(organ)
    inside[:, :, list(stack.indices)] = organ[:, :, list(stack.indices)]
    assert np.array_equal(np.rint(back * 200 - 50)[inside], scan[inside])


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.floats(0.6, 4.0)] * 3),
    st.sampled_from(list(PLANES)),
)
def test_ones_come_back_as_ones_inside_the_organ(rotation, signs, order, spacing, plane):
    """On every grid: no dark rim, nothing outside the organ, nothing outside the slices."""
    shape = np.ceil(60 / np.asarray(spacing)).astype(int)
    grid = a_grid(tuple(shape.tolist()), spacing, rotation, signs)
    columns = [*order, 3]
    grid = Grid(tuple(np.asarray(grid.shape)[list(order)].tolist()), grid.affine[:, columns])
    organ = a_ball(grid)
    stack = prepare_ct(
        np.where(organ, 50, 60).astype(np.int16) + _checks(grid), grid, organ, CT, plane
    )
    back = stack.to_volume(np.ones(stack.organ.shape))
    assert set(np.unique(back.round(5))) <= {0.0, 1.0}
    assert not back[~organ].any()
    inner = a_ball(grid, radius=20 - 1.5 * max(4.0, *spacing))
    computed = np.isin(np.arange(grid.shape[stack.axis]), stack.indices)
    inner &= np.moveaxis(
        np.broadcast_to(computed, np.moveaxis(inner, stack.axis, 2).shape), 2, stack.axis
    )
    assert back[inner].all()


def _checks(grid: Grid) -> np.ndarray:
    """A few HU of pattern: constant slices are left out."""
    return (np.indices(grid.shape).sum(axis=0) // 3 % 2 * 5).astype(np.int16)


def test_the_crop_follows_the_organ_from_slice_to_slice_or_stays():
    grid = a_grid((80, 80, 20), (1, 1, 3), (0, 0, 0), (1, 1, 1))
    organ = a_ball(grid, (-15, 0, -12), 12) | a_ball(grid, (15, 0, 12), 12)
    scan = a_ramp(grid)
    follows = prepare_ct(scan, grid, organ, CT)
    stays = prepare_ct(scan, grid, organ, replace(CT, centred="volume"))
    field = prepare_ct(scan, grid, organ, replace(CT, centred="field"))
    centers = [np.asarray([g.center_ras[0] for g in s.grids]) for s in (follows, stays, field)]
    assert np.ptp(centers[0]) > 25
    assert np.ptp(centers[1]) == 0
    assert centers[2] == pytest.approx(grid.center_ras[0], abs=0.51)


def test_transposed_models_see_rows_and_columns_swapped():
    grid = GRIDS["oblique"]
    tall = replace(CT, spacing_mm=(2.0, 1.5))
    upright = prepare_ct(a_ramp(grid), grid, a_ball(grid), tall)
    swapped = prepare_ct(
        a_ramp(grid), grid, a_ball(grid), replace(tall, spacing_mm=(1.5, 2.0), transposed=True)
    )
    assert np.array_equal(swapped.images, upright.images.swapaxes(2, 3))
    back = [s.to_volume(s.images[:, 0]) for s in (upright, swapped)]
    assert np.array_equal(*back)


def test_a_large_organ_is_cut_at_the_crop_and_that_is_said():
    grid = a_grid((60, 60, 20), (2, 2, 4), (0, 0, 0), (1, 1, 1))
    organ = np.ones(grid.shape, bool)
    stack = prepare_ct(a_ramp(grid), grid, organ, CT)
    assert any("% of the organ lie outside the 32 x 32 pixels" in note for note in stack.notes)
    shares = [part.stop - part.start for part in stack.box]
    assert shares == [32, 32, 20]


def test_slices_are_voxel_indices_and_the_box_bounds_them():
    grid = GRIDS["swapped"]
    organ = a_ball(grid)
    for plane in PLANES:
        axis = slice_axis(grid, plane)
        middle = grid.shape[axis] // 2
        stack = prepare_ct(a_ramp(grid), grid, organ, CT, plane, (middle, middle + 3))
        assert stack.indices == (middle, middle + 1, middle + 2)
        assert stack.box[axis] == slice(middle, middle + 3)
        whole = stack.to_volume(stack.images[:, 0])
        assert np.array_equal(whole[stack.box], stack.to_box(stack.images[:, 0]))
        whole[stack.box] = 0
        assert not whole.any()


def test_the_range_of_the_model_is_kept():
    grid = GRIDS["oblique"]
    both = replace(CT, intensity_range=(-1.0, 1.0))
    unit = prepare_ct(a_ramp(grid), grid, a_ball(grid), CT)
    signed = prepare_ct(a_ramp(grid), grid, a_ball(grid), both)
    np.testing.assert_allclose(signed.images, 2 * unit.images - 1, atol=1e-6)
    assert unit.units[0, 0] == pytest.approx(200)
    assert signed.units[0, 0] == pytest.approx(100)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(organ=np.zeros((48, 52, 40), bool)), "organ mask is empty"),
        (dict(slices=(0, 99)), "outside the image, which has 40 slices"),
        (dict(slices=(0, 2)), "hold nothing of the organ, which lies in slices"),
        (dict(scan=np.full((48, 52, 40), 30, np.int16)), "one and the same value"),
        (dict(scan=np.full((48, 52, 40), np.nan, np.float32)), "not finite"),
        (dict(scan=np.full((48, 52, 40), -900, np.int16)), "clipped to the model's HU window"),
        (dict(facts=MR), "not made for CT"),
        (dict(facts=replace(CT, window_hu=None)), "no HU window"),
        (dict(facts=replace(CT, spacing_mm=(40.0, 40.0))), "too small for the model"),
    ],
)
def test_bad_ct_input_is_refused_with_what_to_do(change, message):
    grid = GRIDS["oblique"]
    given_ = {"scan": a_ramp(grid), "organ": a_ball(grid), "facts": CT, "slices": None} | change
    with pytest.raises(AnomalyError, match=message) as caught:
        prepare_ct(
            given_["scan"], grid, given_["organ"], given_["facts"], "axial", given_["slices"]
        )
    assert any(word in str(caught.value) for word in ("Choose", "Check", "Replace"))


def test_a_few_bad_slices_are_left_out_and_said():
    grid = a_grid((40, 40, 12), (2, 2, 4), (0, 0, 0), (1, 1, 1))
    scan = a_ramp(grid)
    organ = a_ball(grid)
    scan[:, :, 6] = 30
    organ[:, :, 3] = False
    organ[20, 20, 3] = True
    stack = prepare_ct(scan, grid, organ, CT)
    assert 3 not in stack.indices
    assert 6 not in stack.indices
    assert any("one value only" in note for note in stack.notes)
    assert any("too little of the organ" in note for note in stack.notes)


# ------------------------------------------------------------------------------------------------- MR


def a_head(grid: Grid, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Four skull-stripped sequences of different scales, and the brain."""
    rng = np.random.default_rng(seed)
    brain = a_ball(grid, radius=24)
    images = {}
    for n, name in enumerate(("FLAIR", "T1", "T1ce", "T2")):
        image = 100 * (n + 1) + 10 * a_ramp(grid) + rng.normal(0, 5, grid.shape)
        images[name] = np.where(brain, image, 0).astype(np.float32)
    return images, brain


@pytest.mark.parametrize("plane", PLANES)
def test_sequences_are_ordered_scaled_each_by_itself_and_stripped(plane):
    grid = GRIDS["oblique"]
    images, brain = a_head(grid)
    stack = prepare_mr(images, grid, brain, MR, plane)
    assert stack.images.shape[1:] == (4, 48, 48)
    inside = np.broadcast_to(stack.organ[:, None], stack.images.shape)
    assert not stack.images[~inside].any()
    for channel, name in enumerate(("T1", "T1ce", "T2", "FLAIR")):
        values = stack.images[:, channel][stack.organ]
        assert values.min() >= 0
        assert values.max() <= 1
        low, high = np.percentile(images[name][brain], (1, 99))
        assert stack.units[0, channel] == pytest.approx(high - low, rel=1e-6)
        back = stack.to_volume(stack.images[:, channel])
        assert np.corrcoef(back[brain & (back > 0)], images[name][brain & (back > 0)])[0, 1] > 0.95


def test_each_slice_can_be_scaled_by_itself_as_published():
    grid = GRIDS["upright"]
    images, brain = a_head(grid)
    stack = prepare_mr(images, grid, brain, replace(MR, scaled_by="slice"))
    assert len(np.unique(stack.units[:, 0])) > 5
    assert all(
        image[0][inside].max() > 0.8
        for image, inside in zip(stack.images, stack.organ, strict=True)
    )


def test_all_sequences_of_a_slice_can_be_scaled_together_as_in_paper_b():
    """One minimum and maximum for the slice of all sequences, background included, then 2 v - 1."""
    grid = GRIDS["upright"]
    images, brain = a_head(grid)
    images = {
        name: np.where(brain, image, 0) * (n + 1) for n, (name, image) in enumerate(images.items())
    }
    facts = replace(MR, scaled_by="together", percentiles=(0.0, 100.0), intensity_range=(-1.0, 1.0))
    stack = prepare_mr(images, grid, brain, facts)
    for row, index in enumerate(stack.indices):
        whole = np.stack([image[..., index] for image in images.values()])
        factor = (whole.max() - whole.min()) / 2
        assert stack.units[row] == pytest.approx([factor] * 4)
        assert stack.images[row].min() == -1
        assert stack.images[row].max() <= 1
    peaks = sorted(stack.images.max(axis=(0, 2, 3)))
    assert peaks[-1] > 0.8  # of the brightest sequence
    assert peaks[0] < 0


def test_skull_stripped_images_need_no_mask_and_others_are_told_what_makes_one():
    grid = GRIDS["oblique"]
    images, brain = a_head(grid)
    with_mask = prepare_mr(images, grid, brain, MR)
    without = prepare_mr(images, grid, None, MR)
    assert any("taken as skull-stripped" in note for note in without.notes)
    assert np.array_equal(with_mask.organ, without.organ)
    rng = np.random.default_rng(0)
    scanner = {name: image + rng.normal(20, 5, grid.shape) for name, image in images.items()}
    with pytest.raises(CaseError, match="not skull-stripped") as caught:
        prepare_mr(scanner, grid, None, MR)
    assert "HDBrainExtraction" in str(caught.value)
    assert "SwissSkullStripper" in str(caught.value)


def test_missing_doubled_and_spare_sequences():
    grid = GRIDS["upright"]
    images, brain = a_head(grid)
    three = {name: image for name, image in images.items() if name != "T1ce"}
    with pytest.raises(CaseError, match="t1ce is missing"):
        prepare_mr(three, grid, brain, MR)
    with pytest.raises(CaseError, match="the same sequence"):
        prepare_mr({**images, "t1c": images["T1ce"]}, grid, brain, MR)
    stack = prepare_mr({**images, "dwi": images["T1"]}, grid, brain, MR)
    assert any("dwi is not used" in note for note in stack.notes)


def test_models_of_the_other_modality_are_refused():
    grid = GRIDS["upright"]
    images, brain = a_head(grid)
    with pytest.raises(CaseError, match="made for one CT"):
        prepare(images, grid, brain, CT)
    with pytest.raises(CaseError, match="made for one CT"):
        prepare({"flair": images["FLAIR"]}, grid, brain, CT)
    with pytest.raises(CaseError, match="missing"):
        prepare({"ct": a_ramp(grid)}, grid, brain, MR)
    with pytest.raises(CaseError, match="not for MR"):
        prepare_mr(images, grid, brain, CT)


def test_other_shapes_nan_and_constant_sequences_are_refused():
    grid = GRIDS["upright"]
    images, brain = a_head(grid)
    with pytest.raises(AnomalyError, match=r"not on one grid.*General Registration \(BRAINS\)"):
        prepare_mr({**images, "T2": images["T2"][:-1]}, grid, brain, MR)
    broken = images["T2"].copy()
    broken[20, 20, 20] = np.inf
    with pytest.raises(AnomalyError, match="t2 has values that are not finite"):
        prepare_mr({**images, "T2": broken}, grid, brain, MR)
    with pytest.raises(AnomalyError, match="t2 has one and the same value"):
        prepare_mr({**images, "T2": np.where(brain, 7.0, 0.0)}, grid, brain, MR)
    with pytest.raises(AnomalyError, match="empty"):
        prepare_mr(images, grid, np.zeros(grid.shape, bool), MR)


def test_sequences_of_different_geometry_are_told_apart_and_the_modules_named():
    grid = GRIDS["oblique"]
    nearly = grid.affine.copy()
    nearly[0, 3] += 0.05
    check_same_geometry({"flair": grid, "t1": Grid(grid.shape, nearly)})
    moved = grid.affine.copy()
    moved[0, 3] += 3
    for other in (Grid(grid.shape, moved), Grid((48, 52, 20), grid.affine)):
        with pytest.raises(CaseError, match="flair and t1 have different geometry") as caught:
            check_same_geometry({"flair": grid, "t1": other})
        assert "General Registration (BRAINS)" in str(caught.value)
        assert "Elastix" in str(caught.value)


def test_one_slice_of_a_large_volume_costs_one_slice():
    """Files come in Fortran order, where numpy's `take` copies the whole volume for each slice."""
    grid = a_grid((200, 200, 100), (1, 1, 2), (0, 0, 0), (-1, -1, 1))
    organ = np.asfortranarray(a_ball(grid))
    scan = np.asfortranarray(a_ramp(grid).astype(np.int16))
    tracemalloc.start()
    try:
        for plane in PLANES:
            middle = grid.shape[slice_axis(grid, plane)] // 2
            prepare_ct(scan, grid, organ, CT, plane, (middle, middle + 1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < scan.nbytes / 2
