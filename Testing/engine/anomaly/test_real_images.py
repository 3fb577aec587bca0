"""Anomaly maps of real images (`../shared/data`): the pipeline runs, geometry and inputs are kept.

These tests say nothing about how good a map is: the lesions' masks of these images are not looked at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from difftumor.anomaly.compute import compute_anomaly
from difftumor.anomaly.model import load_anomaly_model
from difftumor.anomaly.slices import SliceFormat, prepare_mr
from difftumor.ellipsoids import ellipsoid_mask
from difftumor.grids import Grid
from difftumor.images.mr import CaseError, check_same_geometry
from difftumor.images.volumes import read_mask, read_volume
from difftumor.parameters import AnomalyParameters
from difftumor.weights.models import ModelError
from Testing.healing_model import CT, HealingModel
from Testing.tiny_anomaly import MR, write_tiny_model

FOUR = ("t1", "t1c", "t2", "flair")


@pytest.fixture(scope="module")
def pancreas(shared):
    """The NIH slices as a volume: they have no geometry, so 0.8 mm is assumed; rows run to anterior."""
    folder = shared / "data" / "ct_nih_pancreas_case1_slices"
    scan, mask = (
        np.stack([np.load(path) for path in sorted(folder.glob(f"{kind}_*.npy"))], axis=2)
        for kind in ("img", "mask")
    )
    affine = np.array([[0, -0.8, 0, 205], [0.8, 0, 0, -205], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    return scan, Grid(scan.shape, affine), mask.astype(bool)


@pytest.fixture(scope="module")
def brain(shared):
    """Four skull-stripped sequences of TCGA-LGG."""
    folder = shared / "data" / "mr_tcga_lgg_DU-7294" / "raw_bet"
    names = dict(zip(FOUR, ("t1", "t1c", "t2", "fla"), strict=True))
    return {
        name: read_volume(folder / f"TCGA-DU-7294_{there}_bet.nii.gz")
        for name, there in names.items()
    }


def keeps(result, images, organ) -> None:
    """What holds for every map: grid, emptiness outside the organ, inputs as they were."""
    for name, image in images.items():
        assert result.map.shape == image.shape
        assert result.counterfactuals[name].dtype == image.dtype
        if organ is not None:
            assert np.array_equal(result.counterfactuals[name][~organ], image[~organ])
    if organ is not None:
        assert not result.map[~organ].any()
    assert np.isfinite(result.map).all()
    assert result.scaled_map.max() <= 1


def test_a_pancreas_runs_and_what_is_put_into_it_lights_up_there(pancreas):
    scan, grid, organ = pancreas
    kept = scan.copy()
    middle = grid.to_ras([*np.argwhere(organ[:, :, 2]).mean(axis=0).tolist(), 2])
    nearest = grid.to_ras(np.argwhere(organ)[:, :3])
    center = nearest[np.linalg.norm(nearest - middle, axis=1).argmin()]
    spot = ellipsoid_mask(grid, center, (5.0, 5.0, 5.0)) & organ
    put = scan.copy()
    put[spot] = 30
    model = HealingModel(
        replace(CT, window_hu=(-20.0, 180.0), image_size=64), direction="dark", smoothing_mm=2.0
    )
    # Healing darkness: the mirror image of what the model does with brightness.
    model.heal = lambda x: x.clamp(min=0.5) * (x > 0)
    result = compute_anomaly(
        {"ct": put}, grid, organ, AnomalyParameters(gate=False, normalisation="volume"), model
    )
    keeps(result, {"ct": put}, organ)
    assert spot[np.unravel_index(result.map.argmax(), grid.shape)]
    assert result.map[spot].mean() > 3 * result.map[organ & ~spot].mean()
    assert np.array_equal(scan, kept)
    assert [row["index"] for row in result.slices] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_four_sequences_of_a_brain_run_in_every_plane(brain, tmp_path_factory, plane):
    check_same_geometry({name: volume.grid for name, volume in brain.items()})
    folder = write_tiny_model(
        tmp_path_factory.mktemp("models") / "head", spacing_mm=[7.0, 7.0], **MR
    )
    model = load_anomaly_model(str(folder), "cpu", {}, lambda *_: None)
    images = {name: volume.array for name, volume in brain.items()}
    wishes = AnomalyParameters(
        noise_level=100, steps=20, plane=plane, slices=(75, 77), gate=False, map_kind="absolute"
    )
    result = compute_anomaly(images, brain["t1"].grid, None, wishes, model)
    background = np.all([image == 0 for image in images.values()], axis=0)
    # Holes inside the brain belong to it.
    keeps(result, images, None)
    assert result.map.any()
    assert (result.map[background] != 0).mean() < 0.01
    assert any("skull-stripped" in note for note in result.notes)


def test_two_of_four_sequences_are_not_enough_and_the_missing_ones_are_named(shared):
    folder = shared / "data" / "mr_brats2013_pat0005_1"
    flair, t1c = (read_volume(folder / f"{n}_subtrMeanDivStd.nii.gz") for n in ("Flair", "T1c"))
    brain_mask = read_mask(folder / "brainmask.nii.gz", None, flair.grid)
    images = {"flair": flair.array, "t1c": t1c.array}
    four = SliceFormat(48, (4.0, 4.0), None, (0.0, 1.0), FOUR, "MR")
    with pytest.raises(CaseError, match="t1, t2 are missing"):
        prepare_mr(images, flair.grid, brain_mask, four)
    # z-scores are as good as any other values; a bright lesion stays bright.
    two = replace(four, channel_order=("t1ce", "flair"))
    stack = prepare_mr(images, flair.grid, brain_mask, two, slices=(70, 90))
    assert stack.images.min() == 0
    assert stack.images.max() == pytest.approx(1, abs=0.02)


def test_published_slices_are_cut_pixel_by_pixel_as_the_published_code_pads_them(shared):
    folder = shared / "data" / "mr_brats2020_wolleb" / "testing" / "000247"
    there = dict(zip(FOUR, ("t1", "t1ce", "t2", "flair"), strict=True))
    images = {
        name: read_volume(next(folder.glob(f"*_{token}_081_w.nii.gz"))).array
        for name, token in there.items()
    }
    # The files lost their geometry; BraTS volumes run to left and posterior.
    grid = Grid(images["t1"].shape, np.diag([-1.0, -1.0, 1.0, 1.0]))
    published = SliceFormat(
        256, (1.0, 1.0), None, (0.0, 1.0), FOUR, "MR", "field", True, (0.0, 100.0), "slice"
    )
    stack = prepare_mr(images, grid, None, published)
    assert stack.images.shape == (1, 4, 256, 256)
    for channel, image in enumerate(images.values()):
        padded = np.pad(image[:, :, 0], 8)
        inside = stack.organ[0]
        assert np.corrcoef(stack.images[0, channel][inside], padded[inside])[0, 1] > 0.99999
        assert not padded[~inside].any()


@pytest.mark.parametrize("name", ["demo-abdomen-anomaly", "demo-head-anomaly"])
def test_the_demonstration_models_run_on_real_images(name, pancreas, brain):
    try:
        model = load_anomaly_model(name, "cpu", {}, lambda *_: None)
    except ModelError as error:
        pytest.skip(f"the demonstration model is not there: {error}")
    parameters = AnomalyParameters(model=name, gate=False)
    if model.slice_format.modality == "CT":
        scan, grid, organ = pancreas
        images = {"ct": scan}
        parameters = replace(parameters, slices=(1, 3))
    else:
        images, grid, organ = {n: v.array for n, v in brain.items()}, brain["t1"].grid, None
        parameters = replace(parameters, slices=(80, 82))
    result = compute_anomaly(images, grid, organ, parameters, model)
    keeps(result, images, organ)
    assert result.map.any()
    assert 0 <= result.probability <= 1
    assert len(result.slices) == 2
