"""Pixel classifiers on diffusion features, `python -m training.learning.pixel_classifier paper|demo|tiny`.

Alshenoudy et al., "Semi-supervised brain tumor segmentation using diffusion models": all pixels of a few labeled
slices, features of decoder blocks, weighted cross-entropy, Adam (AMSGrad).  One run for each number of slices and
each seed; see training/learning/few_labels.py.
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
from difftumor.learning.pixel_features import FeatureChoice, block_channels, pixel_features
from difftumor.networks.pixel_classifiers import PixelEnsemble
from training.learning.config import PixelClassifierConfig
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
from training.learning.presets import PIXEL_CLASSIFIER_PRESETS
from training.loop.config import Stage, read_command_line

FLIPS = 5200  # separates the draws of mirrored slices from others of the seed
SLICES_AT_ONCE = 8
PIXELS_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Pixels:
    """All pixels of the labeled slices.

    Attributes:
        features: float32 (N, F); N runs over slices, rows, columns.
        labels: int64 (N,).
        slices: as they were looked at, some of them mirrored.
        made_for: their format.
    """

    features: Tensor
    labels: Tensor
    slices: LabelledSlices
    made_for: SliceFormat


def choice_of(config: PixelClassifierConfig) -> FeatureChoice:
    """The features of a run; one noise for all slices, in training and later."""
    return FeatureChoice(config.blocks, config.timesteps, config.seed)


def features_of(
    images: NDArray[np.float32], source: DiffusionSource, choice: FeatureChoice, device: str
) -> Tensor:
    """Features of all pixels, float32 (n * H * W, F) on the CPU.

    Raises:
        ValueError: the network has no such block or timestep.
    """
    place = torch.device(device)
    unet, schedule = source.unet.to(place), source.schedule.to(device=place)
    parts = []
    for part in torch.from_numpy(images).split(SLICES_AT_ONCE):
        y = source.labels(len(part), place)
        found = pixel_features(unet, part.to(place), schedule, choice, y=y)
        parts.append(found.permute(0, 2, 3, 1).flatten(0, 2).cpu())
    return torch.cat(parts)


def prepare(config: PixelClassifierConfig, slices: LabelledSlices, made_for: SliceFormat) -> Pixels:
    """Look at the labeled slices with the diffusion model, once; some are mirrored first (as published)."""
    rng = np.random.default_rng([config.seed, FLIPS])
    mirrored = rng.random(len(slices)) < config.flip
    images, labels = slices.images.copy(), slices.labels.copy()
    images[mirrored], labels[mirrored] = images[mirrored][..., ::-1], labels[mirrored][..., ::-1]
    seen = LabelledSlices(images, labels, slices.patients)
    source = open_diffusion(config.features, made_for)
    features = features_of(images, source, choice_of(config), config.hardware.accelerator)
    return Pixels(features, torch.from_numpy(labels.astype(np.int64)).flatten(), seen, made_for)


def empty_ensemble(config: PixelClassifierConfig, features: int) -> PixelEnsemble:
    """The classifiers of a run before training."""
    generator = torch.Generator().manual_seed(config.seed)
    return PixelEnsemble(config.members, features, len(config.weights), generator=generator)


class PixelClassifierTraining:
    """The Program of the pixel classifiers (see training.loop.loop)."""

    averaged = "classifiers"

    def __init__(self, fabric: Fabric, config: PixelClassifierConfig, pixels: Pixels) -> None:
        self.fabric, self.config, self.pixels = fabric, config, pixels
        self.weights = class_weights(config.weights, pixels.slices.labels).to(fabric.device)
        self.features, self.labels = pixels.features, pixels.labels
        self.epochs = Epochs(len(self.labels), config.batch, config.seed, config.members)
        self.classifiers = empty_ensemble(config, self.features.shape[1])
        adam = config.optimizer
        optimizer = torch.optim.Adam(
            self.classifiers.parameters(), adam.lr, (adam.beta1, adam.beta2), amsgrad=True
        )
        self.network, self.optimizer = fabric.setup(self.classifiers, optimizer)
        self.plateau = PlateauRate(config.plateau, adam.lr)
        self.modules: dict[str, nn.Module] = {
            "classifiers": self.classifiers,
            "plateau": self.plateau,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {"classifiers": self.optimizer}

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:  # noqa: ARG002
        """One step of all classifiers, each on a batch of its own."""
        self.classifiers.train()
        epoch, rows = self.epochs.at(step)
        factor = self.plateau.begin(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        device = self.fabric.device
        chosen = torch.from_numpy(rows)
        logits = self.network(self.features[chosen].to(device))
        labels = self.labels[chosen].to(device)
        losses = [
            F.cross_entropy(each, truth, self.weights)
            for each, truth in zip(logits, labels, strict=True)
        ]
        self.fabric.backward(torch.stack(losses).sum())
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss = torch.stack(losses).mean().detach()
        self.plateau.add(float(loss))
        return {"loss": loss, "factor": factor}

    def picture(self) -> NDArray[np.float32]:
        """The first labeled slices, their labels, and what the classifiers say."""
        slices = self.pixels.slices
        count = min(4, len(slices))
        pixels = count * slices.labels[0].size
        found = vote(self.classifiers, self.features[:pixels]).reshape(slices.labels[:count].shape)
        return label_picture(
            slices.images[:count],
            slices.labels[:count],
            found,
            self.pixels.made_for,
            len(self.config.weights),
        )


def vote(classifiers: PixelEnsemble, features: Tensor) -> NDArray[np.uint8]:
    """The majority's label of each pixel."""
    classifiers.eval()
    device = classifiers.weights[0].device
    found = [classifiers.judge(part.to(device)).labels for part in features.split(PIXELS_AT_ONCE)]
    return torch.cat(found).cpu().numpy().astype(np.uint8)


def predictor(
    config: PixelClassifierConfig, weights: dict[str, dict[str, Tensor]], made_for: SliceFormat
) -> Predict:
    """What the trained classifiers make of slices."""
    source, choice = open_diffusion(config.features, made_for), choice_of(config)
    features = len(choice.timesteps) * sum(block_channels(source.unet, choice.blocks))
    classifiers = empty_ensemble(config, features)
    classifiers.load_state_dict(weights["classifiers"])
    device = config.hardware.accelerator
    classifiers = classifiers.to(device).eval()

    def predict(images: NDArray[np.float32]) -> NDArray[np.uint8]:
        found = vote(classifiers, features_of(images, source, choice, device))
        return found.reshape(len(images), *images.shape[-2:])

    return predict


METHOD = Method(
    units=lambda made_for: made_for.image_size**2,
    build=PixelClassifierTraining,
    prepare=prepare,
    predictor=predictor,
    saw_tests=lambda config: saw_tests(config.features),
)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        PIXEL_CLASSIFIER_PRESETS, "python -m training.learning.pixel_classifier", args
    )
    return run_table(config, METHOD)


if __name__ == "__main__":
    raise SystemExit(main())
