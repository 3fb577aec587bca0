"""Reading volumes and masks: geometry by independent computations, voxels bit for bit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from difftumor.grids import Grid
from difftumor.images.volumes import (
    Volume,
    VolumeError,
    check_ct,
    parse_mask_argument,
    read_mask,
    read_volume,
    write_volume,
)
from Testing.engine.images.volume_builder import OBLIQUE, hu_array, save_nifti


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8", ">i2", ">f4"]
)
def test_nifti_comes_back_bit_for_bit_in_its_own_voxel_type(tmp_path, suffix, dtype):
    array = (hu_array() % 100).astype(dtype)
    path = save_nifti(tmp_path / f"in{suffix}", array)
    volume = read_volume(path)
    assert volume.array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    write_volume(volume, tmp_path / f"out{suffix}")
    again = nib.load(tmp_path / f"out{suffix}")
    assert again.get_data_dtype() == volume.array.dtype
    np.testing.assert_array_equal(np.asanyarray(again.dataobj), array)
    np.testing.assert_array_equal(again.affine, nib.load(path).affine)


SCALES = [
    ("u2", 1.0, -1024.0, np.int16),
    ("i2", 2.0, 0.0, np.int16),
    ("i2", 4.0, -1024.0, np.int32),
    ("i2", 0.0372, -511.5, np.float32),
    ("u1", 0.5, -60.0, np.float32),
    ("i2", 1e-4, 1e3, np.float64),
    ("i2", -1.0, 5.0, np.int16),
    ("f4", 2.5, 7.0, np.float64),
]


@pytest.mark.parametrize(("stored_type", "slope", "intercept", "held"), SCALES)
def test_scaled_voxels_are_read_as_values_and_stored_numbers_come_back(
    tmp_path, stored_type, slope, intercept, held
):
    stored = np.arange(9 * 8 * 20).reshape(9, 8, 20)
    stored = (stored % 256 if stored_type == "u1" else stored * 11).astype(stored_type)
    path = save_nifti(tmp_path / "in.nii.gz", stored, slope=(slope, intercept))
    volume = read_volume(path)
    assert volume.array.dtype == held
    slope, intercept = np.float32([slope, intercept]).astype(np.float64)
    np.testing.assert_allclose(volume.array, stored * slope + intercept, rtol=1e-6, atol=1e-4)

    changed = volume.array.copy()
    changed[2, 2, 2] = volume.quantized(np.array(40.3))
    write_volume(volume.with_array(changed), tmp_path / "out.nii.gz")
    again = nib.load(tmp_path / "out.nii.gz")
    assert again.dataobj.slope == slope
    assert again.dataobj.inter == intercept
    raw = np.asanyarray(again.dataobj.get_unscaled())
    assert raw.dtype == stored.dtype
    differs = raw != stored
    differs[2, 2, 2] = False
    assert not differs.any()
    assert read_volume(tmp_path / "out.nii.gz").array[2, 2, 2] == changed[2, 2, 2]


def test_scaled_double_precision_keeps_its_values(tmp_path):
    array = np.random.default_rng(0).normal(size=(4, 4, 4))
    volume = read_volume(save_nifti(tmp_path / "in.nii", array, slope=(3.3, 0.1)))
    write_volume(volume, tmp_path / "out.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii").array, volume.array)


def test_quantized_rounds_and_clips_to_what_the_file_can_hold(tmp_path):
    plain = Volume(np.zeros((2, 2, 2), np.int16), np.eye(4))
    assert plain.quantized([1.4, 1.6, 1e6, -1e6]).tolist() == [1, 2, 32767, -32768]
    assert Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)).quantized([1.4]).dtype == np.float32
    half = read_volume(
        save_nifti(tmp_path / "h.nii", np.zeros((2, 2, 2), np.uint8), slope=(0.5, -60))
    )
    assert half.quantized([0.2, 0.3, 99, -99]).tolist() == [0.0, 0.5, 67.5, -60.0]


def test_values_that_the_stored_type_cannot_hold_are_refused_when_written(tmp_path):
    scaled = save_nifti(
        tmp_path / "h.nii", np.arange(8, dtype=np.uint8).reshape(2, 2, 2), slope=(0.5, -60)
    )
    volume = read_volume(scaled)
    with pytest.raises(VolumeError, match="do not fit"):
        write_volume(volume.with_array(volume.array + 1000), tmp_path / "out.nii")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.nii"]


@pytest.mark.parametrize(
    ("unit", "scale", "word"), [(1, 1e-3, "meter"), (3, 1e3, "micron"), (0, 1, ""), (2, 1, "")]
)
def test_lengths_in_other_units_become_millimeters(tmp_path, unit, scale, word):
    affine = OBLIQUE.copy()
    affine[:3] *= scale
    path = save_nifti(tmp_path / "in.nii", hu_array(), affine, xyzt_units=unit)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-6)
    assert (f"in {word}s" in " ".join(volume.notes)) == bool(word)
    write_volume(volume, tmp_path / "out.nii")
    again = nib.load(tmp_path / "out.nii")
    assert again.header.get_xyzt_units()[0] == ("unknown" if unit == 0 else "mm")
    np.testing.assert_allclose(again.affine, OBLIQUE, rtol=1e-6)


def test_qform_and_sform_that_disagree_are_told_and_both_are_kept(tmp_path):
    image = nib.Nifti1Image(hu_array(), OBLIQUE)
    elsewhere = OBLIQUE.copy()
    elsewhere[:3, 3] += [5, 0, 0]
    image.set_sform(OBLIQUE, 2)
    image.set_qform(elsewhere, 1)
    nib.save(image, tmp_path / "in.nii.gz")
    volume = read_volume(tmp_path / "in.nii.gz")
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    assert "5.0 mm apart" in check_ct(volume)[0]
    write_volume(volume, tmp_path / "out.nii.gz")
    before, after = (nib.load(tmp_path / name).header for name in ("in.nii.gz", "out.nii.gz"))
    np.testing.assert_array_equal(before.get_qform(), after.get_qform())
    np.testing.assert_array_equal(before.get_sform(), after.get_sform())
    assert (after["sform_code"], after["qform_code"]) == (2, 1)


@pytest.mark.parametrize("code", [1, 3])
def test_a_qform_alone_places_the_voxels(tmp_path, code):
    image = nib.Nifti1Image(hu_array(), OBLIQUE)
    image.set_sform(None, 0)
    image.set_qform(OBLIQUE, code)
    nib.save(image, tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
    write_volume(volume, tmp_path / "out.nii")
    header = nib.load(tmp_path / "out.nii").header
    assert (header["sform_code"], header["qform_code"]) == (0, code)


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1), (5, 6, 1), (5, 6)])
def test_axes_of_length_one_are_left_out(tmp_path, shape):
    array = hu_array(shape)
    volume = read_volume(save_nifti(tmp_path / "in.nii.gz", array))
    assert volume.grid.shape == (*shape, 1)[:3]
    np.testing.assert_array_equal(volume.array.ravel(), array.ravel())


def test_nifti_2_and_a_sheared_affine_are_understood(tmp_path):
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    path = save_nifti(tmp_path / "in.nii.gz", hu_array(), sheared, kind=nib.Nifti2Image)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.affine, sheared)
    for name in ("out.nii.gz", "out.nrrd", "out.mha"):
        write_volume(volume, tmp_path / name)
        np.testing.assert_allclose(read_volume(tmp_path / name).affine, sheared, atol=1e-12)
    computed = Volume(volume.array, sheared)
    write_volume(computed, tmp_path / "computed.nii")
    header = nib.load(tmp_path / "computed.nii").header
    assert header["qform_code"] == 0
    np.testing.assert_allclose(header.get_sform(), sheared, atol=1e-5)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_what_itk_wrote_is_read_in_ras(tmp_path, suffix, dtype):
    array = (hu_array() % 100).astype(dtype)
    image = sitk.GetImageFromArray(array.transpose())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10.0, -20.0, 30.0))
    turn = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() @ np.diag([1, 1, -1])
    image.SetDirection(turn.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"in{suffix}"))
    volume = read_volume(tmp_path / f"in{suffix}")
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, array)
    for index in [(0, 0, 0), (8, 7, 16), (3, 0, 9)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(volume.grid.to_ras(index), lps * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("flip", [1, -1])
def test_itk_and_nibabel_agree_on_where_our_files_lie(tmp_path, suffix, flip):
    affine = OBLIQUE.copy()
    affine[:3, 0] *= flip
    volume = Volume(hu_array(), affine)
    path = tmp_path / f"out{suffix}"
    write_volume(volume, path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(), volume.array)
    for index in [(0, 0, 0), (8, 7, 16)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(lps * [-1, -1, 1], volume.grid.to_ras(index), atol=1e-4)
    assert read_volume(path).grid.same_as(volume.grid)


def test_every_format_carries_every_other(tmp_path):
    volume = read_volume(save_nifti(tmp_path / "a.nii.gz", hu_array()))
    for before, after in [("a.nii.gz", "b.nrrd"), ("b.nrrd", "c.mha"), ("c.mha", "d.nii")]:
        write_volume(read_volume(tmp_path / before), tmp_path / after)
    last = read_volume(tmp_path / "d.nii")
    np.testing.assert_array_equal(last.array, volume.array)
    assert last.array.dtype == np.int16
    assert last.grid.same_as(volume.grid)


def test_four_dimensions_with_one_volume_are_accepted_by_itk_too(tmp_path):
    four = sitk.JoinSeries([sitk.GetImageFromArray(hu_array().transpose())])
    sitk.WriteImage(four, str(tmp_path / "in.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "in.mha").array, hu_array())


@pytest.mark.parametrize(
    ("text", "path", "label"),
    [
        ("organs.nii.gz:5", "organs.nii.gz", 5),
        ("organs.nii.gz", "organs.nii.gz", None),
        ("C:/data/organs.nii.gz", "C:/data/organs.nii.gz", None),
        ("C:/data/organs.nii.gz:12", "C:/data/organs.nii.gz", 12),
        ("a:b:3", "a:b", 3),
        ("mask:-1", "mask:-1", None),
        ("mask:5a", "mask:5a", None),
        ("12", "12", None),
    ],
)
def test_only_a_trailing_whole_number_is_a_label(text, path, label):
    assert parse_mask_argument(text) == (Path(path), label)


def test_labels_are_selected_on_the_same_grid(tmp_path):
    labels = np.zeros((9, 8, 17), np.uint8)
    labels[2:4, 2:4, 2:4], labels[6, 6, 6] = 5, 7
    path = save_nifti(tmp_path / "organs.nii.gz", labels)
    grid = Grid(labels.shape, OBLIQUE)
    said: list[str] = []
    np.testing.assert_array_equal(read_mask(path, 5, grid, warn=said.append), labels == 5)
    assert said == []
    np.testing.assert_array_equal(read_mask(path, None, grid, warn=said.append), labels > 0)
    assert len(said) == 1
    assert "holds several labels" in said[0]
    assert not read_mask(path, 9, grid, allow_empty=True).any()


def test_a_soft_mask_is_cut_at_one_half(tmp_path):
    soft = np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    path = save_nifti(tmp_path / "soft.nii", soft)
    np.testing.assert_array_equal(read_mask(path, None, Grid((3, 3, 3), OBLIQUE)), soft > 0.5)


def test_a_mask_on_another_grid_is_carried_over_and_told(tmp_path):
    fine = Grid((40, 40, 40), np.diag([1.0, 1, 1, 1]))
    ball = np.linalg.norm(fine.centers() - [20, 18, 22], axis=-1) < 10
    path = save_nifti(tmp_path / "ball.nii.gz", ball.astype(np.uint8), fine.affine)
    flipped = Grid(
        (30, 30, 20), np.array([[-1.5, 0, 0, 44], [0, 1.5, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    )
    said: list[str] = []
    got = read_mask(path, None, flipped, warn=said.append)
    expected = np.linalg.norm(flipped.centers() - [20, 18, 22], axis=-1) < 10
    assert (got & expected).sum() / (got | expected).sum() > 0.85
    assert "another grid" in said[0]
    half = Grid((20, 40, 40), np.diag([1.0, 1, 1, 1]))
    read_mask(path, None, half, warn=said.append)
    assert "% of the mask" in said[-1]


def test_an_ordinary_ct_needs_no_word():
    assert check_ct(Volume(hu_array((20, 20, 20)), np.eye(4))) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            lambda v: replace(v, array=np.float32(v.array % 100) / 100, storage=None),
            r"scaled to \[0, 1\]",
        ),
        (
            lambda v: replace(v, array=(v.array % 200).astype(np.uint8), storage=None),
            "8-bit picture",
        ),
        (lambda v: replace(v, array=v.array + np.int16(1024)), "No value is below 0"),
        (lambda v: replace(v, array=np.minimum(v.array, -500)), "soft tissue"),
        (lambda v: replace(v, affine=np.diag([1, 1, 7.5, 1])), "7.5 mm long"),
        (lambda v: replace(v, array=v.array[:, :, :5]), "only 5 slices"),
        (lambda v: replace(v, modality="MR"), "modality MR"),
        (lambda v: replace(v, notes=("The reader said this.",)), "The reader said this"),
    ],
)
def test_what_is_unlike_a_ct_is_said_in_words(change, word):
    volume = change(Volume(hu_array((20, 20, 20)), np.eye(4)))
    found = check_ct(volume)
    assert len(found) == 1
    assert re.search(word, found[0])
