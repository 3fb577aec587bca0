"""What the Volumes panel says of a volume."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_transform,
    add_volume,
    gantry,
    slicer,
    turned,
    vtk,
)

from DiffTumorSlicerLib.scene.geometry import SceneError  # isort: skip
from DiffTumorSlicerLib.scene.volumes_info import volume_facts, volume_notes, volume_warnings  # isort: skip


def test_an_ordinary_ct_has_facts_and_no_warning(scene):
    affine = np.diag([-0.8, -0.8, 2.5, 1])
    ct = add_ct(scene, affine=affine)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), ct)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")
    facts = volume_facts(ct)
    assert facts["modality"] == "CT"
    assert facts["size"] == "60 x 52 x 44 voxels"
    assert facts["spacing"] == "0.8 x 0.8 x 2.5 mm"
    assert facts["orientation"] == "axial slices"
    assert facts["range"].startswith("-1000 to 7")
    assert "96 mm" in facts["model"]
    assert "-175 to 250 HU" in facts["model"]
    assert volume_warnings(ct) == []
    assert len(volume_notes(ct)) == 1


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ((0, 0, 30), "axial slices"),
        ((12, 0, 0), "axial slices, oblique by 12 degrees"),
        ((90, 0, 0), "coronal slices"),
        ((0, 90, 0), "sagittal slices"),
        ((0, 80, 0), "sagittal slices, oblique by 10 degrees"),
    ],
)
def test_orientation_in_words(scene, turn, words):
    assert volume_facts(add_ct(scene, affine=turned(turn)))["orientation"] == words


def test_orientation_is_that_of_the_patient_not_of_the_node(scene):
    ct = add_ct(scene)
    add_transform(scene, np.diag([1, 1, -1, 1.0]) @ turned((12, 0, 0)), child=ct)
    words = volume_facts(ct)["orientation"]
    assert words == "axial slices, oblique by 12 degrees, left-handed"


def test_what_is_no_ct_is_said(scene):
    rng = np.random.default_rng(0)
    mr = add_volume(scene, "mr", rng.integers(0, 900, (20, 20, 20)).astype(np.int16))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), mr)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    warnings = " ".join(volume_warnings(mr))
    assert "modality MR, not CT" in warnings
    assert "No value is below 0" in warnings


def test_coarse_thin_and_tilted_volumes_are_told(scene):
    coarse = add_ct(scene, shape=(30, 30, 10), affine=np.diag([1, 1, 8.0, 1]))
    warnings = " ".join(volume_warnings(coarse))
    assert "8 mm long" in warnings
    assert "only 10 slices" in warnings
    sheared = np.eye(4)
    sheared[1, 2] = np.tan(np.deg2rad(15))
    tilted = add_ct(scene, "tilted")
    add_transform(scene, sheared, child=tilted)
    assert "gantry tilted by 15.0 degrees" in " ".join(volume_warnings(tilted))


def test_what_cannot_be_used_is_one_sentence_with_the_remedy(scene):
    bent = add_ct(scene, "bent", shape=(20, 20, 20))
    add_bend(scene, gantry, child=bent)
    assert "hardened copy" in volume_notes(bent)[0]
    with pytest.raises(SceneError):
        volume_facts(bent)

    labels = add_volume(
        scene, "labels", np.zeros((20, 20, 20), np.uint8), kind="vtkMRMLLabelMapVolumeNode"
    )
    assert "is a label map" in volume_notes(labels)[0]

    color = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(3, 3, 3)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    color.SetAndObserveImageData(image)
    assert "values per voxel" in volume_notes(color)[0]

    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    assert "holds no image" in volume_notes(empty)[0]

    flat = add_volume(scene, "flat", np.full((20, 20, 20), 7, np.int16))
    assert "all 7" in " ".join(volume_notes(flat))

    single = add_ct(scene, "single", shape=(60, 52, 1))
    assert "single slice" in " ".join(volume_notes(single))

    holes = np.zeros((20, 20, 20), np.float32)
    holes[3, 3, 3] = np.nan
    assert "not numbers" in " ".join(volume_notes(add_volume(scene, "holes", holes)))
