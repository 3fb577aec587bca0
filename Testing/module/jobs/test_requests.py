"""What holds for every task alike: memory, cancel, faults, side-cars, and a newer request of the same panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from Testing.module.scene.anomaly_answers import CT_MODEL, answer_map, list_model
from Testing.module.scene.scenes import add_ct, add_segmentation, slicer, voxels
from Testing.module.scene.segmentation_answers import (
    LEARNED,
    SEGMENTER,
    answer_learning,
    answer_segmentation,
    list_learned,
    list_segmenter,
)

from difftumor.parameters import Ellipsoid, SynthesisParameters  # isort: skip
from difftumor.weights import models  # isort: skip
from DiffTumorSlicerLib.jobs.host import Host  # isort: skip
from DiffTumorSlicerLib.scene.results import sidecar_of  # isort: skip
from DiffTumorSlicerLib.session import Session, SessionError  # isort: skip

SHAPE = (60, 52, 44)
SYNTHESIZER = "ct-synthesis"
GB = 10**9


@dataclass
class Bench:
    """A case with its organ and painted slices, and a session on a computer that the test measures."""

    scene: Any
    bridge: Any
    memory: float = 64 * GB
    disk: float = 1000 * GB

    def __post_init__(self):
        host = Host(free_memory=lambda: self.memory, free_disk=lambda _: self.disk)
        self.session = Session(self.scene, bridge=self.bridge, host=host)
        self.ct = add_ct(self.scene, shape=SHAPE)
        organ = np.zeros(SHAPE, bool)
        organ[15:50, 10:45, 8:36] = True
        self.organs, ids = add_segmentation(self.scene, self.ct, {"liver": organ})
        painted = np.zeros(SHAPE, bool)
        painted[24:34, 20:30, 20] = True
        self.painted, _ids = add_segmentation(self.scene, self.ct, {"tumor": painted})
        self.organ = {"segmentation_node": self.organs, "segment_id": ids["liver"]}

    def start(self, task):
        return getattr(self, f"_{task}")()

    def answer(self, task, **facts):
        """Let the worker answer what was asked last, and take it."""
        number = len(self.bridge.requests)
        if task == "synthesis":
            hashes = {name: "s" * 64 for name in ("scan", "organ", "output")}
            self.bridge.answer(number, sha256=hashes, **facts)
        else:
            answer = {"anomaly": answer_map, "segmentation": answer_segmentation}
            answer.get(task, answer_learning)(self.bridge, number, **facts)
        self.session.poll()
        return self.state(task)

    def state(self, task):
        return self.session.states[PANEL[task]]

    def _synthesis(self):
        place = Ellipsoid((30.0, 26.0, 22.0), (8.0, 6.0, 7.0))
        parameters = SynthesisParameters(model=SYNTHESIZER, ellipsoid=place)
        return self.session.synthesize(parameters, self.ct, **self.organ)

    def _anomaly(self):
        return self.session.anomaly({"model": CT_MODEL}, self.ct, **self.organ)

    def _segmentation(self):
        return self.session.segment({"models": (SEGMENTER,)}, self.ct, **self.organ)

    def _learn(self):
        return self.session.learn({"model": CT_MODEL}, self.ct, self.painted, **self.organ)

    def _apply_learned(self):
        return self.session.segment({"models": (LEARNED,)}, self.ct, **self.organ)


PANEL = {
    "synthesis": "synthesis",
    "anomaly": "anomaly",
    "segmentation": "segmentation",
    "learn": "segmentation",
    "apply_learned": "segmentation",
}
tasks = pytest.mark.parametrize("task", list(PANEL))


@pytest.fixture
def bench(scene, bridge, tmp_path, monkeypatch):
    home = tmp_path / "models"
    monkeypatch.setenv("DIFFTUMOR_HOME", str(home))
    list_model(home)
    list_segmenter(home)
    list_learned(home)
    row = {"id": SYNTHESIZER, "task": "synthesis", "title": "M", "advice": None, "installed": True}
    rows = [*models.list_models(), row]
    monkeypatch.setattr(models, "list_models", lambda: rows)
    made = Bench(scene, bridge)
    yield made
    made.session.close()


@tasks
def test_a_loaded_model_is_not_counted_twice(bench, task):
    """A second press must not be refused for the memory that the model of the first one holds."""
    bench.memory = 3 * GB
    bench.start(task)
    assert bench.answer(task).kind == "done"
    bench.memory = 1.5 * GB
    bench.start(task)
    bench.bridge.fail(2)
    bench.session.poll()
    with pytest.raises(SessionError, match=r"About 2\.\d GB of memory are needed and 1\.5 GB"):
        bench.start(task)
    assert len(bench.bridge.requests) == 2


@tasks
def test_too_little_memory_or_disk_is_said_before_anything_starts(bench, task):
    nodes = bench.scene.GetNumberOfNodes()
    bench.memory = 1.5 * GB
    with pytest.raises(SessionError, match=r"of memory are needed and 1\.5 GB are free\. Close"):
        bench.start(task)
    bench.memory, bench.disk = 64 * GB, 10**6
    with pytest.raises(SessionError, match=r"needed for temporary files and 1 MB are free in"):
        bench.start(task)
    assert bench.bridge.requests == {}
    assert bench.state(task).kind == "idle"
    assert bench.scene.GetNumberOfNodes() == nodes


@tasks
@pytest.mark.parametrize("all_of_them", [False, True])
def test_cancel_stops_a_job_of_any_panel(bench, task, all_of_them):
    number = bench.start(task)
    assert not bench.session.cancel(number + 1), "of no job"
    assert bench.state(task).stage == "starting"
    assert bench.session.cancel() if all_of_them else bench.session.cancel(number)
    assert bench.state(task).stage == "stopping"
    bench.session.poll()
    assert bench.state(task).kind == "cancelled"
    assert bench.state(task).sentence == "Cancelled. Nothing was changed."
    assert not bench.session.cancel()
    assert not bench.session.cancel(number)


def test_cancel_leaves_the_jobs_of_other_panels_alone(bench):
    numbers = {task: bench.start(task) for task in ("synthesis", "anomaly", "segmentation")}
    assert bench.session.cancel(numbers["anomaly"])
    bench.session.poll()
    kinds = {task: bench.state(task).kind for task in numbers}
    assert kinds == {"synthesis": "running", "anomaly": "cancelled", "segmentation": "running"}
    assert bench.session.cancel()
    bench.session.poll()
    assert not bench.session.busy


@tasks
def test_an_image_that_changes_or_leaves_during_the_job_ends_it(bench, task):
    bench.start(task)
    array = voxels(bench.ct)
    array[0, 0, 0] += 1
    slicer.util.updateVolumeFromArray(bench.ct, array.T.copy())
    bench.session.poll()
    assert bench.state(task).kind == "failed"
    assert 'The voxels of "CT" were changed during the computation' in bench.state(task).sentence
    bench.start(task)
    bench.scene.RemoveNode(bench.ct)
    bench.session.poll()
    assert bench.state(task).kind == "failed"
    assert '"CT" was removed from the scene during the computation' in bench.state(task).sentence


@tasks
def test_a_newer_request_takes_the_place_of_the_older_one(bench, task):
    first, second = bench.start(task), bench.start(task)
    assert bench.state(task).number == second
    assert bench.answer(task).kind == "done"
    nodes = bench.scene.GetNumberOfNodes()
    assert bench.session.wait(first).kind == "cancelled"
    assert bench.scene.GetNumberOfNodes() == nodes


@tasks
def test_sidecars_describe_inputs_and_warnings_alike(bench, task):
    bench.start(task)
    state = bench.answer(task, notes=["the scan is thick", "the scan is thick"])
    assert state.notes == ("The scan is thick",)
    made = sidecar_of(bench.scene.GetNodeByID(state.result_node_id))
    assert made["task"] == task
    assert made["result"]["notes"] == ["the scan is thick", "the scan is thick"]
    assert made["result"]["output_sha256"] == "s" * 64
    image = made["inputs"]["scan" if task == "synthesis" else "ct"]
    assert image == {
        "name": "CT", "path": "", "sha256": "s" * 64, "shape": list(SHAPE), "spacing_mm": [1.0, 1.0, 1.0],
    }  # fmt: skip
    organ = made["inputs"]["organ"]
    assert organ == {
        "name": "organs", "path": "", "segment": bench.organ["segment_id"], "label": None, "sha256": "s" * 64,
    }  # fmt: skip
    labels = made["inputs"].get("labels")
    expected = {"name": "organs", "path": "", "sha256": "s" * 64} if task == "learn" else None
    assert labels == expected
