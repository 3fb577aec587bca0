"""Presets of the two programs of anomaly detection, a row per purpose.

`paper` is Wolleb et al., MICCAI 2022 (which Babaei et al. follow): the flags of the published code for BraTS slices of
256 pixels.  For slices of 128 pixels give `--network.channel-mult 1 1 2 3 4` and, for the classifier,
`--network.base-channels 64`: its width of 32 cannot be built at that size.
"""

from __future__ import annotations

from pathlib import Path

from training.anomaly.config import (
    AnomalyClassifierConfig,
    AnomalyDiffusionConfig,
    GuidedClassifierSize,
    GuidedUNetSize,
)
from training.data.slice_batches import SliceData
from training.loop.config import Averaging, Hardware, Optimizer, Reporting

TINY_SLICES = SliceData(folder=Path("runs/tiny_slices"), diseased_share=0.5)

ANOMALY_DIFFUSION_PRESETS: dict[str, tuple[str, AnomalyDiffusionConfig]] = {
    "paper": (
        "the published network: 80 000 steps of 10 slices, uniform timesteps, average of 0.9999",
        AnomalyDiffusionConfig(hardware=Hardware(accelerator="cuda")),
    ),
    "demo": (
        "the demonstration models: a small network, half of the timesteps below 400",
        AnomalyDiffusionConfig(
            samples=32_000,
            batch=16,
            low_share=0.5,
            bound_weight=0.01,
            data=SliceData(diseased_share=0.5, flip=0.5, shift=2, brightness=0.02),
            network=GuidedUNetSize(32, (1, 1, 2, 2), 2, (6, 7)),
            optimizer=Optimizer(lr=6e-4, warmup=800, decay=31_200, clip=1.0),
            averaging=Averaging(decay=0.995, every=16, start=3_200),
            reporting=Reporting(stats=800, checkpoint=1_600, pictures=8_000),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        AnomalyDiffusionConfig(
            run=Path("runs/tiny_anomaly_diffusion"),
            samples=40,
            batch=2,
            low_share=0.5,
            data=TINY_SLICES,
            network=GuidedUNetSize(32, (1, 1), 1, (), 1),
            optimizer=Optimizer(lr=2e-3, warmup=4, decay=8, clip=1.0),
            averaging=Averaging(decay=0.9, every=4, start=8),
            reporting=Reporting(stats=2, checkpoint=20, pictures=20),
        ),
    ),
}

ANOMALY_CLASSIFIER_PRESETS: dict[str, tuple[str, AnomalyClassifierConfig]] = {
    "paper": (
        "the published classifier: 150 000 steps of 10 noised slices",
        AnomalyClassifierConfig(hardware=Hardware(accelerator="cuda")),
    ),
    "demo": (
        "the demonstration models: a small network, most timesteps where a lesion can be seen",
        AnomalyClassifierConfig(
            samples=48_000,
            batch=24,
            time_power=3.0,
            ramp=24_000,
            weight_decay=0.05,
            data=SliceData(diseased_share=0.5, flip=0.5, shift=3, brightness=0.05),
            network=GuidedClassifierSize(32, (1, 2, 2, 4), 1, (6, 7), 64),
            optimizer=Optimizer(lr=6e-4, warmup=800, decay=47_200, clip=1.0),
            averaging=Averaging(decay=0.99, every=24, start=2_400),
            reporting=Reporting(stats=1_200, checkpoint=2_400, pictures=6_000),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        AnomalyClassifierConfig(
            run=Path("runs/tiny_anomaly_classifier"),
            samples=40,
            batch=2,
            time_power=3.0,
            data=TINY_SLICES,
            network=GuidedClassifierSize(32, (1, 2), 1, (), 32),
            optimizer=Optimizer(lr=2e-3, warmup=4, decay=8, clip=1.0),
            averaging=Averaging(decay=0.9, every=4, start=8),
            reporting=Reporting(stats=2, checkpoint=20, pictures=20),
        ),
    ),
}
