"""What the runs of paper B are (Alshenoudy et al.; see training/loop/config.py, whose parts they use)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from training.anomaly.config import GuidedUNetSize, SliceData
from training.loop.config import (
    Averaging,
    Hardware,
    Optimizer,
    Reporting,
    changeable,
    check_ranges,
    limited,
)

PAPER_COUNTS = (10, 20, 30, 40, 50)
PAPER_SEEDS = (16, 42, 88, 128, 256)
PAPER_WEIGHTS = (0.1, 0.3, 0.3, 0.3)
PAPER_UNET = GuidedUNetSize(64, (1, 1, 2, 2, 4, 4), 3, (32,), 4)


@dataclass(frozen=True)
class RepresentationConfig:
    """A run of the diffusion model whose features are used; it sees no label at all."""

    run: Path = Path("runs/representation")
    """Folder of the run; the same command resumes what is there."""
    seed: int = limited(1234, 0, 2**31)
    """Seed of weights, slices and noise."""
    samples: int = limited(12_800_000, 1, 10**12, "samples", lasting=False)
    """Length of the run."""
    batch: int = limited(32, 1, 65536, "slices", lasting=False)
    """Slices per step, all processes together."""
    timesteps: int = limited(4000, 2, 10000)
    """T."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Of the noise."""
    learn_from: Literal["train", "all"] = "train"
    """Slices of the training patients only, or (as published) also those that are tested on later."""
    data: SliceData = field(default_factory=SliceData)
    network: GuidedUNetSize = field(default_factory=lambda: PAPER_UNET)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=2e-4, clip=0.0))
    averaging: Averaging = field(default_factory=lambda: Averaging(decay=0.995, every=32, start=0))
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
class LabelledData:
    """Labelled slices: few to learn from, many to be measured on."""

    folder: Path = changeable(Path("runs/slices"))
    """Slice sets, written by `python -m training.data.slices`: its folders train and test (and validation)."""
    split: Literal["patients", "slices"] = "patients"
    """patients: labelled slices come from the set train, figures from the set test, no patient is in both.
    slices: as published, all are shuffled and dealt out: patients are in both; the run says how many."""
    test: int = limited(0, 0, 10**9, "slices")
    """Most slices that are measured on; 0: all (slices: all that are not in the pool)."""
    pool: int = limited(757, 1, 10**9, "slices")
    """Split by slices: how many the labelled ones are drawn from."""
    with_tumor: bool = False
    """Draw the labelled slices only among those with tumor (published: among all)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Plateau:
    """Learning rate that falls when the training loss of an epoch no longer does; 1 switches it off."""

    factor: float = limited(0.95, 0.01, 1)
    """What the rate is multiplied with."""
    patience: int = limited(5, 0, 10**6, "epochs")
    """Epochs without a better loss before that."""
    least: float = limited(1e-6, 0, 1)
    """Smallest rate."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class PixelClassifierConfig:
    """Runs of pixel classifiers, one for each number of labelled slices and each seed."""

    run: Path = Path("runs/pixel_classifier")
    """Folder of the table and of the runs; the same command resumes what is there."""
    counts: tuple[int, ...] = changeable(PAPER_COUNTS)
    """Numbers of labelled slices."""
    seeds: tuple[int, ...] = changeable(PAPER_SEEDS)
    """Of the choice of the slices, the noise, the weights and the order."""
    count: int = limited(10, 1, 10**6, "slices")
    """Of one run; taken from `counts`."""
    seed: int = limited(16, 0, 2**31)
    """Of one run; taken from `seeds`."""
    features: Path = Path("runs/representation")
    """Diffusion model: run folder of training.learning.representation, or a model folder."""
    blocks: tuple[int, ...] = (16, 17, 18)
    """Its decoder blocks."""
    timesteps: tuple[int, ...] = (200,)
    """Its timesteps."""
    members: int = limited(1, 1, 64)
    """Classifiers that vote (published code: 1; Baranchuk et al.: 10)."""
    epochs: int = limited(8, 1, 10**6, "epochs", lasting=False)
    """Passes over all pixels of the labelled slices."""
    batch: int = limited(64, 2, 10**6, "pixels")
    """Pixels per step."""
    samples: int = limited(1, 1, 10**15, "pixels", lasting=False)
    """Of one run; follows from the slices and `epochs`."""
    weights: tuple[float, ...] = PAPER_WEIGHTS
    """Of the labels in the loss, background first."""
    flip: float = limited(0.5, 0, 1)
    """Chance that a labelled slice is mirrored before its features are taken."""
    data: LabelledData = field(default_factory=LabelledData)
    plateau: Plateau = field(default_factory=Plateau)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, clip=0.0))
    averaging: Averaging = field(default_factory=lambda: Averaging(every=0))
    hardware: Hardware = field(default_factory=Hardware)
    reporting: Reporting = field(
        default_factory=lambda: Reporting(stats=10**6, checkpoint=10**7, pictures=10**9)
    )
    dry_run: bool = changeable(False)
    """Print the resolved configuration and stop."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_table(self.counts, self.seeds)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """One stage (see training.loop.config.stage_at)."""
        return ((0, 0, self.batch),)


@dataclass(frozen=True)
class Variations:
    """How labelled slices are varied while a whole network learns from them; chances and largest changes."""

    flip: float = limited(0.2, 0, 1)
    """Mirrored left to right, and mirrored front to back."""
    rotate: float = limited(0.2, 0, 1)
    """Turned by up to 30 degrees."""
    scale: float = limited(0.1, 0, 1)
    """Made up to 10 % larger or smaller, and moved by up to 5 %."""
    gamma: float = limited(0.2, 0, 1)
    """Values raised to a power of 0.5 to 1.25."""
    contrast: float = limited(0.0, 0, 1)
    """Each channel up to a quarter brighter or darker, with grain (not in the paper)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class FinetuneConfig:
    """Runs of whole networks on labelled slices, one for each number of them and each seed."""

    run: Path = Path("runs/finetune_denoiser")
    """Folder of the table and of the runs; the same command resumes what is there."""
    counts: tuple[int, ...] = changeable(PAPER_COUNTS)
    """Numbers of labelled slices."""
    seeds: tuple[int, ...] = changeable(PAPER_SEEDS)
    """Of the choice of the slices, the weights, the noise and the order."""
    count: int = limited(10, 1, 10**6, "slices")
    """Of one run; taken from `counts`."""
    seed: int = limited(16, 0, 2**31)
    """Of one run; taken from `seeds`."""
    begin: Literal["diffusion", "nothing"] = "diffusion"
    """diffusion: the weights of the noise predictor; nothing: random ones, slices without noise, all weights trained
    (a supervised network of the same shape, to compare with)."""
    features: Path = Path("runs/representation")
    """Diffusion model: run folder of training.learning.representation, or a model folder; also tells the shape."""
    timestep: int = limited(100, 0, 9999)
    """Noise level t of the slices and of the network (the paper's is not known)."""
    freeze_encoder: bool = True
    """Input and middle blocks keep the weights of the diffusion model (published)."""
    epochs: int = limited(250, 1, 10**6, "epochs", lasting=False)
    """Passes over all labelled slices."""
    batch: int = limited(64, 1, 65536, "slices")
    """Slices per step; all labelled slices where these are fewer."""
    samples: int = limited(1, 1, 10**15, "slices", lasting=False)
    """Of one run; follows from the slices and `epochs`."""
    weights: tuple[float, ...] = PAPER_WEIGHTS
    """Of the labels in the loss, background first."""
    data: LabelledData = field(default_factory=LabelledData)
    variations: Variations = field(default_factory=Variations)
    plateau: Plateau = field(default_factory=lambda: Plateau(patience=10))
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-3, clip=0.0))
    averaging: Averaging = field(default_factory=lambda: Averaging(every=0))
    hardware: Hardware = field(default_factory=Hardware)
    reporting: Reporting = field(
        default_factory=lambda: Reporting(stats=500, checkpoint=2_500, pictures=10**9)
    )
    dry_run: bool = changeable(False)
    """Print the resolved configuration and stop."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_table(self.counts, self.seeds)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """One stage; the size of slices is the slice set's (see training.loop.config.stage_at)."""
        return ((0, 0, self.batch),)


def check_table(counts: tuple[int, ...], seeds: tuple[int, ...]) -> None:
    """Raise ValueError unless there are different numbers of slices and different seeds."""
    for name, values in (("counts", counts), ("seeds", seeds)):
        if not values or len(set(values)) < len(values) or min(values) < 0:
            raise ValueError(f"{name} must be different numbers of 0 or more; got {values}")
    if 0 in counts:
        raise ValueError("counts: nothing can be learned from 0 labelled slices")
