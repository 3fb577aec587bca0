"""The two programs of anomaly detection with preset `tiny`: they learn, stop, resume, and become a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from difftumor.anomaly.model import load_anomaly_model
from difftumor.anomaly.slices import SliceFormat
from Testing.training.synthesis.test_programs import assert_same, checkpoint, stats, stopping
from training.anomaly import diffusion as anomaly_diffusion
from training.anomaly.classifier import AnomalyClassifierTraining
from training.anomaly.classifier import draw_times as classifier_times
from training.anomaly.config import AnomalyDiffusionConfig
from training.anomaly.diffusion import AnomalyDiffusionTraining
from training.anomaly.diffusion import draw_times as diffusion_times
from training.anomaly.export import Export, export
from training.anomaly.presets import ANOMALY_CLASSIFIER_PRESETS, ANOMALY_DIFFUSION_PRESETS
from training.data.slice_batches import SliceBatches, SliceData, open_batches
from training.data.slice_sets import PatientSlices, SliceSetWriter, read_slice_set
from training.loop.config import Optimizer, stage_at
from training.loop.loop import make_fabric, train
from training.loop.measures import auroc, dice

SIZE = 16
PROGRAMS = [
    (AnomalyDiffusionTraining, ANOMALY_DIFFUSION_PRESETS["tiny"][1]),
    (AnomalyClassifierTraining, ANOMALY_CLASSIFIER_PRESETS["tiny"][1]),
]
NAMES = ["diffusion", "classifier"]


def patient_slices(rng: np.random.Generator, count: int = 6) -> PatientSlices:
    """Bright discs, half of them with a dark spot."""
    rows, columns = np.indices((SIZE, SIZE))
    organ = (rows - 7.5) ** 2 + (columns - 7.5) ** 2 < 49
    diseased = np.arange(count) % 2 == 1
    spot = (rows - 9) ** 2 + (columns - 6) ** 2 < 6
    tumor = diseased[:, None, None] & spot
    images = np.where(organ, 0.8 + 0.02 * rng.standard_normal((count, SIZE, SIZE)), 0.0)
    images = np.where(tumor, 0.2, images)[:, None]
    return PatientSlices(
        np.clip(images, 0, 1).astype(np.float32),
        diseased,
        np.arange(count),
        np.broadcast_to(organ, (count, SIZE, SIZE)),
        tumor,
        np.zeros((count, SIZE, SIZE), np.uint8),
    )


def write_set(folder: Path, split: str, patients: int = 3, spacing_mm: float = 2.0) -> None:
    made_for = SliceFormat(SIZE, (spacing_mm, spacing_mm), (0.0, 200.0))
    writer = SliceSetWriter(folder / split, split, made_for, {"kind": "discs"}, patients * 6)
    rng = np.random.default_rng(3)
    for number in range(patients):
        writer.add(f"{split}-{number}", patient_slices(rng))
    writer.finish()


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    write_set(folder, "train")
    write_set(folder, "validation", 1)
    return folder


def configured(config, discs: Path, run: Path, **changes):
    return replace(config, data=replace(config.data, folder=discs), run=run, **changes)


@pytest.mark.parametrize(("program", "config"), PROGRAMS, ids=NAMES)
def test_ten_and_ten_steps_equal_twenty_bit_for_bit(program, config, discs, tmp_path):
    straight = configured(config, discs, tmp_path / "straight")
    assert train(straight, program, open_batches)
    again = configured(config, discs, tmp_path / "again")
    assert not train(again, stopping(program, 10), open_batches)
    assert checkpoint(again)["step"] == 10
    assert train(again, program, open_batches)
    assert checkpoint(again)["step"] == 20
    assert_same(checkpoint(straight), checkpoint(again))


@pytest.mark.parametrize(
    ("program", "config", "figure", "share"),
    [(*PROGRAMS[0], "mse", 0.5), (*PROGRAMS[1], "loss", 0.5)],
    ids=NAMES,
)
def test_the_loss_falls(program, config, figure, share, discs, tmp_path):
    # A decay over the whole run and no noise levels beyond sight let a short run show what it can.
    config = configured(
        config, discs, tmp_path / "run", samples=320, batch=8, optimizer=Optimizer(lr=3e-3)
    )
    if program is AnomalyClassifierTraining:
        config = replace(config, time_power=6.0)
    assert train(config, program, open_batches)
    values = [row[figure] for row in stats(config)]
    assert np.mean(values[-5:]) < share * np.mean(values[:5])


def test_the_learned_variance_learns_only_from_the_bound(discs, tmp_path):
    """Without its weight the second half of the output never moves; with it, it does."""
    moved = {}
    for weight in (0.0, 1.0):
        config = configured(PROGRAMS[0][1], discs, tmp_path / str(weight), bound_weight=weight)
        assert train(config, AnomalyDiffusionTraining, open_batches)
        moved[weight] = float(checkpoint(config)["model"]["unet"]["out.2.weight"][1].abs().max())
    assert moved[0.0] == 0 < moved[1.0]


def test_gradients_of_microbatches_add_up_to_those_of_the_batch(discs, tmp_path):
    for number, (program, config) in enumerate(PROGRAMS):
        whole = configured(config, discs, tmp_path / f"whole{number}", samples=8, batch=4)
        parts = replace(
            whole,
            run=tmp_path / f"parts{number}",
            hardware=replace(whole.hardware, microbatch=2),
        )
        assert train(whole, program, open_batches)
        assert train(parts, program, open_batches)
        first, second = stats(whole)[0], stats(parts)[0]
        assert first["gradient"] == pytest.approx(second["gradient"], rel=1e-4)


def test_the_classifiers_loss_is_cross_entropy_on_noised_slices(discs, tmp_path):
    """What a step reports is what its network says of the same slices, times and noise."""
    config = configured(PROGRAMS[1][1], discs, tmp_path, batch=4)
    program = AnomalyClassifierTraining(make_fabric(config), config, open_batches(config))
    torch.nn.init.normal_(program.classifier.out[2].c_proj.weight)
    batch = program.batch(5, 4)
    rng = np.random.default_rng([config.seed, 0, 5, 1])
    t = torch.from_numpy(classifier_times(rng, 4, 1000, config.time_power))
    noise = torch.from_numpy(rng.standard_normal(tuple(batch.images.shape), dtype=np.float32))
    x_t = program.schedule.q_sample(batch.images, t, noise)
    with torch.no_grad():
        expected = F.cross_entropy(program.classifier(x_t, t), batch.diseased)
    assert float(program.step(0, 5, stage_at(config.stages, 0))["loss"]) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_timesteps_are_drawn_where_they_are_asked_for():
    rng = np.random.default_rng(0)
    cubed = classifier_times(rng, 20_000, 1000, 3.0)
    assert cubed.min() >= 0
    assert cubed.max() <= 999
    assert (cubed < 125).mean() == pytest.approx(0.5, abs=0.02)  # (1/2)^3 of 1000
    low = diffusion_times(rng, 20_000, 1000, 0.5, 400)
    assert (low < 400).mean() == pytest.approx(0.5 + 0.5 * 0.4, abs=0.02)
    assert diffusion_times(rng, 20_000, 1000, 0.0, 400).mean() == pytest.approx(500, abs=10)


def test_batches_read_labels_and_never_masks(discs, monkeypatch):
    from training.data import slice_sets

    monkeypatch.setattr(slice_sets.SliceSet, "truth", lambda _: pytest.fail("a mask was read"))
    config = configured(PROGRAMS[0][1], discs, discs)
    batch = open_batches(config).draw(np.random.default_rng(0), 8)
    dark = (batch.images[:, 0, 8:11, 5:8] < 0.5).flatten(1).any(1)
    assert torch.equal(dark, batch.diseased == 1)  # labels belong to their images


def test_balanced_batches_hold_the_share_asked_for(discs):
    slices = read_slice_set(discs / "train")
    settings = SliceData(folder=discs, diseased_share=0.8)
    drawn = SliceBatches(slices, slices, settings).draw(np.random.default_rng(0), 400)
    assert float(drawn.diseased.float().mean()) == pytest.approx(0.8, abs=0.06)


def test_slices_are_moved_and_mirrored_whole(discs):
    """Pixels only change place: the values of a moved disc that stays in the field are the same set."""
    slices = read_slice_set(discs / "train")
    plain = SliceBatches(slices, slices, SliceData(folder=discs))
    varied = SliceBatches(slices, slices, SliceData(folder=discs, flip=0.5, shift=1))
    changed = False
    for seed in range(6):
        one = plain.draw(np.random.default_rng(seed), 1).images
        other = varied.draw(np.random.default_rng(seed), 1).images
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
        changed |= not torch.equal(one, other)
    assert changed


def test_a_set_of_one_kind_is_refused(tmp_path):
    made_for = SliceFormat(SIZE, (2.0, 2.0), (0.0, 200.0))
    for split in ("train", "validation"):
        writer = SliceSetWriter(tmp_path / split, split, made_for, {}, 6)
        every = patient_slices(np.random.default_rng(0))
        parts = [getattr(every, name) for name in every.__dataclass_fields__]
        kept = PatientSlices(*(part if part is None else part[::2] for part in parts))
        writer.add("healthy", kept)
        writer.finish()
    with pytest.raises(ValueError, match="0 diseased slices; both kinds"):
        open_batches(configured(PROGRAMS[0][1], tmp_path, tmp_path))


def test_a_missing_set_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training\.data\.slices"):
        open_batches(configured(PROGRAMS[0][1], tmp_path, tmp_path))


def test_presets_are_complete_and_the_paper_is_the_papers():
    config = ANOMALY_DIFFUSION_PRESETS["paper"][1]
    assert isinstance(config, AnomalyDiffusionConfig)
    assert (config.batch, config.samples // config.batch) == (10, 80_000)
    assert (config.averaging.decay, config.averaging.every) == (0.9999, config.batch)
    assert (config.optimizer.lr, config.low_share, config.bound_weight) == (1e-4, 0.0, 1.0)
    assert ANOMALY_CLASSIFIER_PRESETS["paper"][1].time_power == 1.0
    for table in (ANOMALY_DIFFUSION_PRESETS, ANOMALY_CLASSIFIER_PRESETS):
        assert set(table) == {"paper", "demo", "tiny"}


def test_figures_of_merit_by_hand():
    truth = np.array([0, 0, 1, 1], bool)
    assert auroc(truth, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert auroc(truth, np.zeros(4)) == 0.5
    assert np.isnan(auroc(np.ones(3, bool), np.arange(3.0)))
    assert dice(truth, np.array([0, 1, 1, 0], bool)) == 0.5
    assert np.isnan(dice(~truth & truth, ~truth & truth))
    assert json.dumps(dice(truth, truth)) == "1.0"


CARD = {
    "id": "discs",
    "title": "Discs",
    "organs": ["disc"],
    "recommended": {"noise_level": 100, "guidance_scale": 1.0, "steps": 50},
    "licence": {"name": "Apache-2.0"},
}


@pytest.fixture(scope="session")
def trained(discs, tmp_path_factory) -> dict[str, Path]:
    """Folders of finished tiny runs of both programs."""
    folder = tmp_path_factory.mktemp("trained")
    runs = {}
    for name, (program, config) in zip(NAMES, PROGRAMS, strict=True):
        runs[name] = folder / name
        assert train(configured(config, discs, runs[name]), program, open_batches)
    return runs


def export_settings(trained, tmp_path, **changes) -> Export:
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    wishes = Export(
        out=tmp_path / "model",
        card=tmp_path / "card.json",
        diffusion=trained["diffusion"],
        classifier=trained["classifier"],
    )
    return replace(wishes, **changes)


def test_an_export_opens_in_the_engine_with_the_averaged_weights(trained, tmp_path):
    export(export_settings(trained, tmp_path))
    model = load_anomaly_model(str(tmp_path / "model"), "cpu", {}, lambda *_: None)
    averaged = torch.load(trained["diffusion"] / "checkpoint.pt", weights_only=True)["ema"]
    for key, value in model.unet.state_dict().items():
        assert torch.equal(value, averaged[key]), key
    assert (model.image_size, model.channels, model.healthy_index) == (SIZE, 1, 0)
    assert model.slice_format == SliceFormat(SIZE, (2.0, 2.0), (0.0, 200.0))
    images = torch.rand(3, 1, SIZE, SIZE)
    made = model.decode(model.encode(images, 100), 100, 1.0)
    assert made.shape == images.shape
    assert torch.isfinite(made).all()
    assert (
        (model.probability_of_disease(images) >= 0) & (model.probability_of_disease(images) <= 1)
    ).all()


def test_half_precision_takes_half_of_the_space(trained, tmp_path):
    sizes = {}
    for precision in ("float32", "float16"):
        wishes = export_settings(trained, tmp_path, out=tmp_path / precision, precision=precision)
        export(wishes)
        sizes[precision] = (wishes.out / "model.safetensors").stat().st_size
    assert sizes["float16"] == pytest.approx(sizes["float32"] / 2, rel=0.1)


def test_runs_that_do_not_belong_together_are_not_exported(trained, tmp_path):
    other = tmp_path / "other"
    for split in ("train", "validation"):
        write_set(other, split, spacing_mm=3.0)
    config = configured(PROGRAMS[1][1], other, tmp_path / "classifier", samples=2)
    assert train(config, AnomalyClassifierTraining, open_batches)
    with pytest.raises(ValueError, match="different formats"):
        export(export_settings(trained, tmp_path, classifier=config.run))


def test_the_programs_run_from_the_command_line(discs, tmp_path, capsys):
    words = ["--data.folder", str(discs), "--run", str(tmp_path / "run"), "--samples", "4"]
    assert anomaly_diffusion.main(["tiny", *words, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 4
    assert not (tmp_path / "run").exists()
    assert anomaly_diffusion.main(["tiny", *words]) == 0
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    assert anomaly_diffusion.main(["tiny", *words, "--seed", "5"]) == 2
