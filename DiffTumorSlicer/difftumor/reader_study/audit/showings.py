"""What readers get, with the truth from the key beside it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from difftumor.reader_study.key import READERS, Key, Study
from difftumor.reader_study.study import Package, StudyError, read_package


@dataclass(frozen=True)
class Showing:
    """One file of a package.

    Attributes:
        path: of the image.
        reader, token, position, practice, repeat: its place in a reader's order; positions count from 0.
        case_id, truth, organ: from the key.
        start_ras: where the display begins, mm.
        lesions: packed mask, or None.
    """

    path: Path
    reader: str
    token: str
    position: int
    practice: bool
    repeat: bool
    case_id: str
    truth: str
    organ: str
    start_ras: tuple[float, float, float]
    lesions: Mapping[str, Any] | None


def read_showings(study: Study, key: Key) -> tuple[list[Package], list[Showing]]:
    """All packages of a study, with the truth.

    Raises:
        StudyError: a package is missing, damaged, or does not belong to the key.
    """
    packages, showings = [], []
    for reader, order in key.readers.items():
        package = read_package(study.folder / READERS / reader, images=False)
        if [case.token for case in package.cases] != [showing.token for showing in order]:
            raise StudyError(
                f"The order of {package.folder} is not the one in the key. Make the study again; a package must "
                "not be changed."
            )
        packages.append(package)
        for position, (case, known) in enumerate(zip(package.cases, order, strict=True)):
            truth = key.cases[known.case_id]
            showings.append(
                Showing(
                    package.folder / case.file,
                    reader,
                    case.token,
                    position,
                    known.practice,
                    known.repeat_of is not None,
                    known.case_id,
                    truth.truth,
                    truth.organ,
                    case.start_ras,
                    truth.lesions,
                )
            )
    for showing in showings:
        if not showing.path.is_file():
            raise StudyError(f"{showing.path} is missing. Make the study again.")
    return packages, showings


def first_showings(showings: Sequence[Showing]) -> list[Showing]:
    """One showing of each case that counts."""
    found: dict[str, Showing] = {}
    for showing in showings:
        if not showing.practice:
            found.setdefault(showing.case_id, showing)
    return [found[case_id] for case_id in sorted(found)]


def lesion_mask(packed: Mapping[str, Any], grid: Grid) -> NDArray[np.bool_]:
    """The lesions of a copy on its grid (I, J, K)."""
    shape = tuple(int(n) for n in packed["shape"])
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed["bits"])), np.uint8)
    part = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
    first = np.rint(grid.to_ijk(np.asarray(packed["first_voxel_ras"], float))).astype(int)
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(first, shape, strict=True))] = part
    return mask
