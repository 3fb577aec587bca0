"""Volumes, and what the readers and writers of all image formats share.

The readers are the border where foreign conventions end: ITK's LPS becomes RAS, byte orders become native, and scaled
voxels become physical values. How the file stored them travels along in `Storage`, so that a volume that was changed
in a few voxels is written back with every other voxel bit for bit as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid

# What nibabel and the libraries below it raise on damaged files.
DAMAGED = (OSError, EOFError, ValueError, KeyError, IndexError, OverflowError, MemoryError)
EXPORT_AGAIN = "Export it again as NIfTI, NRRD or MHA from the program that made it."
DAMAGED_FILE = (
    "The file is damaged, incomplete, or of another format than its name says: copy or export it "
    "again."
)


class VolumeError(ValueError):
    """A file or folder that is not the volume it should be; says what, why, and what to do next."""


class VolumeWriteError(VolumeError, OSError):
    """A file that could not be written; `errno` says whether the disk is full."""


@dataclass(frozen=True, eq=False)
class Storage:
    """How the voxels of a volume lie in its file.

    Args:
        dtype: voxel type on disk.
        slope: value = slope * stored + intercept (NIfTI only; elsewhere 1).
        intercept: see slope.
        nifti: header whose geometry fields are written back unchanged, or None.
    """

    dtype: np.dtype[Any]
    slope: float = 1.0
    intercept: float = 0.0
    nifti: nib.Nifti1Header | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether stored numbers differ from values."""
        return (self.slope, self.intercept) != (1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image in the patient.

    Args:
        array: (I, J, K) values (HU for CT) in the stored voxel type, or where the file scales its voxels in the
            smallest type that holds the scaled values so that they go back exactly.
        affine: float64 (4, 4), voxel indices to RAS mm.
        storage: how the file stores the voxels; None for the type of `array`, unscaled.
        path: file or folder it was read from, never to be overwritten; None if computed.
        modality: DICOM modality ("CT", "MR") or "" where the file does not tell.
        notes: what was noticed or put right while reading, sentences for the user.

    Raises:
        VolumeError: if the array is not 3-D or not of a real number type.
        GridError: if shape and affine make no grid.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    storage: Storage = None  # type: ignore[assignment]  # filled in below
    path: Path | None = None
    modality: str = ""
    notes: tuple[str, ...] = ()
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        if array.dtype.kind not in "biuf":
            raise VolumeError(
                f"Voxels of type {array.dtype} are not single real numbers. Convert the image to "
                "int16 or float32."
            )
        grid = Grid(array.shape, self.affine)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "affine", grid.affine)
        if self.storage is None:
            object.__setattr__(self, "storage", Storage(array.dtype))

    @classmethod
    def of_mask(cls, mask: NDArray[Any], affine: NDArray[np.float64]) -> Volume:
        """Make a volume of voxel type uint8 from a mask or a label map of at most 255 labels."""
        return cls(np.asarray(mask).astype(np.uint8), affine)

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Return other voxels (same shape) in the place of these: the result of a task, or a mask.

        The same voxel type is stored as this volume was; another type is stored as it is, unscaled.
        """
        if array.shape != self.array.shape:
            raise VolumeError(f"The new array has shape {array.shape}, not {self.array.shape}.")
        storage = self.storage
        if array.dtype != self.array.dtype:
            storage = replace(storage, dtype=array.dtype, slope=1.0, intercept=0.0)
        return replace(self, array=array, storage=storage)

    def quantized(self, values: NDArray[np.floating]) -> NDArray[Any]:
        """Round values (any shape) to what the file can hold, clipped to its range, in the type of `array`."""
        stored, own = self.storage, self.array.dtype
        steps = (np.asarray(values, dtype=np.float64) - stored.intercept) / stored.slope
        if stored.dtype.kind in "iu":
            limits = np.iinfo(stored.dtype)
            steps = np.clip(np.rint(steps), limits.min, limits.max)
        else:
            steps = steps.astype(stored.dtype).astype(np.float64)
        values = steps * stored.slope + stored.intercept
        if own.kind in "iu":
            values = np.clip(np.rint(values), np.iinfo(own).min, np.iinfo(own).max)
        return values.astype(own)


def single_volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the 3-D shape of an image whose further axes have length 1, or raise VolumeError."""
    if len(shape) < 2 or min(shape) < 1:
        raise VolumeError(f"{path} has no voxels: its axes have lengths {shape}. {DAMAGED_FILE}")
    further = [n for n in shape[3:] if n > 1]
    if further:
        raise VolumeError(
            f"{path} holds {math.prod(further)} volumes (axes {shape}), for instance time points "
            "or phases, but one is needed. Extract one of them into its own file."
        )
    i, j, k = (*shape[:3], 1)[:3]
    return int(i), int(j), int(k)


def smallest_integer(low: float, high: float) -> np.dtype[Any]:
    """Return the first of int16, int32, int64 that holds all values from `low` to `high`."""
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.int64)


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in a type that image files know."""
    known = {"bool": np.uint8, "float16": np.float32}.get(array.dtype.name)
    return array if known is None else array.astype(known)


def json_line(metadata: Mapping[str, object]) -> str:
    """Return facts as one line of ASCII JSON in a fixed order: equal facts make equal files."""
    return json.dumps(metadata, sort_keys=True, default=str)
