"""NRRD and MetaImage files through SimpleITK, whose world is LPS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from difftumor.images.files import (
    DAMAGED,
    DAMAGED_FILE,
    EXPORT_AGAIN,
    Volume,
    VolumeError,
    json_line,
    plain,
    single_volume_shape,
)

# ITK's world is LPS, ours is RAS: the first two axes change their sign.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ITK_READERS = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}


def read_itk(path: Path) -> Volume:
    """Read an NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file with one volume in it.

    Raises:
        VolumeError: if the file is damaged, holds no single 3-D scalar volume, or says nothing about its place.
        GridError: if its geometry is degenerate.
    """
    _check_itk_header(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(ITK_READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
            size, parts = reader.GetSize(), reader.GetNumberOfComponents()
            if parts != 1:
                raise VolumeError(
                    f"{path} holds {parts} numbers per voxel (color, a vector field, or a "
                    "segmentation in several layers), not one. Export one channel, or the "
                    "segmentation as a label map."
                )
            if len(size) < 3:
                raise VolumeError(
                    f"{path} is a single picture of {size} pixels. Give a 3-D volume."
                )
            single_volume_shape(path, size)
            if len(size) > 3:  # ITK leaves out axes of extraction size 0
                reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
            image = reader.Execute()
    except VolumeError:
        raise
    except (RuntimeError, *DAMAGED) as error:
        raise VolumeError(f"{path} cannot be read: {itk_reason(error)}. {DAMAGED_FILE}") from error
    array = sitk.GetArrayFromImage(image).transpose()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(array, LPS_TO_RAS @ affine, path=path)


def write_itk(volume: Volume, path: Path, metadata: Mapping[str, object] | None) -> None:
    """Write a compressed NRRD or MHA file; `metadata` goes into the field "difftumor" as one line of JSON.

    Raises:
        OSError: if the file cannot be written whole.
    """
    image = sitk.GetImageFromArray(plain(volume.array).transpose())
    affine = LPS_TO_RAS @ volume.affine
    image.SetSpacing(volume.grid.spacing.tolist())
    image.SetDirection((affine[:3, :3] / volume.grid.spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    if metadata:
        image.SetMetaData("difftumor", json_line(metadata))
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(itk_reason(error)) from error


def _check_itk_header(path: Path) -> None:
    """Refuse an NRRD or MetaImage header without geometry, for which ITK would quietly assume one."""
    with path.open("rb") as file:
        head = file.read(65536).split(b"\n\n")[0].decode("latin-1").lower()
    lines = [line.strip() for line in head.splitlines()]
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        if not head.startswith("nrrd"):
            raise VolumeError(
                f"{path} is not an NRRD file: it does not begin with NRRD. {EXPORT_AGAIN}"
            )
        placed = any(line.startswith("space:") for line in lines)
        units = next((line for line in lines if line.startswith("space units:")), '"mm"')
        if set(units.partition(":")[2].replace('"', " ").split()) - {"mm"}:
            raise VolumeError(
                f"{path} does not give its lengths in millimeters ({units}). Convert it to "
                "millimeters first."
            )
    else:
        if "dimsize" not in head:
            raise VolumeError(f"{path} is not a MetaImage file: it has no DimSize. {EXPORT_AGAIN}")
        placed = any(line.startswith(("elementspacing", "elementsize")) for line in lines)
    if not placed:
        raise VolumeError(
            f"{path} does not say where the patient is (no space or spacing in its header), so "
            "size, left and right would be a guess. Load it in 3D Slicer, check left and right, "
            "and save it again."
        )


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK from printing warnings; what matters is checked and said by us."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def itk_reason(error: BaseException) -> str:
    """Return the sentence of an ITK error without source paths and object addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "/src/" not in line and "/include/" not in line]
    text = re.sub(
        r"\w+\(0x[0-9a-f]+\): |(ITK |itk::)ERROR: |\[nrrd\] |Reason: Success", "", " ".join(told)
    )
    return text.rstrip(". ")[:400] or type(error).__name__
