"""The two training programs with preset `tiny`: they learn, stop, resume, and run in two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from difftumor.diffusion.sampling import predict_x_0
from training.data.scans import cases_of
from training.loop.config import Averaging, Optimizer
from training.loop.loop import train
from training.loop.runs import RunError
from training.synthesis.autoencoder import AutoencoderTraining
from training.synthesis.config import AutoencoderConfig, CodebookTraining, DiffusionConfig
from training.synthesis.latent_diffusion import DiffusionTraining

ROOT = Path(__file__).resolve().parents[3]


def checkpoint(config) -> dict:
    return torch.load(config.run / "checkpoint.pt", weights_only=True)


def stats(config) -> list[dict]:
    return [json.loads(line) for line in (config.run / "stats.jsonl").read_text().splitlines()]


def assert_same(a, b, path: str = "") -> None:
    """Equal bit for bit, all the way down."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{number}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def stopping(program: type, after: int) -> type:
    """The program, but the process gets a SIGTERM in the middle of a step."""

    class Stopped(program):
        def step(self, seen, step, stage):
            if step == after - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(seen, step, stage)

    return Stopped


def test_autoencoder_loss_falls_on_one_sample(autoencoder_config: AutoencoderConfig, monkeypatch):
    config = replace(
        autoencoder_config, samples=80, optimizer=Optimizer(lr=3e-3), averaging=Averaging(every=0)
    )
    config = replace(config, codebook=CodebookTraining(start=60, restart_below=0.05))
    first = {}

    def same_crop(self, step, count, edge, purpose=0):
        crops = original(self, 0, count, edge, purpose)
        return first.setdefault((count, edge, purpose), crops)

    original = AutoencoderTraining.crops
    monkeypatch.setattr(AutoencoderTraining, "crops", same_crop)
    assert train(config, AutoencoderTraining, cases_of)
    losses = [row["l1"] for row in stats(config)]
    assert losses[29] < 0.5 * losses[0]
    assert losses[-1] < losses[0]  # also with the quantizer


def test_diffusion_loss_falls_on_one_sample(diffusion_config: DiffusionConfig, monkeypatch):
    config = replace(diffusion_config, samples=40, optimizer=Optimizer(lr=3e-3))
    original = DiffusionTraining.pairs
    monkeypatch.setattr(
        DiffusionTraining,
        "pairs",
        lambda self, _, count, edge, p=0: original(self, 0, count, edge, p),
    )
    assert train(config, DiffusionTraining, cases_of)
    losses = [row["loss"] for row in stats(config)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_resumed_autoencoder_equals_the_straight_run(
    autoencoder_config: AutoencoderConfig, tmp_path: Path
):
    """10 + 10 steps are 20 steps bit for bit, codebook, averages and optimizer included."""
    straight = replace(autoencoder_config, run=tmp_path / "straight")
    assert train(straight, AutoencoderTraining, cases_of)
    config = autoencoder_config
    assert not train(config, stopping(AutoencoderTraining, 10), cases_of)
    assert checkpoint(config)["step"] == 10
    assert train(config, AutoencoderTraining, cases_of)
    assert checkpoint(config)["step"] == 20
    assert_same(checkpoint(straight), checkpoint(config))
    assert checkpoint(config)["model"]["vqgan"]["codebook.N"].any()


def test_resumed_diffusion_equals_the_straight_run(
    diffusion_config: DiffusionConfig, tmp_path: Path
):
    straight = replace(diffusion_config, run=tmp_path / "straight")
    assert train(straight, DiffusionTraining, cases_of)
    assert not train(diffusion_config, stopping(DiffusionTraining, 10), cases_of)
    assert train(diffusion_config, DiffusionTraining, cases_of)
    assert checkpoint(diffusion_config)["step"] == 20
    assert_same(checkpoint(straight), checkpoint(diffusion_config))


def test_resuming_with_other_settings_is_refused(autoencoder_config: AutoencoderConfig):
    short = replace(autoencoder_config, samples=2)
    assert train(short, AutoencoderTraining, cases_of)
    with pytest.raises(RunError, match=r"seed = 1234.*another --run"):
        train(replace(short, seed=1), AutoencoderTraining, cases_of)


def test_a_run_leaves_its_configuration_statistics_pictures_and_tensorboard(
    trained_autoencoder: Path,
):
    config = json.loads((trained_autoencoder / "config.json").read_text())
    assert config["network"]["codes"] == 32
    rows = [json.loads(line) for line in (trained_autoencoder / "stats.jsonl").open()]
    assert [row["samples"] for row in rows] == list(range(2, 42, 2))
    assert {"loss", "lr", "l1"} <= rows[0].keys()
    assert len(list((trained_autoencoder / "pictures").glob("*.png"))) == 2
    assert list((trained_autoencoder / "tensorboard").iterdir())
    assert "perplexity" in rows[-1]


def test_pool_of_latents_gives_windows_with_tumor(diffusion_config: DiffusionConfig):
    config = replace(diffusion_config, samples=8, pool=3, pool_edge=40)
    assert train(config, DiffusionTraining, cases_of)
    pools = list(config.data.cache.glob("latents-*"))
    assert len(pools) == 1
    assert train(replace(config, run=config.run.with_name("again")), DiffusionTraining, cases_of)
    assert list(config.data.cache.glob("latents-*")) == pools  # found, not made again


def test_discriminators_join_and_are_resumed(autoencoder_config: AutoencoderConfig, tmp_path: Path):
    losses = replace(
        autoencoder_config.losses, adversarial=1.0, features=4.0, discriminator_start=4
    )
    config = replace(autoencoder_config, losses=losses, samples=8)
    straight = replace(config, run=tmp_path / "straight")
    assert train(straight, AutoencoderTraining, cases_of)
    assert "hinge" in stats(straight)[-1]
    assert not train(config, stopping(AutoencoderTraining, 3), cases_of)
    assert train(config, AutoencoderTraining, cases_of)
    assert_same(checkpoint(straight), checkpoint(config))


def test_gradients_added_over_microbatches_are_those_of_the_batch(
    autoencoder_config: AutoencoderConfig, tmp_path: Path
):
    config = replace(autoencoder_config, samples=4)
    split = replace(config, run=tmp_path / "split", hardware=replace(config.hardware, microbatch=1))
    assert train(config, AutoencoderTraining, cases_of)
    assert train(split, AutoencoderTraining, cases_of)
    for a, b in zip(stats(config), stats(split), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_two_processes_train_together(data, tmp_path: Path):
    """Under torchrun with gloo: both processes take part and share one codebook."""
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "training.synthesis.autoencoder", "--", "tiny", "--run", str(tmp_path / "run")),
        *("--data.phantoms", "0", "--data.datalist", str(data.datalist)),
        *("--data.cache", str(data.cache), "--samples", "24"),
    ]
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'DiffTumorSlicer'}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Starting with 2 processes" in done.stderr
    content = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert content["samples"] == 24
    assert content["model"]["vqgan"]["codebook.N"].any()


def test_training_on_the_samplers_own_states_is_resumed_exactly(diffusion_config, tmp_path: Path):
    config = replace(diffusion_config, samples=8, own_states=0.8, own_states_from=2)
    straight = replace(config, run=tmp_path / "straight")
    assert train(straight, DiffusionTraining, cases_of)
    assert not train(config, stopping(DiffusionTraining, 2), cases_of)
    assert train(config, DiffusionTraining, cases_of)
    assert_same(checkpoint(straight), checkpoint(config))


def test_own_states_are_those_of_the_sampler(diffusion_config, data):
    """A perfect denoiser's own states carry the true z_0: the new eps leads back to it."""
    from lightning.fabric import Fabric

    from training.data.scans import prepare_cases

    program = DiffusionTraining(Fabric(accelerator="cpu"), diffusion_config, prepare_cases(data))
    target, condition = program.pairs(0, 3, 32)
    schedule, t = program.schedule, torch.tensor([0, 2, 3])
    x_t, eps = torch.zeros_like(target), torch.zeros_like(target)
    own, new = program._own_states(
        np.random.default_rng(0), target, condition, t, x_t, eps, share=1.0
    )
    assert torch.equal(own[2], x_t[2])  # the last t has no state before it
    for row in (0, 1):
        z = predict_x_0(own[row : row + 1], new[row : row + 1], int(t[row]), schedule)
        assert torch.allclose(z, target[row : row + 1], atol=1e-4)
