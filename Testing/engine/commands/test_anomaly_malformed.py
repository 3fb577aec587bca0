"""Every malformed input of `difftumor anomaly`: exit code 1 or 2, one clear sentence, nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.cli import main
from Testing.engine.commands.test_malformed_inputs import model_files
from Testing.engine.images.test_malformed_volumes import MALFORMED, MASKS
from Testing.tiny_anomaly import MR, write_tiny_model

FAST = {"noise_level": 300, "guidance_scale": 10.0, "steps": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_tiny_model(folder, size=16, recommended=FAST)


@pytest.fixture(scope="module")
def head_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "head"
    return write_tiny_model(folder, size=16, recommended=FAST, id="tiny-head", **MR)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    return tmp_path / "in", tmp_path / "out"


@pytest.fixture
def scan(folders) -> Path:
    voxels = np.random.default_rng(0).normal(100, 20, (20, 18, 22)).astype(np.int16)
    return saved(folders[0] / "scan.nii.gz", voxels)


@pytest.fixture
def organ(folders) -> str:
    mask = np.zeros((20, 18, 22), np.uint8)
    mask[3:17, 3:15, 8:12] = 1
    return str(saved(folders[0] / "organ.nii.gz", mask))


def saved(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def refused(capsys, out: Path, *words: str | Path, code: int = 1) -> str:
    """Run `anomaly`, expect a refusal, return what was said."""
    outputs = [
        "--out",
        out / "map.nii.gz",
        "--mask-out",
        out / "mask.nii.gz",
        "--report",
        out / "r.json",
    ]
    assert main(["anomaly", *map(str, [*words, *outputs]), "--quiet"]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith("difftumor: ")
    assert len(said) > 50
    assert not list(out.rglob("*")), "something was left behind"
    return said


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_scan(folders, model, capsys, name):
    build, _error, why = MALFORMED[name]
    path = build(folders[0])
    assert re.search(why, refused(capsys, folders[1], path, "--model", model), re.S)


@pytest.mark.parametrize("name", MASKS)
def test_a_malformed_organ_mask(folders, scan, model, capsys, name):
    build, label, _why = MASKS[name]
    mask = build(folders[0])
    argument = f"{mask}:{label}" if label is not None else str(mask)
    refused(capsys, folders[1], scan, "--model", model, "--organ", argument)


@pytest.mark.parametrize("name", ["empty.pt", "pickle.pt", "image.safetensors", "no-such-model"])
def test_a_malformed_model(folders, scan, capsys, name):
    path = model_files(folders[0]).get(name, name)
    refused(capsys, folders[1], scan, "--model", path)
    assert not Path("/tmp/difftumor-canary").exists()


def test_a_model_for_something_else(folders, scan, model, head_model, capsys):
    said = refused(capsys, folders[1], scan, "--model", "demo-abdomen-early")
    assert "no anomaly model" in said
    said = refused(capsys, folders[1], scan, "--model", head_model, code=2)
    assert "t1c" in said
    code = main(["synthesize", str(scan), "--out", str(folders[1] / "t.nii.gz"), "--model", str(model),
                 "--quiet", "--center", "9", "9", "9", "--radii", "5", "5", "5"])  # fmt: skip
    assert code == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not list(folders[1].iterdir())


def test_sequences_of_different_geometry(folders, head_model, capsys):
    values = np.random.default_rng(1).uniform(50, 90, (16, 16, 4)).astype(np.float32)
    words = []
    for name in ("t1", "t1c", "t2", "flair"):
        affine = np.diag([2.0, 2, 2, 1])
        affine[0, 3] = 3.0 if name == "flair" else 0.0
        words.append(saved(folders[0] / f"{name}.nii.gz", values, affine))
    said = refused(capsys, folders[1], *words, "--model", head_model)
    assert "t1 and flair have different geometry" in said
    assert "Registration" in said


def test_a_head_with_its_skull_wants_a_mask(folders, head_model, capsys):
    rng = np.random.default_rng(1)
    names = ("t1", "t1c", "t2", "flair")
    words = [
        saved(folders[0] / f"{n}.nii.gz", rng.uniform(50, 90, (16, 16, 4)).astype(np.float32))
        for n in names
    ]
    assert "brain mask" in refused(capsys, folders[1], *words, "--model", head_model)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (lambda v: np.full_like(v, 60), "all 60"),
        (lambda v: np.where(np.arange(22) < 3, v, 60), "one and the same value"),
        (lambda v: np.where(np.arange(22) < 3, v, -900), "one and the same value"),
    ],
)
def test_an_organ_of_one_value(folders, scan, organ, model, capsys, values, why):
    voxels = values(np.asarray(nib.load(scan).dataobj))
    path = saved(folders[0] / "flat.nii.gz", voxels.astype(np.int16))
    assert why in refused(capsys, folders[1], path, "--organ", organ, "--model", model)


def test_values_that_are_no_numbers_in_the_organ(folders, organ, model, capsys):
    voxels = np.random.default_rng(0).normal(100, 20, (20, 18, 22)).astype(np.float32)
    voxels[8, 8, 9] = np.nan
    path = saved(folders[0] / "nan.nii.gz", voxels)
    assert "finite" in refused(capsys, folders[1], path, "--organ", organ, "--model", model)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--slices", "0:3"), "hold nothing of the organ"),
        (("--slices", "10:40"), "outside the image"),
        (("--slices", "22"), "outside the image"),
    ],
)
def test_slices_that_are_not_there(folders, scan, organ, model, capsys, words, why):
    assert why in refused(capsys, folders[1], scan, "--organ", organ, "--model", model, *words)


def test_a_level_that_the_steps_do_not_reach(folders, scan, organ, tmp_path, capsys):
    short = write_tiny_model(
        tmp_path / "short", size=16, T=200, recommended={**FAST, "noise_level": 100}
    )
    words = (scan, "--organ", organ, "--model", short)
    assert "201" not in refused(capsys, folders[1], *words, "--noise-level", "900")
    assert refused(capsys, folders[1], *words, "--steps", "400")


def changed_card(model: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(model, folder)
    card = json.loads((folder / "model.json").read_text())
    for key, value in changes.items():
        if value is None:
            card.pop(key)
        else:
            card[key] = value
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"healthy_index": None},
        {"healthy_index": 7},
        {"channel_order": ["ct", "pet"]},
        {"window_hu": None},
        {"spacing_mm": [0.0, 1.0]},
        {"architecture": {"name": "guided_diffusion", "arguments": {"unet": {}, "classifier": {}}}},
        {"sha256": "0" * 64},
    ],
)
def test_a_card_that_says_too_little_or_the_wrong_thing(
    folders, scan, organ, model, tmp_path, capsys, changes
):
    bad = changed_card(model, tmp_path / "bad", **changes)
    code = 2 if "channel_order" in changes else 1
    refused(capsys, folders[1], scan, "--organ", organ, "--model", bad, code=code)


def test_outputs_that_cannot_be_written(folders, scan, organ, model, capsys):
    out = folders[1]
    words = ["anomaly", str(scan), "--organ", organ, "--model", str(model), "--quiet"]
    for bad in (["--out", str(scan)], ["--out", organ, "--overwrite"], ["--out", str(out / "map.txt")],
                ["--out", str(out / "none" / "map.nii.gz")],
                ["--out", str(out / "a.nii.gz"), "--mask-out", str(out / "a.nii.gz")],
                ["--report", str(out / "none" / "r.json")]):  # fmt: skip
        assert main([*words, *bad]) == 1, bad
        assert "Traceback" not in capsys.readouterr().err
    assert not list(out.iterdir())
    assert scan.is_file()


def test_a_full_disk_leaves_nothing(folders, scan, organ, model, capsys, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("difftumor.commands.run.write_json", full)
    said = refused(capsys, folders[1], scan, "--organ", organ, "--model", model)
    assert "disk is full" in said
