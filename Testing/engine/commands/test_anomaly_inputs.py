"""Which file is which image of a case, and which cases a folder holds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.commands.cases import cases_in
from difftumor.commands.console import Reporter
from difftumor.commands.inputs import CaseFiles, assign_channels, read_images
from difftumor.images.mr import CaseError
from difftumor.options import UsageError

MR = ("t1", "t1c", "t2", "flair")


def touched(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [str(folder / name) for name in names]


def named(found: dict[str, Path]) -> dict[str, str]:
    return {channel: path.name for channel, path in found.items()}


def test_one_image_needs_no_name(tmp_path):
    (word,) = touched(tmp_path, "t2-flair-thorax.nii.gz")  # whatever it is called
    assert named(assign_channels([word], ("ct",))) == {"ct": "t2-flair-thorax.nii.gz"}
    assert named(assign_channels([f"ct={word}"], ("ct",))) == {"ct": "t2-flair-thorax.nii.gz"}


def test_sequences_are_told_by_name_and_come_in_the_models_order(tmp_path):
    words = touched(tmp_path, "a_flair.nii.gz", "a_t1ce.nii.gz", "a_t2.nii.gz", "a_t1.nii.gz")
    found = assign_channels(words, MR)
    assert list(found) == list(MR)
    assert named(found)["t1c"] == "a_t1ce.nii.gz"


def test_a_named_file_wins_over_what_its_name_says(tmp_path):
    words = touched(tmp_path, "a_t2.nii.gz", "scan7.nii.gz", "b_flair.nii.gz", "b_t1.nii.gz")
    words[0] = f"t1ce={words[0]}"
    words[1] = f"T2={words[1]}"
    assert named(assign_channels(words, MR)) == {
        "t1": "b_t1.nii.gz",
        "t1c": "a_t2.nii.gz",
        "t2": "scan7.nii.gz",
        "flair": "b_flair.nii.gz",
    }


def test_the_last_image_goes_where_there_is_room(tmp_path):
    words = touched(tmp_path, "t1.nii.gz", "t1c.nii.gz", "t2.nii.gz", "series9.nii.gz")
    words = [f"{channel}={word}" for channel, word in zip(MR, words[:3], strict=False)] + [words[3]]
    assert named(assign_channels(words, MR))["flair"] == "series9.nii.gz"


def test_a_folder_called_after_another_sequence_does_not_matter(tmp_path):
    words = touched(tmp_path / "flair", *(f"{name}.nii.gz" for name in MR))
    assert named(assign_channels(words, MR)) == {name: f"{name}.nii.gz" for name in MR}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["a_t1.nii.gz", "a_t1c.nii.gz", "a_t2.nii.gz"], "flair is missing"),
        (["a_t1.nii.gz"], "t1c, t2, flair are missing"),
        (["t1=a.nii.gz", "t1=b.nii.gz", "c_t2.nii.gz", "c_flair.nii.gz"], "given twice"),
        (["dwi=a.nii.gz"], "no image that this model takes"),
        (["x_t1.nii.gz", "y_t1.nii.gz", "a_t1c.nii.gz", "a_t2.nii.gz", "a_flair.nii.gz"], "not clear"),
        (["a_t1.nii.gz", "scan.nii.gz", "a_t2.nii.gz", "b.nii.gz"], "not clear"),
        (["p/t1.nii.gz", "q/t1.nii.gz", "t2.nii.gz", "flair.nii.gz"], "one file name"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_asked(words, why):
    with pytest.raises(UsageError, match=why):
        assign_channels(words, MR)


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    (word,) = touched(tmp_path, "kernel=b30.nii.gz")
    assert named(assign_channels([word], ("ct",))) == {"ct": "kernel=b30.nii.gz"}


def test_two_images_for_a_model_of_one():
    with pytest.raises(UsageError, match="one CT, not 2"):
        assign_channels(["a.nii.gz", "b.nii.gz"], ("ct",))


def test_cases_of_a_folder_of_scans(tmp_path):
    touched(tmp_path, "b.nii.gz", "a.nrrd", "a-organs.nii.gz", "b-organs.nii.gz", "notes.txt",
            ".hidden.nii.gz", "series/1.dcm", "images/c.nii.gz")  # fmt: skip
    (tmp_path / "empty").mkdir()
    cases = cases_in(tmp_path, ("ct",), {"organ": str(tmp_path / "{case}-organs.nii.gz:5")})
    assert [case.name for case in cases] == ["a", "b", "series"]
    assert cases[2].files == {"ct": tmp_path / "series"}


def test_cases_of_several_sequences(tmp_path):
    touched(tmp_path, *(f"anna-{name}.nii.gz" for name in MR))
    touched(tmp_path, *(f"bert/{name}.nii.gz" for name in MR))
    touched(
        tmp_path, *(f"carl/BraTS-GLI-7-{n}.nii.gz" for n in ("t1n", "t1c", "t2w", "t2f", "seg"))
    )
    touched(tmp_path, "dora-t1.nii.gz", "dora-t2.nii.gz")  # two sequences are missing
    cases = cases_in(tmp_path, MR, None)
    assert [case.name for case in cases] == ["BraTS-GLI-7", "anna", "bert"]
    assert [case.files["flair"].name for case in cases] == [
        "BraTS-GLI-7-t2f.nii.gz",
        "anna-flair.nii.gz",
        "flair.nii.gz",
    ]


def test_a_folder_without_cases_and_a_template_without_a_place(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        cases_in(tmp_path / "nothing", ("ct",), None)
    with pytest.raises(UsageError, match="holds no image"):
        cases_in(tmp_path, ("ct",), None)
    with pytest.raises(UsageError, match="holds no case with t1, t1c"):
        cases_in(tmp_path, MR, None)
    touched(tmp_path, "a.nii.gz")
    with pytest.raises(UsageError, match=r"Write \{case\}"):
        cases_in(tmp_path, ("ct",), {"organ": "organs.nii.gz:5"})
    touched(tmp_path, "a.nrrd")
    with pytest.raises(UsageError, match="both the case a"):
        cases_in(tmp_path, ("ct",), None)


def image(path: Path, shift: float = 0.0, shape: tuple[int, ...] = (9, 8, 7)) -> Path:
    affine = np.eye(4)
    affine[0, 3] = shift
    values = np.random.default_rng(1).normal(50, 20, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def test_a_case_is_read_with_its_organ_and_described(tmp_path):
    files = {name: image(tmp_path / f"{name}.nii.gz") for name in ("t1", "flair")}
    brain = np.zeros((9, 8, 7), np.uint8)
    brain[2:6, 2:6, 2:5] = 3
    nib.save(nib.Nifti1Image(brain, np.eye(4)), tmp_path / "brain.nii.gz")
    case = CaseFiles(files, f"{tmp_path / 'brain.nii.gz'}:3", modality="MR")
    with Reporter(quiet=True) as reporter:
        read = read_images(case, reporter)
    assert list(read.case.images) == ["t1", "flair"]
    assert read.organ.sum() == 48
    assert list(read.described) == ["t1", "flair", "organ"]
    assert read.described["organ"]["label"] == 3
    assert all(len(entry["sha256"]) == 64 for entry in read.described.values())


def test_sequences_on_different_grids_name_the_remedy(tmp_path):
    files = {"t1": image(tmp_path / "t1.nii.gz"), "flair": image(tmp_path / "f.nii.gz", shift=2.5)}
    with Reporter(quiet=True) as reporter, pytest.raises(CaseError, match="BRAINS"):
        read_images(CaseFiles(files, modality="MR"), reporter)
