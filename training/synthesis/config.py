"""What runs of stages 1 and 2 are (see training/loop/config.py, whose parts they use)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from difftumor.fields import inherited, number, option
from training.data.scans import Data
from training.loop.config import Averaging, Checked, Optimizer, RunConfig, check_stages


@dataclass(frozen=True)
class AutoencoderNetwork(Checked):
    """Arguments of difftumor.networks.vqgan.VQGAN."""

    hidden: int = number(16, 1, 1024, "", "Channels after the first convolution.")
    embedding_dim: int = number(8, 1, 1024, "", "Channels of the latent.")
    codes: int = number(16384, 2, 10**6, "", "Vectors in the codebook.")
    groups: int = number(32, 1, 1024, "", "Groups of the group norms.")


@dataclass(frozen=True)
class CodebookTraining(Checked):
    """How the quantizer learns."""

    start: int = number(
        *(0, 0, 10**12, "samples"),
        "Samples after which latents are quantized and the codes are set from them (published: 0).",
        lasting=False,
    )
    decay: float = number(0.99, 0, 1, "", "Moving average of counts and sums.")
    restart_below: float = number(
        *(1.0, 0, 1e9, ""),
        "A code used less often than this (moving count per step) is replaced by a vector of the "
        "batch.",
    )
    limit: float = number(
        *(0.0, 0, 1e9, ""),
        "Codes are kept within +-limit, so that the few extreme ones do not squeeze the "
        "normalized latent; 0: no limit (published).",
        lasting=False,
    )
    commitment: float = number(0.25, 0, 1e9, "", "Weight of the commitment loss.")
    noise: float = number(
        *(0.0, 0, 10, ""),
        "Before `start`: standard deviation of noise on the latent, standing in for the quantizer.",
    )
    shrink: float = number(
        *(0.0, 0, 10, ""),
        "Before `start`: weight of the mean square of the latent, which the noise would else let "
        "grow.",
    )


@dataclass(frozen=True)
class AutoencoderLosses(Checked):
    """Weights of the terms of stage 1; 0 leaves a term out."""

    l1: float = number(4.0, 0, 1e9, "", "Mean absolute difference.")
    mse: float = number(0.0, 0, 1e9, "", "Mean square difference (not in the paper).")
    perceptual: float = number(
        *(4.0, 0, 1e9, ""),
        "LPIPS on one axial, sagittal and coronal slice; needs `perceptual_weights`.",
    )
    perceptual_weights: Path | None = option(
        None,
        "VGG16 of ImageNet with the LPIPS weights, from the user; without it the term is left out.",
    )
    adversarial: float = number(
        1.0, 0, 1e9, "", "Generator term and hinge loss of the two discriminators."
    )
    features: float = number(4.0, 0, 1e9, "", "Matching of the discriminators' features.")
    discriminator_start: int = number(
        80_000, 0, 10**12, "samples", "Samples after which the discriminators join."
    )


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(RunConfig):
    """A run of stage 1, the autoencoder."""

    run: Path = inherited(RunConfig, "run", Path("runs/autoencoder"))
    samples: int = inherited(RunConfig, "samples", 3_200_000)
    stages: tuple[tuple[int, int, int], ...] = option(
        ((0, 96, 16),),
        "Triples: from so many samples on, crops of this edge (mm, a multiple of 4) in batches of "
        "so many.",
        lasting=False,
    )
    full_depth_from: int = number(
        *(0, 0, 10**12, "samples"),
        "Samples after which the decoder's residual blocks at full resolution join, which cost "
        "more than half of a step; they begin as the identity (published: 0).",
        lasting=False,
    )
    network: AutoencoderNetwork = AutoencoderNetwork()
    codebook: CodebookTraining = CodebookTraining()
    losses: AutoencoderLosses = AutoencoderLosses()
    data: Data = Data()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.stages, multiple=4)

    @property
    def leaves_weights_out(self) -> bool:
        """Whether the decoder's late blocks join later."""
        return self.full_depth_from > 0


@dataclass(frozen=True)
class DenoiserNetwork(Checked):
    """Arguments of difftumor.networks.latent_unet.LatentUNet, and its schedule."""

    dim: int = number(24, 8, 1024, "", "Channels at the finest level.")
    dim_mults: tuple[int, ...] = option((1, 2, 4, 8), "Channels of the levels, in units of dim.")
    steps: int = number(
        *(4, 1, 10000, ""),
        "Diffusion steps T of the cosine schedule: 4 (early tumors) or 200 (medium and large).",
    )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(RunConfig):
    """A run of stage 2, the latent diffusion model."""

    autoencoder: Path = option(
        Path("runs/autoencoder"), "Run folder of stage 1, or a published AutoencoderModel.ckpt."
    )
    run: Path = inherited(RunConfig, "run", Path("runs/latent_diffusion"))
    samples: int = inherited(RunConfig, "samples", 1_200_000)
    stages: tuple[tuple[int, int, int], ...] = option(
        ((0, 96, 20),),
        "Triples: from so many samples on, crops of this edge (mm, a multiple of 32) in batches "
        "of so many; with a pool, windows of its latents.",
        lasting=False,
    )
    pool: int = number(
        *(0, 0, 10**7, "crops"),
        "Encode this many crops once and train on windows of their latents; 0 encodes each crop "
        "anew.",
    )
    pool_edge: int = number(96, 32, 512, "mm", "Edge of the crops in the pool.")
    mask_weight: float = number(
        0.0, 0, 1e6, "", "Extra weight of the loss inside the tumor mask (not in the paper)."
    )
    own_states: float = number(
        *(0.0, 0, 1, ""),
        "Share of x_t made by the sampler's step from the denoiser's own x_0 at t + 1, not from "
        "the true one (not in the paper). With T = 4 a step multiplies the error of eps by 263: "
        "short training does not get it small enough, and the next step must cope with what "
        "comes.",
        lasting=False,
    )
    own_states_from: int = number(
        0, 0, 10**12, "samples", "Samples after which `own_states` holds.", lasting=False
    )
    network: DenoiserNetwork = DenoiserNetwork()
    data: Data = Data()
    optimizer: Optimizer = Optimizer(lr=1e-4, clip=0.0)
    averaging: Averaging = Averaging()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.stages, multiple=32)
