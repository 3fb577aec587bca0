"""Components, sizes and early-tumor labels on arrays that can be counted by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftumor.grids import Grid
from difftumor.measuring.lesions import (
    EARLY_DIAMETER_MM,
    early_tumor_labels,
    equivalent_diameter_mm,
    label_components,
    largest_component,
    measure_lesions,
)


def flood_fill(mask: np.ndarray, reach: int) -> list[set[tuple[int, ...]]]:
    """Pieces of a mask; neighbors differ by one in at most `reach` coordinates."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    pieces = []
    while left:
        piece, edge = set(), [min(left)]
        while edge:
            here = edge.pop()
            if here not in left:
                continue
            left.remove(here)
            piece.add(here)
            for step in np.ndindex(3, 3, 3):
                move = np.array(step) - 1
                if 0 < np.abs(move).sum() <= reach:
                    edge.append(tuple((np.array(here) + move).tolist()))
        pieces.append(piece)
    return pieces


def block(shape: tuple[int, int, int], size: tuple[int, int, int], start=(0, 0, 0)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def test_faces_edges_and_corners_connect_as_asked():
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[1, 2, 2] = mask[2, 2, 2] = True
    # (0,0,0) and (0,1,1) share an edge, (0,1,1) and (1,2,2) a corner, the last two a face.
    assert [label_components(mask, c)[1] for c in (6, 18, 26)] == [3, 2, 1]
    labels, _ = label_components(mask)
    assert labels.dtype == np.int32
    assert [labels[p] for p in ((0, 0, 0), (0, 1, 1), (1, 2, 2), (2, 2, 2))] == [1, 2, 3, 3]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), connectivity=st.sampled_from([(6, 1), (18, 2), (26, 3)]))
def test_components_are_those_of_a_flood_fill(seed, connectivity):
    mask = np.random.default_rng(seed).random((5, 4, 6)) < 0.3
    name, reach = connectivity
    labels, count = label_components(mask, name)
    found = {frozenset(map(tuple, np.argwhere(labels == n + 1).tolist())) for n in range(count)}
    assert found == {frozenset(piece) for piece in flood_fill(mask, reach)}


def test_any_value_but_zero_belongs_to_the_mask():
    assert label_components(np.array([[[0, 3, -1, 0, 0.5]]]))[1] == 2


def test_empty_mask_has_no_component():
    labels, count = label_components(np.zeros((3, 3, 3)))
    assert count == 0
    assert not labels.any()
    assert not largest_component(np.zeros((2, 2, 2), bool)).any()
    assert largest_component(np.zeros((0, 2, 2), bool)).shape == (0, 2, 2)


def test_the_largest_piece_stays_and_the_first_of_equals():
    mask = block((9, 3, 3), (1, 1, 3)) | block((9, 3, 3), (2, 2, 2), (4, 0, 0))
    np.testing.assert_array_equal(largest_component(mask), block((9, 3, 3), (2, 2, 2), (4, 0, 0)))
    twins = np.array([[[1, 1, 0, 1, 1]]], bool)
    assert largest_component(twins).tolist() == [[[True, True, False, False, False]]]


@pytest.mark.parametrize(
    ("mask", "connectivity", "message"),
    [(np.zeros((3, 3)), 6, "shape"), (np.zeros((3, 3, 3)), 4, "6, 18 or 26")],
)
def test_components_refuse_other_arguments(mask, connectivity, message):
    with pytest.raises(ValueError, match=message):
        label_components(mask, connectivity)


def test_diameter_is_that_of_the_sphere():
    assert equivalent_diameter_mm(4 / 3 * math.pi * 7**3) == pytest.approx(14)
    assert equivalent_diameter_mm(0.0) == 0.0


def test_lesions_are_measured_on_an_oblique_left_handed_grid():
    affine = np.array(
        [[0.0, -2.0, 0.0, 10.0], [-1.0, 0.0, 0.0, 20.0], [0.0, 0.0, -3.0, 30.0], [0, 0, 0, 1]]
    )
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[1:3, 4, 5] = 3
    labels[6:9, 6:9, 6:9] = 1
    first, second = measure_lesions(labels, Grid((10, 10, 10), affine))
    assert (first.label, first.voxels, first.volume_mm3) == (1, 27, pytest.approx(162))
    assert first.equivalent_diameter_mm == pytest.approx((6 * 162 / math.pi) ** (1 / 3))
    assert first.centroid_ras == pytest.approx((10 - 2 * 7, 20 - 7, 30 - 3 * 7))
    assert (second.label, second.voxels) == (3, 2)
    assert second.centroid_ras == pytest.approx((10 - 2 * 4, 20 - 1.5, 30 - 3 * 5))
    assert first.early
    assert json.loads(json.dumps(first.to_dict()))["volume_mm3"] == pytest.approx(162)


def test_a_lesion_is_early_up_to_twenty_millimeters():
    voxel = (math.pi / 6 * EARLY_DIAMETER_MM**3 / 1000) ** (1 / 3)  # 1000 voxels make the limit
    for scale, early in ((0.999, True), (1.001, False)):
        grid = Grid((10, 10, 10), np.diag([voxel * scale] * 3 + [1.0]))
        (lesion,) = measure_lesions(np.ones((10, 10, 10), bool), grid)
        assert lesion.early is early


def test_no_lesion_gives_no_entry():
    assert measure_lesions(np.zeros((2, 2, 2), int), Grid((2, 2, 2), np.eye(4))) == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2, 3), int), "shape"),
        (np.zeros((2, 2, 2)), "integers"),
        (np.full((2, 2, 2), -1), "negative"),
    ],
)
def test_measuring_refuses_other_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        measure_lesions(labels, Grid((2, 2, 2), np.eye(4)))


def training_labels() -> np.ndarray:
    """Organ with tumors of 7, 8, 4188 and 4189 voxels; the last is beyond a radius of 10 mm."""
    labels = np.ones((40, 40, 60), np.uint8)
    labels[0] = 0
    labels[2, 2, 2:9] = 2
    labels[2, 8, 2:10] = 2
    for start, voxels in ((5, 4188), (32, 4189)):
        tumor = np.zeros((20, 20, 20), np.uint8).ravel()
        tumor[:voxels] = 1  # whole rows of a box: one connected piece
        labels[8:28, 15:35, start : start + 20][tumor.reshape(20, 20, 20) > 0] = 2
    return labels


def test_early_labels_keep_eight_voxels_to_ten_millimeters_radius():
    assert 4188 < 4 / 3 * math.pi * 10**3 < 4189
    labels = training_labels()
    before = labels.copy()
    early = early_tumor_labels(labels)
    assert early.dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)
    assert (early == 2).sum() == 8 + 4188
    assert (early[2, 2] == 2).sum() == 0
    assert (early[2, 8] == 2).sum() == 8
    # What does not stay is organ, and nothing else changes.
    assert set(np.unique(early[labels == 2])) == {1, 2}
    np.testing.assert_array_equal(early[labels != 2], labels[labels != 2])


def test_early_labels_count_voxels_but_measure_millimeters():
    labels = training_labels()
    assert (early_tumor_labels(labels, voxel_volume_mm3=0.5) == 2).sum() == 8 + 4188 + 4189
    assert (early_tumor_labels(labels, voxel_volume_mm3=8.0) == 2).sum() == 8


def test_tumors_that_touch_by_an_edge_are_two():
    labels = np.ones((5, 8, 8), int)
    labels[1, 1, 0:4] = labels[2, 2, 0:4] = 2  # 8 voxels, joined by edges only
    assert not (early_tumor_labels(labels) == 2).any()
    labels[1, 2, 3] = 2  # now by a face, 9 voxels
    assert (early_tumor_labels(labels) == 2).sum() == 9


def test_early_labels_take_other_label_numbers():
    labels = np.where(block((4, 4, 4), (1, 1, 3)), 7, 5)
    assert (early_tumor_labels(labels, organ_label=5, tumor_label=7) == 5).all()


def test_labels_without_tumor_stay_as_they_are():
    labels = np.ones((4, 4, 4), np.int16)
    np.testing.assert_array_equal(early_tumor_labels(labels), labels)


@pytest.mark.parametrize("volume", [0.0, -1.0, math.nan])
def test_early_labels_refuse_an_impossible_voxel(volume):
    with pytest.raises(ValueError, match="positive"):
        early_tumor_labels(np.ones((3, 3, 3)), voxel_volume_mm3=volume)
