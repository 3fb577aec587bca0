"""The diffusion model whose features tell pixels apart, `python -m training.learning.representation paper|demo|tiny`.

Alshenoudy et al., "Semi-supervised brain tumor segmentation using diffusion models": an unconditional U-Net learns
the noise of x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, mean squared error, uniform t.  No label is read.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.diffusion.sampling import predict_x_0
from difftumor.diffusion.schedules import Schedule, guided_betas
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from training.anomaly.config import GuidedUNetSize
from training.anomaly.diffusion import NOISE, PICTURE, PICTURE_SLICES, SLICES
from training.anomaly.diffusion import network_arguments as conditional_arguments
from training.data.scans import random_generator
from training.data.slice_batches import Batch, SliceBatches, memory_format
from training.data.slice_sets import read_slice_set
from training.learning.config import RepresentationConfig
from training.learning.labelled_slices import joined_sets
from training.learning.presets import REPRESENTATION_PRESETS
from training.loop.config import Stage, read_command_line
from training.loop.loop import run_program
from training.loop.steps import passes, shares, update

PICTURE_SHARES = (0.1, 0.4)  # of T

logger = logging.getLogger(__name__)


def network_arguments(size: GuidedUNetSize, image_size: int, channels: int) -> GuidedUNetArguments:
    """Arguments of the U-Net for slices of a set: no label, no learned variance."""
    arguments = conditional_arguments(size, image_size, channels)
    return replace(arguments, classes=None, learned_variance=False)


class RepresentationTraining:
    """The Program of the diffusion model (see training.loop.loop)."""

    averaged = "unet"

    def __init__(self, fabric: Fabric, config: RepresentationConfig, batches: SliceBatches) -> None:
        self.fabric, self.config, self.batches = fabric, config, batches
        betas = guided_betas(config.schedule, config.timesteps)
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

    def batch(self, step: int, count: int) -> Batch:
        """This process's slices of a step."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, SLICES)
        return self.batches.draw(rng, count).to(self.fabric.device)

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:  # noqa: ARG002
        """One step of the network."""
        self.unet.train()
        config = self.config
        rounds = shares(self.fabric, stage.batch, config.hardware.microbatch)
        images = self.batch(step, sum(rounds)).images
        rng = random_generator(config.seed, self.fabric.global_rank, step, NOISE)
        times = torch.from_numpy(rng.integers(config.timesteps, size=sum(rounds)))
        noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
        facts: dict[str, Tensor | float] = {"mse": 0.0}
        for part, share, more in passes(rounds):
            x_0 = images[part]
            t, eps = times[part].to(x_0.device), noise[part].to(x_0.device)
            with self.fabric.no_backward_sync(self.network, enabled=more):
                mse = (self.network(self.schedule.q_sample(x_0, t, eps), t) - eps).square().mean()
                self.fabric.backward(mse * share)
            facts["mse"] = facts["mse"] + mse.detach() * share
        return facts | update(self.fabric, self.network, self.optimizer, config.optimizer.clip)

    @torch.no_grad()
    def picture(self) -> NDArray[np.float32]:
        """Fixed validation slices (first channel), and what the network makes of them in one step from noise."""
        count = min(PICTURE_SLICES, len(self.batches.validation))
        images = self.batches.first_validation(count).images.to(self.fabric.device)
        rng = random_generator(self.config.seed, 0, 0, PICTURE)
        noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
        noise = noise.to(images.device)
        self.unet.eval()
        rows = [images]
        for share in PICTURE_SHARES:
            number = int(share * self.config.timesteps)
            t = torch.full((count,), number, device=noise.device)
            x_t = self.schedule.q_sample(images, t, noise)
            rows += [x_t, predict_x_0(x_t, self.network(x_t, t).float(), number, self.schedule)]
        low, high = self.batches.intensity_range
        views = [np.concatenate(list(row[:, 0].float().cpu().numpy()), axis=1) for row in rows]
        return np.asarray((np.concatenate(views) - low) / (high - low), np.float32)


def open_batches(config: RepresentationConfig) -> SliceBatches:
    """The slices of a run; says what is leaked if test slices are among them.

    Raises:
        FileNotFoundError: if the set is missing or cannot be used.
        ValueError: likewise.
    """
    folder = config.data.folder
    train, validation = (read_slice_set(folder / split) for split in ("train", "validation"))
    if config.learn_from == "all":
        # Differs from sound practice, as published: the network has seen what it is tested on, if without labels.
        test = read_slice_set(folder / "test")
        logger.warning(
            "learning from all slices: %d test slices of %d patients are seen without their labels",
            len(test),
            len(test.patients),
        )
        train = joined_sets([train, validation, test])
    return SliceBatches(train, validation, config.data, both_kinds=False)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        REPRESENTATION_PRESETS, "python -m training.learning.representation", args
    )
    return run_program(config, RepresentationTraining, open_batches)


if __name__ == "__main__":
    raise SystemExit(main())
