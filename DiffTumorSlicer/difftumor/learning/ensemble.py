"""Training of the pixel classifiers on the features of a few labeled slices, in seconds.

Differs from the published training (batches of 64 pixels, Adam, hundreds of epochs, one classifier): larger
batches, fewer steps, a cosine learning rate, AdamW, and all members of the ensemble at once, each with batches of
its own.  Rare labels weigh more, by the square root of their frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from difftumor.networks.pixel_classifiers import PixelEnsemble

BATCH = 512
# Of the features of the diffusion model beside the pixel's own: there are many more of them, and a few slices are
# soon explained by chance.
LEARNED_WEIGHT = 0.05
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
FLOOR = 0.01  # of the learning rate, at the end
LEAST_DEVIATION = 1e-3  # of a feature; smaller ones are constant


def train_ensemble(
    pixels: Tensor,
    labels: Tensor,
    classes: int,
    *,
    members: int,
    steps: int,
    seed: int,
    learned: int = 0,
    callback: Callable[[int, int], None] = lambda _done, _total: None,
) -> PixelEnsemble:
    """Train an ensemble of pixel classifiers.

    Args:
        pixels: features, float32 (N, F); the classifiers take them as they are, unscaled.
        labels: int64 (N,), 0 to classes - 1.
        classes: number of labels, background included.
        members: of the ensemble.
        steps: of the optimizer.
        seed: of weights and batches.
        learned: how many of the features, the first ones, are scaled by `LEARNED_WEIGHT`.
        callback: called as callback(done, total) after each step; may raise Cancelled.

    Returns:
        the ensemble, in evaluation mode, on the device of the features.
    """
    mean, deviation = pixels.mean(0), pixels.std(0).clamp(min=LEAST_DEVIATION)
    deviation[:learned] /= LEARNED_WEIGHT
    scaled = (pixels - mean) / deviation
    generator = torch.Generator().manual_seed(seed)
    ensemble = PixelEnsemble(members, pixels.shape[1], classes, generator=generator)
    ensemble = ensemble.to(pixels.device).train()
    weights = label_weights(labels, classes)
    optimizer = torch.optim.AdamW(
        ensemble.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=True
    )
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_at(step, steps)
        chosen = torch.randint(len(pixels), (members, BATCH), generator=generator)
        chosen = chosen.to(pixels.device)
        logits = ensemble(scaled[chosen])
        # Each member has its own loss; their sum trains them side by side.
        loss = members * F.cross_entropy(logits.flatten(0, 1), labels[chosen].flatten(), weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        callback(step + 1, steps)
    unscale(ensemble, mean, deviation)
    return ensemble.eval().requires_grad_(False)


def rate_at(step: int, steps: int) -> float:
    """Share of the learning rate: a half cosine down to `FLOOR`."""
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps))


def label_weights(labels: Tensor, classes: int) -> Tensor:
    """Weight of each label: 1 / sqrt(its frequency), 1 on average over the pixels; 0 for absent ones."""
    counts = torch.bincount(labels, minlength=classes).float()
    weights = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0)
    return weights * counts.sum() / (weights * counts).sum()


@torch.no_grad()
def unscale(ensemble: PixelEnsemble, mean: Tensor, deviation: Tensor) -> None:
    """Let the first layer take features as they are instead of (features - mean) / deviation."""
    weight, bias = ensemble.weights[0], ensemble.biases[0]
    weight /= deviation[:, None]
    bias -= (mean @ weight)[:, None]
