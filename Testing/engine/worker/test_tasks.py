"""Every task is one record: what the worker needs of it is there, and all are served by one function."""

import os
from dataclasses import is_dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from difftumor.anomaly.task import ANOMALY
from difftumor.grids import Grid, GridError
from difftumor.learning.task import APPLY, LEARN
from difftumor.provenance import image_hash
from difftumor.segmentation.task import SEGMENTATION
from difftumor.synthesis.task import SYNTHESIS
from difftumor.task import Case, Outcome, Task, run_task
from difftumor.weights import loading
from difftumor.worker.protocol import Cancelled, read_array, read_partial, write_array
from difftumor.worker.serve import serve
from difftumor.worker.tasks import TASKS

RECORDS = (SYNTHESIS, ANOMALY, SEGMENTATION, LEARN, APPLY)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
CUBE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_the_worker_serves_every_record(tmp_path):
    write_array(tmp_path, "scan", CUBE)
    context = SimpleNamespace(cache={}, progress=lambda *_: None)
    request = {"parameters": {"nonsense": 1}, "affine": AFFINE.tolist()}
    assert {task.name for task in RECORDS} == set(TASKS) - {"doctor", "identify_model"}
    for task in RECORDS:
        assert is_dataclass(task.parameters)
        assert TASKS[task.name].func is serve
        with pytest.raises(ValueError, match="does not know nonsense"):
            TASKS[task.name](request, tmp_path, context)


class Doubling:
    """The smallest task: doubles voxels, slice by slice."""

    facts, device_name = {"id": "double", "sha256": None}, "cpu"


def doubled(case, parameters, model, progress, cache, on_partial):
    whole = np.zeros_like(case.scan)
    for k in range(whole.shape[2]):
        progress("doubling", k, whole.shape[2])
        whole[..., k] = 2 * case.scan[..., k]
        if on_partial is not None:
            on_partial({"array": whole, "slices": k + 1})
    return {"array": whole, "slices": whole.shape[2]}


DOUBLE = Task(
    "double",
    ANOMALY.parameters,
    lambda *_: Doubling(),
    doubled,
    arrays=lambda result: {"doubled": result["array"]},
    output=lambda result, _case: result["array"],
    facts=lambda result: {"slices": result["slices"]},
)


def test_a_record_runs_and_leaves_what_is_finished():
    told = []
    case = Case({"scan": CUBE}, Grid(CUBE.shape, AFFINE))
    outcome = run_task(DOUBLE, case, None, "cpu", {}, lambda *_: None, told.append)
    assert np.array_equal(outcome.result["array"], 2 * CUBE)
    assert (outcome.model["id"], outcome.device) == ("double", "cpu")
    assert [partial.result["slices"] for partial in told] == [1, 2, 3, 4]
    assert all(isinstance(partial, Outcome) for partial in told)


def test_a_request_becomes_arrays_facts_and_hashes(tmp_path):
    write_array(tmp_path, "image_t1", CUBE)
    write_array(tmp_path, "labels", CUBE.astype(np.uint8))
    context = SimpleNamespace(cache={}, progress=lambda *_: None)
    request = {"parameters": {}, "affine": AFFINE.tolist()}
    answer = serve(DOUBLE, request, tmp_path, context)
    assert np.array_equal(read_array(tmp_path, "doubled"), 2 * CUBE)
    assert {"slices", "model", "device", "versions", "sha256"} == set(answer)
    assert answer["sha256"] == {
        "image_t1": image_hash(CUBE, AFFINE),
        "labels": image_hash(CUBE.astype(np.uint8), AFFINE),
        "output": image_hash(2 * CUBE, AFFINE),
    }


def test_a_cancel_leaves_a_partial_result(tmp_path):
    write_array(tmp_path, "scan", CUBE)

    def progress(_stage, done, _total):
        if done == 3:
            raise Cancelled

    context = SimpleNamespace(cache={}, progress=progress)
    with pytest.raises(Cancelled):
        serve(DOUBLE, {"parameters": {}, "affine": AFFINE.tolist()}, tmp_path, context)
    metadata, arrays = read_partial(tmp_path)
    assert arrays == ["doubled"]
    assert set(metadata) == {"slices", "model", "device", "versions"}
    assert 1 <= metadata["slices"] <= 3


def test_a_request_without_an_image_is_refused(tmp_path):
    with pytest.raises(GridError, match="no image"):
        serve(DOUBLE, {"parameters": {}, "affine": AFFINE.tolist()}, tmp_path, None)


def test_the_cache_of_models_opens_anew_what_has_changed(tmp_path, monkeypatch):
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        path.write_text("weights")
    monkeypatch.setattr(
        loading, "find_model", lambda name: SimpleNamespace(path=tmp_path / name, id=name)
    )
    opened, cache = [], {"other:kind": 1}

    def ask(*names):
        return loading.cached(
            "kind", names, "cpu", cache, lambda *_: None, lambda i, _: opened.append(i.id) or i.id
        )

    assert ask("a") == ask("a") == ["a"]
    assert ask("a", "b") == ["a", "b"]
    assert opened == ["a", "b"]
    assert ask("b") == ["b"]
    assert len(cache) == 2, "only what was asked for last is kept, and other kinds"
    os.utime(files[1], (1, 1))
    ask("b")
    assert opened == ["a", "b", "b"]
