"""Draw the slice sets of the anomaly networks: `python -m training.data.slices phantoms|scans|brats --help`.

A slice is diseased if one lesion in it covers at least `least_lesion_mm2`, and healthy if no voxel of it is tumor.
Slices with smaller parts of lesions are left out: they would carry the wrong image label.  Training reads the
images and this label; the masks that are stored beside them are read by the evaluation only.

    python -m training.data.slices phantoms runs/slices/abdomen --patients 160 --split train
    python -m training.data.slices scans Task07_Pancreas runs/slices/pancreas --format.image-size 128
    python -m training.data.slices brats BraTS2021 runs/slices/brats --format.image-size 256 --format.spacing-mm 1

The set lies in the named folder under train, validation or test.  The same command continues a set that was
interrupted; a set can be trained on while it grows.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from difftumor import phantom
from difftumor.anomaly.slices import SliceFormat
from difftumor.fields import number, option
from difftumor.grids import GridError
from difftumor.images.mr import CaseError
from difftumor.images.volumes import VolumeError
from difftumor.options import registry
from training.data.datalists import DatalistError
from training.data.slice_choice import Rules, patient_slices
from training.data.slice_sets import SPLITS, SliceSetError, SliceSetWriter
from training.data.slice_sources import (
    Patient,
    brats_folders,
    brats_patient,
    phantom_abdomen,
    phantom_head,
    scan_patient,
    scans_of,
    split_patients,
    split_seeds,
)
from training.loop.config import Checked

logger = logging.getLogger("training.data.slices")


@dataclass(frozen=True)
class Format(Checked):
    """How a slice is prepared; the model made from it wants the same."""

    image_size: int = number(64, 16, 1024, "pixels", "Pixels per side.")
    spacing_mm: float = number(2.5, 0.2, 10, "mm", "Size of a pixel.")
    window_hu: tuple[float, float] = option((-20.0, 180.0), "CT: HU that become 0 and 1.")
    scaled_by: Literal["volume", "slice", "together"] = option(
        "volume",
        "MR: minimum and maximum are those of each sequence in the volume, in each slice, or of all "
        "sequences of a slice together (Alshenoudy et al.).",
    )
    signed: bool = option(False, "MR: values from -1 to 1 (Alshenoudy et al.) instead of 0 to 1.")

    def __post_init__(self) -> None:
        super().__post_init__()
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
            intensity_range=(-1.0, 1.0) if self.signed else (0.0, 1.0),
            channel_order=("t1", "t1c", "t2", "flair"),
            modality="MR",
            percentiles=(0.0, 100.0) if self.scaled_by == "together" else (1.0, 99.0),
            scaled_by=self.scaled_by,
        )


@dataclass(frozen=True)
class Phantoms(Checked):
    """Slices of generated patients; the seeds of the three splits are set apart."""

    out: tyro.conf.Positional[Path] = option(help="Folder of the set; the split is a folder in it.")
    kind: Literal["abdomen", "head"] = option("abdomen", "Which phantom.")
    organ: Literal["liver", "pancreas", "kidney"] = option(
        "liver", "Abdomen: the organ that bears the tumors."
    )
    split: Literal["train", "validation", "test"] = option(
        "train", "Which of the seeds that are set apart."
    )
    patients: int = number(160, 1, 10_000, "", "Number of patients.")
    rules: Rules = Rules()
    format: Format = Format()


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

    Returns:
        the folders of the sets.

    Raises:
        ValueError: naming what cannot be used.
        OSError: likewise.
    """
    reader: Callable[[str], Patient]
    parts: Mapping[str, list[str]]
    if isinstance(wishes, Phantoms):
        seeds = list(split_seeds(wishes.split))[: wishes.patients]
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
    for at, name in enumerate(names):
        if writer.has(name):
            continue
        try:
            slices = patient_slices(
                reader(name), made_for, rules, surplus=writer.diseased - writer.healthy, span=span
            )
        except CaseError as error:
            logger.warning("%s is left out: %s", name, error)
            slices = None
        writer.add(name, slices)
        fresh += 1
        if fresh % 10 == 0 or at + 1 == len(names):
            pace = (time.monotonic() - started) / fresh
            logger.info(
                "%s: %d of %d patients, %d healthy and %d diseased slices, %.0f s to go",
                writer.folder,
                at + 1,
                len(names),
                writer.healthy,
                writer.diseased,
                pace * (len(names) - at - 1),
            )
    writer.finish()


def _stated(wishes: Phantoms | Scans | Brats) -> dict[str, Any]:
    """The wishes, JSON-ready, without the folder that may be moved."""
    stated = dataclasses.asdict(wishes)
    del stated["out"]
    # What did not exist when older sets were drawn is stated only where it is used, so that these can be continued.
    for part, later in (("rules", ("every",)), ("format", ("scaled_by", "signed"))):
        usual = type(getattr(wishes, part))()
        for name in later:
            if stated[part][name] == getattr(usual, name):
                del stated[part][name]
    if "data" in stated:
        stated["data"] = stated["data"].name
    if isinstance(wishes, Phantoms):
        stated["phantom_version"] = (
            phantom.PHANTOM_VERSION if wishes.kind == "abdomen" else phantom.HEAD_VERSION
        )
    return {"source": type(wishes).__name__.lower(), **stated}


def main(args: list[str] | None = None) -> int:
    """Draw slice sets; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    wishes = tyro.cli(
        Wishes,
        args=args,
        prog="python -m training.data.slices",
        description=__doc__,
        registry=registry(),
    )
    try:
        folders = draw_slices(wishes)
    except (OSError, ValueError, SliceSetError, DatalistError, VolumeError, GridError) as error:
        sys.stderr.write(f"training.data.slices: {error}\n")
        return 1
    sys.stdout.write("\n".join(map(str, folders)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
