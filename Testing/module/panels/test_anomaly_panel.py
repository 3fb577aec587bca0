"""Choose, move, press, look: the Anomaly panel with a worker that answers when the test wants it to."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.panels.bench import box_mask, ends_in_next_step, plain
from Testing.module.scene.anomaly_answers import CT_MODEL, MR_MODEL, answer_map, stop_map
from Testing.module.scene.scenes import add_ct, add_segmentation, voxels


@pytest.fixture
def bench(anomaly_bench):
    return anomaly_bench


def test_says_step_by_step_what_is_missing(bench):
    assert "choose a scan" in bench.hint
    ct = bench.load_ct()
    assert "segment of the organ" in bench.hint
    add_segmentation(bench.scene, ct, {"liver": box_mask((60, 52, 44), (5, 5, 5), (9, 9, 9))})
    bench.turn()
    assert bench.hint == ""
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    assert "missing sequences" in bench.hint


def test_the_models_values_are_the_sliders_defaults(bench):
    asked = bench.parameters.anomaly
    assert (asked.noise_level, asked.guidance_scale, asked.steps) == (180, 12.0, 50)
    assert asked.smoothing_mm == 1.5
    assert bench.ui.noiseSlider.value == bench.ui.noiseSpinBox.value == 180
    assert bench.ui.guidanceSpinBox.value == 12.0
    assert bench.ui.guidanceSlider.value == 50, "the model's own scale is the middle"
    assert bench.ui.smoothingSpinBox.value == 1.5
    bench.ui.guidanceSlider.value = 0
    assert bench.parameters.anomaly.guidance_scale == 0
    bench.ui.guidanceSlider.value = 99
    assert bench.parameters.anomaly.guidance_scale == pytest.approx(120, rel=0.01)
    bench.ui.noiseSlider.value = 300
    assert bench.ui.noiseSpinBox.value == bench.parameters.anomaly.noise_level == 300
    bench.ui.guidanceSpinBox.value = 3.5
    assert bench.ui.guidanceSlider.value < 50
    bench.press(bench.ui.recommendedButton)
    asked = bench.parameters.anomaly
    assert (asked.noise_level, asked.guidance_scale) == (180, 12.0)


def test_what_was_set_for_a_model_stays_and_another_model_brings_its_own(bench):
    bench.ui.noiseSlider.value = 300
    bench.panels.exit()
    bench.panels.enter()
    bench.turn()
    assert bench.parameters.anomaly.noise_level == 300
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    assert bench.parameters.anomaly.noise_level == 180


def test_a_press_makes_a_map_over_the_scan_and_leaves_the_scan_alone(bench):
    ct = bench.load_case()
    bench.look_at()
    before = voxels(ct)
    node = bench.make_map()
    assert node.GetName() == "CT anomaly map, N 180 S 12 (research only)"
    assert np.array_equal(voxels(ct), before)
    assert "20 of 20 slices are marked" in bench.message
    assert bench.ui.heatGroup.visible
    shown, opacity = bench.foreground
    assert shown is node
    assert opacity == bench.parameters.map_opacity
    assert "Highest probability of disease: 0.95" in plain(bench.ui.mapFactsLabel)


def test_the_request_carries_what_the_panel_shows(bench):
    bench.load_case()
    bench.ui.noiseSpinBox.value = 240
    bench.ui.guidanceSpinBox.value = 7.5
    bench.choose(bench.ui.planeComboBox, "coronal")
    bench.choose(bench.ui.kindComboBox, "absolute")
    bench.choose(bench.ui.normalisationComboBox, "slice")
    bench.ui.moreMapGroup.collapsed = False
    bench.turn()
    bench.ui.gateCheckBox.click()
    bench.ui.levelsSpinBox.value = 40
    bench.ui.thresholdSlider.value = 0.5
    bench.press(bench.ui.runButton)
    task, request, arrays, panel = bench.bridge.requests[1]
    asked = request["parameters"]
    assert (task, panel) == ("anomaly", "anomaly")
    assert (asked["model"], asked["noise_level"], asked["guidance_scale"]) == (CT_MODEL, 240, 7.5)
    assert (asked["plane"], asked["map_kind"], asked["normalisation"]) == (
        "coronal", "absolute", "slice",
    )  # fmt: skip
    assert (asked["gate"], asked["steps"], asked["threshold"]) == (False, 40, 0.5)
    assert asked["slices"] is None
    assert set(arrays) == {"image_ct", "organ"}


def test_this_slice_and_what_the_views_show(bench):
    bench.load_case()
    bench.look_at((30.0, 26.0, 20.4))
    bench.choose(bench.ui.rangeComboBox, "slice")
    assert plain(bench.ui.estimateLabel).startswith("1 slice")
    bench.press(bench.ui.runButton)
    assert bench.bridge.requests[1][1]["parameters"]["slices"] == (20, 21)
    red = bench.scene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(20.0), (
        "not diluted by the next slice"
    )
    bench.panels.anomaly.cancel()
    bench.turn()
    bench.choose(bench.ui.rangeComboBox, "visible")
    assert plain(bench.ui.estimateLabel).startswith("19 slices")
    bench.press(bench.ui.runButton)
    first, end = bench.bridge.requests[2][1]["parameters"]["slices"]
    assert (first, end) == (10, 31), "10 mm to both sides"


def test_the_button_becomes_cancel_and_finished_slices_are_kept(bench):
    bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    assert bench.ui.runButton.text == "Cancel (Esc)"
    assert bench.ui.mapProgressBar.visible
    bench.bridge.progress(1, "rewriting slices as healthy", 2, 4, remaining_s=7.2)
    bench.turn()
    assert "Rewriting the slices as healthy" in bench.ui.mapProgressLabel.text
    assert "about 8 s left" in bench.ui.mapProgressLabel.text
    bench.bridge.cancel = lambda number: stop_map(bench.bridge, number, unfinished=8)
    bench.press(bench.ui.runButton)
    assert bench.ui.runButton.text == "Make the map (Ctrl+Return)"
    assert "12 finished of 20 slices" in bench.message
    assert bench.parameters.map is not None
    assert bench.foreground[0] is bench.parameters.map
    assert "Cancelled before the last slice" in plain(bench.ui.mapFactsLabel)


def test_threshold_opacity_and_colors_never_reach_the_worker(bench):
    bench.load_case()
    bench.look_at()
    node = bench.make_map()
    values = voxels(node)
    bench.ui.thresholdSlider.value = 0.7
    bench.ui.opacitySlider.value = 0.25
    bench.choose(bench.ui.colorsComboBox, "viridis")
    display = node.GetDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(0.7)
    assert "viridis" in display.GetColorNode().GetName()
    assert bench.foreground == (node, 0.25)
    assert np.array_equal(voxels(node), values)
    assert list(bench.bridge.requests) == [1]
    bench.press(bench.ui.automaticButton)
    assert display.GetLowerThreshold() == pytest.approx(bench.ui.thresholdSlider.value)
    bench.press(bench.ui.showMapCheckBox)
    assert bench.foreground[0] is None
    bench.press(bench.ui.showMapCheckBox)
    assert bench.foreground[0] is node


def test_sliders_update_the_slice_when_it_is_fast(bench):
    bench.load_case()
    bench.look_at((30.0, 26.0, 20.0))
    assert not bench.ui.liveCheckBox.enabled, "nobody knows yet how long a slice takes"
    bench.choose(bench.ui.rangeComboBox, "slice")
    bench.clock = lambda: 0.0  # however busy the machine is
    kept = bench.make_map()
    assert bench.ui.liveCheckBox.enabled
    bench.press(bench.ui.liveCheckBox)
    bench.ui.guidanceSlider.value = 60
    bench.turn()
    assert len(bench.bridge.requests) == 2
    assert not bench.ui.mapProgressBar.visible, "nothing flickers while the sliders move"
    bench.ui.guidanceSlider.value = 70
    bench.ui.guidanceSlider.value = 80
    bench.turn()
    assert len(bench.bridge.requests) == 2, "the next one waits for the answer"
    answer_map(bench.bridge, 2)
    bench.turn(0.05)
    assert len(bench.bridge.requests) == 3
    last = bench.bridge.requests[3][1]["parameters"]
    assert last["guidance_scale"] == bench.parameters.anomaly.guidance_scale
    assert last["slices"] == (20, 21)
    answer_map(bench.bridge, 3)
    bench.turn(0.05)
    live = bench.parameters.map
    assert live is not kept
    assert "live" in live.GetName()
    assert bench.foreground[0] is live
    assert len(bench.bridge.requests) == 3, "no more is asked than was moved"
    bench.ui.opacitySlider.value = 0.9
    bench.turn(0.05)
    assert len(bench.bridge.requests) == 3


def test_a_slow_model_offers_no_live_updates_and_says_how_long_it_takes(bench):
    bench.load_case()
    bench.panels.anomaly.estimate.measured(
        bench.panels.anomaly.inputs.model, "auto", 60.0, 10, (180, 50)
    )
    bench.turn()
    assert not bench.ui.liveCheckBox.enabled
    assert plain(bench.ui.estimateLabel) == "20 slices, about 2 min."
    bench.ui.noiseSpinBox.value = 360
    bench.turn()
    assert plain(bench.ui.estimateLabel) == "20 slices, about 4 min."


def test_maps_are_kept_chosen_compared_and_removed(bench):
    bench.load_case()
    bench.look_at()
    first = bench.make_map()
    bench.ui.guidanceSpinBox.value = 30
    second = bench.make_map()
    assert bench.parameters.map is second
    assert bench.ui.mapSelector.nodeCount() == 2
    bench.ui.mapSelector.setCurrentNode(first)
    bench.turn()
    assert bench.foreground[0] is first
    assert not bench.ui.compareMapsButton.enabled
    bench.ui.otherSelector.setCurrentNode(second)
    bench.turn()
    assert bench.ui.compareMapsButton.enabled
    bench.press(bench.ui.removeMapButton)
    assert bench.parameters.map is second
    assert bench.foreground[0] is second
    assert "was removed" in bench.message
    bench.press(bench.ui.removeMapButton)
    assert bench.parameters.map is None
    assert not bench.ui.heatGroup.visible
    assert bench.foreground[0] is None
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 0


def test_another_scan_shows_its_own_maps(bench):
    ct = bench.load_case()
    bench.look_at()
    first = bench.make_map()
    add_ct(bench.scene, name="other")
    bench.volumes.volumeSelector.setCurrentNode(bench.scene.GetFirstNodeByName("other"))
    bench.turn()
    assert bench.parameters.map is None
    bench.volumes.volumeSelector.setCurrentNode(ct)
    bench.turn()
    assert bench.parameters.map is first


def test_only_maps_can_be_chosen_as_maps(bench):
    bench.load_case()
    bench.look_at()
    assert bench.ui.mapSelector.nodeCount() == 0
    bench.make_map()
    assert bench.ui.mapSelector.nodeCount() == 1


def test_a_segmentation_is_made_of_what_is_shown(bench):
    bench.load_case()
    bench.look_at()
    node = bench.make_map()
    bench.ui.thresholdSlider.value = 0.8
    bench.press(bench.ui.segmentMapButton)
    assert "ml above 0.80" in bench.message
    bench.ui.thresholdSlider.value = 1.0
    bench.press(bench.ui.segmentMapButton)
    assert ends_in_next_step(bench.message)
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2
    assert voxels(node).max() <= 1


def test_the_strongest_place_is_shown(bench):
    bench.load_case()
    bench.look_at((30.0, 26.0, 14.0))
    bench.make_map()
    bench.press(bench.ui.peakButton)
    red = bench.scene.GetNodeByID("vtkMRMLSliceNodeRed")
    # The fake worker is surest in the organ's last slice.
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(31.0)


def test_files_are_saved_under_a_name_that_says_what_they_are(bench, tmp_path, monkeypatch):
    import qt

    bench.load_case()
    bench.look_at()
    bench.make_map()
    proposed = []

    def ask(_parent, _title, name, _filter):
        proposed.append(name)
        return str(tmp_path / "map.nrrd")

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(ask))
    bench.panels.anomaly.heat._save(".nrrd")
    assert "anomaly-map" in proposed[0]
    assert sorted(p.name for p in tmp_path.glob("map*")) == [
        "map-healthy.nrrd", "map-mask.nrrd", "map.json", "map.nrrd",
    ]  # fmt: skip
    assert "Saved in" in bench.message


def test_a_job_goes_on_while_another_module_is_open(bench):
    bench.load_case()
    bench.look_at()
    bench.press(bench.ui.runButton)
    bench.panels.exit()
    answer_map(bench.bridge, 1)
    bench.turn()
    bench.panels.enter()
    bench.turn()
    assert bench.parameters.map is not None
    assert bench.ui.runButton.text == "Make the map (Ctrl+Return)"


# ------------------------------------------------------------------------------------ MR sequences


def test_four_sequences_are_found_by_their_names(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    assert bench.ui.sequencesFrame.visible
    assert "without skull" in plain(bench.ui.brainNoteLabel)
    nodes = bench.load_head()
    assert [bench.ui.t1Selector.currentNode(), bench.ui.flairSelector.currentNode()] == [
        nodes[0], nodes[3],
    ]  # fmt: skip
    assert bench.hint == ""
    bench.look_at()
    node = bench.make_map()
    assert list(bench.bridge.requests[1][2]) == [
        "image_t1", "image_t1c", "image_t2", "image_flair",
    ]  # fmt: skip
    assert node.GetName().startswith("case flair anomaly map")
    assert bench.foreground[0] is node


def test_a_sequence_that_is_missing_is_named(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    bench.load_head(("a t1", "a flair"))
    bench.press(bench.ui.findSequencesButton)
    assert "T1 contrast, T2" in bench.message
    bench.press(bench.ui.runButton)
    assert ends_in_next_step(bench.message)
    assert not bench.bridge.requests


def test_the_way_to_a_brain_mask_is_told(bench):
    bench.choose(bench.ui.mapModelComboBox, MR_MODEL)
    bench.press(bench.ui.findAreaButton)
    for words in ("HD-BET", "SwissSkullStripper", "Segment Editor", "need none"):
        assert words in bench.message
    assert bench.ui.areaLabel.text == "Brain mask:"


# --------------------------------------------------------------------------------------- the sheet


def test_a_sheet_tries_pairs_and_a_press_takes_one(bench):
    bench.load_case()
    bench.look_at()
    bench.ui.sweepGroup.collapsed = False
    bench.turn()
    assert bench.ui.sweepNoiseEdit.text == "90, 180, 360"
    bench.type(bench.ui.sweepNoiseEdit, "100, 200")
    bench.type(bench.ui.sweepScaleEdit, "5, 20")
    bench.press(bench.ui.sweepButton)
    assert bench.ui.runButton.text == "Cancel (Esc)"
    for number in (1, 2, 3, 4):
        answer_map(bench.bridge, number)
        bench.turn()
    tried = [
        (r[1]["parameters"]["noise_level"], r[1]["parameters"]["guidance_scale"])
        for r in bench.bridge.requests.values()
    ]
    assert tried == [(200, 5.0), (200, 20.0), (100, 5.0), (100, 20.0)], "the largest N serves all"
    assert all(r[1]["parameters"]["slices"] == (20, 21) for r in bench.bridge.requests.values())
    assert "4 pictures are ready" in bench.message
    bench.turn()
    buttons = [w for w in bench.panels.anomaly.sweep._widgets if hasattr(w, "iconSize")]
    assert len(buttons) == 4
    assert not any(button.icon.isNull() for button in buttons)
    bench.press(buttons[3])
    asked = bench.parameters.anomaly
    assert (asked.noise_level, asked.guidance_scale) == (100, 20.0)
    assert "live" in bench.parameters.map.GetName()
    assert len(bench.bridge.requests) == 4


def test_a_sheet_that_is_cancelled_keeps_its_finished_pictures(bench, tmp_path, monkeypatch):
    import qt

    bench.load_case()
    bench.look_at()
    bench.ui.sweepGroup.collapsed = False
    bench.turn()
    bench.press(bench.ui.sweepButton)
    answer_map(bench.bridge, 1)
    bench.turn()
    bench.press(bench.ui.runButton)
    bench.turn()
    assert "1 of 9 pictures are ready" in bench.message
    target = tmp_path / "sheet.png"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *_: str(target)))
    bench.press(bench.ui.saveSheetButton)
    assert target.stat().st_size > 1000


@pytest.mark.parametrize(
    ("noise", "scale"),
    [("many", "3"), (" ", "3"), ("10.5", "3"), ("1,2,3,4,5,6", "3"), ("2000", "3")],
)
def test_a_sheet_of_nonsense_is_refused(bench, noise, scale):
    bench.load_case()
    bench.look_at()
    bench.ui.sweepGroup.collapsed = False
    bench.turn()
    bench.type(bench.ui.sweepNoiseEdit, noise)
    bench.type(bench.ui.sweepScaleEdit, scale)
    bench.press(bench.ui.sweepButton)
    assert bench.message.endswith(".")
    assert not bench.bridge.requests
