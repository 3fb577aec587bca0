"""Patients whose slices the anomaly networks learn from: phantoms, CT data sets, BraTS folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor import phantom
from difftumor.grids import Grid
from difftumor.images.sequences import find_sequences
from difftumor.images.volumes import parse_mask_argument, read_volume
from training.data.datalists import DatalistError, Scan, read_datalist, scans_of_folder

ORGAN_LABELS = {"liver": (5,), "pancreas": (7,), "kidney": (2, 3)}
"""TotalSegmentator v2 numbers in the phantom's organ map."""

# What a patient of the phantom sets is scanned with: in-plane voxel size and slice thickness in mm.
_IN_PLANE_MM = (1.0, 1.25, 1.5, 2.0)
_THICKNESS_MM = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
_TUMORS = (0, 1, 2, 3)
_TUMOR_SHARES = (0.3, 0.35, 0.25, 0.1)
# Radii below 5 mm give no slice with 80 mm2 of tumor.
_RADIUS_MM = (5.2, 20.0)
_HEAD_IN_PLANE_MM = (1.0, 1.5, 2.0)
_HEAD_THICKNESS_MM = (2.0, 3.0, 4.0, 5.0)
_HEAD_TUMORS = (0, 1, 2)
_HEAD_TUMOR_SHARES = (0.3, 0.55, 0.15)
# Smallest voxel that is drawn: a patient then costs one to two seconds.
_LEAST_VOXEL_MM3 = 4.0


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient, before slices are cut.

    Attributes:
        name: unique in its data set.
        images: name of the channel -> (I, J, K); {"ct": HU} or the sequences of an MR examination.
        grid: of all arrays.
        organ: bool (I, J, K), tumors included; of a head the brain.
        tumor: bool (I, J, K).
        look_alikes: uint8 (I, J, K), or None.
        labels: parts of the tumor, uint8 (I, J, K), or None; brain: 1 edema, 2 necrotic core, 3 enhancing.
    """

    name: str
    images: Mapping[str, NDArray[Any]]
    grid: Grid
    organ: NDArray[np.bool_]
    tumor: NDArray[np.bool_]
    look_alikes: NDArray[np.uint8] | None = None
    labels: NDArray[np.uint8] | None = None


def split_seeds(split: str) -> Sequence[int]:
    """Seeds of the phantoms, of abdomen and head alike, that are set apart for a split."""
    return {
        "train": phantom.TRAINING_SEEDS,
        "validation": phantom.VALIDATION_SEEDS,
        "test": phantom.TEST_SEEDS,
    }[split]


def phantom_abdomen(seed: int, organ: str) -> Patient:
    """An abdomen on a grid as scanners give it; three in ten have no tumor, all have look-alikes."""
    rng = np.random.default_rng([seed, 4100])
    in_plane = float(rng.choice(_IN_PLANE_MM))
    thick = [t for t in _THICKNESS_MM if in_plane**2 * t >= _LEAST_VOXEL_MM3]
    spacing = (in_plane, in_plane, float(rng.choice(thick)))
    tumors = int(rng.choice(_TUMORS, p=_TUMOR_SHARES))
    while True:
        try:
            made = phantom.make_abdomen(
                seed,
                tumors=tumors,
                spacing_mm=spacing,
                orientation="LPS",
                tumor_organs=(organ,),
                tumor_radius_mm=_RADIUS_MM,
            )
            break
        except ValueError:  # the organ has no room for so many
            if tumors == 0:
                raise
            tumors -= 1
    labels = ORGAN_LABELS[organ]
    if organ == "kidney":
        # A crop holds one kidney: the one with more tumor, else either.
        sizes = [int(((made.tumors > 0) & (made.organs == label)).sum()) for label in labels]
        side = int(np.argmax(sizes)) if max(sizes) else int(rng.integers(2))
        labels = labels[side : side + 1]
    inside = np.isin(made.organs, labels)
    return Patient(
        f"abdomen-{seed}",
        {"ct": made.ct},
        made.grid,
        inside,
        (made.tumors > 0) & inside,
        np.where(inside, made.look_alikes, 0).astype(np.uint8),
    )


def phantom_head(seed: int) -> Patient:
    """A skull-stripped head in four sequences on one grid; three in ten have no tumor."""
    rng = np.random.default_rng([seed, 4300])
    in_plane = float(rng.choice(_HEAD_IN_PLANE_MM))
    spacing = (in_plane, in_plane, float(rng.choice(_HEAD_THICKNESS_MM)))
    tumors = int(rng.choice(_HEAD_TUMORS, p=_HEAD_TUMOR_SHARES))
    while True:
        try:
            made = phantom.make_head(seed, tumors=tumors, spacing_mm=spacing, orientation="LPS")
            break
        except ValueError:  # the brain has no room for so many
            if tumors == 0:
                raise
            tumors -= 1
    return Patient(
        f"head-{seed}",
        made.images,
        made.grid,
        made.brain,
        made.tumors > 0,
        made.look_alikes,
        made.tumors,
    )


def scans_of(data: Path, organ: str | None) -> list[Scan]:
    """CT scans of a datalist or of a data set's folder that have both masks.

    Raises:
        FileNotFoundError: there is no such file or folder.
        DatalistError: no scan has an organ and a tumor mask, or the layout is unknown.
    """
    scans = read_datalist(data) if data.suffix == ".json" else scans_of_folder(data, organ)[1]
    usable = [scan for scan in scans if scan.organ and scan.tumor]
    if not usable:
        raise DatalistError(
            f"No scan of {data} has both an organ mask and a tumor mask, so nothing tells healthy slices from "
            "diseased ones. Name masks for both in a datalist (see training/data/datalists.py)."
        )
    return usable


def scan_patient(scan: Scan) -> Patient:
    """Read a CT scan and its masks.

    Raises:
        VolumeError: naming the file that cannot be used.
        GridError: likewise.
        DatalistError: likewise.
    """
    volume = read_volume(Path(scan.image))
    masks = []
    for texts in (scan.organ, scan.tumor):
        mask = np.zeros(volume.grid.shape, bool)
        for text in texts:
            path, label = parse_mask_argument(text)
            stored = read_volume(path)
            if not stored.grid.same_as(volume.grid, tolerance_mm=0.1):
                raise DatalistError(f"{path} lies on another grid than {scan.image}.")
            mask |= stored.array > 0 if label is None else stored.array == label
        masks.append(mask)
    return Patient(scan.name, {"ct": volume.array}, volume.grid, masks[0] | masks[1], masks[1])


def brats_folders(data: Path) -> list[tuple[str, dict[str, Path], Path]]:
    """Cases of a BraTS folder: name, sequence -> file, segmentation; any year's file names.

    Raises:
        FileNotFoundError: there is no such folder.
        DatalistError: no case with four sequences and a segmentation is in it.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"There is no folder {data}.")
    cases = []
    for folder in sorted({path.parent for path in data.rglob("*.nii*")}):
        # Names without the case's own: "BraTS-GLI-00005-000-t2f" says nothing wrong, others might.
        files = {path.name: path for path in sorted(folder.glob("*.nii*"))}
        labels = [path for name, path in files.items() if "seg" in name.lower()]
        found = find_sequences([name for name in files if "seg" not in name.lower()])
        if len(found) == 4 and len(labels) == 1:
            cases.append((folder.name, {k: files[v] for k, v in found.items()}, labels[0]))
    if not cases:
        raise DatalistError(
            f"{data} holds no BraTS case: a folder per patient with T1, T1c, T2, FLAIR and one file whose name "
            'says "seg", all NIfTI.'
        )
    return cases


def brats_patient(name: str, files: Mapping[str, Path], labels: Path) -> Patient:
    """Read the sequences of a case; the brain is where any of them is above 0 (BraTS is skull-stripped).

    Raises:
        VolumeError: naming the file that cannot be used.
        GridError: likewise.
        DatalistError: likewise.
    """
    volumes = {sequence: read_volume(path) for sequence, path in files.items()}
    segmentation = read_volume(labels)
    grid = segmentation.grid
    for sequence, volume in volumes.items():
        if not volume.grid.same_as(grid, tolerance_mm=0.1):
            raise DatalistError(f"{files[sequence]} lies on another grid than {labels}.")
    images = {sequence: volume.array for sequence, volume in volumes.items()}
    tumor = segmentation.array > 0
    brain = np.any([image > 0 for image in images.values()], axis=0) | tumor
    # BraTS: 1 necrotic core, 2 edema, 4 (lately 3) enhancing; ours as Alshenoudy et al. number them.
    parts = np.select(
        [segmentation.array == value for value in (1, 2, 3, 4)], [2, 1, 3, 3], 0
    ).astype(np.uint8)
    return Patient(name, images, grid, brain, tumor, labels=parts)


def split_patients(
    names: Sequence[str], shares: tuple[float, float, float], seed: int
) -> dict[str, list[str]]:
    """Deal patients to train, validation and test; each share above 0 gets at least one where there are enough.

    Raises:
        ValueError: the shares are not three numbers of 0 or more with a sum of 1.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"split: three shares of 0 or more whose sum is 1, for instance 0.7 0.15 0.15; got {shares}"
        )
    order = list(np.random.default_rng([seed, 4200]).permutation(sorted(names)))
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)
    for part in (1, 2):
        if shares[part] > 0 and len(order) >= 3 and ends[part] == ends[part - 1]:
            ends[:part] -= 1
    starts = (0, *ends[:2])
    return {
        split: [str(name) for name in order[a:b]]
        for split, a, b in zip(("train", "validation", "test"), starts, ends, strict=True)
    }
