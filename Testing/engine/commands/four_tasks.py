"""The four computing commands with the smallest models, three cases each: what a test of all of them needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from difftumor.cli import main
from Testing.tiny_anomaly import write_tiny_model
from Testing.tiny_segmenter import write_tiny_segmenter

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
SHAPE = (30, 28, 10)
NAMES = ("anna", "ben", "carl")
FAST = {"noise_level": 300, "guidance_scale": 10.0, "steps": 5}
LIVER, SPLEEN = 5, 1


@dataclass(frozen=True)
class Command:
    """A command and how it is asked for in tests.

    Attributes:
        words: options that make it fast.
        other: options that change its parameters.
        model: folder of its model, or its name.
        ending: of the names of its results, without .nii.gz.
        table: its name.
        image: role of the image in side-cars.
    """

    name: str
    words: tuple[str, ...]
    other: tuple[str, ...]
    model: str
    ending: str
    table: str
    image: str


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "synthesize", ("--random", "tiny"), ("--seed", "9"), "modelled",
            "synthetic", "synthesis.csv", "scan",
        ),
        Command(
            "anomaly", ("--no-gate",), ("--noise-level", "200"), "slices",
            "anomaly", "anomaly.csv", "ct",
        ),
        Command(
            "segment", ("--overlap", "0"), ("--min-diameter", "9"), "segmenter",
            "segmentation", "lesions.csv", "scan",
        ),
        Command(
            "learn", ("--members", "2", "--steps", "20", "--timesteps", "20"), ("--members", "3"),
            "slices", "learned", "learning.csv", "ct",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder with models, and `scans` with image, organs, labels of each case."""

    folder: Path

    def image(self, name: str) -> Path:
        return self.folder / "scans" / f"{name}.nii.gz"

    def mask(self, name: str) -> Path:
        return self.folder / "scans" / f"{name}-organs.nii.gz"

    def labels(self, name: str) -> Path:
        return self.folder / "painted" / f"{name}.nii.gz"

    def words(self, command: Command, *more: object, model: str | None = None) -> list[str]:
        """Words of a command without its images."""
        chosen = model or command.model
        chosen = chosen if chosen == "modelled" else str(self.folder / chosen)
        options = [*command.words, "--model", chosen, "--device", "cpu", "--quiet", *more]
        if command.name == "synthesize":
            options += ["--anatomy", "liver"]
        return [command.name, *map(str, options)]

    def many(self, command: Command, out: Path, *more: object, **other: Any) -> list[str]:
        """Words for all cases of the folder."""
        options = ["--batch", self.folder / "scans", "--out", out]
        options += ["--organ", f"{self.folder}/scans/{{case}}-organs.nii.gz"]
        if command.name == "learn":
            options += ["--labels", f"{self.folder}/painted/{{case}}.nii.gz"]
        return self.words(command, *options, *more, **other)

    def listed(self, command: Command, datalist: Path, **changes: dict[str, Any]) -> Path:
        """Write a list of all cases; `changes` are by the name of the case."""
        cases = []
        for name in NAMES:
            case = {"image": str(self.image(name)), "organ": f"{self.mask(name)}:{LIVER}"}
            case |= {"labels": str(self.labels(name))} if command.name == "learn" else {}
            cases.append(case | changes.get(name, {}))
        datalist.write_text(json.dumps({"cases": cases}))
        return datalist

    def run(self, words: list[str]) -> int:
        return main(words)


def make_place(folder: Path) -> Place:
    """Write models and cases."""
    place = Place(folder)
    write_tiny_model(
        folder / "slices", size=16, spacing_mm=[3.0, 3.0], recommended=FAST, organs=["liver"]
    )
    write_tiny_segmenter(folder / "segmenter", recommended={"min_diameter_mm": 0})
    for part in ("scans", "painted"):
        (folder / part).mkdir()
    i, j, k = np.indices(SHAPE)
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        liver = ((i - 13) ** 2 + (j - 14) ** 2 < 100) & (k > 0) & (k < 9)
        organs = np.where(liver, LIVER, np.where(k > 8, SPLEEN, 0)).astype(np.uint8)
        spot = ((i - 10) ** 2 + (j - 15) ** 2 < 12) & (k > 2) & (k < 7)
        hu = np.select([spot, liver], [30, 110], -60) + rng.normal(0, 5, SHAPE)
        labels = np.where(spot & np.isin(k, (3, 5)), 1, 0).astype(np.uint8)
        for path, array in (
            (place.image(name), hu.round().astype(np.int16)),
            (place.mask(name), organs),
            (place.labels(name), labels),
        ):
            nib.save(nib.Nifti1Image(array, AFFINE), path)
    return place
