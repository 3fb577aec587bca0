"""The tags of DICOM images: what each file of a folder is, without decoding its pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from difftumor.images.files import VolumeError
from difftumor.images.itk import LPS_TO_RAS, quiet_itk

# Tags as they lie in a file: group, element, value representation.
MODALITY = b"\x08\x00\x60\x00CS"
SERIES_UID = b"\x20\x00\x0e\x00UI"
TRANSFER_SYNTAX = b"\x02\x00\x10\x00UI"
# Modalities of DICOM objects without pixels, which often lie beside a series.
NO_IMAGES = ("SR", "RTSTRUCT", "RTPLAN", "RTRECORD", "PR", "KO", "REG", "DOC", "AU", "ECG", "PLAN")


@dataclass(frozen=True, eq=False)
class Slice:
    """The tags of one DICOM image that decide where it belongs; lengths in mm, LPS; NaN where not told."""

    path: Path
    series: str
    description: str
    number: str
    modality: str
    kind: str
    shape: tuple[int, ...]
    pixel: int
    rescale: tuple[str, str]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing: NDArray[np.float64]
    thickness: float

    @property
    def has_place(self) -> bool:
        """Whether position, orientation and pixel spacing are all known, and no length is 0."""
        known = np.concatenate([self.position, self.axes.ravel(), self.spacing])
        return bool(np.isfinite(known).all() and (self.spacing > 0).all())

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice, LPS."""
        return np.cross(self.axes[0], self.axes[1])

    @property
    def place(self) -> str:
        """Where the slice lies along the patient axis that it crosses most, in RAS."""
        axis = int(np.abs(self.normal).argmax())
        value = (LPS_TO_RAS[:3, :3] @ self.position)[axis]
        return f"{'RAS'[axis]} {value:.2f} mm"

    def stacks_with(self, other: Slice) -> bool:
        """Tell whether both slices have one size, pixel spacing and orientation."""
        return (
            self.shape == other.shape
            and np.allclose(self.axes, other.axes, atol=1e-3)
            and np.allclose(self.spacing, other.spacing, rtol=1e-3)
        )


def is_dicom(path: Path) -> bool:
    """Tell whether a file carries the DICOM mark ("DICM" after 128 bytes)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def scan_folder(folder: Path) -> tuple[list[Slice], list[Path]]:
    """Read the tags of all DICOM images of a folder, or below it where the folder itself has none.

    Returns:
        the images, and the DICOM files that should be images but cannot be read.

    Raises:
        VolumeError: if there is no image.
    """
    for pattern in ("*", "**/*"):
        files = sorted(
            file
            for file in folder.glob(pattern)
            if file.is_file() and not file.name.startswith(".") and file.name != "DICOMDIR"
        )
        with quiet_itk():
            found = {file: read_slice(file) for file in files}
        others = [file for file in files if found[file] is None and is_dicom(file)]
        slices = [tags for tags in found.values() if tags is not None]
        if slices:
            return slices, [file for file in others if find_tag(file, MODALITY) not in NO_IMAGES]
        if others:
            kinds = Counter(find_tag(file, MODALITY) or "unknown" for file in others)
            told = ", ".join(f"{count} of type {kind}" for kind, count in sorted(kinds.items()))
            raise VolumeError(
                f"{folder} holds {len(others)} DICOM files but no image that can be read ({told}). "
                "Reports (SR), structures (RTSTRUCT) and the like are no CT, and damaged files must "
                "be copied again. Give the folder of a CT series."
            )
    raise VolumeError(
        f"{folder} holds no DICOM image ({len(files)} other files). Give the folder of a CT "
        "series, or a NIfTI, NRRD or MHA file."
    )


def read_slice(path: Path) -> Slice | None:
    """Read the tags of one file; None if ITK finds no image in it."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # not DICOM, DICOM without an image, or damaged: told apart by the caller
        return None
    keys = set(reader.GetMetaDataKeys())

    def text(tag: str) -> str:
        if tag not in keys:
            return ""
        # ITK hands over the bytes of the file, in UTF-8 or (mostly) Latin-1.
        raw = str(reader.GetMetaData(tag)).encode("utf-8", "surrogateescape")
        try:
            return raw.decode().strip(" \0")
        except UnicodeDecodeError:
            return raw.decode("latin-1").strip(" \0")

    return Slice(
        path=path,
        series=text("0020|000e"),
        description=text("0008|103e"),
        number=text("0020|0011"),
        modality=text("0008|0060"),
        kind="color picture" if reader.GetNumberOfComponents() != 1 else text("0008|0008"),
        shape=tuple(reader.GetSize()),
        pixel=reader.GetPixelID(),
        rescale=(text("0028|1053"), text("0028|1052")),
        position=_numbers(text("0020|0032"), 3),
        axes=_numbers(text("0020|0037"), 6).reshape(2, 3),
        spacing=_numbers(text("0028|0030"), 2),
        thickness=float(_numbers(text("0018|0050"), 1)[0]),
    )


def find_tag(path: Path, tag: bytes) -> str:
    """Find the text of an explicit-VR tag in the head of a file that ITK cannot open; "" if it is not there."""
    with path.open("rb") as file:
        head = file.read(65536)
    at = head.find(tag)
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    return head[at + 8 : at + 8 + length].decode("latin-1").strip(" \0") if at >= 0 else ""


def _numbers(text: str, count: int) -> NDArray[np.float64]:
    """Parse backslash-separated decimals; NaN if there are not exactly `count` of them."""
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        values = np.empty(0)
    return values if values.shape == (count,) else np.full(count, np.nan)
