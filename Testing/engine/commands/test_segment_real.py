"""Real tumors of the liver run end to end: geometry and rules; the figures are what they are."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.cli import main
from difftumor.images.volumes import read_mask, read_volume
from Testing.tiny_segmenter import write_tiny_segmenter


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_tiny_segmenter(tmp_path_factory.mktemp("model") / "tiny"))


def segment(image: Path, out: Path, model: str, *more: object) -> np.ndarray:
    words = ["segment", str(image), "--out", str(out), "--model", model, "--device", "cpu"]
    assert main([*words, "--overlap", "0", "--quiet", *map(str, more)]) == 0
    return np.asarray(nib.load(out).dataobj)


def test_dicom_series_with_dicom_masks(shared, tmp_path, model):
    archive = shared / "data/ct_ircadb17/ircadb01_17_slices066-118_unmodified.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    scan = next(path for path in tmp_path.rglob("PATIENT_DICOM") if path.is_dir())
    masks = next(path for path in tmp_path.rglob("MASKS_DICOM") if path.is_dir())
    labels = segment(scan, tmp_path / "out.nii.gz", model, "--organ", masks / "liver")
    volume = read_volume(scan)
    assert labels.shape == volume.grid.shape
    assert np.allclose(nib.load(tmp_path / "out.nii.gz").affine, volume.affine, atol=1e-4)
    liver = read_mask(masks / "liver", None, volume.grid)
    assert np.array_equal(labels > 0, liver)
    result = json.loads((tmp_path / "out.json").read_text())["result"]
    assert result["windows"]["computed"] < result["windows"]["of"] / 2
    # The two tumors, as reference of an evaluation.
    tumors = [read_mask(path, None, volume.grid) for path in sorted(masks.glob("livertumor*"))]
    reference = np.logical_or.reduce(tumors)
    assert reference.any()
    path = tmp_path / "reference.nii.gz"
    nib.save(nib.Nifti1Image(reference.astype(np.uint8), volume.affine), path)
    report = tmp_path / "report.json"
    words = ["evaluate", str(tmp_path / "out.nii.gz"), str(path), "--report", str(report)]
    assert main([*words, "--organ", "liver", "--quiet"]) == 0
    (case,) = json.loads(report.read_text())["cases"]
    assert 1 <= len(case["tumors"]) <= 4
    assert case["reference_mm3"] > 50_000


def test_a_single_slice(shared, tmp_path, model):
    folder = shared / "data/ct_msd_liver_tumour_slice_394"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    labels = segment(folder / "ct_394.nii.gz", tmp_path / "out.nii.gz", model)
    assert labels.shape == (512, 512, 1)
    report = tmp_path / "report.json"
    words = ["evaluate", str(tmp_path / "out.nii.gz"), str(folder / "gt_394.nii.gz")]
    assert main([*words, "--report", str(report), "--quiet"]) == 0
    (case,) = json.loads(report.read_text())["cases"]
    assert case["reference_mm3"] == pytest.approx(2791 * 0.7871**2 * 1.5, rel=1e-3)
