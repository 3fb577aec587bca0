"""Every malformed input through the program: exit code 1, one clear sentence, no output left behind."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.cli import main
from Testing.engine.images.test_malformed_volumes import MALFORMED, MASKS


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    return tmp_path / "in", tmp_path / "out"


@pytest.fixture
def scan(folders) -> Path:
    path = folders[0] / "scan.nii.gz"
    voxels = np.random.default_rng(0).normal(60, 20, (20, 18, 22)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def refused(capsys, out: Path, *arguments: str) -> str:
    """Run `synthesize`, expect a refusal, return what was said."""
    code = main(["synthesize", *arguments, "--out", str(out / "t.nii.gz"), "--quiet",
                 "--center", "9", "9", "9", "--radii", "5", "5", "5"])  # fmt: skip
    said = capsys.readouterr().err
    assert code == 1, said
    assert "Traceback" not in said
    assert said.startswith("difftumor: ")
    assert len(said) > 50
    assert not list(out.rglob("*")), "something was left behind"
    return said


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_scan(folders, capsys, name):
    build, _error, why = MALFORMED[name]
    path = build(folders[0])
    assert re.search(why, refused(capsys, folders[1], str(path), "--model", "modelled"), re.S)


@pytest.mark.parametrize("name", MASKS)
def test_a_malformed_organ_mask(folders, scan, capsys, name):
    build, label, _why = MASKS[name]
    mask = build(folders[0])
    argument = f"{mask}:{label}" if label is not None else str(mask)
    refused(capsys, folders[1], str(scan), "--model", "modelled", "--organ", argument)


def model_files(folder: Path) -> dict[str, Path]:
    """Files that are no synthesis model."""
    contents = {
        "empty.pt": b"",
        "page.pt": b"<!DOCTYPE html><html><body>Sign in to continue</body></html>",
        "text.ckpt": b"hello",
        "zip.pt": b"PK\x03\x04" + bytes(200),
        "pickle.pt": b"cos\nsystem\n(S'touch /tmp/difftumor-canary'\ntR.",
        "image.safetensors": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize(
    "name",
    [
        "empty.pt",
        "page.pt",
        "text.ckpt",
        "zip.pt",
        "pickle.pt",
        "image.safetensors",
        "no-such-model",
    ],
)
def test_a_malformed_model(folders, scan, capsys, name):
    path = model_files(folders[0]).get(name, name)
    refused(capsys, folders[1], str(scan), "--model", str(path))
    assert not Path("/tmp/difftumor-canary").exists()


CONTAINERS = Path(__file__).parents[2] / "parity" / "containers"


@pytest.mark.parametrize("path", sorted(CONTAINERS.glob("*.*t")), ids=lambda path: path.name)
def test_a_readable_file_of_the_wrong_kind_says_what_it_is(folders, scan, capsys, path):
    said = refused(capsys, folders[1], str(scan), "--model", str(path))
    assert path.name in said
