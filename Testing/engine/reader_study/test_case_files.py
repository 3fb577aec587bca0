"""Images of a package: read as nibabel reads them, and refused when they are not what was packed."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from difftumor.reader_study.case_files import read_case
from difftumor.reader_study.study import StudyError, case_sha256


@pytest.fixture
def case(tmp_path):
    """An anisotropic, shifted image and its file."""
    hu = np.random.default_rng(1).integers(-1000, 1000, (7, 5, 3)).astype(np.int16)
    affine = np.diag([0.8, 1.1, 2.5, 1.0])
    affine[:3, 3] = (-2.4, -2.2, -2.5)
    path = tmp_path / "abcd.nii"
    nib.save(nib.Nifti1Image(hu, affine), path)
    return path, hu, affine


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32])
def test_voxels_and_place_are_those_of_nibabel(case, kind):
    path, hu, affine = case
    nib.save(nib.Nifti1Image(hu.astype(kind), affine), path)
    read = read_case(path, case_sha256(path.stem, path))
    assert read.array.dtype == kind
    assert np.array_equal(read.array, hu.astype(kind))
    assert read.array.flags.f_contiguous
    assert np.allclose(read.affine, affine, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b[:-1], "cut short"),
        (lambda b: b[:100], "no NIfTI"),
        (lambda b: b"", "no NIfTI"),
        (lambda b: b[:344] + b"ni1\0" + b[348:], "no NIfTI"),
        (lambda b: b[:70] + b"\x08\0" + b[72:], "header"),  # int32
        (lambda b: b[:254] + b"\0\0" + b[256:], "header"),  # no sform
        (lambda b: b[:42] + b"\0\0" + b[44:], "header"),
        (lambda b: b[:280] + bytes(48) + b[328:], "place"),
    ],
)
def test_what_is_no_case_is_refused_in_words(case, change, said):
    path = case[0]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StudyError, match=said) as raised:
        read_case(path)
    assert "coordinator" in str(raised.value)


def test_a_changed_voxel_is_seen_by_the_checksum(case):
    path = case[0]
    content = path.read_bytes()
    good = case_sha256(path.stem, path)
    path.write_bytes(content[:-1] + b"\x7f")
    with pytest.raises(StudyError, match="changed"):
        read_case(path, good)


def test_a_missing_file_is_refused_in_words(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        read_case(tmp_path / "none.nii")
