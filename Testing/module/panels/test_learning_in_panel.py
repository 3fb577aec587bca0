"""Paint, learn, improve: the second way of the Segmentation panel, with a worker that is the test."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from difftumor.weights import models
from Testing.module.panels.bench import plain
from Testing.module.scene.anomaly_answers import CT_MODEL, MR_MODEL
from Testing.module.scene.scenes import segment_voxels, voxels
from Testing.module.scene.segmentation_answers import LEARNED, answer_learning


@pytest.fixture
def bench(segmentation_bench):
    return segmentation_bench


@pytest.fixture
def painted(bench):
    """A CT with the liver, and one painted slice."""
    bench.load_case()
    bench.look_at()
    bench.learn_from_slices(CT_MODEL)
    bench.paint(20)
    return bench


def test_paint_opens_the_segment_editor_at_labels_on_the_scan(bench):
    ct = bench.load_case()
    bench.learn_from_slices(CT_MODEL)
    assert "press Paint" in bench.hint
    assert bench.ui.paintGroup.visible
    assert not bench.ui.trainedGroup.visible
    bench.press(bench.ui.paintButton)
    labels = bench.parameters.painted
    assert labels.GetName() == "CT painted slices"
    editor = bench.scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.GetSegmentationNode() is labels
    assert editor.GetSourceVolumeNode() is ct
    assert editor.GetActiveEffectName() == "Paint"
    assert editor.GetSelectedSegmentID() == labels.GetSegmentation().GetNthSegmentID(0)
    bench.press(bench.ui.paintButton)
    assert bench.parameters.painted is labels, "the same labels are painted on"


def test_painted_slices_are_listed_and_a_slice_can_be_told_to_show_no_tumor(painted):
    bench = painted
    assert plain(bench.ui.paintedLabel) == "Painted: S 20.0 mm."
    assert bench.hint == ""
    bench.look_at((30.0, 26.0, 27.0))
    bench.press(bench.ui.emptySliceButton)
    assert plain(bench.ui.paintedLabel) == "Painted: S 20.0 mm. No tumor: S 27.0 mm."
    assert bench.ui.emptySliceButton.text == "This slice is not labeled after all"
    bench.press(bench.ui.segmentButton)
    task, request, arrays, panel = bench.bridge.requests[1]
    assert (task, panel) == ("learn", "segmentation")
    assert request["parameters"]["labelled"] == (20, 27)
    assert set(arrays) == {"image_ct", "organ", "labels"}
    assert arrays["labels"].sum() == 100
    assert request["model_folder"]
    bench.panels.segmentation.cancel()
    bench.turn()
    bench.press(bench.ui.emptySliceButton)
    assert plain(bench.ui.paintedLabel) == "Painted: S 20.0 mm."
    bench.look_at()
    bench.press(bench.ui.emptySliceButton)
    assert "Something is painted on this slice" in bench.message
    bench.panels.segmentation.learning._go_to("25.0")
    red = bench.scene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(25)


def test_learning_shows_the_outline_the_uncertainty_and_where_to_paint_next(painted):
    bench = painted
    labels = bench.parameters.painted
    node = bench.learn()
    assert node is not labels
    assert "The other slices are segmented" in bench.message
    found = segment_voxels(node, node.GetSegmentation().GetNthSegmentID(0), (60, 52, 44))
    assert found[24:34, 20:30, 12:32].all()
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "Tumor"
    assert voxels(bench.foreground[0]).max() == pytest.approx(0.3)
    assert "ncertainty" in bench.ui.overlayComboBox.currentText
    assert "S 31.0 mm" in plain(bench.ui.suggestionLabel)
    bench.press(bench.ui.goToSliceButton)
    red = bench.scene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(31)
    assert bench.table()[0][:2] == ["Tumor", "2.0"]
    assert not labels.GetDisplayNode().GetVisibility()


def test_one_more_slice_replaces_the_draft_but_never_what_was_kept_or_edited(painted):
    import slicer

    bench = painted
    first = bench.learn()
    name = first.GetName()
    bench.paint(31)
    assert "is painted now" in plain(bench.ui.suggestionLabel)
    bench.press(bench.ui.learnAgainButton)
    answer_learning(bench.bridge, 2)
    bench.turn()
    second = bench.result
    assert second is not first
    assert bench.bridge.requests[2][1]["parameters"]["labelled"] == (20, 31)
    assert bench.scene.GetNodeByID(first.GetID()) is not first
    assert second.GetName() == name.replace("1 slice", "2 slices")
    volumes = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert sum("uncertainty" in name for name in volumes) == 1, "the draft's overlay went with it"
    bench.type(bench.ui.resultNameEdit, "Mine")
    third = bench.learn()
    assert bench.scene.IsNodePresent(second), "what was kept stays"
    segmentation = third.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    fourth = bench.learn()
    assert bench.scene.IsNodePresent(third), "what was edited stays"
    assert fourth is bench.result


def test_what_was_learned_is_saved_as_a_model(painted, tmp_path, monkeypatch):
    import qt

    bench = painted
    bench.learn()
    folder = bench.panels.segmentation.learning.model_folder
    shutil.copytree(tmp_path / "models" / LEARNED, folder)
    answers = ["", "My liver lesions", "My liver lesions"]
    monkeypatch.setattr(qt.QInputDialog, "getText", staticmethod(lambda *_: answers.pop(0)))
    for _ in range(2):
        bench.press(bench.ui.saveLearnedButton)
    assert "my-liver-lesions" in bench.message
    row = next(r for r in models.list_models() if r["id"] == "my-liver-lesions")
    assert row["title"] == "My liver lesions"
    bench.press(bench.ui.saveLearnedButton)
    assert "Choose another name" in bench.message
    bench.choose(bench.ui.wayComboBox, "trained")
    bench.choose(bench.ui.mapModelComboBox, "my-liver-lesions")


def test_four_sequences_are_found_and_three_labels_painted_on_the_head(bench):
    bench.learn_from_slices(MR_MODEL)
    nodes = bench.load_head()
    assert bench.ui.t1cSelector.currentNode() is nodes[1]
    labels = bench.paint(20, segment=2)
    segmentation = labels.GetSegmentation()
    names = [segmentation.GetNthSegment(n).GetName() for n in range(3)]
    assert names == ["edema", "necrotic core", "enhancing tumor"]
    bench.press(bench.ui.segmentButton)
    arrays = bench.bridge.requests[1][2]
    assert set(arrays) == {"image_t1", "image_t1c", "image_t2", "image_flair", "labels"}
    assert np.unique(arrays["labels"]).tolist() == [0, 3], "the label that the engine means"
    answer_learning(bench.bridge, 1)
    bench.turn()
    assert bench.table()[0][0] == "Enhancing tumor"
    assert bench.ui.lesionTree.headerItem().text(4) == "Signal"
    assert bench.ui.lesionTree.isColumnHidden(6), "no probability is told"


def test_a_scene_that_was_saved_and_opened_again_is_complete(painted, tmp_path):
    import slicer

    from DiffTumorSlicerLib.jobs.parameter_node import open_parameters
    from DiffTumorSlicerLib.segmentation.results import is_draft, is_edited

    bench = painted
    bench.look_at((30.0, 26.0, 27.0))
    bench.press(bench.ui.emptySliceButton)
    bench.learn()
    before = bench.table(), plain(bench.ui.paintedLabel), plain(bench.ui.suggestionLabel)
    file = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(file))
    bench.panels.set_parameter_node(None)
    bench.scene.Clear(0)
    slicer.util.loadScene(str(file), {"clear": True})
    node = next(n for n in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
                if n.GetParameter("schema_version"))  # fmt: skip
    parameters, problem = open_parameters(node)
    assert problem == ""
    bench.parameters = parameters
    bench.panels.set_parameter_node(parameters)
    bench.look_at((30.0, 26.0, 27.0))
    bench.turn()
    after = bench.table(), plain(bench.ui.paintedLabel), plain(bench.ui.suggestionLabel)
    assert after == before
    assert is_draft(bench.result)
    assert not is_edited(bench.result)
    bench.learn()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 3, (
        "the draft was replaced"
    )
