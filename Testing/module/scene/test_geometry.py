"""Volumes, segments and transforms as the engine sees them, against VTK's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_roi,
    add_segmentation,
    add_transform,
    add_volume,
    gantry,
    index_in,
    indices,
    oblique_affine,
    roi_distance,
    segment_voxels,
    turned,
    voxel_centers_in_world,
    voxels,
    vtk,
    world_of,
)

from difftumor.ellipsoids import ellipsoid_mask  # isort: skip
from DiffTumorSlicerLib.scene.geometry import SceneError, has_nonlinear_parent  # isort: skip
from DiffTumorSlicerLib.scene.hardening import harden_clone  # isort: skip
from DiffTumorSlicerLib.scene.segments import organ_mask  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid  # isort: skip
from DiffTumorSlicerLib.synthesis.ellipsoid import ellipsoid_of  # isort: skip

SMALL = (14, 12, 10)


def test_the_array_is_a_view_with_i_first(scene):
    node = add_volume(scene, "v", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    view = volume_array(node)
    assert view.shape == (2, 3, 4)
    assert view[1, 2, 3] == node.GetImageData().GetScalarComponentAsDouble(1, 2, 3, 0) == 23
    view[1, 0, 0] = -5
    assert node.GetImageData().GetScalarComponentAsDouble(1, 0, 0, 0) == -5


def test_a_volume_whose_extent_does_not_start_at_zero_keeps_its_place(scene):
    node = add_ct(scene, shape=SMALL, affine=oblique_affine())
    whole = volume_grid(node)
    node.GetImageData().SetExtent(3, 16, -2, 9, 5, 14)
    assert np.allclose(volume_grid(node).to_ras((0, 0, 0)), whole.to_ras((3, -2, 5)))


@pytest.mark.parametrize("left_handed", [True, False])
def test_the_grid_is_where_vtk_puts_the_voxels(scene, left_handed):
    node = add_ct(scene, shape=SMALL, affine=oblique_affine(left_handed=left_handed))
    inner = add_transform(scene, turned((5, 40, -70), shift=(12, -7, 3)), child=node)
    outer = np.diag([1.1, 0.9, 1.0, 1.0]) @ turned((20, 0, 0))
    add_transform(scene, outer, child=inner)
    grid = volume_grid(node)
    assert grid.is_left_handed == left_handed
    assert np.abs(grid.centers() - voxel_centers_in_world(node)).max() < 1e-9


def test_color_volumes_and_empty_nodes_are_refused_with_a_remedy(scene):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(SceneError, match=r"holds no image.*Load it again"):
        volume_array(empty)
    color = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(3, 3, 3)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    color.SetAndObserveImageData(image)
    with pytest.raises(SceneError, match=r"3 values per voxel.*Vector to Scalar Volume"):
        volume_grid(color)


def test_mask_and_analytic_ellipsoid_agree_on_random_oblique_grids_under_transforms(scene):
    """Voxel by voxel against VTK: only centers on the very surface may differ."""
    rng = np.random.default_rng(11)
    for _ in range(6):
        affine = oblique_affine(rng.uniform(0.7, 2.5, 3), bool(rng.integers(2)))
        volume = add_ct(scene, shape=(26, 24, 22), affine=affine)
        add_transform(
            scene, turned(rng.uniform(-180, 180, 3), shift=rng.uniform(-50, 50, 3)), child=volume
        )
        middle = world_of(volume, [affine[:3, :3] @ (13, 12, 11) + affine[:3, 3]])[0]
        spread = np.diag([*rng.uniform(0.8, 1.3, 3), 1.0])
        above = spread @ turned(rng.uniform(-180, 180, 3), shift=rng.uniform(-50, 50, 3))
        if rng.integers(2):
            above = np.diag([-1.0, 1, 1, 1]) @ above
        own = np.linalg.inv(above) @ [*middle, 1]
        roi = add_roi(scene, own[:3], rng.uniform(12, 24, 3), turned(rng.uniform(-180, 180, 3)))
        add_transform(scene, above, child=roi)
        e = ellipsoid_of(roi)
        mask = ellipsoid_mask(volume_grid(volume), e.center_ras, e.radii_mm, e.rotation_deg)
        distance = roi_distance(roi, voxel_centers_in_world(volume))
        assert mask.sum() > 100
        assert np.abs(distance[mask != (distance <= 1)] - 1).max(initial=0) < 1e-6
        assert np.allclose(e.center_ras, middle, atol=1e-6)


def test_an_organ_on_another_grid_under_another_transform_lands_where_vtk_says(scene):
    """Every voxel center is looked up in the segment through VTK; nearest neighbor is half a voxel."""
    volume = add_ct(scene, shape=(24, 22, 20), affine=oblique_affine())
    add_transform(scene, turned((10, 20, 30), shift=(5, 5, 5)), child=volume)
    above = turned((-15, 5, 0), shift=(0, 9, 40))
    affine = turned((0, 0, 25))
    middle = voxel_centers_in_world(volume)[12, 11, 10]
    affine[:3, 3] = (np.linalg.inv(above) @ [*middle, 1])[:3] - affine[:3, :3] @ (20.2, 19.7, 20.4)
    other = add_ct(scene, "other", shape=(40, 40, 40), affine=affine)
    mask = np.zeros((40, 40, 40), bool)
    mask[6:34, 9:30, 5:36] = True
    mask[20:25, 15:20, 10:15] = False
    lies = add_transform(scene, above, name="organ moved")
    node, ids = add_segmentation(scene, other, {"liver": mask}, lies)
    found = organ_mask(node, ids["liver"], volume)

    other.SetAndObserveTransformNodeID(lies.GetID())
    nearest = np.floor(index_in(other, voxel_centers_in_world(volume)) + 0.5).astype(int)
    inside = ((nearest >= 0) & (nearest < 40)).all(axis=-1)
    expected = inside & mask[tuple(np.moveaxis(nearest.clip(0, 39), -1, 0))]
    assert 500 < expected.sum() < expected.size
    assert (found != expected).sum() <= 2  # centers on the very border of a voxel


def test_one_of_several_segments_in_a_shared_labelmap_is_taken(scene):
    volume = add_ct(scene, shape=SMALL)
    one, two = np.zeros(SMALL, bool), np.zeros(SMALL, bool)
    one[2:6, 2:6, 2:6] = two[7:11, 5:9, 4:8] = True
    node, ids = add_segmentation(scene, volume, {"one": one, "two": two})
    node.GetSegmentation().CollapseBinaryLabelmaps(True)
    assert np.array_equal(organ_mask(node, ids["one"], volume), one)
    assert np.array_equal(organ_mask(node, ids["two"], volume), two)


def test_a_segment_drawn_as_surface_becomes_voxels_and_stays_a_surface(scene):
    volume = add_ct(scene, shape=(40, 40, 40))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surfaces")
    node.SetSourceRepresentationToClosedSurface()
    ball = vtk.vtkSphereSource()
    ball.SetCenter(20, 18, 22)
    ball.SetRadius(10)
    ball.SetThetaResolution(60)
    ball.SetPhiResolution(60)
    ball.Update()
    segment = node.AddSegmentFromClosedSurfaceRepresentation(ball.GetOutput(), "ball", (1, 0, 0))
    mask = organ_mask(node, segment, volume)
    assert mask.sum() == pytest.approx(4 / 3 * np.pi * 1000, rel=0.1)
    assert np.allclose(np.argwhere(mask).mean(axis=0), (20, 18, 22), atol=0.3)
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")


def test_a_missing_segment_is_a_sentence(scene):
    volume = add_ct(scene, shape=SMALL)
    node, _ = add_segmentation(scene, volume, {"liver": np.ones(SMALL, bool)})
    for segment in ("", "Segment_99"):
        with pytest.raises(SceneError, match="Choose the organ again"):
            organ_mask(node, segment, volume)


def test_an_empty_segment_is_an_empty_mask(scene):
    volume = add_ct(scene, shape=SMALL)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
    segment = node.GetSegmentation().AddEmptySegment("nothing")
    assert not organ_mask(node, segment, volume).any()


# ------------------------------------------------------------------------------ transforms that bend


def test_a_bent_volume_is_refused_and_the_remedy_named(scene):
    volume = add_ct(scene, shape=SMALL)
    add_bend(scene, gantry, child=volume)
    assert has_nonlinear_parent(volume)
    with pytest.raises(SceneError, match=r"bends space.*hardened copy in the Volumes panel"):
        volume_grid(volume)
    roi = add_roi(scene, (0, 0, 0), (10, 10, 10))
    roi.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    with pytest.raises(SceneError, match=r"Transforms module, or place a new one"):
        ellipsoid_of(roi)


@pytest.mark.parametrize("left_handed", [True, False])
def test_the_hardened_copy_lies_where_the_bend_put_the_original(scene, left_handed):
    """A bright ball in a sheared volume: its voxels in the copy are where VTK carries the originals."""
    affine = np.diag([1.0, 1.2, -2.0 if left_handed else 2.0, 1.0])
    affine[:3, 3] = (-20, -24, 20 if left_handed else -20)
    array = np.full((40, 40, 21), -100, np.int16)
    ras = indices(array.shape) @ affine[:3, :3].T + affine[:3, 3]
    array[np.linalg.norm(ras - (2, -3, 8), axis=-1) < 9] = 300
    volume = add_volume(scene, "tilted", array, affine)
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(123, 45)
    add_bend(scene, gantry, child=volume)
    before, parent = voxels(volume), volume.GetTransformNodeID()

    copy = harden_clone(scene, volume)

    assert copy.GetName() == "tilted hardened"
    assert copy.GetTransformNodeID() is None
    assert copy.GetDisplayNode().GetWindow() == 123
    assert np.array_equal(voxels(volume), before)
    assert volume.GetTransformNodeID() == parent
    assert voxels(copy).dtype == np.int16
    made = volume_grid(copy)
    assert made.is_left_handed == left_handed
    ball = made.to_ras(np.argwhere(voxels(copy) > 100)).mean(axis=0)
    expected = world_of(volume, ras[before > 100]).mean(axis=0)
    assert np.abs((ball - expected) / made.spacing).max() < 0.5
    # Nothing is cut off: the bent corners lie in the copy.
    corners = world_of(volume, ras[::39, ::39, ::20].reshape(-1, 3))
    assert made.contains(corners).all()
    # Value by value: the copy's voxel shows what lies at the place that VTK maps back to.
    at = index_in(volume, made.centers().reshape(-1, 3))
    low = np.floor(at).astype(int)
    seen = ((low >= 0) & (low + 1 < array.shape)).all(axis=1)
    around = [array[tuple((low[seen] + step).T)] for step in np.ndindex(2, 2, 2)]
    shown = voxels(copy).reshape(-1)[seen]
    assert seen.sum() > 10_000
    assert ((np.min(around, axis=0) <= shown) & (shown <= np.max(around, axis=0))).all()


def test_a_bent_segmentation_can_be_hardened_too(scene):
    volume = add_ct(scene, shape=(30, 30, 30))
    mask = np.zeros((30, 30, 30), bool)
    mask[10:20, 12:18, 8:24] = True
    node, ids = add_segmentation(scene, volume, {"liver": mask})
    add_bend(scene, gantry, child=node)
    with pytest.raises(SceneError, match="hardened copy"):
        organ_mask(node, ids["liver"], volume)
    copy = harden_clone(scene, node)
    assert np.array_equal(segment_voxels(node, ids["liver"], mask.shape), mask)
    assert copy.GetName() == "organs hardened"
    assert not has_nonlinear_parent(copy)
    assert has_nonlinear_parent(node)
    found = organ_mask(copy, copy.GetSegmentation().GetNthSegmentID(0), volume)
    middle = world_of(node, [np.argwhere(mask).mean(axis=0)])[0]
    assert np.abs(np.argwhere(found).mean(axis=0) - middle).max() < 0.5


def test_a_transform_that_tears_the_volume_apart_is_refused(scene):
    volume = add_ct(scene, shape=SMALL)
    add_bend(scene, lambda points: 30 * points, child=volume)
    with pytest.raises(SceneError, match=r"times as large.*Check the transform"):
        harden_clone(scene, volume)
