"""What one step of every program is made of: passes that fit into memory, and the optimizer's move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn


def shares(fabric: Fabric, batch: int, microbatch: int) -> list[int]:
    """How many crops this process handles in each of its passes of one step.

    Raises:
        ValueError: if the batch cannot be divided evenly.
    """
    if batch % fabric.world_size:
        raise ValueError(
            f"A batch of {batch} crops cannot be divided evenly among {fabric.world_size} processes; "
            "choose a multiple in --stages."
        )
    share = batch // fabric.world_size
    most = microbatch or share
    return [min(most, share - first) for first in range(0, share, most)]


def passes(counts: Sequence[int]) -> Iterator[tuple[slice, float, bool]]:
    """The passes of one step, for `counts` of `shares`.

    Returns:
        of each pass its rows of the step's batch, its share of them (0 to 1, the weight of its loss), and
        whether another pass follows (gradients are then not yet exchanged between processes).
    """
    first = 0
    for number, count in enumerate(counts):
        yield slice(first, first + count), count / sum(counts), number < len(counts) - 1
        first += count


def update(
    fabric: Fabric, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float
) -> dict[str, Tensor | float]:
    """Clip the gradient to the norm `clip` (0: not at all), step, and clear the gradient.

    Returns:
        for the report, "gradient": its norm before clipping; nothing if it was not clipped.
    """
    facts: dict[str, Tensor | float] = {}
    if clip:
        norm = fabric.clip_gradients(module, optimizer, max_norm=clip)
        facts["gradient"] = norm if norm is not None else 0.0
    optimizer.step()
    optimizer.zero_grad()
    return facts
