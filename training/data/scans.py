"""Scans and phantoms on the 1 mm RAS grid, kept on disk, and the crops that training draws from them.

Each case is brought to the grid once and stored as memory-mapped `.npy` files in a folder of the cache that is
named by a key of its own: what the files are (path, size, time of change) and how they were treated.  Crops are a
pure function of (seed, process, step), so a resumed run sees what the straight run would have seen.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from difftumor import phantom
from difftumor.fields import number, option
from difftumor.grids import Grid
from difftumor.images.resampling import resample
from difftumor.images.volumes import parse_mask_argument, read_volume
from difftumor.measuring.lesions import early_tumor_labels
from difftumor.synthesis.blending import to_unit
from training.data.datalists import Scan, read_datalist
from training.loop.config import Checked

CACHE_VERSION = 2
OUTSIDE_HU = -1024
BACKGROUND, ORGAN, TUMOR = 0, 1, 2
# Voxel positions kept per class: enough to draw centers from, small enough to stay in memory for 10 000 scans.
MAX_PLACES = 50_000
MIN_TUMORS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data(Checked):
    """Where crops come from."""

    datalist: Path | None = option(
        None, "JSON list of cases, as `python -m training.data.datalists` writes it from a folder."
    )
    phantoms: int = number(
        0, 0, 10000, "", "Number of generated phantoms used beside the datalist."
    )
    phantom_tumors: int = number(12, 0, 200, "", "Lesions per generated phantom.")
    phantom_share: float = number(
        *(1.0, 0, 1, ""),
        "Share of the crops cut from phantoms where there are also other cases; the rest is "
        "spread evenly.",
    )
    cache: Path = option(
        Path("runs/cache"), "Folder for resampled volumes and generated phantoms.", lasting=False
    )
    positive_share: float = number(
        *(20 / 21, 0, 1, ""),
        "Stage 1: share of the crops centered on a labeled voxel (published ratio 20:1).",
    )
    rotate_probability: float = number(
        0.1, 0, 1, "", "Chance that a crop is turned by a multiple of 90 degrees about the S axis."
    )
    early_only: bool = option(
        False, "Stage 2: tumors above 10 mm radius (sphere of the same volume) count as organ."
    )


@dataclass(frozen=True, eq=False)
class Case:
    """One scan on the 1 mm RAS grid.

    Attributes:
        name: for messages.
        ct: int16 (I, J, K) HU, memory-mapped.
        labels: uint8 (I, J, K): BACKGROUND, ORGAN or TUMOR, memory-mapped; with early_only, larger tumors
            are ORGAN.
        places: for each of the three classes, int64 (n, 3) voxel indices to center crops on.
        counts: voxels of organ and tumor, of which `places` are a part.
        is_phantom: whether it was generated.
    """

    name: str
    ct: NDArray[np.int16]
    labels: NDArray[np.uint8]
    places: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    counts: tuple[int, int]
    is_phantom: bool


def prepare_cases(data: Data) -> list[Case]:
    """All cases of a run, from the cache where they are already there.

    Raises:
        FileNotFoundError, VolumeError, GridError, DatalistError: naming the file that cannot be used.
        ValueError: if the settings name no case at all.
    """
    cases = []
    if data.datalist is not None:
        for scan in read_datalist(data.datalist):
            cases.append(cached_scan(scan, data.cache, data.early_only))
    seeds = list(phantom.TRAINING_SEEDS)[: data.phantoms]
    if len(seeds) < data.phantoms:
        raise ValueError(f"There are {len(seeds)} training seeds; got phantoms={data.phantoms}.")
    for seed in seeds:
        key = {
            "phantom": seed,
            "version": phantom.PHANTOM_VERSION,
            "tumors": data.phantom_tumors,
        }
        name = f"phantom-{seed}"
        cases.append(
            cached_case(
                data.cache,
                key,
                name,
                partial(_generate, seed, data.phantom_tumors),
                data.early_only,
            )
        )
    if not cases:
        raise ValueError("There is nothing to train on: give --data.datalist or --data.phantoms.")
    return cases


def cached_scan(scan: Scan, cache: Path, early_only: bool = False) -> Case:
    """A scan of a datalist on the 1 mm grid; see `cached_case`.

    Raises:
        FileNotFoundError: naming the file that cannot be used.
        VolumeError: likewise.
        GridError: likewise.
    """
    return cached_case(cache, _scan_key(scan), scan.name, lambda: _load(scan), early_only)


def _scan_key(scan: Scan) -> dict[str, object]:
    """What decides whether a stored scan is still the one in the files."""

    def stamp(path: Path) -> list[object]:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}, which the datalist names.")
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return [str(path.absolute()), facts]

    masks = [parse_mask_argument(text) for text in (*scan.organ, *scan.tumor)]
    return {
        "image": stamp(Path(scan.image)),
        "masks": [[*stamp(path), label] for path, label in masks],
        "organ_masks": len(scan.organ),
    }


def _load(scan: Scan) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Read a scan and its masks, and resample them to 1 mm along R, A, S."""
    volume = read_volume(Path(scan.image))
    target = millimetre_grid(volume.grid)
    ct = resample(volume.array, volume.grid, target, order=1, fill=OUTSIDE_HU)
    labels = np.zeros(target.shape, np.uint8)
    for value, masks in ((ORGAN, scan.organ), (TUMOR, scan.tumor)):
        for text in masks:
            path, label = parse_mask_argument(text)
            stored = read_volume(path)
            # Not read_mask: a scan without a tumor is no error here.
            mask = stored.array > 0 if label is None else stored.array == label
            labels[resample(mask, stored.grid, target, order=0, fill=0).astype(bool)] = value
    return np.round(np.clip(ct, -1024, 3071)).astype(np.int16), labels


def _generate(seed: int, tumors: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A phantom whose organs that bear tumors count as ORGAN."""
    try:
        made = phantom.make_abdomen(seed, tumors=tumors)
    except ValueError:  # a small organ holds no more
        if tumors < MIN_TUMORS:
            raise
        return _generate(seed, tumors - MIN_TUMORS)
    target = millimetre_grid(made.grid)
    labels = np.isin(made.organs, TUMOR_ORGANS).astype(np.uint8)
    labels[made.tumors > 0] = TUMOR
    if made.grid.same_as(target):
        return made.ct.astype(np.int16), labels
    ct = resample(made.ct, made.grid, target, order=1, fill=OUTSIDE_HU)
    return np.round(ct).astype(np.int16), resample(labels, made.grid, target, order=0, fill=0)


# TotalSegmentator v2 numbers of the organs that bear tumors: both kidneys, liver, pancreas.
TUMOR_ORGANS = (2, 3, 5, 7)


def millimetre_grid(grid: Grid) -> Grid:
    """The RAS grid of 1 mm that covers another grid's voxel centers."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in grid.shape], indexing="ij"), -1)
    ras = grid.to_ras(corners.reshape(-1, 3))
    low, high = ras.min(0), ras.max(0)
    affine = np.eye(4)
    affine[:3, 3] = low
    # The small number keeps a width of 100.0000001 mm from adding a plane.
    x, y, z = (int(n) for n in np.floor(high - low + 1e-3) + 1)
    return Grid((x, y, z), affine)


def cached_case(
    cache: Path,
    key: Mapping[str, object],
    name: str,
    make: Callable[[], tuple[NDArray[np.int16], NDArray[np.uint8]]],
    early_only: bool = False,
) -> Case:
    """The case stored under a key; it is made and stored first if it is not there.

    Args:
        cache: folder of stored cases.
        key: what decides whether a stored case is the wanted one; with "phantom" for generated ones.
        name: for messages.
        make: () -> CT and labels, see `Case`.
        early_only: tumors above 10 mm radius are to count as organ.
    """
    text = json.dumps({"cache": CACHE_VERSION, **key}, sort_keys=True)
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:20]
    if not folder.is_dir():
        logger.info("preparing %s", name)
        ct, labels = make()
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix="part-", dir=cache))
        try:
            np.save(temporary / "ct.npy", ct)
            for kind, array in (("all", labels), ("early", early_tumor_labels(labels))):
                np.save(temporary / f"{kind}.npy", array)
                np.save(temporary / f"{kind}_counts.npy", np.bincount(array.ravel(), minlength=3))
                for value, places in enumerate(_places(ct, array)):
                    np.save(temporary / f"{kind}_{value}.npy", places)
            (temporary / "case.json").write_text(text + "\n", encoding="utf-8")
            if not folder.is_dir():
                temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    kind = "early" if early_only else "all"
    _, organ, tumor = np.load(folder / f"{kind}_counts.npy").tolist()
    background, inside, lesion = (np.load(folder / f"{kind}_{value}.npy") for value in range(3))
    return Case(
        name,
        np.load(folder / "ct.npy", mmap_mode="r"),
        np.load(folder / f"{kind}.npy", mmap_mode="r"),
        (background, inside, lesion),
        (organ, tumor),
        "phantom" in key,
    )


def _places(ct: NDArray[np.int16], labels: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """For each class, voxel indices spread evenly over its voxels; for the background, over the body."""
    body = (labels == BACKGROUND) & (ct > -300)
    found = []
    for mask in (body, labels == ORGAN, labels == TUMOR):
        flat = np.flatnonzero(mask)
        flat = flat[:: max(1, len(flat) // MAX_PLACES)]
        found.append(np.stack(np.unravel_index(flat, ct.shape), axis=-1).astype(np.int64))
    return found


def random_generator(seed: int, rank: int, step: int, purpose: int = 0) -> np.random.Generator:
    """Generator of one process at one step; `purpose` separates independent uses."""
    return np.random.default_rng([seed, rank, step, purpose])


def choose_case(rng: np.random.Generator, cases: list[Case], phantom_share: float) -> Case:
    """Draw a case: a phantom with the given chance where there are both kinds."""
    phantoms = [case for case in cases if case.is_phantom]
    scans = [case for case in cases if not case.is_phantom]
    if phantoms and scans:
        cases = phantoms if rng.random() < phantom_share else scans
    return cases[rng.integers(len(cases))]


def draw_reconstruction_crop(
    rng: np.random.Generator, cases: list[Case], edge: int, data: Data
) -> NDArray[np.float32]:
    """Crop of stage 1: centered on a labeled voxel with chance `positive_share`.

    Returns:
        float32 (Z, X, Y) in [-1, 1]; outside the scan its own lowest value (published: pad mode minimum).
    """
    case = choose_case(rng, cases, data.phantom_share)
    labeled = [value for value in (ORGAN, TUMOR) if len(case.places[value])]
    if labeled and (rng.random() < data.positive_share or not len(case.places[BACKGROUND])):
        # As one class: tumor voxels are then as likely as organ voxels, so count them.
        counts = np.array([len(case.places[value]) for value in labeled], float)
        value = int(rng.choice(labeled, p=counts / counts.sum()))
    else:
        value = BACKGROUND
    ct, _ = _cut(rng, case, choose_center(rng, case, value), edge, data.rotate_probability)
    return scaled(ct, fill=None)


def draw_tumor_crop(
    rng: np.random.Generator, cases: list[Case], edge: int, data: Data
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Crop of stage 2: half of them centered on tumor, half on organ (published ratios [0, 1, 1]).

    Returns:
        ct float32 (Z, X, Y) in [-1, 1], outside the scan 0 (published: constant padding after scaling); tumor
        mask float32 (Z, X, Y), 0 or 1.

    Raises:
        ValueError: if no case has labels.
    """
    labeled = [case for case in cases if len(case.places[ORGAN]) or len(case.places[TUMOR])]
    if not labeled:
        raise ValueError("No case has an organ or tumor mask: stage 2 needs them in the datalist.")
    case = choose_case(rng, labeled, data.phantom_share)
    values = [value for value in (ORGAN, TUMOR) if len(case.places[value])]
    center = choose_center(rng, case, int(rng.choice(values)))
    ct, labels = _cut(rng, case, center, edge, data.rotate_probability)
    return scaled(ct, fill=0.0), (labels == TUMOR).astype(np.float32)


def choose_center(rng: np.random.Generator, case: Case, value: int) -> NDArray[np.int64]:
    """Voxel to center a crop on: one of the class, or any voxel where the class is empty."""
    places = case.places[value]
    if not len(places):
        return rng.integers(case.ct.shape)
    return places[rng.integers(len(places))]


def _cut(
    rng: np.random.Generator, case: Case, center: NDArray[np.int64], edge: int, turn: float
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Crop (Z, X, Y) around a center, turned with a chance; see `cut_crop`."""
    ct, labels = cut_crop(case, center, edge)
    if rng.random() < turn:
        quarters = int(rng.integers(1, 4))
        ct, labels = np.rot90(ct, quarters), np.rot90(labels, quarters)
    # (I, J, K) -> (Z, X, Y): the networks' depth is the S axis.
    return ct.transpose(2, 0, 1), labels.transpose(2, 0, 1)


def cut_crop(
    case: Case, center: NDArray[np.int64], edge: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Crop (I, J, K) around a center, moved to lie inside the case; int16 minimum marks padding."""
    shape = np.array(case.ct.shape)
    first = np.clip(center - edge // 2, 0, np.maximum(shape - edge, 0))
    box = tuple(slice(int(a), int(a) + edge) for a in first)
    ct, labels = np.asarray(case.ct[box]), np.asarray(case.labels[box])
    missing = edge - np.array(ct.shape)
    if missing.any():
        width = [(int(n) // 2, int(n) - int(n) // 2) for n in missing]
        ct = np.pad(ct, width, constant_values=np.iinfo(np.int16).min)
        labels = np.pad(labels, width)
    return ct, labels


def scaled(ct: NDArray[np.int16], fill: float | None) -> NDArray[np.float32]:
    """HU to [-1, 1]; padded voxels become `fill`, or the lowest value of the crop if it is None."""
    padding = ct == np.iinfo(np.int16).min
    values = np.ascontiguousarray(2 * to_unit(ct) - 1)
    if padding.any():
        inside = values[~padding]
        values[padding] = (inside.min() if inside.size else -1.0) if fill is None else fill
    return values


class ScanConfig(Protocol):
    """What is read of a program's configuration."""

    @property
    def data(self) -> Data:
        """Which scans and phantoms."""


def cases_of(config: ScanConfig) -> list[Case]:
    """The data of programs that cut crops out of scans; see `prepare_cases`."""
    return prepare_cases(config.data)
