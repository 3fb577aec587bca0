"""The fault list, pressed in the panel: each ends in a sentence with the next step, and nothing is changed."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from Testing.module.panels.bench import WORKER_FAILURES, box_mask, ends_in_next_step, fail, plain
from Testing.module.scene.scenes import add_bend, add_ct, add_segmentation, add_volume, gantry


def no_volume(bench):
    bench.place()


def no_roi(bench):
    bench.load_ct()


def roi_outside(bench):
    bench.load_ct()
    bench.place((500, 0, 0))


def roi_too_large(bench):
    bench.load_ct()
    bench.place()
    bench.ui.radiusRSpinBox.value = 60


def roi_too_small(bench):
    bench.load_ct()
    bench.place()
    for axis in "RAS":
        getattr(bench.ui, f"radius{axis}SpinBox").value = 0.6


def organ_empty(bench):
    ct = bench.load_ct()
    empty = np.zeros((60, 52, 44), bool)
    node, _ = add_segmentation(bench.scene, ct, {"liver": empty})
    bench.ui.segmentSelector.setCurrentNode(node)
    bench.place()


def organ_elsewhere(bench):
    ct = bench.load_ct()
    far = box_mask((60, 52, 44), (2, 2, 2), (6, 6, 6))
    node, _ = add_segmentation(bench.scene, ct, {"liver": far})
    bench.ui.segmentSelector.setCurrentNode(node)
    bench.place()


def random_without_organ(bench):
    bench.load_ct()
    bench.ui.randomRadio.click()


def model_missing(bench):
    bench.load_ct()
    bench.place()
    bench.choose(bench.ui.modelComboBox, "difftumor-liver-early")


def model_unknown(bench):
    bench.load_ct()
    bench.place()
    bench.parameters.synthesis.model = "a-model-of-somebody"


def wrong_model(bench):
    bench.load_ct()
    bench.place()
    bench.parameters.synthesis.model = "difftumor-unet-liver"


def no_torch(bench):
    bench.load_ct()
    bench.place()
    bench.requirements.lack = (
        "Slicer's PyTorch extension is missing. Install it in the Extensions Manager and restart."
    )


def disk_full(bench):
    bench.load_ct()
    bench.place()
    bench.room["disk"] = 1_000_000


def memory_full(bench):
    bench.load_ct()
    bench.place()
    bench.room["memory"] = 10_000_000


def bent_scan(bench):
    ct = bench.load_ct()
    add_bend(bench.scene, gantry, child=ct)
    bench.place()


def empty_volume(bench):
    node = bench.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    bench.volumes.volumeSelector.setCurrentNode(node)
    bench.place()


def single_slice(bench):
    node = add_volume(bench.scene, "slice", np.zeros((20, 20, 1), np.int16))
    bench.volumes.volumeSelector.setCurrentNode(node)
    bench.place((5, 5, 0))


@pytest.mark.parametrize(
    "fault",
    [
        no_volume, no_roi, roi_outside, roi_too_large, roi_too_small, organ_empty, organ_elsewhere,
        random_without_organ, model_missing, model_unknown, wrong_model, no_torch, disk_full,
        memory_full, bent_scan, empty_volume, single_slice,
    ],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_what_is_wrong_before_the_start_is_said_with_the_next_step(bench, fault):
    fault(bench)
    bench.turn()
    nodes = bench.scene.GetNumberOfNodes()
    bench.press(bench.ui.synthesizeButton)
    assert ends_in_next_step(bench.message)
    assert not bench.bridge.requests
    assert bench.scene.GetNumberOfNodes() == nodes
    assert bench.ui.synthesizeButton.text == "Synthesize (Ctrl+Return)"


def test_variants_are_refused_with_the_same_sentences(bench):
    bench.load_ct()
    bench.press(bench.ui.variantsButton)
    assert ends_in_next_step(bench.message)
    bench.place((500, 0, 0))
    bench.press(bench.ui.variantsButton)
    assert "outside the scan" in bench.message
    assert not bench.bridge.requests


def test_what_was_wrong_is_forgotten_with_the_next_press(bench):
    bench.load_ct()
    bench.press(bench.ui.synthesizeButton)
    assert bench.message
    bench.place()
    bench.synthesize()
    assert "synthetic tumor" in bench.message


@pytest.mark.parametrize("failure", WORKER_FAILURES, ids=lambda failure: failure[0])
def test_a_worker_that_fails_leaves_the_scene_alone_and_the_next_press_works(bench, failure):
    ct = bench.load_ct()
    bench.place()
    fail(bench, bench.ui.synthesizeButton, ct, *failure)
    assert bench.synthesize() is not None


def test_the_scan_is_deleted_during_the_job(bench):
    ct = bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.scene.RemoveNode(ct)
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.bridge.stopped == [1]
    bench.bridge.answer(1)
    bench.turn()
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    bench.load_ct()
    assert bench.synthesize() is not None


def test_the_result_is_deleted_while_it_gets_a_second_tumor(bench):
    bench.load_ct()
    bench.place()
    result = bench.synthesize()
    bench.press(bench.ui.synthesizeButton)
    bench.scene.RemoveNode(result)
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.parameters.result is None
    assert bench.synthesize().GetName() == "CT (synthetic)"


def test_handles_and_organ_are_deleted_during_the_job(bench):
    ct = bench.load_ct()
    node, _ = add_segmentation(bench.scene, ct, {"liver": np.ones((60, 52, 44), bool)})
    bench.ui.segmentSelector.setCurrentNode(node)
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.scene.RemoveNode(bench.parameters.roi)
    bench.scene.RemoveNode(node)
    bench.turn()
    bench.bridge.answer(1)
    bench.turn()
    assert bench.parameters.result is not None  # nothing of these two is needed to show it


def test_the_scene_is_closed_during_the_job(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.panels.set_parameter_node(None)  # as the module's widget does
    bench.scene.Clear(0)
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.ui.synthesizeButton.text == "Synthesize (Ctrl+Return)"
    bench.bridge.answer(1)
    bench.turn()
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_what_was_said_of_a_scene_goes_with_it(bench):
    bench.load_ct()
    bench.place()
    bench.synthesize()
    assert "synthetic" in bench.message
    bench.panels.set_parameter_node(None)  # as the module's widget does
    assert bench.message == ""


def test_without_a_parameter_node_every_button_is_harmless(bench):
    bench.panels.set_parameter_node(None)
    bench.scene.Clear(0)
    for name in (
        "synthesizeButton", "variantsButton", "hereButton", "newSeedButton",
        "totalSegmentatorButton", "placeButton",
    ):  # fmt: skip
        bench.press(getattr(bench.ui, name))
    bench.press(bench.ui.placeButton)
    assert not bench.bridge.requests


def test_the_module_is_left_and_opened_again_during_the_job(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.panels.exit()
    bench.panels.enter()
    bench.turn()
    assert bench.ui.synthesizeButton.text == "Cancel (Esc)"
    bench.bridge.answer(1)
    bench.turn()
    assert bench.parameters.result is not None


def test_the_panel_goes_away_during_the_job(bench):
    """Reload: nothing observes the scene any more, and nothing is shown twice."""
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.panels.cleanup()
    bench.session.close()
    bench.bridge.answer(1)
    bench.scene.Clear(0)
    bench.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    bench.app.processEvents()


def test_a_scan_that_changes_during_the_job_is_not_patched(bench):
    ct = bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    slicer.util.updateVolumeFromArray(ct, np.zeros((44, 52, 60), np.int16))
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.parameters.result is None


def test_a_cancelled_job_never_shows_its_result(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.bridge.answer(1)
    bench.panels.synthesis.cancel()
    bench.turn()
    assert bench.parameters.result is None
    assert "Nothing was changed" in bench.message


def test_removing_the_last_is_refused_while_a_tumor_is_made(bench):
    bench.load_ct()
    bench.place()
    result = bench.synthesize()
    bench.press(bench.ui.synthesizeButton)
    assert not bench.ui.removeLastButton.enabled
    bench.panels.synthesis.result.remove_last()
    bench.turn()
    assert result is bench.parameters.result


def test_two_scans_of_one_name(bench):
    bench.load_ct()
    add_ct(bench.scene, name="CT")
    bench.place()
    assert bench.synthesize().GetName() == "CT (synthetic)"
    assert plain(bench.ui.hintLabel) == ""


def test_ellipsoid_and_organ_are_deleted_during_the_job(bench):
    """Both were read at the press, so the tumor still comes; then the panel asks for a new place."""
    ct = bench.load_ct()
    node, _ = add_segmentation(bench.scene, ct, {"liver": np.ones((60, 52, 44), bool)})
    bench.ui.segmentSelector.setCurrentNode(node)
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.scene.RemoveNode(bench.parameters.roi)
    bench.scene.RemoveNode(node)
    bench.turn()
    bench.bridge.answer(1)
    bench.turn()
    assert bench.parameters.result is not None
    bench.press(bench.ui.synthesizeButton)
    assert ends_in_next_step(bench.message)
    assert "Place by click" in bench.message


def test_the_parameter_node_is_deleted_during_the_job(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.scene.RemoveNode(bench.node)
    bench.turn()
    bench.bridge.answer(1)
    bench.turn()
    assert bench.ui.synthesizeButton.text == "Synthesize (Ctrl+Return)"
