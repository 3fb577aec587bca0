"""NIfTI files through nibabel: geometry, units and scaled voxels, in and out."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from difftumor.grids import Grid, GridError
from difftumor.images.files import (
    DAMAGED,
    DAMAGED_FILE,
    EXPORT_AGAIN,
    Storage,
    Volume,
    VolumeError,
    json_line,
    plain,
    single_volume_shape,
    smallest_integer,
)

NIFTI_SUFFIXES = (".nii.gz", ".nii")
_DAMAGED_NIFTI = (*DAMAGED, zlib.error, ImageFileError, HeaderDataError)
# The part of a NIfTI header that says where voxels are; copied from input to output as it stands.
_GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "pixdim", "xyzt_units"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_UNIT_IN_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_MAX_GZIP_RATIO = 1100  # deflate cannot expand further; a header that claims more is wrong


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file (.nii, .nii.gz) with one volume in it.

    The sform places the voxels, else the qform; a file with neither is refused, since left and right would be a guess.

    Raises:
        VolumeError: if the file is damaged, holds no single 3-D scalar volume, or says nothing about its place.
        GridError: if its geometry is degenerate.
    """
    try:
        kind = type(nib.load(path))
        if not issubclass(kind, nib.Nifti1Image):
            raise VolumeError(f"{path} is not a NIfTI file with voxels in it. {EXPORT_AGAIN}")
        is_gzip = path.suffix.lower() == ".gz"
        with gzip.open(path) if is_gzip else path.open("rb") as stream:
            volume = _read_stream(path, kind.from_stream(stream))
            while stream.read(2**20):  # to the end: only there gzip compares its checksum
                pass
    except (VolumeError, GridError, PermissionError):
        raise
    except _DAMAGED_NIFTI as error:
        raise VolumeError(
            f"{path} cannot be read as NIfTI: {_reason(error)}. {DAMAGED_FILE}"
        ) from error
    return volume


def _read_stream(path: Path, image: nib.Nifti1Image) -> Volume:
    """Read geometry and voxels of an opened file."""
    header = image.header
    shape = single_volume_shape(path, header.get_data_shape())
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise VolumeError(
            f"{path} holds voxels of type {_type_name(dtype)}, not single real numbers. "
            "Convert it to a gray-scale image (int16 or float32) first."
        )
    _check_size(path, math.prod(shape) * dtype.itemsize)
    affine, notes, keep = _nifti_geometry(path, header)
    proxy: Any = image.dataobj  # holds slope and intercept; nibabel clears them in the header
    slope, intercept = float(proxy.slope), float(proxy.inter)
    stored = np.asarray(proxy.get_unscaled()).reshape(shape, order="F")
    stored = stored.astype(dtype.newbyteorder("="), copy=False)
    geometry = _geometry_only(header) if keep else None
    storage = Storage(stored.dtype, slope, intercept, geometry)
    array, storage = _physical(stored, storage)
    return Volume(array, affine, storage, path, notes=tuple(notes))


def write_nifti(volume: Volume, path: Path, metadata: Mapping[str, object] | None) -> None:
    """Write a NIfTI file; `metadata` goes into a comment extension as one line of JSON.

    Raises:
        VolumeError: if a value does not fit into the voxel type of the file.
    """
    stored = _stored(volume)
    original = volume.storage.nifti
    needs_nifti2 = max(stored.shape) >= 2**15 or isinstance(original, nib.Nifti2Header)
    kind: Any = nib.Nifti2Image if needs_nifti2 else nib.Nifti1Image
    image = kind(stored, volume.affine, dtype=stored.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=0)
    if _is_orthogonal(volume.affine):
        image.set_qform(volume.affine, code=1)
    if original is not None and np.array_equal(original.get_best_affine(), volume.affine):
        for name in _GEOMETRY_FIELDS:
            image.header[name] = original[name]
    if metadata:
        image.header.extensions.append(
            nib.nifti1.Nifti1Extension("comment", json_line(metadata).encode())
        )
        image.header["descrip"] = str(metadata.get("description", "")).encode()[:79]
    # An explicit slope stops nibabel from choosing one of its own.
    image.header.set_slope_inter(volume.storage.slope, volume.storage.intercept)
    nib.save(image, path)


def _reason(error: BaseException) -> str:
    """Return the first line of an error, or its type where it has none."""
    if isinstance(error, MemoryError):
        return "its header asks for more memory than there is"
    return next(iter(str(error).splitlines()), "").rstrip(". ") or type(error).__name__


def _type_name(dtype: np.dtype[Any]) -> str:
    """Name a voxel type in the words of the user."""
    if dtype.fields:
        return "RGB color" if len(dtype.fields) == 3 else "RGBA color"
    return "complex number" if dtype.kind == "c" else str(dtype)


def _check_size(path: Path, n_bytes: int) -> None:
    """Refuse a header that claims more voxels than the file can hold, before memory is asked for."""
    size = path.stat().st_size
    if n_bytes > size * (_MAX_GZIP_RATIO if path.suffix.lower() == ".gz" else 1):
        raise VolumeError(
            f"{path} is incomplete: its header promises {n_bytes:,} bytes of voxels, but the "
            f"file has {size:,} bytes. {DAMAGED_FILE}"
        )


def _nifti_geometry(
    path: Path, header: nib.Nifti1Header
) -> tuple[NDArray[np.float64], list[str], bool]:
    """Return the affine in mm, notes, and whether the header's geometry may be written back as it stands."""
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        raise VolumeError(
            f"{path} does not say where the patient is (sform_code and qform_code are 0), so "
            "left and right would be a guess. Convert it again from DICOM (dcm2niix), or load it "
            "in 3D Slicer, check left and right, and save it again."
        )
    notes = []
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    shape = single_volume_shape(path, header.get_data_shape())
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        apart = _apart_mm(shape, affine, np.array(header.get_qform(), dtype=np.float64))
        if not apart <= 0.1 * np.linalg.norm(affine[:3, :3], axis=0).min():
            notes.append(
                "The file gives two places for its voxels: sform and qform are up to "
                f"{apart:.1f} mm apart. The sform is used here; other programs may show the "
                "image elsewhere."
            )
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    if unit is None:
        raise VolumeError(
            f"{path} gives its lengths in an unknown unit (xyzt_units "
            f"{int(header['xyzt_units'])}). Set the unit of its header to millimeters (2) if its "
            "voxel size is in mm."
        )
    scale = _UNIT_IN_MM[unit]
    if scale != 1:
        affine[:3] *= scale
        notes.append(f"The lengths of the file are in {unit}s; they were converted to millimeters.")
        try:
            Grid(shape, affine)
        except GridError as error:
            raise GridError(
                f"{path} gives its lengths in {unit}s, which makes no sense for a patient: "
                f"{error} Set the unit of its header to millimeters if its voxel size is in mm."
            ) from error
    return affine, notes, scale == 1


def _apart_mm(
    shape: tuple[int, int, int], first: NDArray[np.float64], second: NDArray[np.float64]
) -> float:
    """Return the largest distance in mm between the places that two affines give to a corner voxel."""
    ends = np.array(np.meshgrid(*[[0, n - 1] for n in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm((first - second) @ ends, axis=0).max())


def _geometry_only(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Copy what places the voxels and nothing else: no names, comments or extensions travel along."""
    kept = type(header)()
    kept.set_data_shape(header.get_data_shape())
    for name in _GEOMETRY_FIELDS:
        kept[name] = header[name]
    return kept


def _physical(stored: NDArray[Any], storage: Storage) -> tuple[NDArray[Any], Storage]:
    """Apply slope and intercept; return the values and the storage that takes them back exactly."""
    if not storage.is_scaled:
        return stored, storage
    slope, intercept = storage.slope, storage.intercept
    ends = np.array([stored.min(), stored.max()], dtype=np.float64) * slope + intercept
    largest = float(np.abs(ends).max())
    if stored.dtype.kind == "f":
        # A scaled float64 may lose its last bit on the way back, so its values are stored unscaled
        # from now on.
        dtype: np.dtype[Any] = np.dtype(np.float64)
        if stored.dtype.itemsize == 8:
            storage = replace(storage, slope=1.0, intercept=0.0)
    elif slope == int(slope) and intercept == int(intercept):
        dtype = smallest_integer(ends.min(), ends.max())
    else:  # float32 while its rounding stays far below half a step
        dtype = np.dtype(np.float32 if largest * 2.0**-24 < 0.1 * abs(slope) else np.float64)
    array = np.empty(stored.shape, dtype=dtype, order="F")
    for k in range(stored.shape[2]):  # plane by plane, so that a huge volume needs no second copy
        plane = stored[:, :, k] * np.float64(slope) + intercept
        array[:, :, k] = np.rint(plane) if dtype.kind == "i" else plane
    return array, storage


def _stored(volume: Volume) -> NDArray[Any]:
    """Return the numbers that go into a NIfTI file for the values of a volume."""
    storage, array = volume.storage, plain(volume.array)
    if not storage.is_scaled:
        return array
    stored = np.empty(array.shape, dtype=storage.dtype, order="F")
    limits = np.iinfo(storage.dtype) if storage.dtype.kind in "iu" else None
    for k in range(array.shape[2]):
        plane = (array[:, :, k].astype(np.float64) - storage.intercept) / storage.slope
        if limits is not None:
            plane = np.rint(plane)
            if plane.min() < limits.min or plane.max() > limits.max:
                raise VolumeError(
                    f"Some values do not fit into the voxel type of the input ({storage.dtype} "
                    f"with slope {storage.slope:g} and intercept {storage.intercept:g}). Convert "
                    "the input to float32 first."
                )
        stored[:, :, k] = plane
    return stored


def _is_orthogonal(affine: NDArray[np.float64]) -> bool:
    """Tell whether the axes stand at right angles, which is all that a qform can express."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-5))
