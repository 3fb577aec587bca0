"""The Volumes panel: facts, warnings in words, the remedy for a bent scan, and sample data."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer

from Testing.module.panels.bench import ROOT, ends_in_next_step, plain
from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_segmentation,
    add_transform,
    add_volume,
    gantry,
    turned,
    voxels,
)


def test_an_empty_scene_says_what_to_do(bench):
    assert ends_in_next_step(plain(bench.volumes.emptyLabel))
    assert not bench.volumes.factsFrame.visible
    assert not bench.volumes.remedyButton.visible


def test_shows_the_facts_of_the_chosen_scan(bench):
    bench.load_ct()
    assert "60 x 52 x 44 voxels of 1 x 1 x 1 mm" in plain(bench.volumes.sizeValue)
    assert "axial" in plain(bench.volumes.orientationValue)
    assert "-1000 to 700" in plain(bench.volumes.rangeValue)
    assert "96 mm" in plain(bench.volumes.modelValue)
    assert not bench.volumes.emptyLabel.visible


def test_facts_follow_when_the_scan_is_changed_elsewhere(bench):
    ct = bench.load_ct()
    add_transform(bench.scene, turned((0, 0, 25)), child=ct)
    bench.turn()
    assert "oblique by 0" not in plain(bench.volumes.orientationValue)
    ct.SetSpacing(2, 2, 2)
    bench.turn()
    assert "2 x 2 x 2 mm" in plain(bench.volumes.sizeValue)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda scene: add_volume(scene, "MR", np.full((20, 20, 20), 300, np.int16)), "no image"),
        (lambda scene: _vector(scene), "values per voxel"),
        (lambda scene: scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"), "no image"),
    ],
)
def test_what_is_no_ct_gets_a_sentence_with_the_next_step(bench, make, words):
    bench.volumes.volumeSelector.setCurrentNode(make(bench.scene))
    bench.turn()
    said = plain(bench.volumes.warningsLabel)
    assert words in said
    assert ends_in_next_step(said)


def test_a_bent_scan_is_straightened_in_a_copy(bench):
    ct = bench.load_ct()
    organs, _ = add_segmentation(bench.scene, ct, {"liver": np.ones((60, 52, 44), bool)})
    bench.parameters.segmentation = organs
    bend = add_bend(bench.scene, gantry, child=ct)
    organs.SetAndObserveTransformNodeID(bend.GetID())
    before = voxels(ct)
    bench.turn()
    assert "bends space" in plain(bench.volumes.warningsLabel)
    bench.press(bench.volumes.remedyButton)
    copy = bench.parameters.volume
    assert copy is not ct
    assert copy.GetParentTransformNode() is None
    assert bench.parameters.segmentation is not organs
    assert bench.parameters.segmentation.GetParentTransformNode() is None
    assert ct.GetParentTransformNode() is bend
    assert np.array_equal(voxels(ct), before)
    assert not bench.volumes.remedyButton.visible
    assert "stays as it was" in plain(bench.volumes.volumesMessage)


def test_the_scan_may_leave_the_scene(bench):
    ct = bench.load_ct()
    bench.scene.RemoveNode(ct)
    bench.turn()
    assert bench.parameters.volume is None
    assert bench.volumes.emptyLabel.visible


def test_dicom_and_file_say_what_to_do_where_slicer_lacks_them(bench):
    bench.press(bench.volumes.loadDicomButton)
    assert ends_in_next_step(plain(bench.volumes.volumesMessage))


def test_the_sample_phantom_brings_its_organs(bench):
    """With the real worker process, which needs no torch for it."""
    bench.press(bench.volumes.phantomButton)
    assert bench.volumes.phantomButton.text == "Stop"
    end = time.monotonic() + 300
    while bench.parameters.volume is None and time.monotonic() < end:
        bench.turn(0.05)
    assert bench.parameters.volume.GetName() == "Phantom abdomen (computed)"
    assert bench.parameters.segment_id == "liver"
    assert bench.volumes.phantomButton.text == "Sample phantom"
    assert bench.ui.clipCheckBox.enabled
    organs = bench.parameters.segmentation
    bench.choose(bench.ui.organComboBox, "pancreas")
    assert bench.parameters.segmentation is organs
    assert bench.parameters.segment_id == "pancreas"


def test_making_the_phantom_can_be_stopped(bench):
    bench.press(bench.volumes.phantomButton)
    bench.press(bench.volumes.phantomButton)
    bench.turn(0.1)
    assert bench.parameters.volume is None
    assert "as it was" in plain(bench.volumes.volumesMessage)


def test_two_scans_can_be_switched(bench):
    first = bench.load_ct()
    second = add_ct(bench.scene, name="second", shape=(30, 30, 30))
    bench.volumes.volumeSelector.setCurrentNode(second)
    bench.turn()
    assert "30 x 30 x 30" in plain(bench.volumes.sizeValue)
    bench.volumes.volumeSelector.setCurrentNode(first)
    bench.turn()
    assert "60 x 52 x 44" in plain(bench.volumes.sizeValue)


def _vector(scene):
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "color")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    return node


def test_the_modality_is_known_again_after_opening_a_saved_scene(app, scene, tmp_path):
    """The subject hierarchy is joined to the nodes only after the panels hear of the end of the import."""
    import slicer

    from Testing.slicer_stand_in import load_module

    module = load_module(ROOT / "DiffTumorSlicer" / "DiffTumorSlicer.py")
    panel = module.createNewWidgetRepresentation()
    panel.enter()
    volumes = panel.self().panels.volumes
    node = add_ct(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(
        hierarchy.GetSceneItemID(), node
    )
    volumes._choose(node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")  # Slicer writes it after the loading
    app.processEvents()
    panel.self().panels.tick()
    assert volumes.ui.modalityValue.text == "CT"
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    del node, hierarchy
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": True})
    panel.self().panels.tick()
    assert volumes.ui.modalityValue.text == "CT"
    panel.exit()
    panel.self().cleanup()


def test_of_several_new_scans_the_last_one_is_chosen(bench, monkeypatch):
    for number in range(8):  # ids from 9 to 10 are in another order as texts
        add_ct(bench.scene, name=f"old {number}")

    def load():
        for number in range(4):
            add_ct(bench.scene, name=f"new {number}")

    monkeypatch.setattr(slicer.util, "openAddVolumeDialog", load)
    bench.press(bench.volumes.loadFileButton)
    assert bench.parameters.volume.GetName() == "new 3"
