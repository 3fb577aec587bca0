"""The programs of paper B with preset `tiny`: what they draw, learn and measure, how they continue, and the table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from difftumor.anomaly.layout import SliceFormat
from difftumor.learning.features_model import load_feature_model
from Testing.training.anomaly.test_anomaly_programs import SIZE, write_set
from Testing.training.synthesis.test_programs import assert_same, checkpoint, stats, stopping
from training.data.slice_sets import read_slice_set
from training.learning import export as export_representation
from training.learning import few_labels, finetune_denoiser, pixel_classifier
from training.learning import representation as representation_program
from training.learning.config import LabelledData, Plateau, Variations
from training.learning.diffusion_sources import open_diffusion
from training.learning.few_labels import Epochs, cells, fill_table
from training.learning.labelled_slices import mean_of, measure, split_of
from training.learning.plateau import PlateauRate
from training.learning.presets import (
    FINETUNE_PRESETS,
    PIXEL_CLASSIFIER_PRESETS,
    REPRESENTATION_PRESETS,
)
from training.learning.representation import RepresentationTraining, open_batches
from training.learning.slice_variations import vary
from training.loop.loop import train
from training.loop.runs import RunError

TINY = REPRESENTATION_PRESETS["tiny"][1]
PROGRAMS = {
    "pixels": (pixel_classifier, PIXEL_CLASSIFIER_PRESETS["tiny"][1]),
    "finetune": (finetune_denoiser, FINETUNE_PRESETS["tiny"][1]),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for split, patients in (("train", 3), ("validation", 1), ("test", 2)):
        write_set(folder, split, patients)
    return folder


@pytest.fixture(scope="module")
def features(sets, tmp_path_factory) -> Path:
    """A finished tiny run of training.learning.representation."""
    run = tmp_path_factory.mktemp("representation") / "run"
    assert train(tiny_representation(sets, run), RepresentationTraining, open_batches)
    return run


def tiny_representation(sets: Path, run: Path, **changes):
    return replace(TINY, data=replace(TINY.data, folder=sets), run=run, **changes)


def tiny_table(name: str, sets: Path, features: Path, run: Path, **changes):
    config = PROGRAMS[name][1]
    data = replace(config.data, folder=sets)
    return replace(config, data=data, features=features, run=run, **changes)


def test_the_representation_continues_bit_for_bit(sets, features, tmp_path):
    again = tiny_representation(sets, tmp_path / "again")
    assert not train(again, stopping(RepresentationTraining, 10), open_batches)
    assert train(again, RepresentationTraining, open_batches)
    assert_same(checkpoint(again), torch.load(features / "checkpoint.pt", weights_only=True))


def test_the_representation_learns_noise_and_reads_no_label(sets, tmp_path, monkeypatch):
    from training.data import slice_sets

    for name in ("truth", "labels"):
        monkeypatch.setattr(
            slice_sets.SliceSet, name, lambda _: pytest.fail("a label was read"), raising=True
        )
    optimizer = replace(TINY.optimizer, lr=4e-3)
    config = tiny_representation(sets, tmp_path, samples=240, batch=4, optimizer=optimizer)
    assert train(config, RepresentationTraining, open_batches)
    values = [row["mse"] for row in stats(config)]
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


def test_learning_from_all_slices_is_said(sets, tmp_path, caplog):
    config = tiny_representation(sets, tmp_path, learn_from="all")
    batches = open_batches(config)
    assert len(batches.train) == 36
    assert "12 test slices of 2 patients are seen" in caplog.text


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_stopped_run_continues_bit_for_bit(name, sets, features, tmp_path):
    program = PROGRAMS[name][0].METHOD
    for run in ("straight", "again"):
        config = tiny_table(name, sets, features, tmp_path / run, counts=(2,), seeds=(16,))
        one = next(cells(config, program.units(read_slice_set(sets / "train").format)))
        if run == "again":
            stopped = replace(program, build=stopping(program.build, 5))
            assert not fill_table(config, stopped)
            assert checkpoint(one)["step"] == 5
            assert not (one.run / "figures.json").exists()
        assert fill_table(config, program)
    straight, again = (
        torch.load(tmp_path / run / "n002_s16" / "checkpoint.pt", weights_only=True)
        for run in ("straight", "again")
    )
    assert_same(straight, again)
    figures = [
        json.loads((tmp_path / run / "n002_s16" / "figures.json").read_text())["figures"]
        for run in ("straight", "again")
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_table_is_filled_once(name, sets, features, tmp_path, monkeypatch, caplog):
    program, preset = PROGRAMS[name]
    words = ["tiny", "--run", str(tmp_path), "--features", str(features)]
    words += ["--data.folder", str(sets), "--counts", "2", "3", "--seeds", "16"]
    assert program.main(words) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [(row["count"], row["seed"], row["slices"]) for row in rows] == [
        (2, 16, 12),
        (3, 16, 12),
    ]
    assert rows[0]["leak"] == {
        "split": "patients",
        "shared_patients": 0,
        "features_saw_tests": False,
    }
    table = (tmp_path / "results.md").read_text()
    assert "Mean over 12 slices" in table
    assert "| 3 | 1 | " in table
    monkeypatch.setattr(few_labels, "train", lambda *_: pytest.fail("trained again"))
    assert program.main(words) == 0
    # Another seed is another row of the same table; other settings are not.
    monkeypatch.undo()
    words[-1] = "42"
    assert program.main([*words, "--counts", "2"]) == 0
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"]) == 3
    assert program.main([*words, "--counts", "2", "--weights", "0.5", "0.5", "0.5", "0.5"]) == 2
    assert "weights" in caplog.text
    assert preset.counts == (2, 3)


def test_the_pixel_classifiers_find_the_spots(sets, features, tmp_path):
    """Dark spots in bright discs: a longer run on the raw features of a tiny network tells them apart."""
    config = tiny_table("pixels", sets, features, tmp_path, counts=(6,), seeds=(16,), epochs=20)
    assert fill_table(config, pixel_classifier.METHOD)
    figures = json.loads((tmp_path / "n006_s16" / "figures.json").read_text())["figures"]
    assert figures["WT"]["dice"] > 0.8
    assert figures["ET"]["dice"] is None  # no slice has it, and none is found


def test_a_frozen_encoder_stays_what_it_was(sets, features, tmp_path):
    for freeze in (True, False):
        config = tiny_table(
            "finetune", sets, features, tmp_path / str(freeze), counts=(2,), seeds=(16,),
            freeze_encoder=freeze,
        )  # fmt: skip
        assert fill_table(config, finetune_denoiser.METHOD)
        trained = torch.load(config.run / "n002_s16" / "checkpoint.pt", weights_only=True)["model"]
        before = torch.load(features / "checkpoint.pt", weights_only=True)["ema"]
        same = {
            part: all(
                torch.equal(trained["segmenter"][key], value)
                for key, value in before.items()
                if key.startswith(part)
            )
            for part in ("input_blocks", "middle_block", "time_embed", "output_blocks")
        }
        assert same["input_blocks"] == same["middle_block"] == freeze
        assert not same["time_embed"]
        assert not same["output_blocks"]


def test_the_supervised_network_takes_nothing_and_sees_no_noise(sets, features, tmp_path):
    config = tiny_table("finetune", sets, features, tmp_path, begin="nothing")
    source = open_diffusion(features, read_slice_set(sets / "train").format)
    segmenter = finetune_denoiser.Segmenter(config, source, torch.device("cpu"))
    key = "input_blocks.0.0.weight"
    assert not torch.equal(segmenter.network.state_dict()[key], source.unet.state_dict()[key])
    assert all(p.requires_grad for p in segmenter.network.parameters())
    images = torch.rand(2, 1, SIZE, SIZE)
    x, t, _ = segmenter.inputs(images, torch.ones(1, SIZE, SIZE))
    assert torch.equal(x, images)
    assert not t.any()


def test_labels_of_slices_do_not_change_from_call_to_call(sets, features, tmp_path):
    config = tiny_table("finetune", sets, features, tmp_path)
    source = open_diffusion(features, read_slice_set(sets / "train").format)
    segmenter = finetune_denoiser.Segmenter(config, source, torch.device("cpu"))
    torch.nn.init.normal_(segmenter.network.out[1].weight)
    images = np.random.default_rng(0).random((3, 1, SIZE, SIZE), np.float32)
    first = segmenter.labels(images)
    assert len(np.unique(first)) > 1
    assert np.array_equal(first, segmenter.labels(images))
    assert np.array_equal(first[2:], segmenter.labels(images[2:]))


def test_a_split_by_slices_says_what_it_leaks(sets, caplog):
    split = split_of(LabelledData(folder=sets, split="slices", pool=18))
    assert len(split.pool_rows) + len(split.test_rows) == 36
    assert not set(split.pool_rows) & set(split.test_rows)
    assert split.leak["shared_patients"] == 6
    assert split.leak["test_slices_of_shared_patients"] == 1.0
    assert "the figures are too good" in caplog.text
    patients = set(split.labeled(18, 0, False).patients)
    assert patients == set(split.measured(0, 18).patients)
    with pytest.raises(ValueError, match="leaves none"):
        split_of(LabelledData(folder=sets, split="slices", pool=36))


def test_by_default_no_patient_is_in_both_parts(sets):
    split = split_of(LabelledData(folder=sets))
    learned = split.labeled(18, 0, False)
    tested = split.measured(0, 12)
    assert not set(learned.patients) & set(tested.patients)
    fewer = split.labeled(5, 0, False).images
    assert all(any(np.array_equal(one, other) for other in learned.images) for one in fewer)
    assert split.labeled(9, 0, True).labels.any(axis=(1, 2)).all()
    with pytest.raises(ValueError, match=r"19 labeled slices.*has 18"):
        split.labeled(19, 0, False)
    assert len(split_of(LabelledData(folder=sets, test=5)).test_rows) == 5


def test_runs_that_cannot_be(sets, features, tmp_path, monkeypatch):
    config = tiny_table("pixels", sets, tmp_path / "nothing", tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"training\.learning\.representation"):
        fill_table(config, pixel_classifier.METHOD)
    config = tiny_table("pixels", sets, features, tmp_path / "run", weights=(1.0,))
    with pytest.raises(ValueError, match="labels up to 1"):
        fill_table(config, pixel_classifier.METHOD)
    config = tiny_table("finetune", sets, features, tmp_path / "run", timestep=100)
    with pytest.raises(ValueError, match="timestep must be 0 to 99"):
        fill_table(config, finetune_denoiser.METHOD)
    with pytest.raises(ValueError, match="other slices than these"):
        open_diffusion(features, SliceFormat(SIZE, (2.0, 2.0), channel_order=("t1", "t2")))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="takes one device"):
        fill_table(config, finetune_denoiser.METHOD)


def test_an_exported_representation_serves_for_learning(sets, features, tmp_path):
    card = {
        "id": "discs-ddpm",
        "title": "Discs",
        "organs": ["disc"],
        "licence": {"name": "Apache-2.0"},
        "extra": {"features": {"blocks": [1], "timesteps": [5]}},
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    words = ["--out", str(tmp_path / "model"), "--card", str(tmp_path / "card.json")]
    assert export_representation.main([*words, "--run", str(features)]) == 0
    model = load_feature_model(str(tmp_path / "model"), "cpu", {}, lambda *_: None)
    averaged = torch.load(features / "checkpoint.pt", weights_only=True)["ema"]
    for key, value in model.unet.state_dict().items():
        assert torch.equal(value, averaged[key]), key
    assert model.schedule.length == 100
    assert model.recommended.blocks == (1,)
    # And for the programs themselves, on slices of its own format only.
    made_for = read_slice_set(sets / "train").format
    again = open_diffusion(tmp_path / "model", made_for)
    assert again.label is None
    with pytest.raises(ValueError, match="spacing_mm"):
        open_diffusion(tmp_path / "model", replace(made_for, spacing_mm=(3.0, 3.0)))
    assert export_representation.main([*words, "--run", str(tmp_path)]) == 1


def test_varied_labels_follow_their_slices():
    rng = np.random.default_rng(0)
    labels = np.zeros((8, 24, 24), np.uint8)
    labels[:, 6:14, 8:12] = 2
    images = np.where(labels, 0.9, 0.3)[:, None].astype(np.float32) * 2 - 1
    same, kept = vary(images, labels, Variations(0, 0, 0, 0), rng, (-1.0, 1.0))
    assert np.allclose(same.numpy(), images, atol=1e-5)
    assert np.array_equal(kept.numpy(), labels)
    every = Variations(flip=0.5, rotate=1, scale=1, gamma=0, contrast=0)
    moved, there = vary(images, labels, every, np.random.default_rng(1), (-1.0, 1.0))
    again, _ = vary(images, labels, every, np.random.default_rng(1), (-1.0, 1.0))
    assert torch.equal(moved, again)
    assert set(np.unique(there)) == {0, 2}
    assert not np.array_equal(there.numpy(), labels)
    # Nearest and linear pixels differ by less than one at the rim.
    bright, inside = moved[:, 0].numpy() > 0.2, there.numpy() > 0
    assert 2 * (bright & inside).sum() > 0.9 * (bright.sum() + inside.sum())
    gained, _ = vary(images, labels, Variations(0, 0, 0, 1, 1), rng, (-1.0, 1.0))
    assert not np.allclose(gained.numpy(), images, atol=0.02)
    assert gained.min() >= -1
    assert gained.max() <= 1


def test_an_epoch_takes_each_row_once():
    epochs = Epochs(10, 4, seed=3, members=2)
    found = [epochs.at(step) for step in range(3)]
    assert [epoch for epoch, _ in found] == [0, 0, 0]
    taken = np.concatenate([rows for _, rows in found], axis=1)
    for member in taken:
        assert sorted(member[:10]) == list(range(10))
    assert not np.array_equal(taken[0], taken[1])
    assert epochs.at(3)[0] == 1
    assert np.array_equal(Epochs(10, 4, seed=3, members=2).at(4)[1], epochs.at(4)[1])


def test_the_rate_falls_as_torchs_does():
    rng = np.random.default_rng(0)
    losses = 1 + 0.05 * rng.standard_normal(60)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, min_lr=0.1 / 40
    )
    ours = PlateauRate(Plateau(factor=0.5, patience=2, least=0.1 / 40), 0.1)
    for epoch, loss in enumerate(losses):
        assert ours.begin(epoch) * 0.1 == pytest.approx(optimizer.param_groups[0]["lr"])
        ours.add(loss)
        theirs.step(loss)
    assert optimizer.param_groups[0]["lr"] < 0.01


def test_figures_of_a_slice_by_hand():
    truth = np.array([[1, 1, 2, 0]])
    found = np.array([[1, 0, 3, 3]])
    figures = measure(found, truth)
    assert figures["WT"]["dice"] == pytest.approx(4 / 6)
    assert figures["TC"]["jaccard"] == pytest.approx(1 / 2)
    assert figures["ET"]["precision"] == 0
    assert np.isnan(figures["ET"]["sensitivity"])
    assert figures["ET"]["specificity"] == pytest.approx(2 / 4)
    empty = measure(truth * 0, truth * 0)
    mean = mean_of([figures, empty])
    assert mean["WT"]["dice"] == pytest.approx(4 / 6, abs=1e-6)
    assert mean["WT"]["specificity"] == pytest.approx(0.5)


def test_the_papers_presets_are_the_papers(capsys):
    pixels, tuned, ddpm = (
        table["paper"][1]
        for table in (PIXEL_CLASSIFIER_PRESETS, FINETUNE_PRESETS, REPRESENTATION_PRESETS)
    )
    for config in (pixels, tuned):
        assert config.counts == (10, 20, 30, 40, 50)
        assert config.seeds == (16, 42, 88, 128, 256)
        assert config.weights == (0.1, 0.3, 0.3, 0.3)
        assert config.data.split == "patients"
    assert (pixels.blocks, pixels.timesteps, pixels.members) == ((16, 17, 18), (200,), 1)
    assert (pixels.batch, pixels.epochs, pixels.optimizer.lr) == (64, 8, 1e-4)
    assert (tuned.batch, tuned.epochs, tuned.optimizer.lr, tuned.freeze_encoder) == (
        64, 250, 1e-3, True,
    )  # fmt: skip
    assert (ddpm.samples // ddpm.batch, ddpm.timesteps, ddpm.schedule) == (400_000, 4000, "cosine")
    one = next(cells(pixels, 128 * 128))
    assert one.samples == 8 * 10 * 128 * 128
    assert next(cells(tuned, 1)).samples == 250 * 10
    assert representation_program.main(["paper", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["network"]["base_channels"] == 64
