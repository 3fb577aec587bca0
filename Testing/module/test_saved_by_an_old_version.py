"""What version 0.1.0 has saved opens in this one: scene, side-cars, learned model, reader study."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

SAVED = Path(__file__).parents[1] / "saved_by_0_1_0"
FACTS = json.loads((SAVED / "facts.json").read_text(encoding="utf-8"))


@pytest.fixture
def saved(tmp_path):
    """A copy, as the tests write into it."""
    folder = tmp_path / "saved"
    shutil.copytree(SAVED, folder)
    return folder


@pytest.fixture
def opened(tmp_path):
    """The old scene, opened."""
    slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install slicer-core)")
    pytest.importorskip("PySide6", reason="needs PySide6 (pip install PySide6-Essentials)")
    from Testing import slicer_stand_in
    from Testing.module.scene.scenes import make_scene

    slicer_stand_in.start()
    assert slicer
    scene = make_scene(tmp_path / "cache")
    assert scene.ReadFromMRB(str(SAVED / "scene.mrb"), True)
    return scene


def test_results_of_an_old_scene_are_found_with_their_side_cars(opened):
    from DiffTumorSlicerLib.anomaly.results import maps_of, slices_of
    from DiffTumorSlicerLib.scene.results import input_of, sidecar_of
    from Testing.module.scene.scenes import voxels

    for name, total in FACTS["voxels"].items():
        assert voxels(opened.GetFirstNodeByName(name)).astype(float).sum() == total, name
    result = opened.GetFirstNodeByName(FACTS["names"]["r1"])
    assert input_of(result).GetName() == "CT"
    assert sidecar_of(result)["parameters"]["seed"] == 5
    assert sidecar_of(result)["earlier"][0]["parameters"]["seed"] == 3
    (found,) = maps_of(opened)
    assert found.GetName() == FACTS["names"]["map"]
    assert len(slices_of(found)) == 2
    segmented = opened.GetFirstNodeByName(FACTS["names"]["segmented"])
    assert sidecar_of(segmented)["task"] == "segmentation"


def test_settings_of_an_old_scene_are_kept(opened):
    from DiffTumorSlicerLib.jobs.parameter_node import open_parameters

    parameters, sentence = open_parameters(opened.GetFirstNodeByName("DiffTumorSlicer"))
    assert sentence == ""
    assert parameters.volume.GetName() == "CT"
    assert parameters.segment_id == FACTS["ids"]["liver"]
    assert parameters.result.GetName() == FACTS["names"]["r1"]
    assert parameters.map.GetName() == FACTS["names"]["map"]
    assert parameters.random_placement
    synthesis, anomaly = parameters.synthesis, parameters.anomaly
    assert (synthesis.seed, synthesis.size, synthesis.feather_mm) == (77, "medium", 2.5)
    assert synthesis.organ == "kidney"
    assert (anomaly.noise_level, anomaly.guidance_scale, anomaly.threshold) == (333, 44.0, 0.5)
    assert (parameters.segmenting.overlap, parameters.segmenting.min_diameter_mm) == (0.5, 9.0)
    assert parameters.learning.members == 7
    assert parameters.segmenting_way == "learned"
    assert (parameters.map_opacity, parameters.map_colors) == (0.3, "cividis")


def test_the_last_tumor_of_an_old_result_can_be_removed(opened):
    from DiffTumorSlicerLib.synthesis.results import remove_last
    from Testing.module.scene.scenes import voxels

    result = opened.GetFirstNodeByName(FACTS["names"]["r1"])
    before = voxels(result)
    assert remove_last(opened, result) == 1
    assert (voxels(result) != before).any()
    remove_last(opened, result)
    assert opened.GetFirstNodeByName(FACTS["names"]["r1"]) is None


def here(saved: Path, name: str) -> Path:
    """A side-car whose inputs lie in the copied folder."""
    path = saved / f"{name}.json"
    path.write_text(path.read_text(encoding="utf-8").replace("/somewhere", str(saved)), "utf-8")
    return path


@pytest.mark.parametrize("name", ["synthesis", "anomaly"])
def test_an_old_side_car_makes_the_same_voxels_again(saved, name, capsys):
    from difftumor.cli import main

    out = saved / "again.nii.gz"
    assert main(["replay", str(here(saved, name)), "--out", str(out), "--device", "cpu"]) == 0
    assert "the same as the original, voxel for voxel" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["synthesis", "anomaly", "segmentation", "learning"])
def test_the_request_of_an_old_side_car_is_a_request_of_today(name):
    from difftumor import parameters
    from difftumor.provenance import read_sidecar

    kinds = {
        "synthesis": parameters.SynthesisParameters,
        "anomaly": parameters.AnomalyParameters,
        "segmentation": parameters.SegmentationParameters,
        "learning": parameters.LearningParameters,
    }
    content = read_sidecar(SAVED / f"{name}.json")
    again = parameters.to_dict(parameters.from_dict(kinds[name], content["parameters"]))
    assert json.loads(json.dumps(again)) == content["parameters"]


def test_an_old_learned_model_segments(saved):
    import nibabel

    from difftumor.cli import main

    words = ["learn", str(saved / "case.nii.gz"), "--learned", str(saved / "learned")]
    words += ["--organ", f"{saved / 'case-organs.nii.gz'}:2", "--out", str(saved / "l.nii.gz")]
    assert main([*words, "--device", "cpu"]) == 0
    assert np.asarray(nibabel.load(saved / "l.nii.gz").dataobj).any()


@pytest.mark.skipif(os.name == "nt", reason="the journal was locked on Linux")
def test_an_old_reading_goes_on_and_is_merged(saved):
    from difftumor.cli import main
    from difftumor.reader_study.session import Answer, ReadingSession

    session = ReadingSession.join(saved / "study" / "readers" / "R1", "R1")
    assert session.progress == (1, 4)
    while not session.finished:
        session.shown()
        session.answer(Answer("real", 3))
    session.close()
    assert main(["study", "merge", str(saved / "study")]) == 0
    assert (saved / "study" / "answers.csv").exists() or list(saved.rglob("answers.csv"))
