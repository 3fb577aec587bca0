"""The modeling-based baseline: the formula by an independent computation, and the texture's figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from difftumor.synthesis.modelled import (
    COARSE_SIGMAS,
    EXTREME,
    FINE_SIGMAS,
    MODELLED_SIZES,
    ModelledTumor,
    add_modelled_tumors,
    apply_modelled_tumor,
    counted_mean,
    modelled_change,
    sample_modelled_lesions,
    sample_modelled_tumor,
    texture_field,
    trim_box,
)
from difftumor.synthesis.shapes import ORGANS, TumorShapeError

TUMOR = ModelledTumor(
    seed=1,
    coarse_sigma=3.0,
    fine_sigma=4.0,
    base=0.05,
    spread=0.2,
    level=0.52,
    edge_sigma=1.5,
    contrast_hu=100.0,
)


def ball(shape=(48, 44, 40), radius=18.0) -> np.ndarray:
    axes = np.ogrid[tuple(slice(-(n - 1) / 2, n / 2) for n in shape)]
    return sum(a**2 for a in axes) < radius**2


ORGAN = ball()
MASK = np.zeros_like(ORGAN)
MASK[20:29, 18:26, 17:24] = True
CT = np.random.default_rng(0).normal(110, 15, ORGAN.shape).astype(np.float32)


# ---- numbers -------------------------------------------------------------------------------------


def test_numbers_are_drawn_from_the_published_ranges():
    rng = np.random.default_rng(0)
    drawn = [sample_modelled_tumor(rng) for _ in range(1000)]
    for name, low, high in (
        ("base", 0.04, 0.06),
        ("spread", 0.19, 0.21),
        ("level", 0.5, 0.55),
        ("edge_sigma", 1.0, 2.0),
        ("contrast_hu", 65.0, 145.0),
    ):
        values = np.array([getattr(tumor, name) for tumor in drawn])
        assert low <= values.min() < values.max() <= high
        # mean and spread of a uniform variable, within five standard errors
        width = high - low
        assert values.mean() == pytest.approx((low + high) / 2, abs=5 * width / math.sqrt(12e3))
        assert values.std() == pytest.approx(width / math.sqrt(12), rel=0.1)
    for name, choices in (("coarse_sigma", COARSE_SIGMAS), ("fine_sigma", FINE_SIGMAS)):
        values = [getattr(tumor, name) for tumor in drawn]
        assert set(values) == set(choices)
        for value in choices:
            assert values.count(value) / 1000 == pytest.approx(1 / len(choices), abs=0.08)
    assert len({tumor.seed for tumor in drawn}) == 1000


def test_numbers_survive_json():
    tumor = sample_modelled_tumor(np.random.default_rng(3))
    assert ModelledTumor.from_dict(json.loads(json.dumps(tumor.to_dict()))) == tumor
    assert sample_modelled_tumor(np.random.default_rng(3)) == tumor
    assert sample_modelled_tumor(np.random.default_rng(4)) != tumor


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("seed", True),
        ("coarse_sigma", 0.0),
        ("fine_sigma", 1e6),
        ("base", "0.05"),
        ("contrast_hu", math.nan),
        ("level", None),
        ("color", 3),
    ],
)
def test_damaged_numbers_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ModelledTumor.from_dict({**TUMOR.to_dict(), field: value})


# ---- shapes --------------------------------------------------------------------------------------

COUNTS = {"tiny": (3, 10), "small": (3, 10), "medium": (2, 5), "large": (1, 3), "mix": (11, 28)}


@pytest.mark.parametrize("size", COUNTS)
def test_lesions_have_the_published_counts_and_semi_axes(size):
    rng = np.random.default_rng(1)
    drawn = [sample_modelled_lesions(rng, ORGAN, size=size) for _ in range(120)]
    counts = [len(lesions) for lesions in drawn]
    low, high = COUNTS[size]
    if size == "mix":
        assert low <= min(counts) < max(counts) <= high
    else:
        assert set(counts) == set(range(low, high + 1))
    axes = {r for lesions in drawn for lesion in lesions for r in lesion.semi_axes}
    expected = {
        "tiny": set(range(3, 6)),
        "small": set(range(6, 11)),
        "medium": set(range(12, 21)),
        "large": set(range(24, 41)),
    }
    expected["mix"] = set.union(*expected.values())
    assert axes == expected[size]
    assert all(lesion.clip_to_organ for lesions in drawn for lesion in lesions)


def test_a_mix_has_every_size():
    lesions = sample_modelled_lesions(np.random.default_rng(0), ORGAN, size="mix")
    largest = [max(lesion.semi_axes) for lesion in lesions]
    for low, high, least in ((3, 5, 3), (6, 10, 5), (12, 20, 2), (24, 40, 1)):
        assert sum(low <= r <= high for r in largest) >= least


def test_sizes_are_equally_likely(monkeypatch):
    monkeypatch.setattr("difftumor.synthesis.modelled.sample_center", lambda *_, **__: (0, 0, 0))
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(600):
        axes = [
            max(lesion.semi_axes) for lesion in sample_modelled_lesions(rng, ball((9, 9, 9), 4))
        ]
        ends = (min(axes), max(axes))
        sizes.append("mix" if ends[0] <= 5 and ends[1] >= 24 else ends[1])
    kinds = [s if s == "mix" else next(h for h in (5, 10, 20, 40) if s <= h) for s in sizes]
    for kind in ("mix", 5, 10, 20, 40):
        assert kinds.count(kind) / 600 == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize("organ", ORGANS)
def test_centers_lie_in_the_middle_third_and_off_the_edge_of_a_liver(organ):
    rng = np.random.default_rng(2)
    inner = ORGAN[:, :, :]
    heights = np.flatnonzero(trim_box(inner).any(axis=(0, 1)))
    for _ in range(20):
        for lesion in sample_modelled_lesions(rng, ORGAN, organ, "tiny"):
            x, y, z = lesion.center_voxel
            height = (z - heights[0]) / (heights[-1] - heights[0])
            assert 0.3 - 0.02 <= height <= 0.7 + 0.02
            if organ == "liver":
                assert ORGAN[x - 2 : x + 3, y - 2 : y + 3, z].all()


def test_the_box_of_the_organ_loses_a_plane_on_every_side():
    organ = np.zeros((8, 9, 10), bool)
    organ[1:7, 2:8, 3:9] = True
    inner = np.zeros_like(organ)
    inner[2:6, 3:7, 4:8] = True
    np.testing.assert_array_equal(trim_box(organ), inner)


@pytest.mark.parametrize("extent", [(1, 9, 9), (2, 9, 9)])
def test_an_organ_of_two_planes_is_too_small(extent):
    organ = np.zeros((12, 12, 12), bool)
    organ[tuple(slice(1, 1 + n) for n in extent)] = True
    with pytest.raises(TumorShapeError, match="too small"):
        sample_modelled_lesions(np.random.default_rng(0), organ, "kidney", "tiny")


@pytest.mark.parametrize("arguments", [{"size": "huge"}, {"organ": "spleen"}])
def test_unknown_sizes_and_organs_are_refused(arguments):
    with pytest.raises(TumorShapeError, match="must be one of"):
        sample_modelled_lesions(np.random.default_rng(0), ORGAN, **arguments)


# ---- texture -------------------------------------------------------------------------------------


def test_texture_lies_between_zero_and_one_and_the_seed_decides():
    field = texture_field((20, 30, 40), TUMOR)
    assert field.shape == (20, 30, 40)
    assert field.dtype == np.float32
    assert 0 <= field.min() < field.max() <= 1
    np.testing.assert_array_equal(texture_field((20, 30, 40), TUMOR), field)
    assert np.abs(texture_field((20, 30, 40), replace(TUMOR, seed=2)) - field).max() > 0.01


@pytest.mark.parametrize(("coarse", "fine"), [(3.0, 7.0), (9.0, 4.0), (15.0, 7.0)])
def test_texture_has_the_figures_of_a_large_field(coarse, fine):
    """Mean within 5 %, standard deviation within 20 % of the recipe's on the inside of a large field.

    Measured once on fields of 420 x 300 x 320, 60 voxels off their border (base 0.05, spread 0.2):
    standard deviation over mean 0.031 for (3, 7), 0.108 for (9, 4) and 0.095 for (15, 7); the extremes
    of one field vary by a sixth, therefore the tolerance. The mean of a window of 96 has a standard
    deviation of 4 % for the widest Gaussian; eight windows are averaged.
    """
    measured = {(3.0, 7.0): 0.031, (9.0, 4.0): 0.108, (15.0, 7.0): 0.095}[coarse, fine]
    fields = [
        texture_field((96, 96, 96), replace(TUMOR, seed=s, coarse_sigma=coarse, fine_sigma=fine))
        for s in range(100, 108)
    ]
    values = np.stack(fields)
    assert values.mean() == pytest.approx(TUMOR.level, rel=0.05)
    assert values.std() / values.mean() == pytest.approx(measured, rel=0.2)


def test_texture_follows_the_recipe_step_by_step():
    """The recipe by Fourier transforms (a periodic Gaussian is a product there)."""
    shape = (96, 96, 96)
    rng = np.random.Generator(np.random.PCG64(TUMOR.seed))

    def smooth(field, sigma):
        return np.fft.ifftn(ndimage.fourier_gaussian(np.fft.fftn(field), sigma)).real

    noise = rng.random(shape, dtype=np.float32).astype(float)
    coarse = smooth(noise, TUMOR.coarse_sigma)
    # The standard deviation that a Gaussian leaves of white noise: root of its summed squares.
    kernel = smooth(np.eye(1, 96**3).reshape(shape), TUMOR.coarse_sigma)
    deviation = math.sqrt(1 / 12) * math.sqrt((kernel**2).sum())
    low, high = 0.5 - EXTREME * deviation, 0.5 + EXTREME * deviation
    density = TUMOR.base + TUMOR.spread * (coarse - low) / (high - low)
    dots = rng.random(shape, dtype=np.float32) < density
    fine = smooth(dots.astype(float), TUMOR.fine_sigma)
    expected = fine * TUMOR.level / counted_mean(TUMOR)
    field = texture_field(shape, TUMOR)
    # Truncation at four sigmas moves some densities past their random number: a handful of dots.
    assert np.abs(field - expected).max() < 0.02
    assert np.abs(field - expected).mean() < 1e-3


@pytest.mark.parametrize("fine", FINE_SIGMAS)
@pytest.mark.parametrize("coarse", [3.0, 9.0])
@pytest.mark.parametrize(("base", "spread"), [(0.04, 0.19), (0.06, 0.21)])
def test_the_mean_above_the_floor_is_that_of_the_field(coarse, fine, base, spread):
    """The normal approximation of `counted_mean` against counting in four fields, within 3 %."""
    tumor = replace(TUMOR, coarse_sigma=coarse, fine_sigma=fine, base=base, spread=spread)
    scale = tumor.level / counted_mean(tumor)
    unscaled = np.stack(
        [texture_field((96, 96, 96), replace(tumor, seed=s)) / scale for s in range(100, 104)]
    )
    assert unscaled[unscaled > 0.12].mean() == pytest.approx(counted_mean(tumor), rel=0.03)


@pytest.mark.parametrize("fine", FINE_SIGMAS)
def test_dots_of_one_density_are_correlated_like_their_gaussian(fine):
    """Without coarse structure the correlation at distance d is exp(-d^2 / (4 sigma^2))."""
    tumor = replace(TUMOR, fine_sigma=fine, base=0.2, spread=0.0)
    fields = np.stack([texture_field((96, 96, 96), replace(tumor, seed=s)) for s in range(4)])
    fields = fields.astype(float) - fields.mean()
    for axis in (1, 2, 3):
        for distance in (2, 4, 8):
            shifted = np.roll(fields, distance, axis)  # the field is periodic
            found = (fields * shifted).mean() / (fields**2).mean()
            assert found == pytest.approx(math.exp(-(distance**2) / (4 * fine**2)), abs=0.06)


def test_a_field_without_values_above_the_floor_is_no_crash():
    tumor = replace(TUMOR, base=0.01, spread=0.0, fine_sigma=12.0)
    assert counted_mean(tumor) == pytest.approx(0.12)
    assert 0 < texture_field((10, 10, 10), tumor).mean() < 0.1


def test_regions_larger_than_the_smallest_field_are_made_whole():
    assert texture_field((130, 20, 97), TUMOR).shape == (130, 20, 97)


# ---- the formula ---------------------------------------------------------------------------------


def test_change_is_texture_times_contrast():
    change = modelled_change((24, 20, 22), TUMOR)
    np.testing.assert_allclose(change, -100 * texture_field((24, 20, 22), TUMOR), rtol=1e-6)
    assert change.dtype == np.float32


@pytest.mark.parametrize("organ", [None, ORGAN])
def test_the_formula_holds_over_the_whole_scan(organ):
    """CT - texture G(mask) contrast inside the organ, with the softened mask of the whole array."""
    result = apply_modelled_tumor(CT, organ, MASK, TUMOR)
    weight = ndimage.gaussian_filter(MASK.astype(np.float64), TUMOR.edge_sigma)
    if organ is not None:
        weight *= organ
    reach = 4 * 1.5 + 1  # the region: seven voxels around the mask's box
    box = tuple(slice(int(a - reach), int(b + reach)) for a, b in ((20, 29), (18, 26), (17, 24)))
    texture = np.zeros(CT.shape)
    texture[box] = texture_field(tuple(s.stop - s.start for s in box), TUMOR)
    np.testing.assert_allclose(result, CT - texture * weight * 100, atol=1e-3)


def test_nothing_changes_outside_the_organ_and_beyond_the_edge():
    before = CT.copy()
    organ = ORGAN.copy()
    organ[:, :, 20:] = False
    result = apply_modelled_tumor(CT, organ, MASK, TUMOR)
    assert result.dtype == np.float32
    changed = result != CT
    near = ndimage.distance_transform_edt(~MASK) <= 4 * TUMOR.edge_sigma * math.sqrt(3) + 1
    assert changed.any()
    assert not (changed & ~organ).any()
    assert not (changed & ~near).any()
    np.testing.assert_array_equal(CT, before)


def test_the_tumor_is_darker_by_half_the_contrast():
    core = ndimage.binary_erosion(ORGAN, iterations=8)
    result = apply_modelled_tumor(CT, None, ORGAN, TUMOR)
    assert (CT - result)[core].mean() == pytest.approx(0.52 * 100, rel=0.1)
    brighter = apply_modelled_tumor(CT, None, ORGAN, replace(TUMOR, contrast_hu=-40.0))
    assert (CT - brighter)[core].mean() == pytest.approx(-0.52 * 40, rel=0.1)


def test_a_hard_edge_is_possible():
    result = apply_modelled_tumor(CT, None, MASK, replace(TUMOR, edge_sigma=0.0))
    np.testing.assert_array_equal(result[~MASK], CT[~MASK])
    assert (result[MASK] < CT[MASK]).all()


def test_a_mask_at_the_corner_of_the_array():
    mask = np.zeros_like(ORGAN)
    mask[:4, -4:, :4] = True
    result = apply_modelled_tumor(CT, None, mask, TUMOR)
    assert result.shape == CT.shape
    assert (result[mask] < CT[mask]).all()


def test_whole_numbers_are_taken_as_hu():
    scan = np.rint(CT).astype(np.int16)
    result = apply_modelled_tumor(scan, None, MASK, TUMOR)
    expected = apply_modelled_tumor(scan.astype(np.float32), None, MASK, TUMOR)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("organ", ["liver", "kidney"])
def test_random_tumors_replay_and_stay_inside(organ):
    rng = np.random.default_rng(9)
    lesions = sample_modelled_lesions(rng, ORGAN, organ, "tiny")
    tumor = sample_modelled_tumor(rng)
    result, mask = add_modelled_tumors(CT, ORGAN, lesions, tumor)
    again, same = add_modelled_tumors(CT, ORGAN, lesions, tumor)
    np.testing.assert_array_equal(result, again)
    np.testing.assert_array_equal(mask, same)
    assert mask.any()
    assert not (mask & ~trim_box(ORGAN)).any()
    assert (result[mask] < CT[mask]).all()
    np.testing.assert_array_equal(result[~ORGAN], CT[~ORGAN])


@pytest.mark.parametrize(
    ("organ", "mask", "message"),
    [
        (ORGAN[:-1], MASK, "organ mask has shape"),
        (ORGAN, MASK[:-1], "tumor mask has shape"),
        (ORGAN, np.zeros_like(MASK), "no voxel inside the organ"),
        (None, np.zeros_like(MASK), "no voxel"),
        (~MASK, MASK, "no voxel inside the organ"),
    ],
)
def test_masks_that_do_not_fit_are_refused(organ, mask, message):
    with pytest.raises(ValueError, match=message):
        apply_modelled_tumor(CT, organ, mask, TUMOR)


def test_every_size_has_its_rules():
    assert set(MODELLED_SIZES) == set(COUNTS)
