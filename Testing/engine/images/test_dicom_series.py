"""DICOM series, generated and real, against pydicom and the textbook formula."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.spatial.transform import Rotation

from difftumor.images.volumes import (
    VolumeError,
    check_ct,
    read_mask,
    read_volume,
    write_volume,
)
from Testing.engine.images.dicom_builder import (
    CORONAL,
    SERIES,
    axial_positions,
    dicom_slice,
    write_series,
)


@pytest.fixture(scope="session")
def hcc048_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """89 slices of a real abdominal CT (TCIA HCC-TACE-Seg)."""
    folder = tmp_path_factory.mktemp("hcc048")
    with tarfile.open(shared / "data/ct_hcc048/hcc048_dicom.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "dicom"


@pytest.fixture(scope="session")
def ircadb_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ircadb")
    archive_path = shared / "data/ct_ircadb17/ircadb01_17_slices066-118_unmodified.tar.xz"
    with tarfile.open(archive_path) as archive:
        archive.extractall(folder, filter="data")
    return folder


def pydicom_volume(files):
    """The volume of a DICOM series by another library and the textbook formula: RAS of every corner, HU array."""
    slices = sorted(map(pydicom.dcmread, files), key=lambda s: float(s.ImagePositionPatient[2]))
    hu = np.stack(
        [s.pixel_array.T * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices],
        axis=-1,
    )

    def ras(i, j, k):
        s = slices[k]
        row, column = np.reshape(s.ImageOrientationPatient, (2, 3)).astype(float)
        down, along = map(float, s.PixelSpacing)
        point = np.array(s.ImagePositionPatient, dtype=float) + i * along * row + j * down * column
        return point * [-1, -1, 1]

    return hu, ras


def test_a_series_is_sorted_placed_and_scaled(tmp_path):
    folder = write_series(tmp_path / "ct", axial_positions())
    (folder / "notes.txt").write_text("not DICOM")
    (folder / ".hidden").write_bytes(b"\0" * 200)
    volume = read_volume(folder)
    hu, ras = pydicom_volume(folder.glob("IM*"))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, hu)
    for index in [(0, 0, 0), (7, 5, 9), (7, 0, 3)]:
        np.testing.assert_allclose(volume.grid.to_ras(index), ras(*index), atol=1e-9)
    np.testing.assert_allclose(volume.grid.spacing, [0.7, 0.8, 2.0])
    assert volume.modality == "CT"
    assert not volume.notes


@pytest.mark.parametrize("seed", range(4))
def test_an_oblique_series_lies_where_its_tags_say(tmp_path, seed):
    turn = Rotation.random(random_state=seed).as_matrix()
    positions = [turn @ [-10, -20, 3.0 * k] for k in range(6)]
    orientation = [round(float(x), 10) for x in turn[:, :2].T.ravel()]
    pixels = [np.full((6, 8), 100 * k) for k in range(6)]
    folder = tmp_path / "ct"
    folder.mkdir()
    for k in (3, 1, 5, 0, 4, 2):
        dicom_slice(positions[k], pixels[k], ImageOrientationPatient=orientation).save_as(
            folder / f"{k}.dcm"
        )
    volume = read_volume(folder)
    for k in range(6):
        plane = int((volume.array[0, 0, k] + 1024) / 100)
        expected = (turn @ [-10 + 0.7 * 7, -20 + 0.8 * 5, 3.0 * plane]) * [-1, -1, 1]
        np.testing.assert_allclose(volume.grid.to_ras([7, 5, k]), expected, atol=1e-6)


def test_a_tilted_gantry_becomes_a_sheared_grid(tmp_path):
    tilt = np.radians(15)
    orientation = [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)]
    folder = write_series(
        tmp_path / "ct",
        axial_positions(),
        ImageOrientationPatient=[round(x, 8) for x in orientation],
    )
    volume = read_volume(folder)
    assert "tilt of 15.0 degrees" in volume.notes[0]
    _, ras = pydicom_volume(folder.glob("IM*"))
    for index in [(0, 0, 0), (7, 5, 9), (3, 5, 4)]:
        np.testing.assert_allclose(volume.grid.to_ras(index), ras(*index), atol=1e-6)
    assert volume.grid.voxel_volume_mm3 == pytest.approx(0.7 * 0.8 * 2 * np.cos(tilt), rel=1e-5)
    write_volume(volume, tmp_path / "out.nrrd")
    assert read_volume(tmp_path / "out.nrrd").grid.same_as(volume.grid)


def test_rounded_positions_are_no_tilt_and_no_gap(tmp_path):
    positions = [[-10.0, -20.0, round(0.62543 * k, 2)] for k in range(40)]
    volume = read_volume(write_series(tmp_path / "ct", positions))
    assert not volume.notes
    assert volume.grid.spacing[2] == pytest.approx(0.6254, abs=1e-3)


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for k, (slope, intercept) in enumerate([(1, -1024), (2, 0), (1, 1000), (1, -1024)]):
        made = dicom_slice(
            [0, 0, 2.0 * k], np.full((6, 8), 4000), RescaleSlope=slope, RescaleIntercept=intercept
        )
        made.save_as(folder / f"{k}.dcm")
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    assert volume.array[0, 0].tolist() == [2976, 8000, 5000, 2976]
    dicom_slice([0, 0, 8.0], np.full((6, 8), 3), RescaleSlope=0.5).save_as(folder / "4.dcm")
    fractional = read_volume(folder)
    assert fractional.array.dtype == np.float32
    assert fractional.array[0, 0, 4] == -1022.5


def test_a_large_stored_range_gets_a_wider_type(tmp_path):
    folder = tmp_path / "ct"
    folder.mkdir()
    for k in range(4):
        made = dicom_slice([0, 0, 2.0 * k], np.full((6, 8), 65000), BitsStored=16, HighBit=15)
        made.save_as(folder / f"{k}.dcm")
    volume = read_volume(folder)
    assert volume.array.dtype == np.int32
    assert (volume.array == 65000 - 1024).all()


def test_one_file_stands_for_its_series(tmp_path):
    folder = write_series(tmp_path / "ct", axial_positions())
    write_series(
        folder, axial_positions(7, 3.0), "OT", SeriesInstanceUID="1.2.3", SeriesDescription="Thick"
    )
    assert read_volume(next(folder.glob("IM*"))).grid.shape == (8, 6, 10)
    assert read_volume(next(folder.glob("OT*"))).grid.shape == (8, 6, 7)
    named = shutil.copy(next(folder.glob("OT*")), folder / "slice.dcm")
    assert "twice" in read_volume(named).notes[0]


@pytest.mark.parametrize("series", [SERIES, "2", "abdomen", " Abdomen "])
def test_a_series_is_chosen_by_uid_number_or_description(tmp_path, series):
    folder = write_series(tmp_path / "ct", axial_positions())
    write_series(
        folder,
        axial_positions(7),
        "OT",
        SeriesInstanceUID="1.2.3",
        SeriesDescription="Thick",
        SeriesNumber=3,
    )
    assert read_volume(folder, series=series).grid.shape[2] == 10


@pytest.mark.parametrize("implicit", [False, True])
def test_accents_and_implicit_tags_are_understood(tmp_path, implicit):
    for n, position in enumerate(axial_positions()):
        made = dicom_slice(position, SeriesDescription="Bäuch", SpecificCharacterSet="ISO_IR 100")
        if implicit:
            made.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        made.save_as(tmp_path / f"{n}.dcm")
    assert read_volume(tmp_path, series="bäuch").grid.shape == (8, 6, 10)
    last = tmp_path / "9.dcm"
    last.write_bytes(last.read_bytes()[:-50])
    with pytest.raises(VolumeError, match=r"cannot be read and may be slices of it: 9\.dcm"):
        read_volume(tmp_path)


def test_several_series_are_listed(tmp_path):
    folder = write_series(tmp_path / "ct", axial_positions())
    write_series(
        folder / "b",
        axial_positions(7),
        SeriesInstanceUID="1.2.3",
        SeriesDescription="Thick",
        SeriesNumber=3,
    )
    assert (
        read_volume(folder).grid.shape[2] == 10
    )  # what lies below is only searched if the folder is empty
    write_series(
        folder,
        axial_positions(7),
        "OT",
        SeriesInstanceUID="1.2.3",
        SeriesDescription="Thick",
        SeriesNumber=3,
    )
    with pytest.raises(VolumeError) as caught:
        read_volume(folder)
    told = str(caught.value)
    assert 'number 2, "Abdomen" (CT, 10 images)' in told
    assert 'number 3, "Thick" (CT, 7 images), UID 1.2.3' in told
    with pytest.raises(VolumeError, match='No series matches "Chest"'):
        read_volume(folder, series="Chest")
    write_series(
        folder,
        axial_positions(5),
        "TH",
        SeriesInstanceUID="1.2.4",
        SeriesDescription="Thick",
        SeriesNumber=4,
    )
    with pytest.raises(VolumeError, match='Several series match "Thick"'):
        read_volume(folder, series="Thick")


def test_a_localizer_beside_the_stack_is_left_out_with_a_note(tmp_path):
    folder = write_series(tmp_path / "ct", axial_positions())
    write_series(
        folder, [[0, 0, 0], [0, 5, 0]], "LO", SeriesInstanceUID="1.2.3", SeriesDescription="Scout"
    )
    volume = read_volume(folder)
    assert volume.grid.shape == (8, 6, 10)
    assert "1 further series" in volume.notes[0]


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageOrientationPatient": CORONAL},
        {"PixelSpacing": [2.0, 2.0]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImagePositionPatient": None},
        {"pixels": np.zeros((9, 9))},
    ],
)
def test_a_stray_slice_in_the_series_is_left_out_with_a_note(tmp_path, tags):
    folder = write_series(tmp_path / "ct", axial_positions())
    dicom_slice([0, 0, -25.0], **tags).save_as(folder / "stray")
    volume = read_volume(folder)
    assert volume.grid.shape == (8, 6, 10)
    assert "left out: stray" in volume.notes[0]


def test_slices_that_are_there_twice_are_read_once(tmp_path):
    folder = write_series(tmp_path / "ct", axial_positions())
    first, second, *_ = sorted(folder.iterdir())
    shutil.copy(first, folder / "copy")
    again = pydicom.dcmread(second)
    again.SOPInstanceUID = "1.2.3.4"  # sent twice by the archive: other file, same picture
    again.save_as(folder / "sent_again")
    volume = read_volume(folder)
    assert volume.grid.shape == (8, 6, 10)
    assert "2 slices were in the folder twice" in volume.notes[0]


def test_one_slice_takes_its_thickness(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", [[0, 0, 5.0]]))
    np.testing.assert_allclose(volume.grid.spacing, [0.7, 0.8, 2.0])
    with pytest.raises(VolumeError, match="single slice"):
        check_ct(volume)


def test_slices_in_subfolders_are_found(tmp_path):
    write_series(tmp_path / "study/series", axial_positions())
    (tmp_path / "study/DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert read_volume(tmp_path / "study").grid.shape == (8, 6, 10)


def test_real_ct_equals_what_pydicom_computes(hcc048_folder):
    volume = read_volume(hcc048_folder)
    hu, ras = pydicom_volume(hcc048_folder.iterdir())
    assert volume.grid.shape == (512, 512, 89)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, hu)
    for index in [(0, 0, 0), (511, 0, 0), (0, 511, 88), (200, 300, 50)]:
        np.testing.assert_allclose(volume.grid.to_ras(index), ras(*index), atol=1e-3)
    assert volume.array.min() == -2048  # padding stays as it is
    assert check_ct(volume) == []


def test_real_ct_goes_through_every_format(hcc048_folder, tmp_path):
    volume = read_volume(hcc048_folder)
    for name in ("ct.nii", "ct.nrrd"):
        write_volume(volume, tmp_path / name)
        again = read_volume(tmp_path / name)
        assert again.array.dtype == np.int16
        np.testing.assert_array_equal(again.array, volume.array)
        assert again.grid.same_as(volume.grid)


def test_jpeg_2000_and_an_empty_sop_class_are_read(shared):
    folder = shared / "data/ct_totalseg/example_ct_dicom"
    volume = read_volume(folder)
    assert volume.grid.shape == (512, 512, 20)
    np.testing.assert_allclose(volume.grid.spacing, [0.9766, 0.9766, 2.0], atol=1e-4)
    assert volume.array.dtype == np.int16
    # The segmentation was made on this CT by others: flipped rows, but the same voxels in space.
    said: list[str] = []
    for label, count, hu in [
        (1, 130_634, (60, 110)),
        (5, 366_708, (60, 110)),
        (20, 10_340, (-900, -500)),
    ]:
        organ = read_mask(
            shared / "data/ct_totalseg/example_seg_dicom.nii.gz",
            label,
            volume.grid,
            warn=said.append,
        )
        assert organ.sum() == count
        assert hu[0] < np.median(volume.array[organ]) < hu[1]
    assert said == []


def test_dicom_masks_fall_onto_their_ct(ircadb_folder):
    ct = read_volume(ircadb_folder / "PATIENT_DICOM")
    assert (int(ct.array.min()), int(ct.array.max())) == (-1024, 1023)
    liver = read_mask(ircadb_folder / "MASKS_DICOM/liver", None, ct.grid)
    tumor = read_mask(ircadb_folder / "MASKS_DICOM/livertumor1", None, ct.grid)
    assert 0 < tumor.sum() <= 96_961
    assert np.median(ct.array[tumor]) < np.median(ct.array[liver & ~tumor])
