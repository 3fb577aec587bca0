"""The segmentation networks give the logits of the published code, and models of them open safely."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difftumor.networks.segmenters import (
    HistoricalPatchMerging,
    SegmenterArguments,
    build_segmenter,
    published_tensors,
    segmenter_from,
    size_factor,
)
from difftumor.segmentation.model import SegmentationModel, load_segmentation_models
from difftumor.weights.cards import ModelError
from difftumor.weights.checkpoints import identify, read_checkpoint
from Testing.tiny_segmenter import tiny_card, tiny_unet, write_tiny_segmenter
from Testing.weight_filler import filled

KEYS = Path(__file__).parents[2] / "parity" / "difftumor"
PUBLISHED = {
    "segmentation_unet": "seg_unet",
    "segmentation_nnunet": "seg_nnunet_dynunet",
    "segmentation_swinunetr": "seg_swinunetr",
}
TOLERANCE = 1e-4  # max |difference| / standard deviation


def silent(*_: object) -> None:
    pass


def load(*models: Path | str, cache: dict[str, Any] | None = None) -> list[SegmentationModel]:
    names = [str(model) for model in models]
    return load_segmentation_models(names, "cpu", {} if cache is None else cache, silent)


def published_file(kind: str) -> dict[str, Tensor]:
    """State dict of a published file with filled weights."""
    own = published_tensors(build_segmenter(kind))
    state = {}
    for key, shape, dtype in json.loads((KEYS / f"{PUBLISHED[kind]}.keys.json").read_text()):
        values = filled(key, tuple(shape)) if dtype == "float32" else own[key].numpy()
        state[key] = torch.from_numpy(np.asarray(values))
    if kind == "segmentation_nnunet":  # the aliases are the same tensors, whatever is filled in
        first = state["input_block.conv1.conv.weight"]
        state["skip_layers.downsample.conv1.conv.weight"] = first
    return state


@pytest.mark.parametrize("kind", PUBLISHED)
def test_names_and_sizes_are_those_of_the_published_files(kind):
    expected = json.loads((KEYS / f"{PUBLISHED[kind]}.keys.json").read_text())
    own = [[k, list(v.shape)] for k, v in published_tensors(build_segmenter(kind)).items()]
    once = [e[:2] for e in expected if not e[0].startswith(("skip_layers.", "swinViT.norm."))]
    assert own == once


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_file_gives_the_published_logits(kind, shared, tmp_path):
    folder = shared / "parity" / "difftumor"
    with np.load(folder / "seg_input64.npz") as arrays:
        image = torch.from_numpy(arrays["ct"])
    with np.load(folder / "seg_forward64.npz") as arrays:
        expected = arrays[PUBLISHED[kind]]
    # As the trainers write it, under the name of one of the nine files.
    short = kind.removeprefix("segmentation_")
    path = tmp_path / f"{short}_synt_liver_tumors.pt"
    content = {"epoch": 1, "best_acc": 0.5, "state_dict": published_file(kind)}
    torch.save(content | {"optimizer": {}, "scheduler": {"last_epoch": 1}}, path)
    (model,) = load(path)
    assert model.facts["title"].startswith("DiffTumor: liver")
    assert model.facts["notes"] == []
    got = model.logits(image)[..., ::2, ::2, ::2].numpy()
    assert np.abs(got - expected).max() / expected.std() < TOLERANCE


def test_patch_merging_keeps_the_historical_order_and_pads_odd_axes():
    layer = HistoricalPatchMerging(1)
    layer.norm = torch.nn.Identity()
    layer.reduction = torch.nn.Identity()
    x = torch.arange(27.0).reshape(1, 3, 3, 3, 1)
    merged = layer(x)
    assert merged.shape == (1, 2, 2, 2, 8)
    # 9 d + 3 h + w: 110 and 011 are never taken, 010 and 001 twice.
    assert merged[0, 0, 0, 0].tolist() == [0, 9, 3, 1, 10, 3, 1, 13]
    assert merged[0, 1, 1, 1].tolist() == [26, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_prefixes_of_trainers_are_taken_off(tmp_path, prefix):
    state = {prefix + key: value for key, value in published_file("segmentation_unet").items()}
    path = tmp_path / "other.pt"
    torch.save({"net": state}, path)
    (model,) = load(path)
    # A file of unknown name is taken to be prepared like the published ones, and that is said.
    assert "does not say how it wants its input" in model.facts["notes"][0]
    assert model.window == (96, 96, 96)
    assert model.organs == []
    assert torch.equal(
        model.network.state_dict()["model.0.conv.unit0.conv.weight"],
        state[f"{prefix}model.0.conv.unit0.conv.weight"],
    )


def test_the_second_names_of_the_nnunet_are_not_read(tmp_path):
    path = tmp_path / "nnunet_synt_liver_tumors.pt"
    torch.save({"state_dict": published_file("segmentation_nnunet")}, path)
    assert len(read_checkpoint(path).tensors) == 24


def test_a_model_folder_gives_the_network_that_was_written(tmp_path):
    folder = write_tiny_segmenter(tmp_path / "tiny", recommended={"min_diameter_mm": 4})
    (model,) = load(folder)
    x = torch.rand((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(model.logits(x), tiny_unet().eval()(x))
    assert model.facts["id"] == "tiny-segmenter"
    assert len(model.facts["sha256"]) == 64
    assert (model.window, model.classes) == ((32, 32, 32), 3)
    assert (model.tumor_label, model.organ_label) == (2, 1)
    assert model.recommended == {"min_diameter_mm": 4, "tumor_threshold": None}
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert identify(folder).facts["content"] == "segmentation_unet"
    assert model.scaled(np.array([-1000, -175, 37.5, 250, 900])).tolist() == [0, 0, 0.5, 1, 1]


def test_loading_draws_no_random_numbers(tmp_path):
    folder = write_tiny_segmenter(tmp_path / "tiny")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load(folder)
    assert torch.equal(torch.rand(1), expected)


def test_the_cache_keeps_the_models_of_the_last_request(tmp_path):
    one = write_tiny_segmenter(tmp_path / "one", id="one")
    two = write_tiny_segmenter(tmp_path / "two", id="two")
    cache: dict[str, Any] = {"other": 1}
    first, _ = load(one, two, cache=cache)
    assert load(one, two, cache=cache)[0] is first
    assert len(cache) == 3
    assert load(one, cache=cache) == [first]
    assert set(cache) == {"other", next(key for key in cache if "one" in key)}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task": "representation"}, 'for the task "representation"'),
        ({"label_names": {"0": "background", "1": "liver"}}, "3 classes, its card names 2"),
        ({"label_names": {"0": "background", "1": "organ", "2": "vessel"}}, "one of them called"),
        ({"crop_voxels": [30, 32, 32]}, "no multiples of 4"),
        ({"modality": "MR"}, "only models of one CT"),
        (
            {"architecture": {"name": "segmentation_unet", "arguments": {"depth": 3}}},
            "arguments of the architecture are wrong",
        ),
        (
            {"architecture": {"name": "segmentation_unet", "arguments": {"channels": [4, 4, 8]}}},
            "of another size",
        ),
    ],
)
def test_a_card_that_contradicts_its_weights_is_refused(tmp_path, fields, words):
    with pytest.raises(ModelError, match=words):
        load(write_tiny_segmenter(tmp_path / "wrong", **fields))


def test_a_model_of_another_task_is_refused(tmp_path):
    with pytest.raises(ModelError, match="tumor synthesis"):
        load("demo-abdomen-early")
    with pytest.raises(ModelError, match="difftumor models download"):
        load("difftumor-unet-liver")


def test_models_that_cannot_work_together_are_refused(tmp_path):
    liver = write_tiny_segmenter(tmp_path / "liver")
    kidney = write_tiny_segmenter(tmp_path / "kidney", organs=["kidney"])
    coarse = write_tiny_segmenter(tmp_path / "coarse", spacing_mm=[2, 2, 2])
    with pytest.raises(ModelError, match="organs differ"):
        load(liver, kidney)
    with pytest.raises(ModelError, match="voxel size differ"):
        load(liver, coarse)


def test_a_swin_unetr_of_unknown_merging_is_refused():
    state = published_file("segmentation_swinunetr")
    renamed = {key.replace(".mlp.fc", ".mlp.linear"): value for key, value in state.items()}
    with pytest.raises(ValueError, match="different orders"):
        segmenter_from("segmentation_swinunetr", renamed)


def test_weights_that_do_not_fit_are_named():
    state = published_tensors(tiny_unet())
    short = dict(list(state.items())[:-1])
    arguments = tiny_card()["architecture"]["arguments"]
    with pytest.raises(ValueError, match=r"1 tensors are missing.*model\.2\.1\.conv\.unit0"):
        segmenter_from("segmentation_unet", short, arguments)
    with pytest.raises(ValueError, match="for example strange"):
        segmenter_from("segmentation_unet", state | {"strange": torch.zeros(1)}, arguments)


def test_sizes_that_the_networks_take():
    assert size_factor("segmentation_unet") == 16
    assert size_factor("segmentation_unet", SegmenterArguments(channels=(4, 8, 8))) == 4
    assert size_factor("segmentation_swinunetr") == 32
    with pytest.raises(ValueError, match="there is no segmentation network"):
        build_segmenter("segmentation_vnet")
