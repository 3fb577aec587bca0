"""`difftumor anomaly` as a person uses it: files, report, sweep, batch, cancel, replay."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

import difftumor
from difftumor.anomaly.layout import shown_plane
from difftumor.cli import main
from difftumor.grids import Grid
from difftumor.worker.protocol import Cancelled
from Testing.tiny_anomaly import MR, write_tiny_model

ENGINE = Path(difftumor.__file__).parents[1]
FAST = {"noise_level": 300, "guidance_scale": 10.0, "steps": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_tiny_model(folder, size=16, spacing_mm=[3.0, 3.0], recommended=FAST)


@pytest.fixture(scope="module")
def head_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "head"
    return write_tiny_model(
        folder, size=16, spacing_mm=[3.0, 3.0], recommended=FAST, id="tiny-head", **MR
    )


def scan(folder: Path, name: str = "ct.nii.gz", seed: int = 0) -> Path:
    """A left-handed, oblique CT of 20 x 22 x 6 voxels with a dark spot in slice 2, and its organ."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices((20, 22, 6))
    organ = ((i - 9) ** 2 + (j - 10) ** 2 < 70) & (k > 0) & (k < 5)
    spot = ((i - 7) ** 2 + (j - 12) ** 2 < 9) & (k == 2)
    hu = np.select([spot, organ], [20, 110], -60) + rng.normal(0, 4, organ.shape)
    turn = np.deg2rad(8)
    affine = np.eye(4)
    affine[:2, :2] = [[-2 * np.cos(turn), 2 * np.sin(turn)], [2 * np.sin(turn), 2 * np.cos(turn)]]
    affine[2, 2] = 4
    affine[:3, 3] = 30, -20, 100
    path = folder / name
    nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), path)
    mask = folder / name.replace(".nii.gz", "-organs.nii.gz")
    nib.save(nib.Nifti1Image(organ.astype(np.uint8) * 5, affine), mask)
    return path


@pytest.fixture
def ct(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return scan(tmp_path / "in")


def anomaly(model: Path, *words: str | Path) -> int:
    return main(["anomaly", *map(str, words), "--model", str(model), "--quiet"])


def organ_of(path: Path) -> str:
    return f"{path.with_name(path.name.replace('.nii.gz', '-organs.nii.gz'))}:5"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_all_outputs_lie_on_the_inputs_grid(ct, model, tmp_path, capsys):
    out, mask, raw = (tmp_path / f"{n}.nii.gz" for n in ("map", "mask", "raw"))
    healthy, report = tmp_path / "healthy.nii.gz", tmp_path / "report.json"
    code = anomaly(model, ct, "--organ", organ_of(ct), "--out", out, "--mask-out", mask, "--raw-out",
                   raw, "--counterfactual-out", healthy, "--report", report, "--no-gate")  # fmt: skip
    assert code == 0
    assert "probability of disease" in capsys.readouterr().out
    for path in (out, mask, raw, healthy):
        assert np.allclose(nib.load(path).affine, nib.load(ct).affine)
        assert voxels(path).shape == (20, 22, 6)
    organ = voxels(Path(organ_of(ct)[:-2])) == 5
    scaled, marked = voxels(out), voxels(mask)
    assert 0 <= scaled.min() < scaled.max() <= 1
    assert not scaled[~organ].any()
    assert set(np.unique(marked)) == {0, 1}
    assert np.array_equal(marked == 1, scaled > np.float32(0.35))
    before, after = voxels(ct), voxels(healthy)
    assert after.dtype == before.dtype
    assert np.array_equal(after[~organ], before[~organ])
    assert (after != before).any()
    assert "SYNTHETIC" in str(nib.load(healthy).header["descrip"])
    assert "never" in str(nib.load(out).header["descrip"])
    said = json.loads(report.read_text())
    assert [row["index"] for row in said["slices"]] == [1, 2, 3, 4]
    row = said["slices"][1]
    assert 0 <= row["probability"] <= 1
    assert row["area_mm2"] == pytest.approx(marked[:, :, 2].sum() * 4, abs=0.01)
    assert set(row["values"]["ct"]["marked"]) >= {"mean", "sd", "median"}
    assert said["lesions"]["volume_mm3"] == pytest.approx(marked.sum() * 16, abs=0.1)
    assert said["settings"]["noise_level"] == 300
    assert said["model"]["id"] == "tiny-anomaly"


def test_a_replay_gives_the_same_voxels_and_more_images(ct, model, tmp_path, capsys):
    out = tmp_path / "map.nii.gz"
    assert anomaly(model, ct, "--organ", organ_of(ct), "--out", out, "--noise-level", "400",
                   "--plane", "coronal", "--slices", "8:12", "--map", "one-sided") == 0  # fmt: skip
    again, healthy = tmp_path / "again.nii.gz", tmp_path / "healthy.nii.gz"
    assert main(["replay", str(tmp_path / "map.json"), "--out", str(again), "--counterfactual-out",
                 str(healthy), "--quiet"]) == 0  # fmt: skip
    assert again.read_bytes() == out.read_bytes()
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "map.json").read_bytes()
    assert healthy.is_file()
    assert "voxel for voxel" in capsys.readouterr().out
    content = json.loads((tmp_path / "map.json").read_text())
    assert content["task"] == "anomaly"
    assert content["synthetic"] is False
    assert content["parameters"]["noise_level"] == 400
    assert content["parameters"]["steps"] == 5  # resolved, whatever the card recommends later


def test_a_replay_refuses_other_images_and_says_when_the_model_differs(ct, model, tmp_path, capsys):
    out = tmp_path / "map.nii.gz"
    assert anomaly(model, ct, "--organ", organ_of(ct), "--out", out, "--slices", "2") == 0
    (tmp_path / "other").mkdir()
    other = scan(tmp_path / "other", seed=5)
    sidecar, new = str(tmp_path / "map.json"), str(tmp_path / "new.nii.gz")
    assert main(["replay", sidecar, "--out", new, "--scan", str(other), "--quiet"]) == 1
    assert "the image ct is not the one" in capsys.readouterr().err
    wrong = write_tiny_model(
        tmp_path / "m2", size=16, spacing_mm=[3, 3], recommended=FAST, half=True
    )
    assert main(["replay", sidecar, "--out", new, "--model", str(wrong), "--quiet"]) == 1
    assert "the model is not the one" in capsys.readouterr().err
    assert not Path(new).exists()
    content = json.loads((tmp_path / "map.json").read_text())
    content["result"]["output_sha256"] = "0" * 64
    (tmp_path / "changed.json").write_text(json.dumps(content))
    assert main(["replay", str(tmp_path / "changed.json"), "--out", new, "--quiet"]) == 1
    assert "differs from the original" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["parameters"].update(noise_level=0),
        lambda c: c["parameters"].update(plane="oblique"),
        lambda c: c["parameters"].pop("model"),
        lambda c: c["inputs"]["ct"].pop("sha256"),
        lambda c: c["inputs"].pop("ct"),
        lambda c: c.update(parameters=[]),
    ],
)
def test_a_damaged_side_car_is_refused_in_a_sentence(ct, model, tmp_path, capsys, damage):
    assert (
        anomaly(model, ct, "--organ", organ_of(ct), "--out", tmp_path / "m.nii.gz", "--slices", "2")
        == 0
    )
    content = json.loads((tmp_path / "m.json").read_text())
    damage(content)
    (tmp_path / "bad.json").write_text(json.dumps(content))
    code = main(
        ["replay", str(tmp_path / "bad.json"), "--out", str(tmp_path / "x.nii.gz"), "--quiet"]
    )
    said = capsys.readouterr().err
    assert said.startswith("difftumor: ") if code else "model" not in content["parameters"]
    assert "Traceback" not in said


def test_a_report_alone_writes_nothing_else(ct, model, tmp_path):
    assert anomaly(model, ct, "--organ", organ_of(ct), "--report", tmp_path / "r.json") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "r.json"]


def test_otsu_and_normalisation_reach_the_engine(ct, model, tmp_path):
    assert anomaly(model, ct, "--organ", organ_of(ct), "--report", tmp_path / "r.json", "--threshold",
                   "otsu", "--normalisation", "volume", "--smoothing", "1.5", "--largest-component",
                   "--guidance-stop", "0.2", "--guidance-weighting", "noise", "--no-gate") == 0  # fmt: skip
    settings = json.loads((tmp_path / "r.json").read_text())["settings"]
    wanted = {"threshold_rule": "otsu", "normalisation": "volume", "smoothing_mm": 1.5, "gate": False,
              "largest_component": True, "guidance_stop": 0.2, "guidance_weighting": "noise"}  # fmt: skip
    assert {name: settings[name] for name in wanted} == wanted


def test_a_sweep_draws_every_n_with_every_s(ct, model, tmp_path):
    sheet, report = tmp_path / "sheet.png", tmp_path / "r.json"
    code = anomaly(model, ct, "--organ", organ_of(ct), "--report", report, "--sheet", sheet,
                   "--sweep-noise", "400,200", "--sweep-scale", "0,10,50", "--sheet-slice", "2")  # fmt: skip
    assert code == 0
    rows = json.loads(report.read_text())["sweep"]
    pairs = [(row["noise_level"], row["guidance_scale"]) for row in rows]
    assert pairs == [(n, s) for n in (200, 400) for s in (0, 10, 50)]
    assert all(row["index"] == 2 for row in rows)
    assert rows[0]["map_max"] == 0  # S = 0: the guided difference is empty
    assert rows[2]["map_max"] > rows[1]["map_max"] > 0
    picture = matplotlib.image.imread(sheet)
    assert picture.shape[0] > 300
    assert picture[..., :3].std() > 0.05


def test_a_sheet_alone_looks_at_the_most_suspicious_slice(ct, model, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert anomaly(model, ct, "--organ", organ_of(ct), "--sheet", sheet, "--sweep-noise", "200",
                   "--sweep-scale", "10") == 0  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "sheet.png"]
    assert "sweep over N and S" in capsys.readouterr().out


def heads(folder: Path, prefix: str = "anna-", seed: int = 0) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    i, j, k = np.indices((16, 18, 5))
    brain = ((i - 8) ** 2 + (j - 9) ** 2 < 49) & (k < 4)
    files = {}
    for name in ("t1", "t1c", "t2", "flair"):
        values = np.where(brain, 200 + rng.normal(0, 30, brain.shape), 0).astype(np.float32)
        files[name] = folder / f"{prefix}{name}.nii.gz"
        nib.save(nib.Nifti1Image(values, np.diag([3.0, 3, 5, 1])), files[name])
    return files


def test_four_sequences_in_any_order(head_model, tmp_path):
    files = heads(tmp_path / "head")
    words = [files["flair"], f"t1ce={files['t1c']}", files["t2"], files["t1"]]
    out, healthy = tmp_path / "map.nii.gz", tmp_path / "healthy.nii.gz"
    assert (
        anomaly(head_model, *words, "--out", out, "--counterfactual-out", healthy, "--no-gate") == 0
    )
    made = {p.name for p in tmp_path.iterdir()} - {"head"}
    assert made == {"map.nii.gz", "map.json", *(f"healthy-{n}.nii.gz" for n in files)}
    content = json.loads((tmp_path / "map.json").read_text())
    assert list(content["inputs"]) == ["t1", "t1c", "t2", "flair"]
    again = tmp_path / "again.nii.gz"
    assert main(["replay", str(tmp_path / "map.json"), "--out", str(again), "--quiet"]) == 0
    moved = heads(tmp_path / "moved")
    again = tmp_path / "again2.nii.gz"
    assert main(["replay", str(tmp_path / "map.json"), "--out", str(again), "--quiet",
                 "--images", *map(str, moved.values())]) == 0  # fmt: skip
    assert main(["replay", str(tmp_path / "map.json"), "--out", str(tmp_path / "x.nii.gz"), "--quiet",
                 "--scan", str(moved["t1"])]) == 2  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_batch_makes_a_table_and_goes_on_after_a_bad_case(model, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for seed, name in enumerate(("a", "b")):
        scan(folder, f"{name}.nii.gz", seed)
    (folder / "bad.nii.gz").write_bytes(b"no image")
    words = (
        "--batch",
        folder,
        "--out",
        out,
        "--organ",
        f"{folder}/{{case}}-organs.nii.gz:5",
        "--no-gate",
    )
    assert anomaly(model, *words) == 1
    rows = table(out / "anomaly.csv")
    assert [(row["case"], row["status"]) for row in rows] == [
        ("a", "done"),
        ("b", "done"),
        ("bad", "failed"),
    ]
    assert rows[2]["error"]
    assert float(rows[0]["marked_ml"]) > 0
    assert rows[0]["map"] == "a-anomaly.nii.gz"
    assert {p.name for p in out.iterdir()} == {
        "anomaly.csv",
        *(f"{n}-anomaly{end}" for n in "ab" for end in (".nii.gz", ".json", "-mask.nii.gz")),
    }
    # The same command takes over what is finished; another request does not.
    stamp = (out / "a-anomaly.nii.gz").stat().st_mtime_ns
    (out / "b-anomaly.json").unlink()
    (out / "b-anomaly.nii.gz").unlink()
    (out / "b-anomaly-mask.nii.gz").unlink()
    assert anomaly(model, *words) == 1
    assert [row["status"] for row in table(out / "anomaly.csv")] == ["kept", "done", "failed"]
    assert (out / "a-anomaly.nii.gz").stat().st_mtime_ns == stamp
    capsys.readouterr()
    assert anomaly(model, *words, "--noise-level", "200") == 1
    assert [row["status"] for row in table(out / "anomaly.csv")] == ["failed"] * 3
    assert "--overwrite" in capsys.readouterr().err
    # The table belongs to the last request; the results of the first are untouched.
    assert (out / "a-anomaly.nii.gz").stat().st_mtime_ns == stamp


def test_a_batch_of_heads(head_model, tmp_path):
    heads(tmp_path / "in", "anna-", 1)
    heads(tmp_path / "in", "bert-", 2)
    assert anomaly(head_model, "--batch", tmp_path / "in", "--out", tmp_path / "out") == 0
    assert [row["case"] for row in table(tmp_path / "out" / "anomaly.csv")] == ["anna", "bert"]


def cancelling(monkeypatch, after: float) -> list[int]:
    """Let the progress callback stop the computation after some calls, as Ctrl-C does; counts the calls."""
    from difftumor.commands import stopping

    calls = [0]

    def callback(_self, stage, _done, _total):
        calls[0] += stage.startswith("rewriting")
        if calls[0] > after:
            raise Cancelled

    monkeypatch.setattr(stopping.Stopping, "__call__", callback)
    return calls


@pytest.fixture
def calls_of_a_case(model, tmp_path, monkeypatch) -> int:
    """How often the callback is called for one of our cases, with one slice per batch from now on."""
    monkeypatch.setattr("difftumor.anomaly.rewriting.CPU_BATCH", 1)
    (tmp_path / "counted").mkdir()
    path = scan(tmp_path / "counted")
    with monkeypatch.context() as patch:
        calls = cancelling(patch, after=np.inf)
        assert (
            anomaly(model, path, "--organ", organ_of(path), "--report", tmp_path / "counted/r.json")
            == 0
        )
    return calls[0]


def test_a_cancel_keeps_the_finished_slices(
    ct, model, tmp_path, capsys, monkeypatch, calls_of_a_case
):
    with monkeypatch.context() as patch:
        cancelling(patch, after=calls_of_a_case * 0.6)
        code = anomaly(
            model, ct, "--organ", organ_of(ct), "--out", tmp_path / "part.nii.gz", "--no-gate"
        )
    assert code == 1
    said = capsys.readouterr().err
    assert "slices are missing" in said
    content = json.loads((tmp_path / "part.json").read_text())
    finished = [row["index"] for row in content["result"]["slices"]]
    assert 0 < len(finished) < 4
    assert content["result"]["unfinished"] == 4 - len(finished)
    part = voxels(tmp_path / "part.nii.gz")
    assert not part[:, :, finished[-1] + 1 :].any()
    # What was finished can be made again, and equals the same slices of the whole.
    again = tmp_path / "again.nii.gz"
    assert main(["replay", str(tmp_path / "part.json"), "--out", str(again), "--quiet"]) == 0
    assert (
        anomaly(model, ct, "--organ", organ_of(ct), "--out", tmp_path / "all.nii.gz", "--no-gate")
        == 0
    )
    assert np.array_equal(voxels(tmp_path / "all.nii.gz")[:, :, finished], part[:, :, finished])


def test_a_cancel_before_the_first_slice_leaves_nothing(ct, model, tmp_path, capsys, monkeypatch):
    cancelling(monkeypatch, after=0)
    code = anomaly(model, ct, "--organ", organ_of(ct), "--out", tmp_path / "part.nii.gz")
    assert code == 1
    assert "cancelled" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_cancelled_batch_keeps_its_table(model, tmp_path, monkeypatch, capsys, calls_of_a_case):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        scan(folder, f"{name}.nii.gz", seed)
    words = ("--batch", folder, "--out", out, "--organ", f"{folder}/{{case}}-organs.nii.gz:5")
    with monkeypatch.context() as patch:
        cancelling(patch, after=calls_of_a_case * 1.6)
        assert anomaly(model, *words) == 1
    rows = table(out / "anomaly.csv")
    assert [(row["case"], row["status"]) for row in rows] == [("a", "done"), ("b", "cancelled")]
    assert "the same command continues" in capsys.readouterr().err
    assert anomaly(model, *words) == 0
    rows = table(out / "anomaly.csv")
    assert [row["status"] for row in rows] == ["kept", "done", "done"]
    assert [row["slices"] for row in rows] == ["4"] * 3


def test_control_c_is_heard_and_the_time_was_told(tmp_path):
    (tmp_path / "in").mkdir()
    ct = scan(tmp_path / "in")
    slow = {"noise_level": 900, "guidance_scale": 10.0, "steps": 1000}
    model = write_tiny_model(tmp_path / "slow", size=16, spacing_mm=[3, 3], recommended=slow)
    words = [
        "anomaly",
        ct,
        "--organ",
        organ_of(ct),
        "--model",
        model,
        "--out",
        tmp_path / "m.nii.gz",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "difftumor", *map(str, words)],
        cwd=ENGINE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if line.startswith("rewriting"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=300)[1]
    assert process.returncode == 1, rest
    assert any("about" in line and "for 4 slices" in line for line in heard), heard
    assert "stopping" in rest
    assert "Traceback" not in rest
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith((".difftumor", "m."))]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a.nii.gz",),
        ("a.nii.gz", "--batch", "folder", "--out", "o"),
        ("a.nii.gz", "--mask-out", "m.nii.gz"),
        ("a.nii.gz", "b.nii.gz", "--out", "o.nii.gz"),
        ("a.nii.gz", "--out", "o.nii.gz", "--noise-level", "0"),
        ("a.nii.gz", "--out", "o.nii.gz", "--noise-level", "1000"),
        ("a.nii.gz", "--out", "o.nii.gz", "--guidance-scale", "-1"),
        ("a.nii.gz", "--out", "o.nii.gz", "--guidance-scale", "nan"),
        ("a.nii.gz", "--out", "o.nii.gz", "--steps", "1"),
        ("a.nii.gz", "--out", "o.nii.gz", "--slices", "5:5"),
        ("a.nii.gz", "--out", "o.nii.gz", "--slices", "a:b"),
        ("a.nii.gz", "--out", "o.nii.gz", "--slices", "-3:2"),
        ("a.nii.gz", "--out", "o.nii.gz", "--threshold", "1.5"),
        ("a.nii.gz", "--out", "o.nii.gz", "--threshold", "half"),
        ("a.nii.gz", "--out", "o.nii.gz", "--plane", "oblique"),
        ("a.nii.gz", "--out", "o.nii.gz", "--sweep-noise", "100"),
        ("a.nii.gz", "--sheet", "s.png", "--sweep-noise", "100"),
        ("a.nii.gz", "--sheet", "s.jpg", "--sweep-noise", "100", "--sweep-scale", "3"),
        ("a.nii.gz", "--sheet", "s.png", "--sweep-noise", "100,x", "--sweep-scale", "3"),
        ("a.nii.gz", "--sheet", "s.png", "--sweep-noise", "100", "--sweep-scale", "-3"),
        ("a.nii.gz", "--out", "o.nii.gz", "--report", "o.json"),
        ("--batch", "nowhere", "--out", "o"),
        ("--batch", "nowhere"),
    ],
)  # fmt: skip
def test_wrong_usage(model, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert anomaly(model, *words) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_planes_are_shown_as_a_radiologist_looks_at_them():
    # A voxel at the patient's right, front and head, whatever way the voxel axes run.
    for flips in ((1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)):
        for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
            affine = np.eye(4)
            affine[:3, :3] = np.diag(flips)[:, order]
            grid = Grid((4, 4, 4), affine)
            array = np.zeros((4, 4, 4))
            corner = max(np.ndindex(4, 4, 4), key=lambda at, grid=grid: grid.to_ras(at).sum())
            array[corner] = 1
            for plane, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
                voxel_axis = list(order).index(axis)
                shown, aspect = shown_plane(array, grid, plane, corner[voxel_axis])
                assert aspect == 1
                row, column = np.argwhere(shown == 1)[0]
                assert (row, column) == (0, 0), (flips, order, plane)


def test_the_demonstration_shows_the_lesion_of_a_phantom(tmp_path, monkeypatch):
    from difftumor.commands import demo_anomaly
    from difftumor.commands.console import Reporter
    from difftumor.commands.demo import page_text

    make = demo_anomaly.make_abdomen
    coarse = {"spacing_mm": (3.0, 3.0, 8.0)}
    monkeypatch.setattr(demo_anomaly, "make_abdomen", lambda *a, **k: make(*a, **{**k, **coarse}))
    model = write_tiny_model(
        tmp_path / "m", size=16, spacing_mm=[6, 6], recommended=FAST, organs=["kidney"]
    )
    (tmp_path / "out").mkdir()
    trial = demo_anomaly.Trial(str(model), tmp_path / "out")
    with Reporter(quiet=True) as reporter:
        section = demo_anomaly.show(trial, "cpu", {}, reporter, overwrite=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (*trial.files, trial.picture)
    }
    assert "Dice" in section
    page = page_text([], [section])
    assert trial.picture.name in page
    assert "Anomaly heat maps" in page
    assert "Anomaly heat maps" not in page_text([], [])
    picture = matplotlib.image.imread(trial.picture)
    assert picture[..., :3].std() > 0.05
