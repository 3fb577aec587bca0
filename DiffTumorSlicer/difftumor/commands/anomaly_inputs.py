"""What `difftumor anomaly` reads: one CT, or the sequences of one MR examination; or a folder of cases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.commands.common import read_organ, read_scan
from difftumor.console import Reporter
from difftumor.grids import Grid
from difftumor.images.mr import check_same_geometry
from difftumor.images.sequences import canonical, find_sequences, sequence_of
from difftumor.images.volumes import Volume, parse_mask_argument, read_volume
from difftumor.options import UsageError
from difftumor.provenance import image_hash, sidecar_path

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class Case:
    """Files of one patient.

    Attributes:
        name: of the case, for outputs and messages.
        files: channel of the model -> file.
        organ: "MASK[:label]", or None.
    """

    name: str
    files: Mapping[str, Path]
    organ: str | None


@dataclass(frozen=True, eq=False)
class CaseImages:
    """Images of one patient, read.

    Attributes:
        volumes: channel of the model -> image; all on one grid.
        organ: bool (I, J, K), or None.
        described: what a side-car says of the inputs.
    """

    volumes: dict[str, Volume]
    organ: NDArray[np.bool_] | None
    described: dict[str, dict[str, Any]]

    @property
    def first(self) -> Volume:
        """The image whose grid and header the outputs take."""
        return next(iter(self.volumes.values()))

    @property
    def grid(self) -> Grid:
        """Geometry of all images."""
        return self.first.grid

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Voxels (I, J, K) by channel."""
        return {channel: volume.array for channel, volume in self.volumes.items()}


def assign_channels(words: Sequence[str], channels: Sequence[str]) -> dict[str, Path]:
    """Which file is which channel of the model.

    Args:
        words: "PATH", or "t1=PATH" for a channel that the name does not tell.
        channels: of the model's card, in its order.
    Returns: channel -> path, in the model's order.
    Raises: UsageError: a channel is missing, given twice or unknown.
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


def read_case(case: Case, modality: str, series: str | None, reporter: Reporter) -> CaseImages:
    """Read the images and the organ mask of a case.

    Raises:
        FileNotFoundError, VolumeError, GridError: a file that cannot be used.
        AnomalyError: the sequences have different geometry.
    """
    volumes: dict[str, Volume] = {}
    for channel, path in case.files.items():
        if modality == "CT":
            volumes[channel] = read_scan(path, series, reporter)
        else:
            volumes[channel] = read_volume(path)
            for sentence in volumes[channel].notes:
                reporter.note(f"Note: {sentence}")
    check_same_geometry({channel: volume.grid for channel, volume in volumes.items()})
    first = next(iter(volumes.values()))
    organ, organ_path, label = read_organ(case.organ, first, reporter)
    described = {}
    for channel, volume in volumes.items():
        described[channel] = {
            "path": str(case.files[channel].resolve()),
            **({"series": series} if series is not None else {}),
            "sha256": image_hash(volume.array, volume.affine),
            "shape": list(volume.grid.shape),
            "spacing_mm": np.round(volume.grid.spacing, 4).tolist(),
        }
    if organ is not None and organ_path is not None:
        described["organ"] = {
            "path": str(organ_path.resolve()),
            "label": label,
            "sha256": image_hash(organ, first.affine),
        }
    return CaseImages(volumes, organ, described)


def cases_in(folder: Path, channels: Sequence[str], organ: str | None) -> list[Case]:
    """Cases of a folder, in the order of their names.

    For a model of one image each image file is a case, and each subfolder (a DICOM series). For a model of several
    sequences the files whose names agree up to the sequence belong together ("anna-t1.nii.gz", "anna-flair.nii.gz"),
    also those of a subfolder ("anna/t1.nii.gz"). Files that are no image, or lack a sequence, are left out.

    Args:
        folder: with the images.
        channels: of the model's card.
        organ: "PATH[:label]" with {case} in place of the case's name, or None; such masks are no cases themselves.
    Raises: UsageError: no case, or a template that is none.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if organ is not None and "{case}" not in organ:
        raise UsageError(
            f"--organ is one file, {organ}, for all cases of a folder. Write {{case}} where the name of the case "
            "stands in the name of its mask, as in --organ 'masks/{case}.nii.gz:5'"
        )
    found = _single(folder) if len(channels) == 1 else _grouped(folder, channels)
    cases = []
    # Of the candidates, the masks of others fall out: "anna-organs.nii.gz" beside "anna.nii.gz".
    masks = {_mask_of(organ, name).resolve() for name in found} if organ is not None else set()
    for name, files in sorted(found.items()):
        if not any(path.resolve() in masks for path in files):
            mask = organ.replace("{case}", name) if organ is not None else None
            cases.append(Case(name, dict(zip(channels, files, strict=True)), mask))
    if not cases:
        what = (
            "no image (NIfTI, NRRD, MHA, or a folder of DICOM files)"
            if len(channels) == 1
            else f"no case with {', '.join(channels)} in the names of its files"
        )
        raise UsageError(f"{folder} holds {what}")
    return cases


def _single(folder: Path) -> dict[str, list[Path]]:
    """One image per case."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or _is_image(path)):
            continue
        if path.is_dir() and (not any(path.iterdir()) or any(map(_is_image, path.iterdir()))):
            continue  # of images, not of DICOM slices
        name = path.name if path.is_dir() else sidecar_path(path).stem
        if name in found:
            raise UsageError(
                f"{found[name][0].name} and {path.name} in {folder} are both the case {name}. Rename one"
            )
        found[name] = [path]
    return found


def _grouped(folder: Path, channels: Sequence[str]) -> dict[str, list[Path]]:
    """Several sequences per case, told by the names."""
    groups: dict[str, list[Path]] = {}
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        for path in sorted(place.iterdir()):
            if _is_image(path) and sequence_of(path.name):
                name = _before_sequence(path.name) or (place.name if place != folder else "case")
                groups.setdefault(name, []).append(path)
    found = {}
    for name, paths in groups.items():
        chosen = find_sequences([path.name for path in paths], channels)
        if len(chosen) == len(channels):
            by_name = {path.name: path for path in paths}
            found[name] = [by_name[chosen[channel]] for channel in channels]
    return found


def _before_sequence(name: str) -> str:
    """Part of a file's name before the word that tells its sequence; "" if it begins with it."""
    for match in re.finditer(r"[A-Za-z0-9]+", name):
        if sequence_of(match[0]):
            return name[: match.start()].rstrip("-_. ")
    return ""


def _mask_of(template: str, case: str) -> Path:
    return parse_mask_argument(template.replace("{case}", case))[0]


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(IMAGE_SUFFIXES)
