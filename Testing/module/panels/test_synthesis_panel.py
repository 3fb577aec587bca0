"""Place, press, watch: the Synthesis panel with a worker that answers when the test wants it to."""

from __future__ import annotations

import numpy as np

from Testing.module.panels.bench import box_mask, plain
from Testing.module.scene.scenes import add_ct, add_segmentation, voxels


def test_says_step_by_step_what_is_missing(bench):
    assert "choose a scan" in plain(bench.ui.hintLabel)
    bench.load_ct()
    assert "click where the tumor shall be" in plain(bench.ui.hintLabel)
    bench.place()
    assert plain(bench.ui.hintLabel) == ""


def test_a_press_makes_a_result_beside_the_scan_and_leaves_the_scan_alone(bench):
    ct = bench.load_ct()
    before = voxels(ct)
    bench.place()
    result = bench.synthesize()
    assert result is not None
    assert result.GetName() == "CT (synthetic)"
    assert np.array_equal(voxels(ct), before)
    assert (voxels(result) != before).any()
    assert "synthetic tumor" in bench.message
    assert bench.ui.resultGroup.visible
    assert bench.ui.resultGroup.title == "Result with 1 tumor"


def test_the_request_carries_what_the_panel_shows(bench):
    bench.load_ct()
    bench.place()
    bench.ui.radiusRSpinBox.value = 9.5
    bench.ui.rotationSSpinBox.value = 30.0
    bench.type(bench.ui.seedEdit, "77")
    bench.ui.featherSpinBox.value = 2.5
    bench.press(bench.ui.synthesizeButton)
    task, request, arrays, panel = bench.bridge.requests[1]
    asked = request["parameters"]
    assert (task, panel) == ("synthesis", "synthesis")
    assert np.isclose(asked["ellipsoid"]["radii_mm"][0], 9.5)
    assert np.allclose(asked["ellipsoid"]["rotation_deg"], (0, 0, 30))
    assert asked["seed"] == 77
    assert asked["feather_mm"] == 2.5
    assert set(arrays) == {"scan"}


def test_the_button_becomes_cancel_and_progress_tells_stage_and_time(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    assert bench.ui.synthesizeButton.text == "Cancel (Esc)"
    assert bench.ui.progressBar.visible
    bench.bridge.progress(1, "sampling", 2, 4, remaining_s=7.2)
    bench.turn()
    assert (bench.ui.progressBar.value, bench.ui.progressBar.maximum) == (2, 4)
    assert "Painting the tumor" in bench.ui.progressLabel.text
    assert "about 8 s left" in bench.ui.progressLabel.text
    bench.press(bench.ui.synthesizeButton)
    assert bench.bridge.stopped == [1]
    bench.turn()
    assert bench.ui.synthesizeButton.text == "Synthesize (Ctrl+Return)"
    assert "Cancelled. Nothing was changed." in bench.message
    assert not bench.ui.progressBar.visible
    assert bench.parameters.result is None


def test_a_second_tumor_goes_into_the_same_result_and_the_last_is_taken_back(bench):
    ct = bench.load_ct()
    bench.place()
    first = bench.synthesize()
    with_one = voxels(first)
    second = bench.synthesize(box=((30, 40), (20, 30), (20, 26)))
    assert second is first
    assert bench.ui.resultGroup.title == "Result with 2 tumors"
    bench.press(bench.ui.removeLastButton)
    assert np.array_equal(voxels(first), with_one)
    assert bench.ui.resultGroup.title == "Result with 1 tumor"
    bench.press(bench.ui.removeLastButton)
    assert bench.parameters.result is None
    assert not bench.ui.resultGroup.visible
    assert bench.parameters.volume is ct
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_new_volume_can_be_asked_for_again(bench):
    bench.load_ct()
    bench.place()
    first = bench.synthesize()
    bench.ui.resultSelector.setCurrentNode(None)
    bench.turn()
    assert bench.parameters.result is None
    second = bench.synthesize()
    assert second is not first
    assert second.GetName() == "CT (synthetic 2)"


def test_another_scan_never_gets_its_tumor_into_the_result_of_the_first(bench):
    bench.load_ct()
    bench.place()
    bench.synthesize()
    other = add_ct(bench.scene, name="other")
    bench.volumes.volumeSelector.setCurrentNode(other)
    bench.turn()
    assert bench.parameters.result is None
    result = bench.synthesize()
    assert result.GetName() == "other (synthetic)"


def test_only_results_can_be_put_into(bench):
    bench.load_ct()
    add_ct(bench.scene, name="plain")
    assert bench.ui.resultSelector.nodeCount() == 0
    bench.place()
    bench.synthesize()
    bench.turn()
    assert bench.ui.resultSelector.nodeCount() == 1


def test_three_variants_are_offered_and_one_is_kept(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.variantsButton)
    for number in (1, 2, 3):
        bench.bridge.answer(number, add=-10 * number)
        bench.turn()
    assert [r[1]["parameters"]["seed"] for r in bench.bridge.requests.values()] == [0, 1, 2]
    assert bench.ui.variantsFrame.visible
    assert bench.ui.keep3Button.visible
    bench.press(bench.ui.keep2Button)
    assert not bench.ui.variantsFrame.visible
    assert bench.parameters.result.GetName() == "CT (synthetic)"
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2


def test_random_tumors_need_and_use_the_organ(bench):
    ct = bench.load_ct()
    bench.ui.randomRadio.click()
    bench.turn()
    assert "segment of the organ" in plain(bench.ui.hintLabel)
    assert not bench.ui.placedFrame.visible
    node, ids = add_segmentation(
        bench.scene, ct, {"liver": box_mask((60, 52, 44), (10, 10, 10), (40, 40, 30))}
    )
    bench.ui.segmentSelector.setCurrentNode(node)
    bench.turn()
    assert bench.parameters.segment_id == ids["liver"]
    bench.ui.countSpinBox.value = 2
    bench.choose(bench.ui.sizeComboBox, "tiny")
    bench.press(bench.ui.synthesizeButton)
    _, request, arrays, _ = bench.bridge.requests[1]
    assert request["parameters"]["size"] == "tiny"
    assert request["parameters"]["count"] == 2
    assert request["parameters"]["ellipsoid"] is None
    assert arrays["organ"].sum() == 30 * 30 * 20


def test_a_job_goes_on_while_another_module_is_open(bench):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    bench.panels.exit()
    bench.bridge.answer(1)
    bench.turn()
    assert bench.parameters.result is not None
    bench.panels.enter()
    bench.turn()
    assert bench.ui.resultGroup.title == "Result with 1 tumor"
    assert bench.ui.synthesizeButton.text == "Synthesize (Ctrl+Return)"
