"""Random tumor shapes: hand-checkable ellipsoids, rules of placement, distributions, replay."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from difftumor.measuring.lesions import equivalent_diameter_mm, label_components
from difftumor.synthesis.shapes import (
    ORGANS,
    REDRAWS,
    SIZES,
    TumorShape,
    TumorShapeError,
    box_center,
    ellipsoid_box,
    lesion_mask,
    sample_center,
    sample_lesion,
    sample_lesions,
    sample_size,
    tumor_mask,
)

STILL = tuple(np.zeros((3, 2, 3, 3)).tolist())


def ball(shape: tuple[int, int, int] = (96, 96, 96), radius: float = 44.0) -> np.ndarray:
    """Ball in the middle of an array, the organ on which the specification's sizes were measured."""
    axes = np.ogrid[tuple(slice(-(n - 1) / 2, n / 2) for n in shape)]
    return sum(a**2 for a in axes) < radius**2


BALL = ball()
SMALL_BALL = ball((40, 40, 40), 15)


def still(center, semi_axes, **options) -> TumorShape:
    return TumorShape(center, semi_axes, STILL, **options)


# ---- one ellipsoid -------------------------------------------------------------------------------


def test_unit_ellipsoid_is_one_voxel_at_twice_its_semi_axis():
    box = ellipsoid_box((1, 1, 1))
    assert box.shape == (4, 4, 4)
    assert np.argwhere(box).tolist() == [[2, 2, 2]]


def test_ellipsoid_of_semi_axes_two_one_one_is_a_rod_of_three_voxels():
    assert np.argwhere(ellipsoid_box((2, 1, 1))).tolist() == [[3, 2, 2], [4, 2, 2], [5, 2, 2]]


def test_the_surface_itself_is_outside():
    box = ellipsoid_box((5, 5, 5))
    assert not box[10 + 3, 10 + 4, 10]  # 9 + 16 = 25
    assert not box[15, 10, 10]
    assert box[14, 10, 10]
    assert box[10 + 2, 10 + 4, 10 + 2]  # 24
    assert ellipsoid_box((2, 2, 2)).sum() == 27


@pytest.mark.parametrize("semi_axes", [(3, 5, 4), (6, 10, 7), (20, 12, 15)])
def test_ellipsoid_equals_the_inequality(semi_axes):
    box = ellipsoid_box(semi_axes)
    assert box.shape == tuple(4 * r for r in semi_axes)
    i, j, k = np.indices(box.shape)
    a, b, c = semi_axes
    # Whole numbers, so that equality is exact.
    value = ((i - 2 * a) * b * c) ** 2 + ((j - 2 * b) * a * c) ** 2 + ((k - 2 * c) * a * b) ** 2
    np.testing.assert_array_equal(box, value < (a * b * c) ** 2)


# ---- paste and clip ------------------------------------------------------------------------------


def test_a_lesion_lies_on_its_center():
    organ = np.ones((20, 20, 20), bool)
    mask = tumor_mask(organ, [still((7, 9, 11), (3, 3, 3))])
    inside = np.argwhere(mask)
    assert inside.mean(axis=0).tolist() == [7, 9, 11]
    assert (inside.min(axis=0).tolist(), inside.max(axis=0).tolist()) == ([5, 7, 9], [9, 11, 13])


def test_a_tight_lesion_loses_its_upper_plane():
    # Five voxels wide, four of which remain; their middle, the third, lies on the center.
    mask, start = lesion_mask(still((10, 10, 10), (3, 3, 3), tight=True))
    assert mask.shape == (4, 4, 4)
    assert start == (8, 8, 8)
    np.testing.assert_array_equal(mask, ellipsoid_box((3, 3, 3))[4:8, 4:8, 4:8])


def test_a_lesion_is_clipped_to_the_organ_or_not():
    organ = np.zeros((20, 20, 20), bool)
    organ[:10] = True
    clipped = tumor_mask(organ, [still((9, 10, 10), (4, 4, 4))])
    free = tumor_mask(organ, [still((9, 10, 10), (4, 4, 4), clip_to_organ=False)])
    assert not clipped[10:].any()
    np.testing.assert_array_equal(clipped, free & organ)
    assert free[10:].any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", ["tiny", "medium", "large"])
def test_pasting_equals_a_padded_canvas(seed, size):
    """DiffTumor adds into a canvas padded by 80 voxels (140 for large), crops and thresholds."""
    rng = np.random.default_rng(seed)
    organ = ball((50, 44, 38), 20)
    lesions = [
        sample_lesion(rng, SIZES[size], tuple(np.argwhere(organ)[rng.integers(1000)].tolist()))
        for _ in range(2)
    ]
    pad = 140 if size == "large" else 80
    canvas = np.zeros([n + 2 * pad for n in organ.shape], np.uint8)
    for lesion in lesions:
        mask, start = lesion_mask(lesion)
        part = tuple(slice(pad + a, pad + a + n) for a, n in zip(start, mask.shape, strict=True))
        canvas[part] += mask
    expected = (canvas[pad:-pad, pad:-pad, pad:-pad] >= 1) & organ
    np.testing.assert_array_equal(tumor_mask(organ, lesions), expected)


def test_crumbs_go_only_on_request_and_for_each_lesion_by_itself():
    organ = np.ones((60, 20, 20), bool)
    organ[[7, 9, 48]] = False  # cuts one lesion in three, the other in two
    lesions = [still((10, 10, 10), (5, 5, 5)), still((50, 10, 10), (5, 5, 5))]
    raw = tumor_mask(organ, lesions)
    clean = tumor_mask(organ, lesions, clean_components=True)
    assert label_components(raw)[1] == 5
    assert label_components(clean)[1] == 2
    for first, last, piece in ((0, 30, slice(10, 15)), (30, 60, slice(49, 55))):
        np.testing.assert_array_equal(clean[piece], raw[piece])
        assert clean[first:last].sum() == clean[piece].sum()


# ---- distributions -------------------------------------------------------------------------------


def draws(size: str, count: int, organ: str = "liver", mask: np.ndarray = BALL, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [sample_lesions(rng, size, mask, organ) for _ in range(count)]


@pytest.mark.parametrize(
    ("size", "semi_axes", "counts", "variance"),
    [
        ("tiny", range(3, 6), {1, 2, 3}, 7 / 12),  # E sigma^2 of U(0.5, 1)
        ("small", range(6, 11), {1, 2, 3}, (1 + 4) / 2),
        ("medium", range(12, 21), {1}, (9 + 16 + 25 + 36) / 4),
        ("large", range(24, 65), {1}, (25 + 36 + 49 + 64 + 81 + 100) / 6),
    ],
)
def test_numbers_are_drawn_from_the_published_ranges(size, semi_axes, counts, variance):
    """1000 lesions; every value within five standard errors of its frequency."""
    rng = np.random.default_rng(3)
    lesions = [sample_lesion(rng, SIZES[size], (0, 0, 0)) for _ in range(1000)]
    axes = np.array([lesion.semi_axes for lesion in lesions])
    chance = 1 / len(semi_axes)
    error = math.sqrt(chance * (1 - chance) / 1000)
    for axis in axes.T:  # each axis by itself
        found = [(axis == value).mean() for value in semi_axes]
        assert sum(found) == pytest.approx(1)
        np.testing.assert_allclose(found, chance, atol=5 * error)
    assert np.abs(np.corrcoef(axes.T) - np.eye(3)).max() < 5 / math.sqrt(1000)
    moves = np.array([lesion.displacements for lesion in lesions])
    assert moves.shape == (1000, 3, 2, 3, 3)
    assert (moves**2).mean() == pytest.approx(variance, rel=0.1)
    # One sigma per lesion; where it is an integer only these values occur.
    sigma = np.sqrt((moves**2).mean(axis=(1, 2, 3, 4)))
    low, high = SIZES[size].sigma
    assert sigma.min() > 0.6 * low
    assert sigma.max() < 1.5 * high
    assert {len(shapes) for shapes in draws(size, 5 if len(counts) == 1 else 30)} == counts


@pytest.mark.parametrize(
    ("size", "count", "organ", "masks", "pieces"),
    [
        ("tiny", 60, "liver", (7.0, 10.5), (6.5, 8.0)),
        ("small", 60, "liver", (15.0, 21.0), (14.5, 17.0)),
        ("medium", 60, "liver", (26.5, 31.0), (26.5, 31.0)),
        ("large", 15, "liver", (54.0, 82.0), None),
        ("large", 15, "kidney", (54.0, 82.0), None),
        ("large", 15, "pancreas", (65.0, 88.0), None),
    ],
)
def test_sizes_on_a_ball_of_44_mm(size, count, organ, masks, pieces):
    """Median equivalent diameters in mm, of the mask and of its pieces above 30 voxels.

    The specification: tiny 7 to 10, small 15 to 18 (the lower figures per piece), medium 28 to 29; large
    not aimed at. Measured here with 120 (large: 60) draws: tiny 9.5 / 7.2, small 19.6 / 15.7, medium 29.4,
    large 67.7 (10 to 90 %: 56 to 84) in a liver, 68.4 in a kidney, 79.5 in a pancreas. The small masks are
    larger than the specification's 18 since two of three hold more than one lesion (19.9 for two
    balls of 15.8). Tolerance: four standard errors of the median of `count` draws.
    """
    whole, single = [], []
    for lesions in draws(size, count, organ, seed=1):
        mask = tumor_mask(BALL, lesions)
        whole.append(equivalent_diameter_mm(mask.sum()))
        sizes = np.bincount(label_components(mask)[0].ravel())[1:]
        single += [equivalent_diameter_mm(n) for n in sizes if n > 30]
    assert masks[0] < np.median(whole) < masks[1]
    if pieces:
        assert pieces[0] < np.median(single) < pieces[1]


def test_training_draws_sizes_with_the_published_chances():
    rng = np.random.default_rng(0)
    sizes = [sample_size(rng) for _ in range(4000)]
    for size, chance in (("tiny", 0.4), ("small", 0.4), ("medium", 0.1), ("large", 0.1)):
        assert sizes.count(size) / 4000 == pytest.approx(chance, abs=0.03)


# ---- places --------------------------------------------------------------------------------------


def eroded(organ: np.ndarray) -> np.ndarray:
    """What is two voxels inside in its slice, by shifting."""
    padded = np.pad(organ, ((2, 2), (2, 2), (0, 0)))
    n, m, _ = organ.shape
    return np.all(
        [padded[i : i + n, j : j + m] for i in range(5) for j in range(5)],
        axis=0,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), organ=st.sampled_from(ORGANS))
def test_centers_lie_in_the_middle_of_the_organ(seed, organ):
    rng = np.random.default_rng(seed)
    mask = ball((30, 30, 41), rng.uniform(8, 18))
    mask = np.roll(mask, rng.integers(-6, 7, 3), axis=(0, 1, 2))
    for lesion in sample_lesions(rng, "tiny", mask, organ):
        x, y, z = lesion.center_voxel
        assert mask[x, y, z]
        heights = np.flatnonzero(mask.any(axis=(0, 1)))
        height = (z - heights[0]) / (heights[-1] - heights[0])
        slack = 0.5 / (heights[-1] - heights[0])
        assert 0.3 - slack <= height <= 0.7 + slack
        if organ == "liver":
            assert eroded(mask)[x, y, z]


def test_all_voxels_of_a_slice_are_equally_likely():
    organ = np.zeros((12, 12, 1), bool)
    organ[1:8, 3:9] = True
    rng = np.random.default_rng(0)
    for inside, expected in ((False, organ), (True, eroded(organ))):
        found = np.zeros(organ.shape)
        for _ in range(2000):
            found[sample_center(rng, organ, inside_edge=inside)] += 1
        assert not found[~expected].any()
        mean = 2000 / expected.sum()
        assert np.abs(found[expected] - mean).max() < 5 * math.sqrt(mean)


def test_an_array_cut_to_the_box_of_the_liver_gives_the_same_centers():
    whole = ball((30, 30, 20), 8)
    low, high = np.argwhere(whole).min(axis=0), np.argwhere(whole).max(axis=0) + 1
    cut = whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    for seed in range(20):
        here = sample_center(np.random.default_rng(seed), cut, inside_edge=True)
        there = sample_center(np.random.default_rng(seed), whole, inside_edge=True)
        assert tuple(low + here) == there


def test_slices_without_a_candidate_widen_the_search():
    organ = np.zeros((12, 12, 101), bool)
    organ[6, 6] = True  # a thread that the erosion removes everywhere ...
    for z in (15, 95, 100):
        organ[2:10, 2:10, z] = True  # ... but for three slices
    rng = np.random.default_rng(0)
    heights = [sample_center(rng, organ, inside_edge=True)[2] for _ in range(500)]
    assert set(heights) == {15, 95, 100}
    # Height 15 is also within 0.1 to 0.9, which gets 10 tries of 1/80 each.
    chance_15 = 1 - (1 - 1 / 80) ** 10
    # Of the rest the outermost height, which U(0, 1) rounds to half as often, gets a fifth.
    rest = 1 - chance_15
    for z, chance in ((15, chance_15 + rest * 2 / 5), (95, rest * 2 / 5), (100, rest / 5)):
        error = math.sqrt(chance * (1 - chance) / 500)
        assert heights.count(z) / 500 == pytest.approx(chance, abs=5 * error)


class ListeningGenerator:
    """A random generator that notes the ranges it is asked for."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.ranges: list[tuple[float, float]] = []

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return self.rng.uniform(low, high)

    def integers(self, *arguments):
        return self.rng.integers(*arguments)

    def choice(self, *arguments, **options):
        return self.rng.choice(*arguments, **options)


def test_heights_are_tried_eleven_ten_and_ten_times():
    organ = np.zeros((9, 9, 101), bool)
    organ[4, 4] = organ[1:8, 1:8, 100] = True
    rng = ListeningGenerator()
    assert sample_center(rng, organ, inside_edge=True)[2] == 100
    assert rng.ranges == [(0.3, 0.7)] * 11 + [(0.2, 0.8)] * 10 + [(0.1, 0.9)] * 10


def test_a_large_pancreas_tumor_lies_on_the_center_of_the_box():
    organ = np.zeros((60, 50, 40), bool)
    organ[5:50, 10:14, 8:30] = organ[5:9, 10:40, 8:30] = True  # an L: the center is not in it
    (lesion,) = sample_lesions(np.random.default_rng(0), "large", organ, "pancreas")
    assert lesion.center_voxel == box_center(organ) == (27, 24, 18)
    assert not organ[lesion.center_voxel]
    assert lesion.tight
    assert lesion.clip_to_organ
    for size, name in (("medium", "pancreas"), ("large", "liver")):
        (other,) = sample_lesions(np.random.default_rng(0), size, BALL, name)
        assert not other.tight


@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize("size", SIZES)
def test_every_second_medium_or_large_kidney_tumor_may_leave_the_organ(organ, size):
    exophytic = organ == "kidney" and size in ("medium", "large")
    count = 40 if exophytic else 6
    lesions = [lesion for shapes in draws(size, count, organ) for lesion in shapes]
    free = sum(not lesion.clip_to_organ for lesion in lesions)
    if exophytic:
        assert free / count == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(count))
    else:
        assert free == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32), organ=st.sampled_from(ORGANS), size=st.sampled_from(list(SIZES)[:3])
)
def test_a_drawn_tumor_is_never_empty_and_clipped_ones_stay_inside(seed, organ, size):
    rng = np.random.default_rng(seed)
    mask = ball((36, 30, 24), rng.uniform(4, 14))
    lesions = sample_lesions(rng, size, mask, organ)
    tumor = tumor_mask(mask, lesions)
    assert tumor.any()
    assert tumor.shape == mask.shape
    assert tumor.dtype == bool
    if all(lesion.clip_to_organ for lesion in lesions):
        assert not (tumor & ~mask).any()
    pieces = [tumor_mask(mask, [lesion]) for lesion in lesions]
    np.testing.assert_array_equal(tumor, np.any(pieces, axis=0))
    clean = tumor_mask(mask, lesions, clean_components=True)
    assert not (clean & ~tumor).any()


def test_a_lesion_that_was_bent_out_of_the_organ_is_drawn_again():
    """Seed 1 draws, as its twelfth, a large kidney tumor that misses a ball of 44 mm."""
    rng = np.random.default_rng(1)
    for _ in range(14):
        assert tumor_mask(BALL, sample_lesions(rng, "large", BALL, "kidney")).any()


# ---- replay --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_numbers_survive_json_and_give_the_same_mask(size):
    lesions = sample_lesions(np.random.default_rng(5), size, BALL, "kidney")
    text = json.dumps([lesion.to_dict() for lesion in lesions])
    again = tuple(TumorShape.from_dict(values) for values in json.loads(text))
    assert again == lesions
    np.testing.assert_array_equal(tumor_mask(BALL, again), tumor_mask(BALL, lesions))


def test_the_seed_decides():
    first, again, other = (
        sample_lesions(np.random.default_rng(seed), "small", BALL, "liver") for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_applying_uses_no_randomness():
    lesions = sample_lesions(np.random.default_rng(5), "medium", BALL, "liver")
    np.random.seed(0)  # noqa: NPY002  the global state must not matter
    first = tumor_mask(BALL, lesions)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(tumor_mask(BALL, lesions), first)


def test_count_can_be_chosen():
    rng = np.random.default_rng(0)
    for count in (1, 4, 20):
        assert len(sample_lesions(rng, "tiny", BALL, "liver", count)) == count


def test_masks_of_zeros_and_ones_are_as_good_as_bool():
    lesions = sample_lesions(np.random.default_rng(2), "small", BALL, "liver")
    for kind in (np.uint8, np.float32, np.int64):
        mask = BALL.astype(kind)
        assert sample_lesions(np.random.default_rng(2), "small", mask, "liver") == lesions
        np.testing.assert_array_equal(tumor_mask(mask, lesions), tumor_mask(BALL, lesions))


def test_slow_axes_of_the_mask_do_not_matter():
    turned = np.asfortranarray(BALL)
    lesions = sample_lesions(np.random.default_rng(2), "small", turned, "liver")
    assert lesions == sample_lesions(np.random.default_rng(2), "small", BALL, "liver")


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((20, 20, 20), bool), "empty"),
        (np.zeros((0, 20, 20), bool), "empty"),
        (np.ones((20, 20), bool), "shape"),
        (np.full((20, 20, 20), 5), "label"),
        (np.full((20, 20, 20), np.nan), "label"),
    ],
)
def test_what_is_no_organ_is_refused(mask, message):
    with pytest.raises(TumorShapeError, match=message):
        sample_lesions(np.random.default_rng(0), "tiny", mask, "liver")
    with pytest.raises(TumorShapeError, match=message):
        tumor_mask(mask, [still((5, 5, 5), (3, 3, 3))])


def test_a_liver_too_thin_for_a_center_is_refused():
    organ = np.zeros((20, 20, 20), bool)
    organ[8:12] = True  # four voxels; the erosion needs five
    with pytest.raises(TumorShapeError, match="too small"):
        sample_lesions(np.random.default_rng(0), "tiny", organ, "liver")
    assert sample_lesions(np.random.default_rng(0), "tiny", organ, "pancreas")


def test_tumors_that_never_meet_the_organ_are_refused(monkeypatch):
    away = still((500, 5, 5), (3, 3, 3))
    monkeypatch.setattr("difftumor.synthesis.shapes.sample_lesion", lambda *_, **__: away)
    with pytest.raises(TumorShapeError, match=f"none of {REDRAWS}"):
        sample_lesions(np.random.default_rng(0), "tiny", SMALL_BALL, "pancreas")


@pytest.mark.parametrize("center", [(-40, 5, 5), (5, 90, 5), (5, 5, 30), (-40, 90, 30)])
@pytest.mark.parametrize("clip", [True, False])
def test_a_lesion_outside_the_array_is_refused(center, clip):
    organ = np.ones((20, 20, 20), bool)
    with pytest.raises(TumorShapeError, match="no voxel"):
        tumor_mask(organ, [still(center, (4, 5, 3), clip_to_organ=clip)])


def test_no_lesion_is_refused():
    with pytest.raises(TumorShapeError, match="no voxel"):
        tumor_mask(SMALL_BALL, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "size"),
        ({"organ": "spleen"}, "organ"),
        ({"count": 0}, "count"),
        ({"count": -3}, "count"),
        ({"count": 1000}, "count"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    given_arguments = {"size": "tiny", "organ": "liver", "organ_mask": BALL} | arguments
    with pytest.raises(TumorShapeError, match=message):
        sample_lesions(np.random.default_rng(0), **given_arguments)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("center_voxel", (1, 2)),
        ("center_voxel", (1.5, 2, 3)),
        ("center_voxel", (True, 2, 3)),
        ("center_voxel", (10**9, 2, 3)),
        ("center_voxel", "far"),
        ("semi_axes", (0, 3, 3)),
        ("semi_axes", (3, 3, 10**6)),
        ("semi_axes", None),
        ("displacements", ()),
        ("displacements", np.zeros((3, 2, 2, 2)).tolist()),
        ("displacements", np.full((3, 2, 3, 3), np.nan).tolist()),
        ("displacements", np.full((3, 2, 3, 3), 1e9).tolist()),
        ("displacements", (((1, 2), 3), 4)),
        ("displacements", "much"),
    ],
)
def test_damaged_numbers_are_refused(field, value):
    good = still((5, 5, 5), (3, 3, 3)).to_dict()
    with pytest.raises(TumorShapeError):
        TumorShape.from_dict({**good, field: value})


def test_unknown_and_missing_fields_are_refused():
    good = still((5, 5, 5), (3, 3, 3)).to_dict()
    with pytest.raises(TumorShapeError):
        TumorShape.from_dict({**good, "color": "red"})
    with pytest.raises(TumorShapeError):
        TumorShape.from_dict({"center_voxel": [1, 2, 3]})


def test_displacements_that_empty_a_lesion_are_no_crash():
    away = tuple(np.full((3, 2, 3, 3), 900.0).tolist())
    for tight in (False, True):
        lesion = replace(still((5, 5, 5), (3, 3, 3), tight=tight), displacements=away)
        assert not lesion_mask(lesion)[0].any()
        with pytest.raises(TumorShapeError, match="no voxel"):
            tumor_mask(SMALL_BALL, [lesion])


def test_bending_rarely_tears_a_lesion():
    """Crumbs exist but are small: nearly all voxels of an unclipped lesion are one piece."""
    rng = np.random.default_rng(4)
    for size in ("tiny", "small", "medium"):
        shares = []
        for _ in range(25):
            mask, _ = lesion_mask(sample_lesion(rng, SIZES[size], (0, 0, 0)))
            sizes = np.bincount(ndimage.label(mask)[0].ravel())[1:]
            shares.append(sizes.max() / sizes.sum())
        assert np.median(shares) == 1.0
