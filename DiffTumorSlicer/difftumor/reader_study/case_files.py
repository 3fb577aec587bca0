"""The neutral image of a case, read as fast as the disk allows.

Packages hold one form only (uncompressed NIfTI-1 in one file, little endian, 16 bit), so a header of 348 bytes and one
read do; nibabel is not needed, which Slicer lacks. One long read lets other threads run meanwhile.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.reader_study.study import StudyError

HEADER_BYTES = 348
# NIfTI's number of a voxel type.
TYPES: dict[int, np.dtype[Any]] = {4: np.dtype("<i2"), 512: np.dtype("<u2"), 16: np.dtype("<f4")}
LONGEST_SIDE = 4096


@dataclass(frozen=True)
class CaseImage:
    """Voxels of a case, and where they lie.

    Attributes:
        array: (I, J, K), Fortran order, HU.
        affine: (4, 4), voxel index to RAS mm.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]


def read_case(path: Path, sha256: str = "") -> CaseImage:
    """Read the image of a case.

    Args:
        path: of the package's file, called by its token.
        sha256: of token and file (`study.case_sha256`), compared if given.

    Raises:
        StudyError: missing, cut short, changed, or not of the packages' form.
    """
    try:
        size = path.stat().st_size
        content = np.empty(size, np.uint8)
        with path.open("rb", buffering=0) as file:
            view, done = memoryview(content), 0  # type: ignore[arg-type]
            while done < size:  # one call reads at most 2 GB
                step = file.readinto(view[done:])
                if not step:
                    raise StudyError(_damaged(path, "it is cut short"))
                done += step
    except OSError as error:
        raise StudyError(
            f"The image {path.name} of this package cannot be read ({error.strerror or error}). Make sure that "
            "the package's folder can be reached, and go on; the answers so far are stored."
        ) from None
    if sha256:
        digest = hashlib.sha256(path.stem.encode())
        digest.update(content.data)
        if digest.hexdigest() != sha256:
            raise StudyError(_damaged(path, "its content has changed"))
    return _parsed(path, content)


def _parsed(path: Path, content: NDArray[np.uint8]) -> CaseImage:
    header = content[:HEADER_BYTES].tobytes()
    if len(header) < HEADER_BYTES or header[344:348] != b"n+1\0":
        raise StudyError(_damaged(path, "it is no NIfTI file"))
    dimensions = struct.unpack_from("<8h", header, 40)
    shape = dimensions[1:4]
    kind = TYPES.get(struct.unpack_from("<h", header, 70)[0])
    start = int(struct.unpack_from("<f", header, 108)[0])
    sform = struct.unpack_from("<h", header, 254)[0]
    if kind is None or sform <= 0 or not all(0 < n <= LONGEST_SIDE for n in shape):
        raise StudyError(_damaged(path, "its header is not that of a case"))
    count = int(np.prod(shape))
    if start < HEADER_BYTES or content.size < start + count * kind.itemsize:
        raise StudyError(_damaged(path, "it is cut short"))
    affine = np.eye(4)
    affine[:3] = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise StudyError(_damaged(path, "its place in the patient is impossible"))
    voxels = content[start : start + count * kind.itemsize].view(kind)
    return CaseImage(voxels.reshape(shape, order="F"), affine)


def _damaged(path: Path, why: str) -> str:
    return (
        f"The image {path.name} of this package is damaged: {why}. Ask the coordinator for a new copy of the "
        "package and keep the journal; the answers so far are stored."
    )
