"""What a training run of the anomaly networks is (see training/loop/config.py, whose parts it uses)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from training.loop.config import (
    Averaging,
    Hardware,
    Optimizer,
    Reporting,
    changeable,
    check_ranges,
    limited,
)


@dataclass(frozen=True)
class SliceData:
    """Which slices are learned from, and how they are varied.  Of their labels only healthy/diseased is read."""

    folder: Path = changeable(Path("runs/slices"))
    """Slice sets, written by `python -m training.data.slices`: its folders train and validation."""
    diseased_share: float = limited(0.0, 0, 1)
    """Share of diseased slices in a batch, on average; 0 draws all slices alike."""
    flip: float = limited(0.0, 0, 1)
    """Chance that a slice is mirrored left to right."""
    shift: int = limited(0, 0, 64, "pixels")
    """Slices are moved by up to so many pixels along both axes."""
    brightness: float = limited(0.0, 0, 1)
    """Values inside the organ are multiplied by 1 +- up to this."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class GuidedUNetSize:
    """Arguments of difftumor.networks.guided_unet.GuidedUNet; image size and channels are the slice set's."""

    base_channels: int = limited(128, 8, 1024)
    """Channels at the finest level."""
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """Channels of the levels, in units of base_channels."""
    res_blocks: int = limited(2, 1, 8)
    """Residual blocks per level."""
    attention_sizes: tuple[int, ...] = (16,)
    """Sizes of feature maps that get attention."""
    heads: int = limited(1, 1, 64)
    """Heads of each attention."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AnomalyDiffusionConfig:
    """A run of the diffusion network of anomaly detection."""

    run: Path = Path("runs/anomaly_diffusion")
    """Folder of the run; the same command resumes what is there."""
    seed: int = limited(1234, 0, 2**31)
    """Seed of weights, slices and noise."""
    samples: int = limited(800_000, 1, 10**12, "samples", lasting=False)
    """Length of the run."""
    batch: int = limited(10, 1, 65536, "slices", lasting=False)
    """Slices per step, all processes together."""
    timesteps: int = limited(1000, 2, 10000)
    """T of the linear schedule."""
    low_share: float = limited(0.0, 0, 1)
    """Share of the timesteps drawn below `low_limit`, where heat maps are made (published: 0)."""
    low_limit: int = limited(400, 1, 10000)
    """See `low_share`."""
    bound_weight: float = limited(1.0, 0, 1e6)
    """Weight of the variational bound that teaches the variance (published: 1). DDIM does not read it."""
    data: SliceData = field(default_factory=SliceData)
    network: GuidedUNetSize = field(default_factory=GuidedUNetSize)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, clip=0.0))
    averaging: Averaging = field(default_factory=lambda: Averaging(decay=0.9999, every=10, start=0))
    hardware: Hardware = field(default_factory=Hardware)
    reporting: Reporting = field(default_factory=Reporting)
    dry_run: bool = changeable(False)
    """Print the resolved configuration and stop."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """One stage; the size of slices is the slice set's (see training.loop.config.stage_at)."""
        return ((0, 0, self.batch),)


@dataclass(frozen=True)
class GuidedClassifierSize:
    """Arguments of difftumor.networks.guided_classifier.GuidedClassifier; the rest is the slice set's."""

    base_channels: int = limited(32, 8, 1024)
    """Channels at the finest level."""
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """Channels of the levels, in units of base_channels."""
    res_blocks: int = limited(4, 1, 8)
    """Residual blocks per level."""
    attention_sizes: tuple[int, ...] = (32, 16, 8)
    """Sizes of feature maps that get attention."""
    head_channels: int = limited(64, 1, 1024)
    """Channels of each head of attention; must divide the channels of the levels with attention."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AnomalyClassifierConfig:
    """A run of the classifier that guides the diffusion network."""

    run: Path = Path("runs/anomaly_classifier")
    """Folder of the run; the same command resumes what is there."""
    seed: int = limited(1234, 0, 2**31)
    """Seed of weights, slices and noise."""
    samples: int = limited(1_500_000, 1, 10**12, "samples", lasting=False)
    """Length of the run."""
    batch: int = limited(10, 1, 65536, "slices", lasting=False)
    """Slices per step, all processes together."""
    timesteps: int = limited(1000, 2, 10000)
    """T of the linear schedule; that of the diffusion network."""
    time_power: float = limited(1.0, 0.1, 10)
    """t = T u^power, u uniform in [0, 1): 1 as published, 3 spends most steps where a lesion can still be seen."""
    ramp: int = limited(0, 0, 10**12, "samples")
    """Samples over which the largest timestep rises linearly from `ramp_from` to T: lesions are learned where they
    are plain to see, then under noise (published: 0, all from the start)."""
    ramp_from: int = limited(20, 1, 10000)
    """See `ramp`."""
    weight_decay: float = limited(0.0, 0, 10)
    """Decoupled weight decay (AdamW; published: 0)."""
    data: SliceData = field(default_factory=SliceData)
    network: GuidedClassifierSize = field(default_factory=GuidedClassifierSize)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, clip=0.0))
    averaging: Averaging = field(default_factory=lambda: Averaging(every=0))
    hardware: Hardware = field(default_factory=Hardware)
    reporting: Reporting = field(default_factory=Reporting)
    dry_run: bool = changeable(False)
    """Print the resolved configuration and stop."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """One stage; the size of slices is the slice set's (see training.loop.config.stage_at)."""
        return ((0, 0, self.batch),)
