"""Batches of slices with their image-level labels, varied at random; the masks of a slice set are never read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftumor.fields import number, option
from training.data.slice_sets import SliceSet, read_slice_set
from training.loop.config import Checked

HEALTHY, DISEASED = 0, 1


@dataclass(frozen=True)
class SliceData(Checked):
    """Which slices are learned from, and how they are varied.  Of their labels only healthy/diseased is read."""

    folder: Path = option(
        Path("runs/slices"),
        "Slice sets, written by `python -m training.data.slices`: its folders train and "
        "validation.",
        lasting=False,
    )
    diseased_share: float = number(
        0.0, 0, 1, "", "Share of diseased slices in a batch, on average; 0 draws all slices alike."
    )
    flip: float = number(0.0, 0, 1, "", "Chance that a slice is mirrored left to right.")
    shift: int = number(
        0, 0, 64, "pixels", "Slices are moved by up to so many pixels along both axes."
    )
    brightness: float = number(
        0.0, 0, 1, "", "Values inside the organ are multiplied by 1 +- up to this."
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Some slices.

    Attributes:
        images: float32 (B, C, H, W) in the intensity range of the set.
        diseased: class labels int64 (B,), 0 healthy and 1 diseased.
    """

    images: Tensor
    diseased: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.images.to(device), self.diseased.to(device))


class SliceBatches:
    """Draws training slices, and walks through those of the validation patients.

    Args:
        train: the set that is learned from.
        validation: the set that is looked at on the way; of the same format.
        settings: how slices are drawn and varied.
        both_kinds: whether healthy and diseased slices are needed.

    Raises:
        ValueError: if there is only one kind of slices to train on, or the sets do not fit together.
    """

    def __init__(
        self,
        train: SliceSet,
        validation: SliceSet,
        settings: SliceData,
        *,
        both_kinds: bool = True,
    ) -> None:
        if train.format != validation.format:
            raise ValueError(
                f"{train.folder} and {validation.folder} were prepared differently. Draw both with the same "
                "--format of training.data.slices."
            )
        self.train, self.validation, self.settings = train, validation, settings
        self.by_class = [np.flatnonzero(train.diseased == kind) for kind in (False, True)]
        if both_kinds and not all(len(indices) for indices in self.by_class):
            healthy, diseased = (len(indices) for indices in self.by_class)
            raise ValueError(
                f"{train.folder} has {healthy} healthy and {diseased} diseased slices; both kinds are needed. "
                "Draw more patients with training.data.slices."
            )

    @property
    def image_size(self) -> int:
        """Pixels per side."""
        return self.train.format.image_size

    @property
    def channels(self) -> int:
        """Images of one slice."""
        return len(self.train.format.channel_order)

    @property
    def intensity_range(self) -> tuple[float, float]:
        """Lowest and highest value; the lowest stands outside the organ."""
        return self.train.format.intensity_range

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw and vary training slices; a function of the generator's state only."""
        share = self.settings.diseased_share
        if share:
            pools = [self.by_class[int(rng.random() < share)] for _ in range(count)]
            chosen = np.array([pool[rng.integers(len(pool))] for pool in pools])
        else:
            chosen = rng.integers(len(self.train), size=count)
        images = np.stack([self._varied(rng, self.train.images[index]) for index in chosen])
        return _batch(images, self.train.diseased[chosen])

    def first_validation(self, count: int) -> Batch:
        """The same validation slices each time, spread over the patients."""
        places = np.linspace(0, len(self.validation) - 1, count).round().astype(int)
        return _batch(self.validation.images[places], self.validation.diseased[places])

    def some_validation(self, start: int, count: int) -> Batch:
        """Validation slices number `start` to `start + count`."""
        part = slice(start, start + count)
        return _batch(self.validation.images[part], self.validation.diseased[part])

    def _varied(self, rng: np.random.Generator, image: NDArray[np.float16]) -> NDArray[np.float32]:
        """One slice (C, H, W), perhaps mirrored, moved and brightened.

        The draws are always made, so that what one setting gives does not depend on another.
        """
        settings, (low, high) = self.settings, self.intensity_range
        mirrored = rng.random() < settings.flip
        rows, columns = rng.integers(-settings.shift, settings.shift + 1, size=2)
        factor = np.float32(1 + settings.brightness * rng.uniform(-1, 1))
        values = np.asarray(image, np.float32)
        if mirrored:
            values = values[:, :, ::-1]
        if rows or columns:
            values = _moved(values, int(rows), int(columns), low)
        if factor != 1:
            values = np.clip((values - low) * factor + low, low, high)
        return np.ascontiguousarray(values, np.float32)


def _batch(images: NDArray[np.floating], diseased: NDArray[np.bool_]) -> Batch:
    """Tensors of some slices."""
    labels = np.where(diseased, DISEASED, HEALTHY)
    return Batch(torch.from_numpy(np.array(images, np.float32)), torch.from_numpy(labels))


def _moved(
    values: NDArray[np.float32], rows: int, columns: int, fill: float
) -> NDArray[np.float32]:
    """The content of (C, H, W) moved by whole pixels; what enters is `fill`."""
    result = np.full_like(values, fill)
    height, width = values.shape[1:]

    def spans(by: int, size: int) -> tuple[slice, slice]:
        return slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size + min(-by, 0))

    (to_rows, from_rows), (to_columns, from_columns) = spans(rows, height), spans(columns, width)
    result[:, to_rows, to_columns] = values[:, from_rows, from_columns]
    return result


def memory_format(device: torch.device) -> torch.memory_format:
    """Layout in which the networks train fastest: on a CPU the norms' backward pass is slow in channels-last."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


class SliceConfig(Protocol):
    """What is read of a program's configuration."""

    @property
    def data(self) -> SliceData:
        """Which slices."""


def open_batches(config: SliceConfig) -> SliceBatches:
    """The slices of a run's configuration.

    Raises:
        FileNotFoundError: if the set is missing or cannot be used.
        ValueError: likewise.
    """
    folder = config.data.folder
    train, validation = (read_slice_set(folder / split) for split in ("train", "validation"))
    return SliceBatches(train, validation, config.data)
