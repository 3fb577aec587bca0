"""The figures by which anomaly maps are judged, on slices that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.evaluate.anomaly_figures import Slices, dices_35, interval, marks, measure, organ_rule

SIZE = 8


def slices_with_a_lesion(look_alike: bool = False) -> Slices:
    """Two slices of an organ of 36 pixels: a dark lesion of 4, and none; perhaps a darker look-alike in the second."""
    organ = np.zeros((2, SIZE, SIZE), bool)
    organ[:, 1:7, 1:7] = True
    tumor = np.zeros_like(organ)
    tumor[0, 2:4, 2:4] = True
    alike = np.zeros(organ.shape, np.uint8)
    if look_alike:
        alike[1, 4:7, 4:7] = 3
    images = np.where(organ, 0.8, 0.0)
    images[tumor] = 0.5
    images[alike > 0] = 0.1
    return Slices(
        images[:, None].astype(np.float32),
        organ,
        tumor,
        alike,
        np.array([True, False]),
        np.array([0, 1]),
        (2.0, 2.0),
    )


def test_a_perfect_map_gets_full_marks():
    slices = slices_with_a_lesion()
    maps = slices.tumor.astype(np.float32)
    row = measure(maps, slices, np.array([False, True]))
    for figure in ("dice_35", "dice_otsu", "dice_best", "pixel_auroc_organ", "lesions_found"):
        assert row[figure] == 1, figure
    assert row["healthy_marked"] == 0
    assert row["image_auroc_of_map"] == 1
    assert row["lesions"] == 1


def test_a_gated_lesion_counts_as_missed():
    slices = slices_with_a_lesion()
    maps = slices.tumor.astype(np.float32)
    assert dices_35(maps, slices, np.array([True, True])).tolist() == [0.0]


def test_a_map_scaled_slice_by_slice_marks_any_slice_that_is_not_gated():
    slices = slices_with_a_lesion()
    maps = slices.tumor.astype(np.float32)
    maps[1, 3, 3] = 1e-4
    ungated = measure(maps, slices, np.zeros(2, bool))
    assert ungated["healthy_marked"] == 1
    assert measure(maps, slices, np.array([False, True]))["healthy_marked"] == 0


def test_dice_of_half_a_lesion_by_hand():
    slices = slices_with_a_lesion()
    maps = np.zeros(slices.organ.shape, np.float32)
    maps[0, 2:4, 2:3] = 1  # 2 of 4 pixels, nothing else: 2 * 2 / (2 + 4)
    maps[0, 5, 5] = 0.3  # below the threshold
    row = measure(maps, slices, np.zeros(2, bool))
    assert row["dice_35"] == pytest.approx(2 / 3)
    assert row["lesions_found"] == 1  # half of it is more than the quarter that is asked for


def test_the_rule_without_a_network_finds_what_is_dark_look_alikes_too():
    slices = slices_with_a_lesion(look_alike=True)
    maps = organ_rule(slices, [1.0], 0.0)
    assert maps[0][slices.tumor[0]].tolist() == pytest.approx([0.3] * 4)
    assert maps[1].max() == pytest.approx(0.7)
    assert (maps[~slices.organ] == 0).all()
    marked = marks(maps, slices.organ, np.zeros(2, bool))
    assert np.array_equal(marked[0], slices.tumor[0])
    assert np.array_equal(marked[1], slices.look_alikes[1] > 0)
    row = measure(maps, slices, np.zeros(2, bool))
    assert row["healthy_with_look_alikes_marked"] == 1
    assert row["image_auroc_of_map"] == 0


def test_the_rule_reads_bright_channels_too():
    slices = slices_with_a_lesion()
    bright = np.where(slices.organ, 1 - slices.images[:, 0], 0)[:, None]
    both = np.concatenate([slices.images, bright], axis=1).astype(np.float32)
    two = Slices(both, *(getattr(slices, n) for n in list(slices.__dataclass_fields__)[1:]))
    assert organ_rule(two, [0.0, -1.0], 0.0)[0, 2, 2] == pytest.approx(0.3)
    assert organ_rule(two, [1.0, -1.0], 0.0)[0, 2, 2] == pytest.approx(0.6)


def test_intervals_draw_patients_not_slices():
    """Forty slices of two patients: as uncertain as two values, not as forty."""
    values = np.repeat([0.2, 0.8], 20)
    low, high = interval(values, np.repeat([0, 1], 20))
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.8))
    low, high = interval(values, np.arange(40))
    assert 0.35 < low < 0.5 < high < 0.65
