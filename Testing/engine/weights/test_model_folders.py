"""Model folders and cards: whole or not at all, true to their weights, of a version that is understood."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import safetensors.torch
import torch

from difftumor.weights import cards as model_cards
from difftumor.weights import folders as model_folders
from difftumor.weights.checkpoints import (
    identify,
    read_checkpoint,
    read_model_folder,
    write_model_folder,
)
from difftumor.weights.models import ModelError, resources_folder

BETAS = torch.tensor([0.1, 0.4, 0.7, 0.9999])


def synthesis_tensors() -> dict[str, torch.Tensor]:
    """As few tensors as a synthesis model can be recognized by."""
    return {
        "betas": BETAS,
        "denoise_fn.init_conv.weight": torch.randn(3, 2, 1, 2, 2),
        "vqgan.codebook.embeddings": torch.randn(16, 8).half(),
        "vqgan.encoder.conv_first.conv.weight": torch.randn(2, 1, 3, 3, 3).half(),
    }


def synthesis_card(**changes) -> dict:
    card = {
        "id": "my-model",
        "title": "My model",
        "task": "synthesis",
        "organs": ["liver"],
        "modality": "CT",
        "architecture": {"name": "difftumor_diffusion", "arguments": {"dim": 24}},
        "T": 4,
        "schedule": "cosine",
        "spacing_mm": [1, 1, 1],
        "window_hu": [-175, 250],
        "intensity_range": [-1, 1],
        "autoencoder": "inside",
        "licence": {"name": "Apache-2.0"},
        "training_data": ["phantoms"],
        "recommended": {"keep_grain": True},
    }
    return {key: value for key, value in {**card, **changes}.items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model_folder(tmp_path / "my-model", synthesis_tensors(), synthesis_card())
    return tmp_path / "my-model"


def change_card(folder: Path, **changes) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["model.schema.json", "models.schema.json"])
def test_the_schemas_are_valid_schemas(name: str):
    schema = json.loads((resources_folder() / name).read_text())
    assert schema["$schema"].endswith("2020-12/schema")
    jsonschema.Draft202012Validator.check_schema(schema)


def test_what_is_written_is_read_again(tmp_path: Path):
    tensors = synthesis_tensors()
    written = write_model_folder(tmp_path / "a" / "b", tensors, synthesis_card())
    found, card = read_model_folder(tmp_path / "a" / "b")
    assert card == written
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor)
    assert card["schema_version"] == 1
    assert card["code_minimum"] == tensors["vqgan.codebook.embeddings"].min().item()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b"]


def test_a_model_folder_is_read_like_any_checkpoint(folder: Path):
    found = read_checkpoint(folder, "difftumor_diffusion")
    assert found.kind == "difftumor_diffusion"
    assert found.facts["card"]["id"] == "my-model"
    assert found.facts["T"] == 4
    what = identify(folder)
    assert what.kind == "model_folder"
    assert what.facts["content"] == "difftumor_diffusion"
    assert "My model" in what.sentence
    assert "early tumors (T = 4)" in what.sentence
    assert identify(folder / "model.safetensors").kind == "difftumor_diffusion"


def test_tensors_that_share_memory_and_odd_strides_are_written(tmp_path: Path):
    base = torch.randn(4, 6)
    tensors = {**synthesis_tensors(), "denoise_fn.a": base, "denoise_fn.b": base.t()}
    write_model_folder(tmp_path / "x", tensors, synthesis_card())
    assert torch.equal(read_model_folder(tmp_path / "x")[0]["denoise_fn.b"], base.t())


def test_facts_that_the_tensors_tell_need_not_be_given(tmp_path: Path):
    card = write_model_folder(tmp_path / "x", synthesis_tensors(), synthesis_card(T=None))
    assert card["T"] == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"T": 200}, "the card says T = 200, the tensors say 4"),
        ({"code_minimum": -99.0}, "code_minimum = -99"),
        ({"id": "My Model"}, "at id"),
        ({"title": None}, "'title' is a required property"),
        ({"task": "magic"}, "at task"),
        ({"organs": []}, "at organs"),
        ({"spacing_mm": [0, 1, 1]}, "at spacing_mm.0"),
        ({"window_hu": None}, "'window_hu' is a required property"),
        ({"intensity_range": [0, 255]}, "at intensity_range"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"schema_version": 2}, "schema version 2"),
        ({"licence": {"url": "https://x"}}, "'name' is a required property"),
    ],
)
def test_a_card_that_is_not_valid_is_not_written(tmp_path: Path, changes: dict, words: str):
    with pytest.raises(ModelError) as caught:
        write_model_folder(tmp_path / "x", synthesis_tensors(), synthesis_card(**changes))
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["anomaly", "segmentation"])
def test_other_tasks_have_fields_of_their_own(tmp_path: Path, task: str):
    needed = {
        "anomaly": {
            "channel_order": ["CT"],
            "healthy_index": 0,
            "recommended": {
                "noise_level": 500,
                "guidance_scale": 100.0,
                "steps": 100,
                "floor": 0.1,
            },
        },
        "segmentation": {"channel_order": ["CT"], "label_names": {"1": "organ", "2": "tumor"}},
    }[task]
    card = synthesis_card(task=task, **needed)
    write_model_folder(tmp_path / "good", synthesis_tensors(), card)
    missing = next(iter(needed))
    del card[missing]
    card.pop("channel_order", None)
    with pytest.raises(ModelError, match="is a required property"):
        write_model_folder(tmp_path / "bad", synthesis_tensors(), card)


def test_numbers_that_are_not_finite_are_not_exported(tmp_path: Path):
    tensors = synthesis_tensors()
    tensors["denoise_fn.init_conv.weight"][0] = torch.nan
    with pytest.raises(ModelError, match=r"denoise_fn\.init_conv\.weight .*not finite"):
        write_model_folder(tmp_path / "x", tensors, synthesis_card())
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_replaced_only_when_told_and_only_if_it_is_a_model(folder: Path):
    before = (folder / "model.json").read_text()
    with pytest.raises(ModelError, match="exists"):
        write_model_folder(folder, synthesis_tensors(), synthesis_card())
    assert (folder / "model.json").read_text() == before
    write_model_folder(folder, synthesis_tensors(), synthesis_card(title="New"), overwrite=True)
    assert read_model_folder(folder)[1]["title"] == "New"
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"more than a model .notes\.txt."):
        write_model_folder(folder, synthesis_tensors(), synthesis_card(), overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["my-model"]


@pytest.mark.parametrize("step", ["save_file", "write_json", "_move_into_place"])
def test_a_full_disk_leaves_nothing_and_keeps_the_older_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    target = safetensors.torch if step == "save_file" else model_folders
    monkeypatch.setattr(target, step, fail)
    with pytest.raises(ModelError, match="the disk is full"):
        write_model_folder(folder, synthesis_tensors(), synthesis_card(title="New"), overwrite=True)
    monkeypatch.undo()
    assert read_model_folder(folder)[1]["title"] == "My model"
    assert [path.name for path in folder.parent.iterdir()] == ["my-model"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX file size limit")
def test_a_disk_that_really_takes_no_more_leaves_nothing(tmp_path: Path):
    program = f"""
import resource, signal, sys, torch
from difftumor.weights.checkpoints import write_model_folder
from difftumor.weights.models import ModelError
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_model_folders import synthesis_card, synthesis_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
tensors = {{**synthesis_tensors(), "denoise_fn.x": torch.zeros(100_000)}}
try:
    write_model_folder({str(tmp_path / "x")!r}, tensors, synthesis_card())
except ModelError as error:
    sys.exit("was not written" not in str(error))
sys.exit(3)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(model_cards.__file__).parents[2])}
    assert (
        subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode
        == 0
    )
    assert not list(tmp_path.iterdir())


def test_changed_weights_are_noticed(folder: Path):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"not those that model\.json describes"):
        read_model_folder(folder)


def test_an_incomplete_folder_is_explained(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        read_model_folder(folder)
    (folder / "model.json").unlink()
    with pytest.raises(ModelError, match="not a model folder"):
        read_model_folder(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 99}, "schema version 99, this program knows up to 1"),
        ({"schema_version": 0}, "cannot migrate"),
        ({"schema_version": "1"}, "does not say its schema_version"),
        ({"schema_version": True}, "does not say its schema_version"),
        ({"sha256": "abc"}, "at sha256"),
        ({"T": 200}, "the card says T = 200"),
        ({"extra": "text"}, "at extra"),
    ],
)
def test_a_card_that_cannot_be_understood_is_refused(folder: Path, changes: dict, words: str):
    change_card(folder, **changes)
    with pytest.raises(ModelError) as caught:
        read_model_folder(folder)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "NaN", '{"schema_version": 1, "T": NaN}', "[" * 9999]
)
def test_a_card_that_is_no_card_is_refused(folder: Path, text: str):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json"):
        read_model_folder(folder)


def test_an_older_card_is_migrated_step_by_step(folder: Path, monkeypatch: pytest.MonkeyPatch):
    change_card(folder, schema_version=-1, name="Old name")
    migrations = {
        -1: lambda card: {**card, "title": card["name"]},
        0: lambda card: {k: v for k, v in card.items() if k != "name"} | {"description": "new"},
    }
    monkeypatch.setattr(model_cards, "MIGRATIONS", migrations)
    card = read_model_folder(folder)[1]
    assert (card["title"], card["description"]) == ("Old name", "new")
    assert card["schema_version"] == 1
