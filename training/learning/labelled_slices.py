"""Few labeled slices to learn from and many to be measured on; which they are, and what a split leaks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.learning.result import REGIONS
from training.data.slice_sets import SliceSet, read_slice_set
from training.learning.config import LabelledData

SPLIT_SEED = (
    42  # of the published split into pool and test; the seeds of the runs choose within the pool
)
MEASURES = ("dice", "jaccard", "precision", "sensitivity", "specificity")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """Slices with the labels of their pixels.

    Attributes:
        images: float32 (n, C, H, W).
        labels: uint8 (n, H, W), 0 background.
        patients: (n,) names.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Split:
    """Where labeled slices are drawn from, and what they are measured on.

    Attributes:
        pool, pool_rows: set and its rows to draw from.
        test, test_rows: set and its rows to be measured on.
        leak: what the split leaks; JSON-ready.
    """

    pool: SliceSet
    pool_rows: NDArray[np.int64]
    test: SliceSet
    test_rows: NDArray[np.int64]
    leak: dict[str, Any]

    def labeled(self, count: int, seed: int, with_tumor: bool) -> LabelledSlices:
        """Draw the labeled slices of a run; of one seed, more slices hold the fewer.

        Raises:
            ValueError: the pool has fewer.
        """
        rows = self.pool_rows
        if with_tumor:
            rows = rows[self.pool.diseased[rows]]
        if len(rows) < count:
            raise ValueError(
                f"{count} labeled slices are asked for, but {self.pool.folder} has {len(rows)} to draw from. Ask for "
                "fewer (--counts), or draw more patients with training.data.slices."
            )
        order = np.random.default_rng(seed).permutation(len(rows))
        return taken(self.pool, np.sort(rows[order[:count]]))

    def measured(self, first: int, count: int) -> LabelledSlices:
        """Some of the slices that are measured on."""
        return taken(self.test, self.test_rows[first : first + count])


def split_of(settings: LabelledData) -> Split:
    """Open the slice sets of a run.

    Raises:
        FileNotFoundError: a set is missing or cannot be used.
        ValueError: likewise.
    """
    train, test = (read_slice_set(settings.folder / split) for split in ("train", "test"))
    if train.format != test.format:
        raise ValueError(
            f"{train.folder} and {test.folder} were prepared differently. Draw both with the same --format of "
            "training.data.slices."
        )
    if settings.split == "patients":
        leak = {"split": "patients", "shared_patients": 0}
        split = Split(train, np.arange(len(train)), test, _thinned(len(test), settings.test), leak)
    else:
        every = joined_sets([train, test, *_optional(settings.folder / "validation")])
        order = np.random.default_rng(SPLIT_SEED).permutation(len(every))
        if settings.pool >= len(every):
            raise ValueError(
                f"the pool of {settings.pool} slices leaves none of {len(every)} to be measured on. Choose a smaller "
                "--data.pool."
            )
        pool, rest = np.sort(order[: settings.pool]), np.sort(order[settings.pool :])
        rest = rest[_thinned(len(rest), settings.test)]
        both = np.isin(every.patient[rest], every.patient[pool])
        shared = len(np.intersect1d(every.patient[pool], every.patient[rest]))
        leak = {
            "split": "slices",
            "shared_patients": shared,
            "test_slices_of_shared_patients": float(both.mean()),
        }
        logger.warning(
            "split by slices, as published: %.0f %% of the test slices come from %d patients who also gave slices to "
            "learn from, so the figures are too good",
            100 * both.mean(),
            shared,
        )
        split = Split(every, pool, every, rest, leak)
    if not len(split.test_rows):
        raise ValueError(f"{test.folder} has no slice to be measured on.")
    return split


def taken(slices: SliceSet, rows: NDArray[np.int64]) -> LabelledSlices:
    """Rows of a set with their labels."""
    names = np.array(slices.patients)[slices.patient[rows]]
    images = np.asarray(slices.images[rows], np.float32)
    return LabelledSlices(images, np.asarray(slices.labels()[rows]), names)


def joined_sets(sets: Sequence[SliceSet]) -> SliceSet:
    """Several sets of one format as one, in memory.

    Raises:
        ValueError: their formats differ.
    """
    first = sets[0]
    if any(each.format != first.format for each in sets):
        raise ValueError(
            f"the slice sets beside {first.folder} were prepared differently. Draw all with the same --format."
        )
    starts = np.cumsum([0, *(len(each.patients) for each in sets[:-1])])
    labels = np.concatenate([each.labels() for each in sets])
    return _Joined(
        **{
            **{name: getattr(first, name) for name in ("folder", "split", "format", "settings")},
            "images": np.concatenate([np.asarray(each.images) for each in sets]),
            "diseased": np.concatenate([each.diseased for each in sets]),
            "patient": np.concatenate(
                [each.patient + start for each, start in zip(sets, starts, strict=True)]
            ),
            "position": np.concatenate([each.position for each in sets]),
            "patients": tuple(name for each in sets for name in each.patients),
            "complete": all(each.complete for each in sets),
            "joined_labels": labels,
        }
    )


@dataclass(frozen=True, eq=False)
class _Joined(SliceSet):
    """A set that is not one folder."""

    joined_labels: NDArray[np.uint8] = None  # type: ignore[assignment]

    def labels(self) -> NDArray[np.uint8]:
        return self.joined_labels


def measure(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, dict[str, float]]:
    """Figures of each region in one slice; NaN where a figure does not exist (Dice: where both are empty).

    Args:
        prediction: labels (H, W).
        truth: likewise.

    Returns:
        region -> measure -> value.
    """
    found = {}
    for region, labels in REGIONS.items():
        p, t = np.isin(prediction, labels), np.isin(truth, labels)
        both, only_p, only_t = int((p & t).sum()), int((p & ~t).sum()), int((t & ~p).sum())
        neither = p.size - both - only_p - only_t
        found[region] = {
            "dice": _ratio(2 * both, 2 * both + only_p + only_t),
            "jaccard": _ratio(both, both + only_p + only_t),
            "precision": _ratio(both, both + only_p),
            "sensitivity": _ratio(both, both + only_t),
            "specificity": _ratio(neither, neither + only_p),
        }
    return found


def mean_of(figures: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float | None]]:
    """Mean over slices of each figure, slices without it left out (as published); None: no slice has it."""
    table: dict[str, dict[str, float | None]] = {}
    for region in REGIONS:
        table[region] = {}
        for name in MEASURES:
            values = np.array([each[region][name] for each in figures])
            known = values[~np.isnan(values)]
            table[region][name] = round(float(known.mean()), 6) if len(known) else None
    return table


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _thinned(count: int, most: int) -> NDArray[np.int64]:
    """All rows, or so many of them evenly spread."""
    wanted = min(count, most) if most else count
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def _optional(folder: Path) -> list[SliceSet]:
    return [read_slice_set(folder)] if folder.is_dir() else []
