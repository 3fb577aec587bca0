"""The diffusion network of anomaly detection, `python -m training.anomaly.diffusion paper|demo|tiny`.

Wolleb et al., MICCAI 2022: a U-Net, told whether a slice is healthy or diseased, learns the noise of
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (mean squared error) and its variance (variational bound; Nichol and
Dhariwal 2021).  Babaei et al. train it so on the pancreas.  No mask is read.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.diffusion.learned_variance import variational_bound
from difftumor.diffusion.sampling import predict_x_0
from difftumor.diffusion.schedules import Schedule, linear_betas
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from training.anomaly.config import AnomalyDiffusionConfig, GuidedUNetSize
from training.anomaly.presets import ANOMALY_DIFFUSION_PRESETS
from training.data.scans import random_generator
from training.data.slice_batches import Batch, SliceBatches, memory_format, open_batches
from training.loop.config import Stage, read_command_line
from training.loop.loop import run_program
from training.loop.steps import passes, shares, update

SLICES, NOISE, PICTURE = range(3)
PICTURE_TIMES = (100, 250)
PICTURE_SLICES = 8

logger = logging.getLogger(__name__)


def network_arguments(size: GuidedUNetSize, image_size: int, channels: int) -> GuidedUNetArguments:
    """Arguments of the U-Net for slices of a set."""
    return GuidedUNetArguments(
        image_size=image_size,
        in_channels=channels,
        base_channels=size.base_channels,
        channel_mult=size.channel_mult,
        res_blocks=size.res_blocks,
        attention_sizes=size.attention_sizes,
        heads=size.heads,
    )


def draw_times(
    rng: np.random.Generator, count: int, length: int, low_share: float, low_limit: int
) -> NDArray[np.int64]:
    """Timesteps of a batch: uniform, but a share of them below a limit.

    Returns:
        int64 (count,), 0 <= t < length.
    """
    times = rng.integers(length, size=count)
    low = rng.integers(min(low_limit, length), size=count)
    return np.where(rng.random(count) < low_share, low, times)


class AnomalyDiffusionTraining:
    """The Program of the diffusion network (see training.loop.loop)."""

    averaged = "unet"

    def __init__(
        self, fabric: Fabric, config: AnomalyDiffusionConfig, batches: SliceBatches
    ) -> None:
        self.fabric, self.config, self.batches = fabric, config, batches
        betas = linear_betas(config.timesteps)
        self.schedule = Schedule.from_betas(betas).to(device=fabric.device)
        arguments = network_arguments(config.network, batches.image_size, batches.channels)
        self.unet = GuidedUNet(arguments)
        # The types of torch do not know that a module takes a memory format.
        self.unet.to(memory_format=memory_format(fabric.device))  # type: ignore[call-overload]
        adam = config.optimizer
        # AdamW without weight decay, as published, is Adam.
        optimizer = torch.optim.Adam(
            self.unet.parameters(), adam.lr, betas=(adam.beta1, adam.beta2)
        )
        self.network, self.optimizer = fabric.setup(self.unet, optimizer)
        self.modules: dict[str, nn.Module] = {"unet": self.unet}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"unet": self.optimizer}

    def batch(self, step: int, count: int, purpose: int = SLICES) -> Batch:
        """This process's slices of a step."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, purpose)
        return self.batches.draw(rng, count).to(self.fabric.device)

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:  # noqa: ARG002
        """One step of the network."""
        self.unet.train()
        config = self.config
        rounds = shares(self.fabric, stage.batch, config.hardware.microbatch)
        batch = self.batch(step, sum(rounds))
        rng = random_generator(config.seed, self.fabric.global_rank, step, NOISE)
        times = torch.from_numpy(
            draw_times(rng, sum(rounds), config.timesteps, config.low_share, config.low_limit)
        )
        noise = torch.from_numpy(rng.standard_normal(tuple(batch.images.shape), dtype=np.float32))
        facts: dict[str, Tensor | float] = {"mse": 0.0, "bound": 0.0}
        for part, share, more in passes(rounds):
            x_0, y = batch.images[part], batch.diseased[part]
            t, eps = times[part].to(x_0.device), noise[part].to(x_0.device)
            x_t = self.schedule.q_sample(x_0, t, eps)
            with self.fabric.no_backward_sync(self.network, enabled=more):
                output = self.network(x_t, t, y)
                mse = (output[:, : x_0.shape[1]] - eps).square().mean()
                bound = variational_bound(output, x_0, x_t, t, self.schedule).mean()
                self.fabric.backward((mse + config.bound_weight * bound) * share)
            facts["mse"] = facts["mse"] + mse.detach() * share
            facts["bound"] = facts["bound"] + bound.detach() * share
        return facts | update(self.fabric, self.network, self.optimizer, config.optimizer.clip)

    @torch.no_grad()
    def picture(self) -> NDArray[np.float32]:
        """Fixed validation slices (first channel), and what the network makes of them in one step from noise."""
        count = min(PICTURE_SLICES, len(self.batches.validation))
        batch = self.batches.first_validation(count).to(self.fabric.device)
        rng = random_generator(self.config.seed, 0, 0, PICTURE)
        noise = torch.from_numpy(rng.standard_normal(tuple(batch.images.shape), dtype=np.float32))
        noise = noise.to(batch.images.device)
        self.unet.eval()
        rows = [batch.images]
        for step in PICTURE_TIMES:
            number = min(step, self.config.timesteps - 1)
            t = torch.full((count,), number, device=noise.device)
            x_t = self.schedule.q_sample(batch.images, t, noise)
            eps = self.network(x_t, t, batch.diseased)[:, : noise.shape[1]]
            rows += [x_t, predict_x_0(x_t, eps.float(), number, self.schedule)]
        low, high = self.batches.intensity_range
        views = [np.concatenate(list(row[:, 0].float().cpu().numpy()), axis=1) for row in rows]
        return np.asarray((np.concatenate(views) - low) / (high - low), np.float32)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        ANOMALY_DIFFUSION_PRESETS, "python -m training.anomaly.diffusion", args
    )
    return run_program(config, AnomalyDiffusionTraining, open_batches)


if __name__ == "__main__":
    raise SystemExit(main())
