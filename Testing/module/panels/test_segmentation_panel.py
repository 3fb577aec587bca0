"""Press, look, measure, save: the Segmentation panel with a worker that answers when the test wants it to."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from Testing.module.panels.bench import box_mask, plain
from Testing.module.scene.scenes import add_ct, add_segmentation, segment_voxels, voxels
from Testing.module.scene.segmentation_answers import (
    LEARNED,
    LESIONS,
    PARTNER,
    SEGMENTER,
    answer_learning,
)


@pytest.fixture
def bench(segmentation_bench):
    return segmentation_bench


def test_a_press_outlines_each_lesion_and_leaves_scan_and_organ_alone(bench):
    ct = bench.load_case()
    bench.look_at()
    before, organ = voxels(ct), bench.parameters.segmented_organ
    own, _ids = add_segmentation(
        bench.scene, ct, {"mine": box_mask((60, 52, 44), (5, 5, 5), (9, 9, 9))}
    )
    node = bench.segment()
    assert node is bench.parameters.segmented
    assert node not in (organ, own)
    assert "2 lesions found" in bench.message
    assert np.array_equal(voxels(ct), before)
    assert [
        own.GetSegmentation().GetNumberOfSegments(),
        organ.GetSegmentation().GetNumberOfSegments(),
    ] == [1, 1]
    assert "research only" in node.GetName()
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(2)]
    assert names == ["Liver tumor 1", "Liver tumor 2"]
    for number, (low, high) in enumerate(LESIONS):
        found = segment_voxels(node, segmentation.GetNthSegmentID(number), (60, 52, 44))
        assert np.array_equal(found, box_mask((60, 52, 44), low, high))
    assert bench.ui.segmentButton.text == "Segment (Ctrl+Return)"


def test_the_request_carries_what_the_panel_shows(bench):
    bench.load_case()
    assert bench.ui.leastSpinBox.value == 4.0, "as the model recommends"
    assert bench.ui.tumorThresholdSpinBox.value == pytest.approx(0.4)
    bench.choose(bench.ui.overlapComboBox, "0.5")
    bench.press(bench.ui.flipsCheckBox)
    bench.press(bench.ui.clipCheckBox)
    bench.ui.moreSegmentGroup.collapsed = False
    bench.turn()
    bench.ui.leastSpinBox.value = 7.5
    offered = [bench.ui.partnersList.item(n) for n in range(bench.ui.partnersList.count)]
    next(one for one in offered if "partner" in one.text().lower()).setSelected(True)
    bench.turn()
    bench.press(bench.ui.segmentButton)
    task, request, arrays, panel = bench.bridge.requests[1]
    assert (task, panel) == ("segmentation", "segmentation")
    assert set(arrays) == {"scan", "organ"}
    assert request["parameters"] == {
        "models": (SEGMENTER, PARTNER), "overlap": 0.5, "flips": True, "clip_to_organ": False,
        "min_diameter_mm": 7.5, "tumor_threshold": pytest.approx(0.4),
    }  # fmt: skip


def test_the_table_tells_what_was_measured_and_a_click_leads_there(bench):
    bench.load_case()
    bench.look_at()
    bench.segment()
    rows = bench.table()
    assert [row[0] for row in rows] == ["Liver tumor 1", "Liver tumor 2"]
    assert rows[0][1] == "1.0"
    assert rows[0][2] == "12 early"
    assert rows[0][6] == "0.90"
    assert "±" in rows[0][4]
    bench.ui.lesionTree.setCurrentItem(bench.ui.lesionTree.topLevelItem(1))
    bench.turn()
    low, high = LESIONS[1]
    middle = (np.add(low, high) - 1) / 2
    for name, axis in (("Red", 2), ("Yellow", 0), ("Green", 1)):
        matrix = bench.scene.GetNodeByID(f"vtkMRMLSliceNode{name}").GetSliceToRAS()
        assert matrix.GetElement(axis, 3) == pytest.approx(middle[axis], abs=1)
    assert "Liver tumor 2" in plain(bench.ui.lesionDetailsLabel)


def test_overlays_come_on_request_and_can_be_switched(bench):
    bench.load_case()
    bench.look_at()
    bench.press(bench.ui.probabilityCheckBox)
    bench.segment()
    assert not bench.ui.overlayComboBox.visible
    bench.press(bench.ui.probabilityCheckBox)
    bench.panels.segmentation.settings._parameters.segmenting.others = PARTNER
    node = bench.segment()
    assert bench.foreground[0] is None
    bench.choose(bench.ui.overlayComboBox, "probability")
    shown, opacity = bench.foreground
    assert voxels(shown).max() == pytest.approx(0.9)
    assert shown.GetImageData().GetDimensions() == (24, 24, 20), "the box of the organ"
    assert opacity == 0.5
    bench.ui.overlayOpacitySlider.value = 0.8
    bench.turn()
    assert bench.foreground[1] == pytest.approx(0.8)
    bench.choose(bench.ui.overlayComboBox, "agreement")
    agreement = bench.foreground[0]
    assert agreement is not shown
    values = voxels(agreement)
    assert values[voxels(shown) < 0.5].max() == 0, "nothing lies over what all call healthy"
    assert sorted(np.unique(values)) == [0, 0.5, 1]
    bench.choose(bench.ui.overlayComboBox, "")
    assert bench.foreground[0] is None
    assert node.GetDisplayNode().GetVisibility()
    assert list(bench.bridge.requests) == [1, 2]


def test_without_an_organ_the_whole_scan_is_searched_and_the_models_organ_is_shown(bench):
    bench.load_ct()
    assert bench.hint == ""
    node = bench.segment()
    assert set(bench.bridge.requests[1][2]) == {"scan"}
    segmentation = node.GetSegmentation()
    assert segmentation.GetNthSegment(2).GetName() == "Liver, as the model sees it"
    opacities = [
        node.GetDisplayNode().GetSegmentOpacity3D(segmentation.GetNthSegmentID(n)) for n in (0, 2)
    ]
    assert opacities == [1.0, pytest.approx(0.3)], "the lesions are seen through the organ"
    assert len(bench.table()) == 2


def test_nothing_found_is_said(bench):
    bench.load_case()
    bench.segment(lesions=())
    assert "No tumor was found" in bench.message
    assert bench.table() == []


def test_cancel_changes_nothing(bench):
    bench.load_case()
    nodes = bench.scene.GetNumberOfNodes()
    bench.press(bench.ui.segmentButton)
    assert bench.ui.segmentButton.text == "Cancel (Esc)"
    bench.bridge.progress(1, "segmenting", 2, 8, remaining_s=7.2)
    bench.turn()
    assert "Segmenting" in bench.ui.segmentProgressLabel.text
    assert "about 8 s left" in bench.ui.segmentProgressLabel.text
    bench.press(bench.ui.segmentButton)
    bench.turn()
    assert "Nothing was changed" in bench.message
    assert bench.scene.GetNumberOfNodes() == nodes
    assert bench.segment() is not None


def test_results_are_kept_renamed_edited_measured_again_and_removed(bench):
    import slicer

    ct = bench.load_case()
    bench.look_at()
    first = bench.segment()
    second = bench.segment(lesions=LESIONS[:1])
    assert bench.ui.segmentedSelector.nodeCount() == 2
    assert not first.GetDisplayNode().GetVisibility()
    bench.ui.segmentedSelector.setCurrentNode(first)
    bench.turn()
    assert len(bench.table()) == 2
    bench.type(bench.ui.resultNameEdit, "Follow-up")
    assert first.GetName() == "Follow-up"
    # The person takes the second lesion out, names the first, and adds one by hand.
    segmentation = first.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(1))
    segmentation.GetNthSegment(0).SetName("Segment VII")
    added = segmentation.AddEmptySegment("", "by hand")
    mask = box_mask((60, 52, 44), (21, 18, 13), (23, 20, 15)).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.T, first, added, ct)
    bench.press(bench.ui.measureButton)
    rows = bench.table()
    assert [row[0] for row in rows] == ["Segment VII", "by hand"]
    assert rows[1][1] == "0.01"
    bench.press(bench.ui.removeSegmentationButton)
    assert bench.parameters.segmented is second
    assert second.GetDisplayNode().GetVisibility()
    bench.press(bench.ui.removeSegmentationButton)
    assert not bench.ui.lesionGroup.visible
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_another_scan_shows_its_own_results(bench):
    ct = bench.load_case()
    node = bench.segment()
    bench.volumes.volumeSelector.setCurrentNode(add_ct(bench.scene, name="other"))
    bench.turn()
    assert bench.result is None
    bench.volumes.volumeSelector.setCurrentNode(ct)
    bench.turn()
    assert bench.result is node


def test_table_and_segmentation_are_saved(bench, tmp_path, monkeypatch):
    import qt

    bench.load_case()
    bench.segment()
    group = bench.panels.segmentation.lesions
    for name in ("table.csv", "table.json", "seg.nrrd"):
        path = str(tmp_path / name)
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *_, p=path: p))
        group._save("." + name.partition(".")[2])
        assert "Saved in" in bench.message
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["Liver tumor 1", "Liver tumor 2"]
    assert float(rows[0]["volume_mm3"]) == 1000
    assert json.loads((tmp_path / "table.json").read_text())["lesions"][1]["early"] is True
    assert sorted(p.name for p in tmp_path.glob("seg*")) == [
        "seg-probability.nrrd",
        "seg.json",
        "seg.nrrd",
    ]
    told = json.loads((tmp_path / "seg.json").read_text())
    assert told["task"] == "segmentation"
    assert told["files"]["labels"] == {"1": "Liver tumor 1", "2": "Liver tumor 2"}
    monkeypatch.setattr(
        qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(tmp_path))
    )
    group._save_dicom()
    assert "save as NIfTI or NRRD" in bench.message


def test_what_was_learned_before_is_applied_in_its_own_way(bench):
    bench.load_case()
    bench.choose(bench.ui.mapModelComboBox, LEARNED)
    assert not bench.ui.overlapComboBox.visible
    bench.press(bench.ui.segmentButton)
    task, request, arrays, _panel = bench.bridge.requests[1]
    assert task == "apply_learned"
    assert request["parameters"] == {
        "model": LEARNED, "plane": "axial", "slices": None, "features": None,
    }  # fmt: skip
    assert set(arrays) == {"image_ct", "organ"}
    answer_learning(bench.bridge, 1, learned=None)
    bench.turn()
    assert bench.table()[0][0] == "Tumor"
    assert "uncertainty" in bench.parameters.overlay
