"""The fault list of the Segmentation panel: each ends in a sentence with the next step, and nothing is changed."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from Testing.module.panels.bench import box_mask, ends_in_next_step
from Testing.module.scene.anomaly_answers import CT_MODEL, MR_MODEL
from Testing.module.scene.scenes import add_bend, add_ct, add_segmentation, gantry, turned, voxels
from Testing.module.scene.segmentation_answers import LEARNED, answer_learning, answer_segmentation

SHAPE = (60, 52, 44)


@pytest.fixture
def bench(segmentation_bench):
    return segmentation_bench


def no_volume(bench):
    pass


def organ_empty(bench):
    ct = bench.load_ct()
    add_segmentation(bench.scene, ct, {"liver": np.zeros(SHAPE, bool)})


def a_model_of_another_task(bench):
    bench.load_case()
    bench.parameters.segmenting.model = "demo-abdomen-early"


def a_partner_of_another_task(bench):
    bench.load_case()
    bench.parameters.segmenting.others = CT_MODEL


def a_learned_model_in_an_ensemble(bench):
    bench.load_case()
    bench.parameters.segmenting.others = LEARNED


def an_mr_image(bench):
    ct = bench.load_case()
    study = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(bench.scene)
    item = study.GetItemByDataNode(ct) or study.CreateItem(study.GetSceneItemID(), ct)
    study.SetItemAttribute(item, "DICOM.Modality", "MR")


def no_torch(bench):
    bench.load_case()
    bench.requirements.lack = "PyTorch is missing. Install it in the Extensions Manager."


def memory_full(bench):
    bench.load_case()
    bench.room["memory"] = 10_000_000


def bent_scan(bench):
    add_bend(bench.scene, gantry, child=bench.load_case())


def nothing_painted(bench):
    bench.load_case()
    bench.learn_from_slices(CT_MODEL)


def labels_on_no_slice(bench):
    nothing_painted(bench)
    bench.press(bench.ui.paintButton)


def learning_without_an_organ(bench):
    bench.load_ct()
    bench.learn_from_slices(CT_MODEL)


def labels_of_another_grid(bench):
    ct = bench.load_case()
    bench.learn_from_slices(CT_MODEL)
    other = add_ct(bench.scene, "other grid", affine=turned((0, 0, 9)))
    node, _ids = add_segmentation(
        bench.scene, other, {"t": box_mask(SHAPE, (20, 20, 15), (30, 30, 25))}
    )
    bench.ui.labelsSelector.setCurrentNode(node)
    assert bench.parameters.volume is ct


def learning_with_a_segmenter(bench):
    bench.load_case()
    bench.learn_from_slices(CT_MODEL)
    bench.paint()
    bench.parameters.learning.model = LEARNED


def a_missing_sequence(bench):
    bench.learn_from_slices(MR_MODEL)
    bench.load_head(("a t1", "a t2", "a flair"))


@pytest.mark.parametrize(
    "fault",
    [
        no_volume, organ_empty, a_model_of_another_task, a_partner_of_another_task,
        a_learned_model_in_an_ensemble, an_mr_image, no_torch, memory_full, bent_scan, nothing_painted,
        labels_on_no_slice, learning_without_an_organ, labels_of_another_grid, learning_with_a_segmenter,
        a_missing_sequence,
    ],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_what_is_wrong_before_the_start_is_said_with_the_next_step(bench, fault):
    fault(bench)
    bench.turn()
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(bench.scene)
    nodes = bench.scene.GetNumberOfNodes()
    bench.press(bench.ui.segmentButton)
    assert ends_in_next_step(bench.message)
    assert not bench.bridge.requests
    assert bench.scene.GetNumberOfNodes() == nodes
    assert "Ctrl+Return" in bench.ui.segmentButton.text


def test_a_worker_that_fails_leaves_the_scene_alone_and_the_next_press_works(bench):
    ct = bench.load_case()
    before, nodes = voxels(ct), bench.scene.GetNumberOfNodes()
    bench.press(bench.ui.segmentButton)
    bench.bridge.fail(1, "refused", "the organ mask is empty. Choose another segment.", "")
    bench.turn()
    assert ends_in_next_step(bench.message.removesuffix("Show details").strip())
    assert np.array_equal(voxels(ct), before)
    assert bench.scene.GetNumberOfNodes() == nodes
    assert bench.segment() is not None


def test_scan_organ_labels_and_scene_go_during_the_job(bench):
    ct = bench.load_case()
    bench.learn_from_slices(CT_MODEL)
    labels = bench.paint()
    first = bench.learn()
    bench.press(bench.ui.segmentButton)
    bench.scene.RemoveNode(bench.parameters.segmented_organ)
    bench.scene.RemoveNode(labels)
    bench.scene.RemoveNode(first)
    bench.turn()
    answer_learning(bench.bridge, 2)
    bench.turn()
    assert bench.result is not None, "organ and labels were read before"
    bench.choose(bench.ui.wayComboBox, "trained")
    bench.press(bench.ui.segmentButton)
    bench.scene.RemoveNode(ct)
    bench.turn()
    assert ends_in_next_step(bench.message)
    assert bench.bridge.stopped == [3]
    answer_segmentation(bench.bridge, 3)
    bench.turn()
    bench.load_ct(name="next")
    bench.press(bench.ui.segmentButton)
    bench.panels.set_parameter_node(None)  # as the module's widget does
    bench.scene.Clear(0)
    bench.turn()
    assert ends_in_next_step(bench.message)
    answer_segmentation(bench.bridge, 4)
    bench.turn()
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_without_a_parameter_node_every_button_is_harmless(bench):
    bench.panels.set_parameter_node(None)
    bench.scene.Clear(0)
    bench.turn()
    panel = bench.panels.segmentation
    for action in (
        panel.run, panel.cancel, panel.learning.paint, panel.learning.mark_slice,
        panel.learning.go_to_suggestion, panel.learning.save_model, panel.lesions.keep,
        panel.lesions.measure, panel.lesions.remove,
    ):  # fmt: skip
        action()
    assert not bench.bridge.requests
