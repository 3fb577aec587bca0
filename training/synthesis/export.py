"""Write what was trained as a model folder that the program opens: `python -m training.synthesis.export --help`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from difftumor.diffusion.schedules import cosine_betas
from difftumor.networks.vqgan import VQGAN
from difftumor.weights.folders import write_model_folder
from training.loop.export_program import run_export
from training.loop.runs import CHECKPOINT_NAME, read_checkpoint_file
from training.synthesis.latents import load_autoencoder

# Buffers of the codebook that only training needs.
TRAINING_ONLY = ("codebook.N", "codebook.z_avg")


@dataclass(frozen=True)
class Export:
    """Model folder from the runs of both stages."""

    out: Path
    """Folder to write: model.safetensors and model.json."""
    card: Path
    """JSON with what the runs do not know: id, title, organs, license, citation, training_data ..."""
    diffusion: Path = Path("runs/latent_diffusion")
    """Run folder of stage 2."""
    autoencoder: Path | None = None
    """Run folder of stage 1; default: the one that stage 2 was trained with."""
    precision: Literal["float32", "float16"] = "float32"
    """Numbers in the file; float16 halves its size."""
    overwrite: bool = False
    """Replace a model folder that is there."""


def export(settings: Export) -> dict[str, Any]:
    """Write a synthesis model with averaged weights.

    Returns:
        its card as written.

    Raises:
        FileNotFoundError, RunError: if a run is missing or damaged.
        ModelError: if the card is not valid or the folder exists.
    """
    stored = read_checkpoint_file(settings.diffusion / CHECKPOINT_NAME)
    config = json.loads((settings.diffusion / "config.json").read_text(encoding="utf-8"))
    vqgan = load_autoencoder(settings.autoencoder or Path(config["autoencoder"]))
    tensors = synthesis_tensors(vqgan, stored["ema"], config["network"]["steps"])
    dtype = getattr(torch, settings.precision)
    # The schedule keeps its digits: 1 - 0.9999 would lose all of them.
    tensors = {
        key: value.to(dtype) if value.is_floating_point() and key != "betas" else value
        for key, value in tensors.items()
    }
    card = json.loads(settings.card.read_text(encoding="utf-8"))
    card.setdefault("extra", {})["training"] = {
        "samples": stored["samples"],
        "seed": config["seed"],
        "autoencoder_samples": _samples(settings.autoencoder or Path(config["autoencoder"])),
    }
    return write_model_folder(settings.out, tensors, card, overwrite=settings.overwrite)


def synthesis_tensors(vqgan: VQGAN, denoiser: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Tensors of a synthesis model under the names of the published files.

    Args:
        vqgan: autoencoder.
        denoiser: state dictionary of the latent U-Net.
        steps: T of the cosine schedule.
    """
    tensors = {
        f"vqgan.{key}": value
        for key, value in vqgan.state_dict().items()
        if key not in TRAINING_ONLY
    }
    tensors |= {f"denoise_fn.{key}": value for key, value in denoiser.items()}
    return tensors | {"betas": cosine_betas(steps).float()}


def _samples(path: Path) -> int | None:
    """Samples that a run of ours has seen; None for a published file."""
    if not path.is_dir():
        return None
    return int(read_checkpoint_file(path / CHECKPOINT_NAME)["samples"])


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return run_export(Export, export, "training.synthesis.export", args)


if __name__ == "__main__":
    raise SystemExit(main())
