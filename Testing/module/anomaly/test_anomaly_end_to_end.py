"""Heat maps the whole way with the real worker and a tiny model of filled weights: nodes in, nodes out."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    add_ct,
    add_segmentation,
    add_transform,
    add_volume,
    make_scene,
    oblique_affine,
    turned,
    voxel_centers_in_world,
    voxels,
)

from DiffTumorSlicerLib.anomaly import results as anomaly_results  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid  # isort: skip
from DiffTumorSlicerLib.jobs.host import Host  # isort: skip
from DiffTumorSlicerLib.scene.results import sidecar_of  # isort: skip
from DiffTumorSlicerLib.session import Session  # isort: skip

SLOW_S = 300.0  # a busy machine imports torch slowly
SHAPE = (30, 26, 22)
FIELDS = {"model": "tiny-anomaly", "gate": False, "steps": 10, "noise_level": 300}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """One scene and one worker for all tests of this file: importing torch takes seconds."""
    from Testing.tiny_anomaly import MR, write_tiny_model

    folder = tmp_path_factory.mktemp("worker")
    home = folder / "models"
    write_tiny_model(home / "tiny-anomaly", organs=["liver"])
    write_tiny_model(home / "tiny-head", **MR, id="tiny-head")
    scene = make_scene(folder / "cache")
    host = Host(
        python=sys.executable,
        log_folder=folder / "logs",
        temporary_folder=folder,
        environment={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DIFFTUMOR_HOME": str(home),
            "OMP_NUM_THREADS": "1",
        },
    )
    session = Session(scene, host=host)
    session.home = home
    yield session
    session.close()
    assert not list(Path(folder).glob("difftumor-session-*")), "temporary files were left behind"


@pytest.fixture
def session(lasting, monkeypatch):
    monkeypatch.setenv("DIFFTUMOR_HOME", str(lasting.home))
    lasting.scene.Clear(0)
    return lasting


@pytest.fixture
def case(session):
    """Oblique, left-handed, anisotropic volume with an organ, under a linear transform."""
    ct = add_ct(session.scene, shape=SHAPE, affine=oblique_affine())
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    ball = np.linalg.norm(index - np.array(SHAPE) / 2, axis=-1) <= 8
    parent = add_transform(session.scene, turned((10, -20, 30), shift=(40, 0, -25)), child=ct)
    organs, ids = add_segmentation(session.scene, ct, {"liver": ball}, parent)
    return ct, organs, ids["liver"], ball


def finished(session, number):
    state = session.wait(number, timeout_s=SLOW_S)
    assert state.kind == "done", (state.sentence, state.details)
    return session.scene.GetNodeByID(state.result_node_id)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_map_in_the_scene_is_the_engines_at_the_engines_place(session, case, plane):
    """The engine is asked here with arrays in the patient's space, the module with nodes under transforms."""
    import torch

    from difftumor.anomaly.compute import compute_anomaly
    from difftumor.anomaly.model import load_anomaly_model
    from difftumor.grids import Grid
    from difftumor.parameters import AnomalyParameters

    ct, organs, segment_id, ball = case
    before = voxels(ct)
    asked = {**FIELDS, "plane": plane, "guidance_scale": 5.0}
    number = session.anomaly(
        asked, ct, segmentation_node=organs, segment_id=segment_id, device="cpu"
    )
    node = finished(session, number)
    assert np.array_equal(voxels(ct), before), "the input is bit-identical"
    assert node.GetTransformNodeID() == ct.GetTransformNodeID()
    centers = voxel_centers_in_world(ct)
    assert np.allclose(voxel_centers_in_world(node), centers)

    origin = centers[0, 0, 0]
    affine = np.eye(4)
    for axis, step in enumerate(np.eye(3, dtype=int)):
        affine[:3, axis] = centers[tuple(step)] - origin
    affine[:3, 3] = origin
    model = load_anomaly_model("tiny-anomaly", "cpu", {}, lambda *_: None)
    parameters = AnomalyParameters(**asked)
    # Filled networks magnify rounding, and that depends on the number of threads: the worker here has one.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = compute_anomaly({"ct": before}, Grid(SHAPE, affine), ball, parameters, model)
    finally:
        torch.set_num_threads(threads)
    assert np.abs(voxels(node) - wanted.scaled_map).max() < 1e-3
    healthy = anomaly_results.healthy_of(node)[0]
    assert np.abs(voxels(healthy).astype(int) - wanted.counterfactual.astype(int)).max() <= 1
    assert (voxels(healthy)[~ball] == before[~ball]).all()
    rows = anomaly_results.slices_of(node)
    assert [row["index"] for row in rows] == [row["index"] for row in wanted.slices]
    assert np.allclose(
        [row["position_mm"] for row in rows],
        [row["position_mm"] for row in wanted.slices],
        atol=1e-3,
    )


def test_a_map_tells_how_it_was_made(session, case):
    from difftumor.provenance import image_hash

    ct, organs, segment_id, _ = case
    number = session.anomaly(
        FIELDS, ct, segmentation_node=organs, segment_id=segment_id, device="cpu"
    )
    node = finished(session, number)
    sidecar = sidecar_of(node)
    affine = volume_grid(ct).affine
    assert sidecar["inputs"]["ct"]["sha256"] == image_hash(voxels(ct), affine)
    assert sidecar["result"]["output_sha256"] == image_hash(voxels(node), affine)
    assert sidecar["result"]["settings"]["guidance_scale"] == 10.0, "as the model recommends"
    assert sidecar["model"]["id"] == "tiny-anomaly"
    assert "torch" in sidecar["versions"]


def test_a_new_scale_is_faster_than_the_first_request(session, case):
    ct, organs, segment_id, _ = case
    asked = {**FIELDS, "steps": 40}
    states = []
    for scale in (3.0, 3.0):
        number = session.anomaly(
            {**asked, "guidance_scale": scale},
            ct,
            segmentation_node=organs,
            segment_id=segment_id,
            device="cpu",
        )
        finished(session, number)
        states.append(session.states["anomaly"])
    assert states[1].elapsed_s < states[0].elapsed_s, "nothing is computed twice"


def test_a_cancel_keeps_the_finished_slices_of_a_real_worker(session, case):
    ct, organs, segment_id, ball = case
    held = int(ball.any(axis=(0, 1)).sum())
    for steps in range(
        60, 65
    ):  # a busy machine may look away until the end; other steps are computed anew
        asked = {**FIELDS, "steps": steps}
        number = session.anomaly(
            asked, ct, segmentation_node=organs, segment_id=segment_id, device="cpu"
        )
        state = session.states["anomaly"]
        # The first of two batches, eight of thirteen slices, ends at six tenths.
        while state.running and not (
            state.stage.startswith("rewriting") and state.done > 0.7 * state.total
        ):
            session.poll()
            time.sleep(0.005)
            state = session.states["anomaly"]
            assert state.elapsed_s < SLOW_S
        session.cancel()
        state = session.wait(number, timeout_s=SLOW_S)
        assert state.kind in ("cancelled", "done"), state.sentence
        node = session.scene.GetNodeByID(state.result_node_id)
        assert node is not None, state.sentence
        rows = anomaly_results.slices_of(node)
        if len(rows) < held:
            break
    assert state.kind == "cancelled"
    assert 0 < len(rows) < held
    assert f"The {len(rows)} finished of" in state.sentence
    assert sidecar_of(node)["result"]["unfinished"] > 0
    again = session.anomaly(
        {**FIELDS, "slices": (10, 11)},
        ct,
        segmentation_node=organs,
        segment_id=segment_id,
        device="cpu",
    )
    assert finished(session, again) is not node


def test_a_sheet_and_a_live_map_come_from_the_same_worker(session, case):
    ct, organs, segment_id, _ = case
    asked = {**FIELDS, "slices": (11, 12)}
    number = session.sweep(
        asked,
        ct,
        [100, 200],
        [1.0, 5.0],
        segmentation_node=organs,
        segment_id=segment_id,
        device="cpu",
    )
    state = session.wait(number, timeout_s=SLOW_S)
    assert state.kind == "done", state.sentence
    cells = state.report["cells"]
    assert sorted((c.noise_level, c.guidance_scale) for c in cells) == [
        (100, 1.0), (100, 5.0), (200, 1.0), (200, 5.0),
    ]  # fmt: skip
    assert all(cell.index == 11 for cell in cells)
    number = session.anomaly(
        asked, ct, segmentation_node=organs, segment_id=segment_id, live=True, device="cpu"
    )
    live = finished(session, number)
    assert live is anomaly_results.live_map_of(session.scene, ct)


def test_four_sequences_go_through(session):
    rng = np.random.default_rng(4)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    head = np.linalg.norm(index - np.array(SHAPE) / 2, axis=-1) <= 9
    nodes = {}
    for name in ("t1", "t1c", "t2", "flair"):
        image = np.where(head, rng.uniform(100, 900, SHAPE), 0).astype(np.float32)
        nodes[name] = add_volume(session.scene, f"a {name}", image, oblique_affine())
    asked = {**FIELDS, "model": "tiny-head"}
    node = finished(session, session.anomaly(asked, nodes, device="cpu"))
    assert len(anomaly_results.healthy_of(node)) == 4
    assert not voxels(node)[~head].any()


def test_what_only_the_worker_can_see_comes_back_as_a_sentence(session):
    array = np.full(SHAPE, 60.0, np.float32)
    array[15, 13, 11] = np.nan
    ct = add_volume(session.scene, "CT with a hole", array)
    ball = np.zeros(SHAPE, bool)
    ball[8:22, 6:20, 9:13] = True
    organs, ids = add_segmentation(session.scene, ct, {"liver": ball})
    number = session.anomaly(
        FIELDS, ct, segmentation_node=organs, segment_id=ids["liver"], device="cpu"
    )
    state = session.wait(number, timeout_s=SLOW_S)
    assert state.kind == "failed"
    assert "not finite" in state.sentence
    assert state.sentence.endswith(".")
    assert session.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
