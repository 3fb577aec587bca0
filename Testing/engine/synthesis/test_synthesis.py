"""Synthesis in a scan: geometry, bit-identity, clear refusals; with a generator that paints 20 HU."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from difftumor.ellipsoids import ellipsoid_mask, rotation_matrix
from difftumor.grids import Grid
from difftumor.parameters import Ellipsoid, SynthesisParameters
from difftumor.synthesis.shapes import TumorShapeError
from difftumor.synthesis.sites import SynthesisError
from difftumor.synthesis.synthesize import (
    Generated,
    blending,
    crop_around,
    lesion_seed,
    shapes_of,
    synthesize,
)


class FlatGenerator:
    """Paints one value everywhere and remembers what it was shown."""

    facts = {"id": "flat", "title": "flat", "sha256": None}
    device_name = "cpu"

    def __init__(self, hu: float = 20.0) -> None:
        self.hu = hu

    def generate(self, hu, mask, parameters, seed, callback):
        self.seen, self.mask, self.seed = hu, mask, seed
        return Generated(np.full(hu.shape, self.hu, np.float32))


def oblique_grid(shape=(90, 80, 40), spacing=(0.9, 1.1, 2.5), rotation=(8, -12, 20)) -> Grid:
    """A left-handed, oblique, anisotropic grid around the origin."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(rotation) * np.array([-1, 1, 1]) * np.asarray(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def noisy_scan(grid: Grid, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 300, grid.shape).astype(np.int16)


def ask(radii=(12.0, 10.0, 8.0), center=(3.0, -4.0, 5.0), rotation=(0.0, 0.0, 0.0), **more):
    return SynthesisParameters(ellipsoid=Ellipsoid(center, radii, rotation), **more)


def test_only_the_feathered_region_changes_and_the_input_never_does():
    grid = oblique_grid()
    scan = noisy_scan(grid)
    before = scan.copy()
    parameters = ask(rotation=(20, 10, 30))
    result = synthesize(scan, grid, None, parameters, FlatGenerator())
    out = result.applied_to(scan)
    assert np.array_equal(scan, before)
    assert out.dtype == scan.dtype
    # Independent bound: the rim is a Gaussian cut at four sigmas in every voxel direction.
    mask = ellipsoid_mask(
        grid, parameters.ellipsoid.center_ras, parameters.ellipsoid.radii_mm, (20, 10, 30)
    )
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(mask.astype(np.float32), 1.5 / grid.spacing, mode="nearest")
    assert np.array_equal(out[weight == 0], scan[weight == 0])
    assert (out[mask] != scan[mask]).mean() > 0.9
    assert np.array_equal(result.full_mask(grid.shape).astype(bool), mask)


def test_blend_keeps_what_lies_beyond_the_window():
    grid = oblique_grid(shape=(60, 60, 60), spacing=(1, 1, 1), rotation=(0, 0, 0))
    scan = np.full(grid.shape, 100, np.int16)
    scan[30, 30, 30] = 900  # calcium: 650 above the window
    result = synthesize(scan, grid, None, ask(center=(0, 0, 0), feather_mm=0.0), FlatGenerator(20))
    out = result.applied_to(scan)
    assert out[30, 30, 30] == 20 + 650
    assert out[30, 30, 31] == 20


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.float64])
def test_voxel_type_is_kept(dtype):
    grid = oblique_grid()
    scan = np.full(grid.shape, 100, dtype)
    out = synthesize(scan, grid, None, ask(), FlatGenerator(40)).applied_to(scan)
    assert out.dtype == dtype
    assert out.min() == pytest.approx(40, abs=1)


def test_mask_volume_is_within_two_percent_of_the_analytic_ellipsoid():
    grid = oblique_grid(shape=(120, 120, 60), spacing=(0.7, 0.7, 1.5))
    result = synthesize(noisy_scan(grid), grid, None, ask(), FlatGenerator())
    facts = result.lesions[0]
    assert facts["volume_mm3"] == pytest.approx(facts["analytic_volume_mm3"], rel=0.02)


def test_the_tumor_is_cut_at_the_organ_and_the_cut_can_be_switched_off():
    grid = oblique_grid()
    organ = np.zeros(grid.shape, bool)
    organ[:45] = True
    clipped = synthesize(noisy_scan(grid), grid, organ, ask(center=(0, 0, 0)), FlatGenerator())
    whole = synthesize(
        noisy_scan(grid), grid, organ, ask(center=(0, 0, 0), clip_to_organ=False), FlatGenerator()
    )
    assert not (clipped.full_mask(grid.shape).astype(bool) & ~organ).any()
    assert clipped.mask.sum() < 0.7 * whole.mask.sum()
    assert clipped.lesions[0]["volume_before_clip_mm3"] == whole.lesions[0]["volume_mm3"]


def test_the_generator_sees_the_scan_at_the_right_place():
    grid = oblique_grid()
    centers = grid.centers()
    scan = (2 * centers[..., 0] - centers[..., 1] + 3 * centers[..., 2]).astype(np.float32)
    generator = FlatGenerator()
    synthesize(scan, grid, None, ask(), generator)
    crop = crop_around(np.array([3.0, -4.0, 5.0]), grid)
    p = crop.centers()
    expected = 2 * p[..., 0] - p[..., 1] + 3 * p[..., 2]
    inside = generator.mask
    assert np.abs(generator.seen - expected)[inside].max() < 0.01
    assert np.array_equal(inside, ellipsoid_mask(crop, (3, -4, 5), (12, 10, 8)))


def test_the_crop_stays_in_the_scan_and_keeps_the_center_on_the_latent_grid():
    grid = oblique_grid(shape=(200, 200, 120), spacing=(1, 1, 1), rotation=(0, 0, 0))
    center = np.array([60.0, 0.0, -45.0])
    crop = crop_around(center, grid)
    index = crop.to_ijk(center)
    assert np.allclose(index % 4, 0)
    low, high = crop.bounds_ras
    assert (low >= grid.bounds_ras[0] - 4).all()
    assert (high <= grid.bounds_ras[1] + 4).all()


def test_same_seed_same_result_and_other_tumors_get_other_noise():
    grid = oblique_grid()
    organ = np.ones(grid.shape, bool)
    parameters = SynthesisParameters(size="small", count=3, organ="kidney", seed=7)
    first, second = (
        synthesize(noisy_scan(grid), grid, organ, parameters, FlatGenerator()) for _ in range(2)
    )
    assert first.lesions == second.lesions
    assert np.array_equal(first.patch, second.patch)
    assert len({facts["noise_seed"] for facts in first.lesions}) == 3
    assert lesion_seed(7, 0) != lesion_seed(8, 0)


def test_thick_slices_and_sheared_grids_work():
    grid = oblique_grid(shape=(100, 100, 20), spacing=(0.8, 0.8, 5.0))
    affine = grid.affine.copy()
    affine[:3, 2] += 0.2 * affine[:3, 1] / np.linalg.norm(affine[:3, 1]) * 5  # gantry tilt
    sheared = Grid(grid.shape, affine)
    for one in (grid, sheared):
        result = synthesize(noisy_scan(one), one, None, ask(center=(0, 0, 0)), FlatGenerator())
        facts = result.lesions[0]
        assert facts["volume_mm3"] == pytest.approx(facts["analytic_volume_mm3"], rel=0.08)


def test_published_pancreas_rule_replaces_the_whole_crop_and_ours_does_not():
    grid = oblique_grid(shape=(140, 140, 140), spacing=(1, 1, 1), rotation=(0, 0, 0))
    scan = noisy_scan(grid)
    ours = synthesize(scan, grid, None, ask(organ="pancreas"), FlatGenerator())
    paper = synthesize(scan, grid, None, ask(organ="pancreas", blend="paper"), FlatGenerator())
    assert (paper.applied_to(scan) != scan).sum() > 0.9 * 96**3
    assert (ours.applied_to(scan) != scan).sum() < 0.1 * 96**3


CT_GRID = oblique_grid()


@pytest.mark.parametrize(
    ("parameters", "organ", "said"),
    [
        (ask(center=(500, 0, 0)), None, "outside the scan"),
        (ask(radii=(0.6, 0.6, 0.6)), None, "at least two"),
        (ask(radii=(50, 10, 10)), None, "at most 84 mm"),
        (ask(center=(-30, 0, 0)), "right", "outside the organ mask"),
        (SynthesisParameters(size="tiny"), None, "needs an organ mask"),
        (SynthesisParameters(size="tiny"), "empty", "needs an organ mask"),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_remedy(parameters, organ, said):
    mask = None
    if organ is not None:
        mask = np.zeros(CT_GRID.shape, bool)
        if organ == "right":
            mask = CT_GRID.centers()[..., 0] > 20
    with pytest.raises((SynthesisError, TumorShapeError), match=said) as caught:
        synthesize(noisy_scan(CT_GRID), CT_GRID, mask, parameters, FlatGenerator())
    assert len(str(caught.value)) > 60  # what, why, and what to do next


def test_a_tumor_partly_outside_the_scan_is_made_and_said():
    edge = tuple(float(v) for v in CT_GRID.to_ras((44, 39, 0)))
    result = synthesize(noisy_scan(CT_GRID), CT_GRID, None, ask(center=edge), FlatGenerator())
    assert "outside the scan" in result.notes[0]
    assert result.mask.any()


def test_thick_slices_alone_are_not_called_outside_the_scan():
    grid = oblique_grid(shape=(60, 60, 21), spacing=(0.8, 0.8, 5.0), rotation=(0, 0, 0))
    for radius in (5.0, 7.5):
        parameters = ask(radii=(radius,) * 3, center=(0, 0, 0))
        result = synthesize(noisy_scan(grid), grid, None, parameters, FlatGenerator())
        assert result.notes == []


@pytest.mark.parametrize("organ", ["liver", "pancreas", "kidney"])
def test_the_published_blend_equals_the_published_formula(organ):
    """On a 1 mm grid aligned with the crop, against `blend_as_published`, which parity proves."""
    grid = oblique_grid(shape=(96, 96, 96), spacing=(1, 1, 1), rotation=(0, 0, 0))
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -48
    grid = Grid(grid.shape, affine)
    rng = np.random.default_rng(0)
    scan = rng.normal(60, 150, grid.shape).astype(np.float32)

    class Noisy(FlatGenerator):
        def generate(self, hu, mask, parameters, seed, callback):
            painted = np.random.default_rng(1).normal(20, 200, hu.shape).astype(np.float32)
            self.painted, self.mask, self.seed = painted, mask, seed
            return Generated(painted)

    generator = Noisy()
    parameters = ask(radii=(12.3, 10.2, 9.1), center=(0, 0, 0), organ=organ, blend="paper")
    ours = synthesize(scan, grid, None, parameters, generator).applied_to(scan)
    sigma = float(np.random.default_rng(generator.seed).uniform(0, 4))
    theirs = blending.from_unit(
        blending.blend_as_published(
            blending.to_unit(scan),
            (generator.painted + 175) / 425,
            generator.mask,
            organ,
            sigma,
        )
    )
    compared = np.zeros(grid.shape, bool)
    compared[6:-6, 6:-6, 6:-6] = True  # our rim ends before the crop does
    if organ != "pancreas":  # outside the rim the scan keeps what lies beyond the window
        compared &= blending.feather_weight(generator.mask, np.ones(3), sigma) > 1e-6
    assert compared.sum() > generator.mask.sum()
    assert np.abs(ours - theirs)[compared].max() < 0.01


def test_a_wide_rim_ends_before_the_crop_does():
    grid = oblique_grid(shape=(160, 160, 160), spacing=(1, 1, 1), rotation=(0, 0, 0))
    scan = np.zeros(grid.shape, np.float32)
    parameters = ask(radii=(41.0,) * 3, center=(0.5, 0.5, 0.5), feather_mm=4.0)
    out = synthesize(scan, grid, None, parameters, FlatGenerator(-100)).applied_to(scan)
    steps = max(np.abs(np.diff(out, axis=axis)).max() for axis in range(3))
    assert steps < 14  # the steepest part of a rim of sigma 4 mm: 100 / (4 sqrt(2 pi)) = 10 HU


def test_stored_shapes_make_the_same_tumors_without_drawing():
    grid = oblique_grid()
    organ = np.ones(grid.shape, bool)
    parameters = SynthesisParameters(size="small", count=2, organ="kidney", seed=7)
    scan = noisy_scan(grid)
    first = synthesize(scan, grid, organ, parameters, FlatGenerator())
    shapes = shapes_of(json.loads(json.dumps(first.lesions)))
    other_seed = replace(parameters, count=None)
    again = synthesize(scan, grid, organ, other_seed, FlatGenerator(), shapes=shapes)
    assert np.array_equal(first.patch, again.patch)
    assert shapes_of([{"shape": "ellipsoid"}]) is None


def test_nan_voxels_near_the_tumor_are_refused():
    scan = noisy_scan(CT_GRID).astype(np.float32)
    scan[45, 40, 20] = np.nan
    with pytest.raises(SynthesisError, match="not numbers"):
        synthesize(scan, CT_GRID, None, ask(center=(0, 0, 0)), FlatGenerator())
