"""The handles: a Box ROI, numbers both ways, the companion that follows, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_roi,
    add_transform,
    gantry,
    make_scene,
    matrix_of,
    roi_distance,
    slicer,
    turned,
    vtk,
    vtk_to_numpy,
)

from difftumor.ellipsoids import rotation_matrix  # isort: skip
from difftumor.parameters import Ellipsoid  # isort: skip
from DiffTumorSlicerLib.synthesis.ellipsoid import (  # isort: skip
    EllipsoidHandles,
    ellipsoid_axes,
    suggested_radius_mm,
)
from DiffTumorSlicerLib.scene.geometry import SceneError  # isort: skip


@pytest.fixture
def handles(scene):
    made = EllipsoidHandles(scene)
    yield made
    made.release()


def surface_points(ellipsoid, count=300):
    rng = np.random.default_rng(4)
    sphere = rng.normal(size=(count, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    axes = rotation_matrix(ellipsoid.rotation_deg) * np.array(ellipsoid.radii_mm)
    return sphere @ axes.T + ellipsoid.center_ras


def companion_bounds(handles):
    handles.model_node.GetPolyDataConnection().GetProducer().Update()
    points = handles.model_node.GetPolyData().GetPoints().GetData()
    points = vtk_to_numpy(points)
    return np.stack([points.min(axis=0), points.max(axis=0)])


def same_ellipsoid(one, two):
    def shape(e):
        axes = rotation_matrix(e.rotation_deg) * np.array(e.radii_mm)
        return axes @ axes.T

    np.testing.assert_allclose(one.center_ras, two.center_ras, atol=1e-6)
    np.testing.assert_allclose(shape(one), shape(two), rtol=1e-6, atol=1e-4)


def test_nothing_is_in_the_scene_before_the_first_placement(scene, handles):
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 0
    assert handles.roi_node is None
    assert handles.model_node is None
    with pytest.raises(SceneError, match=r"no ellipsoid yet.*Press Place"):
        handles.parameters()


def test_a_placed_ball_has_the_radius_and_three_kinds_of_handles(handles):
    handles.place_at((10, -20, 30), 12)
    assert handles.parameters() == Ellipsoid((10, -20, 30), (12, 12, 12))
    display = handles.roi_node.GetDisplayNode()
    assert display.GetHandlesInteractive()
    assert display.GetRotationHandleVisibility()
    assert display.GetScaleHandleVisibility()
    assert display.GetTranslationHandleVisibility()
    assert not display.GetFillVisibility()
    assert handles.roi_node.GetROIType() == slicer.vtkMRMLMarkupsROINode.ROITypeBox


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -35, 140), (-170, 80, 15), (0, 90, 30)])
def test_numbers_go_in_and_come_out_again(handles, angles):
    wanted = Ellipsoid((1, 2, 3), (5, 9, 14), angles)
    handles.set(wanted)
    same_ellipsoid(handles.parameters(), wanted)
    if abs(angles[1]) < 89:
        np.testing.assert_allclose(handles.parameters().rotation_deg, angles, atol=1e-6)
    np.testing.assert_allclose(handles.parameters().radii_mm, (5, 9, 14), rtol=1e-9)


def test_moving_keeps_size_and_turn(handles):
    handles.set(Ellipsoid((1, 2, 3), (5, 9, 14), (10, 20, 30)))
    handles.place_at((50, 60, 70), None)
    same_ellipsoid(handles.parameters(), Ellipsoid((50, 60, 70), (5, 9, 14), (10, 20, 30)))
    handles.place_at((0, 0, 0), 7)
    same_ellipsoid(handles.parameters(), Ellipsoid((0, 0, 0), (7, 7, 7)))


def test_a_handle_that_turns_or_scales_the_box_changes_the_numbers(handles):
    """What a mouse drag does to the node: object matrix and size."""
    handles.place_at((0, 0, 0), 10)
    turn = turned((0, 0, 30), shift=(4, 0, 0))
    handles.roi_node.SetAndObserveObjectToNodeMatrix(matrix_of(turn))
    handles.roi_node.SetSize(10, 30, 20)
    same_ellipsoid(handles.parameters(), Ellipsoid((4, 0, 0), (5, 15, 10), (0, 0, 30)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("kind", ["rigid", "scaled", "sheared"])
def test_a_linear_parent_transform_is_respected_both_ways(scene, handles, kind, mirrored):
    above = turned((25, -40, 65), shift=(100, -50, 20))
    if kind != "rigid":
        above[:3, :3] = above[:3, :3] @ np.diag([1.3, 0.7, 1.1])
    if kind == "sheared":
        above[:3, :3] = above[:3, :3] @ [[1, 0.4, 0], [0, 1, -0.2], [0, 0, 1]]
    if mirrored:
        above[:3, :3] = above[:3, :3] @ np.diag([1, 1, -1])
    handles.place_at((0, 0, 0), 10)
    add_transform(scene, above, child=handles.roi_node)
    wanted = Ellipsoid((10, 20, 30), (6, 9, 13), (15, 25, 35))
    handles.set(wanted)
    same_ellipsoid(handles.parameters(), wanted)
    assert np.abs(roi_distance(handles.roi_node, surface_points(wanted)) - 1).max() < 1e-6
    if kind == "rigid" and not mirrored:
        np.testing.assert_allclose(handles.parameters().radii_mm, wanted.radii_mm, rtol=1e-9)
    # And what was set in the node's own space is read through the transform.
    handles.roi_node.SetSize(20, 12, 16)
    found = handles.parameters()
    assert np.abs(roi_distance(handles.roi_node, surface_points(found)) - 1).max() < 1e-6


def test_axes_at_right_angles_keep_their_order_and_sheared_ones_stay_near():
    turn = turned((10, 20, 30))[:3, :3]
    axes, radii = ellipsoid_axes(turn * np.array([3.0, 9.0, 5.0]))
    np.testing.assert_allclose(axes, turn, atol=1e-12)
    np.testing.assert_allclose(radii, (3, 9, 5))
    axes, radii = ellipsoid_axes(
        turn @ [[1, 0.05, 0], [0, 1, 0], [0, 0, 1]] * np.array([3.0, 9.0, 5.0])
    )
    assert (np.diag(turn.T @ axes) > 0.9).all()
    with pytest.raises(SceneError, match="flat"):
        ellipsoid_axes(np.diag([1.0, 0.0, 2.0]))


def test_the_companion_follows_roi_and_transform(scene, handles):
    handles.set(Ellipsoid((10, 0, 0), (5, 10, 20), (0, 0, 90)))
    np.testing.assert_allclose(companion_bounds(handles), [[0, -5, -20], [20, 5, 20]], atol=0.2)
    parent = add_transform(scene, turned((0, 0, 0), shift=(0, 0, 100)), child=handles.roi_node)
    np.testing.assert_allclose(companion_bounds(handles)[:, 2], [80, 120], atol=0.2)
    parent.SetMatrixTransformToParent(matrix_of(turned((0, 0, 0), shift=(0, 0, 50))))
    np.testing.assert_allclose(companion_bounds(handles)[:, 2], [30, 70], atol=0.2)
    handles.roi_node.SetSize(2, 4, 6)
    np.testing.assert_allclose(companion_bounds(handles)[:, 2], [47, 53], atol=0.2)


def test_the_companion_is_shown_but_never_saved_listed_or_picked(handles):
    handles.place_at((0, 0, 0))
    model = handles.model_node
    assert not model.GetSaveWithScene()
    assert model.GetHideFromEditors()
    assert not model.GetSelectable()
    assert not model.GetDisplayNode().GetSaveWithScene()
    assert model.GetDisplayNode().GetVisibility2D()
    assert 0 < model.GetDisplayNode().GetOpacity() < 1
    handles.set_visible(False)
    assert not model.GetDisplayNode().GetVisibility()
    assert not handles.roi_node.GetDisplayNode().GetVisibility()
    handles.place_at((5, 5, 5))
    assert not model.GetDisplayNode().GetVisibility()
    handles.set_visible(True)
    assert model.GetDisplayNode().GetVisibility()


def test_listeners_hear_of_every_change_and_of_the_end(scene, handles):
    heard = []
    handles.add_listener(lambda: heard.append(handles.roi_node is not None))
    handles.place_at((0, 0, 0))
    assert heard
    heard.clear()
    handles.roi_node.SetSize(30, 30, 30)
    assert heard
    heard.clear()
    scene.RemoveNode(handles.roi_node)
    assert heard == [False]
    assert handles.model_node is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0
    handles.place_at((1, 1, 1))  # and it goes on with a new one
    assert handles.parameters().center_ras == (1, 1, 1)


def test_another_roi_can_be_taken(scene, handles):
    handles.place_at((0, 0, 0))
    own = handles.roi_node
    other = add_roi(scene, (7, 8, 9), (10, 20, 30))
    handles.adopt(other)
    same_ellipsoid(handles.parameters(), Ellipsoid((7, 8, 9), (5, 10, 15)))
    own.SetSize(99, 99, 99)
    np.testing.assert_allclose(companion_bounds(handles)[1], (12, 18, 24), atol=0.2)
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 1
    handles.adopt(None)
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0


def test_an_unplaced_roi_and_a_bent_one_are_sentences(scene, handles):
    handles.adopt(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "unplaced"))
    with pytest.raises(SceneError, match=r"no place yet.*click"):
        handles.parameters()
    handles.place_at((0, 0, 0))
    add_bend(scene, gantry, child=handles.roi_node)
    for call in (handles.parameters, lambda: handles.place_at((1, 2, 3))):
        with pytest.raises(SceneError, match="bends space"):
            call()
    assert not handles.model_node.GetDisplayNode().GetVisibility()


def test_flat_and_huge_ellipsoids_are_sentences(handles):
    handles.place_at((0, 0, 0))
    handles.roi_node.SetSize(10, 0, 10)
    with pytest.raises(SceneError, match="flat"):
        handles.parameters()
    handles.roi_node.SetSize(1000, 10, 10)
    with pytest.raises(SceneError, match=r"0.5 to 200 mm.*Change its size"):
        handles.parameters()


def test_release_leaves_the_roi_and_nothing_else():
    scene = make_scene()
    handles = EllipsoidHandles(scene)
    handles.place_at((0, 0, 0))
    roi = handles.roi_node
    handles.release()
    assert scene.IsNodePresent(roi)
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelDisplayNode") == 0
    for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLMarkupsNode.PointModifiedEvent):
        heard = []
        tag = roi.AddObserver(event, lambda *_, h=heard: h.append(1))
        roi.RemoveObserver(tag)
    roi.SetSize(3, 3, 3)  # no observer of ours makes a companion again
    scene.Clear(0)
    assert scene.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0


def test_closing_the_scene_forgets_the_handles_and_placing_works_again(scene, handles):
    handles.place_at((0, 0, 0))
    scene.Clear(0)
    assert handles.roi_node is None
    assert handles.model_node is None
    handles.place_at((3, 3, 3), 5)
    assert handles.parameters() == Ellipsoid((3, 3, 3), (5, 5, 5))
    assert handles.model_node is not None


def test_the_ellipsoid_comes_back_with_a_saved_scene(scene, handles, tmp_path):
    wanted = Ellipsoid((10, 20, 30), (6, 9, 13), (15, 25, 35))
    handles.set(wanted)
    assert scene.WriteToMRB(str(tmp_path / "s.mrb"))
    again = make_scene(tmp_path / "cache")
    assert again.ReadFromMRB(str(tmp_path / "s.mrb"), True)
    assert again.GetNumberOfNodesByClass("vtkMRMLModelNode") == 0
    other = EllipsoidHandles(again)
    other.adopt(again.GetFirstNodeByName("Tumor ellipsoid"))
    same_ellipsoid(other.parameters(), wanted)
    other.release()


def test_a_new_ellipsoid_fits_coarse_voxels(scene):
    assert suggested_radius_mm(None) == 10
    assert suggested_radius_mm(add_ct(scene, shape=(8, 8, 8))) == 10
    coarse = add_ct(scene, shape=(8, 8, 8), affine=np.diag([1, 1, 12.0, 1]))
    assert suggested_radius_mm(coarse) == 18
