"""Datalists: JSON files that name the scans of a data set, and what is known about each.

    {"version": 1, "name": "MSD liver", "cases": [
        {"name": "liver_0", "image": "imagesTr/liver_0.nii.gz",
         "organ": ["labelsTr/liver_0.nii.gz:1"], "tumor": ["labelsTr/liver_0.nii.gz:2"]}]}

Paths are relative to the datalist.  A mask is a file, or file:value.  `organ` and `tumor` may be missing: such a
scan trains the autoencoder only.  "patient" names whose scan it is, where a patient has several.  `python -m
training.data.datalists FOLDER LIST.json` writes one from a folder in the layout of the Medical Segmentation Decathlon,
LiTS, KiTS or AbdomenAtlas.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATALIST_VERSION = 1
ORGANS = ("liver", "pancreas", "kidney")
USAGE = "python -m training.data.datalists FOLDER LIST.json [liver|pancreas|kidney]"


class DatalistError(ValueError):
    """A datalist or a data set's folder that cannot be understood."""


@dataclass(frozen=True)
class Scan:
    """One case.  Masks are "path" (every value above 0) or "path:value"."""

    name: str
    image: str
    organ: tuple[str, ...] = ()
    tumor: tuple[str, ...] = ()
    patient: str = ""
    """Scans of one patient never lie on both sides of a split; "": the scan's name."""


def read_datalist(path: Path) -> list[Scan]:
    """Scans of a datalist, with absolute paths.

    Raises:
        FileNotFoundError: if there is no such file.
        DatalistError: if it is not a datalist; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no datalist {path}. Write one: {USAGE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatalistError(f"{path} is not JSON: {error}. Write it anew: {USAGE}") from error
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise DatalistError(f'{path} has no list "cases". Write it anew: {USAGE}')
    if content.get("version") != DATALIST_VERSION:
        raise DatalistError(
            f"{path} has version {content.get('version')}; this program reads {DATALIST_VERSION}."
        )
    scans = [_scan(entry, position, path) for position, entry in enumerate(content["cases"])]
    if not scans:
        raise DatalistError(f"{path} names no case.")
    return scans


def _scan(entry: Any, position: int, path: Path) -> Scan:
    """One entry of a datalist, checked."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DatalistError(f'Case {position} of {path} has no "image" (a path).')
    unknown = set(entry) - {"name", "image", "organ", "tumor", "patient"}
    if unknown:
        raise DatalistError(f"Case {position} of {path} has unknown entries: {sorted(unknown)}.")
    masks: dict[str, tuple[str, ...]] = {}
    for key in ("organ", "tumor"):
        names = entry.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DatalistError(f'"{key}" of case {position} of {path} is not a list of paths.')
        masks[key] = tuple(str(path.parent / name) for name in names)
    image = str(path.parent / entry["image"])
    name = str(entry.get("name", Path(image).name.split(".")[0]))
    return Scan(name, image, patient=str(entry.get("patient", "")), **masks)


def write_datalist(scans: list[Scan], path: Path, name: str) -> None:
    """Write a datalist; paths become relative to it, and an existing file is replaced at once."""
    folder = path.parent.resolve()

    def relative(file: str) -> str:
        return Path(os.path.relpath(Path(file).absolute(), folder)).as_posix()

    cases = [
        asdict(scan)
        | {
            "image": relative(scan.image),
            "organ": [relative(mask) for mask in scan.organ],
            "tumor": [relative(mask) for mask in scan.tumor],
        }
        for scan in scans
    ]
    for case in cases:
        if not case["patient"]:
            del case["patient"]
    content = {"version": DATALIST_VERSION, "name": name, "cases": cases}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def scans_of_folder(folder: Path, organ: str | None = None) -> tuple[str, list[Scan]]:
    """Recognize a data set by the layout of its folder.

    Args:
        folder: top folder of the data set as its authors pack it.
        organ: for AbdomenAtlas, whose masks are taken: one of ORGANS, or None for all three.

    Returns:
        name of the layout, and its scans in the order of their names.

    Raises:
        FileNotFoundError: if there is no such folder.
        DatalistError: if the layout is none of the four.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    layouts = {
        "MSD": _msd(folder),
        "LiTS": _lits(folder),
        "KiTS": _kits(folder),
        "AbdomenAtlas": _abdomen_atlas(folder, (organ,) if organ else ORGANS),
    }
    for name, scans in layouts.items():
        if scans:
            return name, sorted(scans, key=lambda scan: scan.name)
    raise DatalistError(
        f"{folder} has none of the known layouts: MSD (dataset.json, imagesTr, labelsTr), LiTS "
        "(volume-0.nii, segmentation-0.nii), KiTS (case_00000/imaging.nii.gz), AbdomenAtlas "
        "(BDMAP_00000001/ct.nii.gz, segmentations). Write the datalist by hand instead."
    )


def _msd(folder: Path) -> list[Scan]:
    """Medical Segmentation Decathlon: dataset.json lists pairs; label 1 organ, 2 tumor."""
    index = folder / "dataset.json"
    if not index.is_file():
        return []
    pairs = json.loads(index.read_text(encoding="utf-8")).get("training", [])
    scans = []
    for pair in pairs:
        image, label = folder / pair["image"], folder / pair["label"]
        name = image.name.split(".")[0]
        scans.append(Scan(name, str(image), (f"{label}:1",), (f"{label}:2",)))
    return scans


def _lits(folder: Path) -> list[Scan]:
    """LiTS: volume-N.nii beside segmentation-N.nii, at any depth; 1 liver, 2 tumor."""
    scans = []
    for image in sorted(folder.rglob("volume-*.nii*")):
        number = re.fullmatch(r"volume-(\d+)\.nii(\.gz)?", image.name)
        if number is None:
            continue
        # The organizers put volumes and segmentations in one folder; mirrors use two.
        labels = sorted(folder.rglob(f"segmentation-{number[1]}.nii*"))
        if labels:
            masks = ((f"{labels[0]}:1",), (f"{labels[0]}:2",))
            scans.append(Scan(f"volume-{number[1]}", str(image), *masks))
    return scans


def _kits(folder: Path) -> list[Scan]:
    """KiTS: case_N/imaging.nii.gz and segmentation.nii.gz; 1 kidney, 2 tumor, 3 cyst (as kidney)."""
    scans = []
    for image in sorted(folder.rglob("imaging.nii.gz")):
        label = image.with_name("segmentation.nii.gz")
        if label.is_file():
            masks = ((f"{label}:1", f"{label}:3"), (f"{label}:2",))
            scans.append(Scan(image.parent.name, str(image), *masks))
    return scans


def _abdomen_atlas(folder: Path, organs: tuple[str, ...]) -> list[Scan]:
    """AbdomenAtlas: BDMAP_N/ct.nii.gz and one file per structure in segmentations/."""
    scans = []
    for image in sorted(folder.glob("**/BDMAP_*/ct.nii.gz")):
        masks = image.parent / "segmentations"
        found: dict[str, tuple[str, ...]] = {"organ": (), "tumor": ()}
        for organ in organs:
            sides = ("kidney", "kidney_left", "kidney_right") if organ == "kidney" else (organ,)
            for kind, names in (
                ("organ", sides),
                ("tumor", (f"{organ}_tumor", f"{organ}_lesion")),
            ):
                files = (masks / f"{name}.nii.gz" for name in names)
                found[kind] += tuple(str(file) for file in files if file.is_file())
        scans.append(Scan(image.parent.name, str(image), found["organ"], found["tumor"]))
    return scans


def main(args: list[str] | None = None) -> int:
    """Write the datalist of a data set's folder."""
    words = sys.argv[1:] if args is None else args
    if words in (["-h"], ["--help"]):
        sys.stdout.write(f"{__doc__}\nusage: {USAGE}\n")
        return 0
    if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in ORGANS):
        sys.stderr.write(f"usage: {USAGE}\n")
        return 2
    try:
        layout, scans = scans_of_folder(Path(words[0]), words[2] if len(words) == 3 else None)
        write_datalist(scans, Path(words[1]), f"{layout} {Path(words[0]).name}")
    except (OSError, DatalistError, KeyError, json.JSONDecodeError) as error:
        sys.stderr.write(f"training.data.datalists: {error}\n")
        return 1
    sys.stdout.write(f"{layout}: {len(scans)} scans in {words[1]}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
