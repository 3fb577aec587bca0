"""Where the cases of a study come from: folders and tables of scans, and what is measured on each before the choice."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from difftumor.images.dicom_slices import is_dicom
from difftumor.images.volumes import Volume, check_ct, parse_mask_argument, read_mask, read_volume
from difftumor.measuring.lesions import measure_lesions
from difftumor.measuring.tables import number_lesions
from difftumor.parameters import ORGAN_LABELS
from difftumor.provenance import SidecarError, image_hash, read_sidecar, sidecar_path
from difftumor.reader_study.study import StudyError

Kind = Literal["real", "synthetic", "healthy"]
Note = Callable[[str], None]

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LESION_PARTS = ("-mask", "-tumors", "-lesions", "-segmentation")
COLUMNS = ("image", "kind", "organ", "lesions")
_MARK_BYTES = 65536


@dataclass(frozen=True)
class Source:
    """One scan that may become a case.

    Attributes:
        image: file, or folder of a DICOM series.
        kind: what it is.
        organ: of the lesion; "" to look it up in the side-car, or in `CASE-organs` beside the image.
        lesions: mask file; None if healthy.
        label: of the lesions in it; None: all that is above 0.5.
    """

    image: Path
    kind: Kind
    organ: str = ""
    lesions: Path | None = None
    label: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A source with what was measured on it.

    Attributes:
        source: where it is.
        organ: liver, pancreas or kidney.
        sha256: of voxels and geometry; orders the cases, since it knows nothing of the truth.
        grid: of the scan.
        center_ras: of the largest lesion, or of the scan, mm.
        size_mm: equivalent diameter of the largest lesion; None if healthy.
        sidecar: how a synthetic case was made; None.
    """

    source: Source
    organ: str
    sha256: str
    grid: Grid
    center_ras: tuple[float, float, float]
    size_mm: float | None
    sidecar: dict[str, Any] | None


def sources_in(
    folder: Path, kind: Kind, *, organ: str = "", label: int | None = None
) -> list[Source]:
    """Scans of a folder; of its sub-folders too, where those are called liver, pancreas or kidney.

    The lesions of `case.nii.gz` are `case-mask.nii.gz`, or -tumors, -lesions, -segmentation. A sub-folder of DICOM
    files is a scan, its lesions lie beside it.

    Args:
        folder: where to look.
        kind: of all its scans.
        organ: of all its scans; "" to look it up.
        label: of the lesions in the masks.

    Raises:
        StudyError: no scan there, or a scan without lesions that should have one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StudyError(f"There is no folder {folder}. Give the folder of the {kind} scans.")
    found: list[Source] = []
    names = {path.name for path in folder.iterdir()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and path.name in ORGAN_LABELS:
            found += sources_in(path, kind, organ=path.name, label=label)
        elif _is_series(path) or (_suffix(path) and not _is_part(path, names)):
            lesions = None if kind == "healthy" else beside(path, LESION_PARTS)
            if lesions is None and kind != "healthy":
                stem = _stem(path)
                raise StudyError(
                    f"The lesion of {path} is not marked: there is no {stem}-mask.nii.gz beside it. Put its mask "
                    f"there ({', '.join(stem + part for part in LESION_PARTS)}), or give a table of cases."
                )
            found.append(Source(path, kind, organ, lesions, label if lesions else None))
    if not found:
        raise StudyError(
            f"There is no scan in {folder}. Scans are files that end in {', '.join(SUFFIXES)}, or folders of "
            "DICOM files."
        )
    return found


def sources_of_table(path: Path) -> list[Source]:
    """Scans of a CSV with the columns image, kind, organ, lesions (MASK or MASK:label); paths relative to it.

    Raises:
        StudyError: no such table, or a bad line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path} cannot be read as CSV ({error}).") from None
    if not {"image", "kind"} <= set(columns) or not set(columns) <= set(COLUMNS):
        raise StudyError(
            f"{path} must have the columns {', '.join(COLUMNS)}; it has {', '.join(columns) or 'none'}."
        )
    found = []
    for number, row in enumerate(rows, start=2):
        values = {name: (row.get(name) or "").strip() for name in COLUMNS}
        where = f"Line {number} of {path}"
        if values["kind"] not in get_args(Kind):
            raise StudyError(
                f"{where}: kind must be real, synthetic or healthy, got {values['kind']!r}."
            )
        if values["organ"] and values["organ"] not in ORGAN_LABELS:
            raise StudyError(
                f"{where}: organ must be one of {', '.join(ORGAN_LABELS)}, got {values['organ']!r}."
            )
        if not values["image"] or bool(values["lesions"]) == (values["kind"] == "healthy"):
            raise StudyError(f"{where}: give an image, and its lesions unless it is healthy.")
        mask, label = None, None
        if values["lesions"]:
            mask, label = parse_mask_argument(values["lesions"])
            mask = path.parent / mask
        image = path.parent / values["image"]
        found.append(Source(image, values["kind"], values["organ"], mask, label))  # type: ignore[arg-type]
    if not found:
        raise StudyError(f"{path} lists no case.")
    return found


def measure(source: Source, note: Note) -> Candidate:
    """Read a source and measure what the choice of cases needs.

    Raises:
        StudyError: not what it is said to be, or the organ is not known.
        VolumeError, GridError, FileNotFoundError: the files cannot be used.
    """
    volume = read_volume(source.image)
    check_ct(volume)
    sidecar = _sidecar(source)
    _check_marks(source, sidecar)
    organ = source.organ or (str(sidecar["parameters"].get("organ", "")) if sidecar else "")
    center, size = tuple(volume.grid.center_ras.tolist()), None
    if source.lesions is not None:
        mask = lesions_of(source, volume, note)
        numbers = number_lesions(mask)
        largest = measure_lesions(np.where(numbers == 1, 1, 0).astype(np.uint8), volume.grid)[0]
        center, size = largest.centroid_ras, round(largest.equivalent_diameter_mm, 2)
        organ = organ or _organ_at(source.image, numbers == 1, volume.grid, note)
    if organ not in ORGAN_LABELS:
        raise StudyError(
            f"The organ of {source.image} is not known. Put the scans into folders called {', '.join(ORGAN_LABELS)}, "
            "name it for all, or give a table of cases."
        )
    digest = image_hash(volume.array, volume.affine)
    return Candidate(source, organ, digest, volume.grid, center, size, sidecar)


def lesions_of(source: Source, volume: Volume, note: Note) -> NDArray[np.bool_]:
    """Mask of the lesions of a source, on the grid of its scan."""
    if source.lesions is None:
        return np.zeros(volume.grid.shape, bool)
    return read_mask(source.lesions, source.label, volume.grid, warn=note)


def twins(candidates: Sequence[Candidate]) -> list[str]:
    """Sentences about cases that give each other away: made in the same scan, or in a scan that is a case itself.

    Raises:
        StudyError: one scan is given twice.
    """
    seen: dict[str, Path] = {}
    for one in candidates:
        if one.sha256 in seen:
            raise StudyError(
                f"{one.source.image} and {seen[one.sha256]} are the same scan. Leave one of them out."
            )
        seen[one.sha256] = one.source.image
    found = []
    origins: dict[str, Path] = {}
    for one in candidates:
        if one.sidecar is None:
            continue
        origin = one.sidecar["inputs"]["scan"]["sha256"]
        other = seen.get(origin) or origins.get(origin)
        origins[origin] = one.source.image
        if other is not None:
            found.append(
                f"{one.source.image} and {other} show the same patient: a reader who remembers the first knows that "
                "the tumor was put in. Use each scan once."
            )
    return found


def beside(image: Path, parts: Sequence[str]) -> Path | None:
    """The first file beside an image that is called like it with one of `parts`, such as -mask; None: none."""
    for part in parts:
        for suffix in SUFFIXES:
            path = image.with_name(f"{_stem(image)}{part}{suffix}")
            if path.is_file():
                return path
    return None


def _sidecar(source: Source) -> dict[str, Any] | None:
    """The side-car beside a scan, if it is that of a synthesis."""
    path = sidecar_path(source.image)
    if not path.is_file():
        return None
    try:
        content = read_sidecar(path)
    except SidecarError:
        return None  # some other JSON file
    return content if content["synthetic"] else None


def _check_marks(source: Source, sidecar: dict[str, Any] | None) -> None:
    """Refuse synthetic images among real ones."""
    if source.kind != "synthetic" and (sidecar is not None or _says_synthetic(source.image)):
        raise StudyError(
            f"{source.image} is marked as synthetic, but was given as {source.kind}. Sort it out first."
        )


def _says_synthetic(path: Path) -> bool:
    """Whether the header of an image file says that it holds synthetic tumors."""
    if path.is_dir():
        return False
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as file:
            return b"SYNTHETIC" in file.read(_MARK_BYTES)
    except (OSError, EOFError, zlib.error):
        return False  # the reader says what is wrong with it


def _organ_at(image: Path, lesion: NDArray[np.bool_], grid: Grid, note: Note) -> str:
    """The organ in which most of a lesion lies, by `CASE-organs` beside the image; "" if that is not there."""
    organs = beside(image, ("-organs",))
    if organs is None:
        return ""
    counts = {}
    for organ, labels in ORGAN_LABELS.items():
        masks = [read_mask(organs, label, grid, warn=note, allow_empty=True) for label in labels]
        counts[organ] = sum(int((mask & lesion).sum()) for mask in masks)
    best = max(counts, key=lambda organ: counts[organ])
    return best if counts[best] else ""


def _is_part(path: Path, names: set[str]) -> bool:
    """Whether a file is the mask of a scan that is there, such as `case-organs.nii.gz`."""
    stem = _stem(path)
    for part in (*LESION_PARTS, "-organs"):
        whole = stem.removesuffix(part)
        if stem.endswith(part) and any(whole + suffix in names for suffix in ("", *SUFFIXES)):
            return True
    return False


def _is_series(path: Path) -> bool:
    return path.is_dir() and any(p.is_file() and is_dicom(p) for p in sorted(path.iterdir())[:3])


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((s for s in SUFFIXES if name.endswith(s) and path.is_file()), "")


def _stem(path: Path) -> str:
    suffix = _suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name
