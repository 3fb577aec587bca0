"""Sliding windows: a network of small crops over a whole volume, only where its answer is wanted.

Overlapping crops are weighted by a Gaussian, as MONAI's `sliding_window_inference` does; windows lie where they lie
there, so that inside the wanted voxels the result is the same.  Windows that hold none of them are left out.
Memory does not grow with the number of windows: sums are kept for one row of windows and handed out as the row
is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftumor.grids import Box

SIGMA_SCALE = 0.125  # of the Gaussian, as a share of the window
LEAST_WEIGHT = 1e-3  # of a window's corner; else sums would be too small to divide by
Predict = Callable[[Tensor], Tensor]
Callback = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Which windows are computed.

    Attributes:
        shape: of the volume.
        size: of a window.
        starts: int (n, 3), sorted; first voxel of each window, in a volume padded by `before`.
        before: voxels of padding before the volume, where it is smaller than a window.
        box: voxels of the volume whose results are handed out: the box around what is wanted.
        total: windows that a whole volume has.
    """

    shape: tuple[int, int, int]
    size: tuple[int, int, int]
    starts: NDArray[np.int64]
    before: tuple[int, int, int]
    box: Box
    total: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def field(self) -> Box:
        """Voxels of the volume that the windows look at."""
        low = self.starts.min(axis=0) - self.before
        high = self.starts.max(axis=0) + self.size - self.before
        x, y, z = (
            slice(max(int(a), 0), min(int(b), n))
            for a, b, n in zip(low, high, self.shape, strict=True)
        )
        return x, y, z

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Sizes of `box`."""
        x, y, z = (part.stop - part.start for part in self.box)
        return x, y, z


def plan_windows(
    shape: tuple[int, int, int],
    size: Sequence[int] = (96, 96, 96),
    overlap: float = 0.75,
    wanted: NDArray[np.bool_] | None = None,
) -> WindowPlan:
    """Place windows over a volume.

    Args:
        shape: of the volume.
        size: of a window.
        overlap: share that neighbors have in common along each axis, 0 to below 1.
        wanted: bool of `shape`, voxels whose result is needed; None: all.

    Raises:
        ValueError: overlap out of range, another shape, or nothing is wanted.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and less than 1, got {overlap}")
    if wanted is not None and wanted.shape != tuple(shape):
        raise ValueError(f"wanted has shape {wanted.shape}, the volume {tuple(shape)}")
    before = tuple(max(w - n, 0) // 2 for n, w in zip(shape, size, strict=True))
    axes = [
        _starts(max(n, w), w, overlap) for n, w in zip(shape, size, strict=True)
    ]  # fmt: skip
    meeting = np.meshgrid(*axes, indexing="ij")
    starts: NDArray[np.int64] = np.stack(meeting, axis=-1).reshape(-1, 3)
    total = len(starts)
    box: Box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    if wanted is not None:
        box = _box_of(wanted)
        inside = [_touches(wanted, start, size, box) for start in starts - np.asarray(before)]
        starts = starts[np.asarray(inside)]
    x, y, z = (int(w) for w in size)
    return WindowPlan(tuple(shape), (x, y, z), starts, before, box, total)  # type: ignore[arg-type]


def gaussian_weights(size: Sequence[int]) -> Tensor:
    """Weight of each voxel of a window, float32 of `size`: a Gaussian, nowhere below LEAST_WEIGHT."""
    weights = torch.ones(())
    for n in size:
        x = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        line = torch.exp(x**2 / (-2 * (SIGMA_SCALE * n) ** 2))
        weights = weights[..., None] * line
    return weights.clamp(min=max(float(weights.min()), LEAST_WEIGHT))


@torch.inference_mode()
def predict_windows(
    image: NDArray[np.float32],
    plan: WindowPlan,
    predict: Predict,
    device: torch.device,
    batch_size: int = 1,
    callback: Callback | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Run a network over the windows of a plan.

    Args:
        image: (C, ...) the voxels of `plan.field`, scaled for the network.
        plan: which windows.
        predict: (B, C, *size) -> (B, K, *size) on `device`.
        device: where sums are kept.
        batch_size: windows at a time.
        callback: called as callback(done, total) before each batch and at the end; may raise Cancelled.

    Yields:
        rows of `plan.box` along X (slice in voxels of the volume) and their logits (K, rows, Y, Z), 0 where no
        window was. Rows come once, in order; those without a window do not come.
    """
    report = callback or (lambda _done, _total: None)
    weights = gaussian_weights(plan.size).to(device)
    padded = _Padded(image, plan)
    sums: _Rows | None = None
    report(0, len(plan))
    for first in range(0, len(plan), batch_size):
        starts = plan.starts[first : first + batch_size]
        crops = torch.from_numpy(np.stack([padded.crop(start) for start in starts]))
        logits = predict(crops.to(device))
        if sums is None:
            sums = _Rows(plan, logits.shape[1], weights)
        for start, window in zip(starts, logits, strict=True):
            yield from sums.leave(int(start[0]))
            sums.add(start, window)
        report(min(first + batch_size, len(plan)), len(plan))
    if sums is not None:
        yield from sums.leave(None)


class _Padded:
    """Crops of the image, with 0 beyond a volume that is smaller than a window."""

    def __init__(self, image: NDArray[np.float32], plan: WindowPlan) -> None:
        field = plan.field
        if image.shape[1:] != tuple(part.stop - part.start for part in field):
            raise ValueError(f"image has shape {image.shape}, the windows look at {field}")
        self._image, self._size = image, plan.size
        self._origin = np.asarray(plan.before) + [part.start for part in field]

    def crop(self, start: NDArray[np.int64]) -> NDArray[np.float32]:
        """(C, *size) at a place in the padded volume."""
        at = start - self._origin
        ends = np.minimum(at + self._size, self._image.shape[1:])
        inside = self._image[(slice(None), *map(slice, np.maximum(at, 0), ends))]
        if inside.shape[1:] == self._size:
            return inside
        result = np.zeros((len(inside), *self._size), np.float32)
        low = np.maximum(-at, 0)
        result[(slice(None), *map(slice, low, low + inside.shape[1:]))] = inside
        return result


class _Rows:
    """Weighted sums over the rows of the box that windows may still reach."""

    def __init__(self, plan: WindowPlan, classes: int, weights: Tensor) -> None:
        self._plan, self._weights = plan, weights
        _, y, z = plan.box_shape
        zeros = partial(torch.zeros, dtype=torch.float32, device=weights.device)
        self._sums = zeros((classes, plan.size[0], y, z))
        self._norm = zeros((plan.size[0], y, z))
        self._front = int(plan.starts[0][0])  # row of the padded volume at index 0

    def add(self, start: NDArray[np.int64], logits: Tensor) -> None:
        """Add a window whose first row is that of the front."""
        place, part = [slice(None)], [slice(None)]
        for axis in (1, 2):
            low = int(start[axis]) - self._plan.before[axis]
            box = self._plan.box[axis]
            a, b = max(low, box.start), min(low + self._plan.size[axis], box.stop)
            place.append(slice(a - box.start, b - box.start))
            part.append(slice(a - low, b - low))
        weight = self._weights[tuple(part)]
        self._sums[(slice(None), *place)] += logits[(slice(None), *part)].float() * weight
        self._norm[tuple(place)] += weight

    def leave(self, front: int | None) -> Iterator[tuple[slice, Tensor]]:
        """Hand out the rows before a new front (None: all) and forget them."""
        size = self._plan.size[0]
        rows = size if front is None else min(front - self._front, size)
        if rows <= 0:
            return
        first = self._front - self._plan.before[0]
        box = self._plan.box[0]
        a, b = max(first, box.start), min(first + rows, box.stop)
        if a < b:
            part = slice(a - first, b - first)
            norm = self._norm[part]
            yield slice(a, b), self._sums[:, part] / torch.where(norm > 0, norm, 1)
        if front is not None:
            self._front = front
            for kept, axis in ((self._sums, 1), (self._norm, 0)):
                rest = kept.narrow(axis, rows, size - rows).clone()
                kept.zero_()
                kept.narrow(axis, 0, size - rows).copy_(rest)


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis, as MONAI places them: the last ends with the volume."""
    step = window if length == window else max(int(window * (1 - overlap)), 1)
    count = 1 + math.ceil((length - window) / step)
    return [min(n * step, length - window) for n in range(count)]


def _box_of(mask: NDArray[np.bool_]) -> Box:
    """The box around a mask.  Raises: ValueError: the mask is empty."""
    spans = []
    for axis in range(3):
        at = np.flatnonzero(mask.any(axis=tuple(d for d in range(3) if d != axis)))
        if not at.size:
            raise ValueError("no voxel is wanted")
        spans.append(slice(int(at[0]), int(at[-1]) + 1))
    x, y, z = spans
    return x, y, z


def _touches(
    mask: NDArray[np.bool_], start: NDArray[np.int64], size: Sequence[int], box: Box
) -> bool:
    """Whether a window holds a voxel of the mask; only what lies in its box is looked at."""
    part = tuple(
        slice(max(int(a), inner.start), min(int(a) + w, inner.stop))
        for a, w, inner in zip(start, size, box, strict=True)
    )
    return all(p.start < p.stop for p in part) and bool(mask[part].any())
