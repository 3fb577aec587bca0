"""`difftumor learn` and the worker's task: files, side-cars, the same answer by both ways, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from difftumor.cli import main
from difftumor.ellipsoids import ellipsoid_mask
from difftumor.grids import Grid
from difftumor.learning.learned import read_learned_model
from difftumor.parameters import LearningParameters, to_dict
from difftumor.provenance import image_hash, read_sidecar
from difftumor.worker.protocol import read_array, write_array
from difftumor.worker.tasks import TASKS
from Testing.tiny_anomaly import MR, write_tiny_model

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
SHAPE = (30, 28, 10)
PAINTED = (3, 6)
FAST = {"members": 2, "steps": 30, "timesteps": (20,)}
SEQUENCES = ("t1", "t1c", "t2", "flair")


@dataclass(frozen=True, eq=False)
class Files:
    """A folder with models, a CT, four sequences, the organ and labels on two slices."""

    folder: Path
    arrays: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> Path:
        return self.folder / f"{name}.nii.gz"

    def write(self, name: str, array: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
        nib.save(nib.Nifti1Image(array, affine), self[name])
        return self[name]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("learn")
    write_tiny_model(folder / "ct")
    write_tiny_model(folder / "mr", id="tiny-head", **MR)
    grid = Grid(SHAPE, AFFINE)
    organ = ellipsoid_mask(grid, grid.center_ras, (20.0, 20.0, 18.0))
    tumor = ellipsoid_mask(grid, np.add(grid.center_ras, (4.0, -3.0, 0.0)), (9.0, 9.0, 14.0))
    grain = np.random.default_rng(0).integers(-6, 7, SHAPE)
    ct = np.where(organ, np.where(tumor, 130, 60) + grain, -100).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[..., PAINTED] = tumor[..., PAINTED]
    arrays = {"ct": ct, "organ": 5 * organ.astype(np.uint8), "labels": labels, "truth": tumor}
    made = Files(folder, arrays)
    for name in ("ct", "organ", "labels"):
        made.write(name, arrays[name])
    for n, name in enumerate(SEQUENCES):
        arrays[name] = np.where(organ, ct + 20 * n, 0).astype(np.int16)
        made.write(name, arrays[name])
    return made


def run(
    files: Files, out: Path, *words: object, model: str | None = "ct", **changes: object
) -> int:
    given = {"labels": files["labels"], "organ": f"{files['organ']}:5", "images": [files["ct"]]}
    given |= changes
    options = ["--labels", given["labels"], "--out", out, "--device", "cpu", "--quiet"]
    options += ["--organ", given["organ"]] if given["organ"] else []
    options += ["--model", files.folder / model] if model else []
    for name, value in FAST.items():
        told = ",".join(map(str, value)) if isinstance(value, tuple) else value
        options += [f"--{name}", told]
    return main(["learn", *map(str, [*given["images"], *options, *words])])


def request(files: Files, model: str = "ct", **changes: Any) -> dict[str, Any]:
    parameters = LearningParameters(model=str(files.folder / model), **FAST)
    return {
        "parameters": to_dict(parameters),
        "affine": AFFINE.tolist(),
        "device": "cpu",
        **changes,
    }


def put(folder: Path, files: Files, **changes: NDArray[Any] | None) -> Path:
    folder.mkdir(parents=True)
    usual = {"image_ct": "ct", "labels": "labels", "organ": "organ"}
    arrays = {name: files.arrays[there] for name, there in usual.items()} | changes
    for name, array in arrays.items():
        if array is not None:
            write_array(folder, name, array)
    return folder


def a_context() -> Any:
    return SimpleNamespace(cache={}, progress=lambda *_: None)


def test_a_case_with_all_its_files(files, tmp_path, capsys):
    out = tmp_path / "tumor.nii.gz"
    code = run(
        files, out, "--uncertainty-out", tmp_path / "doubt.nii.gz", "--report", tmp_path / "r.json",
        "--model-out", tmp_path / "learned",
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    assert "learned from 2 slices" in said
    assert "label slice" in said
    image = nib.load(out)
    found, truth = np.asarray(image.dataobj), files.arrays["truth"]
    assert np.allclose(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(found[..., PAINTED], files.arrays["labels"][..., PAINTED])
    assert 2 * (found & truth).sum() > 0.85 * (found.sum() + truth.sum())
    doubt = np.asarray(nib.load(tmp_path / "doubt.nii.gz").dataobj)
    assert doubt.dtype == np.float32
    assert 0 <= doubt.min() <= doubt.max() <= 1
    sidecar = read_sidecar(tmp_path / "tumor.json")
    assert sidecar["task"] == "learn"
    assert sidecar["inputs"]["labels"]["path"] == str(files["labels"])
    assert sidecar["result"]["output_sha256"] == image_hash(found, image.affine)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["labelled"] == list(PAINTED)
    assert report["next_slice"] not in PAINTED
    assert report["label_names"] == {"1": "tumor"}
    learned = read_learned_model(tmp_path / "learned")
    assert learned.card["id"] == "learned"
    # Nothing is replaced unasked; what is there stays.
    before = out.read_bytes()
    assert run(files, out) == 1
    assert "already" in capsys.readouterr().err
    assert run(files, tmp_path / "x.nii.gz", "--model-out", tmp_path / "learned") == 1
    assert not (tmp_path / "x.nii.gz").exists()
    assert out.read_bytes() == before


def test_what_was_learned_segments_the_case_again(files, tmp_path, capsys):
    first, again, folder = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", tmp_path / "learned"
    assert run(files, first, "--keep", "all", "--model-out", folder) == 0
    words = ["learn", files["ct"], "--organ", f"{files['organ']}:5", "--learned", folder]
    words += ["--model", files.folder / "ct", "--out", again, "--device", "cpu", "--quiet"]
    assert main([str(word) for word in words]) == 0
    assert "segmented with" in capsys.readouterr().out
    others = np.setdiff1d(np.arange(SHAPE[2]), PAINTED)
    one, other = (np.asarray(nib.load(path).dataobj)[..., others] for path in (first, again))
    assert np.array_equal(one, other)
    content = read_sidecar(tmp_path / "b.json")
    assert content["inputs"]["learned"]["path"] == str(folder)
    assert content["result"]["settings"]["learned"] == "learned"
    # With another diffusion model, without its own, with labels too, or with a folder of something else.
    words[-4] = tmp_path / "c.nii.gz"
    for wrong, code, said in (
        (["--model", "demo-abdomen-anomaly"], 1, "other weights"),
        (["--labels", files["labels"]], 2, "either the labels"),
        (["--model-out", tmp_path / "x"], 2, "nothing is learned"),
        (["--learned", files.folder / "ct"], 1, "anomaly heat maps"),
    ):
        assert main([str(word) for word in [*words, *wrong]]) == code
        assert said in capsys.readouterr().err
    assert run(files, tmp_path / "c.nii.gz", model="ct") == 0
    without = [str(word) for word in words if word not in ("--learned", folder)]
    assert main(without) == 2


def test_the_worker_gives_what_the_command_gives(files, tmp_path):
    assert run(files, tmp_path / "a.nii.gz", organ=files["organ"]) == 0
    folder = put(tmp_path / "request", files)
    wanted = request(files, model_folder=str(tmp_path / "model"))
    answer = TASKS["learn"](wanted, folder, a_context())
    box = tuple(slice(*span) for span in answer["box"])
    whole = np.zeros(SHAPE, np.uint8)
    whole[box] = read_array(folder, "segmentation")
    assert np.array_equal(whole, np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj))
    assert answer["sha256"]["output"] == image_hash(whole, AFFINE)
    assert answer["sha256"]["labels"] == image_hash(files.arrays["labels"], AFFINE)
    assert read_array(folder, "uncertainty").dtype == np.float32
    assert answer["learned"]["task"] == "segmentation"
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_four_sequences_need_no_mask(files, tmp_path):
    images = [f"{name}={files[name]}" for name in SEQUENCES]
    out = tmp_path / "tumor.nii.gz"
    assert run(files, out, "--blocks", "1,3", model="mr", images=images, organ=None) == 0
    content = read_sidecar(tmp_path / "tumor.json")
    assert set(content["inputs"]) == {*SEQUENCES, "labels"}
    assert "WT" in content["result"]["volumes_mm3"]


def bad_labels(files: Files) -> dict[str, Path]:
    labels = files.arrays["labels"]
    moved = AFFINE.copy()
    moved[0, 3] += 3
    files.write("moved", labels, moved)
    files.write("cut", labels[:-2])
    files.write("unpainted", 0 * labels)
    files.write("soft", labels.astype(np.float32) * 0.5)
    files.write("no_organ", 0 * labels)
    return {name: files[name] for name in ("moved", "cut", "unpainted", "soft")}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("moved", "voxels lie up to 3 mm apart"),
        ("cut", "another grid"),
        ("unpainted", "on no slice"),
        ("soft", "no label map"),
    ],
)
def test_labels_that_are_refused(wrong, said, files, tmp_path, capsys):
    assert run(files, tmp_path / "out.nii.gz", labels=bad_labels(files)[wrong]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("said", "words", "changes"),
    [
        ("is empty: no voxel is set", (), {"organ": "no_organ"}),
        ("needs its mask", (), {"organ": None}),
        ("task anomaly or representation", ("--model", "demo-abdomen-early"), {"model": None}),
        ("lies outside the images", ("--labelled", "3,99"), {}),
        ("none of the slices 4", ("--labelled", "4"), {}),
        ("blocks must be 0 to 3", ("--blocks", "9"), {}),
        ("timesteps must be 0 to 999", ("--timesteps", "1000"), {}),
    ],
)
def test_requests_that_are_refused(said, words, changes, files, tmp_path, capsys):
    bad_labels(files)
    given: dict[str, Any] = dict(changes)
    if given.get("organ"):
        given["organ"] = files[given["organ"]]
    assert run(files, tmp_path / "out.nii.gz", *words, **given) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--labelled", "three"), "labelled must be whole numbers of 0 or more; got 'three'"),
        (("--members", "0"), "members must be 1 to 32"),
        (("--slices", "5:3"), "slices"),
    ],
)
def test_options_that_are_refused(words, said, files, tmp_path, capsys):
    assert run(files, tmp_path / "out.nii.gz", *words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_sequence_is_named(files, tmp_path, capsys):
    images = [f"{name}={files[name]}" for name in ("t1", "t1c", "flair")]
    assert run(files, tmp_path / "out.nii.gz", model="mr", images=images, organ=None) == 2
    assert "t2 is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_learned_model_is_no_source_of_features(files, tmp_path, capsys):
    assert run(files, tmp_path / "a.nii.gz", "--model-out", tmp_path / "learned") == 0
    words = ("--model", tmp_path / "learned")
    assert run(files, tmp_path / "b.nii.gz", *words, model=None) == 1
    assert "task anomaly or representation" in capsys.readouterr().err


def test_what_the_worker_refuses(files, tmp_path):
    labels = files.arrays["labels"]
    moved = AFFINE.copy()
    moved[0, 3] += 3
    for number, (said, arrays, wishes) in enumerate(
        (
            ("no image", {"image_ct": None}, {}),
            ("no labels", {"labels": None}, {}),
            ("another grid", {"labels": labels[:-1]}, {}),
            ("another grid", {}, {"affines": {"labels": moved.tolist()}}),
            ("on no slice", {"labels": 0 * labels}, {}),
            ("the organ mask is empty", {"organ": 0 * labels}, {}),
            ("needs its mask", {"organ": None}, {}),
            ("missing", {}, {"model": "mr"}),
        )
    ):
        folder = put(tmp_path / str(number), files, **arrays)
        with pytest.raises(ValueError, match=said):
            TASKS["learn"](request(files, **wishes), folder, a_context())
        assert not (folder / "segmentation.npy").exists()
