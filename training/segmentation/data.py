"""Scans for stage 3: with tumors and without, dealt into folds by patient, and the crops cut out of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from difftumor import phantom
from difftumor.parameters import ORGAN_LABELS
from training.data.datalists import Scan, read_datalist
from training.data.scans import (
    BACKGROUND,
    ORGAN,
    TUMOR,
    Case,
    cached_case,
    cached_scan,
    choose_center,
    cut_crop,
    scaled,
)
from training.segmentation.config import (
    HEALTHY_RADIUS_MM,
    Augmentation,
    SegmentationConfig,
    SegmentationData,
)

REDRAWS, RELAXED_EVERY, RELAXED_BY_MM, LEAST_RADIUS_MM = 30, 5, 5, 5
JITTER = 0.1


class Crop(NamedTuple):
    """A cube of a scan.

    image: float32 (X, Y, Z), HU -175 to 250 as 0 to 1.
    labels: uint8 (X, Y, Z), BACKGROUND, ORGAN or TUMOR.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scans:
    """What a run learns from and is validated on.

    Attributes:
        real: scans with labeled tumors.
        healthy: scans without, in which tumors are synthesized.
        validation: scans with tumors of other patients.
    """

    real: list[Case]
    healthy: list[Case]
    validation: list[Case]

    @property
    def training(self) -> list[tuple[Case, bool]]:
        """All training scans, and whether each is healthy."""
        return [(case, False) for case in self.real] + [(case, True) for case in self.healthy]


def prepare_scans(config: SegmentationConfig) -> Scans:
    """All scans of a run, from the cache where they are already there.

    Raises:
        FileNotFoundError, VolumeError, GridError, DatalistError: naming the file that cannot be used.
        ValueError: if nothing is left to learn from, a fold is empty, or a healthy scan has tumors.
    """
    data = config.data
    real = read_datalist(data.datalist) if data.datalist is not None else []
    held_back = held_back_patients((patient_of(scan) for scan in real), data)
    healthy = read_datalist(data.healthy) if data.healthy is not None else []
    scans = Scans(
        [] if config.synthetic_only else _cases(real, data, held_back, inside=False),
        [] if config.real_only else _cases(healthy, data, held_back, inside=False),
        _cases(real, data, held_back, inside=True),
    )
    seeds = phantom.TRAINING_SEEDS
    if data.phantoms + data.healthy_phantoms > len(seeds):
        raise ValueError(f"There are {len(seeds)} training seeds; ask for fewer phantoms.")
    ill, well = seeds[: data.phantoms], seeds[data.phantoms :][: data.healthy_phantoms]
    if not config.synthetic_only:
        scans.real.extend(_phantom(data, seed, _count(data, seed)) for seed in ill)
    if not config.real_only:
        scans.healthy.extend(_phantom(data, seed, 0) for seed in well)
    for seed in phantom.VALIDATION_SEEDS[: data.validation_phantoms]:
        scans.validation.append(_phantom(data, seed, _count(data, seed)))
    _check(scans)
    return scans


def patient_of(scan: Scan) -> str:
    """Whose scan it is."""
    return scan.patient or scan.name


def held_back_patients(patients: Iterable[str], data: SegmentationData) -> frozenset[str]:
    """The patients of the fold that is held back: dealt in turn, in an order that only their names decide.

    Raises:
        ValueError: if there are fewer patients than folds.
    """
    names = sorted(set(patients), key=lambda name: hashlib.sha256(name.encode()).digest())
    if not names or data.folds == 1:
        return frozenset()
    if len(names) < data.folds:
        raise ValueError(
            f"{len(names)} patients cannot be dealt into {data.folds} folds. Give --data.folds "
            f"{len(names)} or less; 1 holds nobody back."
        )
    return frozenset(names[data.fold :: data.folds])


def _cases(
    scans: list[Scan], data: SegmentationData, held_back: frozenset[str], *, inside: bool
) -> list[Case]:
    """Cases of the scans whose patients are held back, or of the others."""
    chosen = (scan for scan in scans if (patient_of(scan) in held_back) == inside)
    return [cached_scan(scan, data.cache) for scan in chosen]


def _count(data: SegmentationData, seed: int) -> int:
    """Lesions of a phantom."""
    return 1 + seed % data.phantom_tumors


def _phantom(data: SegmentationData, seed: int, tumors: int) -> Case:
    """A phantom with lesions in the organ."""
    key = {
        "phantom": seed,
        "version": phantom.PHANTOM_VERSION,
        "tumors": tumors,
        "organ": data.organ,
    }

    def make() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        made = phantom.make_abdomen(seed, tumors=tumors, tumor_organs=(data.organ,))
        labels = np.isin(made.organs, ORGAN_LABELS[data.organ]).astype(np.uint8)
        labels[made.tumors > 0] = TUMOR
        return made.ct, labels

    return cached_case(data.cache, key, f"phantom-{seed}", make)


def _check(scans: Scans) -> None:
    """Refuse what nothing can be learned from."""
    if not scans.training:
        raise ValueError(
            "There is nothing to learn from: give --data.datalist (scans with tumors), --data.healthy, "
            "--data.phantoms or --data.healthy-phantoms that fit --real-only and --synthetic-only."
        )
    for case in scans.healthy:
        if case.counts[1]:
            raise ValueError(
                f"{case.name} is listed as healthy and has {case.counts[1]} tumor voxels. Move it to "
                "the other datalist, or leave its tumor mask out."
            )
    for case, healthy in scans.training:
        if not sum(case.counts):
            what = "organ" if healthy else "organ or tumor"
            raise ValueError(f"{case.name} has no {what} mask, or an empty one. Leave it out.")


def draw_crop(
    rng: np.random.Generator, case: Case, edge: int, data: SegmentationData, *, healthy: bool
) -> Crop:
    """Cut a crop of `edge` voxels of 1 mm (published: half of them centered on organ or tumor).

    A crop of a healthy scan must show enough of the organ to hold a tumor: it is drawn again until it exceeds the
    volume of a ball, whose radius is relaxed by and by.
    """
    radius = HEALTHY_RADIUS_MM[data.organ]
    for draw in range(REDRAWS):
        ct, labels = cut_crop(case, _center(rng, case, data), edge)
        if draw and draw % RELAXED_EVERY == 0:
            radius = max(radius - RELAXED_BY_MM, LEAST_RADIUS_MM)
        if not healthy or (labels > 0).sum() > 4 / 3 * math.pi * radius**3:
            break
    return Crop(np.asarray((scaled(ct, fill=None) + 1) / 2, np.float32), labels.copy())


def _center(rng: np.random.Generator, case: Case, data: SegmentationData) -> NDArray[np.int64]:
    """Voxel to center a crop on."""
    organ, tumor = case.counts
    if rng.random() >= data.positive_share:
        return choose_center(rng, case, BACKGROUND)
    share = data.tumor_share or tumor / (organ + tumor)
    on_tumor = tumor > 0 and (not organ or rng.random() < share)
    return choose_center(rng, case, TUMOR if on_tumor else ORGAN)


def augmented(rng: np.random.Generator, crop: Crop, settings: Augmentation) -> Crop:
    """Mirror, turn about the S axis, and vary the values of a crop; arrays of its own."""
    image, labels = crop
    axes = tuple(axis for axis in range(3) if rng.random() < settings.flip)
    image, labels = np.flip(image, axes), np.flip(labels, axes)
    if rng.random() < settings.rotate:
        quarters = int(rng.integers(1, 4))
        image, labels = np.rot90(image, quarters), np.rot90(labels, quarters)
    factor, shift = 1.0, 0.0
    if rng.random() < settings.scale_probability:
        factor += rng.uniform(-JITTER, JITTER)
    if rng.random() < settings.shift_probability:
        shift = rng.uniform(-JITTER, JITTER)
    image = image * np.float32(factor) + np.float32(shift)
    return Crop(np.ascontiguousarray(image), np.ascontiguousarray(labels))


def respaced(crop: Crop, spacing_mm: float) -> Crop:
    """A crop of 1 mm voxels at another voxel size, by linear interpolation as the engine does in use.

    A voxel takes the label that covers at least half of it, tumor before organ.
    """
    if spacing_mm == 1:
        return crop
    image = interpolated(crop.image, spacing_mm)
    organ, tumor = (
        interpolated((crop.labels >= value).astype(np.float32), spacing_mm) >= 0.5
        for value in (ORGAN, TUMOR)
    )
    return Crop(image, np.where(tumor, TUMOR, organ).astype(np.uint8))


def interpolated(array: NDArray[np.float32], spacing_mm: float) -> NDArray[np.float32]:
    """Values of an array of 1 mm voxels at 0, spacing_mm, 2 spacing_mm ... along each axis; float32."""
    for axis in range(3):
        # The last voxel may lie up to one step beyond the last center, where the edge value continues.
        places = np.arange(math.ceil(array.shape[axis] / spacing_mm - 1e-6)) * spacing_mm
        low = np.minimum(np.floor(places).astype(int), array.shape[axis] - 1)
        high = np.minimum(low + 1, array.shape[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = -1
        weight = (places - low).astype(np.float32).reshape(shape)
        array = np.take(array, low, axis) * (1 - weight) + np.take(array, high, axis) * weight
    return array
