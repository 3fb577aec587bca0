"""The ellipsoid in the panel: numbers and handles both ways, three ways to place, and what is gone."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk

from difftumor.ellipsoids import rotation_matrix
from Testing.module.panels.bench import ends_in_next_step, plain
from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_roi,
    add_transform,
    gantry,
    matrix_of,
    turned,
)


def numbers(bench, key):
    return [getattr(bench.ui, f"{key}{axis}SpinBox").value for axis in "RAS"]


def test_numbers_follow_the_handles(bench):
    bench.load_ct()
    bench.place((30, 26, 22))
    assert numbers(bench, "center") == [30, 26, 22]
    assert numbers(bench, "radius") == [8, 8, 8]
    roi = bench.parameters.roi
    roi.SetCenter(25, 20, 15)
    roi.SetSize(10, 20, 30)
    bench.turn()
    assert numbers(bench, "center") == [25, 20, 15]
    assert numbers(bench, "radius") == [5, 10, 15]


def test_handles_follow_the_numbers(bench):
    bench.load_ct()
    bench.place()
    bench.ui.centerASpinBox.value = 12
    bench.ui.radiusSSpinBox.value = 14
    bench.ui.rotationASpinBox.value = 35
    bench.turn()
    roi = bench.parameters.roi
    matrix = roi.GetObjectToWorldMatrix()
    axes = np.array([[matrix.GetElement(i, j) for j in range(3)] for i in range(3)])
    assert np.allclose(roi.GetCenterWorld(), (30, 12, 22))
    assert np.allclose(roi.GetSize(), (16, 16, 28))
    assert np.allclose(axes, rotation_matrix((0, 35, 0)), atol=1e-6)


def test_what_is_typed_stays_as_typed(bench):
    """Different angles can describe one turn; the panel does not change the person's."""
    bench.load_ct()
    bench.place()
    bench.ui.rotationASpinBox.value = 120
    bench.ui.rotationRSpinBox.value = 200
    bench.turn()
    assert numbers(bench, "rotation") == [200, 120, 0]


def test_a_turn_by_handles_shows_in_degrees(bench):
    bench.load_ct()
    bench.place()
    turn = vtk.vtkTransform()
    turn.Translate(30, 26, 22)
    turn.RotateZ(40)
    bench.parameters.roi.SetAndObserveObjectToNodeMatrix(turn.GetMatrix())
    bench.turn()
    assert np.allclose(numbers(bench, "rotation"), (0, 0, 40), atol=0.05)


def test_numbers_are_of_the_patient_also_under_a_transform(bench):
    bench.load_ct()
    bench.place()
    add_transform(bench.scene, turned((0, 0, 90), shift=(5, 0, 0)), child=bench.parameters.roi)
    bench.turn()
    assert np.allclose(numbers(bench, "center"), (-21, 30, 22), atol=0.05)
    bench.ui.centerRSpinBox.value = 10
    bench.turn()
    assert np.allclose(bench.panels.synthesis.place.ellipsoid.center_ras, (10, 30, 22), atol=0.05)


def test_a_new_ellipsoid_has_the_size_of_the_tumor_type_and_follows_it_until_changed(bench):
    bench.load_ct()
    bench.choose(bench.ui.sizeComboBox, "tiny")
    bench.place()
    assert numbers(bench, "radius") == [4, 4, 4]
    bench.choose(bench.ui.sizeComboBox, "medium")
    assert numbers(bench, "radius") == [16, 16, 16]
    bench.ui.radiusRSpinBox.value = 20
    bench.choose(bench.ui.sizeComboBox, "small")
    assert numbers(bench, "radius") == [20, 16, 16]


def test_place_at_the_crosshair(bench):
    bench.load_ct()
    crosshair = bench.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair = crosshair or bench.scene.AddNode(slicer.vtkMRMLCrosshairNode())
    crosshair.SetCrosshairMode(crosshair.ShowBasic)
    crosshair.SetCrosshairRAS(11, 12, 13)
    bench.press(bench.ui.hereButton)
    assert numbers(bench, "center") == [11, 12, 13]
    crosshair.SetCrosshairMode(crosshair.NoCrosshair)


def test_without_crosshair_the_place_is_where_the_slice_views_meet(bench):
    bench.load_ct()
    _slices(bench.scene, (5, 6, 7))
    bench.press(bench.ui.hereButton)
    assert np.allclose(numbers(bench, "center"), (5, 6, 7), atol=0.05)


def test_without_any_view_the_panel_says_so(bench):
    bench.load_ct()
    for name in ("Red", "Yellow", "Green"):
        node = bench.scene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        if node is not None:
            bench.scene.RemoveNode(node)
    bench.press(bench.ui.hereButton)
    assert ends_in_next_step(bench.message)


def test_place_by_click_waits_for_one_click(bench):
    bench.load_ct()
    bench.press(bench.ui.placeButton)
    assert bench.ui.placeButton.checked
    assert "Click" in bench.message
    interaction = bench.scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    _click(bench.scene, (9, 8, 7))
    bench.turn()
    assert numbers(bench, "center") == [9, 8, 7]
    assert not bench.ui.placeButton.checked
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0


@pytest.mark.parametrize("how", ["button", "escape", "leave", "close"])
def test_waiting_for_a_click_ends_in_every_way(bench, how):
    bench.load_ct()
    bench.press(bench.ui.placeButton)
    interaction = bench.scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    if how == "button":
        bench.press(bench.ui.placeButton)
    elif how == "escape":
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    elif how == "leave":
        bench.panels.exit()
        bench.panels.enter()
    else:
        bench.panels.set_parameter_node(None)
        bench.scene.Clear(0)
    bench.turn()
    assert not bench.ui.placeButton.checked
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0


def test_show_moves_the_slice_views(bench):
    bench.load_ct()
    _slices(bench.scene, (0, 0, 0))
    assert not bench.ui.goButton.enabled
    bench.place((30, 26, 22))
    bench.press(bench.ui.goButton)
    red = bench.scene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceOffset() == pytest.approx(22)


def test_the_handles_may_leave_the_scene(bench):
    bench.load_ct()
    bench.place()
    bench.scene.RemoveNode(bench.parameters.roi)
    bench.turn()
    assert not bench.ui.numbersFrame.enabled
    assert "click where the tumor shall be" in plain(bench.ui.hintLabel)
    bench.place((20, 20, 20))
    assert numbers(bench, "center") == [20, 20, 20]


def test_a_box_of_ones_own_can_be_chosen(bench):
    bench.load_ct()
    roi = add_roi(bench.scene, (20, 21, 22), (10, 12, 14))
    bench.ui.roiSelector.setCurrentNode(roi)
    bench.turn()
    assert numbers(bench, "center") == [20, 21, 22]
    assert numbers(bench, "radius") == [5, 6, 7]


def test_a_box_under_a_bending_transform_is_refused_with_the_remedy(bench):
    bench.load_ct()
    bench.place()
    add_bend(bench.scene, gantry, child=bench.parameters.roi)
    bench.turn()
    bench.press(bench.ui.synthesizeButton)
    assert ends_in_next_step(bench.message)
    assert not bench.bridge.requests


def test_the_ellipsoid_can_be_hidden_and_comes_back_when_it_is_moved(bench):
    bench.load_ct()
    bench.place()
    nodes = (bench.parameters.roi, bench.panels.synthesis.place._handles.model_node)
    bench.ui.showCheckBox.click()
    assert not any(node.GetDisplayNode().GetVisibility() for node in nodes)
    bench.ui.centerRSpinBox.value = 31
    bench.turn()
    assert all(node.GetDisplayNode().GetVisibility() for node in nodes)
    assert bench.ui.showCheckBox.checked


def test_the_ellipsoid_makes_way_for_a_new_tumor(bench):
    bench.load_ct()
    bench.place()
    bench.synthesize()
    assert not bench.parameters.roi.GetDisplayNode().GetVisibility()
    assert not bench.ui.showCheckBox.checked
    bench.press(bench.ui.goButton)  # to look at the tumor
    assert not bench.parameters.roi.GetDisplayNode().GetVisibility()
    bench.place((20, 20, 20))
    assert bench.parameters.roi.GetDisplayNode().GetVisibility()


def test_limits_are_those_of_the_engine(bench):
    assert (bench.ui.radiusRSpinBox.minimum, bench.ui.radiusRSpinBox.maximum) == (0.5, 200)
    assert (bench.ui.rotationSSpinBox.minimum, bench.ui.rotationSSpinBox.maximum) == (-360, 360)
    assert (bench.ui.stepsSpinBox.minimum, bench.ui.stepsSpinBox.maximum) == (1, 200)
    assert (bench.ui.featherSpinBox.minimum, bench.ui.featherSpinBox.maximum) == (0, 4)
    assert (bench.ui.countSpinBox.minimum, bench.ui.countSpinBox.maximum) == (0, 20)


def _slices(scene, point):
    for name, axes in (("Red", "xyz"), ("Yellow", "yzx"), ("Green", "xzy")):
        node = slicer.vtkMRMLSliceNode()
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node = scene.AddNode(node)
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[:, ["xyz".index(a) for a in axes]]
        node.GetSliceToRAS().DeepCopy(matrix_of(matrix))
        node.UpdateMatrices()
        node.JumpSliceByOffsetting(*point)


def _click(scene, point):
    """What a click in a view does to the node in place mode."""
    node = scene.GetFirstNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.AddControlPointWorld(vtk.vtkVector3d(*point))


def test_two_scans_share_one_ellipsoid(bench):
    bench.load_ct()
    bench.place()
    bench.volumes.volumeSelector.setCurrentNode(add_ct(bench.scene, name="other"))
    bench.turn()
    assert numbers(bench, "center") == [30, 26, 22]
