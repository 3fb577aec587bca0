"""Jobs from the press of a button to nodes, with the test as worker: progress, cancel, crash, deletion."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    FakeBridge,
    add_ct,
    add_roi,
    add_segmentation,
    add_transform,
    oblique_affine,
    slicer,
    turned,
    voxels,
    world_of,
)

from difftumor.parameters import Ellipsoid, SynthesisParameters  # isort: skip
from difftumor.worker.protocol import ExitedEvent, ReadyEvent  # isort: skip
from DiffTumorSlicerLib.synthesis.history import tumors_of  # isort: skip
from DiffTumorSlicerLib.scene.results import input_of, segmentation_of, sidecar_of  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid  # isort: skip
from DiffTumorSlicerLib.jobs.host import Host  # isort: skip
from DiffTumorSlicerLib.jobs.jobs import Job, Outcome  # isort: skip
from DiffTumorSlicerLib.session import Session, SessionError  # isort: skip


def nodes_of(scene):
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


@pytest.fixture
def ct(scene):
    return add_ct(scene)


@pytest.fixture
def heard(session):
    """Kinds and stages that listeners were told, for the synthesis panel."""
    states = []
    session.add_listener(lambda state: states.append(state))
    return states


def test_a_request_carries_voxels_place_and_parameters(session, bridge, scene, parameters):
    ct = add_ct(scene, affine=oblique_affine())
    add_transform(scene, turned((1, 2, 3), shift=(4, 5, 6)), child=ct)
    center = volume_grid(ct).center_ras
    roi = add_roi(scene, center, (16, 12, 20))
    number = session.synthesize(parameters, ct, roi_node=roi, device="cpu")
    task, request, arrays, panel = bridge.requests[1]
    assert (number, task, panel) == (1, "synthesis", "synthesis")
    assert np.array_equal(arrays["scan"], voxels(ct))
    assert set(arrays) == {"scan"}
    assert np.allclose(request["affine"], volume_grid(ct).affine)
    assert request["device"] == "cpu"
    assert np.allclose(request["parameters"]["ellipsoid"]["radii_mm"], (8, 6, 10))
    assert np.allclose(request["parameters"]["ellipsoid"]["center_ras"], center)
    assert session.states["synthesis"].kind == "running"


def test_a_result_becomes_nodes_and_the_input_stays(session, bridge, ct, parameters, heard):
    before, display = voxels(ct), ct.GetDisplayNodeID()
    session.synthesize(parameters, ct)
    bridge.progress(1, "sampling", 3, 10, 2.5)
    session.poll()
    state = session.states["synthesis"]
    assert (state.kind, state.stage, state.done, state.total) == ("running", "sampling", 3, 10)
    assert state.remaining_s == 2.5
    box, patch = bridge.answer(1, notes=["a note of the engine."])
    session.poll()
    state = session.states["synthesis"]
    assert state.kind == "done"
    assert state.sentence == 'A synthetic tumor of 0.50 ml is in "CT (synthetic)".'
    assert state.notes == ("A note of the engine.",)
    node = session.scene.GetNodeByID(state.result_node_id)
    expected = before.copy()
    expected[box] = patch
    assert np.array_equal(voxels(node), expected)
    assert np.array_equal(voxels(ct), before)
    assert ct.GetDisplayNodeID() == display
    assert [s.kind for s in heard] == ["running", "running", "done"]


def test_the_tumor_is_shown_in_3d_a_poll_later(session, bridge, scene, ct, parameters):
    """The surface takes as long as the volume; one after the other keeps the event loop turning."""
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    segmentation = segmentation_of(scene.GetNodeByID(session.states["synthesis"].result_node_id))
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    session.poll()
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    session.synthesize(parameters, ct)
    bridge.answer(2)
    session.poll()
    scene.RemoveNode(scene.GetNodeByID(session.states["synthesis"].result_node_id))
    session.poll()
    session.synthesize(parameters, ct)
    bridge.answer(3)
    session.poll()
    scene.Clear(0)
    session.poll()


def test_the_sidecar_tells_how_it_was_made(session, bridge, ct, parameters):
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    sidecar = sidecar_of(session.scene.GetNodeByID(session.states["synthesis"].result_node_id))
    assert sidecar["schema"] == "difftumor-result"
    assert sidecar["synthetic"] is True
    assert sidecar["parameters"]["ellipsoid"]["center_ras"] == [30.0, 26.0, 22.0]
    assert sidecar["inputs"]["scan"] == {
        "name": "CT", "path": "", "sha256": "s" * 64, "shape": [60, 52, 44], "spacing_mm": [1.0, 1.0, 1.0]
    }  # fmt: skip
    assert sidecar["result"]["output_sha256"] == "o" * 64
    assert sidecar["versions"] == {"torch": "of the worker"}


def test_the_organ_travels_as_a_mask_on_the_grid_of_the_scan(
    session, bridge, scene, ct, parameters
):
    mask = np.zeros((60, 52, 44), bool)
    mask[20:40, 16:36, 12:32] = True
    node, ids = add_segmentation(scene, ct, {"liver": mask, "spleen": ~mask})
    session.synthesize(parameters, ct, segmentation_node=node, segment_id=ids["liver"])
    assert np.array_equal(bridge.requests[1][2]["organ"], mask)
    bridge.answer(1)
    session.poll()
    result = scene.GetNodeByID(session.states["synthesis"].result_node_id)
    assert sidecar_of(result)["inputs"]["organ"]["segment"] == ids["liver"]


def test_a_mapping_without_ellipsoid_takes_that_of_the_roi(session, bridge, scene, ct):
    roi = add_roi(scene, (30, 26, 22), (16, 12, 14), turned((0, 0, 40)))
    session.synthesize({"model": "modelled", "seed": 9, "size": "", "count": 0}, ct, roi_node=roi)
    sent = bridge.requests[1][1]["parameters"]
    assert sent["seed"] == 9
    assert sent["size"] is None
    assert sent["ellipsoid"]["rotation_deg"] == pytest.approx((0, 0, 40))


def test_several_tumors_go_into_one_result_and_the_last_comes_out(
    session, bridge, scene, ct, parameters
):
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    node = scene.GetNodeByID(session.states["synthesis"].result_node_id)
    first = voxels(node)
    session.synthesize(parameters, ct, into=node)
    assert np.array_equal(bridge.requests[2][2]["scan"], first)
    bridge.answer(2, box=((14, 26), (12, 22), (8, 14)))
    session.poll()
    assert session.states["synthesis"].result_node_id == node.GetID()
    assert tumors_of(node) == 2
    assert not np.array_equal(voxels(node), first)
    assert session.remove_last(node) == 1
    assert np.array_equal(voxels(node), first)
    assert session.remove_last(node) == 0
    assert scene.GetNodeByID(node.GetID() or "") is None


def test_two_volumes_have_results_of_their_own(session, bridge, scene, parameters):
    one = add_ct(scene, "one", seed=1)
    two = add_ct(scene, "two", affine=turned((0, 0, 5)), seed=2)
    add_transform(scene, turned((0, 0, 0), shift=(0, 0, 1)), child=two)
    made = []
    for number, ct in enumerate((one, two), start=1):
        session.synthesize(parameters, ct)
        bridge.answer(number)
        session.poll()
        made.append(scene.GetNodeByID(session.states["synthesis"].result_node_id))
    assert [node.GetName() for node in made] == ["one (synthetic)", "two (synthetic)"]
    assert made[0].GetTransformNodeID() is None
    assert made[1].GetTransformNodeID() == two.GetTransformNodeID()
    assert [input_of(node) for node in made] == [one, two]
    with pytest.raises(SessionError, match="made from another volume"):
        session.synthesize(parameters, one, into=made[1])


def test_a_newer_request_takes_the_place_of_the_older(session, bridge, scene, ct, parameters):
    old = session.synthesize(parameters, ct)
    new = session.synthesize(SynthesisParameters(ellipsoid=Ellipsoid((28, 26, 22), (5, 5, 5))), ct)
    bridge.answer(1)  # too late
    session.poll()
    assert session.states["synthesis"].number == new
    assert session.states["synthesis"].kind == "running"
    assert session.wait(old).kind == "cancelled"
    bridge.answer(2)
    session.poll()
    assert session.states["synthesis"].kind == "done"
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2


def test_cancel_leaves_the_scene_as_it_was_and_the_next_press_works(
    session, bridge, scene, ct, parameters, heard
):
    before = nodes_of(scene)
    session.synthesize(parameters, ct)
    session.cancel()
    assert session.states["synthesis"].kind == "running"
    assert session.states["synthesis"].stage == "stopping"
    assert bridge.stopped == [1]
    session.poll()
    assert session.states["synthesis"].kind == "cancelled"
    assert session.states["synthesis"].sentence == "Cancelled. Nothing was changed."
    assert nodes_of(scene) == before
    assert [s.kind for s in heard] == ["running", "running", "cancelled"]
    assert not session.cancel()
    session.synthesize(parameters, ct)
    bridge.answer(2)
    session.poll()
    assert session.states["synthesis"].kind == "done"


def test_a_result_that_comes_together_with_the_cancel_is_not_shown(
    session, bridge, scene, ct, parameters
):
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.cancel()
    session.poll()
    assert session.states["synthesis"].kind == "cancelled"
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_a_crash_is_a_sentence_the_scene_is_unchanged_and_the_next_press_works(
    session, bridge, scene, ct, parameters
):
    before, array = nodes_of(scene), voxels(ct)
    session.synthesize(parameters, ct)
    bridge.events.append(ExitedEvent(-9, "The worker ended unexpectedly.", "SIGKILL"))
    bridge.fail(
        1,
        "killed",
        "The worker ended during the computation: killed.",
        "Try again: a new one starts.",
    )
    session.poll()
    state = session.states["synthesis"]
    assert state.kind == "failed"
    assert (
        state.sentence
        == "The worker ended during the computation: killed. Try again: a new one starts."
    )
    assert state.details == "Traceback ..."
    assert state.log_path == "/log"
    assert nodes_of(scene) == before
    assert np.array_equal(voxels(ct), array)
    session.synthesize(parameters, ct)
    bridge.answer(2)
    session.poll()
    assert session.states["synthesis"].kind == "done"
    assert session.states["synthesis"].details == ""


def test_a_worker_that_starts_or_ends_in_between_is_no_news(session, bridge, ct, parameters, heard):
    bridge.events.append(ReadyEvent(1, 5, "3.12"))
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    count = len(heard)
    bridge.events.append(ExitedEvent(1, "The worker ended unexpectedly."))
    bridge.fail(None, "protocol", "A line was left out.")
    session.poll()
    assert session.states["synthesis"].kind == "done"
    assert len(heard) == count


@pytest.mark.parametrize("moment", ["before the result", "with the result"])
def test_the_input_deleted_during_the_job_ends_it_with_a_sentence(
    session, bridge, scene, ct, parameters, moment
):
    session.synthesize(parameters, ct)
    scene.RemoveNode(ct)
    if moment == "with the result":
        bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "failed"
    assert "removed from the scene" in session.states["synthesis"].sentence
    assert session.states["synthesis"].sentence.endswith("press Synthesize again.")
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert not session.busy
    if moment == "before the result":
        assert bridge.stopped == [1]
    session.poll()  # what the bridge says of the dropped request


def test_the_result_deleted_while_it_gets_another_tumor(session, bridge, scene, ct, parameters):
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    node = scene.GetNodeByID(session.states["synthesis"].result_node_id)
    session.synthesize(parameters, ct, into=node)
    scene.RemoveNode(node)
    bridge.answer(2)
    session.poll()
    assert session.states["synthesis"].kind == "failed"
    assert '"CT (synthetic)" was removed' in session.states["synthesis"].sentence


def test_roi_and_segmentation_may_go_during_the_job(session, bridge, scene, ct, parameters):
    """They have been read; what is shown needs the volume only."""
    roi = add_roi(scene, (30, 26, 22), (16, 12, 14))
    node, _ = add_segmentation(scene, ct, {"liver": np.ones((60, 52, 44), bool)})
    session.synthesize(parameters, ct, roi_node=roi, segmentation_node=node)
    scene.RemoveNode(roi)
    scene.RemoveNode(node)
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "done"


def test_voxels_changed_during_the_job_leave_the_result_out(session, bridge, scene, ct, parameters):
    session.synthesize(parameters, ct)
    volume_array(ct)[30, 26, 22] = 7
    ct.GetImageData().GetPointData().GetScalars().Modified()
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "failed"
    assert "were changed during the computation" in session.states["synthesis"].sentence
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_the_scene_closed_during_a_job(session, bridge, scene, ct, parameters, heard):
    session.synthesize(parameters, ct)
    scene.Clear(0)
    assert session.states["synthesis"].kind == "cancelled"
    assert "scene was closed" in session.states["synthesis"].sentence
    assert heard[-1].kind == "cancelled"
    assert bridge.stopped == [1]
    bridge.answer(1)
    session.poll()
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    again = add_ct(scene)  # gets the id of the old one
    session.poll()
    session.synthesize(parameters, again)
    bridge.answer(2)
    session.poll()
    assert session.states["synthesis"].kind == "done"


def test_another_volume_with_the_same_id_is_not_taken_for_the_old_one(
    session, bridge, scene, ct, parameters
):
    session.synthesize(parameters, ct)
    scene.RemoveObservers(slicer.vtkMRMLScene.StartCloseEvent)  # as if nobody had told the session
    scene.Clear(0)
    other = add_ct(scene, "other")
    assert other.GetID() == "vtkMRMLScalarVolumeNode1"
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "failed"
    assert '"CT" was removed' in session.states["synthesis"].sentence


def test_three_variants_appear_together_and_one_is_kept(
    session, bridge, scene, ct, parameters, heard
):
    session.variants(parameters, ct)
    seeds = []
    for number in (1, 2, 3):
        assert len(bridge.requests) == number
        seeds.append(bridge.requests[number][1]["parameters"]["seed"])
        bridge.progress(number, "sampling", 1, 2)
        session.poll()
        assert session.states["synthesis"].stage == f"variant {number} of 3: sampling"
        assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
        bridge.answer(number, add=-10 * number)
        session.poll()
    assert seeds == [0, 1, 2]
    state = session.states["synthesis"]
    assert state.kind == "done"
    assert state.sentence == "3 variants are ready. Choose the one to keep."
    nodes = [scene.GetNodeByID(i) for i in state.result_node_ids]
    assert [n.GetName() for n in nodes] == [f"CT (synthetic, variant {i})" for i in (1, 2, 3)]
    assert voxels(nodes[2])[15, 17, 11] == voxels(ct)[15, 17, 11] - 30
    assert session.keep_variant(nodes[1]) == 2
    assert nodes[1].GetName() == "CT (synthetic)"
    assert session.remove_last(nodes[1]) == 0


def test_variants_of_a_second_tumor_leave_the_result_alone(session, bridge, scene, ct, parameters):
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    node = scene.GetNodeByID(session.states["synthesis"].result_node_id)
    first = voxels(node)
    session.variants(parameters, ct, into=node, seeds=[7, 5])
    for number in (2, 3):
        bridge.answer(number, box=((30, 42), (12, 22), (8, 14)), add=-number)
        session.poll()
    nodes = [scene.GetNodeByID(i) for i in session.states["synthesis"].result_node_ids]
    assert np.array_equal(voxels(node), first)
    assert [tumors_of(n) for n in nodes] == [2, 2]
    assert sidecar_of(nodes[0])["parameters"]["seed"] == 7
    session.keep_variant(nodes[0])
    assert nodes[0].GetName() == "CT (synthetic 2)"
    assert session.remove_last(nodes[0]) == 1
    assert np.array_equal(voxels(nodes[0]), first)


def test_cancelled_or_failed_variants_leave_nothing(session, bridge, scene, ct, parameters):
    before = nodes_of(scene)
    session.variants(parameters, ct)
    bridge.answer(1)
    session.poll()
    session.cancel()
    session.poll()
    assert session.states["synthesis"].kind == "cancelled"
    session.variants(parameters, ct)
    bridge.answer(3)
    session.poll()
    bridge.fail(4)
    session.poll()
    assert session.states["synthesis"].kind == "failed"
    assert nodes_of(scene) == before
    assert not session.busy


def test_what_the_worker_returns_wrongly_is_a_sentence_not_a_traceback(
    session, bridge, scene, ct, parameters
):
    before = nodes_of(scene)
    session.synthesize(parameters, ct)
    bridge.answer(1)
    del bridge.results[1]["patch"]
    session.poll()
    assert session.states["synthesis"].kind == "failed"
    assert "fault of the program" in session.states["synthesis"].sentence
    assert "KeyError" in session.states["synthesis"].details
    session.synthesize(parameters, ct)
    bridge.answer(2)
    bridge.results[2]["patch"] = bridge.results[2]["patch"].astype(np.float32)
    session.poll()
    assert "does not fit" in session.states["synthesis"].sentence
    assert nodes_of(scene) - before <= {"vtkMRMLSubjectHierarchyNode1"}


def test_removing_waits_for_a_running_job(session, bridge, scene, ct, parameters):
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    node = scene.GetNodeByID(session.states["synthesis"].result_node_id)
    session.synthesize(parameters, ct, into=node)
    with pytest.raises(SessionError, match=r"Wait for it, or press Cancel"):
        session.remove_last(node)


def test_time_goes_on_between_the_workers_words(scene, bridge, ct, parameters):
    now = [100.0]
    host = Host(free_memory=lambda: None, free_disk=lambda _: 10**12, clock=lambda: now[0])
    session = Session(scene, bridge=bridge, host=host)
    states = []
    session.add_listener(states.append)
    session.synthesize(parameters, ct)
    for _ in range(100):
        now[0] += 0.03
        session.poll()
    assert session.states["synthesis"].elapsed_s == pytest.approx(3.0, abs=0.3)
    assert 8 <= len(states) <= 14, "a panel is not told thirty times a second"
    session.close()


def test_a_listener_that_lets_the_event_loop_turn_does_no_harm(session, bridge, ct, parameters):
    session.add_listener(lambda _: session.poll())
    session.synthesize(parameters, ct)
    bridge.progress(1, "sampling", 1, 2)
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "done"


def test_a_listener_may_ask_again(session, bridge, ct, parameters):
    def again(state):
        if state.kind == "done" and state.number == 1:
            session.synthesize(parameters, ct)

    session.add_listener(again)
    session.synthesize(parameters, ct)
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "running"
    assert session.states["synthesis"].number == 2


def test_wait_is_for_scripts_and_cancels_when_it_is_late(session, bridge, ct, parameters):
    number = session.synthesize(parameters, ct)
    turns = []

    def pump():
        turns.append(1)
        if len(turns) == 3:
            bridge.answer(1)

    assert session.wait(number, pump=pump).kind == "done"
    assert session.wait(number).kind == "done"
    assert session.wait(session.synthesize(parameters, ct), timeout_s=0.05).kind == "cancelled"


def test_the_doctor_answers_in_one_line(session, bridge):
    report = {
        "versions": {"torch": "2.13.0"}, "devices": [{"device": "cpu", "ok": True}],
        "memory_gb": {"free": 8.0, "total": 16.0}, "disk_free_gb": 50.0, "problems": [],
    }  # fmt: skip
    from difftumor.worker.protocol import ResultEvent

    session.examine()
    assert bridge.requests[1][0] == "doctor"
    bridge.results[1] = {}
    bridge.events.append(ResultEvent(1, report, [], 0.1))
    session.poll()
    state = session.states["doctor"]
    assert (
        state.sentence == "CPU computes, PyTorch 2.13.0, 8 of 16 GB memory free, 50 GB disk free."
    )
    assert state.report == report
    assert session.states["synthesis"].kind == "idle"


def test_another_task_goes_the_same_way(session, bridge, scene):
    """What a later panel needs: a task name, parameters, arrays in, arrays out."""
    from difftumor.worker.protocol import ResultEvent

    heard = []
    session.add_listener(lambda state: heard.append((state.panel, state.kind)))

    def finish(answers):
        return Outcome(f"{answers[0].arrays['heat'].sum():g}", report=answers[0].metadata)

    job = Job(
        "anomaly", "anomaly", [("", {"noise_level": 500})], finish, lambda: {"scan": np.ones(3)}
    )
    number = session.start_job(job)
    assert bridge.requests[1][:2] == ("anomaly", {"noise_level": 500})
    bridge.results[1] = {"heat": np.full(4, 2.0)}
    bridge.events.append(ResultEvent(1, {"N": 500}, ["heat"], 0.1))
    session.poll()
    state = session.states["anomaly"]
    assert (state.number, state.kind, state.sentence, state.report) == (
        number,
        "done",
        "8",
        {"N": 500},
    )
    assert heard == [("anomaly", "running"), ("anomaly", "done")]


def test_a_new_host_starts_a_new_worker_but_not_in_the_middle_of_a_job(scene, ct, parameters):
    made = []

    class TestHost(Host):
        def make_bridge(self):
            made.append(FakeBridge())
            return made[-1]

    host = TestHost(free_memory=lambda: None, free_disk=lambda _: 10**12)
    session = Session(scene, host=host)
    assert made == []
    session.synthesize(parameters, ct)
    with pytest.raises(SessionError, match="Wait for it, or cancel"):
        session.set_host(host)
    made[0].answer(1)
    session.poll()
    session.set_host(host)
    assert made[0].closed
    session.synthesize(parameters, ct)
    assert len(made) == 2
    session.close()
    assert made[1].closed
    assert session.states["synthesis"].kind == "cancelled"


def test_a_closed_session_hears_nothing_of_the_scene(scene, bridge, ct, parameters):
    session = Session(scene, bridge=bridge, host=Host(free_memory=lambda: None))
    heard = []
    session.add_listener(heard.append)
    session.synthesize(parameters, ct)
    session.close()
    session.remove_listener(heard.append)
    assert bridge.closed
    count = len(heard)
    scene.Clear(0)
    session.poll()
    assert len(heard) == count
    assert session.states["synthesis"].sentence == "The computation was stopped."


def test_world_of_is_not_fooled(scene):
    """The oracle of these tests, by hand."""
    ct = add_ct(scene, shape=(4, 4, 4))
    add_transform(scene, turned((0, 0, 90), shift=(1, 2, 3)), child=ct)
    assert np.allclose(world_of(ct, [[1.0, 0, 0]]), [[1, 3, 3]])
