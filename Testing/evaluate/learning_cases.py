"""Cases that are labeled on a few slices: phantoms of unseen seeds, and the real brains of `../shared/data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor import phantom
from difftumor.grids import Grid
from difftumor.images.volumes import read_volume
from difftumor.learning.result import REGIONS

HEAD_MODEL, KIDNEY_MODEL = "demo-head-anomaly", "demo-abdomen-anomaly"
LEAST_SLICES = 8  # with tumor: three to label, others to be measured on
PLACES = (
    0.2,
    0.5,
    0.8,
)  # of the tumor's extent: a reader takes its middle and one slice towards each end
# Voxels of 2 to 3 mm in height, as most of these patients are scanned.
HEAD_MM, ABDOMEN_MM = (1.0, 1.0, 3.0), (1.0, 1.0, 2.5)


@dataclass(frozen=True, eq=False)
class Case:
    """An image with its true labels.

    Attributes:
        name: for tables.
        images: by name, (I, J, K).
        grid: geometry.
        organ: bool (I, J, K), or None.
        truth: uint8 (I, J, K): 1 edema, 2 necrotic core, 3 enhancing; of CT 1 tumor.
        model: whose features are used.
        regions: what is measured.
        note: what has to be known of it.
    """

    name: str
    images: dict[str, NDArray[Any]]
    grid: Grid
    organ: NDArray[np.bool_] | None
    truth: NDArray[np.uint8]
    model: str
    regions: dict[str, tuple[int, ...]]
    note: str = ""

    @property
    def with_tumor(self) -> list[int]:
        """Axial slices that show tumor."""
        return np.flatnonzero((self.truth > 0).any(axis=(0, 1))).tolist()

    def labels(self, slices: list[int]) -> NDArray[np.uint8]:
        """The true labels on some slices, 0 elsewhere."""
        painted = np.zeros_like(self.truth)
        painted[..., slices] = self.truth[..., slices]
        return painted

    def chosen(self, places: tuple[float, ...] = PLACES) -> list[int]:
        """Slices that a reader would label."""
        rows = self.with_tumor
        return [rows[round(place * (len(rows) - 1))] for place in places]


def heads(count: int, split: str) -> Iterator[Case]:
    """Head phantoms with a glioma that shows on enough slices; seeds in order."""
    for seed in _seeds(split):
        made = phantom.make_head(seed, tumors=1, spacing_mm=HEAD_MM, orientation="LPS")
        case = Case(
            f"head-{seed}", made.images, made.grid, made.brain, made.tumors, HEAD_MODEL, REGIONS
        )
        if len(case.with_tumor) >= LEAST_SLICES:
            yield case
            count -= 1
        if not count:
            return


def kidneys(count: int, split: str) -> Iterator[Case]:
    """Abdomen phantoms with a kidney tumor; the organ is the kidney that has it."""
    for seed in _seeds(split):
        made = phantom.make_abdomen(
            seed,
            tumors=1,
            spacing_mm=ABDOMEN_MM,
            orientation="LPS",
            tumor_organs=("kidney",),
            tumor_radius_mm=(8.0, 20.0),
        )
        tumor = made.tumors > 0
        label = np.bincount(made.organs[tumor]).argmax()
        organ = made.organs == label
        case = Case(
            f"abdomen-{seed}",
            {"ct": made.ct},
            made.grid,
            organ,
            (tumor & organ).astype(np.uint8),
            KIDNEY_MODEL,
            {"tumor": (1,)},
        )
        if len(case.with_tumor) >= LEAST_SLICES:
            yield case
            count -= 1
        if not count:
            return


def _seeds(split: str) -> range:
    return phantom.TEST_SEEDS if split == "test" else phantom.VALIDATION_SEEDS


def real_brains(data: Path) -> Iterator[Case]:
    """Real brain volumes, as far as they are there; labels become those of Alshenoudy et al."""
    folder = data / "mr_tcga_lgg_DU-7294"
    if folder.is_dir():
        names = {"t1": "t1", "t1c": "t1c", "t2": "t2", "flair": "fla"}
        volumes = {
            name: read_volume(folder / "raw_bet" / f"TCGA-DU-7294_{there}_bet.nii.gz")
            for name, there in names.items()
        }
        fused = read_volume(folder / "fusion" / "mav.nii.gz").array.astype(int)
        yield Case(
            "TCGA-DU-7294",
            {name: volume.array for name, volume in volumes.items()},
            volumes["t1"].grid,
            None,
            np.array([0, 2, 1], np.uint8)[fused],
            HEAD_MODEL,
            {name: REGIONS[name] for name in ("WT", "TC")},
            "reference fused from several programs, no reader's; 1 mm, 155 slices",
        )
    folder = data / "mr_brats2013_pat0005_1"
    if folder.is_dir():
        t1c, flair = (
            read_volume(folder / f"{name}_subtrMeanDivStd.nii.gz") for name in ("T1c", "Flair")
        )
        truth = read_volume(folder / "OTMultiClass.nii.gz").array.astype(int)
        brain = read_volume(folder / "brainmask.nii.gz").array > 0.5
        # Only two sequences are there; each stands for the missing one that is nearest to it.
        yield Case(
            "BraTS2013-0005",
            {"t1": t1c.array, "t1c": t1c.array, "t2": flair.array, "flair": flair.array},
            t1c.grid,
            brain,
            np.array([0, 2, 1, 2, 3], np.uint8)[truth],
            HEAD_MODEL,
            REGIONS,
            "T1c stands for T1 and FLAIR for T2, which are missing; reference of a reader; 1 mm, 155 slices",
        )
