"""What the runs of paper B are (Alshenoudy et al.; see training/loop/config.py, whose parts they use)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from difftumor.fields import inherited, number, option
from training.anomaly.config import GuidedUNetSize
from training.data.slice_batches import SliceData
from training.loop.config import Averaging, Checked, Optimizer, Reporting, RunConfig, SliceRun

PAPER_COUNTS = (10, 20, 30, 40, 50)
PAPER_SEEDS = (16, 42, 88, 128, 256)
PAPER_WEIGHTS = (0.1, 0.3, 0.3, 0.3)
PAPER_UNET = GuidedUNetSize(64, (1, 1, 2, 2, 4, 4), 3, (32,), 4)


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig(SliceRun):
    """A run of the diffusion model whose features are used; it sees no label at all."""

    run: Path = inherited(RunConfig, "run", Path("runs/representation"))
    samples: int = inherited(RunConfig, "samples", 12_800_000)
    batch: int = inherited(SliceRun, "batch", 32)
    timesteps: int = number(4000, 2, 10000, "", "T.")
    schedule: Literal["cosine", "linear"] = option("cosine", "Of the noise.")
    learn_from: Literal["train", "all"] = option(
        "train",
        "Slices of the training patients only, or (as published) also those that are tested on "
        "later.",
    )
    data: SliceData = SliceData()
    network: GuidedUNetSize = PAPER_UNET
    optimizer: Optimizer = Optimizer(lr=2e-4, clip=0.0)
    averaging: Averaging = Averaging(decay=0.995, every=32, start=0)


@dataclass(frozen=True)
class LabelledData(Checked):
    """Labeled slices: few to learn from, many to be measured on."""

    folder: Path = option(
        Path("runs/slices"),
        "Slice sets, written by `python -m training.data.slices`: its folders train and test (and "
        "validation).",
        lasting=False,
    )
    split: Literal["patients", "slices"] = option(
        "patients",
        "patients: labeled slices come from the set train, figures from the set test, no patient "
        "is in both. slices: as published, all are shuffled and dealt out: patients are in both; "
        "the run says how many.",
    )
    test: int = number(
        *(0, 0, 10**9, "slices"),
        "Most slices that are measured on; 0: all (slices: all that are not in the pool).",
    )
    pool: int = number(
        757, 1, 10**9, "slices", "Split by slices: how many the labeled ones are drawn from."
    )
    with_tumor: bool = option(
        False, "Draw the labeled slices only among those with tumor (published: among all)."
    )


@dataclass(frozen=True)
class Plateau(Checked):
    """Learning rate that falls when the training loss of an epoch no longer does; 1 switches it off."""

    factor: float = number(0.95, 0.01, 1, "", "What the rate is multiplied with.")
    patience: int = number(5, 0, 10**6, "epochs", "Epochs without a better loss before that.")
    least: float = number(1e-6, 0, 1, "", "Smallest rate.")


@dataclass(frozen=True, kw_only=True)
class FewLabelsRun(SliceRun):
    """Runs that fill a table: one for each number of labeled slices and each seed."""

    run: Path = option(
        Path("runs/few_labels"),
        "Folder of the table and of the runs; the same command resumes what is there.",
    )
    counts: tuple[int, ...] = option(PAPER_COUNTS, "Numbers of labeled slices.", lasting=False)
    seeds: tuple[int, ...] = option(
        PAPER_SEEDS,
        "Of the choice of the slices, the noise, the weights and the order.",
        lasting=False,
    )
    count: int = number(10, 1, 10**6, "slices", "Of one run; taken from `counts`.")
    seed: int = number(16, 0, 2**31, "", "Of one run; taken from `seeds`.")
    features: Path = option(
        Path("runs/representation"),
        "Diffusion model: run folder of training.learning.representation, or a model folder; its "
        "shape is that of a network that is fine-tuned.",
    )
    weights: tuple[float, ...] = option(
        PAPER_WEIGHTS, "Of the labels in the loss, background first."
    )
    data: LabelledData = LabelledData()
    plateau: Plateau = Plateau()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_table(self.counts, self.seeds)


@dataclass(frozen=True, kw_only=True)
class PixelClassifierConfig(FewLabelsRun):
    """Runs of pixel classifiers, one for each number of labeled slices and each seed."""

    run: Path = inherited(FewLabelsRun, "run", Path("runs/pixel_classifier"))
    blocks: tuple[int, ...] = option((16, 17, 18), "Its decoder blocks.")
    timesteps: tuple[int, ...] = option((200,), "Its timesteps.")
    members: int = number(
        1, 1, 64, "", "Classifiers that vote (published code: 1; Baranchuk et al.: 10)."
    )
    epochs: int = number(
        8, 1, 10**6, "epochs", "Passes over all pixels of the labeled slices.", lasting=False
    )
    batch: int = number(64, 2, 10**6, "pixels", "Pixels per step.")
    samples: int = number(
        1, 1, 10**15, "pixels", "Of one run; follows from the slices and `epochs`.", lasting=False
    )
    flip: float = number(
        0.5, 0, 1, "", "Chance that a labeled slice is mirrored before its features are taken."
    )
    optimizer: Optimizer = Optimizer(lr=1e-4, clip=0.0)
    reporting: Reporting = Reporting(stats=10**6, checkpoint=10**7, pictures=10**9)


@dataclass(frozen=True)
class Variations(Checked):
    """How labeled slices are varied while a whole network learns from them; chances and largest changes."""

    flip: float = number(0.2, 0, 1, "", "Mirrored left to right, and mirrored front to back.")
    rotate: float = number(0.2, 0, 1, "", "Turned by up to 30 degrees.")
    scale: float = number(
        0.1, 0, 1, "", "Made up to 10 % larger or smaller, and moved by up to 5 %."
    )
    gamma: float = number(0.2, 0, 1, "", "Values raised to a power of 0.5 to 1.25.")
    contrast: float = number(
        *(0.0, 0, 1, ""),
        "Each channel up to a quarter brighter or darker, with grain (not in the paper).",
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(FewLabelsRun):
    """Runs of whole networks on labeled slices, one for each number of them and each seed."""

    run: Path = inherited(FewLabelsRun, "run", Path("runs/finetune_denoiser"))
    begin: Literal["diffusion", "nothing"] = option(
        "diffusion",
        "diffusion: the weights of the noise predictor; nothing: random ones, slices without "
        "noise, all weights trained (a supervised network of the same shape, to compare with).",
    )
    timestep: int = number(
        *(100, 0, 9999, ""),
        "Noise level t of the slices and of the network (the paper's is not known).",
    )
    freeze_encoder: bool = option(
        True, "Input and middle blocks keep the weights of the diffusion model (published)."
    )
    epochs: int = number(250, 1, 10**6, "epochs", "Passes over all labeled slices.", lasting=False)
    batch: int = number(
        64, 1, 65536, "slices", "Slices per step; all labeled slices where these are fewer."
    )
    samples: int = number(
        1, 1, 10**15, "slices", "Of one run; follows from the slices and `epochs`.", lasting=False
    )
    variations: Variations = Variations()
    plateau: Plateau = Plateau(patience=10)
    optimizer: Optimizer = Optimizer(lr=1e-3, clip=0.0)
    reporting: Reporting = Reporting(stats=500, checkpoint=2_500, pictures=10**9)


def check_table(counts: tuple[int, ...], seeds: tuple[int, ...]) -> None:
    """Raise ValueError unless there are different numbers of slices and different seeds."""
    for name, values in (("counts", counts), ("seeds", seeds)):
        if not values or len(set(values)) < len(values) or min(values) < 0:
            raise ValueError(f"{name} must be different numbers of 0 or more; got {values}")
    if 0 in counts:
        raise ValueError("counts: nothing can be learned from 0 labeled slices")
