"""Malformed images: each is refused with what happened, why and what to do next, and nothing is left behind."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.uid import UID

from difftumor.grids import Grid, GridError
from difftumor.images.volumes import VolumeError, check_ct, read_mask, read_volume, write_volume
from Testing.engine.images.dicom_builder import CORONAL, axial_positions, dicom_slice, write_series

Build = Callable[[Path], Path]

# Every message ends in something that a person can do.
NEXT = re.compile(
    r"\b(Give|Convert|Export|Copy|copy|Choose|Check|Load|Name|Correct|Set|Use|Extract|Replace|Change|[Rr]esample|"
    r"give|unpack|load)\b"
)


def ct(shape=(20, 18, 22), dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(dtype)


def nifti(name: str = "ct.nii", array=None, affine=None, change=None, cut=None, **fields) -> Build:
    """A NIfTI file; `fields` change its header, `change` its bytes, `cut` keeps that share of the file."""

    def build(folder: Path) -> Path:
        image = nib.Nifti1Image(
            ct() if array is None else array, np.eye(4) if affine is None else affine
        )
        for field, value in fields.items():
            image.header[field] = value
        path = folder / name
        if {"sform_code", "qform_code"} & set(fields):  # nibabel sets them again when it saves
            nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
        else:
            nib.save(image, path)
        data = path.read_bytes()
        if cut:
            path.write_bytes(data[: int(len(data) * cut)])
        if change:
            path.write_bytes(change(data))
        return path

    return build


def poke(at: int, *values: int) -> Callable[[bytes], bytes]:
    """Overwrite bytes of a file."""
    return lambda data: data[:at] + bytes(values) + data[at + len(values) :]


def int16s(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def float32s(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def terabytes(data: bytes) -> bytes:
    """The same file with 32767 voxels along every axis in its header."""
    return gzip.compress(poke(42, *int16s(32767, 32767, 32767))(gzip.decompress(data)))


def with_voxels(*pairs) -> np.ndarray:
    array = ct(dtype=np.float32)
    for index, value in pairs:
        array[index] = value
    return array


def raw(name: str, content: bytes | str) -> Build:
    def build(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return build


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little\n"
LPS = "space: left-posterior-superior\nspace origin: (0,0,0)\n"
AXES = "space directions: (1,0,0) (0,1,0) (0,0,1)\n"
MHA = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\n"


def nrrd(fields: str, data: bytes = bytes(48), name: str = "ct.nrrd") -> Build:
    return raw(name, (NRRD + fields + "\n").encode() + data)


def itk(name: str, image: Callable[[], sitk.Image], remove: str = "", cut: float = 1) -> Build:
    def build(folder: Path) -> Path:
        path = folder / name
        sitk.WriteImage(image(), str(path))
        if remove:
            (folder / remove).unlink()
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * cut)])
        return path

    return build


def dicom(*slices, **tags) -> Build:
    """A folder of DICOM files: `slices` are (position, own tags); `tags` hold for all."""

    def build(folder: Path) -> Path:
        series = folder / "dicom"
        series.mkdir()
        for n, (position, own) in enumerate(slices):
            dicom_slice(position, **{**tags, **own}).save_as(series / f"IM{n:03d}")
        return series

    return build


def stack(count: int = 10, **tags) -> list:
    return [(position, tags) for position in axial_positions(count)]


def damaged_slice(folder: Path) -> Path:
    series = write_series(folder / "dicom", axial_positions())
    path = sorted(series.iterdir())[4]
    path.write_bytes(path.read_bytes()[:-60])
    return series


def unknown_syntax(folder: Path) -> Path:
    series = folder / "dicom"
    series.mkdir()
    for n, position in enumerate(axial_positions()):
        made = dicom_slice(position)
        made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")  # MPEG-2
        made["PixelData"].is_undefined_length = True
        made.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
        made["PixelData"].VR = "OB"
        made.save_as(series / f"{n}.dcm", enforce_file_format=True)
    return series


def only_other_objects(folder: Path) -> Path:
    series = folder / "dicom"
    series.mkdir()
    for n, modality in enumerate(["SR", "SR", "RTSTRUCT"]):
        made = dicom_slice([0, 0, 0], Modality=modality)
        for name in ("PixelData", "Rows", "Columns", "BitsAllocated", "ImageOrientationPatient"):
            delattr(made, name)
        made.save_as(series / f"{n}.dcm")
    return series


def multi_frame(folder: Path) -> Path:
    series = folder / "dicom"
    series.mkdir()
    made = dicom_slice([0, 0, 0], NumberOfFrames=4)
    made.PixelData = made.PixelData * 4
    made.save_as(series / "frames.dcm")
    return series


def color(folder: Path) -> Path:
    series = folder / "dicom"
    series.mkdir()
    for n, position in enumerate(axial_positions()):
        made = dicom_slice(
            position, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
        )
        made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
        made.PixelData = bytes(6 * 8 * 3)
        made.save_as(series / f"{n}.dcm")
    return series


def missing_slice(folder: Path) -> Path:
    return dicom(*(s for n, s in enumerate(stack()) if n not in (4, 5)))(folder)


def empty_folder(folder: Path) -> Path:
    (folder / "dicom").mkdir()
    (folder / "dicom/readme.txt").write_text("nothing here")
    return folder / "dicom"


def report_among_images(folder: Path) -> Path:
    series = write_series(folder / "dicom", axial_positions())
    other = only_other_objects(folder / "dicom")
    return Path(shutil.copy(other / "0.dcm", series / "report.dcm"))


SHEARED_FLAT = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
RGB = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

# name: (builder, exception, the reason that the message gives)
MALFORMED: dict[str, tuple[Build, type[Exception], str]] = {
    "no such file": (lambda folder: folder / "none.nii.gz", FileNotFoundError, "no file or folder"),
    "empty file": (raw("ct.nii.gz", b""), VolumeError, "is empty"),
    "text called nifti": (raw("ct.nii", "hello " * 100), VolumeError, "cannot be read as NIfTI"),
    "not gzip": (raw("ct.nii.gz", b"plain" * 100), VolumeError, "not a gzip file"),
    "gzip of text": (
        raw("ct.nii.gz", gzip.compress(b"hello" * 200)),
        VolumeError,
        "cannot be read as NIfTI",
    ),
    "nifti cut in its voxels": (nifti(cut=0.5), VolumeError, "is incomplete"),
    "nifti cut in its header": (nifti(cut=0.01), VolumeError, "cannot be read as NIfTI"),
    "gzip cut": (nifti("ct.nii.gz", cut=0.5), VolumeError, "cannot be read as NIfTI: .*end"),
    "gzip damaged": (
        nifti("ct.nii.gz", change=lambda d: d[:9000] + bytes(400) + d[9400:]),
        VolumeError,
        "cannot be read",
    ),
    "wrong magic": (
        nifti(change=poke(344, 0x78, 0x79, 0x7A)),
        VolumeError,
        "cannot be read|is not a NIfTI",
    ),
    "unknown voxel type": (nifti(change=poke(70, *int16s(77))), VolumeError, "cannot be read"),
    "no voxels along an axis": (
        nifti(change=poke(42, *int16s(0))),
        VolumeError,
        "no voxels|cannot be read",
    ),
    "negative axis": (nifti(change=poke(42, *int16s(-5))), VolumeError, "no voxels|cannot be read"),
    "a header that promises terabytes": (
        nifti(change=poke(42, *int16s(32767, 32767, 32767))),
        VolumeError,
        "promises",
    ),
    "a gzip that promises terabytes": (
        nifti("ct.nii.gz", change=terabytes),
        VolumeError,
        "promises",
    ),
    "RGB": (nifti(array=RGB), VolumeError, "RGB color"),
    "complex": (nifti(array=np.zeros((4, 4, 4), np.complex64)), VolumeError, "complex number"),
    "four dimensions": (nifti(array=ct((8, 8, 8, 3))), VolumeError, "holds 3 volumes"),
    "five dimensions": (nifti(array=ct((8, 8, 8, 1, 3))), VolumeError, "holds 3 volumes"),
    "no geometry": (
        nifti(sform_code=0, qform_code=0),
        VolumeError,
        "sform_code and qform_code are 0",
    ),
    "affine of one plane": (
        nifti(affine=SHEARED_FLAT),
        GridError,
        "one plane|0 x|cannot be inverted",
    ),
    "affine not finite": (nifti(change=poke(280, *float32s(np.nan))), GridError, "not finite"),
    "affine infinite": (nifti(change=poke(292, *float32s(np.inf))), GridError, "not finite"),
    "affine of zeros": (
        nifti(change=poke(280, *float32s(*[0] * 12))),
        GridError,
        "voxel size of 0",
    ),
    "spacing in meters, unit not told": (
        nifti(affine=np.diag([7e-4, 7e-4, 1e-3, 1])),
        GridError,
        "another unit",
    ),
    "spacing in microns, unit not told": (
        nifti(affine=np.diag([700, 700, 1000.0, 1])),
        GridError,
        "another unit",
    ),
    "unit wrongly meter": (
        nifti(xyzt_units=1),
        GridError,
        "lengths in meters, which makes no sense",
    ),
    "unit wrongly micron": (
        nifti(xyzt_units=3),
        GridError,
        "lengths in microns, which makes no sense",
    ),
    "unit unknown": (nifti(xyzt_units=6), VolumeError, "unknown unit"),
    "NaN voxel": (
        nifti(array=with_voxels(((1, 2, 3), np.nan))),
        VolumeError,
        r"1 of 7,920 .*\(1, 2, 3\)",
    ),
    "infinite voxels": (
        nifti(array=with_voxels(((1, 2, 3), np.inf), ((1, 2, 4), -np.inf))),
        VolumeError,
        r"2 of 7,920 .*\(1, 2, 3\)",
    ),
    "all NaN": (nifti(array=np.full((4, 4, 4), np.nan, np.float32)), VolumeError, "64 of 64"),
    "constant": (nifti(array=np.full((4, 4, 4), 7, np.int16)), VolumeError, "all 7"),
    "one slice": (nifti(array=ct((20, 20, 1))), VolumeError, "single slice"),
    "two dimensions": (nifti(array=ct((20, 20))), VolumeError, "single slice"),
    "other suffix": (raw("ct.png", b"\x89PNG" + bytes(500)), VolumeError, "no known image format"),
    "archive": (raw("ct.zip", b"PK" + bytes(500)), VolumeError, "no known image format"),
    "no suffix": (raw("ct", b"\0" * 500), VolumeError, "no known image format"),
    "text called nrrd": (raw("ct.nrrd", "hello " * 50), VolumeError, "not an NRRD file"),
    "nrrd without space": (
        nrrd("spacings: 1 1 1\n"),
        VolumeError,
        "does not say where the patient is",
    ),
    "nrrd cut": (nrrd(LPS + AXES, bytes(20)), VolumeError, "cannot be read"),
    "nrrd of one plane": (
        nrrd(LPS + "space directions: (1,0,0) (0,1,0) (0,0,0)\n"),
        VolumeError,
        "cannot be read",
    ),
    "nrrd skewed to a plane": (
        nrrd(LPS + "space directions: (1,0,0) (0,1,0) (1,1,0)\n"),
        (VolumeError, GridError),
        "one plane|cannot be read",
    ),
    "nrrd in meters": (nrrd(LPS + AXES + 'space units: "m" "m" "m"\n'), VolumeError, "millimeters"),
    "nhdr without its data": (
        nrrd(LPS + AXES + "data file: gone.raw\n", b"", "ct.nhdr"),
        VolumeError,
        "cannot be read",
    ),
    "nrrd vectors": (
        itk("ct.nrrd", lambda: sitk.Image([4, 4, 4], sitk.sitkVectorFloat32, 3)),
        VolumeError,
        "3 numbers per voxel",
    ),
    "nrrd picture": (
        itk("ct.nrrd", lambda: sitk.Image([4, 4], sitk.sitkInt16)),
        VolumeError,
        "single picture|patient",
    ),
    "text called mha": (raw("ct.mha", "hello " * 50), VolumeError, "not a MetaImage"),
    "mha without spacing": (
        raw("ct.mha", MHA + "ElementDataFile = LOCAL\n"),
        VolumeError,
        "where the patient",
    ),
    "mha cut": (
        itk("ct.mha", lambda: sitk.GetImageFromArray(ct()), cut=0.5),
        VolumeError,
        "cannot be read",
    ),
    "mhd without its raw file": (
        itk("ct.mhd", lambda: sitk.GetImageFromArray(ct()), remove="ct.raw"),
        VolumeError,
        "cannot be read",
    ),
    "mha of four volumes": (
        itk("ct.mha", lambda: sitk.JoinSeries([sitk.GetImageFromArray(ct((4, 4, 4)))] * 4)),
        VolumeError,
        "holds 4 volumes",
    ),
    "folder without DICOM": (empty_folder, VolumeError, r"no DICOM image \(1 other"),
    "folder of reports": (only_other_objects, VolumeError, "1 of type RTSTRUCT, 2 of type SR"),
    "a report beside a series": (report_among_images, VolumeError, "type SR"),
    "DICOM file damaged": (
        raw("ct.dcm", b"\0" * 128 + b"DICM" + b"\x99" * 400),
        VolumeError,
        "no image",
    ),
    "two series": (
        dicom(*stack(), *stack(7, SeriesInstanceUID="1.2.3", SeriesDescription="Thick")),
        VolumeError,
        "holds 2 DICOM series.*Thick",
    ),
    "two stacks in a series": (
        dicom(*stack(), *stack(6, ImageOrientationPatient=CORONAL)),
        VolumeError,
        "groups of 10, 6",
    ),
    "missing slices": (
        missing_slice,
        VolumeError,
        r"lacks about 2 .*6 mm between S -24.00 mm and S -18.00 mm",
    ),
    "uneven slices": (
        dicom(*[((0, 0, z), {}) for z in (0, 2, 4, 6.6, 8.6, 10.6)]),
        VolumeError,
        "unevenly spaced: .* 2.6 mm between S 4.00",
    ),
    "a slice out of line": (
        dicom(*[((5 * (k == 3), 0, 2 * k), {}) for k in range(8)]),
        VolumeError,
        "out of line: IM003",
    ),
    "two phases in a series": (
        dicom(*stack(), *stack(10, pixels=np.zeros((6, 8)))),
        VolumeError,
        "two different images at S -30.00 mm",
    ),
    "slices without position": (
        dicom(*stack(), ImagePositionPatient=None),
        VolumeError,
        "no slice with a position",
    ),
    "slices without spacing": (
        dicom(*stack(), PixelSpacing=None),
        VolumeError,
        "no slice with a position",
    ),
    "spacing of zero": (
        dicom(*stack(), PixelSpacing=[0, 0]),
        VolumeError,
        "no slice with a position",
    ),
    "no orientation at all": (
        dicom(*stack(), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        VolumeError,
        "orientation that is none|two different images",
    ),
    "one slice without thickness": (
        dicom(*stack(1), SliceThickness=None),
        VolumeError,
        "without a thickness",
    ),
    "a damaged slice": (damaged_slice, VolumeError, "1 DICOM files that cannot be read .*: IM"),
    "compression not supported": (
        unknown_syntax,
        VolumeError,
        "1.2.840.10008.1.2.4.100|cannot be decoded|no image",
    ),
    "multi-frame": (multi_frame, VolumeError, "multi-frame"),
    "color pictures": (color, VolumeError, "no slice with a position|pictures"),
}


def copy_ct(source: Path, output: Path) -> None:
    """What a command does, without the model."""
    volume = read_volume(source)
    check_ct(volume)
    write_volume(volume, output)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_image_is_refused_and_nothing_is_left(tmp_path, name):
    build, error, why = MALFORMED[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = build(tmp_path / "in")
    before = sorted(p.name for p in (tmp_path / "in").rglob("*"))
    with pytest.raises(error, match="(?s)" + why) as caught:
        copy_ct(path, tmp_path / "out/ct.nii.gz")
    message = str(caught.value)
    assert str(path.name) in message or "dicom" in message, message
    assert NEXT.search(message), message
    assert not re.search(r"\(0x[0-9a-f]+\)", message), message
    assert sorted(p.name for p in (tmp_path / "in").rglob("*")) == before
    assert not list((tmp_path / "out").iterdir())


def labels(value: int = 5) -> np.ndarray:
    array = np.zeros((20, 18, 22), np.uint8)
    array[5:9, 5:9, 5:9] = value
    return array


FAR = np.array([[1.0, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
MASKS: dict[str, tuple[Build, int | None, str]] = {
    "empty": (nifti(array=labels(0)), None, "is empty"),
    "empty, label asked": (nifti(array=labels(0)), 5, "is empty"),
    "label not there": (nifti(array=labels()), 7, "no label 7; its labels are 5"),
    "background": (nifti(array=labels()), 0, "background"),
    "the CT itself": (nifti(array=ct()), None, "negative values"),
    "NaN": (nifti(array=with_voxels(((0, 0, 0), np.nan))), None, "not finite"),
    "elsewhere": (nifti(array=labels(), affine=FAR), 5, "do not overlap"),
    "one channel per organ": (nifti(array=np.stack([labels()] * 3, axis=-1)), 5, "holds 3 volumes"),
    "no geometry": (nifti(array=labels(), sform_code=0, qform_code=0), 5, "sform_code"),
    "cut": (nifti("m.nii.gz", array=labels(), cut=0.5), 5, "cannot be read"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_malformed_mask_is_refused(tmp_path, name):
    build, label, why = MASKS[name]
    path = build(tmp_path)
    with pytest.raises(VolumeError, match=why) as caught:
        read_mask(path, label, Grid((20, 18, 22), np.eye(4)))
    assert path.name in str(caught.value)
    assert NEXT.search(str(caught.value)) or "Labels are" in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", ":5"])
def test_a_mask_argument_without_a_file_is_refused(text):
    from difftumor.images.volumes import parse_mask_argument

    with pytest.raises(VolumeError, match=r"names no mask file\. Write MASK"):
        parse_mask_argument(text)
