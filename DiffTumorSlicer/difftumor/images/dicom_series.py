"""DICOM series: which files of a folder form one volume, and where its voxels lie.

ITK decodes the pixels; which slices belong together, their order and their geometry are decided here from the tags of
every slice, because ITK assumes an even stack and only warns when it is none. A slice lies in the patient (LPS) as

    P(i, j) = ImagePositionPatient + i * PixelSpacing[1] * row + j * PixelSpacing[0] * column
    row, column = ImageOrientationPatient[:3], ImageOrientationPatient[3:]         (DICOM PS3.3, C.7.6.2.1.1)

and the step from slice to slice is measured from the positions, so a tilted gantry becomes a sheared affine.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from difftumor.images.dicom_slices import (
    MODALITY,
    SERIES_UID,
    TRANSFER_SYNTAX,
    Slice,
    find_tag,
    read_slice,
    scan_folder,
)
from difftumor.images.files import Volume, VolumeError, smallest_integer
from difftumor.images.itk import LPS_TO_RAS, itk_reason, quiet_itk
from difftumor.remedies import Remedy, with_remedy

# Positions are decimal text, often rounded to 0.1 mm: a slice may be off by this share of the step
# between slices.
POSITION_TOLERANCE = 0.1
SAME_PLACE_MM = 1e-3
# A few pictures beside a stack (localizers, dose pages) are set aside with a note; more than that
# is a choice.
STRAY_SLICES = 3


def read_dicom(path: Path, series: str | None = None) -> Volume:
    """Read one series as a volume.

    Args:
        path: a folder (searched below if it holds no DICOM file itself), or one file of the series.
        series: SeriesInstanceUID, series number or description, where the folder holds several.

    Returns:
        the volume in the voxel type of the series: int16 where its values fit.

    Raises:
        VolumeError: if there is no image series, the choice is open, or its slices make no even stack.
        GridError: if its geometry is degenerate.
    """
    folder, only = (path, None) if path.is_dir() else (path.parent, read_slice(path))
    if folder != path and only is None:
        raise VolumeError(
            f"{path} holds no image that can be read (type {find_tag(path, MODALITY) or 'unknown'}). "
            "Copy it again if it is damaged; give the folder of a CT series, or one of its files."
        )
    slices, broken = scan_folder(folder)
    if only is not None:
        slices = [found for found in slices if found.series == only.series]
    chosen, notes = _choose(folder, slices, series)
    where = f"The series {_title(chosen)} in {folder}"
    _check_whole(where, chosen, broken)
    stack, more = _stack(where, chosen)
    notes += more
    normal = stack[0].normal  # one for all: rounded orientations differ from slice to slice
    stack.sort(key=lambda s: float(normal @ s.position))
    stack, more = _without_copies(where, stack)
    notes += more
    affine, more = _geometry(where, stack)
    array = _pixels(where, stack)
    return Volume(
        array,
        LPS_TO_RAS @ affine,
        path=path,
        modality=stack[0].modality,
        notes=(*notes, *more),
    )


def _choose(folder: Path, slices: list[Slice], series: str | None) -> tuple[list[Slice], list[str]]:
    """Pick the slices of one series: the one named, the only one, or the only one that is a stack."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for found in slices:
        # An empty UID joins only what lies in one folder.
        groups[found.series or str(found.path.parent)].append(found)
    listing = "\n".join(
        f"  {_title(group)}, UID {group[0].series or 'empty'}, in {group[0].path.parent}"
        for group in groups.values()
    )
    if series is not None:
        wanted = series.strip()
        tests: tuple[Callable[[Slice], bool], ...] = (
            lambda s: s.series == wanted,
            lambda s: s.number == wanted,
            lambda s: s.description.casefold() == wanted.casefold(),
        )
        for test in tests:
            matching = [group for group in groups.values() if test(group[0])]
            if len(matching) == 1:
                return matching[0], []
            if matching:
                break
        problem = "several series match" if matching else "no series matches"
        raise VolumeError(
            f'{problem.capitalize()} "{series}" in {folder}. Name one by its UID:\n{listing}'
        )
    stacks = [group for group in groups.values() if len(group) > STRAY_SLICES]
    if len(groups) > 1 and len(stacks) != 1:
        raise VolumeError(
            f"{folder} holds {len(groups)} DICOM series. Name one (by UID, number or "
            f"description), or give a folder with one series:\n{listing}"
        )
    if len(groups) == 1:
        return slices, []
    others = len(groups) - 1
    return stacks[0], [
        f"The folder holds {others} further series of at most {STRAY_SLICES} images (localizers, "
        f"dose pages); the series {_title(stacks[0])} was read."
    ]


def _check_whole(where: str, slices: list[Slice], broken: list[Path]) -> None:
    """Raise VolumeError if a file that cannot be read belongs, or may belong, to the series."""
    lost = [file for file in broken if find_tag(file, SERIES_UID) in ("", slices[0].series)]
    if lost:
        names = ", ".join(file.name for file in lost[:5]) + (" ..." if len(lost) > 5 else "")
        raise VolumeError(
            f"{where} has {len(lost)} DICOM files that cannot be read and may be slices of it: {names}. Copy them "
            "again from their source; if they do not belong to the series, move them out of the folder."
        )


def _title(slices: Sequence[Slice]) -> str:
    """Name a series for the user: number, description, modality, count."""
    first = slices[0]
    words = (
        first.number and f"number {first.number},",
        f'"{first.description or "no description"}"',
    )
    count = f"{len(slices)} image{'s' * (len(slices) > 1)}"
    return " ".join((*filter(None, words), f"({first.modality or 'no modality'}, {count})"))


def _stack(where: str, slices: list[Slice]) -> tuple[list[Slice], list[str]]:
    """Keep the slices of one size and orientation; set a few others aside."""
    if any(len(s.shape) > 2 and s.shape[2] > 1 for s in slices):
        raise VolumeError(
            f"{where} is a multi-frame DICOM image, which is not supported. Convert it to NIfTI "
            "with dcm2niix, or load it in 3D Slicer and save it as NRRD."
        )
    groups: list[list[Slice]] = []
    astray = []
    for found in slices:
        if (
            not found.has_place
            or "LOCALIZER" in found.kind.upper().split("\\")
            or found.kind == "color picture"
        ):
            astray.append(found)
            continue
        group = next((group for group in groups if found.stacks_with(group[0])), None)
        if group is None:
            groups.append(group := [])
        group.append(found)
    if not groups:
        raise VolumeError(
            f"{where} has no slice with a position, an orientation and a pixel spacing: these "
            "are pictures (secondary captures, localizers), not slices of a CT. Give the "
            "original series from the scanner."
        )
    groups.sort(key=len, reverse=True)
    stack = groups[0]
    astray += [s for group in groups[1:] for s in group]
    if len(astray) > STRAY_SLICES or (astray and len(stack) <= STRAY_SLICES):
        sizes = ", ".join(str(len(group)) for group in groups)
        raise VolumeError(
            f"{where} is no single stack: its slices differ in size, spacing or orientation "
            f"(groups of {sizes} slices, {len(slices) - sum(map(len, groups))} without "
            "geometry). Give a folder with one of the stacks alone."
        )
    row, column = stack[0].axes
    if abs(row @ column) > 0.01 or not np.allclose(
        np.linalg.norm(stack[0].axes, axis=1), 1, atol=0.01
    ):
        raise VolumeError(
            f"{where} has an orientation that is none (row {row}, column {column} are no unit "
            "vectors at right angles). Export the series again from its source."
        )
    notes = []
    if astray:
        names = ", ".join(s.path.name for s in astray)
        notes.append(
            f"{len(astray)} of {len(slices)} images lie across the stack or have no place in it "
            f"(localizers) and were left out: {names}."
        )
    return stack, notes


def _without_copies(where: str, stack: list[Slice]) -> tuple[list[Slice], list[str]]:
    """Drop slices that are there twice; refuse different images at one place."""
    kept = [stack[0]]
    for found in stack[1:]:
        last = kept[-1]
        if np.linalg.norm(found.position - last.position) > SAME_PLACE_MM:
            kept.append(found)
        elif not _same_picture(where, found, last):
            raise VolumeError(
                f"{where} has two different images at {found.place} ({last.path.name} and "
                f"{found.path.name}): several phases or reconstructions in one series. Copy one "
                "of them into a folder of its own."
            )
    copies = len(stack) - len(kept)
    return kept, [
        f"{copies} slices were in the folder twice; one of each was read."
    ] if copies else []


def _same_picture(where: str, first: Slice, second: Slice) -> bool:
    """Tell whether two slices at one place show the same values."""
    digests = {hashlib.sha256(s.path.read_bytes()).digest() for s in (first, second)}
    return len(digests) == 1 or np.array_equal(_pixels(where, [first]), _pixels(where, [second]))


def _geometry(where: str, stack: list[Slice]) -> tuple[NDArray[np.float64], list[str]]:
    """Return the affine (LPS mm) of a sorted stack, or raise VolumeError where a slice is missing or out of line."""
    first, normal, count = stack[0], stack[0].normal, len(stack)
    notes: list[str] = []
    if count == 1:
        if not first.thickness > 0:
            raise VolumeError(
                f"{where} is one slice without a thickness. Give a series of several slices."
            )
        step = normal * first.thickness
    else:
        _check_even(where, stack)
        step = (stack[-1].position - first.position) / (count - 1)
        across = step - (step @ normal) * normal
        if np.linalg.norm(across) * (count - 1) < 0.05 * first.spacing.min():
            step = step - across  # rounded positions, not a tilt
        else:
            tilt = np.degrees(np.arctan2(np.linalg.norm(across), step @ normal))
            notes = [
                f"The slices are shifted against each other by a gantry tilt of {tilt:.1f} "
                "degrees; this is kept as a sheared geometry, which some programs cannot show."
            ]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing[1]
    affine[:3, 1] = first.axes[1] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine, notes


def _check_even(where: str, stack: list[Slice]) -> None:
    """Raise VolumeError unless the positions of a sorted stack step evenly along a line."""
    positions = np.array([s.position for s in stack])
    gaps = np.diff(positions @ stack[0].normal)
    usual = float(np.median(gaps))
    line = np.linspace(positions[0], positions[-1], len(stack))
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() <= POSITION_TOLERANCE * usual:
        return
    worst = int(np.abs(gaps - usual).argmax())
    before, after = stack[worst], stack[worst + 1]
    between = f"between {before.place} and {after.place} ({before.path.name}, {after.path.name})"
    if gaps[worst] > 1.5 * usual:
        missing = round(gaps[worst] / usual) - 1
        raise VolumeError(
            f"{where} lacks about {missing} of its slices: they are {usual:.4g} mm apart, but "
            f"{gaps[worst]:.4g} mm {between}. Export the whole series again; a filled gap would "
            "be invented anatomy."
        )
    if abs(gaps[worst] - usual) > POSITION_TOLERANCE * usual:
        raise VolumeError(
            f"{where} is unevenly spaced: its slices are {usual:.4g} mm apart, but "
            f"{gaps[worst]:.4g} mm {between}. Use an evenly spaced reconstruction, or resample "
            "the series in 3D Slicer and save it as NRRD."
        )
    worst = int(off.argmax())
    raise VolumeError(
        f"{where} has a slice out of line: {stack[worst].path.name} at {stack[worst].place} "
        f"lies {off[worst]:.4g} mm beside the line through the others. Export the series again "
        "from its source."
    )


def _pixels(where: str, stack: list[Slice]) -> NDArray[Any]:
    """Decode the slices with their rescale applied, (I, J, K); int16 where all values fit."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(s.path) for s in stack])
    if len({(s.pixel, s.rescale) for s in stack}) > 1:
        # ITK takes the voxel type of the first file for all, which cuts off what it cannot hold.
        reader.SetOutputPixelType(sitk.sitkFloat64)
    try:
        with quiet_itk():
            image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        syntax = find_tag(stack[0].path, TRANSFER_SYNTAX) or "unknown"
        raise with_remedy(
            VolumeError(
                f"{where} cannot be decoded: {itk_reason(error)}. A file is damaged or its "
                f"compression (transfer syntax {syntax}) is not supported."
            ),
            Remedy("decompress"),
        ) from error
    array = sitk.GetArrayFromImage(image).transpose()
    if array.shape != (*stack[0].shape[:2], len(stack)):
        raise VolumeError(
            f"{where} was decoded to the wrong size {array.shape}. Copy the series again."
        )
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.rint(array)):
            return array.astype(np.float32)
    elif array.dtype.itemsize <= 2:
        return array
    return array.astype(smallest_integer(array.min(), array.max()), copy=False)
