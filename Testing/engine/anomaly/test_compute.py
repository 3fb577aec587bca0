"""The whole way from images to maps: places, caches, cancel, gate, bad input.

Most tests use a model that "heals" by arithmetic, so that the right map is known; some the tiny networks.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difftumor.anomaly.compute import AnomalyError, compute_anomaly
from difftumor.anomaly.model import load_anomaly_model
from difftumor.anomaly.rewriting import Store, in_words, size_of
from difftumor.anomaly.slices import SliceFormat, slice_axis
from difftumor.diffusion.schedules import linear_betas, respace
from difftumor.ellipsoids import ellipsoid_mask, rotation_matrix
from difftumor.grids import Grid
from difftumor.images.mr import CaseError
from difftumor.parameters import AnomalyParameters
from difftumor.worker.protocol import Cancelled
from Testing.healing_model import CT, HealingModel
from Testing.tiny_anomaly import write_tiny_model

MR = SliceFormat(32, (2.0, 2.0), None, (0.0, 1.0), ("t1", "flair"), "MR")


def a_grid(shape=(40, 44, 36), spacing=(1.1, 1.3, 1.9), rotation=(8, -12, 20), signs=(-1, 1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(rotation) * np.asarray(signs) * np.asarray(spacing)
    affine[:3, 3] = [30, -20, 10] - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def a_case(grid=None, spot=(33.0, -16.0, 13.0), radius=4.0):
    """A CT of 90 HU with some grain, a bright ball, and a round organ."""
    grid = grid or a_grid()
    rng = np.random.default_rng(0)
    scan = np.full(grid.shape, 80, np.int16) + rng.integers(-4, 5, grid.shape).astype(np.int16)
    if spot is not None:
        scan[ellipsoid_mask(grid, spot, (radius,) * 3)] = 190
    organ = ellipsoid_mask(grid, (30.0, -20.0, 10.0), (18.0,) * 3)
    return scan, grid, organ


def run(model=None, case=None, cache=None, **wishes):
    scan, grid, organ = case or a_case()
    more = {key: wishes.pop(key) for key in ("callback", "on_partial") if key in wishes}
    parameters = AnomalyParameters(**{"noise_level": 100, "smoothing_mm": 0.0} | wishes)
    return compute_anomaly(
        {"ct": scan}, grid, organ, parameters, model or HealingModel(), cache=cache, **more
    )


GRIDS = {
    "upright": a_grid(rotation=(0, 0, 0), signs=(1, 1, 1)),
    "left-handed": a_grid(rotation=(0, 0, 0)),
    "oblique": a_grid(),
    "strongly oblique": a_grid(rotation=(25, -20, 35), signs=(1, -1, 1)),
    "anisotropic": a_grid((60, 60, 14), (0.8, 0.8, 5.0), (3, 4, -5), (-1, -1, 1)),
    "swapped": Grid((36, 40, 44), a_grid().affine[:, [2, 0, 1, 3]]),
}


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_bright_voxel_of_the_input_lights_up_the_same_place(name, plane):
    grid = GRIDS[name]
    scan, _, organ = a_case(grid, spot=None)
    voxel = tuple(np.rint(grid.to_ijk((34.0, -16.0, 12.0))).astype(int).tolist())
    scan[voxel] = 3000
    at = voxel[slice_axis(grid, plane)]
    model = HealingModel(replace(CT, spacing_mm=(1.0, 1.0), image_size=64))
    result = run(
        model, (scan, grid, organ), plane=plane, slices=(max(at - 2, 0), at + 3), gate=False
    )
    peak = np.unravel_index(result.map.argmax(), grid.shape)
    assert peak == voxel
    marked = grid.to_ras(np.argwhere(result.scaled_map > 0.35))
    assert np.linalg.norm(marked - grid.to_ras(voxel), axis=1).max() <= 1.5 * max(grid.spacing)
    assert result.mask[voxel]
    assert result.map.shape == grid.shape
    assert not result.map[~organ].any()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("name", GRIDS)
def test_marks_cover_the_spot_in_every_plane(name, plane):
    grid = GRIDS[name]
    scan, _, organ = a_case(grid)
    spot = ellipsoid_mask(grid, (33.0, -16.0, 13.0), (4.0,) * 3)
    result = run(case=(scan, grid, organ), plane=plane)
    mask = result.mask
    assert 2 * (mask & spot).sum() / (mask.sum() + spot.sum()) > 0.7
    assert result.lesions["parts"] == 1
    assert result.lesions["values"]["ct"]["marked"]["mean"] > 140
    assert result.lesions["values"]["ct"]["rest"]["mean"] == pytest.approx(80, abs=5)


def test_the_inputs_are_never_changed_and_the_healthy_image_differs_in_the_spot_only():
    scan, grid, organ = a_case()
    kept = scan.copy(), organ.copy()
    result = run(case=(scan, grid, organ))
    assert np.array_equal(scan, kept[0])
    assert np.array_equal(organ, kept[1])
    healthy = result.counterfactual
    assert healthy.dtype == scan.dtype
    spot = ellipsoid_mask(grid, (33.0, -16.0, 13.0), (4.0,) * 3)
    inner = ellipsoid_mask(grid, (33.0, -16.0, 13.0), (2.5,) * 3)
    assert healthy[inner].mean() == pytest.approx(100, abs=8)
    assert np.array_equal(healthy[~organ], scan[~organ])
    beyond = organ & ~ellipsoid_mask(grid, (33.0, -16.0, 13.0), (8.0,) * 3)
    # The guided change cancels the error of the round trip.
    assert np.abs(healthy[beyond].astype(int) - scan[beyond]).max() <= 1
    one_sided = run(case=(scan, grid, organ), map_kind="one-sided").counterfactual
    assert (scan[beyond].astype(int) - one_sided[beyond]).mean() == pytest.approx(10, abs=1)
    assert spot.sum() > 0


def test_the_error_of_the_round_trip_cancels_in_the_guided_map_only():
    spot = ellipsoid_mask(a_grid(), (33.0, -16.0, 13.0), (8.0,) * 3)
    levels = {
        kind: run(map_kind=kind).map[a_case()[2] & ~spot].max() for kind in ("guided", "absolute")
    }
    assert levels["guided"] < 1e-5
    assert levels["absolute"] > 0.04


# ------------------------------------------------------------------------------------- what is kept


def test_a_new_scale_costs_only_the_decoding_and_a_new_kind_of_map_nothing():
    model, cache = HealingModel(), {}
    first = run(model, cache=cache, guidance_scale=5.0)
    slices, level = len(first.slices), 5
    pilot = 2 * (1 + 4)  # a step of one slice and of a batch to measure the speed, each twice
    assert model.passes("encode") == slices * level + pilot
    assert model.passes("unguided") == slices * level
    assert model.passes("guided") == slices * level + pilot
    model.calls.clear()
    run(model, cache=cache, guidance_scale=8.0)
    assert model.passes("encode") == model.passes("unguided") == model.passes("probability") == 0
    assert model.passes("guided") == slices * level
    model.calls.clear()
    again = run(model, cache=cache, guidance_scale=5.0, map_kind="absolute", threshold_rule="otsu")
    assert not model.calls
    assert not np.array_equal(again.map, first.map)
    model.calls.clear()
    run(model, cache=cache, guidance_scale=5.0, noise_level=60)
    assert model.passes("encode") == 0
    assert model.passes("guided") == model.passes("unguided") == slices * 3
    model.calls.clear()
    run(model, cache=cache, guidance_scale=5.0, noise_level=140)
    assert model.passes("encode") == slices * 2
    model.calls.clear()
    run(model, cache=cache, guidance_scale=5.0, steps=25)
    assert model.passes("encode") > 0


def test_other_pixels_other_model_other_seed_are_not_mixed_up():
    cache = {}
    first = run(HealingModel(), cache=cache)
    other = HealingModel(error=0.01)
    other.facts = other.facts | {"sha256": "1" * 64}
    second = run(other, cache=cache, map_kind="absolute")
    assert second.map.max() != first.map.max()
    assert other.passes("guided") > 0
    half = HealingModel()
    half.facts = half.facts | {"precision": "bfloat16"}
    run(half, cache=cache)
    assert half.passes("encode") > 0
    model = HealingModel()
    scan, grid, organ = a_case()
    scan[organ] += 1
    run(model, (scan, grid, organ), cache=cache)
    assert model.passes("encode") > 0


def test_the_store_keeps_to_its_limit_and_to_the_running_request():
    store = Store(limit=1000)
    store.put(("a",), np.zeros(100, np.uint8))
    store.run += 1
    for n in range(12):
        store.put((n,), np.zeros(100, np.uint8))
    assert store.used <= 1000
    assert ("a",) not in store.values
    assert [key for key in store.values] == [(n,) for n in range(10)]
    store.put(("huge",), np.zeros(2000, np.uint8))
    assert ("huge",) not in store.values
    assert (
        size_of({"a": [torch.zeros(4), np.zeros(2)], "b": SimpleNamespace(x=torch.zeros(1))}) == 36
    )


def test_a_batch_that_does_not_fit_is_halved_and_the_result_is_the_same():
    class Narrow(HealingModel):
        def encode(self, x, *arguments, **more):
            if len(x) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(x, *arguments, **more)

    narrow = Narrow()
    narrow.most = 1
    said = []
    result = run(narrow, callback=lambda *event: said.append(event))
    assert np.array_equal(result.map, run().map)
    assert sum("smaller batches" in note for note in result.notes) == 1
    steps = [(done, total) for stage, done, total in said if stage.startswith("rewriting")]
    assert steps[-1][0] == steps[-1][1]
    cache: dict = {}
    run(narrow, cache=cache)  # the speed is known now
    narrow.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        run(narrow, cache=cache, steps=25)


def test_without_a_cache_the_result_is_the_same():
    with_cache, cache = [], {}
    for _ in range(2):
        with_cache.append(run(cache=cache))
    alone = run()
    for result in with_cache:
        assert np.array_equal(result.map, alone.map)
        assert result.slices == alone.slices


# --------------------------------------------------------------------------------- cancel, progress


def test_finished_slices_are_kept_when_the_request_is_cancelled():
    kept = []

    def stop(stage, done, total):
        if stage.startswith("rewriting") and len(kept) == 2:
            raise Cancelled

    whole = run()
    cache = {}
    with pytest.raises(Cancelled):
        run(callback=stop, on_partial=kept.append, cache=cache, normalisation="none")
    result = kept[-1]
    assert len(result.slices) == 8
    assert result.unfinished == len(whole.slices) - 8
    done = [row["index"] for row in result.slices]
    assert done == [row["index"] for row in whole.slices][:8]
    axis = 2
    finished = np.isin(np.arange(whole.map.shape[axis]), done)
    assert np.array_equal(result.map[:, :, finished], whole.map[:, :, finished])
    assert not result.map[:, :, ~finished].any()
    # What was finished need not be computed again.
    model = HealingModel()
    run(model, cache=cache)
    assert model.passes("encode") == (len(whole.slices) - 8) * 5


def test_progress_is_honest_and_the_time_is_told_before_the_start():
    said = []
    result = run(callback=lambda *event: said.append(event))
    stages = [stage for stage, _, _ in said]
    told = next(n for n, stage in enumerate(stages) if stage.startswith("about"))
    assert stages[told].endswith(f"for {len(result.slices)} slices")
    assert told < stages.index("rewriting slices as healthy")
    steps = [(done, total) for stage, done, total in said if stage.startswith("rewriting")]
    assert all(a <= b for (a, _), (b, _) in pairwise(steps))
    assert steps[-1][0] == steps[-1][1]
    assert {total for _, total in steps} == {steps[0][1]}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about a second"),
        (4, "about 4 s"),
        (44, "about 40 s"),
        (130, "about 2 min"),
        (9000, "about 2.5 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


# ------------------------------------------------------------------------- gate, scale, components


def test_a_healthy_volume_comes_out_empty_and_a_diseased_one_only_where_it_is():
    scan, grid, organ = a_case(spot=None)
    healthy = run(case=(scan, grid, organ), map_kind="absolute")
    assert healthy.map.any()
    assert not healthy.mask.any()
    assert not healthy.scaled_map.any()
    assert healthy.probability < 0.1
    assert all(row["gated"] for row in healthy.slices)
    ungated = run(case=(scan, grid, organ), map_kind="absolute", gate=False)
    assert ungated.mask.any()
    diseased = run()
    assert diseased.probability > 0.8
    assert 0 < sum(not row["gated"] for row in diseased.slices) < len(diseased.slices)


def test_the_floor_of_the_model_empties_faint_maps():
    strong = run(HealingModel(floor=0.3, smoothing_mm=0.0))
    assert strong.mask.any()
    faint = run(HealingModel(floor=0.6, smoothing_mm=0.0))
    assert not faint.mask.any()
    other_kind = run(HealingModel(floor=0.6, smoothing_mm=0.0), map_kind="absolute")
    assert other_kind.mask.any()
    assert any("floor" in note for note in other_kind.notes)


def test_each_normalisation_does_what_it_says():
    per_slice = run(normalisation="slice").scaled_map
    per_volume = run(normalisation="volume").scaled_map
    none = run(normalisation="none").scaled_map
    axis_maxima = [m.reshape(-1, m.shape[2]).max(axis=0) for m in (per_slice, per_volume)]
    assert np.isclose(axis_maxima[0][axis_maxima[0] > 0], 1, atol=0.1).all()
    assert per_volume.max() == pytest.approx(1, abs=0.1)
    assert axis_maxima[1][axis_maxima[1] > 0].min() < 0.99
    assert none.max() == pytest.approx(run().map.max(), rel=1e-5)


def test_two_spots_are_two_parts_or_the_largest_one():
    scan, grid, organ = a_case()
    scan[ellipsoid_mask(grid, (22.0, -24.0, 6.0), (3.0,) * 3)] = 190
    both = run(case=(scan, grid, organ))
    assert both.lesions["parts"] == 2
    one = run(case=(scan, grid, organ), largest_component=True)
    assert one.lesions["parts"] == 1
    assert one.mask[tuple(np.rint(grid.to_ijk((33.0, -16.0, 13.0))).astype(int))]


def test_areas_add_up_to_the_volume_on_a_grid_with_right_angles():
    result = run()
    thickness = result.grid.spacing[2]
    assert sum(row["area_mm2"] for row in result.slices) * thickness == pytest.approx(
        result.lesions["volume_mm3"], rel=1e-3
    )
    row = max(result.slices, key=lambda r: r["area_mm2"])
    assert row["values"]["ct"]["marked"]["mean"] > 150
    assert set(row) == {
        *("index", "position_mm", "probability", "gated", "map_max", "threshold"),
        *("area_mm2", "organ_area_mm2", "values"),
    }


def test_no_guidance_gives_an_empty_guided_map_and_says_so():
    result = run(guidance_scale=0.0)
    assert not result.map.any()
    assert not result.mask.any()
    assert any("S = 0" in note for note in result.notes)


# -------------------------------------------------------------------------------------------- MR


def test_sequences_of_any_order_and_spelling_make_one_map():
    grid = a_grid()
    rng = np.random.default_rng(1)
    brain = ellipsoid_mask(grid, (30.0, -20.0, 10.0), (18.0,) * 3)
    spot = ellipsoid_mask(grid, (33.0, -16.0, 13.0), (4.0,) * 3)
    flair, t1 = (
        np.where(brain, rng.normal(300, 20, grid.shape), 0).astype(np.float32) for _ in range(2)
    )
    flair[spot] = 800
    model = HealingModel(replace(MR, percentiles=(0.0, 100.0)))
    result = compute_anomaly(
        {"T2 FLAIR": flair, "T1w": t1}, grid, brain, AnomalyParameters(noise_level=100), model
    )
    assert list(result.counterfactuals) == ["T1w", "T2 FLAIR"]
    inner = ellipsoid_mask(grid, (33.0, -16.0, 13.0), (2.0,) * 3)
    assert result.counterfactuals["T2 FLAIR"][inner].mean() < 650
    assert (result.mask & spot).sum() > 0.5 * spot.sum()
    assert set(result.slices[0]["values"]) == {"T1w", "T2 FLAIR"}
    assert min(image.min() for image in result.counterfactuals.values()) >= 0


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"noise_level": 999, "steps": 2000}, "steps must be 2 to 1000"),
        ({"noise_level": 1000}, "noise_level must be 1 to 999"),
        ({"guidance_scale": -1.0}, "guidance_scale must be 0 to 10000"),
        ({"slices": (30, 99)}, "outside the image"),
        ({"slices": (5, 2)}, "slices must be first and end"),
        ({"map_kind": "heat"}, "map_kind must be one of"),
    ],
)
def test_requests_out_of_range_are_refused_with_the_range(wishes, message):
    with pytest.raises(ValueError, match=message):
        run(**wishes)


def test_a_model_of_fewer_steps_refuses_a_higher_noise_level():
    model = HealingModel()
    model.levels = lambda steps=None: respace(linear_betas(200), steps or 50)
    with pytest.raises(AnomalyError, match="between 1 and 199") as caught:
        run(model, noise_level=500)
    assert "Choose" in str(caught.value)
    with pytest.raises(AnomalyError, match="levels lies between 2 and the 200"):
        run(model, steps=500)


def test_models_and_images_that_do_not_fit_are_refused():
    scan, grid, organ = a_case()
    no_index = HealingModel()
    no_index.healthy_index = None
    with pytest.raises(AnomalyError, match="healthy_index"):
        run(no_index)
    with pytest.raises(CaseError, match="t1, flair are missing"):
        run(HealingModel(MR))
    with pytest.raises(AnomalyError, match="needs its mask"):
        run(case=(scan, grid, None))
    with pytest.raises(AnomalyError, match="mask is empty"):
        run(case=(scan, grid, np.zeros_like(organ)))
    with pytest.raises(AnomalyError, match="one and the same value"):
        run(case=(np.full_like(scan, 77), grid, organ))
    with pytest.raises(AnomalyError, match="not finite"):
        run(case=(np.where(organ, np.nan, 0.0), grid, organ))
    with pytest.raises(ValueError, match="shape"):
        run(case=(scan[1:], grid, organ))
    with pytest.raises(ValueError, match="organ mask has shape"):
        run(case=(scan, grid, organ[1:]))


def test_a_guidance_that_tears_the_image_apart_is_said():
    class Torn(HealingModel):
        def decode(self, *arguments, **more):
            return super().decode(*arguments, **more) * self.factor

    torn = Torn()
    torn.factor = 1000
    assert any("too strong" in note for note in run(torn).notes)
    torn.factor = float("nan")
    with pytest.raises(AnomalyError, match="too strong"):
        run(torn)


# ---------------------------------------------------------------------------------- tiny networks


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_anomaly_model(str(folder), "cpu", {}, lambda *_: None)


def test_tiny_networks_make_the_same_map_with_and_without_what_was_kept(tiny):
    case = a_case()
    cache: dict = {}
    wishes = {"case": case, "slices": (17, 19), "gate": False, "steps": 10, "noise_level": 300}
    first = run(tiny, cache=cache, guidance_scale=3.0, **wishes)
    again = run(tiny, cache=cache, guidance_scale=3.0, **wishes)
    assert np.array_equal(first.map, again.map)
    assert first.map.any()
    lower = run(tiny, cache=cache, guidance_scale=3.0, **wishes | {"noise_level": 200})
    alone = run(tiny, guidance_scale=3.0, **wishes | {"noise_level": 200})
    np.testing.assert_allclose(lower.map, alone.map, atol=1e-6)
    higher = run(tiny, cache=cache, guidance_scale=3.0, **wishes | {"noise_level": 500})
    fresh = run(tiny, guidance_scale=3.0, **wishes | {"noise_level": 500})
    np.testing.assert_allclose(higher.map, fresh.map, atol=1e-6)
    assert not np.array_equal(lower.map, higher.map)


def test_the_published_indexing_can_be_asked_for(tiny):
    wishes = {"slices": (17, 19), "gate": False, "steps": 10, "noise_level": 300}
    ours = run(tiny, **wishes)
    cache: dict = {}
    theirs = run(tiny, cache=cache, reference_compat=True, **wishes)
    other_noise = run(tiny, cache=cache, reference_compat=True, seed=1, **wishes)
    assert not np.array_equal(ours.map, theirs.map)
    assert not np.array_equal(theirs.map, other_noise.map)
