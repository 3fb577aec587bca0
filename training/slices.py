"""Draw the slice sets of the anomaly networks: `python -m training.slices phantoms|scans|brats --help`.

A slice is diseased if one lesion in it covers at least `least_lesion_mm2`, and healthy if no voxel of it is tumor.
Slices with smaller parts of lesions are left out: they would carry the wrong image label.  Training reads the
images and this label; the masks that are stored beside them are read by the evaluation only.

    python -m training.slices phantoms runs/slices/abdomen --patients 160 --split train
    python -m training.slices scans Task07_Pancreas runs/slices/pancreas --format.image-size 128 --format.spacing-mm 1
    python -m training.slices brats BraTS2021 runs/slices/brats --format.image-size 256 --format.spacing-mm 1

The set lies in the named folder under train, validation or test.  The same command continues a set that was
interrupted; a set can be trained on while it grows.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.anomaly_slices import (
    AnomalyError,
    SliceFormat,
    SliceStack,
    prepare_ct,
    prepare_mr,
)
from difftumor.grids import Grid, GridError, resample
from difftumor.volumes import VolumeError
from training.config import check_ranges, limited
from training.datalists import DatalistError
from training.slice_sets import SPLITS, PatientSlices, SliceSetError, SliceSetWriter
from training.slice_sources import (
    Patient,
    brats_folders,
    brats_patient,
    phantom_abdomen,
    scan_patient,
    scans_of,
    split_patients,
    split_seeds,
)

# A slice shows look-alikes from this area on: a cyst of 3 mm radius.
LOOK_ALIKES_MM2 = 28.0

logger = logging.getLogger("training.slices")


@dataclass(frozen=True)
class Rules:
    """Which slices of a patient are taken, and what they are called."""

    per_patient: int = limited(12, 1, 1000, "slices")
    """Most slices of one patient, both labels together."""
    least_lesion_mm2: float = limited(80.0, 0, 1e5, "mm2")
    """A slice with a lesion of this area is diseased; with less than it, it is left out.  0: any voxel of tumor."""
    least_organ_mm2: float = limited(300.0, 0, 1e6, "mm2")
    """Slices that show less of the organ are left out."""
    least_contrast: float = limited(0.0, 0, 2)
    """Paper A leaves diseased slices out of training whose tumor and organ differ by less than 0.1 of the intensity
    range on average; 0 keeps all.  It reads the masks, so it goes beyond image labels."""
    look_alike_share: float = limited(0.6, 0, 1)
    """Phantoms: share of the slices, of both labels alike, that are taken from those with healthy look-alikes."""
    seed: int = limited(0, 0, 2**31)
    """Of the choice among a patient's slices, and of the split."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Format:
    """How a slice is prepared; the model made from it wants the same."""

    image_size: int = limited(64, 16, 1024, "pixels")
    """Pixels per side."""
    spacing_mm: float = limited(2.5, 0.2, 10, "mm")
    """Size of a pixel."""
    window_hu: tuple[float, float] = (-20.0, 180.0)
    """CT: HU that become 0 and 1."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"window_hu must rise, got {self.window_hu}")

    def ct(self) -> SliceFormat:
        """For one CT."""
        return SliceFormat(self.image_size, (self.spacing_mm, self.spacing_mm), self.window_hu)

    def mr(self) -> SliceFormat:
        """For four MR sequences, in Wolleb's order."""
        return SliceFormat(
            self.image_size,
            (self.spacing_mm, self.spacing_mm),
            channel_order=("t1", "t1c", "t2", "flair"),
            modality="MR",
        )


@dataclass(frozen=True)
class Phantoms:
    """Slices of generated patients; the seeds of the three splits are set apart."""

    out: tyro.conf.Positional[Path]
    """Folder of the set; the split is a folder in it."""
    kind: Literal["abdomen", "head"] = "abdomen"
    """Which phantom."""
    organ: Literal["liver", "pancreas", "kidney"] = "liver"
    """Abdomen: the organ that bears the tumors."""
    split: Literal["train", "validation", "test"] = "train"
    """Which of the seeds that are set apart."""
    patients: int = limited(160, 1, 10_000)
    """Number of patients."""
    rules: Rules = field(default_factory=Rules)
    format: Format = field(default_factory=Format)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Scans:
    """Slices of a CT data set: MSD (Pancreas, Liver), LiTS, KiTS, AbdomenAtlas, or a datalist."""

    data: tyro.conf.Positional[Path]
    """Folder as its authors pack it, or a datalist (.json)."""
    out: tyro.conf.Positional[Path]
    """Folder of the set; train, validation and test are folders in it."""
    organ: Literal["liver", "pancreas", "kidney"] | None = None
    """Whose masks are taken in AbdomenAtlas."""
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of the patients for train, validation and test."""
    rules: Rules = field(default_factory=Rules)
    format: Format = field(
        default_factory=lambda: Format(image_size=128, spacing_mm=1.0, window_hu=(-100.0, 240.0))
    )


@dataclass(frozen=True)
class Brats:
    """Slices of BraTS: a folder per patient with T1, T1c, T2, FLAIR and a segmentation."""

    data: tyro.conf.Positional[Path]
    """Folder with the patients."""
    out: tyro.conf.Positional[Path]
    """Folder of the set; train, validation and test are folders in it."""
    slices: tuple[int, int] | None = (80, 129)
    """First and one past the last axial slice (published: the lowest 80 and the top 26 of 155 are dropped)."""
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of the patients for train, validation and test."""
    rules: Rules = field(
        default_factory=lambda: Rules(per_patient=49, least_lesion_mm2=0, least_organ_mm2=1000)
    )
    format: Format = field(default_factory=lambda: Format(image_size=256, spacing_mm=1.0))


Wishes = (
    Annotated[Phantoms, tyro.conf.subcommand("phantoms")]
    | Annotated[Scans, tyro.conf.subcommand("scans")]
    | Annotated[Brats, tyro.conf.subcommand("brats")]
)


def draw_slices(wishes: Phantoms | Scans | Brats) -> list[Path]:
    """Draw the sets of a command, or continue them.

    Returns: the folders of the sets.
    Raises: ValueError, OSError: naming what cannot be used.
    """
    reader: Callable[[str], Patient]
    if isinstance(wishes, Phantoms):
        seeds = list(split_seeds(wishes.kind, wishes.split))[: wishes.patients]
        if len(seeds) < wishes.patients:
            raise ValueError(
                f"There are {len(seeds)} seeds for {wishes.split}; got --patients {wishes.patients}."
            )
        parts = {wishes.split: [str(seed) for seed in seeds]}
        made_for = wishes.format.mr() if wishes.kind == "head" else wishes.format.ct()
        reader = _phantom_reader(wishes)
    elif isinstance(wishes, Scans):
        scans = {scan.name: scan for scan in scans_of(wishes.data, wishes.organ)}
        parts = split_patients(list(scans), wishes.split, wishes.rules.seed)
        made_for = wishes.format.ct()

        def reader(name: str) -> Patient:
            return scan_patient(scans[name])
    else:
        cases = {name: (files, labels) for name, files, labels in brats_folders(wishes.data)}
        parts = split_patients(list(cases), wishes.split, wishes.rules.seed)
        made_for = wishes.format.mr()

        def reader(name: str) -> Patient:
            return brats_patient(name, *cases[name])

    stated = _stated(wishes)
    span = getattr(wishes, "slices", None)
    folders = []
    for split in SPLITS:
        if names := parts.get(split):
            capacity = len(names) * wishes.rules.per_patient
            writer = SliceSetWriter(wishes.out / split, split, made_for, stated, capacity)
            _draw(writer, names, reader, made_for, wishes.rules, span)
            folders.append(writer.folder)
    return folders


def _phantom_reader(wishes: Phantoms) -> Callable[[str], Patient]:
    if wishes.kind == "head":
        from training.slice_sources import phantom_head

        return lambda name: phantom_head(int(name))
    return lambda name: phantom_abdomen(int(name), wishes.organ)


def _draw(
    writer: SliceSetWriter,
    names: Sequence[str],
    reader: Callable[[str], Patient],
    made_for: SliceFormat,
    rules: Rules,
    span: tuple[int, int] | None,
) -> None:
    """Add the patients that are not yet in a set, one after the other."""
    if writer.complete:
        logger.info("%s is complete: %d slices", writer.folder, writer.count)
        return
    started, fresh = time.monotonic(), 0
    for number, name in enumerate(names):
        if writer.has(name):
            continue
        try:
            slices = patient_slices(
                reader(name), made_for, rules, surplus=writer.diseased - writer.healthy, span=span
            )
        except AnomalyError as error:
            logger.warning("%s is left out: %s", name, error)
            slices = None
        writer.add(name, slices)
        fresh += 1
        if fresh % 10 == 0 or number + 1 == len(names):
            pace = (time.monotonic() - started) / fresh
            logger.info(
                "%s: %d of %d patients, %d healthy and %d diseased slices, %.0f s to go",
                writer.folder,
                number + 1,
                len(names),
                writer.healthy,
                writer.diseased,
                pace * (len(names) - number - 1),
            )
    writer.finish()


def patient_slices(
    patient: Patient,
    made_for: SliceFormat,
    rules: Rules,
    *,
    surplus: int = 0,
    span: tuple[int, int] | None = None,
) -> PatientSlices | None:
    """Choose and prepare the slices of one patient.

    A patient with tumors gives up to half of `per_patient` diseased slices and half as many healthy ones, one
    without tumors as many healthy ones as the set lacks, so that both labels stay level.

    Args:
        patient: read or generated.
        made_for: how the images are prepared.
        rules: which slices are taken.
        surplus: diseased less healthy slices in the set so far.
        span: first and one past the last slice that may be taken.
    Returns: the slices, or None if the patient has none to give.
    Raises: AnomalyError: the images cannot be prepared.
    """
    stack = prepare(patient, made_for, span)
    axis = stack.axis
    areas = [
        [_largest_mm2(part, patient.grid, axis) if d == 0 else _mm2(part, patient.grid, axis)
         for d, part in enumerate(_planes(patient, axis, index))]
        for index in stack.indices
    ]  # fmt: skip
    lesion, organ, similar = np.array(areas).T
    any_tumor = np.array([patient.tumor.take(i, axis).any() for i in stack.indices])
    shown = organ >= rules.least_organ_mm2
    diseased = shown & any_tumor & (lesion >= rules.least_lesion_mm2)
    tumor, images = _carried(stack, patient.tumor), stack.images
    diseased &= tumor.any(axis=(1, 2))  # the crop may miss a lesion at the organ's edge
    if rules.least_contrast:
        width = made_for.intensity_range[1] - made_for.intensity_range[0]
        diseased &= _contrast(images, stack.organ, tumor) >= rules.least_contrast * width
    healthy = shown & ~any_tumor

    rng = np.random.default_rng([rules.seed, *patient.name.encode()])
    half = max(1, rules.per_patient // 2)
    chosen = _choose(rng, diseased, similar, half, rules.look_alike_share)
    # Without any tumor in the patient, the healthy slices make up for those of the others.
    wanted = max(1, len(chosen) // 2) if any_tumor.any() else max(2, surplus)
    room = rules.per_patient - len(chosen)
    chosen += _choose(rng, healthy, similar, min(wanted, room), rules.look_alike_share)
    if not chosen:
        return None
    rows = np.sort(np.array(chosen))
    marks = patient.look_alikes
    return PatientSlices(
        images[rows],
        diseased[rows],
        np.array(stack.indices)[rows],
        stack.organ[rows],
        tumor[rows],
        np.zeros(tumor[rows].shape, np.uint8) if marks is None else _carried(stack, marks)[rows],
    )


def prepare(
    patient: Patient, made_for: SliceFormat, span: tuple[int, int] | None = None
) -> SliceStack:
    """Cut all axial slices of a patient as the engine does."""
    if made_for.modality == "CT":
        scan = patient.images["ct"]
        return prepare_ct(scan, patient.grid, patient.organ, made_for, "axial", span)
    return prepare_mr(patient.images, patient.grid, patient.organ, made_for, "axial", span)


def _planes(patient: Patient, axis: int, index: int) -> list[NDArray[np.bool_]]:
    """Tumor, organ and look-alikes of one slice on the input grid."""
    marks = patient.look_alikes
    tumor, organ = patient.tumor.take(index, axis), patient.organ.take(index, axis)
    return [tumor, organ, np.zeros_like(organ) if marks is None else marks.take(index, axis) > 0]


def _mm2(mask: NDArray[np.bool_], grid: Grid, axis: int) -> float:
    """Area of a mask of one slice."""
    first, second = np.delete(grid.affine[:3, :3], axis, axis=1).T
    return float(mask.sum() * np.linalg.norm(np.cross(first, second)))


def _largest_mm2(mask: NDArray[np.bool_], grid: Grid, axis: int) -> float:
    """Area of the largest connected part of a mask of one slice."""
    pieces, count = ndimage.label(mask)
    if count == 0:
        return 0.0
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return _mm2(pieces == largest, grid, axis)


def _carried(stack: SliceStack, labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (I, J, K) of the input on the pixels of the slices, nearest neighbour; (n, H, W)."""
    planes = []
    for index, crop in zip(stack.indices, stack.grids, strict=True):
        box = [slice(0, n) for n in stack.grid.shape]
        box[stack.axis] = slice(index, index + 1)
        part = (box[0], box[1], box[2])
        plane = resample(labels[part], stack.grid.cropped(part), crop, order=0)[..., 0]
        planes.append(plane.T if stack.transposed else plane)
    return np.stack(planes)


def _contrast(
    images: NDArray[np.float32], organ: NDArray[np.bool_], tumor: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Difference between the means of tumor and healthy organ in each slice, largest over channels; (n,)."""
    found = np.zeros(len(images))
    for k, (image, inside, sick) in enumerate(zip(images, organ, tumor, strict=True)):
        well = inside & ~sick
        if sick.any() and well.any():
            found[k] = np.abs(image[:, sick].mean(1) - image[:, well].mean(1)).max()
    return found


def _choose(
    rng: np.random.Generator,
    usable: NDArray[np.bool_],
    similar_mm2: NDArray[np.float64],
    count: int,
    share: float,
) -> list[int]:
    """Draw slices, a share of them from those with look-alikes as far as there are any."""
    order = rng.permutation(np.flatnonzero(usable))
    rich = [int(k) for k in order if similar_mm2[k] >= LOOK_ALIKES_MM2]
    poor = [int(k) for k in order if similar_mm2[k] < LOOK_ALIKES_MM2]
    first = rich[: round(share * count)]
    return (first + poor + rich[len(first) :])[:count]


def _stated(wishes: Phantoms | Scans | Brats) -> dict[str, Any]:
    """The wishes, JSON-ready, without the folder that may be moved."""
    stated = dataclasses.asdict(wishes)
    del stated["out"]
    if "data" in stated:
        stated["data"] = stated["data"].name
    if isinstance(wishes, Phantoms):
        from difftumor import phantom

        version = phantom.PHANTOM_VERSION
        if wishes.kind == "head":
            from difftumor.phantom.head import HEAD_VERSION as version
        stated["phantom_version"] = version
    return {"source": type(wishes).__name__.lower(), **stated}


def main(args: list[str] | None = None) -> int:
    """Draw slice sets; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    wishes = tyro.cli(Wishes, args=args, prog="python -m training.slices", description=__doc__)  # type: ignore[call-overload]
    try:
        folders = draw_slices(wishes)
    except (OSError, ValueError, SliceSetError, DatalistError, VolumeError, GridError) as error:
        sys.stderr.write(f"training.slices: {error}\n")
        return 1
    sys.stdout.write("\n".join(map(str, folders)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
