"""What a training run of a segmenter is: DiffTumor's stage 3 (see training/loop/config.py, whose parts it uses).

Defaults are those of the published code (Chen et al., CVPR 2024): one crop of 96 mm per scan and epoch, 12 crops per
step, 2000 epochs of 211 scans.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from difftumor.fields import inherited, number, option
from training.loop.config import Checked, Optimizer, RunConfig, check_stages

Organ = Literal["liver", "pancreas", "kidney"]
Architecture = Literal["unet", "nnunet", "swinunetr"]
# Organ voxels that a crop of a healthy scan must exceed: those of a ball of this radius (mm).
HEALTHY_RADIUS_MM = {"liver": 30, "pancreas": 15, "kidney": 25}
SEEN_PER_EPOCH = 211


@dataclass(frozen=True)
class SegmentationData(Checked):
    """Scans with tumors, scans without, and which of them a run learns from."""

    organ: Organ = option(
        "liver",
        "Organ whose tumors are segmented; decides where tumors are put and how they are blended.",
    )
    datalist: Path | None = option(
        None, "Scans with labeled tumors (see training/data/datalists.py)."
    )
    healthy: Path | None = option(
        None, "Datalist of scans with the organ's mask and without tumors, for synthesis."
    )
    folds: int = number(
        5, 1, 100, "", "Into so many parts the patients are dealt; 1 holds nobody back."
    )
    fold: int = number(
        0, 0, 99, "", "Part that is held back for validation, with all scans of its patients."
    )
    phantoms: int = number(
        0, 0, 5000, "", "Generated phantoms with lesions in the organ, used beside the datalist."
    )
    healthy_phantoms: int = number(0, 0, 5000, "", "Generated phantoms without lesions.")
    phantom_tumors: int = number(
        4, 1, 40, "", "Most lesions of a phantom: the seed decides, 1 to this number."
    )
    validation_phantoms: int = number(
        0, 0, 200, "", "Phantoms of the validation seeds, used beside the held-back fold."
    )
    positive_share: float = number(
        *(0.5, 0, 1, ""),
        "Share of the crops centered on organ or tumor; the others on the rest of the body.",
    )
    tumor_share: float = number(
        *(0.0, 0, 1, ""),
        "Share of those that is centered on a tumor where there is one; 0: all labeled voxels "
        "alike (published).",
    )
    cache: Path = option(
        Path("runs/cache"),
        "Folder for resampled volumes, generated phantoms and stored crops.",
        lasting=False,
    )
    workers: int = number(
        *(2, 0, 64, ""),
        "Threads that prepare the crops of the next steps; 0 prepares them in between.",
        lasting=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold >= self.folds:
            raise ValueError(
                f"The folds are numbered 0 to {self.folds - 1}; got --data.fold {self.fold}."
            )


@dataclass(frozen=True)
class Synthesis(Checked):
    """How tumors come into the crops of healthy scans."""

    early: str | None = option(
        None,
        "What paints tiny and small tumors: model id, folder, published file, or 'modelled'; "
        "default: DiffTumor's early model of the source organ.",
    )
    late: str | None = option(
        None,
        "The same for medium and large tumors; default: DiffTumor's other model of the source "
        "organ.",
    )
    source: Organ | None = option(
        None,
        "Organ whose published models paint; default: the organ of the scans. Another one carries "
        "its tumors over.",
    )
    probability: float = number(0.5, 0, 1, "", "Share of the healthy scans' crops that get tumors.")
    sizes: tuple[float, float, float, float] = option(
        (0.4, 0.4, 0.1, 0.1), "Chances of tiny, small, medium and large tumors."
    )
    steps: int = number(50, 1, 200, "steps", "DDIM steps of models with T = 200.")
    feather: tuple[float, float] = option(
        (0.0, 4.0), "The rim's sigma is drawn between these (mm)."
    )
    window: int = number(
        *(0, 0, 512, "mm"),
        "Paint each tumor in a cube of this edge around it (a multiple of 32) instead of all in "
        "one pass over the whole crop, which is published but costs a processor more; 0: the "
        "whole crop.",
    )
    pool: int = number(
        *(0, 0, 10**6, "crops"),
        "Synthesize so many crops once and draw from them, where painting is too slow; 0 paints "
        "each anew (published).",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.sizes) < 0 or abs(sum(self.sizes) - 1) > 1e-6:
            raise ValueError(
                f"The four chances in --synthesis.sizes add up to 1; got {self.sizes}."
            )
        if not 0 <= self.feather[0] <= self.feather[1] <= 10:
            raise ValueError(f"--synthesis.feather rises within 0 to 10 mm; got {self.feather}.")
        if self.window % 32:
            raise ValueError(f"--synthesis.window is a multiple of 32; got {self.window}.")


@dataclass(frozen=True)
class Augmentation(Checked):
    """How crops are varied before tumors are synthesized in them (the paper's text: no mirroring, rotation 0.1)."""

    flip: float = number(0.2, 0, 1, "", "Chance of mirroring, for each axis.")
    rotate: float = number(
        0.2, 0, 1, "", "Chance of a turn by a multiple of 90 degrees about the S axis."
    )
    scale_probability: float = number(
        0.15, 0, 1, "", "Chance that values in [0, 1] are multiplied by 1 +- up to 0.1."
    )
    shift_probability: float = number(0.15, 0, 1, "", "Chance that up to +-0.1 is added.")


@dataclass(frozen=True)
class SegmenterSize:
    """Which network, see difftumor.networks.segmenters."""

    architecture: Architecture = option("unet", "MONAI U-Net, nnU-Net (DynUNet) or Swin UNETR.")
    channels: tuple[int, ...] | None = option(
        None, "Width of each level (Swin UNETR: of the first); default: as published."
    )

    @property
    def kind(self) -> str:
        """Name of the architecture in model cards."""
        return f"segmentation_{self.architecture}"


@dataclass(frozen=True)
class Validation(Checked):
    """Whole scans by sliding windows; the weights with the best tumor Dice are kept in the run as best.pt."""

    every: int = number(
        50 * SEEN_PER_EPOCH, 1, 10**12, "samples", "Samples between two validations.", lasting=False
    )
    overlap: float = number(0.5, 0, 0.9, "", "Share that neighboring windows have in common.")
    organ_only: bool = option(
        True,
        "Compute and compare inside the organ's mask only, as `difftumor segment --organ` does.",
    )


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(RunConfig):
    """A run of stage 3, a segmenter of tumors."""

    run: Path = inherited(RunConfig, "run", Path("runs/segmentation"))
    samples: int = inherited(RunConfig, "samples", 2000 * SEEN_PER_EPOCH)
    stages: tuple[tuple[int, int, int], ...] = option(
        ((0, 96, 12),),
        "Triples: from so many samples on, crops of this edge (mm) in batches of so many.",
        lasting=False,
    )
    spacing_mm: float = number(
        *(1.0, 0.5, 4, "mm"),
        "Voxel size that the network sees; crops are synthesized at 1 mm and carried to it.",
    )
    real_only: bool = option(
        False, "Learn from the scans with tumors only: no healthy scan, no synthesis."
    )
    synthetic_only: bool = option(
        False, "Learn from the healthy scans and synthesized tumors only."
    )
    weight_decay: float = number(1e-5, 0, 10, "", "Decoupled weight decay (AdamW).")
    batch_dice: bool = option(
        False,
        "The Dice loss of all crops of a pass together (as nnU-Net), in which false alarms in "
        "crops without tumor count; published: the mean over the crops, where only the "
        "cross-entropy sees them.",
        lasting=False,
    )
    network: SegmenterSize = SegmenterSize()
    data: SegmentationData = SegmentationData()
    synthesis: Synthesis = Synthesis()
    augmentation: Augmentation = Augmentation()
    validation: Validation = Validation()
    optimizer: Optimizer = Optimizer(
        lr=4e-4, warmup=100 * SEEN_PER_EPOCH, decay=1900 * SEEN_PER_EPOCH, clip=0.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.stages, multiple=1)
        if self.real_only and self.synthetic_only:
            raise ValueError("--real-only and --synthetic-only leave nothing to learn from.")
        for _, edge, _ in self.stages:
            voxels = edge / self.spacing_mm
            factor = self.size_factor
            # Twice the factor: instance norm needs more than one voxel at the coarsest level.
            if voxels != int(voxels) or int(voxels) % factor or voxels < 2 * factor:
                raise ValueError(
                    f"A crop of {edge} mm has {voxels:g} voxels of {self.spacing_mm:g} mm; this network needs a "
                    f"multiple of {factor}, at least {2 * factor}. Change --stages or --spacing-mm."
                )

    @property
    def size_factor(self) -> int:
        """What the sizes of a crop are multiples of (voxels)."""
        if self.network.architecture == "swinunetr":
            return 32
        return 2 ** (len(self.network.channels or range(5)) - 1)

    @property
    def window(self) -> int:
        """Voxels of the crop's edge at the end of the run, and of a window in use."""
        return int(self.stages[-1][1] / self.spacing_mm)
