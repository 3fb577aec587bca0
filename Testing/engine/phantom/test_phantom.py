"""The abdomen phantom: exact labels, plausible HU, CT-like noise, and dark things that are no tumors."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from difftumor.phantom import (
    TEST_SEEDS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    Phantom,
    make_abdomen,
)
from difftumor.phantom.lookalikes import LookAlike
from difftumor.phantom.texture import ct_noise, smooth_field

SPACING = (2.5, 2.5, 2.5)
ORGANS = {
    "spleen": 1, "kidney_right": 2, "kidney_left": 3, "gallbladder": 4, "liver": 5, "stomach": 6, "pancreas": 7,
    "small_bowel": 18, "colon": 20, "aorta": 52, "inferior_vena_cava": 63, "portal_vein_and_splenic_vein": 64,
}  # fmt: skip


@cache
def a_phantom(seed: int = 3, tumors: int = 6) -> Phantom:
    return make_abdomen(seed, tumors=tumors, spacing_mm=SPACING)


def core(phantom: Phantom, label: int) -> np.ndarray:
    """Organ voxels away from its surface, its tumors and its look-alikes."""
    disturbed = ndimage.binary_dilation(
        (phantom.tumors > 0) | (phantom.look_alikes > 0), iterations=2
    )
    return ndimage.binary_erosion(phantom.organs == label) & ~disturbed


def centroid(phantom: Phantom, label: int) -> np.ndarray:
    return phantom.grid.to_ras(np.argwhere(phantom.organs == label).mean(axis=0))


def test_the_same_seed_gives_the_same_bytes():
    first, second = (make_abdomen(5, tumors=3, spacing_mm=(4, 4, 4)) for _ in range(2))
    for name in ("ct", "clean", "organs", "tumors", "look_alikes"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    assert first.lesions == second.lesions


def test_another_seed_gives_another_patient():
    assert np.mean(a_phantom(3).organs != a_phantom(4).organs) > 0.02


def test_arrays_have_the_promised_types_and_one_grid():
    phantom = a_phantom()
    types = {
        "ct": np.int16,
        "clean": np.float32,
        "organs": np.uint8,
        "tumors": np.uint8,
        "look_alikes": np.uint8,
    }
    for name, dtype in types.items():
        assert getattr(phantom, name).dtype == dtype, name
        assert getattr(phantom, name).shape == phantom.grid.shape, name
    assert phantom.grid.shape == (134, 102, 77)
    np.testing.assert_allclose(phantom.grid.center_ras, 0, atol=1e-3)


@pytest.mark.parametrize("name", ORGANS)
def test_every_organ_is_there_in_every_patient(name):
    smallest_ml = {"liver": 700, "spleen": 50, "pancreas": 20, "gallbladder": 8, "aorta": 20}.get(
        name, 12
    )
    for seed in (3, 4, 5):
        phantom = a_phantom(seed)
        volume_ml = (phantom.organs == ORGANS[name]).sum() * phantom.grid.voxel_volume_mm3 / 1000
        assert volume_ml > smallest_ml, f"seed {seed}"


def test_organs_lie_on_their_side_of_the_body():
    phantom = a_phantom()
    assert centroid(phantom, 5)[0] > 20  # liver on the right
    assert centroid(phantom, 1)[0] < -50  # spleen on the left
    assert centroid(phantom, 2)[0] > 30 > -30 > centroid(phantom, 3)[0]
    assert centroid(phantom, 63)[0] > centroid(phantom, 52)[0]  # cava right of the aorta
    assert centroid(phantom, 31)[1] < centroid(phantom, 52)[1]  # vertebra L1 behind it
    assert (
        centroid(phantom, 32)[2] > centroid(phantom, 31)[2] > centroid(phantom, 30)[2]
    )  # T12, L1, L2


def test_ribs_are_counted_from_above():
    phantom = a_phantom()
    for right in (112, 113, 114):  # ribs 9, 10, 11
        assert centroid(phantom, right)[2] > centroid(phantom, right + 1)[2]
        assert centroid(phantom, right)[0] > 0 > centroid(phantom, right - 12)[0]


@pytest.mark.parametrize(
    ("label", "lowest", "highest"),
    [(5, 80, 130), (1, 95, 150), (7, 60, 125), (2, 130, 230), (52, 110, 195)],
)
def test_organs_have_portal_venous_hu(label, lowest, highest):
    for seed in (3, 4, 5):
        phantom = a_phantom(seed)
        assert lowest < np.median(phantom.ct[core(phantom, label)]) < highest, f"seed {seed}"


def test_air_fat_and_bone_are_in_the_picture():
    phantom = a_phantom()
    body = phantom.ct > -500
    assert np.median(phantom.ct[~body]) < -900
    assert 0.05 < np.mean((phantom.clean > -125) & (phantom.clean < -80)) < 0.5
    assert (phantom.clean > 350).sum() * phantom.grid.voxel_volume_mm3 > 1e5
    assert 300 < np.percentile(phantom.clean[phantom.organs == 31], 98) < 900


def test_tumors_lie_inside_their_organ_and_are_numbered():
    phantom = a_phantom()
    assert [lesion.label for lesion in phantom.lesions] == [1, 2, 3, 4, 5, 6]
    assert set(np.unique(phantom.tumors)) == set(range(7))
    assert (
        sorted(lesion.organ for lesion in phantom.lesions)
        == ["kidney"] * 2 + ["liver"] * 2 + ["pancreas"] * 2
    )
    for lesion in phantom.lesions:
        mask = phantom.tumors == lesion.label
        assert np.all(phantom.organs[mask] == lesion.organ_label)
        assert ndimage.label(mask)[1] == 1


def test_facts_of_tumors_are_true():
    phantom = a_phantom()
    for lesion in phantom.lesions:
        mask = phantom.tumors == lesion.label
        np.testing.assert_allclose(
            lesion.center_ras, phantom.grid.to_ras(np.argwhere(mask).mean(axis=0)), atol=0.01
        )
        assert lesion.volume_mm3 == pytest.approx(
            mask.sum() * phantom.grid.voxel_volume_mm3, rel=1e-4
        )
        healthy = phantom.clean[(phantom.organs == lesion.organ_label) & (phantom.tumors == 0)]
        assert lesion.contrast_hu == pytest.approx(
            phantom.clean[mask].mean() - np.median(healthy), abs=0.01
        )


def test_the_volume_of_a_tumor_is_near_its_ellipsoid():
    phantom = make_abdomen(
        8,
        tumors=5,
        spacing_mm=(2, 2, 2),
        tumor_organs=("liver",),
        tumor_radius_mm=(9, 14),
        noise_hu=0,
    )
    ratios = [
        lesion.volume_mm3 / (4 / 3 * np.pi * np.prod(lesion.radii_mm)) for lesion in phantom.lesions
    ]
    # Bumps as wide as the tumor change the volume of one tumor by a fifth or so, in either direction.
    assert 0.75 < np.mean(ratios) < 1.4
    assert 0.4 < min(ratios) < max(ratios) < 1.8
    assert all(8 < np.cbrt(np.prod(lesion.radii_mm)) < 18 for lesion in phantom.lesions)


def test_tumors_are_darker_than_their_organ():
    contrasts = [lesion.contrast_hu for seed in (3, 4, 5) for lesion in a_phantom(seed).lesions]
    assert max(contrasts) < 0
    assert -110 < np.median(contrasts) < -15


def test_one_tumor_more_changes_neither_the_patient_nor_the_noise():
    without, one = (
        a_phantom(4, 0),
        make_abdomen(4, tumors=1, spacing_mm=SPACING, tumor_organs=("liver",)),
    )
    far = ~ndimage.binary_dilation(one.tumors > 0, iterations=6)
    np.testing.assert_array_equal(without.ct[far], one.ct[far])
    np.testing.assert_array_equal(without.organs, one.organs)


def test_look_alikes_are_as_dark_as_tumors_and_outside_the_tumor_map():
    darkest = []
    kinds = set()
    for seed in (3, 4, 5):
        phantom = a_phantom(seed)
        assert not np.any((phantom.look_alikes > 0) & (phantom.tumors > 0))
        liver = np.median(phantom.clean[core(phantom, 5)])
        kinds |= {LookAlike(v) for v in np.unique(phantom.look_alikes) if v}
        darkest.append(
            np.percentile(phantom.clean[phantom.look_alikes == LookAlike.CYST], 20) - liver
        )
    assert {LookAlike.CYST, LookAlike.FAT_CLEFT} <= kinds
    assert len(kinds) >= 3
    assert np.median(darkest) < -20


def test_the_same_seed_is_the_same_patient_on_another_grid():
    fine = a_phantom(3)
    coarse = make_abdomen(3, tumors=0, spacing_mm=(4, 4, 5))
    for label in (1, 2, 3, 5, 52):
        np.testing.assert_allclose(centroid(fine, label), centroid(coarse, label), atol=3.0)
        volumes = [(p.organs == label).sum() * p.grid.voxel_volume_mm3 for p in (fine, coarse)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_orientation_only_flips_the_arrays():
    ras = make_abdomen(6, tumors=2, spacing_mm=(4, 4, 4))
    lps = make_abdomen(6, tumors=2, spacing_mm=(4, 4, 4), orientation="LPS")
    np.testing.assert_array_equal(lps.ct[::-1, ::-1], ras.ct)
    np.testing.assert_allclose(np.diag(lps.grid.affine), (-4, -4, 4, 1))
    assert lps.lesions == ras.lesions
    last = np.array(ras.grid.shape) - 1
    np.testing.assert_allclose(
        lps.grid.to_ras((0, 0, 0)), ras.grid.to_ras((*last[:2], 0)), atol=1e-4
    )


def test_noise_is_switched_off_and_set_by_hand():
    silent = make_abdomen(2, spacing_mm=(4, 4, 4), noise_hu=0)
    np.testing.assert_allclose(silent.ct, silent.clean, atol=0.5)
    loud = make_abdomen(2, spacing_mm=(4, 4, 4), noise_hu=30)
    np.testing.assert_array_equal(loud.clean, silent.clean)
    assert 20 < np.std(loud.ct[loud.organs == 5] - loud.clean[loud.organs == 5]) < 40


def test_noise_spectrum_has_its_peak_off_zero_and_falls_at_high_frequency():
    spacing = np.array((1.0, 1.0, 1.0))
    noise = ct_noise(np.random.default_rng(0), (128, 96, 24), spacing, peak_per_mm=0.22)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    power = np.mean(np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2, axis=2)
    f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(96)[None])
    radial = [power[(f >= a) & (f < a + 0.05)].mean() for a in np.arange(0, 0.7, 0.05)]
    peak = int(np.argmax(radial))
    assert 0.15 <= peak * 0.05 <= 0.25
    assert radial[0] < 0.5 * radial[peak]
    assert radial[-1] < 0.2 * radial[peak]


def test_neighboring_slices_of_the_noise_are_correlated_but_distant_ones_are_not():
    noise = ct_noise(np.random.default_rng(1), (96, 96, 16), np.array((1.0, 1.0, 1.0)))
    correlation = [
        np.corrcoef(noise[..., 4].ravel(), noise[..., 4 + d].ravel())[0, 1] for d in (1, 5)
    ]
    assert 0.2 < correlation[0] < 0.9
    assert abs(correlation[1]) < 0.05


def test_smooth_field_has_unit_variance_and_its_correlation_length():
    axes = tuple(np.arange(64, dtype=np.float32) for _ in range(3))
    field = smooth_field(np.random.default_rng(2), axes, 6.0)
    assert field.std() == pytest.approx(1, abs=0.15)
    near, far = (np.mean(field[:-d] * field[d:]) / field.var() for d in (2, 24))
    assert near > 0.6
    assert abs(far) < 0.2


def test_seeds_of_training_validation_and_test_are_apart():
    assert not set(TRAINING_SEEDS) & set(TEST_SEEDS)
    assert not set(TRAINING_SEEDS) & set(VALIDATION_SEEDS)
    assert not set(VALIDATION_SEEDS) & set(TEST_SEEDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"tumors": 256}, "tumors"),
        ({"spacing_mm": (0, 1, 1)}, "spacing_mm"),
        ({"shape": (4, 50, 50)}, "shape"),
        ({"orientation": "RSA"}, "orientation"),
        ({"tumor_organs": ("spleen",)}, "tumor_organs"),
        ({"tumor_radius_mm": (9, 4)}, "tumor_radius_mm"),
        ({"noise_hu": -1}, "noise_hu"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_abdomen(**{"seed": 0, **arguments})


def test_a_tumor_without_room_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"no room for tumor 1 of 1.*pancreas: ask for fewer"):
        make_abdomen(0, tumors=1, shape=(16, 16, 16), spacing_mm=(4, 4, 4), tumor_radius_mm=(30, 40),
                     tumor_organs=("pancreas",))  # fmt: skip


def test_a_small_field_of_view_is_served():
    phantom = make_abdomen(0, shape=(24, 20, 8), spacing_mm=(5, 5, 5))
    assert phantom.ct.shape == (24, 20, 8)
