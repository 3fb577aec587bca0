"""Learning from labeled slices: places, what stays as painted, what is computed once, model folders, bad input.

A bright ball in a round organ: any classifier that sees the pixels finds it, so the right answer is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from difftumor.anomaly.layout import slice_axis
from difftumor.ellipsoids import ellipsoid_mask, rotation_matrix
from difftumor.grids import Grid
from difftumor.images.mr import CaseError
from difftumor.learning.ensemble import label_weights, train_ensemble
from difftumor.learning.feature_slices import fineness_for
from difftumor.learning.features_model import (
    default_choice,
    load_feature_model,
    write_representation_model,
)
from difftumor.learning.labels import slice_areas_mm2
from difftumor.learning.learn import LearningError, apply_learned, learn
from difftumor.learning.learned import read_learned_model, write_learned_model
from difftumor.parameters import LearningParameters
from difftumor.weights.models import ModelError
from difftumor.worker.protocol import Cancelled
from Testing.tiny_anomaly import MR, tiny_card, tiny_networks, write_tiny_model

FAST = {"members": 3, "steps": 60, "blocks": (1, 3), "timesteps": (20,)}


def a_grid(shape=(30, 32, 14), spacing=(1.6, 1.7, 3.0), rotation=(4, -6, 10), signs=(-1, 1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(rotation) * np.asarray(signs) * np.asarray(spacing)
    affine[:3, 3] = [30, -20, 10] - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


GRIDS = {
    "oblique": a_grid(),
    "upright": a_grid(rotation=(0, 0, 0), signs=(1, 1, 1)),
    "axes swapped": Grid((30, 32, 14), a_grid().affine[:, [1, 2, 0, 3]]),
}


def a_case(grid=None, radius=9.0):
    """Images, organ and true tumor: 60 HU with grain, a ball of 130 HU."""
    grid = grid or a_grid()
    rng = np.random.default_rng(0)
    tumor = ellipsoid_mask(grid, (32.0, -18.0, 10.0), (radius,) * 3)
    organ = ellipsoid_mask(grid, (30.0, -20.0, 10.0), (18.0,) * 3)
    scan = np.where(tumor, 130, 60) + rng.integers(-6, 7, grid.shape)
    return {"ct": scan.astype(np.int16)}, grid, organ, tumor


def painted_on(tumor, grid, count=2, plane="axial"):
    """Labels on some slices of the tumor, spread evenly, and these slices."""
    axis = slice_axis(grid, plane)
    others = tuple(d for d in range(3) if d != axis)
    rows = np.flatnonzero(tumor.any(axis=others))
    chosen = rows[np.linspace(1, len(rows) - 2, count).round().astype(int)]
    labels = np.zeros(tumor.shape, np.uint8)
    np.moveaxis(labels, axis, 0)[chosen] = np.moveaxis(tumor, axis, 0)[chosen]
    return labels, sorted({int(index) for index in chosen})


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "ct": write_tiny_model(folder / "ct"),
        "mr": write_tiny_model(folder / "mr", id="tiny-head", **MR),
    }


def opened(folder, cache=None):
    return load_feature_model(str(folder), "cpu", {} if cache is None else cache, lambda *_: None)


@pytest.fixture(scope="module")
def model(folders):
    return opened(folders["ct"])


def run(model, case=None, labels=None, cache=None, callback=None, **wishes):
    images, grid, organ, tumor = case or a_case()
    if labels is None:
        labels = painted_on(tumor, grid, plane=wishes.get("plane", "axial"))[0]
    parameters = LearningParameters(**FAST | wishes)
    return learn(images, grid, organ, labels, parameters, model, callback, cache)


@pytest.mark.parametrize("name", GRIDS)
def test_the_rest_of_the_volume_is_segmented_where_it_lies(name, model):
    case = a_case(GRIDS[name])
    result, _ = run(model, case)
    assert dice(result.segmentation == 1, case[3]) > 0.85
    assert result.segmentation.shape == case[3].shape
    assert not result.segmentation[~case[2]].any()
    assert result.uncertainty.dtype == np.float32
    assert 0 <= result.uncertainty.min() < result.uncertainty.max() <= 1


def test_slices_of_another_plane(model):
    case = a_case()
    result, _ = run(model, case, plane="coronal")
    assert dice(result.segmentation == 1, case[3]) > 0.85


def test_labelled_slices_stay_as_they_were_painted(model):
    images, grid, organ, tumor = a_case()
    labels, chosen = painted_on(tumor, grid)
    axis = slice_axis(grid, "axial")
    # Painted a little beyond the organ, and one slice with nothing on it at all.
    empty = int(np.flatnonzero(organ.any(axis=(0, 1)))[0])
    labels[0, 0, chosen[0]] = 1
    result, _ = run(model, (images, grid, organ, tumor), labels, labelled=(*chosen, empty))
    for index in (*chosen, empty):
        assert np.array_equal(result.segmentation.take(index, axis), labels.take(index, axis))
        assert not result.uncertainty.take(index, axis).any()
    assert result.labelled == tuple(sorted({*chosen, empty}))
    assert result.next_slice not in result.labelled


def test_several_labels_keep_their_values_and_names(folders):
    head = opened(folders["mr"])
    images, grid, organ, tumor = a_case()
    core = ellipsoid_mask(grid, (32.0, -18.0, 10.0), (5.0,) * 3)
    truth = np.where(core, 3, np.where(tumor, 1, 0)).astype(np.uint8)
    four = {
        name: np.where(organ, images["ct"] + gain * core, 0)
        for name, gain in (("t1", 0), ("t1c", 90), ("t2", 20), ("flair", 0))
    }
    labels = painted_on(tumor, grid)[0] * truth
    result, _ = run(head, (four, grid, organ, tumor), labels)
    assert set(np.unique(result.segmentation)) == {0, 1, 3}
    assert dice(result.segmentation == 3, core) > 0.7
    assert result.names == {1: "edema", 3: "enhancing tumor"}
    volumes = result.volumes_mm3
    assert volumes["WT"] == pytest.approx(volumes["edema"] + volumes["enhancing tumor"], abs=0.01)
    assert volumes["TC"] == volumes["ET"] == volumes["enhancing tumor"]
    assert volumes["edema"] == pytest.approx(
        (result.segmentation == 1).sum() * grid.voxel_volume_mm3, abs=0.01
    )


def test_a_missing_sequence_is_named(folders):
    images, grid, organ, tumor = a_case()
    with pytest.raises(CaseError, match=r"t1, t2, flair are missing|are missing"):
        run(opened(folders["mr"]), ({"t1c": images["ct"]}, grid, organ, tumor))


def test_one_more_slice_computes_no_features_again_and_changes_nothing_else(folders, monkeypatch):
    model = opened(folders["ct"])
    calls = []
    genuine = model.maps
    monkeypatch.setattr(model, "maps", lambda *a: calls.append(1) or genuine(*a))
    case = a_case()
    cache: dict = {}
    run(model, case, cache=cache)
    more = painted_on(case[3], case[1], 3)[0]
    warm, _ = run(model, case, more, cache=cache)
    assert len(calls) == 1
    cold, _ = run(model, case, more, cache={})
    assert len(calls) == 2
    assert np.array_equal(warm.segmentation, cold.segmentation)
    assert np.array_equal(warm.uncertainty, cold.uncertainty)
    assert warm.facts() == cold.facts()
    other, _ = run(model, case, more, cache=cache, seed=1)
    assert not np.array_equal(other.uncertainty, warm.uncertainty)


def test_parts_that_touch_nothing_painted_are_left_out_unless_asked_for(model):
    images, grid, organ, tumor = a_case()
    far = ellipsoid_mask(grid, (20.0, -30.0, 10.0), (4.0,) * 3) & organ & ~tumor
    scan = images["ct"].copy()
    scan[far] = 130
    case = ({"ct": scan}, grid, organ, tumor)
    labels, chosen = painted_on(tumor, grid)
    seen = np.ones(grid.shape[2], bool)
    seen[chosen] = False
    result, _ = run(model, case, labels)
    assert not result.segmentation[far].any()
    assert result.left_out["parts"] >= 1
    assert any("left out" in note for note in result.notes)
    everything, _ = run(model, case, labels, keep="all")
    assert (everything.segmentation > 0)[..., seen][far[..., seen]].mean() > 0.5
    assert everything.left_out == {"parts": 0, "volume_mm3": 0.0}


def test_only_the_slices_asked_for_are_segmented(model):
    case = a_case()
    labels, chosen = painted_on(case[3], case[1])
    span = (chosen[0] + 1, chosen[0] + 3)
    result, _ = run(model, case, labels, slices=span)
    assert [row["index"] for row in result.slices] == list(range(*span))
    shown = set(np.flatnonzero(result.segmentation.any(axis=(0, 1))))
    assert shown <= {*range(*span), *chosen}
    assert set(chosen) <= shown


def test_the_table_and_the_next_slice_follow_from_the_volume(model):
    result, _ = run(model, keep="all")
    grid = result.grid
    areas = slice_areas_mm2(result.segmentation == 1, grid, 2)
    doubt = slice_areas_mm2(result.uncertainty, grid, 2)
    for row in result.slices:
        assert row["area_mm2"]["tumor"] == pytest.approx(areas[row["index"]], abs=0.01)
        assert row["disagreement_mm2"] == pytest.approx(doubt[row["index"]], abs=0.01)
    assert (
        result.next_slice
        == max(
            (row for row in result.slices if not row["labelled"]),
            key=lambda r: r["disagreement_mm2"],
        )["index"]
    )


def test_a_leak_along_the_slices_is_told_and_asked_for_where_the_tumor_ends(model):
    images, grid, organ, tumor = a_case(a_grid((30, 32, 28), rotation=(0, 0, 0), signs=(1, 1, 1)))
    organ = organ | np.moveaxis(np.broadcast_to(organ.any(2), (28, 30, 32)), 0, 2)
    rod = np.broadcast_to(tumor.any(2)[..., None], tumor.shape) & ~tumor
    alike = {"ct": np.where(rod, 130, images["ct"]).astype(np.int16)}  # as dense as the tumor
    labels, chosen = painted_on(tumor, grid, 3)
    with_tumor = np.flatnonzero(tumor.any((0, 1)))
    result, _ = run(model, (alike, grid, organ, tumor), labels)
    assert sum("run into" in note for note in result.notes) == 1
    assert min(abs(result.next_slice - with_tumor[[0, -1]] - [-1, 1])) <= 1
    # Marked as without tumor, it ends the leak on that side.
    ends = result.next_slice
    again, _ = run(
        model, (alike, grid, organ, tumor), labels, labelled=tuple(sorted([*chosen, ends]))
    )
    found = np.flatnonzero((again.segmentation > 0).any((0, 1)))
    assert (found < ends).all() or (found > ends).all()
    # A ball that ends where it ends is no leak.
    assert not any(
        "run into" in note for note in run(model, (images, grid, organ, tumor), labels)[0].notes
    )


def test_what_was_learned_is_a_model_folder_that_segments_the_case_again(model, tmp_path):
    case = a_case()
    images, grid, organ, _ = case
    result, learned = run(model, case, keep="all")
    card = write_learned_model(tmp_path / "learned", learned)
    assert card["task"] == "segmentation"
    assert card["architecture"]["arguments"]["features_of"]["id"] == model.facts["id"]
    again = read_learned_model(tmp_path / "learned")
    found = apply_learned(images, grid, organ, again, model)
    others = np.ones(grid.shape[2], bool)
    others[list(result.labelled)] = False
    assert np.array_equal(found.segmentation[..., others], result.segmentation[..., others])
    assert found.names == result.names
    with pytest.raises(ModelError, match="other weights"):
        replace(again, features_of={"id": "x", "sha256": "0" * 64}).check(model)


def test_a_learned_model_of_another_kind_is_refused(folders):
    with pytest.raises(ModelError, match="anomaly heat maps"):
        read_learned_model(folders["ct"])


def test_a_diffusion_model_alone_serves_too(tmp_path):
    unet, _ = tiny_networks(1, 32, classes=None)
    card = tiny_card(id="tiny-representation", title="A tiny diffusion model", schedule="cosine")
    del card["recommended"], card["healthy_index"]
    card["extra"] = {"features": {"blocks": [1], "timesteps": [10]}}
    write_representation_model(tmp_path / "unet", unet, card)
    model = opened(tmp_path / "unet")
    assert (model.recommended.blocks, model.recommended.timesteps) == ((1,), (10,))
    case = a_case()
    result, _ = run(model, case, blocks=None, timesteps=None)
    assert result.settings["blocks"] == [1]
    assert dice(result.segmentation == 1, case[3]) > 0.85
    with pytest.raises(ModelError, match="does not say spacing_mm"):
        write_representation_model(
            tmp_path / "other", unet, {k: v for k, v in card.items() if k != "spacing_mm"}
        )


def test_the_default_features_leave_the_deepest_level_out():
    unet, _ = tiny_networks(1, 32)
    choice = default_choice(unet.arguments, 1000)
    assert choice.blocks == (3,)
    assert choice.timesteps == (50, 250)


def test_it_can_be_cancelled_in_each_stage(model):
    stages: list[str] = []
    run(model, callback=lambda stage, *_: stages.append(stage))
    for wanted in dict.fromkeys(stages):

        def stop(stage, _done, _total, wanted=wanted):
            if stage == wanted:
                raise Cancelled

        with pytest.raises(Cancelled):
            run(model, callback=stop)
    assert {"looking at the slices", "learning from the painted slices"} <= set(stages)


def test_labels_that_cannot_be_learned_from(model):
    images, grid, organ, tumor = a_case()
    case = (images, grid, organ, tumor)
    labels, chosen = painted_on(tumor, grid)
    for wrong, said, wishes in (
        (labels[:-1], "another grid", {}),
        (np.zeros_like(labels), "on no slice", {}),
        (labels * 0.5, "no label map", {}),
        (-labels.astype(np.int16), "no label map", {}),
        (labels, "lies outside the images", {"labelled": (99,)}),
        (labels, "none of the slices", {"labelled": (chosen[0] + 1,)}),
        (labels, "blocks must be 0 to 3", {"blocks": (7,)}),
        (labels, "timesteps must be 0 to 999", {"timesteps": (1000,)}),
    ):
        with pytest.raises(LearningError, match=said):
            run(model, case, wrong, **wishes)
    corner = np.zeros_like(labels)
    corner[0, 0, chosen[0]] = 1
    with pytest.raises(LearningError, match="outside the organ mask"):
        run(model, case, corner)
    top = np.zeros_like(labels)
    top[:, :, -1] = 1
    with pytest.raises(LearningError, match="too little of the organ"):
        run(model, case, top)
    with pytest.raises(LearningError, match="whole organ is painted"):
        run(model, case, np.where(organ, labels.max(axis=(0, 1)), 0).astype(np.uint8))
    with pytest.raises(LearningError, match="needs its mask"):
        run(model, (images, grid, None, tumor), labels)


def test_a_model_of_another_task_is_refused():
    with pytest.raises(ModelError, match="task anomaly or representation"):
        opened("demo-abdomen-early")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"members": 0}, "members"),
        ({"labelled": ()}, "labelled"),
        ({"blocks": (1.5,)}, "blocks"),
        ({"slices": (5, 3)}, "slices"),
        ({"keep": "some"}, "keep"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        LearningParameters(**wrong)


def test_pixels_are_as_fine_as_the_voxels_allow():
    grid = Grid((10, 10, 10), np.diag([1.0, 1.0, 3.0, 1.0]))
    assert fineness_for(grid, "axial", 3.3) == 2
    assert fineness_for(Grid((10, 10, 10), np.diag([3.0, 3.0, 3.0, 1.0])), "axial", 3.3) == 1
    assert fineness_for(grid, "axial", 1.6) == 1


def test_rare_labels_weigh_more():
    weights = label_weights(torch.tensor([0] * 90 + [1] * 10), 3)
    assert weights[1] / weights[0] == pytest.approx(3, rel=1e-4)
    assert weights[2] == 0
    assert 0.9 * weights[0] + 0.1 * weights[1] == pytest.approx(1, rel=1e-5)


def test_the_classifiers_take_features_as_they_are():
    """Constant and shifted features do no harm, and the scaling is inside."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    pixels = torch.randn(400, 4, generator=generator) * 50 + 300
    pixels[:, 0] = labels * 2.0 + 1000
    pixels[:, 3] = 7.0
    ensemble = train_ensemble(pixels, labels, 2, members=2, steps=60, seed=0)
    assert (ensemble.judge(pixels).labels == labels).float().mean() > 0.97
