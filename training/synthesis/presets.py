"""The tables of presets: one per program, a row per purpose.

The paper is Chen et al., "Towards Generalizable Tumor Synthesis", CVPR 2024; where its text and its published code
differ the presets follow the text, and a comment "code:" says what the code does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.data.scans import Data
from training.loop.config import Averaging, Hardware, Optimizer, Reporting
from training.synthesis.config import (
    AutoencoderConfig,
    AutoencoderLosses,
    AutoencoderNetwork,
    CodebookTraining,
    DenoiserNetwork,
    DiffusionConfig,
)

DEMO_DATA = Data(
    datalist=Path("training/synthesis/demonstration.json"),
    phantoms=26,
    phantom_tumors=15,
    phantom_share=0.8,
    positive_share=0.5,
    rotate_probability=0.3,
)
TINY_DATA = Data(phantoms=1, phantom_tumors=3, positive_share=0.5, rotate_probability=0.5)

AUTOENCODER_PRESETS: dict[str, tuple[str, AutoencoderConfig]] = {
    "paper": (
        "the published model: 9 262 CTs, 200 000 steps of 4 crops on each of 4 devices",
        AutoencoderConfig(
            # code: 80 000 steps of 2 x 2 crops
            samples=200_000 * 16,
            stages=((0, 96, 16),),
            # code: betas (0.5, 0.9), lr 1.875e-5 after scaling, x 0.1 at 40 000, 50 000 and 60 000 steps
            optimizer=Optimizer(lr=3e-4, beta1=0.9, beta2=0.999, clip=1.0),
            # code: from "global step" 10 000 on, which counts both optimizers: 5 000 batches
            losses=AutoencoderLosses(discriminator_start=5_000 * 16),
            hardware=Hardware(accelerator="cuda", devices=4, precision="bf16-mixed"),
        ),
    ),
    "demo": (
        "the demonstration model: full network, phantoms and two public CTs, 40 minutes of two shared cores",
        AutoencoderConfig(
            samples=6_900,
            stages=((0, 32, 2), (6_600, 48, 2)),
            full_depth_from=3_000,
            codebook=CodebookTraining(
                start=4_000, restart_below=0.01, limit=6.0, noise=0.2, shrink=1e-3
            ),
            losses=AutoencoderLosses(l1=4.0, mse=4.0, perceptual=0, adversarial=0, features=0),
            data=DEMO_DATA,
            optimizer=Optimizer(lr=1e-3, warmup=200, decay=1_400, clip=1.0),
            averaging=Averaging(decay=0.98, every=10, start=1_000),
            hardware=Hardware(precision="bf16-mixed"),
            reporting=Reporting(stats=50, checkpoint=200, pictures=400),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        AutoencoderConfig(
            run=Path("runs/tiny_autoencoder"),
            samples=40,
            stages=((0, 16, 2),),
            network=AutoencoderNetwork(hidden=4, embedding_dim=4, codes=32, groups=4),
            codebook=CodebookTraining(start=20, restart_below=0.05, noise=0.1, shrink=1e-3),
            losses=AutoencoderLosses(l1=4.0, perceptual=0, adversarial=0, features=0),
            data=TINY_DATA,
            optimizer=Optimizer(lr=2e-3, warmup=4, decay=8),
            averaging=Averaging(decay=0.9, every=4, start=8),
            reporting=Reporting(stats=2, checkpoint=20, pictures=20),
        ),
    ),
}

DIFFUSION_PRESETS: dict[str, tuple[str, DiffusionConfig]] = {
    "paper": (
        "the published early-tumor model (T = 4): 10 crops per device, early tumors only",
        DiffusionConfig(
            # code: 60 000 steps of 10 crops of one scan, gradients of two added
            samples=60_000 * 20,
            stages=((0, 96, 20),),
            data=Data(early_only=True),
            hardware=Hardware(accelerator="cuda", devices=2),
        ),
    ),
    "paper200": (
        "the published model for medium and large tumors (T = 200)",
        DiffusionConfig(
            run=Path("runs/latent_diffusion_200"),
            samples=60_000 * 20,
            stages=((0, 96, 20),),
            network=DenoiserNetwork(steps=200),
            # code: labels with the early tumors taken out, which are a download; here all tumors stay
            hardware=Hardware(accelerator="cuda", devices=2),
        ),
    ),
    "demo": (
        "the demonstration model: full network, T = 4, phantoms' lesions of all organs",
        DiffusionConfig(
            samples=19_482,
            stages=(
                *((0, 32, 8), (12_000, 64, 4), (14_800, 96, 2)),
                *((14_950, 32, 8), (19_000, 64, 4)),
            ),
            own_states=0.8,
            own_states_from=14_950,
            pool=400,
            mask_weight=10.0,
            data=replace(DEMO_DATA, datalist=None, phantoms=24, phantom_tumors=18),
            optimizer=Optimizer(lr=1e-3, warmup=800, decay=3_000, clip=1.0),
            averaging=Averaging(decay=0.97, every=40, start=2_000),
            # bfloat16 on the CPU gives gradients that are not finite in the smallest convolutions (torch 2.13)
            reporting=Reporting(stats=160, checkpoint=800, pictures=1_600),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        DiffusionConfig(
            autoencoder=Path("runs/tiny_autoencoder"),
            run=Path("runs/tiny_latent_diffusion"),
            samples=40,
            stages=((0, 32, 2),),
            network=DenoiserNetwork(dim=8, dim_mults=(1, 2), steps=4),
            data=TINY_DATA,
            optimizer=Optimizer(lr=2e-3, warmup=4, decay=8, clip=1.0),
            averaging=Averaging(decay=0.9, every=4, start=8),
            reporting=Reporting(stats=2, checkpoint=20, pictures=20),
        ),
    ),
}
