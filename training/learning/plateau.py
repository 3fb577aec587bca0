"""A learning rate that falls when the training loss of an epoch no longer does; its state is in the checkpoints."""

from __future__ import annotations

import torch
from torch import nn

from training.learning.config import Plateau


class PlateauRate(nn.Module):
    """Factor of the learning rate, in buffers, so that a checkpoint holds it.

    As torch's ReduceLROnPlateau with its relative threshold of 1e-4, on the mean loss of an epoch; that class keeps
    its state elsewhere.

    Args:
        settings: factor, patience, smallest rate.
        rate: that the factor stands for.
    """

    THRESHOLD = 1e-4

    factor: torch.Tensor
    best: torch.Tensor
    bad: torch.Tensor
    total: torch.Tensor
    count: torch.Tensor
    epoch: torch.Tensor

    def __init__(self, settings: Plateau, rate: float) -> None:
        super().__init__()
        self.settings, self.least = settings, min(settings.least / max(rate, 1e-30), 1.0)
        for name, value in (
            *(("factor", 1.0), ("best", float("inf")), ("bad", 0.0)),
            *(("total", 0.0), ("count", 0.0), ("epoch", 0.0)),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def begin(self, epoch: int) -> float:
        """Factor of a step of an epoch; before its first one the last epoch is judged."""
        if epoch != int(self.epoch):
            self._judge()
            self.epoch.fill_(epoch)
        return float(self.factor)

    def add(self, loss: float) -> None:
        """Take account of the loss of a step."""
        self.total += loss
        self.count += 1

    def _judge(self) -> None:
        mean = float(self.total / self.count.clamp(min=1))
        if mean < float(self.best) * (1 - self.THRESHOLD):
            self.best.fill_(mean)
            self.bad.zero_()
        else:
            self.bad += 1
        if int(self.bad) > self.settings.patience:
            self.factor.fill_(max(float(self.factor) * self.settings.factor, self.least))
            self.bad.zero_()
        self.total.zero_()
        self.count.zero_()
