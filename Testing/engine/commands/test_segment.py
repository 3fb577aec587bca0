"""`difftumor segment`: files, tables, side-cars, many cases, and what is refused; and the worker's task."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.cli import main
from difftumor.grids import Grid
from difftumor.provenance import image_hash, read_sidecar
from difftumor.worker.protocol import read_array, write_array
from difftumor.worker.tasks import TASKS
from Testing.tiny_segmenter import write_tiny_segmenter

AFFINE = np.diag([-1.1, -1.1, 2.0, 1.0])
SHAPE = (40, 38, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, another, and a scan with its organ and one that is damaged."""
    folder = tmp_path_factory.mktemp("segment")
    write_tiny_segmenter(folder / "tiny", recommended={"min_diameter_mm": 3})
    write_tiny_segmenter(folder / "other", id="other")
    scans = folder / "scans"
    scans.mkdir()
    rng = np.random.default_rng(0)
    for name in ("anna", "ben"):
        ct = rng.normal(100, 40, SHAPE).round().astype(np.int16)
        organ = np.zeros(SHAPE, np.uint8)
        organ[8:30, 9:28, 5:15] = 5
        nib.save(nib.Nifti1Image(ct, AFFINE), scans / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(organ, AFFINE), scans / f"{name}-organs.nii.gz")
    return folder


def run(folder: Path, *words: object, model: str = "tiny") -> int:
    return main(
        ["segment", *map(str, words), "--model", str(folder / model), "--device", "cpu", "--quiet"]
    )


def test_a_scan_with_its_organ(folder, tmp_path, capsys):
    scan = folder / "scans" / "anna.nii.gz"
    out = tmp_path / "anna-segmentation.nii.gz"
    more = {name: tmp_path / f"{name}.nii.gz" for name in ("probability", "lesions")}
    report = tmp_path / "lesions.csv"
    code = run(
        folder, scan, "--out", out, "--organ", f"{folder}/scans/anna-organs.nii.gz:5",
        "--probability-out", more["probability"], "--lesions-out", more["lesions"],
        "--report", report, "--overlap", "0.5",
    )  # fmt: skip
    assert code == 0
    image = nib.load(out)
    labels = np.asarray(image.dataobj)
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.affine, AFFINE)
    organ = np.asarray(nib.load(folder / "scans" / "anna-organs.nii.gz").dataobj) == 5
    assert set(np.unique(labels[organ])) <= {1, 2}
    assert not labels[~organ].any()
    probability = np.asarray(nib.load(more["probability"]).dataobj)
    assert probability.dtype == np.float32
    assert 0 < probability.max() <= 1
    content = read_sidecar(tmp_path / "anna-segmentation.json")
    assert content["task"] == "segmentation"
    assert content["result"]["output_sha256"] == image_hash(labels, image.affine)
    assert content["parameters"]["overlap"] == 0.5
    assert content["result"]["settings"]["min_diameter_mm"] == 3
    assert content["result"]["windows"]["computed"] <= content["result"]["windows"]["of"]
    assert content["model"]["id"] == "tiny-segmenter"
    rows = list(csv.DictReader(report.open(encoding="utf-8")))
    assert len(rows) == len(content["result"]["lesions"])
    numbers = np.asarray(nib.load(more["lesions"]).dataobj)
    assert np.array_equal(numbers > 0, labels == 2)
    assert numbers.max() == len(rows)
    for row in rows:
        voxel = tuple(int(row[axis]) for axis in "ijk")
        assert numbers[voxel] == int(row["number"])
    said = capsys.readouterr().out
    assert f"{len(rows)} tumor" in said or "no tumor found" in said
    assert run(folder, scan, "--out", out) == 1  # it exists
    assert "--overwrite" in capsys.readouterr().err


def test_several_models_give_an_agreement_map(folder, tmp_path):
    scan, out = folder / "scans" / "anna.nii.gz", tmp_path / "labels.nrrd"
    both = [str(folder / "tiny"), str(folder / "other")]
    words = ["segment", str(scan), "--out", str(out), "--overlap", "0", "--min-diameter", "0"]
    agreement = tmp_path / "agreement.nii.gz"
    command = [*words, "--agreement-out", str(agreement), "--model", *both]
    assert main(command) == 0
    # Equal weights: all agree, but for ties.
    assert (np.asarray(nib.load(agreement).dataobj) == 1).mean() > 0.999
    members = json.loads((tmp_path / "labels.json").read_text())["model"]["members"]
    assert [one["id"] for one in members] == ["tiny-segmenter", "other"]
    assert main([*words, "--overwrite", "--agreement-out", str(agreement), "--model", both[0]]) == 2  # fmt: skip


def test_all_cases_of_a_folder(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--batch", folder / "scans", "--organ", f"{folder}/scans/{{case}}-organs.nii.gz:5"]
    assert run(folder, *words, "--out", out, "--overlap", "0") == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "anna-segmentation.json", "anna-segmentation.nii.gz",
        "ben-segmentation.json", "ben-segmentation.nii.gz", "lesions.csv",
    ]  # fmt: skip
    rows = list(csv.DictReader((out / "lesions.csv").open(encoding="utf-8")))
    assert {row["case"] for row in rows} <= {"anna", "ben"}
    assert "2 of 2 cases are done" in capsys.readouterr().out


def test_a_datalist_in_which_one_case_fails(folder, tmp_path, capsys):
    cases = [
        {"image": str(folder / "scans" / "anna.nii.gz"), "name": "first"},
        {"image": str(folder / "scans" / "missing.nii.gz")},
        {"image": str(folder / "scans" / "ben.nii.gz"), "organ": f"{folder}/scans/ben-organs.nii.gz:7"},
    ]  # fmt: skip
    datalist = tmp_path / "cases.json"
    datalist.write_text(json.dumps({"cases": cases}))
    out = tmp_path / "out"
    assert run(folder, "--datalist", datalist, "--out", out, "--overlap", "0") == 1
    said = capsys.readouterr()
    assert "1 of 3 cases are done" in said.out
    assert "missing.nii.gz" in said.err
    assert "has no label 7" in said.err
    assert (out / "first-segmentation.nii.gz").is_file()
    for wrong, words in (
        ([], "lists no case"),
        ([{"organ": "x"}], "names no image"),
        ([{"image": "a.nii", "steps": 3}], "unknown options: steps"),
        ([{"image": "a.nii"}, {"image": "b.nii", "name": "a"}], "are called a"),
        ([{"image": "a.nii", "name": "../a"}], "no file name"),
    ):
        datalist.write_text(json.dumps({"cases": wrong}))
        assert run(folder, "--datalist", datalist, "--out", tmp_path / "o2") == 2
        assert words in capsys.readouterr().err


def test_what_is_refused(folder, tmp_path, capsys):
    scan, out = folder / "scans" / "anna.nii.gz", tmp_path / "x.nii.gz"

    def refused(code: int, *words: object, model: str = "tiny") -> str:
        assert run(folder, *words, "--out", out, model=model) == code
        return capsys.readouterr().err

    assert "give an image" in refused(2)
    assert "one CT, not 2" in refused(2, scan, scan)
    assert "overlap must be" in refused(2, scan, "--overlap", "1")
    assert "JSON or CSV" in refused(2, scan, "--report", tmp_path / "x.txt")
    assert "no model file or folder" in refused(1, scan, model="nothing/here")
    assert "of a single case" in refused(2, "--batch", folder, "--report", tmp_path / "x.csv")
    empty = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), empty)
    assert "is empty" in refused(1, scan, "--organ", empty)
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] = 5000
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), elsewhere), empty)
    assert "do not overlap" in refused(1, scan, "--organ", empty)
    assert main(["segment", str(scan), "--out", str(out), "--model", "demo-abdomen-early"]) == 1
    assert "tumor synthesis" in capsys.readouterr().err
    assert not out.exists()


def test_a_mask_of_another_organ_is_pointed_out(folder, tmp_path, capsys):
    mask = tmp_path / "organs.nii.gz"
    organ = np.zeros(SHAPE, np.uint8)
    organ[10:20, 10:20, 5:10] = 7
    nib.save(nib.Nifti1Image(organ, AFFINE), mask)
    words = ["segment", str(folder / "scans" / "anna.nii.gz"), "--out", str(tmp_path / "x.nii.gz")]
    assert main([*words, "--model", str(folder / "tiny"), "--organ", f"{mask}:7"]) == 0
    assert "mask is of the pancreas, the model was made for the liver" in capsys.readouterr().err


class Context:
    """What the worker gives to a task."""

    def __init__(self) -> None:
        self.cache: dict = {}
        self.told: list = []

    def progress(self, *step) -> None:
        self.told.append(step)


def test_the_worker_s_task_gives_what_the_command_gives(folder, tmp_path):
    scan, out = folder / "scans" / "anna.nii.gz", tmp_path / "x.nii.gz"
    assert run(folder, scan, "--out", out, "--overlap", "0.5") == 0
    image = nib.load(scan)
    write_array(tmp_path, "scan", np.asarray(image.dataobj))
    request = {
        "parameters": {"models": [str(folder / "tiny")], "overlap": 0.5},
        "affine": image.affine.tolist(),
        "device": "cpu",
    }
    context = Context()
    answer = TASKS["segmentation"](request, tmp_path, context)
    labels = read_array(tmp_path, "labels")
    grid = Grid(SHAPE, image.affine)
    box = tuple(slice(*span) for span in answer["box"])
    whole = np.zeros(grid.shape, np.uint8)
    whole[box] = labels
    assert np.array_equal(whole, np.asarray(nib.load(out).dataobj))
    assert answer["sha256"]["output"] == image_hash(whole, grid.affine)
    assert read_array(tmp_path, "probability").dtype == np.float32
    assert read_array(tmp_path, "numbers").max() == len(answer["lesions"])
    assert not (tmp_path / "agreement.npy").exists()
    stages = [stage for stage, _, _ in context.told]
    assert stages[0] == "loading the model"
    assert "segmenting" in stages
    json.dumps(answer)
    # With an organ, from the cache.
    organ = np.zeros(SHAPE, np.uint8)
    organ[8:30, 9:28, 5:15] = 1
    write_array(tmp_path, "organ", organ)
    context.told.clear()
    again = TASKS["segmentation"](request, tmp_path, context)
    assert "organ" in again["sha256"]
    assert again["box"] == [[8, 30], [9, 28], [5, 15]]
    assert "loading the model" not in [stage for stage, _, _ in context.told]
