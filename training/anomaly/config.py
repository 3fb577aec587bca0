"""What a training run of the anomaly networks is (see training/loop/config.py, whose parts it uses)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difftumor.fields import inherited, number, option
from training.data.slice_batches import SliceData
from training.loop.config import Averaging, Checked, Optimizer, RunConfig, SliceRun


@dataclass(frozen=True)
class GuidedUNetSize(Checked):
    """Arguments of difftumor.networks.guided_unet.GuidedUNet; image size and channels are the slice set's."""

    base_channels: int = number(128, 8, 1024, "", "Channels at the finest level.")
    channel_mult: tuple[int, ...] = option(
        (1, 1, 2, 2, 4, 4), "Channels of the levels, in units of base_channels."
    )
    res_blocks: int = number(2, 1, 8, "", "Residual blocks per level.")
    attention_sizes: tuple[int, ...] = option((16,), "Sizes of feature maps that get attention.")
    heads: int = number(1, 1, 64, "", "Heads of each attention.")


@dataclass(frozen=True, kw_only=True)
class AnomalyDiffusionConfig(SliceRun):
    """A run of the diffusion network of anomaly detection."""

    run: Path = inherited(RunConfig, "run", Path("runs/anomaly_diffusion"))
    samples: int = inherited(RunConfig, "samples", 800_000)
    timesteps: int = number(1000, 2, 10000, "", "T of the linear schedule.")
    low_share: float = number(
        *(0.0, 0, 1, ""),
        "Share of the timesteps drawn below `low_limit`, where heat maps are made (published: 0).",
    )
    low_limit: int = number(400, 1, 10000, "", "See `low_share`.")
    bound_weight: float = number(
        *(1.0, 0, 1e6, ""),
        "Weight of the variational bound that teaches the variance (published: 1). DDIM does not "
        "read it.",
    )
    data: SliceData = SliceData()
    network: GuidedUNetSize = GuidedUNetSize()
    optimizer: Optimizer = Optimizer(lr=1e-4, clip=0.0)
    averaging: Averaging = Averaging(decay=0.9999, every=10, start=0)


@dataclass(frozen=True)
class GuidedClassifierSize(Checked):
    """Arguments of difftumor.networks.guided_classifier.GuidedClassifier; the rest is the slice set's."""

    base_channels: int = number(32, 8, 1024, "", "Channels at the finest level.")
    channel_mult: tuple[int, ...] = option(
        (1, 1, 2, 2, 4, 4), "Channels of the levels, in units of base_channels."
    )
    res_blocks: int = number(4, 1, 8, "", "Residual blocks per level.")
    attention_sizes: tuple[int, ...] = option(
        (32, 16, 8), "Sizes of feature maps that get attention."
    )
    head_channels: int = number(
        *(64, 1, 1024, ""),
        "Channels of each head of attention; must divide the channels of the levels with "
        "attention.",
    )


@dataclass(frozen=True, kw_only=True)
class AnomalyClassifierConfig(SliceRun):
    """A run of the classifier that guides the diffusion network."""

    run: Path = inherited(RunConfig, "run", Path("runs/anomaly_classifier"))
    samples: int = inherited(RunConfig, "samples", 1_500_000)
    timesteps: int = number(
        1000, 2, 10000, "", "T of the linear schedule; that of the diffusion network."
    )
    time_power: float = number(
        *(1.0, 0.1, 10, ""),
        "t = T u^power, u uniform in [0, 1): 1 as published, 3 spends most steps where a lesion "
        "can still be seen.",
    )
    ramp: int = number(
        *(0, 0, 10**12, "samples"),
        "Samples over which the largest timestep rises linearly from `ramp_from` to T: lesions "
        "are learned where they are plain to see, then under noise (published: 0, all from the "
        "start).",
    )
    ramp_from: int = number(20, 1, 10000, "", "See `ramp`.")
    weight_decay: float = number(0.0, 0, 10, "", "Decoupled weight decay (AdamW; published: 0).")
    data: SliceData = SliceData()
    network: GuidedClassifierSize = GuidedClassifierSize()
    optimizer: Optimizer = Optimizer(lr=1e-4, clip=0.0)
