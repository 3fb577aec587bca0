"""Stage 3 with preset `tiny`: what is learned from, tumors painted on the fly, folds, resuming, export."""

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
from lightning.fabric import Fabric

from difftumor.grids import Grid
from difftumor.images.resampling import resample
from difftumor.parameters import SegmentationParameters
from difftumor.segmentation.model import load_segmentation_models
from difftumor.segmentation.segment import segment
from difftumor.weights.cards import ModelError
from Testing.training.conftest import SHAPE, scan_arrays, write_nifti
from Testing.training.synthesis.test_programs import assert_same, checkpoint, stats, stopping
from training.data.scans import Case, random_generator
from training.loop.config import Averaging, Optimizer
from training.loop.loop import train
from training.segmentation.batches import SegmentationBatches
from training.segmentation.config import (
    Augmentation,
    SegmentationConfig,
    SegmentationData,
    SegmenterSize,
    Synthesis,
)
from training.segmentation.data import (
    Crop,
    augmented,
    draw_crop,
    held_back_patients,
    interpolated,
    prepare_scans,
    respaced,
)
from training.segmentation.export import Export, export
from training.segmentation.online_tumors import TumorPainter
from training.segmentation.presets import SEGMENTATION_PRESETS
from training.segmentation.segmenter import SegmentationTraining, main

ROOT = Path(__file__).resolve().parents[3]
TINY = SEGMENTATION_PRESETS["tiny"][1]


@pytest.fixture(scope="session")
def lists(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    """Three scans with tumors, two of them of one patient, and one without."""
    folder = tmp_path_factory.mktemp("stage3")
    entries: dict[str, list[dict]] = {"real": [], "healthy": []}
    for seed, patient in enumerate(("anna", "anna", "bert", "cora")):
        ct, labels = scan_arrays(seed)
        kind = "healthy" if patient == "cora" else "real"
        if kind == "healthy":
            ct[labels == 2] += 60
            labels[labels == 2] = 1
        write_nifti(folder / f"ct{seed}.nii.gz", ct)
        write_nifti(folder / f"labels{seed}.nii.gz", labels)
        masks = {"organ": [f"labels{seed}.nii.gz:1"], "tumor": [f"labels{seed}.nii.gz:2"]}
        entries[kind].append({"image": f"ct{seed}.nii.gz", "patient": patient, **masks})
    for kind, cases in entries.items():
        text = json.dumps({"version": 1, "name": kind, "cases": cases})
        (folder / f"{kind}.json").write_text(text)
    return replace(
        TINY.data,
        phantoms=0,
        healthy_phantoms=0,
        datalist=folder / "real.json",
        healthy=folder / "healthy.json",
        cache=folder / "cache",
        folds=2,
    )


@pytest.fixture
def config(lists: SegmentationData, tmp_path: Path) -> SegmentationConfig:
    return replace(TINY, data=lists, run=tmp_path / "run")


def batches(config: SegmentationConfig) -> SegmentationBatches:
    return SegmentationBatches(Fabric(accelerator="cpu"), config, prepare_scans(config))


def test_loss_falls_on_one_batch(config, monkeypatch):
    config = replace(
        config,
        samples=40,
        optimizer=Optimizer(lr=1e-2),
        averaging=Averaging(every=0),
        validation=replace(config.validation, every=1000),
    )
    original = SegmentationBatches.take
    monkeypatch.setattr(
        SegmentationBatches, "take", lambda self, _, *rest, **more: original(self, 0, *rest, **more)
    )
    assert train(config, SegmentationTraining, prepare_scans)
    losses = [row["loss"] for row in stats(config) if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("batch_dice", [False, True])
def test_batch_dice_sees_false_alarms_in_crops_without_tumor(config, batch_dice):
    config = replace(config, batch_dice=batch_dice)
    loss = SegmentationTraining(Fabric(accelerator="cpu"), config, prepare_scans(config)).loss
    loss.lambda_ce = 0.0
    labels = torch.ones(2, 1, 8, 8, 8, dtype=torch.int64)
    labels[0, :, 2:6, 2:6, 2:6] = 2  # tumor in the first crop only, background in none
    logits = (4.0 * torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1)).requires_grad_()
    loss(logits, labels).backward()
    background, _, tumor = logits.grad[1].abs().amax((1, 2, 3))
    if batch_dice:
        assert tumor > 5 * background
    else:  # only by what is lacking of the organ, as of any class that is absent
        torch.testing.assert_close(tumor, background)


def test_ten_and_ten_steps_are_twenty_bit_for_bit(config, tmp_path):
    """With threads that prepare crops, tumors painted on the fly, and the best weights kept."""
    config = replace(
        config,
        data=replace(config.data, workers=2),
        validation=replace(config.validation, every=20),
    )
    straight = replace(config, run=tmp_path / "straight")
    assert train(straight, SegmentationTraining, prepare_scans)
    assert not train(config, stopping(SegmentationTraining, 10), prepare_scans)
    assert checkpoint(config)["step"] == 10
    assert train(config, SegmentationTraining, prepare_scans)
    assert_same(checkpoint(straight), checkpoint(config))
    best = [torch.load(c.run / "best.pt", weights_only=True) for c in (straight, config)]
    assert_same(*best)
    assert best[0]["dice"] == max(r["validation_dice"] for r in stats(config) if "best_dice" in r)


KILLED = """
import os, signal, sys
from training.segmentation import segmenter as segmentation
class Killed(segmentation.SegmentationTraining):
    def step(self, seen, step, stage):
        found = super().step(seen, step, stage)
        if step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
segmentation.SegmentationTraining = Killed
segmentation.main(sys.argv[1:])
"""


def test_the_same_command_continues_after_a_kill(lists, tmp_path):
    """SIGKILL in the middle: no handler runs, and what is on disk is whole."""
    command = [
        *("tiny", "--run", str(tmp_path / "run")),
        *("--data.phantoms", "0", "--data.healthy-phantoms", "0", "--data.folds", "1"),
        *("--data.datalist", str(lists.datalist), "--data.cache", str(lists.cache)),
        *("--real-only", "--samples", "80", "--reporting.checkpoint", "4"),
    ]
    paths = f"{ROOT / 'DiffTumorSlicer'}{os.pathsep}{ROOT}"
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", KILLED, *command]
    killed = subprocess.run(program, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["samples"] == 12
    assert main(command) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/stats.jsonl").open()]
    assert [row["samples"] for row in rows if "loss" in row] == list(range(2, 82, 2))


def test_scans_of_one_patient_are_never_on_both_sides(config):
    sides = []
    for fold in (0, 1):
        scans = prepare_scans(replace(config, data=replace(config.data, fold=fold)))
        sides.append(({c.name for c in scans.real}, {c.name for c in scans.validation}))
        assert [c.name for c in scans.healthy] == ["ct3"]
    both, one = {"ct0", "ct1"}, {"ct2"}
    assert sorted(sides, key=lambda side: len(side[0])) == [(one, both), (both, one)]


def test_folds_are_even_whatever_the_order_and_refused_where_patients_lack():
    data = SegmentationData(folds=5)
    names = [f"p{n}" for n in range(13)]
    parts = [held_back_patients(names, replace(data, fold=fold)) for fold in range(5)]
    assert sorted(len(part) for part in parts) == [2, 2, 3, 3, 3]
    assert frozenset().union(*parts) == set(names)
    assert held_back_patients(names[::-1], data) == parts[0]
    with pytest.raises(ValueError, match=r"4 patients.*5 folds.*--data\.folds 4"):
        held_back_patients(names[:4], data)


def test_what_is_learned_from(config, capsys):
    real = prepare_scans(replace(config, real_only=True))
    assert real.real
    assert not real.healthy
    assert batches(replace(config, real_only=True)).painter is None  # no generator is loaded
    synthetic = prepare_scans(replace(config, synthetic_only=True))
    assert synthetic.healthy
    assert not synthetic.real
    assert synthetic.validation
    with pytest.raises(SystemExit) as stop:
        main(["tiny", "--real-only", "--synthetic-only", "--dry-run"])
    assert stop.value.code == 2
    assert "nothing to learn from" in capsys.readouterr().err


def test_a_healthy_scan_with_tumors_is_refused(config):
    wrong = replace(config, data=replace(config.data, healthy=config.data.datalist, folds=1))
    with pytest.raises(ValueError, match=r"listed as healthy.*other datalist"):
        prepare_scans(wrong)


@pytest.mark.parametrize(("organ", "source"), [("liver", None), ("liver", "pancreas")])
def test_the_source_organ_names_the_generator(organ, source):
    """Another organ's models paint tumors into this organ's scans."""
    with pytest.raises(ModelError, match=f"difftumor-{source or organ}-early"):
        TumorPainter(Synthesis(source=source), organ, "cpu")


def test_crops_too_small_for_the_network_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["tiny", "--spacing-mm", "1.5"])
    assert "multiple of 2, at least 4" in capsys.readouterr().err


def healthy_crop() -> Crop:
    ct, labels = scan_arrays(5)
    ct[labels == 2] += 60
    image = ((ct[:32, :32, :32] + 175) / 425).astype(np.float32)
    return Crop(image, (labels[:32, :32, :32] > 0).astype(np.uint8))


@pytest.mark.parametrize(("early", "window"), [("modelled", 0), ("demo-abdomen-early", 32)])
def test_tumors_are_painted_where_the_label_says(early, window):
    """By the baseline and by the networks of stages 1 and 2; nothing changes away from the tumor."""
    settings = Synthesis(early=early, late="modelled", window=window, feather=(0.5, 0.5))
    painter = TumorPainter(replace(settings, sizes=(1.0, 0.0, 0.0, 0.0)), "liver", "cpu")
    assert list(painter.generators) == ["early"]  # what is never asked for is not loaded
    crop = healthy_crop()
    tumors = painter.plan(np.random.default_rng(3), crop.labels)
    made, again = painter.paint(crop, tumors), painter.paint(crop, tumors)
    assert np.array_equal(made.image, again.image)
    mask = made.labels == 2
    assert np.array_equal(mask, np.logical_or.reduce(tumors.masks))
    assert mask.any()
    assert (crop.labels[mask] == 1).all()
    assert made.image[mask].mean() < crop.image[mask].mean() - 0.02  # darker than the organ
    changed = made.image != crop.image
    assert changed.any()
    reach = np.argwhere(mask)
    low, high = reach.min(0) - 9, reach.max(0) + 9
    where = np.argwhere(changed)
    assert (where >= low).all()
    assert (where <= high).all()


def test_painting_gives_up_where_the_organ_has_no_room(config):
    painter = TumorPainter(config.synthesis, "liver", "cpu")
    assert painter.plan(np.random.default_rng(0), np.zeros((16, 16, 16), np.uint8)) is None


def test_a_pool_is_made_once_and_an_interrupted_one_is_completed(config, monkeypatch):
    config = replace(config, synthesis=replace(config.synthesis, pool=4))
    painted = []
    original = TumorPainter.paint

    def paint(self, *words):
        if len(painted) == 2:
            raise KeyboardInterrupt
        painted.append(1)
        return original(self, *words)

    with monkeypatch.context() as patch:
        patch.setattr(TumorPainter, "paint", paint)
        with pytest.raises(KeyboardInterrupt):
            batches(config)
    (part,) = config.data.cache.glob("part-crops-*")
    first = np.load(part / "images.npy")[0].copy()
    pool = batches(config).pool
    assert np.array_equal(pool.images[0], first)
    assert all((labels == 2).any() for labels in pool.labels)
    monkeypatch.setattr(TumorPainter, "paint", None)
    crop = batches(config).pool.draw(np.random.default_rng(0))  # found, not made again
    assert crop.image.shape == (32, 32, 32)


def test_crops_of_healthy_scans_show_enough_organ_or_are_given_up():
    ct = np.zeros((60, 60, 60), np.int16)
    labels = np.zeros(ct.shape, np.uint8)
    labels[:40, :40, :40] = 1
    places = [np.argwhere(labels == value) for value in range(3)]
    case = Case("corner", ct, labels, tuple(places), (64000, 0), is_phantom=False)
    data = SegmentationData(positive_share=0.0)  # centers on the background
    seen = {
        healthy: [
            (draw_crop(random_generator(0, 0, n), case, 24, data, healthy=healthy).labels > 0).sum()
            for n in range(12)
        ]
        for healthy in (False, True)
    }
    assert min(seen[True]) > 4 / 3 * np.pi * 5**3 > min(seen[False])
    small = Case("dot", ct, labels * 0, (places[0], places[1][:1], places[2]), (1, 0), False)
    assert draw_crop(random_generator(0, 0, 0), small, 24, data, healthy=True).image.shape[0] == 24


def test_another_voxel_size_is_reached_as_the_engine_reaches_it():
    values = np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32)
    grid = Grid(values.shape, np.eye(4))
    target = Grid((16, 16, 16), np.diag([1.5, 1.5, 1.5, 1]))
    expected = resample(values, grid, target, order=1)
    assert np.allclose(interpolated(values, 1.5), expected, atol=1e-5)
    labels = (values > 1.2).astype(np.uint8) * 2
    made = respaced(Crop(values, labels), 1.5)
    assert made.labels.shape == (16, 16, 16)
    assert set(np.unique(made.labels)) <= {0, 2}


def test_augmentation_moves_labels_with_the_image():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:3, 2, 5:] = 2
    crop = Crop(labels / np.float32(2), labels)
    always = Augmentation(flip=1, rotate=1, scale_probability=0, shift_probability=0)
    made = augmented(np.random.default_rng(1), crop, always)
    assert not np.array_equal(made.labels, labels)
    assert np.array_equal(made.image * 2, made.labels)
    jitter = augmented(np.random.default_rng(1), crop, Augmentation(0, 0, 1, 1))
    assert np.array_equal(jitter.labels, labels)
    assert 0.7 < jitter.image.max() < 1.3


@pytest.mark.parametrize(
    ("architecture", "channels", "edge"), [("nnunet", (4, 8, 8), 16), ("swinunetr", (12,), 64)]
)
def test_the_other_networks_take_a_step(config, architecture, channels, edge):
    size = SegmenterSize(architecture, channels)
    config = replace(config, samples=1, stages=((0, edge, 1),), network=size, real_only=True)
    config = replace(config, data=replace(config.data, folds=1))
    assert train(config, SegmentationTraining, prepare_scans)


def test_a_run_becomes_a_model_that_segments(config, tmp_path):
    config = replace(config, samples=4, data=replace(config.data, folds=1))
    assert train(config, SegmentationTraining, prepare_scans)
    card = tmp_path / "card.json"
    card.write_text(
        json.dumps({"id": "tiny-liver", "title": "Tiny", "licence": {"name": "Apache-2.0"}})
    )
    written = export(Export(tmp_path / "model", card, config.run, "float16"))
    assert written["architecture"]["arguments"] == {"channels": [4, 8]}
    models = load_segmentation_models([str(tmp_path / "model")], "cpu", {}, lambda *_: None)
    ct, labels = scan_arrays(1)
    parameters = SegmentationParameters(overlap=0.0)
    result = segment(ct, Grid(SHAPE, np.eye(4)), labels > 0, parameters, models)
    assert result.whole(result.labels).shape == SHAPE
