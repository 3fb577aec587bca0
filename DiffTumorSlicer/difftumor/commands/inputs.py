"""What a case is read from: one CT or the sequences of an MR examination, an organ mask, labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.commands.console import Reporter
from difftumor.grids import Grid
from difftumor.images.mr import check_same_geometry
from difftumor.images.sequences import canonical, find_sequences, sequence_of
from difftumor.images.volumes import (
    Volume,
    VolumeError,
    check_ct,
    mask_on,
    parse_mask_argument,
    read_volume,
)
from difftumor.learning.labels import check_labels_grid
from difftumor.options import UsageError
from difftumor.parameters import ORGAN_LABELS
from difftumor.provenance import image_hash
from difftumor.task import Case


@dataclass(frozen=True)
class CaseFiles:
    """Files of one patient, and what decides how they are read.

    Attributes:
        images: channel of the model -> file.
        organ: "MASK[:label]", or None.
        labels: what a reader painted, or None.
        modality: of the model, CT or MR.
        organs: that the model is for; they decide which labels of a map of organs are taken.
        anatomy: the organ that decides, where the model is for several or for none.
        series: of a DICOM folder that holds several.
        single_slice: whether a CT of one slice will do.
        organ_labels: labels of the mask that were taken before.
        by_model: whether the model decided on them.
    """

    images: Mapping[str, Path]
    organ: str | None = None
    labels: Path | None = None
    modality: str = "CT"
    organs: tuple[str, ...] = ()
    anatomy: str | None = None
    series: str | None = None
    single_slice: bool = False
    organ_labels: tuple[int, ...] | None = None
    by_model: bool = False

    @property
    def paths(self) -> list[Path]:
        """All files."""
        masks = [parse_mask_argument(self.organ)[0]] if self.organ else []
        return [*self.images.values(), *masks, *([self.labels] if self.labels else [])]


@dataclass(frozen=True, eq=False)
class CaseImages:
    """Images of one patient, read.

    Attributes:
        volumes: channel of the model -> image; all on one grid.
        organ: bool (I, J, K), or None.
        labels: (I, J, K), or None.
        described: what a side-car says of the inputs.
        notes: what the user was told of them.
    """

    volumes: dict[str, Volume]
    organ: NDArray[np.bool_] | None
    labels: NDArray[np.generic] | None
    described: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Volume:
        """The image whose grid and header the outputs take."""
        return next(iter(self.volumes.values()))

    @property
    def grid(self) -> Grid:
        """Geometry of all images."""
        return self.first.grid

    @property
    def case(self) -> Case:
        """For `task.run_task`."""
        arrays = {channel: volume.array for channel, volume in self.volumes.items()}
        return Case(arrays, self.grid, self.organ, self.labels)


def read_images(files: CaseFiles, reporter: Reporter) -> CaseImages:
    """Read images, organ mask and labels of a case; what is odd about them is told and kept.

    Raises:
        FileNotFoundError, VolumeError, GridError: a file that cannot be used.
        AnomalyError: the sequences have different geometry.
        LearningError: the labels lie on another grid.
    """
    notes: list[str] = []

    def note(sentence: str) -> None:
        notes.append(sentence)
        reporter.note(f"Note: {sentence}")

    volumes: dict[str, Volume] = {}
    for channel, path in files.images.items():
        volumes[channel] = volume = read_volume(path, series=files.series)
        told = list(volume.notes)
        if files.modality == "CT":
            told = check_ct(_thickened(volume) if files.single_slice else volume)
        for sentence in told:
            note(sentence)
    check_same_geometry({channel: volume.grid for channel, volume in volumes.items()})
    grid = next(iter(volumes.values())).grid
    described: dict[str, dict[str, Any]] = {
        channel: {
            "path": str(files.images[channel].resolve()),
            **({"series": files.series} if files.series is not None else {}),
            "sha256": image_hash(volume.array, volume.affine),
            "shape": list(volume.grid.shape),
            "spacing_mm": np.round(volume.grid.spacing, 4).tolist(),
        }
        for channel, volume in volumes.items()
    }
    organ = labels = None
    if files.organ is not None:
        organ, described["organ"] = _read_organ(files, grid, note)
    if files.labels is not None:
        labels = _read_labels(files.labels, grid)
        sha256 = image_hash(labels, grid.affine)
        described["labels"] = {"path": str(files.labels.resolve()), "sha256": sha256}
    return CaseImages(volumes, organ, labels, described, notes)


def _thickened(volume: Volume) -> Volume:
    """A single slice as two, which the examination of a CT takes for a volume."""
    if 1 not in volume.grid.shape:
        return volume
    return replace(volume, array=np.repeat(volume.array, 2, axis=volume.grid.shape.index(1)))


def _read_organ(
    files: CaseFiles, grid: Grid, note: Any
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """The organ mask on the grid of the images, and what a side-car says of it."""
    path, label = parse_mask_argument(files.organ or "")
    volume = read_volume(path)
    labels, by_model = files.organ_labels, files.by_model
    if label is not None:
        labels, by_model = (label,), False
    elif labels is None:
        wanted = (files.anatomy,) if files.anatomy else files.organs
        labels = labels_of_organs(path, volume.array, wanted)
        by_model = labels is not None
    given = dict.fromkeys(filter(None, map(organ_of_label, labels or ())))
    if by_model:
        numbers = " and ".join(map(str, labels or ()))
        note(
            f"{path} holds several labels; {numbers}, the {' and '.join(given)}, was taken. Write {path}:LABEL for "
            "another one."
        )
    one = labels[0] if labels is not None and len(labels) == 1 else None
    mask = mask_on(volume, path, labels if one is None else one, grid, warn=note)
    if files.organs and given and not set(given) & set(files.organs):
        note(
            f"The mask is of the {' and '.join(given)}, the model was made for the "
            f"{' and '.join(sorted(set(files.organs)))}."
        )
    described: dict[str, Any] = {"path": str(path.resolve()), "label": one}
    if labels is not None and one is None:
        described["labels"] = list(labels)
    if by_model:
        described["chosen_by"] = "model"
    return mask, described | {"sha256": image_hash(mask, grid.affine)}


def labels_of_organs(
    path: Path, array: NDArray[np.generic], organs: Iterable[str]
) -> tuple[int, ...] | None:
    """Labels of a map of several organs (TotalSegmentator's numbers) that a model is for.

    Returns:
        None where there is nothing to choose: a mask of one value, or a model of no organ that we know.

    Raises:
        VolumeError: the map has labels, but not that of the organ.
    """
    wanted = [number for organ in organs for number in ORGAN_LABELS.get(organ, ())]
    values = array[array != 0]
    if not wanted or not values.size or values.min() == values.max():
        return None
    present = np.unique(values)
    if not np.array_equal(present, np.round(present)):
        return None  # no map of labels; a mask with soft borders
    found = tuple(number for number in wanted if number in present)
    if not found:
        told = ", ".join(f"{value:g}" for value in present[:20]) + (
            " ..." if len(present) > 20 else ""
        )
        raise VolumeError(
            f"{path} holds several labels ({told}), but not the {' or '.join(organs)} "
            f"({' or '.join(map(str, wanted))}), which the model is for. Say which label is the organ, as in "
            f"{path}:{present[0]:g}."
        )
    return found


def organ_of_label(label: int | None) -> str | None:
    """Organ name of a TotalSegmentator v2 number, None if it is none of ours."""
    return next((organ for organ, numbers in ORGAN_LABELS.items() if label in numbers), None)


def _read_labels(path: Path, grid: Grid) -> NDArray[np.generic]:
    """Labels on the grid of the images."""
    volume = read_volume(path)
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise VolumeError(f"{path} is no label map: it has values that are not finite.")
    check_labels_grid(volume.grid, grid)
    return volume.array


def assign_channels(words: Sequence[str], channels: Sequence[str]) -> dict[str, Path]:
    """Which file is which channel of the model.

    Args:
        words: "PATH", or "t1=PATH" for a channel that the name does not tell.
        channels: of the model's card, in its order.

    Returns:
        channel -> path, in the model's order.

    Raises:
        UsageError: a channel is missing, given twice or unknown.
    """
    named: dict[str, Path] = {}
    plain: list[str] = []
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            plain.append(word)
            continue
        ours = next((c for c in channels if canonical(c) == canonical(name)), None)
        if ours is None:
            raise UsageError(
                f"{name!r} in {word!r} is no image that this model takes; it takes {', '.join(channels)}"
            )
        if ours in named:
            raise UsageError(f"{ours} is given twice: {named[ours]} and {path}")
        named[ours] = Path(path)
    if len(channels) == 1 and len(words) > 1:
        raise UsageError(
            f"this model takes one CT, not {len(words)} images. Many cases: --batch FOLDER"
        )
    missing = [channel for channel in channels if channel not in named]
    if len(plain) == 1 and len(missing) == 1 and (len(channels) == 1 or not sequence_of(plain[0])):
        named[missing[0]] = Path(plain.pop())
    elif plain:
        # The folder may be called after another sequence: the name of the file decides.
        names = {Path(word).name: word for word in plain}
        if len(names) < len(plain):
            raise UsageError(
                "several images have one file name, so that it cannot tell the sequences apart. Write "
                + " ".join(f"{channel}=PATH" for channel in missing)
            )
        found = find_sequences(list(names), missing)
        unused = sorted(set(names) - set(found.values()))
        if unused:
            raise UsageError(
                f"{unused[0]}: which of {', '.join(channels)} it is, is not clear from its name, or "
                f"another image has that place already. Write it as {(missing or channels)[0]}=PATH"
            )
        named |= {channel: Path(names[name]) for channel, name in found.items()}
    if missing := [channel for channel in channels if channel not in named]:
        raise UsageError(
            f"this model takes {', '.join(channels)}; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Give the files, as PATH or "
            f"{missing[0]}=PATH"
        )
    return {channel: named[channel] for channel in channels}
