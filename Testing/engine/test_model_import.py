"""Import of files and folders from disk: what it is decides where it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from difftumor import models
from difftumor.checkpoints import identify, read_checkpoint, write_model_folder
from difftumor.models import Identification, ModelError
from Testing.engine.test_model_folders import synthesis_card, synthesis_tensors

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
