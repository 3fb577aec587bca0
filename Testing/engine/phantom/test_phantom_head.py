"""The head phantom: four sequences of one brain, exact tumor labels, and healthy things that look like tumors."""

import time
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from difftumor.phantom import HEAD_VERSION, HeadPhantom, make_head
from difftumor.phantom.head_lookalikes import HeadLookAlike
from difftumor.phantom.head_sequences import SEQUENCES, Tissue

SPACING = (3.0, 3.0, 3.0)
SEEDS = (3, 4, 5, 6)


@cache
def a_head(seed: int = 3, tumors: int = 1) -> HeadPhantom:
    return make_head(seed, tumors=tumors, spacing_mm=SPACING)


def core(head: HeadPhantom, tissue: Tissue) -> np.ndarray:
    """Voxels of a tissue away from its border, from tumors and from look-alikes."""
    disturbed = ndimage.binary_dilation((head.tumors > 0) | (head.look_alikes > 0), iterations=1)
    mask = (head.tissues == tissue) & ~disturbed
    inner = ndimage.binary_erosion(mask)
    return inner if inner.sum() > 30 else mask


def level(head: HeadPhantom, sequence: str, tissue: Tissue) -> float:
    return float(np.median(head.images[sequence][core(head, tissue)]))


def test_the_same_seed_gives_the_same_bytes():
    first, second = (make_head(5, tumors=2, spacing_mm=(4, 4, 4)) for _ in range(2))
    for name in SEQUENCES:
        assert first.images[name].tobytes() == second.images[name].tobytes(), name
        assert first.clean[name].tobytes() == second.clean[name].tobytes(), name
    for name in ("brain", "tissues", "tumors", "look_alikes"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    assert first.lesions == second.lesions


def test_the_images_are_frozen():
    """Models are trained on these images: whoever changes them raises HEAD_VERSION and these figures."""
    head = make_head(5, tumors=1, spacing_mm=(4, 4, 4))
    assert head.version == HEAD_VERSION == 1
    sums = [int(image.sum()) for image in head.images.values()]
    np.testing.assert_allclose(sums, (16209480, 10295646, 10357246, 8182003), rtol=1e-3)
    assert int((head.tumors > 0).sum()) == pytest.approx(203, abs=2)


def test_another_seed_gives_another_patient_with_another_scale():
    assert np.mean(a_head(3).tissues != a_head(4).tissues) > 0.05
    scales = [np.median(a_head(seed).images["t1"][a_head(seed).brain]) for seed in SEEDS]
    assert max(scales) > 1.5 * min(scales)


def test_arrays_have_the_promised_types_and_one_grid():
    head = a_head()
    assert tuple(head.images) == tuple(head.clean) == SEQUENCES == ("flair", "t1", "t1c", "t2")
    assert head.grid.shape == (53, 69, 53)
    for array in head.images.values():
        assert array.dtype == np.int16
    for array in head.clean.values():
        assert array.dtype == np.float32
    assert head.brain.dtype == bool
    for array in (
        *head.images.values(),
        *head.clean.values(),
        head.brain,
        head.tissues,
        head.tumors,
        head.look_alikes,
    ):
        assert array.shape == head.grid.shape
        assert not array[~head.brain].any()
    assert head.tissues[head.brain].all()


def test_the_brain_is_one_piece_of_plausible_size_inside_the_field_of_view():
    for seed in SEEDS:
        head = a_head(seed)
        assert ndimage.label(head.brain)[1] == 1
        assert 1100 < head.brain.sum() * head.grid.voxel_volume_mm3 / 1000 < 2100
        for axis, side in ((0, 0), (0, -1), (1, 0), (1, -1), (2, -1)):
            assert not head.brain.take(side, axis).any(), "cut by the field of view"


@pytest.mark.parametrize(
    ("sequence", "rising"),
    [
        ("flair", (Tissue.VENTRICLE, Tissue.WHITE)),
        ("t1", (Tissue.VENTRICLE, Tissue.CORTEX, Tissue.STRIATUM, Tissue.WHITE)),
        ("t1c", (Tissue.VENTRICLE, Tissue.CORTEX, Tissue.WHITE)),
        ("t2", (Tissue.WHITE, Tissue.CORTEX, Tissue.VENTRICLE)),
    ],
)
def test_tissues_are_as_bright_as_the_sequence_makes_them(sequence, rising):
    for seed in SEEDS:
        levels = [level(a_head(seed), sequence, tissue) for tissue in rising]
        assert levels == sorted(levels), f"seed {seed}: {levels}"


def test_every_part_of_the_brain_is_there_on_its_place():
    for seed in SEEDS[1:3]:
        head = a_head(seed, 0)
        volume = head.grid.voxel_volume_mm3 / 1000
        ml = {t: (head.tissues == t).sum() * volume for t in Tissue}
        assert 200 < ml[Tissue.WHITE] < 800
        assert 250 < ml[Tissue.CORTEX] < 900
        assert 4 < ml[Tissue.VENTRICLE] < 120
        assert ml[Tissue.STRIATUM] > 4
        assert ml[Tissue.CEREBELLUM] > 40

        def center(tissue, head=head):
            return head.grid.to_ras(np.argwhere(head.tissues == tissue).mean(axis=0))

        assert center(Tissue.CEREBELLUM)[1] < center(Tissue.STEM)[1] < center(Tissue.STRIATUM)[1]
        assert center(Tissue.CEREBELLUM)[2] < -15 < center(Tissue.WHITE)[2]
        assert abs(center(Tissue.WHITE)[0]) < 5


def test_tumor_labels_lie_in_the_brain_and_agree_with_their_facts():
    for seed in SEEDS[:2]:
        head = a_head(seed, 2)
        assert len(head.lesions) == 2
        assert set(np.unique(head.tumors)) <= {0, 1, 2, 3}
        volume = head.grid.voxel_volume_mm3
        for part in (1, 2, 3):
            told = sum(lesion.volumes_mm3[part - 1] for lesion in head.lesions)
            assert told == pytest.approx((head.tumors == part).sum() * volume, rel=0.02, abs=40)
        fluid = head.tissues == Tissue.VENTRICLE
        assert not np.any(fluid & (head.tumors > 0))


def test_tumors_are_bright_in_flair_and_t2_and_dark_in_t1():
    found = 0
    for seed in range(3, 11):
        head = a_head(seed)
        edema = ndimage.binary_erosion(head.tumors == 1)
        if edema.sum() < 30:
            continue
        found += 1
        for sequence, factor in (("flair", 1.25), ("t2", 1.25)):
            assert np.median(head.images[sequence][edema]) > factor * level(
                head, sequence, Tissue.WHITE
            ), (seed, sequence)
        assert np.median(head.images["t1"][edema]) < 0.95 * level(head, "t1", Tissue.WHITE), seed
    assert found >= 4


def test_only_the_enhancing_part_takes_up_contrast_agent():
    gains, kinds = [], set()
    for seed in range(3, 11):
        head = a_head(seed)
        kinds |= {lesion.kind for lesion in head.lesions}
        scale = level(head, "t1c", Tissue.WHITE) / level(head, "t1", Tissue.WHITE)
        for part in (1, 2, 3):
            mask = head.tumors == part
            if mask.sum() < 15:
                continue
            gain = head.clean["t1c"][mask].mean() / head.clean["t1"][mask].mean() / scale
            if part == 3:
                gains.append(gain)
            else:
                assert gain < 1.5, f"seed {seed}, label {part}: {gain}"
    assert min(gains) > 1.25
    assert "diffuse" in kinds
    assert len(kinds) >= 3


def test_a_diffuse_tumor_does_not_enhance():
    for seed in range(3, 11):
        for lesion in a_head(seed).lesions:
            assert (lesion.volumes_mm3[2] == 0) == (
                lesion.kind == "diffuse"
            ) or lesion.radius_mm < 7


def test_look_alikes_are_there_are_no_tumors_and_are_as_bright_as_tumors():
    kinds: set[int] = set()
    flair, enhancing = [], []
    for seed in range(3, 11):
        head = a_head(seed)
        assert not np.any((head.look_alikes > 0) & (head.tumors > 0))
        kinds |= set(np.unique(head.look_alikes).tolist())
        spots = np.isin(
            head.look_alikes, (HeadLookAlike.PERIVENTRICULAR_CAP, HeadLookAlike.WHITE_MATTER_SPOT)
        )
        if spots.sum() > 30:
            flair.append(
                np.percentile(head.clean["flair"][spots], 80) / level(head, "flair", Tissue.WHITE)
            )
        vessels = np.isin(head.look_alikes, (HeadLookAlike.VESSEL, HeadLookAlike.CHOROID_PLEXUS))
        enhancing.append(
            np.percentile(head.clean["t1c"][vessels], 80) / level(head, "t1c", Tissue.WHITE)
        )
    assert kinds == set(HeadLookAlike)
    assert np.median(flair) > 1.3
    assert np.median(enhancing) > 1.25


def test_a_tumor_changes_neither_the_rest_of_the_patient_nor_the_noise():
    without, one = a_head(4, 0), a_head(4, 1)
    far = ~ndimage.binary_dilation(one.tumors > 0, iterations=24)
    assert far[one.brain].mean() > 0.2
    assert np.mean(without.images["t2"][far] == one.images["t2"][far]) > 0.98
    np.testing.assert_array_equal(without.brain, one.brain)


def test_the_same_seed_is_the_same_patient_and_tumor_on_another_grid():
    fine, coarse = (make_head(8, tumors=1, spacing_mm=(s, s, s)) for s in (2, 4))
    assert fine.lesions[0].kind == coarse.lesions[0].kind
    np.testing.assert_allclose(fine.lesions[0].center_ras, coarse.lesions[0].center_ras, atol=3)
    for mask in ("brain", "tumors"):
        volumes = [(getattr(h, mask) > 0).sum() * h.grid.voxel_volume_mm3 for h in (fine, coarse)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.2)


def test_orientation_only_flips_the_arrays():
    ras = make_head(6, tumors=1, spacing_mm=(4, 4, 4))
    lps = make_head(6, tumors=1, spacing_mm=(4, 4, 4), orientation="LPS")
    np.testing.assert_array_equal(lps.images["t1c"][::-1, ::-1], ras.images["t1c"])
    np.testing.assert_array_equal(lps.tumors[::-1, ::-1], ras.tumors)
    np.testing.assert_allclose(np.diag(lps.grid.affine), (-4, -4, 4, 1))
    last = np.array(ras.grid.shape) - 1
    np.testing.assert_allclose(
        lps.grid.to_ras((0, 0, 0)), ras.grid.to_ras((*last[:2], 0)), atol=1e-4
    )


def test_noise_is_switched_off_and_set_by_hand():
    silent = make_head(2, spacing_mm=(4, 4, 4), noise_percent=0)
    loud = make_head(2, spacing_mm=(4, 4, 4), noise_percent=8)
    for name in SEQUENCES:
        np.testing.assert_allclose(silent.images[name], silent.clean[name], atol=0.51)
        np.testing.assert_array_equal(loud.clean[name], silent.clean[name])
    white = loud.tissues == Tissue.WHITE
    cortex = np.median(loud.clean["t1"][loud.tissues == Tissue.CORTEX])
    assert np.std((loud.images["t1"] - loud.clean["t1"])[white]) == pytest.approx(
        0.08 * cortex, rel=0.35
    )


def test_a_head_at_two_millimeters_takes_seconds():
    start = time.process_time()
    make_head(11, tumors=1, spacing_mm=(2, 2, 2))
    assert time.process_time() - start < 8  # 1 to 2 s on an idle core


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"tumors": 9}, "tumors"),
        ({"spacing_mm": (0, 1, 1)}, "spacing_mm"),
        ({"shape": (4, 50, 50)}, "shape"),
        ({"orientation": "RSA"}, "orientation"),
        ({"tumor_radius_mm": (9, 4)}, "tumor_radius_mm"),
        ({"noise_percent": -1}, "noise_percent"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_head(**{"seed": 0, **arguments})


def test_tumors_without_room_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"no room for tumor \d of 8.*ask for fewer or smaller"):
        make_head(0, tumors=8, spacing_mm=(8, 8, 8), tumor_radius_mm=(38, 40))


def test_a_small_field_of_view_is_served():
    head = make_head(0, tumors=1, shape=(24, 20, 8), spacing_mm=(5, 5, 5))
    assert head.images["t2"].shape == (24, 20, 8)
