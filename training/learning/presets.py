"""Presets of the three programs of paper B, a row per purpose.

`paper` is Alshenoudy et al. as their code has it: BraTS 2021, slices 70, 75 ... 100, 128 pixels.  Draw them with
`python -m training.data.slices brats BraTS2021 runs/slices --slices 70 101 --rules.every 5 --rules.per-patient 7
--format.image-size 128 --format.spacing-mm 1.875 --format.scaled-by together --format.signed`.
"""

from __future__ import annotations

from pathlib import Path

from training.anomaly.config import GuidedUNetSize
from training.data.slice_batches import SliceData
from training.learning.config import (
    FinetuneConfig,
    LabelledData,
    PixelClassifierConfig,
    Plateau,
    RepresentationConfig,
    Variations,
)
from training.loop.config import Averaging, Hardware, Optimizer, Reporting

TINY_FOLDER = Path("runs/tiny_slices")

REPRESENTATION_PRESETS: dict[str, tuple[str, RepresentationConfig]] = {
    "paper": (
        "the published network: 400 000 steps of 32 slices, T = 4000, cosine schedule",
        RepresentationConfig(hardware=Hardware(accelerator="cuda")),
    ),
    "demo": (
        "a small network of the head phantoms, about an hour on two cores",
        RepresentationConfig(
            samples=28_000,
            batch=16,
            timesteps=1000,
            data=SliceData(flip=0.5, shift=2, brightness=0.02),
            network=GuidedUNetSize(32, (1, 1, 2, 2), 2, (6, 7)),
            optimizer=Optimizer(lr=6e-4, warmup=800, decay=27_200, clip=1.0),
            averaging=Averaging(decay=0.995, every=16, start=3_200),
            reporting=Reporting(stats=800, checkpoint=1_600, pictures=8_000),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        RepresentationConfig(
            run=Path("runs/tiny_representation"),
            samples=40,
            batch=2,
            timesteps=100,
            data=SliceData(folder=TINY_FOLDER),
            network=GuidedUNetSize(32, (1, 1), 1, (), 1),
            optimizer=Optimizer(lr=2e-3, warmup=4, decay=8, clip=1.0),
            averaging=Averaging(decay=0.9, every=4, start=8),
            reporting=Reporting(stats=2, checkpoint=20, pictures=20),
        ),
    ),
}

PIXEL_CLASSIFIER_PRESETS: dict[str, tuple[str, PixelClassifierConfig]] = {
    "paper": (
        "the published classifier: one, batches of 64 pixels, 8 epochs, blocks 16 to 18 at t = 200",
        PixelClassifierConfig(hardware=Hardware(accelerator="cuda")),
    ),
    "demo": (
        "ten that vote, on the small network: larger batches, a falling learning rate",
        PixelClassifierConfig(
            blocks=(8, 11),
            timesteps=(50,),
            members=10,
            epochs=12,
            batch=1024,
            plateau=Plateau(factor=1.0),
            optimizer=Optimizer(lr=3e-3, clip=0.0),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        PixelClassifierConfig(
            run=Path("runs/tiny_pixel_classifier"),
            counts=(2, 3),
            seeds=(16, 42),
            features=Path("runs/tiny_representation"),
            blocks=(1, 3),
            timesteps=(5, 20),
            members=2,
            epochs=3,
            data=LabelledData(folder=TINY_FOLDER),
            optimizer=Optimizer(lr=3e-3, clip=0.0),
            reporting=Reporting(stats=256, checkpoint=640, pictures=10**9),
        ),
    ),
}

FINETUNE_PRESETS: dict[str, tuple[str, FinetuneConfig]] = {
    "paper": (
        "the published fine-tuning: output blocks and a new head, noised slices",
        FinetuneConfig(hardware=Hardware(accelerator="cuda")),
    ),
    "demo": (
        "the same on the small network of the head phantoms",
        FinetuneConfig(epochs=200, batch=8, timestep=25),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        FinetuneConfig(
            run=Path("runs/tiny_finetune"),
            counts=(2, 3),
            seeds=(16, 42),
            features=Path("runs/tiny_representation"),
            timestep=5,
            epochs=10,
            batch=2,
            data=LabelledData(folder=TINY_FOLDER),
            variations=Variations(flip=0.5, rotate=0.5, scale=0.5, gamma=0.5),
            optimizer=Optimizer(lr=3e-3, clip=0.0),
            reporting=Reporting(stats=4, checkpoint=20, pictures=10**9),
        ),
    ),
}
