"""What painted slices say of a segmentation: parts that touch them, and outlines that run on beyond them."""

from __future__ import annotations

import numpy as np
import pytest

from difftumor.learning.labels import connected_to, overrun


def test_parts_touch_over_corners():
    found = np.zeros((4, 4, 3), bool)
    found[0, 0, 0] = found[1, 1, 1] = found[3, 3, 2] = True
    painted = np.zeros_like(found)
    painted[0, 0, 0] = True
    kept, left = connected_to(found, painted)
    assert kept.sum() == 2
    assert kept[1, 1, 1]
    assert left == 1


@pytest.mark.parametrize(
    ("areas", "found", "labelled", "expected"),
    [
        # Painted 19, 22, 24 of a tumor 18 mm wide, outlined to 49: the case of a kidney phantom.
        ({19: 160, 22: 266, 24: 190}, range(17, 50), [19, 22, 24], (26, 62.5)),
        ({44: 617, 47: 846, 51: 564}, range(22, 55), [44, 47, 51], (40, 55.0)),
        ({44: 617, 47: 846, 51: 564}, range(37, 55), [44, 47, 51], None),
        ({19: 160, 22: 266, 24: 190}, range(17, 50), [19, 22, 24, 26], None),  # answered already
        # Painted on neighboring slices of a long tumor.
        ({30: 800, 31: 850, 32: 800}, range(24, 39), [30, 31, 32], None),
        ({30: 4}, [*range(20, 30), *range(31, 42)], [30], (31, 27.5)),
        ({}, range(10), [], None),
    ],
)
def test_an_overrun_is_longer_than_the_tumor_is_wide(areas, found, labelled, expected):
    area, is_found, is_labelled = np.zeros(77), np.zeros(77, bool), np.zeros(77, bool)
    area[list(areas)] = list(areas.values())
    is_found[[*found, *areas]] = is_labelled[labelled] = True
    assert overrun(area, is_found, is_labelled, 2.5) == expected
