"""Reading and writing volumes: one way in, one way out, whatever the format.

`read_volume` and `read_mask` refuse what is no volume in the patient, with the reason; `write_volume` writes a whole
file or none. The formats themselves are in `images.files` and `images.dicom_series`.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import Grid, GridError
from difftumor.images.ct_warnings import ct_warnings
from difftumor.images.dicom_series import read_dicom
from difftumor.images.dicom_slices import is_dicom
from difftumor.images.files import Storage, Volume, VolumeError, VolumeWriteError
from difftumor.images.itk import ITK_READERS, read_itk, write_itk
from difftumor.images.nifti import NIFTI_SUFFIXES, read_nifti, write_nifti
from difftumor.images.resampling import covering_box, resample
from difftumor.remedies import Remedy, with_remedy

__all__ = [
    "Storage",
    "Volume",
    "VolumeError",
    "VolumeWriteError",
    "check_ct",
    "check_output",
    "mask_on",
    "parse_mask_argument",
    "read_mask",
    "read_volume",
    "write_volume",
]

logger = logging.getLogger(__name__)

# .mhd and .nhdr are two files each, which cannot appear at once.
WRITERS = {".nii.gz": write_nifti, ".nii": write_nifti, ".nrrd": write_itk, ".mha": write_itk}


def read_volume(path: Path | str, *, series: str | None = None) -> Volume:
    """Read a NIfTI, NRRD, MHA or MHD file, a folder with a DICOM series, or the series of one DICOM file.

    Args:
        path: file or folder.
        series: UID, number or description of the series, where a folder holds several.

    Returns:
        the volume: values in the stored voxel type, affine to RAS mm, notes for the user.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        VolumeError: if it is damaged, of an unknown kind, or no single volume with a place in the patient.
        GridError: if its geometry is degenerate.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file or folder {path}. Check the path; give a NIfTI, NRRD or MHA file "
            "or a DICOM folder."
        )
    suffix = _suffix(path)
    try:
        if path.is_dir():
            return read_dicom(path, series)
        if path.stat().st_size == 0:
            raise VolumeError(f"{path} is empty (0 bytes). Copy or export it again.")
        if suffix in NIFTI_SUFFIXES:
            return read_nifti(path)
        if suffix in ITK_READERS:
            return read_itk(path)
        if suffix in (".dcm", ".ima") or is_dicom(path):
            return read_dicom(path, series)
    except GridError as error:
        if str(path) in str(error):
            raise
        raise GridError(f"{path}: {error}") from error
    except PermissionError as error:
        raise VolumeError(
            f"{path} may not be read by this user. Change its permissions or copy it."
        ) from error
    raise VolumeError(
        f'{path} is of no known image format (suffix "{suffix}"). Give a NIfTI (.nii, .nii.gz), '
        "NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file, or a folder of DICOM files; unpack archives first."
    )


def write_volume(
    volume: Volume,
    path: Path | str,
    *,
    overwrite: bool = False,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Write a volume as NIfTI (.nii, .nii.gz), NRRD (.nrrd) or MetaImage (.mha): the whole file or nothing.

    The file is written under a temporary name in the same folder, flushed to the disk and then renamed. Equal volumes
    and metadata give equal bytes.

    Args:
        volume: what to write, in the voxel type of its storage.
        path: where to; the suffix decides the format.
        overwrite: replace an existing file (never the one that the volume was read from).
        metadata: facts about the volume, stored in the file as JSON; "description" also as the NIfTI description.

    Raises:
        FileExistsError: if the file is there and `overwrite` is not set.
        FileNotFoundError: if the folder is missing.
        VolumeError: if the suffix is unknown, the output would replace the input, the values do not fit, or the
            disk is full or write-protected. Nothing is left behind.
    """
    path = Path(path)
    check_output(path, overwrite, volume.path)
    suffix = _suffix(path)
    name = path.name[: -len(suffix)]
    temporary = path.with_name(f".{name[:100]}.{uuid.uuid4().hex[:12]}.partial{suffix}")
    try:
        WRITERS[suffix](volume, temporary, metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        check_output(path, overwrite, volume.path)
        temporary.replace(path)
    except (OSError, MemoryError) as error:
        if isinstance(error, FileExistsError | VolumeError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        refusal = VolumeWriteError(
            f"{path} could not be written: {reason}. Nothing was left behind. Free some space, check "
            "the permissions of the folder, or choose another folder."
        )
        refusal.errno = getattr(error, "errno", None)
        raise refusal from error
    finally:
        temporary.unlink(missing_ok=True)


def check_ct(volume: Volume) -> list[str]:
    """Look whether a volume can be a CT in HU.

    Values below -1024 (padding, often -2000 or -2048 outside the scanner's circle) are common and need no word: the
    window of the models clips them, and the output keeps them as they are.

    Returns:
        warnings in words, the notes of the reader first; empty for an ordinary CT.

    Raises:
        VolumeError: if it cannot be one: not finite, constant, a single slice, a mask.
    """
    array, grid = volume.array, volume.grid
    name = str(volume.path or "The volume")
    _check_finite(name, array)
    if min(grid.shape) < 2:
        raise VolumeError(
            f"{name} is a single slice ({grid}), but a CT volume is needed. Give the whole series."
        )
    low, high = float(array.min()), float(array.max())
    if array.dtype == bool or low == high:
        raise VolumeError(
            f"{name} holds no image: its values are "
            f"{'true and false' if low != high else f'all {low:g}'}. Give a CT in Hounsfield units."
        )
    return [*volume.notes, *ct_warnings(low, high, grid, volume.modality)]


def parse_mask_argument(text: str) -> tuple[Path, int | None]:
    """Split "MASK:label" of the command line; only a trailing whole number is a label.

    Examples:
        >>> parse_mask_argument("organs.nii.gz:5")
        (PosixPath('organs.nii.gz'), 5)
        >>> parse_mask_argument("C:/organs.nii.gz")
        (PosixPath('C:/organs.nii.gz'), None)
    """
    found = re.fullmatch(r"(.+):(\d+)", text)
    if not text.strip() or text.startswith(":"):
        raise VolumeError(
            f'"{text}" names no mask file. Write MASK or MASK:label, as in organs.nii.gz:5.'
        )
    return (Path(found[1]), int(found[2])) if found else (Path(text), None)


def read_mask(
    path: Path | str,
    label: int | Sequence[int] | None,
    reference: Grid,
    *,
    warn: Callable[[str], None] = logger.warning,
    allow_empty: bool = False,
) -> NDArray[np.bool_]:
    """Read a mask, or labels of a label map, onto the grid of an image; arguments and errors as of `mask_on`."""
    return mask_on(read_volume(path), path, label, reference, warn=warn, allow_empty=allow_empty)


def mask_on(
    volume: Volume,
    path: Path | str,
    label: int | Sequence[int] | None,
    reference: Grid,
    *,
    warn: Callable[[str], None] = logger.warning,
    allow_empty: bool = False,
) -> NDArray[np.bool_]:
    """Take a mask, or labels of a label map, onto the grid of an image.

    Args:
        volume: any image of `read_volume`.
        path: where it was, for messages.
        label: value or values to select, 1 or more; None takes everything above 0.5.
        reference: grid of the result. A mask on another grid is resampled to it by nearest neighbor.
        warn: receives sentences for the user.
        allow_empty: a mask or label without a voxel is an answer (a scan without tumor), not an error.

    Returns:
        bool array of `reference.shape`.

    Raises:
        FileNotFoundError, VolumeError, GridError: as `read_volume`; VolumeError if the file is no mask, the label is
            not in it, or it does not overlap `reference`.
    """
    _check_finite(str(path), volume.array)
    selected = _select(path, volume.array, label)
    if not selected.any():
        if allow_empty:
            return np.zeros(reference.shape, dtype=bool)
        raise VolumeError(_what_is_there(path, volume.array, label))
    said = list(volume.notes)
    values = volume.array[selected]
    if label is None and values.dtype.kind in "iu" and values.size and values.min() < values.max():
        said.append(
            f"{path} holds several labels and all of them are taken together. Write {path}:LABEL for one organ."
        )
    smallest = float(reference.spacing.min())
    if not volume.grid.same_as(reference, tolerance_mm=0.05 * smallest):
        selected, lost = _onto(path, selected, volume.grid, reference)
        if not _same_lattice(volume.grid, reference):
            apart = np.linalg.norm(volume.affine[:3, 3] - reference.affine[:3, 3])
            said.append(
                f"The mask {path} lies on another grid ({volume.grid}) than the image ({reference}); their "
                f"first voxels are {apart:.3g} mm apart. It was carried over by nearest neighbor."
            )
        if lost > 0.01:
            said.append(f"{lost:.0%} of the mask {path} lie outside the image and were cut off.")
    for sentence in said:
        warn(sentence)
    return selected


def check_output(path: Path, overwrite: bool, source: Path | None) -> None:
    """Refuse a path that cannot or must not be written (errors: see `write_volume`)."""
    if _suffix(path) not in WRITERS or path.name == _suffix(path):
        raise VolumeError(
            f"{path} names no output format that can be written. Choose a name that ends in "
            f"{', '.join(WRITERS)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {path.parent} for the output {path.name} does not exist. Create it or "
            "choose another."
        )
    if path.is_dir():
        raise VolumeError(f"{path} is a folder. Give the name of a file as output.")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise VolumeError(
            f"The output {path} is the input itself, which is never changed. Choose another name."
        )
    if os.path.lexists(path) and not overwrite:
        raise with_remedy(FileExistsError(f"{path} exists already."), Remedy("overwrite"))


def _select(
    path: Path | str, array: NDArray[Any], label: int | Sequence[int] | None
) -> NDArray[np.bool_]:
    """Return the voxels of one or several labels, or of all; raise VolumeError if the array is no label map."""
    low, high = array.min(), array.max()
    if low < 0:
        raise VolumeError(
            f"{path} is no mask: it has negative values ({low:g} to {high:g}), like an image. Give the "
            "segmentation, exported as a label map."
        )
    if label is None:
        return np.asarray(array > 0.5)
    labels = (label,) if isinstance(label, int) else tuple(label)
    if min(labels) < 1:
        raise VolumeError(
            f"Label {min(labels)} of {path} is the background. Labels are whole numbers from 1."
        )
    return np.asarray(array == labels[0]) if len(labels) == 1 else np.isin(array, labels)


def _what_is_there(path: Path | str, array: NDArray[Any], label: int | Sequence[int] | None) -> str:
    """Say what a mask holds instead of the label that was asked for."""
    present = np.unique(array)
    present = present[present != 0]
    if label is None or not present.size:
        return f"The mask {path} is empty: no voxel is set. Give the mask of the organ."
    told = ", ".join(f"{value:g}" for value in present[:20]) + (" ..." if present.size > 20 else "")
    return f"{path} has no label {label}; its labels are {told}. Choose one of them (MASK:label)."


def _same_lattice(first: Grid, second: Grid) -> bool:
    """Tell whether voxels of one grid fall on voxels of the other (flipped, swapped or cropped axes)."""
    between = np.linalg.inv(second.affine) @ first.affine
    whole = np.rint(between)
    ends = np.array(np.meshgrid(*[[0, n - 1] for n in first.shape], [1])).reshape(4, -1)
    off = float(np.abs((between - whole) @ ends).max())
    return off < 0.05 and abs(np.linalg.det(whole)) == 1


def _onto(
    path: Path | str, mask: NDArray[np.bool_], grid: Grid, reference: Grid
) -> tuple[NDArray[np.bool_], float]:
    """Carry a mask to another grid; return it with the share of it that lies outside."""
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    inner = grid.cropped(box)
    target_box = covering_box(inner, reference)
    result = np.zeros(reference.shape, dtype=bool)
    if all(part.stop > part.start for part in target_box):
        result[target_box] = resample(
            mask[box], inner, reference.cropped(target_box), order=0, fill=False
        )
    if not result.any():
        first, second = (np.round(g.bounds_ras).astype(int).tolist() for g in (inner, reference))
        raise VolumeError(
            f"The mask {path} and the image do not overlap: the mask lies within RAS {first} mm, "
            f"the image within {second} mm. Give the mask that was drawn on this image."
        )
    voxels = np.flatnonzero(mask)
    voxels = voxels[:: 1 + voxels.size // 100_000]  # enough to tell a share
    inside = reference.contains(
        grid.to_ras(np.stack(np.unravel_index(voxels, mask.shape), axis=-1))
    )
    return result, 1 - float(inside.mean())


def _check_finite(name: str, array: NDArray[Any]) -> None:
    """Raise VolumeError if there are NaN or infinite voxels: how many, and where the first one is."""
    if array.dtype.kind != "f":
        return
    bad = [int((~np.isfinite(array[:, :, k])).sum()) for k in range(array.shape[2])]
    if not any(bad):
        return
    k = next(k for k, count in enumerate(bad) if count)
    i, j = np.argwhere(~np.isfinite(array[:, :, k]))[0]
    raise VolumeError(
        f"{name} has {sum(bad):,} of {array.size:,} voxels that are not finite (NaN or "
        f"infinite), the first at voxel ({i}, {j}, {k}). Replace them (by -1024 in a CT) or "
        "export the image again."
    )


def _suffix(path: Path) -> str:
    """Return the format suffix in lower case, ".nii.gz" as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
