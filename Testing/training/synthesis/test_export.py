"""What was trained becomes a model folder that the program opens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difftumor.networks.latent_unet import LatentUNet
from difftumor.networks.vqgan import VQGAN
from difftumor.synthesis.generators import networks_from
from difftumor.weights.checkpoints import read_checkpoint
from difftumor.weights.folders import read_model_folder
from Testing.weight_filler import fill
from training.data.scans import cases_of
from training.loop.loop import train
from training.loop.runs import write_checkpoint_file
from training.synthesis import export
from training.synthesis.latent_diffusion import DiffusionTraining

CARD = Path(__file__).parents[3] / "training" / "synthesis" / "demonstration_card.json"


def test_exported_runs_are_a_valid_model_folder(diffusion_config, tmp_path: Path):
    config = replace(diffusion_config, samples=4)
    assert train(config, DiffusionTraining, cases_of)
    words = ["--out", str(tmp_path / "model"), "--card", str(CARD), "--diffusion", str(config.run)]
    assert export.main([*words, "--precision", "float16"]) == 0
    tensors, card = read_model_folder(tmp_path / "model")
    assert card["T"] == 4
    assert card["extra"]["training"]["samples"] == 4
    assert tensors["denoise_fn.init_conv.weight"].dtype == torch.float16
    assert tensors["betas"].dtype == torch.float32
    assert "vqgan.codebook.N" not in tensors
    codes = tensors["vqgan.codebook.embeddings"]
    assert (card["code_minimum"], card["code_maximum"]) == pytest.approx(
        (float(codes.min()), float(codes.max()))
    )
    assert export.main(words) == 1  # never over a folder that is there


def test_full_size_networks_open_in_the_program(tmp_path: Path):
    """The export of a stage 2 run of published size is read like a published file."""
    autoencoder, run = tmp_path / "stage1", tmp_path / "stage2"
    vqgan, unet = fill(VQGAN()), fill(LatentUNet(), "denoise_fn.")
    for folder, ema, config in (
        (autoencoder, vqgan.state_dict(), {"network": {}}),
        (
            run,
            unet.state_dict(),
            {"network": {"steps": 4}, "autoencoder": str(autoencoder), "seed": 0},
        ),
    ):
        folder.mkdir()
        write_checkpoint_file({"ema": ema, "samples": 1}, folder / "checkpoint.pt")
        (folder / "config.json").write_text(json.dumps(config))
    settings = export.Export(tmp_path / "model", CARD, run, precision="float16")
    export.export(settings)
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 18e6
    checkpoint = read_checkpoint(tmp_path / "model", expect="difftumor_diffusion")
    networks = networks_from(checkpoint.tensors, "model")
    assert networks.schedule.length == 4
    x = torch.rand(1, 1, 32, 32, 32) * 2 - 1
    with torch.inference_mode():
        # Half precision of the file: about three digits.
        assert torch.allclose(networks.vqgan.encode(x), vqgan.eval().encode(x), atol=0.05)
