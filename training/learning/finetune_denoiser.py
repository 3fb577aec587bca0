"""A noise predictor fine-tuned into a segmenter, `python -m training.learning.finetune_denoiser paper|demo|tiny`.

Alshenoudy et al., "Semi-supervised brain tumor segmentation using diffusion models": the last layers of the diffusion
model become a new convolution, and its decoder (or all of it) learns from a few labeled slices with noise on them.
With --begin nothing a network of the same shape learns from the same slices without what the diffusion model knows.
One run for each number of slices and each seed; see training/learning/few_labels.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.anomaly.layout import SliceFormat
from difftumor.learning.pixel_features import fixed_noise
from difftumor.networks.guided_segmenter import GuidedSegmenter
from training.data.scans import random_generator
from training.data.slice_batches import memory_format
from training.learning.config import FinetuneConfig
from training.learning.diffusion_sources import DiffusionSource, open_diffusion, saw_tests
from training.learning.few_labels import (
    Epochs,
    Method,
    Predict,
    class_weights,
    label_picture,
    run_table,
)
from training.learning.labelled_slices import LabelledSlices
from training.learning.plateau import PlateauRate
from training.learning.presets import FINETUNE_PRESETS
from training.learning.slice_variations import vary
from training.loop.config import Stage, read_command_line
from training.loop.steps import update

VARIATION, NOISE = range(2)
SLICES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class FinetuneData:
    """Labeled slices, their format, and the diffusion model that is begun with."""

    slices: LabelledSlices
    made_for: SliceFormat
    source: DiffusionSource


def prepare(config: FinetuneConfig, slices: LabelledSlices, made_for: SliceFormat) -> FinetuneData:
    """Open the diffusion model; where nothing is taken from it, it tells the network's shape."""
    source = open_diffusion(config.features, made_for)
    if config.timestep >= source.schedule.length:
        raise ValueError(
            f"timestep must be 0 to {source.schedule.length - 1} for {config.features}, got {config.timestep}"
        )
    return FinetuneData(slices, made_for, source)


class Segmenter:
    """The network with the noise that it is used to.

    Args:
        config: of the run.
        source: the diffusion model.
        device: where it computes.
    """

    def __init__(
        self, config: FinetuneConfig, source: DiffusionSource, device: torch.device
    ) -> None:
        self.config, self.source, self.device = config, source, device
        self.noised = config.begin == "diffusion"
        torch.manual_seed(config.seed)
        self.network = GuidedSegmenter(
            source.unet.arguments,
            len(config.weights),
            freeze_encoder=self.noised and config.freeze_encoder,
        )
        if self.noised:
            self.network.begin_with(source.unet)
        if self.network.freeze_encoder:
            for part in (self.network.input_blocks, self.network.middle_block):
                part.requires_grad_(False)
        self.network.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
        self.schedule = source.schedule.to(device=device)

    def inputs(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Noised slices x_t, their timesteps and class labels; without a diffusion model x_0 at t = 0."""
        x = images.to(self.device)
        t = torch.full((len(x),), self.config.timestep if self.noised else 0, device=self.device)
        if self.noised:
            x = self.schedule.q_sample(x, t, noise.to(self.device).expand_as(x))
        return x, t, self.source.labels(len(x), self.device)

    @torch.no_grad()
    def labels(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Labels of slices (n, H, W); one noise for all slices, so they are the same each time."""
        self.network.eval()
        noise = fixed_noise(self.config.seed, images.shape[1:])
        found = [
            self.network(*self.inputs(part, noise)).argmax(1)
            for part in torch.from_numpy(images).split(SLICES_AT_ONCE)
        ]
        return torch.cat(found).cpu().numpy().astype(np.uint8)


class FinetuneTraining:
    """The Program of the fine-tuned network (see training.loop.loop)."""

    averaged = "segmenter"

    def __init__(self, fabric: Fabric, config: FinetuneConfig, data: FinetuneData) -> None:
        self.fabric, self.config, self.data = fabric, config, data
        self.segmenter = Segmenter(config, data.source, fabric.device)
        self.weights = class_weights(config.weights, data.slices.labels).to(fabric.device)
        self.epochs = Epochs(len(data.slices), config.batch, config.seed)
        adam = config.optimizer
        optimizer = torch.optim.Adam(
            [p for p in self.segmenter.network.parameters() if p.requires_grad],
            adam.lr,
            (adam.beta1, adam.beta2),
            amsgrad=True,
        )
        self.network, self.optimizer = fabric.setup(self.segmenter.network, optimizer)
        self.plateau = PlateauRate(config.plateau, adam.lr)
        self.modules: dict[str, nn.Module] = {
            "segmenter": self.segmenter.network,
            "plateau": self.plateau,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {"segmenter": self.optimizer}

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:  # noqa: ARG002
        """One step of the network."""
        config, slices = self.config, self.data.slices
        self.segmenter.network.train()
        epoch, rows = self.epochs.at(step)
        factor = self.plateau.begin(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        varied, noises = (
            random_generator(config.seed, 0, step, purpose) for purpose in (VARIATION, NOISE)
        )
        images, labels = vary(
            slices.images[rows[0]],
            slices.labels[rows[0]],
            config.variations,
            varied,
            self.data.made_for.intensity_range,
        )
        noise = torch.from_numpy(noises.standard_normal(tuple(images.shape), dtype=np.float32))
        logits = self.network(*self.segmenter.inputs(images, noise))
        loss = F.cross_entropy(logits, labels.to(logits.device), self.weights)
        self.fabric.backward(loss)
        update(self.fabric, self.network, self.optimizer, config.optimizer.clip)
        self.plateau.add(float(loss.detach()))
        return {"loss": loss.detach(), "factor": factor}

    def picture(self) -> NDArray[np.float32]:
        """The first labeled slices, their labels, and what the network says."""
        slices = self.data.slices
        count = min(4, len(slices))
        return label_picture(
            slices.images[:count],
            slices.labels[:count],
            self.segmenter.labels(slices.images[:count]),
            self.data.made_for,
            len(self.config.weights),
        )


def predictor(
    config: FinetuneConfig, weights: dict[str, dict[str, Tensor]], made_for: SliceFormat
) -> Predict:
    """What the trained network makes of slices."""
    source = open_diffusion(config.features, made_for)
    segmenter = Segmenter(config, source, torch.device(config.hardware.accelerator))
    segmenter.network.load_state_dict(weights["segmenter"])
    return segmenter.labels


METHOD = Method(
    units=lambda _: 1,
    build=FinetuneTraining,
    prepare=prepare,
    predictor=predictor,
    saw_tests=lambda config: config.begin == "diffusion" and saw_tests(config.features),
)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        FINETUNE_PRESETS, "python -m training.learning.finetune_denoiser", args
    )
    return run_table(config, METHOD)


if __name__ == "__main__":
    raise SystemExit(main())
