"""The classifier that guides anomaly detection, `python -m training.anomaly.classifier paper|demo|tiny`.

Wolleb et al., MICCAI 2022: healthy or diseased, told from a noised slice x_t and t; cross-entropy.  Its gradient
pulls the denoised slice towards healthy, and its answer at t = 0 is the confidence that the reports show.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.diffusion.schedules import Schedule, linear_betas
from difftumor.networks.guided_classifier import GuidedClassifier, GuidedClassifierArguments
from training.anomaly.config import AnomalyClassifierConfig, GuidedClassifierSize
from training.anomaly.presets import ANOMALY_CLASSIFIER_PRESETS
from training.data.scans import random_generator
from training.data.slice_batches import Batch, SliceBatches, memory_format, open_batches
from training.loop.config import Stage, read_command_line
from training.loop.loop import run_program
from training.loop.measures import auroc
from training.loop.steps import passes, shares, update

SLICES, NOISE, PICTURE = range(3)
PICTURE_SLICES = 8
VALIDATION_TIMES = (0, 50, 100, 200)
VALIDATION_BATCH = 64

logger = logging.getLogger(__name__)


def network_arguments(
    size: GuidedClassifierSize, image_size: int, channels: int
) -> GuidedClassifierArguments:
    """Arguments of the classifier for slices of a set."""
    return GuidedClassifierArguments(
        image_size=image_size,
        in_channels=channels,
        base_channels=size.base_channels,
        channel_mult=size.channel_mult,
        res_blocks=size.res_blocks,
        attention_sizes=size.attention_sizes,
        head_channels=size.head_channels,
    )


def draw_times(
    rng: np.random.Generator, count: int, length: float, power: float
) -> NDArray[np.int64]:
    """Timesteps of a batch: t = floor(length u^power), int64 (count,), 0 <= t < length."""
    times = np.floor(length * rng.random(count) ** power)
    return np.minimum(times, np.ceil(length) - 1).astype(np.int64)


def length_at(config: AnomalyClassifierConfig, seen: int) -> float:
    """Timesteps are drawn below this after `seen` samples."""
    if seen >= config.ramp:
        return config.timesteps
    start = min(config.ramp_from, config.timesteps)
    return start + (config.timesteps - start) * seen / config.ramp


class AnomalyClassifierTraining:
    """The Program of the classifier (see training.loop.loop)."""

    averaged = "classifier"

    def __init__(
        self, fabric: Fabric, config: AnomalyClassifierConfig, batches: SliceBatches
    ) -> None:
        self.fabric, self.config, self.batches = fabric, config, batches
        betas = linear_betas(config.timesteps)
        self.schedule = Schedule.from_betas(betas).to(device=fabric.device)
        arguments = network_arguments(config.network, batches.image_size, batches.channels)
        self.classifier = GuidedClassifier(arguments)
        # The types of torch do not know that a module takes a memory format.
        self.classifier.to(memory_format=memory_format(fabric.device))  # type: ignore[call-overload]
        adam = config.optimizer
        optimizer = torch.optim.AdamW(
            self.classifier.parameters(),
            adam.lr,
            betas=(adam.beta1, adam.beta2),
            weight_decay=config.weight_decay,
        )
        self.network, self.optimizer = fabric.setup(self.classifier, optimizer)
        self.modules: dict[str, nn.Module] = {"classifier": self.classifier}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"classifier": self.optimizer}

    def batch(self, step: int, count: int, purpose: int = SLICES) -> Batch:
        """This process's slices of a step."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, purpose)
        return self.batches.draw(rng, count).to(self.fabric.device)

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:
        """One step of the classifier."""
        self.classifier.train()
        config = self.config
        rounds = shares(self.fabric, stage.batch, config.hardware.microbatch)
        batch = self.batch(step, sum(rounds))
        rng = random_generator(config.seed, self.fabric.global_rank, step, NOISE)
        length = length_at(config, seen)
        times = torch.from_numpy(draw_times(rng, sum(rounds), length, config.time_power))
        noise = torch.from_numpy(rng.standard_normal(tuple(batch.images.shape), dtype=np.float32))
        facts: dict[str, Tensor | float] = {"loss": 0.0, "right": 0.0}
        for part, share, more in passes(rounds):
            x_0, y = batch.images[part], batch.diseased[part]
            t, eps = times[part].to(x_0.device), noise[part].to(x_0.device)
            with self.fabric.no_backward_sync(self.network, enabled=more):
                logits = self.network(self.schedule.q_sample(x_0, t, eps), t).float()
                loss = F.cross_entropy(logits, y)
                self.fabric.backward(loss * share)
            right = (logits.argmax(1) == y).float().mean()
            facts["loss"] = facts["loss"] + loss.detach() * share
            facts["right"] = facts["right"] + right * share
        return facts | update(self.fabric, self.network, self.optimizer, config.optimizer.clip)

    def picture(self) -> NDArray[np.float32]:
        """Fixed validation slices (first channel) over the size of the gradient; logs the AUROC at some t."""
        self.classifier.eval()
        for step in VALIDATION_TIMES:
            logger.info("validation AUROC at t = %d: %.3f", step, self.validation_auroc(step))
        count = min(PICTURE_SLICES, len(self.batches.validation))
        batch = self.batches.first_validation(count).to(self.fabric.device)
        images = batch.images.clone().requires_grad_(True)
        t = torch.zeros(count, dtype=torch.int64, device=images.device)
        score = F.log_softmax(self.classifier(images, t).float(), dim=1)[:, 0].sum()
        gradient = torch.autograd.grad(score, images)[0][:, 0].abs()
        gradient = gradient / gradient.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        low, high = self.batches.intensity_range
        shown = (batch.images[:, 0] - low) / (high - low)
        rows = [np.concatenate(list(row.cpu().numpy()), axis=1) for row in (shown, gradient)]
        return np.concatenate(rows)

    @torch.no_grad()
    def validation_auroc(self, t: int) -> float:
        """Area under the curve of p(diseased) on noised validation slices; nan where there is one class only."""
        scores, truth = [], []
        for start in range(0, len(self.batches.validation), VALIDATION_BATCH):
            batch = self.batches.some_validation(start, VALIDATION_BATCH).to(self.fabric.device)
            rng = random_generator(self.config.seed, 0, start, PICTURE)
            noise = rng.standard_normal(tuple(batch.images.shape), dtype=np.float32)
            times = torch.full((len(batch.images),), min(t, self.config.timesteps - 1))
            times = times.to(batch.images.device)
            x_t = batch.images
            if t:
                eps = torch.from_numpy(noise).to(x_t.device)
                x_t = self.schedule.q_sample(x_t, times, eps)
            logits = self.classifier(x_t, times).float()
            scores.append((logits[:, 1] - logits[:, 0]).cpu())
            truth.append(batch.diseased.cpu())
        return auroc(torch.cat(truth).numpy() > 0, torch.cat(scores).numpy())


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        ANOMALY_CLASSIFIER_PRESETS, "python -m training.anomaly.classifier", args
    )
    return run_program(config, AnomalyClassifierTraining, open_batches)


if __name__ == "__main__":
    raise SystemExit(main())
