"""Labeled slices varied at random while a whole network learns from them: mirrored, turned, scaled, brightened.

Alshenoudy et al.: mirrored with a chance of 0.2 along each axis, turned by up to 30 degrees (0.2), scaled and moved
(0.1), values raised to a power of 0.5 to 1.25 (0.2).  The grain and the gain of each channel are ours; nnU-Net has
the like.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.learning.config import Variations

TURN, SCALE, MOVE = 30.0, 0.1, 0.05  # degrees; share; share of the side
POWERS = (0.5, 1.25)
GAIN, GRAIN = 0.25, 0.05  # share of the range


def vary(
    images: NDArray[np.float32],
    labels: NDArray[np.uint8],
    chances: Variations,
    rng: np.random.Generator,
    intensity_range: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Vary slices; a function of the generator's state only, and it always draws the same numbers.

    Args:
        images: float32 (n, C, H, W); its lower end is what lies outside.
        labels: uint8 (n, H, W).
        chances: of each variation.
        rng: where the draws come from.
        intensity_range: lowest and highest value of the images.

    Returns:
        images float32 (n, C, H, W), and labels int64 (n, H, W); pixels of labels are never mixed.
    """
    count, channels = images.shape[:2]
    low, high = intensity_range
    values = (torch.from_numpy(images) - low) / (high - low)
    placed = _placed(count, chances, rng)
    grid = F.affine_grid(placed, list(values.shape), align_corners=False)
    values = F.grid_sample(values, grid, "bilinear", "zeros", align_corners=False)
    there = torch.from_numpy(labels).float()[:, None]
    there = F.grid_sample(there, grid, "nearest", "zeros", align_corners=False)
    power = np.where(rng.random(count) < chances.gamma, rng.uniform(*POWERS, count), 1.0)
    values = values.clamp(0, 1) ** torch.from_numpy(power.astype(np.float32))[:, None, None, None]
    grained = np.asarray(rng.random(count) < chances.contrast, np.float32)
    gain = 1 + GAIN * grained[:, None] * rng.uniform(-1, 1, (count, channels))
    spread = GRAIN * grained * rng.random(count)
    noise = rng.standard_normal(tuple(values.shape), dtype=np.float32)
    noise *= spread.astype(np.float32)[:, None, None, None]
    # What lies outside stays what it is.
    inside = (values > 0).any(dim=1, keepdim=True)
    changed = values * torch.from_numpy(gain.astype(np.float32))[..., None, None]
    values = torch.where(inside, (changed + torch.from_numpy(noise)).clamp(0, 1), values)
    return values * (high - low) + low, there[:, 0].long()


def _placed(count: int, chances: Variations, rng: np.random.Generator) -> Tensor:
    """Places in the slice that the pixels come from: matrices (n, 2, 3) for `affine_grid`."""
    flips = np.where(rng.random((count, 2)) < chances.flip, -1.0, 1.0)
    angle = np.radians(
        np.where(rng.random(count) < chances.rotate, rng.uniform(-TURN, TURN, count), 0)
    )
    moved = rng.random(count) < chances.scale
    scale = np.where(moved, 1 + rng.uniform(-SCALE, SCALE, count), 1.0)
    shift = np.where(moved[:, None], 2 * rng.uniform(-MOVE, MOVE, (count, 2)), 0.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.moveaxis(turn * scale, -1, 0) * flips[:, None, :]
    return torch.from_numpy(np.concatenate([matrix, shift[..., None]], axis=2).astype(np.float32))
