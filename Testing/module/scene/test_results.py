"""Result nodes: beside the input, marked synthetic, taken back bit for bit, and alive after a reload."""

from __future__ import annotations

import json

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    add_ct,
    add_transform,
    add_volume,
    make_scene,
    oblique_affine,
    segment_voxels,
    slicer,
    turned,
    voxel_centers_in_world,
    voxels,
    vtk,
)

from DiffTumorSlicerLib.scene.geometry import SceneError  # isort: skip
from DiffTumorSlicerLib.synthesis.history import tumors_of  # isort: skip
from DiffTumorSlicerLib.synthesis.results import (  # isort: skip
    add_synthetic_volume,
    add_tumor,
    is_result,
    keep_variant,
    remove_last,
)
from DiffTumorSlicerLib.scene.results import input_of, segmentation_of, sidecar_of  # isort: skip

from DiffTumorSlicerLib.scene.segments import organ_mask, terminology  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import modality_of, volume_array, volume_grid  # isort: skip
from DiffTumorSlicerLib.synthesis.results import Tumor, copy_result  # isort: skip

BOX = (slice(20, 32), slice(18, 30), slice(10, 20))
OVERLAPPING = (slice(26, 40), slice(20, 34), slice(12, 24))


def tumor_in(array, box=BOX, seed=1, lesions=1, organ="liver"):
    """Noise in the middle of the box; its rim stays as it is."""
    patch = array[box].copy()
    mask = np.zeros(patch.shape, bool)
    mask[3:-3, 3:-3, 2:-2] = True
    noise = np.random.default_rng(seed).normal(-30, 20, patch.shape)
    patch[mask] = (patch[mask] + noise[mask]).astype(array.dtype)
    return Tumor(
        box, patch, mask, lesions, organ, {"task": "synthesis", "parameters": {"seed": seed}}
    )


def hierarchy_of(scene):
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def reloaded(scene, folder):
    path = str(folder / "scene.mrb")
    assert scene.WriteToMRB(path)
    again = make_scene(folder / "cache")
    assert again.ReadFromMRB(path, True)
    return again


def test_a_result_is_a_marked_copy_beside_the_input(scene):
    ct = add_ct(scene, "CT liver", affine=oblique_affine())
    parent = add_transform(scene, turned((3, 4, 5)), child=ct)
    ct.GetDisplayNode().SetAutoWindowLevel(False)
    ct.GetDisplayNode().SetWindowLevel(400, 40)
    hierarchy = hierarchy_of(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    item = hierarchy.CreateItem(study, ct)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")
    before = voxels(ct)

    node = add_synthetic_volume(scene, ct, before + 1, {"task": "synthesis"})

    assert node.GetName() == "CT liver (synthetic)"
    assert node.GetAttribute("DiffTumor.Synthetic") == "1"
    assert json.loads(node.GetAttribute("DiffTumor.Sidecar")) == {"task": "synthesis"}
    assert node.GetTransformNodeID() == parent.GetID()
    assert np.allclose(voxel_centers_in_world(node), voxel_centers_in_world(ct), atol=1e-9)
    assert node.GetDisplayNode() is not ct.GetDisplayNode()
    assert node.GetDisplayNode().GetWindow() == 400
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert modality_of(scene, node) == "CT"
    assert input_of(node) is ct
    assert np.array_equal(voxels(node), before + 1)
    assert np.array_equal(voxels(ct), before)
    assert add_synthetic_volume(scene, ct, before, {}).GetName() == "CT liver (synthetic 2)"


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
def test_a_tumor_changes_its_box_only_and_keeps_the_voxel_type(scene, dtype):
    ct = add_ct(scene, dtype=np.float32, affine=oblique_affine())
    if dtype != "float32":
        ct = add_volume(scene, "typed", voxels(ct).clip(0).astype(dtype), oblique_affine())
    before = voxels(ct)
    tumor = tumor_in(before)
    node = add_tumor(scene, ct, tumor)
    expected = before.copy()
    expected[BOX] = tumor.patch
    assert voxels(node).dtype == before.dtype == dtype
    assert np.array_equal(voxels(node), expected)
    assert np.array_equal(voxels(ct), before)


def test_the_segment_has_terminology_reference_geometry_and_the_voxels_of_the_mask(scene):
    ct = add_ct(scene, affine=oblique_affine())
    parent = add_transform(scene, turned((3, 4, 5)), child=ct)
    tumor = tumor_in(voxels(ct), organ="pancreas")
    node = add_tumor(scene, ct, tumor)
    segmentation = segmentation_of(node)
    assert segmentation.GetTransformNodeID() == parent.GetID()
    assert segmentation.GetAttribute("DiffTumor.Synthetic") == "1"
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is node
    geometry = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    assert segmentation.GetSegmentation().GetConversionParameter(geometry)
    segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    assert segment.GetName() == "Synthetic tumor 1"
    value = vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), value)
    category, kind, region = (value.get().split("~")[i].split("^") for i in (1, 2, 5))
    assert category[:2] == ["SCT", "49755003"]
    assert kind == ["SCT", "4147007", "Mass"]
    assert region == ["SCT", "15776009", "Pancreas"]
    full = np.zeros(voxels(ct).shape, bool)
    full[BOX] = tumor.mask
    assert np.array_equal(segment_voxels(segmentation, segment_id, full.shape), full)
    assert np.array_equal(organ_mask(segmentation, segment_id, ct), full)


def test_a_terminology_entry_is_read_by_slicers_own_reader(scene):
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert logic.DeserializeTerminologyEntry(terminology("kidney"), entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Mass"
    assert entry.GetRegionObject().GetCodeValue() == "64033007"


def test_tumors_one_after_the_other_and_back_again_bit_for_bit(scene):
    ct = add_ct(scene)
    states = [voxels(ct)]
    node = None
    for seed, box in enumerate([BOX, OVERLAPPING, BOX]):
        tumor = tumor_in(states[-1], box, seed, lesions=2 if seed == 1 else 1)
        node = add_tumor(scene, ct, tumor, into=node)
        states.append(voxels(node))
    assert tumors_of(node) == 3
    segmentation = segmentation_of(node).GetSegmentation()
    names = [segmentation.GetNthSegment(i).GetName() for i in range(3)]
    assert names == ["Synthetic tumor 1", "Synthetic tumors 2 to 3", "Synthetic tumor 4"]
    sidecar = sidecar_of(node)
    assert sidecar["parameters"]["seed"] == 2
    assert [step["parameters"]["seed"] for step in sidecar["earlier"]] == [0, 1]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    for left in (2, 1):
        assert remove_last(scene, node) == left
        assert np.array_equal(voxels(node), states[left])
        assert segmentation.GetNumberOfSegments() == left
    assert "earlier" not in sidecar_of(node)
    assert remove_last(scene, node) == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeDisplayNode") == 1
    assert np.array_equal(voxels(ct), states[0])


def test_numbers_that_are_no_numbers_come_back_as_they_were(scene):
    array = np.random.default_rng(0).normal(size=(40, 40, 30)).astype(np.float32)
    array[25, 25, 15], array[25, 25, 16] = np.nan, -0.0
    ct = add_volume(scene, "odd", array)
    node = add_tumor(scene, ct, tumor_in(array, seed=1))
    second = tumor_in(voxels(node), seed=2)
    second.patch[5, 7, 5] = 0.0
    first = voxels(node)
    add_tumor(scene, ct, second, into=node)
    remove_last(scene, node)
    assert np.array_equal(voxels(node).view(np.uint32), first.view(np.uint32))


@pytest.mark.parametrize("left_handed", [True, False])
def test_everything_is_back_after_save_and_reload(scene, tmp_path, left_handed):
    """Slicer reverses K of a left-handed volume when it reads it: compared by place, not by index."""
    ct = add_ct(scene, 'Patient; a:b "c"', affine=oblique_affine(left_handed=left_handed))
    add_transform(scene, turned((3, 4, 5)), child=ct)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    first = voxels(node)
    add_tumor(scene, ct, tumor_in(first, OVERLAPPING, 2), into=node)
    second, name, sidecar = voxels(node), node.GetName(), sidecar_of(node)

    again = reloaded(scene, tmp_path)

    node = again.GetFirstNodeByName(name)
    assert is_result(node)
    assert sidecar_of(node) == sidecar
    turn = (lambda array: array[:, :, ::-1]) if left_handed else (lambda array: array)
    assert not volume_grid(node).is_left_handed
    assert np.array_equal(voxels(node), turn(second))
    assert input_of(node) is again.GetFirstNodeByName('Patient; a:b "c"')
    assert segmentation_of(node).GetSegmentation().GetNumberOfSegments() == 2
    assert remove_last(again, node) == 1
    assert np.array_equal(voxels(node), turn(first))
    assert voxels(node).dtype == np.int16
    segmentation = segmentation_of(node).GetSegmentation()
    assert [segmentation.GetNthSegment(0).GetName()] == ["Synthetic tumor 1"]


def test_the_last_tumor_can_be_removed_without_the_input(scene, tmp_path):
    ct = add_ct(scene)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    first = voxels(node)
    add_tumor(scene, ct, tumor_in(first, OVERLAPPING, 2), into=node)
    scene.RemoveNode(ct)
    again = reloaded(scene, tmp_path)
    node = again.GetFirstNodeByName(node.GetName())
    assert input_of(node) is None
    assert remove_last(again, node) == 1
    assert np.array_equal(voxels(node), first)


def test_a_large_tumor_stays_a_small_attribute(scene):
    """A 45 mm tumor in 0.8 mm voxels: what its attribute takes in the scene file."""
    array = np.random.default_rng(0).normal(60, 12, (90, 90, 70)).astype(np.int16)
    ct = add_volume(scene, "large", array)
    box = (slice(10, 80), slice(10, 80), slice(10, 60))
    node = add_tumor(scene, ct, tumor_in(array, box))
    assert len(node.GetAttribute("DiffTumor.Tumor.1")) < 0.9 * tumor_in(array, box).patch.nbytes


def test_segments_and_segmentations_that_the_person_deleted_are_no_obstacle(scene):
    ct = add_ct(scene)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    first = voxels(node)
    add_tumor(scene, ct, tumor_in(first, OVERLAPPING, 2), into=node)
    segmentation = segmentation_of(node)
    segmentation.GetSegmentation().RemoveSegment(segmentation.GetSegmentation().GetNthSegmentID(1))
    assert remove_last(scene, node) == 1
    assert np.array_equal(voxels(node), first)
    scene.RemoveNode(segmentation)
    assert segmentation_of(node) is None
    add_tumor(scene, ct, tumor_in(first, OVERLAPPING, 2), into=node)
    assert segmentation_of(node).GetSegmentation().GetNumberOfSegments() == 1
    assert remove_last(scene, node) == 1
    assert remove_last(scene, node) == 0


def test_a_segmentation_with_own_drawings_is_kept(scene):
    ct = add_ct(scene)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    segmentation = segmentation_of(node)
    segmentation.GetSegmentation().AddEmptySegment("mine", "mine")
    assert remove_last(scene, node) == 0
    assert scene.IsNodePresent(segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_a_volume_that_is_no_result_or_has_been_resampled_is_refused(scene):
    ct = add_ct(scene)
    with pytest.raises(SceneError, match=r"no tumor of this module.*Choose a result"):
        remove_last(scene, ct)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    add_tumor(scene, ct, tumor_in(voxels(node), OVERLAPPING), into=node)
    image = vtk.vtkImageData()
    image.DeepCopy(add_ct(scene, "small", shape=(50, 50, 40)).GetImageData())
    node.SetAndObserveImageData(image)
    with pytest.raises(SceneError, match=r"cropped, resampled or converted.*synthesize again"):
        remove_last(scene, node)
    assert tumors_of(node) == 2


def test_a_tumor_whose_voxels_were_edited_is_refused(scene):
    ct = add_ct(scene)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    add_tumor(scene, ct, tumor_in(voxels(node), OVERLAPPING), into=node)
    volume_array(node)[33, 27, 18] += 1
    with pytest.raises(SceneError, match=r"have been changed since.*synthesize again"):
        remove_last(scene, node)


def test_a_hardened_transform_is_no_obstacle(scene):
    ct = add_ct(scene, affine=oblique_affine())
    add_transform(scene, turned((3, 4, 5), shift=(9, 9, 9)), child=ct)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    first = voxels(node)
    add_tumor(scene, ct, tumor_in(first, OVERLAPPING), into=node)
    node.HardenTransform()
    assert remove_last(scene, node) == 1
    assert np.array_equal(voxels(node), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e | {"version": 99}, "another version"),
        (lambda e: e | {"before": "AAAA"}, "damaged"),
        (lambda e: e | {"before": e["changed"]}, "damaged"),
        (lambda e: e | {"box": [[0, 1], [0, 1], [0, 1]]}, "damaged"),
    ],
)
def test_a_damaged_history_is_refused_and_nothing_changes(scene, change, message):
    ct = add_ct(scene)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    add_tumor(scene, ct, tumor_in(voxels(node), OVERLAPPING), into=node)
    entry = json.loads(node.GetAttribute("DiffTumor.Tumor.2"))
    node.SetAttribute("DiffTumor.Tumor.2", json.dumps(change(entry)))
    before = voxels(node)
    with pytest.raises(SceneError, match=message):
        remove_last(scene, node)
    assert np.array_equal(voxels(node), before)


def test_a_result_that_does_not_fit_leaves_the_scene_as_it_was(scene):
    ct = add_ct(scene)
    count = scene.GetNumberOfNodes()
    tumor = tumor_in(voxels(ct))
    wrong = Tumor(BOX, tumor.patch.astype(np.float32), tumor.mask, 1, "liver", {})
    with pytest.raises(SceneError, match=r"does not fit.*Press Synthesize again"):
        add_tumor(scene, ct, wrong)
    hierarchy_of(scene)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert scene.GetNumberOfNodes() - count <= 1  # the hierarchy's own node, made on first use


def test_one_variant_is_kept_and_the_others_go(scene):
    ct = add_ct(scene)
    nodes = []
    for seed in range(3):
        name = f"{{input}} (synthetic, variant {seed + 1}{{number}})"
        nodes.append(add_tumor(scene, ct, tumor_in(voxels(ct), seed=seed), name=name))
        nodes[-1].SetAttribute("DiffTumor.Variants", "group")
    kept = voxels(nodes[1])
    assert [node.GetName() for node in nodes] == [f"CT (synthetic, variant {i})" for i in (1, 2, 3)]
    assert keep_variant(scene, nodes[1]) == 2
    assert nodes[1].GetName() == "CT (synthetic)"
    assert np.array_equal(voxels(nodes[1]), kept)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    with pytest.raises(SceneError, match="Choose a variant"):
        keep_variant(scene, nodes[1])


def test_a_copy_of_a_result_has_its_own_history_and_segments(scene):
    ct = add_ct(scene)
    node = add_tumor(scene, ct, tumor_in(voxels(ct)))
    copy = copy_result(scene, node, "{input} (other{number})")
    assert copy.GetName() == "CT (other)"
    add_tumor(scene, ct, tumor_in(voxels(copy), OVERLAPPING, 5), into=copy)
    assert tumors_of(node) == 1
    assert tumors_of(copy) == 2
    assert segmentation_of(copy) is not segmentation_of(node)
    assert segmentation_of(node).GetSegmentation().GetNumberOfSegments() == 1
    assert segmentation_of(copy).GetSegmentation().GetNumberOfSegments() == 2
    assert remove_last(scene, copy) == 1
    assert np.array_equal(voxels(copy), voxels(node))
    assert input_of(copy) is ct
