"""Import of files and folders from disk: what it is decides where it goes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from difftumor.anomaly.files import import_pair
from difftumor.anomaly.model import load_anomaly_model
from difftumor.networks.guided_classifier import GuidedClassifierArguments
from difftumor.networks.guided_unet import GuidedUNetArguments
from difftumor.weights import cards as model_cards
from difftumor.weights import models
from difftumor.weights import registry as model_registry
from difftumor.weights.checkpoints import identify, read_checkpoint, write_model_folder
from difftumor.weights.models import Identification, ModelError
from Testing.engine.weights.test_model_folders import synthesis_card, synthesis_tensors
from Testing.tiny_anomaly import tiny_networks

LIVER = "difftumor-liver-early"
CONTENT = b"no real checkpoint, but nobody looks inside before it is opened" * 100


def fake(kind: str, **facts):
    """Stands for `checkpoints.identify`."""
    return lambda path: Identification(kind, f"a {kind}", facts)


def test_a_file_is_imported_by_its_content_and_name(tmp_path: Path):
    path = tmp_path / "liver_early.pt"
    path.write_bytes(CONTENT)
    found = models.import_file(path, identify=fake("difftumor_diffusion", T=4))
    assert found.id == LIVER
    assert found.path.read_bytes() == path.read_bytes()
    assert models.verify(LIVER) == found.card["sha256"]
    assert sorted(p.name for p in found.path.parent.iterdir()) == [
        ".lock",
        "installed.json",
        "liver_early.pt",
    ]


def test_a_file_whose_organ_is_not_told_asks_for_it(tmp_path: Path):
    path = tmp_path / "download(1).pt"
    path.write_bytes(CONTENT)
    with pytest.raises(ModelError, match=r"does not tell which organ.*difftumor-kidney-early"):
        models.import_file(path, identify=fake("difftumor_diffusion", T=4))
    found = models.import_file(path, LIVER, identify=fake("difftumor_diffusion", T=4))
    assert found.path.name == "liver_early.pt"


def test_the_only_fitting_model_needs_no_name(tmp_path: Path):
    path = tmp_path / "renamed.ckpt"
    path.write_bytes(CONTENT)
    found = models.import_file(path, identify=fake("difftumor_autoencoder"))
    assert found.id == "difftumor-autoencoder"


def test_another_model_than_the_one_named_says_where_it_belongs(tmp_path: Path):
    path = tmp_path / "x.pt"
    path.write_bytes(CONTENT)
    for name in (fake("segmentation_unet"), fake("difftumor_diffusion", T=200)):
        with pytest.raises(
            ModelError, match=r"not what difftumor-liver-early is.*imported as diff"
        ):
            models.import_file(path, LIVER, identify=name)
    for chosen in (None, LIVER):
        with pytest.raises(ModelError, match="registry has no place"):
            models.import_file(path, chosen, identify=fake("vgg16"))
    with pytest.raises(ModelError, match="no model 'x'"):
        models.import_file(path, "x", identify=fake("vgg16"))
    assert not list(models.models_folder().glob("*/*.pt*"))


def test_what_is_no_model_cannot_be_imported(tmp_path: Path):
    with pytest.raises(ModelError, match="nothing at"):
        models.import_file(tmp_path / "x.pt", identify=identify)
    page = tmp_path / "liver_early.pt"
    page.write_text("<html>")
    with pytest.raises(ModelError, match="is a web page"):
        models.import_file(page, LIVER, identify=identify)


def test_a_cancelled_or_failed_import_leaves_nothing(tmp_path: Path):
    path = tmp_path / "liver_early.pt"
    path.write_bytes(CONTENT)
    for error in (KeyboardInterrupt, OSError(28, "No space left on device")):

        def fail(_done: int, _total: int, error=error) -> None:
            raise error

        expected = KeyboardInterrupt if error is KeyboardInterrupt else ModelError
        with pytest.raises(expected):
            models.import_file(path, identify=fake("difftumor_diffusion", T=4), callback=fail)
        assert [p.name for p in (models.models_folder() / LIVER).iterdir()] == [".lock"]


def test_an_import_must_equal_the_first_copy(tmp_path: Path):
    path = tmp_path / "liver_early.pt"
    path.write_bytes(CONTENT)
    models.import_file(path, identify=fake("difftumor_diffusion", T=4))
    models.remove(LIVER)
    path.write_bytes(CONTENT + b"more")
    with pytest.raises(ModelError, match="pinned the first time"):
        models.import_file(path, identify=fake("difftumor_diffusion", T=4))
    assert path.exists()
    path.write_bytes(CONTENT)
    assert models.import_file(path, identify=fake("difftumor_diffusion", T=4)).id == LIVER


def test_a_model_folder_is_imported_under_its_own_or_another_name(tmp_path: Path):
    folder = tmp_path / "export"
    write_model_folder(folder, synthesis_tensors(), synthesis_card())
    found = models.import_file(folder, identify=identify)
    assert found.path == models.models_folder() / "my-model"
    assert read_checkpoint(found.path).kind == "difftumor_diffusion"
    assert models.verify("my-model") == found.card["sha256"]
    with pytest.raises(ModelError, match="already a model my-model"):
        models.import_file(folder / "model.json", identify=identify)
    assert models.import_file(folder, "second", identify=identify).id == "second"
    for name, words in ((LIVER, "as a model of the registry"), ("../x", "cannot be the name")):
        with pytest.raises(ModelError, match=words):
            models.import_file(folder, name, identify=identify)
    (folder / "model.safetensors").write_bytes(CONTENT)
    with pytest.raises(ModelError):
        models.import_file(folder, "third", identify=identify)
    names = sorted(path.name for path in models.models_folder().iterdir())
    assert names == [".lock", "my-model", "second"]
    assert models.remove("second") > 0
    assert models.find_model("my-model").id == "my-model"
    assert not (models.models_folder() / "second").exists()


def test_a_real_synthetic_checkpoint_goes_all_the_way(tmp_path: Path):
    path = tmp_path / "kidney_early.pt"
    torch.save({"step": 3, "model": {}, "ema": synthesis_tensors(), "scaler": {}}, path)
    found = models.import_file(path, identify=identify)
    assert found.id == "difftumor-kidney-early"
    assert read_checkpoint(found.path, "difftumor_diffusion").facts["T"] == 4


# Pairs: U-Net and classifier in two files


PAIR = "wolleb-brats"


@pytest.fixture
def small_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, nn.Module]:
    """The registry with very small networks in the place of the published ones."""
    networks = tiny_networks(channels=4)
    content = json.loads((models.resources_folder() / "models.json").read_text())
    arguments = content["groups"]["wolleb"]["architecture"]["arguments"]
    for name, network in zip(("unet", "classifier"), networks, strict=True):
        arguments[name] = asdict(network.arguments)
    resources = tmp_path / "resources"
    resources.mkdir()
    (resources / "models.json").write_text(json.dumps(content))
    schema = models.resources_folder() / "model.schema.json"
    (resources / schema.name).write_bytes(schema.read_bytes())
    for module in (model_cards, model_registry, models):
        monkeypatch.setattr(module, "resources_folder", lambda: resources)
    return networks


def saved(folder: Path, **networks: nn.Module) -> list[Path]:
    """Bare state dicts, as the published training code writes them."""
    paths = [folder / f"{name}.pt" for name in networks]
    for path, network in zip(paths, networks.values(), strict=True):
        torch.save(network.state_dict(), path)
    return paths


def test_the_registry_knows_the_published_shapes():
    arguments = models.registry()[PAIR]["architecture"]["arguments"]
    assert GuidedUNetArguments(**arguments["unet"]) == GuidedUNetArguments(256, 4)
    assert GuidedClassifierArguments(**arguments["classifier"]) == GuidedClassifierArguments(256, 4)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", [None, PAIR])
def test_a_pair_of_files_becomes_a_model_folder(tmp_path, small_pair, order, name):
    unet, classifier = small_pair
    paths = saved(tmp_path, unet=unet, classifier=classifier)
    with pytest.raises(ModelError, match=r"is not installed. Get its two files.*https://www.drop"):
        models.find_model(PAIR)
    found = import_pair(*paths[::order], name)
    assert found.id == PAIR
    assert found.card["healthy_index"] == 0
    model = load_anomaly_model(PAIR, "cpu", {}, lambda *_: None)
    assert torch.equal(model.unet.out[2].weight, unet.out[2].weight)
    assert torch.equal(model.classifier.out[2].c_proj.bias, classifier.out[2].c_proj.bias)
    assert model.slice_format.transposed
    row = next(each for each in models.list_models() if each["id"] == PAIR)
    assert (row["installed"], row["verified"]) == (True, True)
    assert models.verify(PAIR) == found.card["sha256"]
    assert models.remove(PAIR) > 0
    assert not found.path.exists()


def test_halves_and_strangers_are_no_pair(tmp_path, small_pair):
    unet, classifier = small_pair
    other = tiny_networks(channels=4, size=64)[1]
    paths = saved(tmp_path, unet=unet, classifier=classifier, other=other)
    with pytest.raises(ModelError, match=r"one half of a model.*models import UNET CLASSIFIER"):
        models.import_file(paths[0], identify=identify)
    with pytest.raises(ModelError, match="same half of a model"):
        import_pair(paths[0], paths[0])
    with pytest.raises(ModelError, match="does not fit its architecture"):
        import_pair(paths[0], paths[2])
    with pytest.raises(ModelError, match=r"not published as two files.*wolleb-brats"):
        import_pair(*paths[:2], LIVER)
    with pytest.raises(ModelError, match="stable address"):
        models.download(PAIR, accept_licence=True)
    assert not (models.models_folder() / PAIR).exists()
    import_pair(*paths[:2])
    with pytest.raises(ModelError, match="exists"):
        import_pair(*paths[:2])
