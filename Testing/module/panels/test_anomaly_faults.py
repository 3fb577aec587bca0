"""The fault list of the Anomaly panel: each ends in a sentence with the next step, and nothing is changed."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from Testing.module.panels.anomaly_bench import AnomalyBench
from Testing.module.panels.bench import WORKER_FAILURES, ends_in_next_step, fail, plain
from Testing.module.scene.anomaly_answers import CT_MODEL, MR_MODEL, answer_map, stop_map
from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_segmentation,
    add_transform,
    add_volume,
    gantry,
    turned,
)


@pytest.fixture
def bench(anomaly_bench):
    return anomaly_bench


def no_volume(bench):
    pass


def no_organ(bench):
    bench.load_ct()


def organ_empty(bench):
    ct = bench.load_ct()
    add_segmentation(bench.scene, ct, {"liver": np.zeros((60, 52, 44), bool)})


def organ_elsewhere(bench):
    bench.load_case()
    bench.look_at((30.0, 26.0, 2.0))
    bench.choose(bench.ui.rangeComboBox, "slice")


def slice_outside(bench):
    bench.load_case()
    bench.look_at((30.0, 26.0, 400.0))
    bench.choose(bench.ui.rangeComboBox, "slice")


def an_mr_image_for_a_ct_model(bench):
    ct = bench.load_case()
    study = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(bench.scene)
    item = study.GetItemByDataNode(ct) or study.CreateItem(study.GetSceneItemID(), ct)
    study.SetItemAttribute(item, "DICOM.Modality", "MR")


def a_ct_for_an_mr_model(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    bench.load_head()
    bench.ui.t2Selector.setCurrentNode(add_ct(bench.scene, "t2 really a CT"))


def a_missing_sequence(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    bench.load_head(("a t1", "a t2", "a flair"))


def sequences_of_different_geometry(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    nodes = bench.load_head()
    add_transform(bench.scene, turned((0, 0, 8)), child=nodes[2])


def sequences_of_different_size(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    bench.load_head()
    bench.ui.t2Selector.setCurrentNode(
        add_volume(bench.scene, "small t2", np.ones((9, 9, 9), np.float32))
    )


def model_missing(bench):
    bench.load_case()
    bench.choose(bench.ui.mapModelComboBox, _published(bench))


def model_unknown(bench):
    bench.load_case()
    bench.parameters.anomaly.model = "a-model-of-somebody"


def model_of_another_task(bench):
    bench.load_case()
    bench.parameters.anomaly.model = "demo-abdomen-early"


def no_torch(bench):
    bench.load_case()
    bench.requirements.lack = (
        "Slicer's PyTorch extension is missing. Install it in the Extensions Manager and restart."
    )


def disk_full(bench):
    bench.load_case()
    bench.room["disk"] = 1_000_000


def memory_full(bench):
    bench.load_case()
    bench.room["memory"] = 10_000_000


def bent_scan(bench):
    add_bend(bench.scene, gantry, child=bench.load_case())


def empty_volume(bench):
    bench.load_case()
    node = bench.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    bench.volumes.volumeSelector.setCurrentNode(node)


def a_map_as_scan(bench):
    bench.load_case()
    bench.look_at()
    node = bench.make_map()
    bench.bridge.requests.clear()
    bench.volumes.volumeSelector.setCurrentNode(node)


def _published(bench):
    rows = bench.panels.anomaly.inputs._rows
    return next((row["id"] for row in rows if not row["installed"]), "demo-abdomen-anomaly")


@pytest.mark.parametrize(
    "fault",
    [
        no_volume, no_organ, organ_empty, organ_elsewhere, slice_outside,
        an_mr_image_for_a_ct_model, a_ct_for_an_mr_model, a_missing_sequence,
        sequences_of_different_geometry, sequences_of_different_size, model_unknown,
        model_of_another_task, no_torch, disk_full, memory_full, bent_scan, empty_volume, a_map_as_scan,
    ],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_what_is_wrong_before_the_start_is_said_with_the_next_step(bench, fault):
    fault(bench)
    bench.turn()
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(
        bench.scene
    )  # made when it is asked for
    nodes = bench.scene.GetNumberOfNodes()
    bench.press(bench.ui.runButton)
    assert ends_in_next_step(bench.message)
    assert not bench.bridge.requests
    assert bench.scene.GetNumberOfNodes() == nodes
    assert bench.ui.runButton.text == "Make the map (Ctrl+Return)"
    bench.ui.sweepGroup.collapsed = False
    bench.turn()
    bench.press(bench.ui.sweepButton)
    assert ends_in_next_step(bench.message)
    assert not bench.bridge.requests


def test_without_any_model_it_is_said_where_to_get_one(app, scene, bridge, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path / "none"))
    bench = AnomalyBench(app, scene, bridge, tmp_path, with_models=False)
    try:
        bench.parameters.anomaly.model = "a-model-that-was-removed"
        bench.load_ct()
        bench.press(bench.ui.runButton)
        assert ends_in_next_step(bench.message)
        assert not bridge.requests
    finally:
        bench.close()


def test_a_bent_scan_has_its_remedy_beside_it(bench):
    ct = bench.load_case()
    assert not bench.ui.mapRemedyButton.visible
    add_bend(bench.scene, gantry, child=ct)
    bench.turn()
    bench.panels.anomaly.refresh()
    bench.press(bench.ui.mapRemedyButton)
    copy = bench.parameters.volume
    assert copy is not ct
    assert copy.GetTransformNodeID() is None
    assert "The originals stay as they were" in bench.message
    assert not bench.ui.mapRemedyButton.visible
    bench.look_at((30.0, 26.0, 20.0))
    bench.choose(bench.ui.rangeComboBox, "organ")
    assert bench.make_map() is not None, bench.message


def test_bent_sequences_are_all_copied(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    nodes = bench.load_head()
    bend = add_bend(bench.scene, gantry)
    for node in nodes:
        node.SetAndObserveTransformNodeID(bend.GetID())
    bench.panels.anomaly.refresh()
    bench.turn()
    bench.press(bench.ui.runButton)
    assert "hardened copy" in bench.message
    bench.press(bench.ui.mapRemedyButton)
    assert not bench.ui.mapRemedyButton.visible
    bench.press(bench.ui.runButton)
    assert list(bench.bridge.requests) == [1], bench.message


@pytest.mark.parametrize("failure", WORKER_FAILURES[::2], ids=lambda failure: failure[0])
def test_a_worker_that_fails_leaves_the_scene_alone_and_the_next_press_works(bench, failure):
    ct = bench.load_case()
    bench.look_at()
    fail(bench, bench.ui.runButton, ct, *failure)
    assert bench.make_map() is not None


def test_a_live_update_that_fails_is_told_and_stops(bench):
    bench.load_case()
    bench.look_at()
    bench.choose(bench.ui.rangeComboBox, "slice")
    bench.make_map()
    bench.press(bench.ui.liveCheckBox)
    bench.ui.guidanceSlider.value = 80
    bench.turn()
    bench.bridge.fail(2, "refused", "the guidance is too strong. Choose a smaller S.", "")
    bench.turn(0.05)
    assert "Choose a smaller S." in bench.message
    assert len(bench.bridge.requests) == 2


def test_the_scan_is_deleted_during_the_job(bench):
    ct = bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    bench.scene.RemoveNode(ct)
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.bridge.stopped == [1]
    stop_map(bench.bridge, 1, unfinished=3)
    bench.turn()
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert bench.bridge.results == {}


def test_a_scan_that_changes_during_the_job_gets_no_map(bench):
    ct = bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    slicer.util.updateVolumeFromArray(ct, np.zeros((44, 52, 60), np.int16))
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.parameters.map is None


def test_organ_and_map_are_deleted_during_the_job(bench):
    bench.load_case()
    bench.look_at()
    first = bench.make_map()
    bench.press(bench.ui.runButton)
    bench.scene.RemoveNode(bench.parameters.area)
    bench.scene.RemoveNode(first)
    bench.turn()
    assert not bench.ui.heatGroup.visible
    answer_map(bench.bridge, 2)
    bench.turn()
    assert bench.parameters.map is not None
    assert bench.ui.heatGroup.visible


def test_the_scene_is_closed_during_the_job(bench):
    bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    bench.panels.set_parameter_node(None)  # as the module's widget does
    bench.scene.Clear(0)
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.ui.runButton.text == "Make the map (Ctrl+Return)"
    answer_map(bench.bridge, 1)
    bench.turn()
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_without_a_parameter_node_every_button_is_harmless(bench):
    bench.panels.set_parameter_node(None)
    bench.scene.Clear(0)
    bench.ui.sweepGroup.collapsed = False
    bench.turn()
    for name in ("runButton", "recommendedButton", "findAreaButton", "sweepButton"):
        bench.press(getattr(bench.ui, name))
    for name in ("noiseSlider", "guidanceSlider"):
        getattr(bench.ui, name).value = 5
    group = bench.panels.anomaly.heat
    for action in (
        group.go_to_peak, group.make_segmentation, group.remove, group.set_automatic_threshold,
    ):  # fmt: skip
        action()
    assert not bench.bridge.requests


def test_the_panel_goes_away_during_the_job(bench):
    bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    bench.panels.cleanup()
    bench.session.close()
    answer_map(bench.bridge, 1)
    bench.scene.Clear(0)
    bench.app.processEvents()


def test_a_cancelled_job_never_shows_its_result(bench):
    bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    answer_map(bench.bridge, 1)
    bench.panels.anomaly.cancel()
    bench.turn()
    assert bench.parameters.map is None
    assert "Nothing was changed" in bench.message


def test_a_layout_without_plots_is_said(bench):
    """No main window, no views: the button tells it, and stays harmless."""
    bench.load_case()
    bench.look_at()
    bench.make_map()
    bench.press(bench.ui.curveButton)
    assert "no views" in bench.message or bench.ui.curveButton.checked
    bench.press(bench.ui.healthyButton)
    assert plain(bench.ui.mapFactsLabel)


def test_the_synthesis_panel_does_not_hear_of_maps(bench):
    bench.load_case()
    bench.look_at()
    bench.make_map()
    assert bench.parameters.result is None
    assert bench.panels.synthesis.ui.resultSelector.nodeCount() == 0
    assert bench.parameters.anomaly.model == CT_MODEL
