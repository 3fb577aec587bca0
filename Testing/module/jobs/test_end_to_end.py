"""The whole way with the real worker and the method that needs no weights: nodes in, nodes out."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from Testing.module.scene.scenes import (
    add_ct,
    add_roi,
    add_segmentation,
    add_transform,
    add_volume,
    make_scene,
    oblique_affine,
    roi_distance,
    segment_voxels,
    turned,
    voxel_centers_in_world,
    voxels,
    world_of,
)

from difftumor.weights import models  # isort: skip
from difftumor.provenance import image_hash  # isort: skip
from DiffTumorSlicerLib.synthesis.history import tumors_of  # isort: skip
from DiffTumorSlicerLib.scene.results import segmentation_of, sidecar_of  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid  # isort: skip
from DiffTumorSlicerLib.synthesis.ellipsoid import EllipsoidHandles  # isort: skip
from DiffTumorSlicerLib.jobs.host import Host  # isort: skip
from DiffTumorSlicerLib.session import Session  # isort: skip

SLOW_S = 300.0  # a busy machine imports torch slowly
FIELDS = {"model": "modelled", "feather_mm": 1.5}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """One scene and one worker for all tests of this file: importing torch takes seconds."""
    folder = tmp_path_factory.mktemp("worker")
    scene = make_scene(folder / "cache")
    host = Host(
        python=sys.executable,
        log_folder=folder / "logs",
        temporary_folder=folder,
        environment={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DIFFTUMOR_HOME": str(folder / "models"),
        },
    )
    session = Session(scene, host=host)
    yield session
    session.close()
    assert not list(Path(folder).glob("difftumor-session-*")), "temporary files were left behind"


@pytest.fixture
def session(lasting):
    lasting.scene.Clear(0)
    return lasting


@pytest.fixture
def case(session):
    """Oblique, left-handed, anisotropic volume under a linear transform; ROI under another, scaled one."""
    scene = session.scene
    ct = add_ct(scene, affine=oblique_affine())
    parent = add_transform(
        scene, turned((10, -20, 30), shift=(40, 0, -25)), name="of the CT", child=ct
    )
    center = voxel_centers_in_world(ct)[30, 26, 20]
    above = np.diag([1.2, 0.9, -1.0, 1.0]) @ turned((-15, 45, 5), shift=(7, 8, 9))
    own = np.linalg.inv(above) @ [*center, 1]
    roi = add_roi(scene, own[:3], (14, 22, 18), turned((50, 10, -20)))
    add_transform(scene, above, name="of the ROI", child=roi)
    return ct, parent, roi


def finished(session, number):
    state = session.wait(number, timeout_s=SLOW_S)
    assert state.kind == "done", (state.sentence, state.details)
    return session.scene.GetNodeByID(state.result_node_id)


def worker_pid():
    """The process of ours that runs the worker."""
    children = psutil.Process().children(recursive=True)
    return next(c.pid for c in children if "difftumor.worker" in " ".join(c.cmdline()))


def test_mask_and_analytic_ellipsoid_agree_through_the_whole_way(session, case):
    ct, parent, roi = case
    before, affine = voxels(ct), volume_grid(ct).affine
    node = finished(session, session.synthesize({**FIELDS, "seed": 4}, ct, roi_node=roi))

    assert node.GetTransformNodeID() == parent.GetID()
    assert np.array_equal(voxels(ct), before), "the input is bit-identical"
    segmentation = segmentation_of(node)
    assert segmentation.GetTransformNodeID() == parent.GetID()
    segment = segmentation.GetSegmentation().GetNthSegmentID(0)
    mask = segment_voxels(segmentation, segment, before.shape)
    world = voxel_centers_in_world(ct)
    distance = roi_distance(roi, world)
    assert mask.sum() > 300
    assert np.abs(distance[mask != (distance <= 1)] - 1).max(initial=0) < 1e-6
    # Half a voxel, by moments: center of the mask against the center of the ROI in the patient.
    middle, wanted = world[mask].mean(axis=0), world_of(roi, roi.GetCenter())
    assert np.abs(np.linalg.inv(affine[:3, :3]) @ (middle - wanted)).max() < 0.5
    assert mask.sum() * abs(np.linalg.det(affine[:3, :3])) == pytest.approx(
        4 / 3 * np.pi * 7 * 11 * 9 * 1.2 * 0.9, rel=0.05
    )
    # What changed lies in the tumor or its rim (four sigmas and a voxel).
    changed = voxels(node) != before
    assert changed[mask].mean() > 0.5
    depth = (distance - 1) * 11 * 1.2
    assert depth[changed].max() < 4 * 2.5 + 2.5
    assert voxels(node).dtype == before.dtype
    # The side-car's hashes are those of what is in the scene.
    sidecar = sidecar_of(node)
    assert sidecar["inputs"]["scan"]["sha256"] == image_hash(before, affine)
    assert sidecar["result"]["output_sha256"] == image_hash(voxels(node), affine)
    assert "torch" in sidecar["versions"]


def test_the_same_seed_gives_the_same_tumor_and_the_handles_give_the_place(session, case):
    ct, _, roi = case
    handles = EllipsoidHandles(session.scene)
    handles.adopt(roi)
    made = [
        finished(
            session,
            session.synthesize({**FIELDS, "seed": seed, "ellipsoid": handles.parameters()}, ct),
        )
        for seed in (4, 4, 5)
    ]
    assert np.array_equal(voxels(made[0]), voxels(made[1]))
    assert not np.array_equal(voxels(made[0]), voxels(made[2]))
    handles.release()


def test_the_organ_clips_the_tumor(session, case):
    ct, parent, roi = case
    mask = np.zeros((60, 52, 44), bool)
    mask[:30] = True
    organs, _ = add_segmentation(session.scene, ct, {"liver": mask}, parent)
    node = finished(session, session.synthesize(FIELDS, ct, roi_node=roi, segmentation_node=organs))
    segmentation = segmentation_of(node)
    tumor = segment_voxels(
        segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), mask.shape
    )
    distance = roi_distance(roi, voxel_centers_in_world(ct))
    assert np.abs(distance[tumor != ((distance <= 1) & mask)] - 1).max(initial=0) < 1e-6
    sidecar = sidecar_of(node)
    assert sidecar["inputs"]["organ"]["sha256"] == image_hash(mask, volume_grid(ct).affine)


def test_random_tumors_two_in_one_result_save_reload_and_remove(session, case, tmp_path):
    ct, parent, roi = case
    mask = np.zeros((60, 52, 44), bool)
    mask[6:50, 8:46, 4:36] = True
    organs, _ = add_segmentation(session.scene, ct, {"liver": mask}, parent)
    node = finished(session, session.synthesize(FIELDS, ct, roi_node=roi))
    first = voxels(node)
    random = {**FIELDS, "size": "small", "count": 2, "seed": 1}
    assert (
        finished(session, session.synthesize(random, ct, segmentation_node=organs, into=node))
        is node
    )
    assert (voxels(node) != first).any()
    names = segmentation_of(node).GetSegmentation()
    assert names.GetNthSegment(1).GetName() == "Synthetic tumors 2 to 3"
    assert session.scene.WriteToMRB(str(tmp_path / "s.mrb"))

    again = make_scene(tmp_path / "cache")
    assert again.ReadFromMRB(str(tmp_path / "s.mrb"), True)
    node = again.GetFirstNodeByName("CT (synthetic)")
    with_session = Session(again, host=Host())
    assert with_session.remove_last(node) == 1
    with_session.close()
    assert np.array_equal(voxels(node), first[:, :, ::-1]), (
        "Slicer reverses K of left-handed volumes"
    )


def test_three_variants(session, case):
    ct, _, roi = case
    state = session.wait(session.variants(FIELDS, ct, roi_node=roi), timeout_s=SLOW_S)
    assert state.kind == "done", state.sentence
    nodes = [session.scene.GetNodeByID(i) for i in state.result_node_ids]
    assert len({voxels(n).tobytes() for n in nodes}) == 3
    assert session.keep_variant(nodes[2]) == 2


def test_a_killed_worker_is_a_sentence_and_the_next_press_works(session, case):
    ct, _, roi = case
    finished(session, session.synthesize(FIELDS, ct, roi_node=roi))
    count, before = session.scene.GetNumberOfNodes(), voxels(ct)
    pid = worker_pid()
    os.kill(pid, signal.SIGSTOP)  # so that it cannot be done before it dies
    number = session.synthesize(FIELDS, ct, roi_node=roi)
    session.poll()
    os.kill(pid, signal.SIGKILL)
    state = session.wait(number, timeout_s=SLOW_S)
    assert state.kind == "failed"
    assert "The worker ended during the computation" in state.sentence
    assert "Try again" in state.sentence
    assert Path(state.log_path).is_file()
    assert session.scene.GetNumberOfNodes() == count
    assert np.array_equal(voxels(ct), before)
    finished(session, session.synthesize(FIELDS, ct, roi_node=roi))


def test_no_poll_holds_the_event_loop_for_a_tenth_of_a_second(session):
    """A CT of 256 x 256 x 120, from the press to the surface; CPU time, since this machine may be busy."""
    rng = np.random.default_rng(0)
    array = np.tile(rng.normal(60, 12, (64, 64, 60)), (4, 4, 2)).astype(np.int16)
    ct = add_volume(session.scene, "CT", array, np.diag([-0.8, -0.8, 2.0, 1.0]))
    roi = add_roi(session.scene, (-100, -100, 120), (24, 24, 24))
    number = session.synthesize(FIELDS, ct, roi_node=roi)
    longest, after = 0.0, 0
    while after < 5:
        started = time.thread_time()
        session.poll()
        longest = max(longest, time.thread_time() - started)
        after += not session.states["synthesis"].running
        time.sleep(0.01)
    assert session.wait(number).kind == "done", session.states["synthesis"].sentence
    assert longest < 0.1


def test_cancel_ends_within_half_a_second_whatever_the_worker_does(session, case, within):
    ct, _, roi = case

    def cancelled():
        result = finished(session, session.synthesize(FIELDS, ct, roi_node=roi))
        nodes = session.scene.GetNumberOfNodes()
        os.kill(worker_pid(), signal.SIGSTOP)
        number = session.synthesize(FIELDS, ct, roi_node=roi)
        session.poll()
        started = time.monotonic()
        session.cancel()
        state = session.wait(number)
        duration_s = time.monotonic() - started
        assert state.kind == "cancelled"
        assert session.scene.GetNumberOfNodes() == nodes
        assert tumors_of(result) == 1
        return duration_s

    within(0.5, cancelled)


def test_the_scene_closed_while_the_worker_works(session, case):
    ct, _, roi = case
    number = session.synthesize(FIELDS, ct, roi_node=roi)
    session.poll()
    session.scene.Clear(0)
    assert session.wait(number).kind == "cancelled"
    ct = add_ct(session.scene)
    roi = add_roi(session.scene, (30, 26, 22), (16, 16, 16))
    assert (
        finished(session, session.synthesize(FIELDS, ct, roi_node=roi)).GetName()
        == "CT (synthetic)"
    )


def test_the_real_doctor_answers(session):
    number = session.examine()
    state = session.wait(number, timeout_s=SLOW_S)
    assert state.kind == "done"
    assert "PyTorch" in state.sentence
    assert state.report["devices"][-1]["device"] == "cpu"


def test_a_published_file_is_looked_into_by_the_worker_and_installed(session):
    """An import needs torch for a look into the file, and Slicer has none: the worker looks."""
    folder = Path(__file__).parents[2] / "parity" / "containers"
    state = session.wait(session.import_model(folder / "diffusion_early.pt"), timeout_s=SLOW_S)
    assert state.kind == "failed"
    assert "(T = 3); the registry has no place for it. The Models panel shows" in state.sentence
    state = session.wait(
        session.import_model(folder / "lightning_omegaconf.ckpt"), timeout_s=SLOW_S
    )
    assert state.kind == "done", state.sentence
    assert models.find_model("difftumor-autoencoder").path.is_file()
    state = session.wait(session.import_model(Path(__file__)), timeout_s=SLOW_S)
    assert state.kind == "failed"
    assert state.sentence.endswith(".")
    assert "Traceback" not in state.sentence


def test_a_result_of_slicer_can_be_made_again_from_the_command_line(session, tmp_path):
    """As docs/formats.md says: the scan saved from Slicer, and the side-car beside the saved result."""
    from difftumor.cli import main
    from DiffTumorSlicerLib.synthesis.exporting import save_files

    scene = session.scene
    ct = add_ct(scene, affine=oblique_affine())
    center = voxel_centers_in_world(ct)[30, 26, 20]
    roi = add_roi(scene, center, (14, 22, 18), turned((50, 10, -20)))
    node = finished(session, session.synthesize({**FIELDS, "seed": 9}, ct, roi_node=roi))
    save_files(scene, node, tmp_path / "result.nrrd")
    storage = ct.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "scan.nrrd"))
    assert storage.WriteData(ct)
    replay = ["replay", str(tmp_path / "result.json"), "--out", str(tmp_path / "again.nrrd")]
    assert main([*replay, "--quiet"]) == 1, "the scan was in Slicer's memory"
    assert main([*replay, "--quiet", "--scan", str(tmp_path / "scan.nrrd")]) == 0
