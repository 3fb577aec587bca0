"""Presets and command lines."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass

import pytest

from training.anomaly import classifier, diffusion
from training.anomaly.config import AnomalyClassifierConfig, AnomalyDiffusionConfig
from training.data import datalists
from training.learning import finetune_denoiser, pixel_classifier, representation
from training.learning.config import FinetuneConfig, PixelClassifierConfig, RepresentationConfig
from training.loop.config import Optimizer, stage_at
from training.loop.loop import learning_rate
from training.segmentation import segmenter
from training.segmentation.config import SegmentationConfig
from training.synthesis import autoencoder, export, latent_diffusion
from training.synthesis.config import AutoencoderConfig, DiffusionConfig
from training.synthesis.presets import AUTOENCODER_PRESETS, DIFFUSION_PRESETS

CONFIGS = (
    AutoencoderConfig(),
    DiffusionConfig(),
    AnomalyDiffusionConfig(),
    AnomalyClassifierConfig(),
    RepresentationConfig(),
    PixelClassifierConfig(),
    FinetuneConfig(),
    SegmentationConfig(),
)
PROGRAMS = (
    autoencoder.main,
    latent_diffusion.main,
    diffusion.main,
    classifier.main,
    representation.main,
    pixel_classifier.main,
    finetune_denoiser.main,
    segmenter.main,
)


@pytest.mark.parametrize("main", [autoencoder.main, latent_diffusion.main, export.main])
def test_help_ends_well(main, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out.lower()


def test_help_of_datalists(capsys: pytest.CaptureFixture):
    assert datalists.main(["--help"]) == 0
    assert "AbdomenAtlas" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "preset"),
    [(autoencoder.main, name) for name in AUTOENCODER_PRESETS]
    + [(latent_diffusion.main, name) for name in DIFFUSION_PRESETS],
)
def test_dry_run_prints_the_configuration_and_touches_nothing(
    main, preset, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([preset, "--dry-run", "--optimizer.lr", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["optimizer"]["lr"] == 0.5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["huge"],
        ["tiny", "--lr", "1"],
        ["tiny", "--samples", "many"],
        ["tiny", "--seed", "-1"],
        ["tiny", "--stages", "0", "30", "2"],
    ],
)
def test_usage_errors_end_with_2(words, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        autoencoder.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_missing_data_ends_with_1(tmp_path, caplog):
    words = ["tiny", "--run", str(tmp_path / "run"), "--data.phantoms", "0"]
    assert autoencoder.main([*words, "--data.datalist", str(tmp_path / "none.json")]) == 1
    assert "There is no datalist" in caplog.text
    assert autoencoder.main(words) == 1
    assert "nothing to train on" in caplog.text


def test_stage_2_without_stage_1_says_so(data, tmp_path, caplog):
    words = ["tiny", "--run", str(tmp_path / "run"), "--autoencoder", str(tmp_path / "none")]
    words += ["--data.phantoms", "0", "--data.datalist", str(data.datalist)]
    assert latent_diffusion.main([*words, "--data.cache", str(data.cache)]) == 1
    assert "Train stage 1 first" in caplog.text


def test_cuda_is_never_replaced_quietly(data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["tiny", "--run", str(tmp_path / "run"), "--hardware.accelerator", "cuda"]
    assert autoencoder.main(words) == 1
    assert "--hardware.accelerator cpu" in caplog.text


def test_papers_numbers():
    config = AUTOENCODER_PRESETS["paper"][1]
    assert config.samples == 200_000 * 4 * 4
    assert (config.optimizer.lr, config.optimizer.beta1, config.optimizer.beta2) == (
        3e-4,
        0.9,
        0.999,
    )
    assert (config.network.codes, config.network.embedding_dim) == (16384, 8)
    assert config.stages[0][1] == 96
    early = DIFFUSION_PRESETS["paper"][1]
    assert (early.network.steps, early.data.early_only, early.optimizer.lr) == (4, True, 1e-4)
    assert (early.averaging.decay, early.averaging.every) == (0.995, 10 * early.stages[0][2])
    assert DIFFUSION_PRESETS["paper200"][1].network.steps == 200


@pytest.mark.parametrize(
    "stages", [(), ((2, 96, 1),), ((0, 96, 1), (0, 32, 1)), ((0, 30, 1),), ((0, 32, 0),)]
)
def test_impossible_stages_are_refused(stages):
    with pytest.raises(ValueError, match=r"[Ss]tages"):
        AutoencoderConfig(stages=stages)


def test_stage_holds_until_the_next_begins():
    stages = ((0, 32, 4), (100, 64, 2))
    assert [stage_at(stages, seen).edge for seen in (0, 99, 100, 1000)] == [32, 32, 64, 64]


def test_learning_rate_rises_stays_and_falls_to_a_hundredth():
    settings = Optimizer(lr=1.0, warmup=10, decay=20)
    rates = [learning_rate(settings, seen, 100) for seen in (5, 10, 50, 80, 90, 100)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 0.505, 0.01])
    assert learning_rate(Optimizer(lr=0.5), 7, 10) == 0.5


@pytest.mark.parametrize("main", PROGRAMS)
def test_help_tells_what_the_fields_say(main, capsys, monkeypatch):
    """Help text, range and unit of every field, also of those a level deeper; and what a group is for."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main(["tiny", "--help"])
    assert ended.value.code == 0
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert "Length of the run. (1 to 1000000000000 samples)" in shown or "Of one run; " in shown
    assert "Learning rate. (0 to 1)" in shown
    assert "Adam, a warm-up, a constant rate" in shown


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_field_of_a_run_has_a_help_text(config):
    for name, item in leaves(config):
        assert item.metadata.get("help", "").endswith("."), name


def leaves(settings, prefix=""):
    """Fields of a configuration and of what is in it."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item


def test_a_value_out_of_range_is_refused_with_what_is_allowed(capsys):
    with pytest.raises(SystemExit) as ended:
        autoencoder.main(["tiny", "--optimizer.lr", "2"])
    assert ended.value.code == 2
    assert "lr must be 0 to 1, got 2" in capsys.readouterr().err
