"""Slice sets: labels, splits, balance, continuation, and the readers of data sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from difftumor import phantom
from difftumor.anomaly.slices import SliceFormat
from difftumor.grids import Grid
from Testing.training.conftest import scan_arrays, write_nifti
from training.data import slice_choice
from training.data import slices as drawing
from training.data.datalists import DatalistError
from training.data.slice_choice import Rules, patient_slices, prepare
from training.data.slice_sets import (
    PatientSlices,
    SliceSetError,
    SliceSetWriter,
    read_slice_set,
)
from training.data.slice_sources import (
    Patient,
    brats_folders,
    brats_patient,
    phantom_abdomen,
    phantom_head,
    split_patients,
    split_seeds,
)
from training.data.slices import Format, Phantoms, main

CT = SliceFormat(32, (2.0, 2.0), (0.0, 200.0))
ALL = Rules(per_patient=100, least_lesion_mm2=80, least_organ_mm2=50)


def ball_patient(radius: float = 8.0, name: str = "ball") -> Patient:
    """A bright block of 50 x 50 x 20 mm with a darker ball; spacing 1 x 1 x 2 mm, left-handed."""
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    grid = Grid((60, 60, 12), affine)
    i, j, k = np.indices(grid.shape)
    organ = (abs(i - 30) < 25) & (abs(j - 30) < 25) & (k >= 1) & (k <= 10)
    tumor = (i - 22) ** 2 + (j - 35) ** 2 + (2 * (k - 5)) ** 2 <= radius**2
    ct = np.select([tumor & organ, organ], [60, 120], -80).astype(np.int16)
    ct += np.random.default_rng(0).integers(-3, 4, ct.shape).astype(np.int16)
    marks = np.zeros(grid.shape, np.uint8)
    marks[35:43, 20:28, 8] = 3  # 64 mm2 in one slice
    return Patient(name, {"ct": ct}, grid, organ, tumor & organ, marks)


def test_a_slice_is_diseased_from_the_stated_area_on_and_left_out_below():
    patient = ball_patient()
    found = patient_slices(patient, CT, ALL, surplus=100)
    area = patient.tumor.sum(axis=(0, 1))  # mm2, as pixels are 1 mm2
    diseased = set(found.position[found.diseased].tolist())
    assert diseased == {k for k in range(12) if area[k] >= 80}
    small = {k for k in range(12) if 0 < area[k] < 80}
    assert small
    assert not small & set(found.position.tolist())
    assert not found.tumor[~found.diseased].any()
    assert found.tumor[found.diseased].any(axis=(1, 2)).all()


def test_two_small_lesions_are_not_one_large_one():
    patient = ball_patient(radius=0.5)
    patient.tumor[10:17, 10:17, 5] = True  # 49 mm2 each
    patient.tumor[40:47, 40:47, 5] = True
    found = patient_slices(patient, CT, ALL)
    assert not found.diseased.any()
    assert 5 not in found.position


def test_masks_lie_where_the_image_shows_them():
    found = patient_slices(ball_patient(), CT, ALL)
    for image, organ, tumor in zip(found.images, found.organ, found.tumor, strict=True):
        if tumor.any():
            assert image[0][tumor].mean() < image[0][organ & ~tumor].mean() - 0.15
        assert not image[0][~organ].any()
    row = found.position.tolist().index(8)
    assert set(np.unique(found.look_alikes[row])) == {0, 3}
    assert 12 <= (found.look_alikes[row] > 0).sum() <= 20  # 64 mm2 of 4 mm2 pixels


def test_every_third_slice_is_taken_whatever_it_shows():
    found = patient_slices(ball_patient(), CT, replace(ALL, every=3), span=(2, 12))
    assert found.position.tolist() == [2, 5, 8]
    shown = ball_patient().tumor.any(axis=(0, 1))
    assert found.diseased.tolist() == [bool(shown[k]) for k in (2, 5, 8)]
    fewer = patient_slices(ball_patient(), CT, replace(ALL, every=3, per_patient=2), span=(2, 12))
    assert fewer.position.tolist() == [2, 5]
    assert patient_slices(ball_patient(), CT, replace(ALL, every=3), span=(0, 2)) is None


def test_parts_of_the_tumor_are_kept_and_older_sets_have_one(tmp_path: Path):
    patient = ball_patient()
    i, j, k = np.indices(patient.grid.shape)
    core = (i - 22) ** 2 + (j - 35) ** 2 + (2 * (k - 5)) ** 2 <= 16
    patient = replace(patient, labels=np.where(core, 3, patient.tumor).astype(np.uint8))
    growing = SliceSetWriter(tmp_path, "train", CT, {}, 20)
    growing.add("a", patient_slices(patient, CT, ALL))
    growing.finish()
    stored = read_slice_set(tmp_path)
    labels = stored.labels()
    assert set(np.unique(labels)) == {0, 1, 3}
    assert np.array_equal(labels > 0, stored.truth().tumor)
    (tmp_path / "labels.npy").unlink()
    assert np.array_equal(read_slice_set(tmp_path).labels(), stored.truth().tumor)


def test_paper_a_leaves_out_faint_lesions():
    loud = replace(ALL, least_contrast=0.1)
    assert patient_slices(ball_patient(), CT, loud).diseased.any()
    faint = replace(ALL, least_contrast=0.4)
    assert not patient_slices(ball_patient(), CT, faint).diseased.any()


def test_look_alikes_are_sought_in_both_labels():
    usable = np.ones(20, bool)
    similar = np.where(np.arange(20) < 6, 50.0, 0.0)
    chosen = slice_choice._choose(np.random.default_rng(0), usable, similar, 8, 0.5)
    assert len(set(chosen)) == 8
    assert sum(similar[k] > 0 for k in chosen) == 4
    chosen = slice_choice._choose(np.random.default_rng(0), usable, similar, 20, 0.0)
    assert sorted(chosen) == list(range(20))


def test_healthy_patients_make_up_for_the_diseased_ones():
    well = ball_patient(radius=0)
    well.tumor[:] = False
    few = replace(ALL, per_patient=8)
    assert len(patient_slices(well, CT, few, surplus=0).images) == 2
    assert len(patient_slices(well, CT, few, surplus=5).images) == 5
    assert len(patient_slices(well, CT, few, surplus=50).images) == 8


def rows(n: int, value: float, diseased: bool) -> PatientSlices:
    shape = (n, 8, 8)
    return PatientSlices(
        np.full((n, 1, 8, 8), value, np.float32),
        np.full(n, diseased),
        np.arange(n),
        np.ones(shape, bool),
        np.full(shape, diseased),
        np.zeros(shape, np.uint8),
    )


SMALL = SliceFormat(8, (2.0, 2.0), (0.0, 200.0))


def writer(folder: Path, **settings: object) -> SliceSetWriter:
    return SliceSetWriter(folder, "train", SMALL, settings or {"seed": 1}, capacity=20)


def test_a_set_can_be_read_while_it_grows_and_is_cut_at_the_end(tmp_path: Path):
    growing = writer(tmp_path)
    with pytest.raises(SliceSetError, match="no slice yet"):
        read_slice_set(tmp_path)
    growing.add("a", rows(3, 0.25, True))
    first = read_slice_set(tmp_path)
    assert (len(first), first.complete, first.patients) == (3, False, ("a",))
    growing.add("none", None)
    growing.add("b", rows(2, 0.5, False))
    assert (growing.healthy, growing.diseased) == (2, 3)
    growing.finish()
    done = read_slice_set(tmp_path)
    assert done.complete
    assert done.diseased.tolist() == [True] * 3 + [False] * 2
    assert done.patient.tolist() == [0, 0, 0, 1, 1]
    assert done.format == SMALL
    assert np.load(tmp_path / "images.npy").shape == (5, 1, 8, 8)
    assert np.load(tmp_path / "organ.npy").shape == (5, 8, 8)
    assert np.unique(done.images).tolist() == [0.25, 0.5]
    assert done.truth().tumor.any(axis=(1, 2)).tolist() == done.diseased.tolist()
    assert len(first.images) == 3  # what was open stays readable
    assert np.asarray(first.images).max() == 0.25


def test_rows_that_were_not_finished_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    growing = writer(tmp_path)
    growing.add("a", rows(3, 0.25, True))
    monkeypatch.setattr(growing, "_save", lambda: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        growing.add("b", rows(2, 0.5, False))
    again = writer(tmp_path)
    assert (again.count, again.has("a"), again.has("b")) == (3, True, False)
    again.add("b", rows(2, 0.75, False))
    assert read_slice_set(tmp_path).images[3:].max() == 0.75


def test_other_settings_do_not_continue_a_set(tmp_path: Path):
    writer(tmp_path, seed=1)
    with pytest.raises(SliceSetError, match="settings"):
        writer(tmp_path, seed=2)
    writer(tmp_path, seed=1)


def test_a_wrong_folder_is_explained(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"python -m training\.data\.slices"):
        read_slice_set(tmp_path)
    writer(tmp_path / "train").add("a", rows(1, 0.5, True))
    with pytest.raises(FileNotFoundError, match=r"has splits: name one of .*train"):
        read_slice_set(tmp_path)
    (tmp_path / "train" / "set.json").write_text('{"version": 99}')
    with pytest.raises(SliceSetError, match="version 99"):
        read_slice_set(tmp_path / "train")
    (tmp_path / "train" / "set.json").write_text("[]")
    with pytest.raises(SliceSetError, match="no slice set"):
        read_slice_set(tmp_path / "train")


def test_a_damaged_set_is_explained(tmp_path: Path):
    writer(tmp_path).add("a", rows(4, 0.5, True))
    facts = json.loads((tmp_path / "set.json").read_text())
    facts["count"] = 500
    (tmp_path / "set.json").write_text(json.dumps(facts))
    with pytest.raises(SliceSetError, match="fewer rows"):
        read_slice_set(tmp_path)
    facts["count"] = 4
    (tmp_path / "set.json").write_text(json.dumps(facts))
    (tmp_path / "images.npy").write_bytes(b"nothing")
    with pytest.raises(SliceSetError, match="damaged"):
        read_slice_set(tmp_path)


def test_patients_are_in_one_split_only():
    names = [f"p{n}" for n in range(40)]
    parts = split_patients(names, (0.7, 0.15, 0.15), seed=3)
    assert [len(part) for part in parts.values()] == [28, 6, 6]
    assert sorted(n for part in parts.values() for n in part) == sorted(names)
    assert parts == split_patients(names[::-1], (0.7, 0.15, 0.15), seed=3)
    assert parts != split_patients(names, (0.7, 0.15, 0.15), seed=4)
    assert all(split_patients(names[:3], (0.8, 0.1, 0.1), seed=0).values())
    assert split_patients(names, (1.0, 0.0, 0.0), seed=0)["test"] == []
    with pytest.raises(ValueError, match="three shares"):
        split_patients(names, (0.7, 0.2, 0.2), seed=0)


def test_seeds_of_the_phantoms_are_set_apart():
    seeds = [set(split_seeds(split)) for split in ("train", "validation", "test")]
    assert seeds[2] == set(phantom.TEST_SEEDS)
    assert not seeds[0] & seeds[1]
    assert not seeds[0] & seeds[2]
    assert not seeds[1] & seeds[2]


def test_phantom_patients_are_what_the_organ_asks_for():
    patient = phantom_abdomen(8, "kidney")
    assert patient.tumor.any()
    assert not (patient.tumor & ~patient.organ).any()
    assert not (patient.look_alikes[patient.tumor] > 0).any()
    values = patient.images["ct"][patient.organ]
    assert 80 < np.median(values) < 260
    # One kidney: its crop is not spread over the spine.
    assert np.ptp(np.nonzero(patient.organ)[0]) * patient.grid.spacing[0] < 90
    assert prepare(patient, SliceFormat(48, (1.5, 1.5), (0.0, 250.0))).images.shape[1:] == (
        1,
        48,
        48,
    )


def test_phantom_heads_have_four_sequences_on_one_grid():
    patient = phantom_head(2)
    assert patient.tumor.any()
    assert not (patient.tumor & ~patient.organ).any()
    assert all(image.shape == patient.grid.shape for image in patient.images.values())
    format_ = Format(image_size=64, spacing_mm=3.0).mr()
    found = patient_slices(patient, format_, replace(ALL, per_patient=6, least_organ_mm2=4000))
    assert found.images.shape[1:] == (4, 64, 64)
    assert found.diseased.sum() == 3
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    flair = found.images[found.diseased, 3]
    tumor = found.tumor[found.diseased]
    rest = found.organ[found.diseased] & ~tumor
    assert flair[tumor].mean() > flair[rest].mean() + 0.1  # edema is bright in FLAIR


def test_drawing_stops_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        drawing,
        "phantom_abdomen",
        lambda seed, organ: ball_patient(8 if seed % 2 else 0, str(seed)),
    )
    wishes = Phantoms(
        tmp_path / "straight", patients=4, rules=ALL, format=Format(32, 2.0, (0.0, 200.0))
    )
    assert drawing.draw_slices(wishes) == [tmp_path / "straight" / "train"]
    straight = read_slice_set(tmp_path / "straight" / "train")
    assert len(straight.patients) >= 3

    real, asked = drawing._phantom_reader, []

    def stopping(wishes: Phantoms):
        read = real(wishes)

        def reader(name: str):
            asked.append(name)
            if len(asked) == 3:
                raise OSError("disk full")
            return read(name)

        return reader

    monkeypatch.setattr(drawing, "_phantom_reader", stopping)
    wishes = replace(wishes, out=tmp_path / "stopped")
    with pytest.raises(OSError, match="disk full"):
        drawing.draw_slices(wishes)
    assert not read_slice_set(tmp_path / "stopped" / "train").complete
    drawing.draw_slices(wishes)
    assert asked == ["0", "1", "2", "2", "3"]
    stopped = read_slice_set(tmp_path / "stopped" / "train")
    assert np.array_equal(stopped.images, straight.images)
    assert stopped.patients == straight.patients
    drawing.draw_slices(wishes)  # complete: nothing is read
    assert len(asked) == 5


def msd_folder(folder: Path, count: int = 4) -> Path:
    pairs = []
    for seed in range(count):
        ct, labels = scan_arrays(seed)
        write_nifti(folder / f"imagesTr/p_{seed}.nii.gz", ct)
        write_nifti(folder / f"labelsTr/p_{seed}.nii.gz", labels)
        pairs.append(
            {"image": f"./imagesTr/p_{seed}.nii.gz", "label": f"./labelsTr/p_{seed}.nii.gz"}
        )
    (folder / "dataset.json").write_text(json.dumps({"training": pairs}))
    return folder


def test_msd_folder_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = msd_folder(tmp_path / "Task07_Pancreas")
    words = ["scans", str(data), str(tmp_path / "set"), "--split", "0.5", "0.25", "0.25"]
    words += ["--format.image-size", "32", "--format.window-hu", "0", "200"]
    words += ["--rules.least-lesion-mm2", "20", "--rules.least-organ-mm2", "100"]
    assert main(words) == 0
    folders = [Path(line) for line in capsys.readouterr().out.split()]
    assert [folder.name for folder in folders] == ["train", "validation", "test"]
    sets = [read_slice_set(folder) for folder in folders]
    assert sum(len(one.patients) for one in sets) == 4
    assert all(one.diseased.any() and not one.diseased.all() for one in sets)
    assert sets[0].settings["data"] == "Task07_Pancreas"
    assert str(tmp_path) not in (folders[0] / "set.json").read_text()
    # The tumor belongs to the organ although its label is another.
    assert sets[0].truth().organ[sets[0].truth().tumor].all()


def test_faults_of_a_command_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["scans", str(tmp_path / "nothing"), str(tmp_path / "out")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert main(["phantoms", str(tmp_path / "out"), "--split", "test", "--patients", "900"]) == 1
    assert "There are 200 seeds for test" in capsys.readouterr().err
    assert main(["brats", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "holds no BraTS case" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="window_hu must rise"):
        Format(window_hu=(100.0, 100.0))
    with pytest.raises(ValueError, match="per_patient"):
        Rules(per_patient=0)


def brats_case(folder: Path, names: dict[str, str], shape: tuple[int, ...] = (40, 44, 30)) -> None:
    rng = np.random.default_rng(len(folder.name))
    i, j, k = np.indices(shape)
    distance = np.sqrt((i - 20) ** 2 + (j - 22) ** 2 + (k - 14) ** 2)
    tumor = (i - 26) ** 2 + (j - 22) ** 2 + (k - 14) ** 2 < 30
    for value, (sequence, file) in enumerate(names.items()):
        if sequence == "seg":
            write_nifti(folder / file, np.where(tumor, 4, 0).astype(np.uint8))
        else:
            image = (200 + 100 * value + rng.normal(0, 20, shape)) * (distance < 14)
            image[tumor] *= 1.5
            write_nifti(folder / file, image.astype(np.float32))


BRATS_2021 = {
    "t1": "BraTS2021_00000_t1.nii.gz",
    "t1c": "BraTS2021_00000_t1ce.nii.gz",
    "t2": "BraTS2021_00000_t2.nii.gz",
    "flair": "BraTS2021_00000_flair.nii.gz",
    "seg": "BraTS2021_00000_seg.nii.gz",
}
BRATS_2023 = {
    "t1": "BraTS-GLI-00005-000-t1n.nii.gz",
    "t1c": "BraTS-GLI-00005-000-t1c.nii.gz",
    "t2": "BraTS-GLI-00005-000-t2w.nii.gz",
    "flair": "BraTS-GLI-00005-000-t2f.nii.gz",
    "seg": "BraTS-GLI-00005-000-seg.nii.gz",
}


def test_brats_folders_of_several_years(tmp_path: Path):
    brats_case(tmp_path / "BraTS2021_00000", BRATS_2021)
    brats_case(tmp_path / "BraTS-GLI-00005-000", BRATS_2023)
    brats_case(tmp_path / "without_flair", {k: v for k, v in BRATS_2021.items() if k != "flair"})
    cases = brats_folders(tmp_path)
    assert [name for name, _, _ in cases] == ["BraTS-GLI-00005-000", "BraTS2021_00000"]
    for name, files, labels in cases:
        assert {k: v.name for k, v in files.items()} == {
            k: v for k, v in (BRATS_2021 if "2021" in name else BRATS_2023).items() if k != "seg"
        }
        patient = brats_patient(name, files, labels)
        assert patient.tumor.any()
        assert patient.organ[patient.tumor].all()
        assert not patient.organ.all()


def test_brats_slices_have_four_channels_in_wollebs_order(tmp_path: Path):
    brats_case(tmp_path / "data" / "a", BRATS_2021)
    words = ["brats", str(tmp_path / "data"), str(tmp_path / "set"), "--split", "1", "0", "0"]
    words += ["--format.image-size", "48", "--slices", "5", "25", "--rules.least-organ-mm2", "100"]
    assert main(words) == 0
    drawn = read_slice_set(tmp_path / "set" / "train")
    assert drawn.format.channel_order == ("t1", "t1c", "t2", "flair")
    assert drawn.images.shape[1:] == (4, 48, 48)
    assert drawn.position.min() >= 5
    assert drawn.position.max() < 25
    truth = drawn.truth()
    for image, tumor in zip(drawn.images, truth.tumor, strict=True):
        if tumor.any():
            assert (image[:, tumor].mean(1) > 0.6).all()


def test_a_mask_on_another_grid_is_refused(tmp_path: Path):
    brats_case(tmp_path / "a", BRATS_2021)
    write_nifti(tmp_path / "a" / BRATS_2021["t2"], np.zeros((4, 4, 4), np.float32))
    (case,) = brats_folders(tmp_path)
    with pytest.raises(DatalistError, match="another grid"):
        brats_patient(*case)
