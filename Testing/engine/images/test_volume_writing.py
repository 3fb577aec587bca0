"""Writing volumes: the whole file or nothing, equal bytes for equal volumes, and never over the input."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from difftumor.images import volumes
from difftumor.images.volumes import (
    Volume,
    VolumeError,
    VolumeWriteError,
    read_volume,
    write_volume,
)
from Testing.engine.images.volume_builder import hu_array, save_nifti


@pytest.fixture
def volume(tmp_path) -> Volume:
    (tmp_path / "in").mkdir()
    return read_volume(save_nifti(tmp_path / "in/ct.nii.gz", hu_array()))


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.NII.GZ", "x.nrrd", "x.mha"])
def test_equal_volumes_make_equal_files_with_their_facts_inside(tmp_path, volume, name):
    facts = {"description": "Synthetic tumor", "seed": 3, "text": "ü\nnew line"}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_volume(volume, tmp_path / folder / name, metadata=facts)
        assert [p.name for p in (tmp_path / folder).iterdir()] == [name]
    data = (tmp_path / "a" / name).read_bytes()
    assert data == (tmp_path / "b" / name).read_bytes()
    plain = gzip.decompress(data) if name.lower().endswith(".gz") else data
    assert b'"seed": 3' in plain.replace(b'\\"', b'"')
    np.testing.assert_array_equal(read_volume(tmp_path / "a" / name).array, volume.array)


def test_a_mask_takes_the_place_of_its_volume(tmp_path, volume):
    mask = volume.array > 500
    write_volume(volume.with_array(mask.astype(np.uint8)), tmp_path / "m.nii.gz")
    write_volume(Volume.of_mask(mask, volume.affine), tmp_path / "n.nrrd")
    write_volume(volume.with_array(mask), tmp_path / "b.mha")
    for name in ("m.nii.gz", "n.nrrd", "b.mha"):
        again = read_volume(tmp_path / name)
        assert again.array.dtype == np.uint8
        np.testing.assert_array_equal(again.array, mask)
        assert again.grid.same_as(volume.grid)
    with pytest.raises(VolumeError, match="not \\(9, 8, 17\\)"):
        volume.with_array(mask[1:])


def test_an_existing_output_is_kept_unless_overwriting_is_asked_for(tmp_path, volume):
    path = tmp_path / "x.nii"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        write_volume(volume, path)
    assert path.read_text() == "precious"
    write_volume(volume, path, overwrite=True)
    assert read_volume(path).grid.same_as(volume.grid)


@pytest.mark.parametrize("link", [False, True])
def test_the_input_is_never_the_output(tmp_path, volume, link):
    before = volume.path.read_bytes()
    target = volume.path
    if link:
        target = tmp_path / "same.nii.gz"
        os.link(volume.path, target)
    with pytest.raises(VolumeError, match="never changed"):
        write_volume(volume, target, overwrite=True)
    assert volume.path.read_bytes() == before


BAD_OUTPUTS = [
    ("x.png", VolumeError, "no output format"),
    ("x", VolumeError, "no output format"),
    (".nii.gz", VolumeError, "no output format"),
    ("x.mhd", VolumeError, "no output format"),
    ("missing/x.nii.gz", FileNotFoundError, "folder .*missing"),
    ("in", VolumeError, "no output format"),
    ("folder.nii", VolumeError, "is a folder"),
]


@pytest.mark.parametrize(("name", "error", "why"), BAD_OUTPUTS)
def test_an_output_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path, volume, name, error, why
):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(error, match=why):
        write_volume(volume, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.nii", "in"]


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd", "x.mha"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, name):
    """The operating system refuses bytes beyond a limit, as on a full disk, also to ITK's writers."""
    (tmp_path / "out").mkdir()
    array = np.random.default_rng(0).integers(-1000, 1000, (60, 50, 40)).astype(np.int16)
    old = Volume(array[:5, :5, :5], np.eye(4))
    write_volume(old, tmp_path / "out" / name)
    before = (tmp_path / "out" / name).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(
            VolumeWriteError, match=r"could not be written.*Nothing was left.*space"
        ):
            write_volume(Volume(array, np.eye(4)), tmp_path / "out" / name, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_bytes() == before


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MemoryError(), KeyboardInterrupt()]
)
def test_whatever_stops_a_writer_nothing_is_left(tmp_path, volume, monkeypatch, error):
    def half_a_file(volume, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setitem(volumes.WRITERS, ".nii", half_a_file)
    with pytest.raises(
        KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else VolumeWriteError
    ) as caught:
        write_volume(volume, tmp_path / "x.nii")
    if isinstance(error, OSError):
        assert caught.value.errno == 28
        assert "No space left" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.skipif(
    not Path("/sys/kernel").is_dir(), reason="needs a folder that even root cannot write to (Linux)"
)
def test_a_folder_that_may_not_be_written_is_said(volume):
    with pytest.raises(VolumeWriteError, match="permissions of the folder"):
        write_volume(volume, "/sys/kernel/x.nii")


def test_the_engine_reads_volumes_without_torch():
    code = "import sys, difftumor.images.volumes; sys.exit('torch' in sys.modules)"
    folder = Path(volumes.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
