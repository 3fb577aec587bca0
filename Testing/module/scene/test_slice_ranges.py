"""Which slices the views show, and how they go to one; views as MRML nodes, no drawing."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.scenes import add_ct, add_transform, oblique_affine, slicer, turned

from DiffTumorSlicerLib.scene import slice_ranges as ranges  # isort: skip
from DiffTumorSlicerLib.scene.geometry import SceneError  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid  # isort: skip

ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def add_views(scene, names=tuple(ORIENTATIONS), at=(0, 0, 0), field=40.0):
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    for name in names:
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.SetSingletonTag(name)
        node.SetLayoutName(name)
        node = scene.AddNode(node)
        node.SetOrientation(ORIENTATIONS[name])
        node.SetDimensions(200, 200, 1)
        node.SetFieldOfView(field, field, 1.0)
        node.JumpSliceByCentering(*at)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("left_handed", [True, False])
def test_the_slice_on_screen_is_the_voxel_slice_through_the_place_where_the_views_meet(
    scene, plane, left_handed
):
    node = add_ct(scene, affine=oblique_affine(left_handed=left_handed))
    add_transform(scene, turned((5, 10, 15), shift=(3, 4, 5)), child=node)
    grid = volume_grid(node)
    wanted = np.array((21, 17, 25))
    add_views(scene, at=grid.to_ras(wanted))
    axis = ranges.slice_axis(grid, plane)
    assert ranges.this_slice(scene, grid, plane) == wanted[axis]
    position = ranges.position_of(grid, plane, int(wanted[axis]))
    assert ranges.slice_at(grid, plane, position) == wanted[axis]


def test_visible_slices_are_those_between_the_edges_of_the_other_views(scene):
    node = add_ct(scene, affine=np.diag([1.0, 1.0, 2.0, 1.0]))
    grid = volume_grid(node)
    add_views(scene, at=(30, 26, 40), field=40.0)
    assert ranges.visible_slices(scene, grid, "axial") == (10, 31), "20 mm up and down, 2 mm apart"
    scene.GetNodeByID("vtkMRMLSliceNodeGreen").SetFieldOfView(20, 20, 1)
    assert ranges.visible_slices(scene, grid, "axial") == (15, 26), (
        "the view that shows less decides"
    )


def test_places_outside_and_missing_views_are_told(scene):
    node = add_ct(scene)
    grid = volume_grid(node)
    with pytest.raises(SceneError, match="no slice view"):
        ranges.this_slice(scene, grid, "axial")
    with pytest.raises(SceneError, match="choose a layout"):
        ranges.visible_slices(scene, grid, "axial")
    add_views(scene, ("Red",), at=(30, 26, 500))
    with pytest.raises(SceneError, match="choose a layout"):
        ranges.visible_slices(scene, grid, "axial")
    with pytest.raises(SceneError, match="outside the scan"):
        ranges.this_slice(scene, grid, "axial")
    add_views(scene, ("Green",), at=(30, 26, 500))
    with pytest.raises(SceneError, match="outside the scan"):
        ranges.visible_slices(scene, grid, "axial")


def test_going_to_a_slice_moves_the_views_of_its_plane_only(scene):
    node = add_ct(scene)
    grid = volume_grid(node)
    add_views(scene, at=(30, 26, 20))
    ranges.show_slice(scene, grid, 2, 33)
    assert ranges.this_slice(scene, grid, "axial") == 33
    assert ranges.this_slice(scene, grid, "coronal") == 26
    assert ranges.this_slice(scene, grid, "sagittal") == 30


def test_the_slice_on_screen_is_not_that_of_a_crosshair_left_behind(scene):
    node = add_ct(scene)
    grid = volume_grid(node)
    add_views(scene, at=(30, 26, 20))
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode") or scene.AddNewNodeByClass(
        "vtkMRMLCrosshairNode"
    )
    crosshair.SetCrosshairMode(crosshair.ShowBasic)
    crosshair.SetCrosshairRAS(10.0, 10.0, 5.0)
    assert ranges.this_slice(scene, grid, "axial") == 20
    ranges.show_slice(scene, grid, 2, 33)
    assert ranges.this_slice(scene, grid, "axial") == 33
    assert ranges.this_slice(scene, grid, "sagittal") == 30


def test_slices_of_an_organ_and_its_brightest_place(scene):
    node = add_ct(scene)
    grid = volume_grid(node)
    organ = np.zeros(grid.shape, bool)
    organ[10:20, 5:9, 30:33] = True
    assert ranges.organ_slices(organ, grid, "axial") == (30, 33)
    assert ranges.organ_slices(organ, grid, "coronal") == (5, 9)
    assert ranges.organ_slices(None, grid, "sagittal") == (0, 60)
    assert ranges.organ_slices(np.zeros_like(organ), grid, "axial") == (0, 0)
    array = np.zeros(grid.shape)
    array[12, 7, 31] = 1
    assert ranges.brightest(array, grid, 2, 31) == (12, 7, 31)


def test_views_are_turned_into_the_slices_of_an_oblique_scan(scene):
    node = add_ct(scene, affine=oblique_affine())
    grid = volume_grid(node)
    assert ranges.is_oblique(grid)
    assert not ranges.is_oblique(volume_grid(add_ct(scene)))
    add_views(scene, at=grid.to_ras((20, 20, 20)))
    ranges.turn_views(scene, node)
    along = grid.affine[:3, 2] / grid.spacing[2]
    red = scene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert abs(ranges._normal(red) @ along) == pytest.approx(1, abs=1e-3)
