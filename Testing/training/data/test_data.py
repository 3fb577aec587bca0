"""Datalists, the cache on the 1 mm grid, and crops."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from Testing.training.conftest import scan_arrays, write_nifti
from training.data import scans as training_data
from training.data.datalists import (
    DatalistError,
    main,
    read_datalist,
    scans_of_folder,
    write_datalist,
)
from training.data.scans import (
    Case,
    Data,
    draw_reconstruction_crop,
    draw_tumor_crop,
    prepare_cases,
    random_generator,
    scaled,
)
from training.synthesis.latents import take_window


def touch(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return str(path)


def test_msd_layout(tmp_path: Path):
    pairs = [
        {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"}
        for n in (1, 0)
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": pairs}))
    layout, scans = scans_of_folder(tmp_path)
    assert (layout, [scan.name for scan in scans]) == ("MSD", ["liver_0", "liver_1"])
    assert scans[0].tumor[0].endswith("liver_0.nii.gz:2")


def test_lits_layout(tmp_path: Path):
    touch(tmp_path / "batch1" / "volume-3.nii")
    label = touch(tmp_path / "segmentations" / "segmentation-3.nii")
    touch(tmp_path / "batch1" / "volume-4.nii")  # without labels
    layout, scans = scans_of_folder(tmp_path)
    assert (layout, len(scans)) == ("LiTS", 1)
    assert scans[0].organ == (f"{label}:1",)


def test_kits_layout_counts_cysts_as_kidney(tmp_path: Path):
    touch(tmp_path / "data" / "case_00001" / "imaging.nii.gz")
    label = touch(tmp_path / "data" / "case_00001" / "segmentation.nii.gz")
    layout, scans = scans_of_folder(tmp_path)
    assert (layout, scans[0].name) == ("KiTS", "case_00001")
    assert scans[0].organ == (f"{label}:1", f"{label}:3")
    assert scans[0].tumor == (f"{label}:2",)


def test_abdomen_atlas_layout(tmp_path: Path):
    case = tmp_path / "BDMAP_00000007"
    touch(case / "ct.nii.gz")
    for name in ("liver", "kidney_left", "kidney_right", "pancreas", "pancreas_lesion", "spleen"):
        touch(case / "segmentations" / f"{name}.nii.gz")
    layout, scans = scans_of_folder(tmp_path, "pancreas")
    assert layout == "AbdomenAtlas"
    assert [Path(mask).name for mask in scans[0].organ + scans[0].tumor] == [
        "pancreas.nii.gz",
        "pancreas_lesion.nii.gz",
    ]
    assert len(scans_of_folder(tmp_path)[1][0].organ) == 4


def test_unknown_layout_names_the_known_ones(tmp_path: Path):
    with pytest.raises(DatalistError, match=r"MSD.*LiTS.*KiTS.*AbdomenAtlas"):
        scans_of_folder(tmp_path)


def test_written_datalist_reads_back_with_the_same_files(tmp_path: Path):
    touch(tmp_path / "kits" / "case_00001" / "imaging.nii.gz")
    touch(tmp_path / "kits" / "case_00001" / "segmentation.nii.gz")
    path = tmp_path / "lists" / "kits.json"
    assert main([str(tmp_path / "kits"), str(path)]) == 0
    assert "../kits/case_00001/imaging.nii.gz" in path.read_text()
    (scan,) = read_datalist(path)
    assert Path(scan.image).resolve() == (tmp_path / "kits/case_00001/imaging.nii.gz").resolve()
    write_datalist([scan], path, "again")
    assert Path(read_datalist(path)[0].image).resolve() == Path(scan.image).resolve()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"version": 1}',
        '{"version": 2, "cases": []}',
        '{"version": 1, "cases": []}',
        '{"version": 1, "cases": [{}]}',
        '{"version": 1, "cases": [{"image": "a", "label": "b"}]}',
        '{"version": 1, "cases": [{"image": "a", "organ": "b"}]}',
    ],
)
def test_malformed_datalists_are_refused(content: str, tmp_path: Path):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(DatalistError, match=r"list\.json"):
        read_datalist(path)


def test_scans_are_brought_to_1_mm_along_ras(tmp_path: Path):
    """A left-handed scan of 2 mm slices: organ and tumor land where they are in the patient."""
    ct, labels = scan_arrays(0)
    affine = np.diag([-1.0, 1, 2, 1])
    write_nifti(tmp_path / "ct.nii.gz", ct, affine)
    write_nifti(tmp_path / "labels.nii.gz", labels, affine)
    case = {"image": "ct.nii.gz", "organ": ["labels.nii.gz:1"], "tumor": ["labels.nii.gz:2"]}
    (tmp_path / "list.json").write_text(json.dumps({"version": 1, "cases": [case]}))
    (made,) = prepare_cases(Data(datalist=tmp_path / "list.json", cache=tmp_path / "cache"))
    assert made.ct.shape == (40, 36, 63)
    assert np.array_equal(made.ct[:, :, ::2], ct[::-1])
    assert np.array_equal(made.labels[:, :, ::2], labels[::-1])
    assert isinstance(made.ct, np.memmap)


def test_cache_is_used_until_a_file_changes(tmp_path: Path):
    ct, _ = scan_arrays(0)
    write_nifti(tmp_path / "ct.nii.gz", ct)
    (tmp_path / "list.json").write_text(
        json.dumps({"version": 1, "cases": [{"image": "ct.nii.gz"}]})
    )
    settings = Data(datalist=tmp_path / "list.json", cache=tmp_path / "cache")
    prepare_cases(settings)
    prepare_cases(settings)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    write_nifti(tmp_path / "ct.nii.gz", ct + 1)
    (case,) = prepare_cases(settings)
    assert case.ct[0, 0, 0] == ct[0, 0, 0] + 1


def test_early_filter_turns_large_tumors_into_organ(tmp_path: Path):
    labels = np.ones((40, 40, 40), np.uint8)
    i, j, k = np.indices(labels.shape)
    labels[(i - 15) ** 2 + (j - 15) ** 2 + (k - 15) ** 2 < 12**2] = 2
    labels[35:38, 35:38, 35:38] = 2
    write_nifti(tmp_path / "ct.nii.gz", labels.astype(np.int16))
    write_nifti(tmp_path / "labels.nii.gz", labels)
    case = {"image": "ct.nii.gz", "organ": ["labels.nii.gz:1"], "tumor": ["labels.nii.gz:2"]}
    (tmp_path / "list.json").write_text(json.dumps({"version": 1, "cases": [case]}))
    settings = Data(datalist=tmp_path / "list.json", cache=tmp_path / "cache")
    (everything,) = prepare_cases(settings)
    (early,) = prepare_cases(replace(settings, early_only=True))
    assert (everything.labels == 2).sum() > 7000
    assert (early.labels == 2).sum() == 27
    assert len(early.places[2]) == 27


def ball_case() -> Case:
    ct, labels = scan_arrays(0)
    places = tuple(np.argwhere(labels == value) for value in range(3))
    return Case("ball", ct, labels, places, (len(places[1]), len(places[2])), is_phantom=False)


def test_crops_depend_on_seed_process_and_step_only():
    cases, settings = [ball_case()], Data()
    draws = [
        draw_reconstruction_crop(random_generator(*key), cases, 16, settings)
        for key in ((1, 0, 5), (1, 0, 5), (1, 1, 5), (1, 0, 6))
    ]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert not np.array_equal(draws[0], draws[3])


def test_tumor_crops_hold_tumor_in_the_networks_axis_order():
    case = ball_case()
    settings = Data(rotate_probability=0)
    for step in range(8):
        ct, mask = draw_tumor_crop(random_generator(0, 0, step), [case], 24, settings)
        assert ct.shape == mask.shape == (24, 24, 24)
        assert mask.sum() == (case.labels == 2).sum()
        # Z first: the tumor (index 22, 17, 15) is darker than the organ around it.
        assert ct[mask > 0].mean() < 2 * (80 + 175) / 425 - 1


def test_small_scans_are_padded_with_their_minimum_or_mid_gray():
    case = ball_case()
    settings = Data(rotate_probability=0)
    crop = draw_reconstruction_crop(random_generator(0, 0, 0), [case], 48, settings)
    assert crop.shape == (48, 48, 48)
    assert crop[0, 0, 0] == crop.min()
    ct, mask = draw_tumor_crop(random_generator(0, 0, 0), [case], 48, settings)
    assert ct[0, 0, 0] == 0
    assert mask[0, 0, 0] == 0


def test_scaling_maps_the_window_to_one():
    values = scaled(np.array([-1000, -175, 250, 3000], np.int16), fill=None)
    assert values.tolist() == [-1, -1, 1, 1]


def test_stage_2_needs_masks():
    case = ball_case()
    bare = replace(case, places=(case.places[0], case.places[1][:0], case.places[2][:0]))
    with pytest.raises(ValueError, match="organ or tumor mask"):
        draw_tumor_crop(random_generator(0, 0, 0), [bare], 16, Data())


def test_phantoms_use_training_seeds_only(monkeypatch, tmp_path: Path):
    from difftumor import phantom

    asked = []
    monkeypatch.setattr(
        training_data, "_generate", lambda seed, _: (asked.append(seed), scan_arrays(seed))[1]
    )
    cases = prepare_cases(Data(phantoms=3, cache=tmp_path))
    assert all(case.is_phantom for case in cases)
    assert len(asked) == 3
    assert set(asked) <= set(phantom.TRAINING_SEEDS)
    assert not set(asked) & set(phantom.TEST_SEEDS)


def test_windows_contain_some_tumor():
    mask = np.zeros((24, 24, 24), bool)
    mask[20:23, 1:3, 10:12] = True
    for seed in range(50):
        window = take_window(np.random.default_rng(seed), mask, 8)
        assert mask[window].any()
        assert mask[window].shape == (8, 8, 8)
    assert (
        torch.tensor(mask[take_window(np.random.default_rng(0), mask * False, 8)].shape).prod()
        == 512
    )
