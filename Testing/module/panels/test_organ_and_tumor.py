"""Organ, type, model and seed: what fits together, and what is remembered with the scene."""

from __future__ import annotations

import numpy as np
import pytest

from DiffTumorSlicerLib.jobs.models import best_model, fitting_models, takes_steps
from Testing.module.panels.bench import box_mask, ends_in_next_step, plain
from Testing.module.scene.scenes import add_segmentation


def row(model_id, *, organs=("liver",), sizes=("tiny", "small"), installed=True, bundled=False):
    return {
        "id": model_id, "title": model_id, "task": "synthesis", "organs": list(organs),
        "tumor_types": list(sizes), "installed": installed, "bundled": bundled,
    }  # fmt: skip


def organs(bench, *names):
    ct = bench.parameters.volume or bench.load_ct()
    masks = {
        name: box_mask((60, 52, 44), (5 + 5 * n, 5, 5), (9 + 5 * n, 40, 30))
        for n, name in enumerate(names)
    }
    node, ids = add_segmentation(bench.scene, ct, masks)
    bench.ui.segmentSelector.setCurrentNode(node)
    bench.turn()
    return node, ids


def test_models_for_organ_and_size():
    rows = [
        row("early"),
        row("late", sizes=("medium", "large"), installed=False),
        row("kidney", organs=("kidney",)),
        row("own", organs=(), sizes=()),
        {**row("segmenter"), "task": "segmentation"},
    ]
    assert [r["id"] for r in fitting_models(rows, "liver", "small")] == ["early", "own"]
    assert [r["id"] for r in fitting_models(rows, "liver", "large")] == ["own", "late"]


def test_an_installed_model_is_offered_before_the_demonstration_and_that_before_the_modelled():
    demo = row("demo", bundled=True)
    assert best_model([demo, row("early")], "liver", "small") == "early"
    assert best_model([demo, row("early", installed=False)], "liver", "small") == "demo"
    assert best_model([row("early", installed=False)], "liver", "small") == "modelled"


def test_steps_matter_for_long_schedules_only():
    assert not takes_steps("modelled")
    assert not takes_steps("difftumor-liver-early")
    assert takes_steps("difftumor-liver-noearly")
    assert not takes_steps("no such model")


def test_the_list_of_models_follows_organ_and_type(bench):
    def offered():
        box = bench.ui.modelComboBox
        return [box.itemData(n) for n in range(box.count)]

    assert "difftumor-liver-early" in offered()
    assert "difftumor-liver-noearly" not in offered()
    bench.choose(bench.ui.sizeComboBox, "large")
    assert "difftumor-liver-noearly" in offered()
    bench.choose(bench.ui.organComboBox, "kidney")
    assert "difftumor-kidney-noearly" in offered()
    assert not any("liver" in model for model in offered())


def test_a_model_that_does_not_fit_any_more_is_replaced_and_that_is_said(bench):
    bench.choose(bench.ui.modelComboBox, "difftumor-liver-early")
    bench.choose(bench.ui.sizeComboBox, "large")
    assert bench.parameters.synthesis.model == "modelled"
    assert "Modeled texture" in bench.message


def test_settings_that_mean_nothing_to_a_model_cannot_be_changed(bench):
    assert not bench.ui.stepsSpinBox.enabled
    assert not bench.ui.featherSpinBox.enabled  # the modeled tumor has a rim of its own
    bench.choose(bench.ui.modelComboBox, "difftumor-liver-early")
    assert bench.ui.featherSpinBox.enabled
    assert not bench.ui.stepsSpinBox.enabled
    bench.choose(bench.ui.blendComboBox, "paper")
    assert not bench.ui.featherSpinBox.enabled
    bench.choose(bench.ui.sizeComboBox, "large")
    bench.choose(bench.ui.modelComboBox, "difftumor-liver-noearly")
    assert bench.ui.stepsSpinBox.enabled


def test_a_model_that_is_not_installed_is_told_at_once(bench):
    bench.choose(bench.ui.modelComboBox, "difftumor-liver-early")
    assert "(not installed)" in bench.ui.modelComboBox.currentText
    bench.load_ct()
    bench.place()
    assert ends_in_next_step(plain(bench.ui.hintLabel))
    bench.press(bench.ui.synthesizeButton)
    assert "section Models" in bench.message
    assert plain(bench.ui.hintLabel) == ""  # nothing is said twice


def test_seeds(bench):
    bench.press(bench.ui.newSeedButton)
    drawn = bench.parameters.synthesis.seed
    assert bench.ui.seedEdit.text == str(drawn)
    bench.type(bench.ui.seedEdit, str(2**62))
    assert bench.parameters.synthesis.seed == 2**62
    for wrong in ("-3", "1.5", "abc", "", str(2**63)):
        bench.type(bench.ui.seedEdit, wrong)
        assert bench.parameters.synthesis.seed == 2**62
        assert bench.ui.seedEdit.text == str(2**62)
        assert "whole number" in bench.message


def test_the_segment_of_the_organ_is_chosen_by_its_name(bench):
    _, ids = organs(bench, "spleen", "liver vessels", "liver", "left kidney")
    assert bench.parameters.segment_id == ids["liver"]
    bench.choose(bench.ui.organComboBox, "kidney")
    assert bench.parameters.segment_id == ids["left kidney"]


def test_a_segment_chosen_by_hand_sets_the_organ(bench):
    _, ids = organs(bench, "liver", "pancreas")
    bench.ui.segmentSelector.setCurrentSegmentID(ids["pancreas"])
    bench.turn()
    assert bench.parameters.synthesis.organ == "pancreas"
    assert bench.ui.organComboBox.currentText == "Pancreas"


def test_a_segment_with_another_name_is_left_to_the_person(bench):
    _, ids = organs(bench, "region of interest")
    bench.ui.segmentSelector.setCurrentSegmentID(ids["region of interest"])
    bench.turn()
    bench.choose(bench.ui.organComboBox, "pancreas")
    assert bench.parameters.segment_id == ids["region of interest"]
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    assert "outside the organ" in bench.message
    assert ends_in_next_step(bench.message)


def test_the_organ_may_leave_the_scene(bench):
    node, _ = organs(bench, "liver")
    assert bench.ui.clipCheckBox.enabled
    bench.scene.RemoveNode(node)
    bench.turn()
    assert bench.parameters.segmentation is None
    assert not bench.ui.clipCheckBox.enabled
    bench.place()
    bench.synthesize()
    assert bench.parameters.result is not None


def test_clip_and_organ_travel_with_the_request(bench):
    organs(bench, "liver")
    bench.ui.clipCheckBox.click()
    bench.place()
    bench.press(bench.ui.synthesizeButton)
    _, request, arrays, _ = bench.bridge.requests[1]
    assert request["parameters"]["clip_to_organ"] is False
    assert arrays["organ"].any()


def test_total_segmentator_gets_the_scan_or_the_panel_says_how_to_get_it(bench, monkeypatch):
    import slicer

    bench.press(bench.ui.totalSegmentatorButton)
    assert "Choose a scan" in bench.message
    ct = bench.load_ct()
    bench.press(bench.ui.totalSegmentatorButton)
    assert "Extensions Manager" in bench.message
    assert ends_in_next_step(bench.message)
    module = _TotalSegmentator(bench.scene)
    monkeypatch.setattr(slicer.modules, "totalsegmentator", module, raising=False)
    bench.press(bench.ui.totalSegmentatorButton)
    assert module.selector.currentNode() is ct
    assert ends_in_next_step(bench.message)
    bench.panels.exit()
    node, ids = add_segmentation(bench.scene, ct, {"liver": np.ones((60, 52, 44), bool)})
    bench.panels.enter()
    bench.turn()
    assert bench.parameters.segmentation is node
    assert bench.parameters.segment_id == ids["liver"]


@pytest.mark.parametrize("broken", ["organ", "size"])
def test_choices_are_those_of_the_engine(bench, broken):
    from typing import get_args

    from difftumor import parameters

    box = getattr(bench.ui, f"{broken}ComboBox")
    allowed = get_args({"organ": parameters.Organ, "size": parameters.TumorSize}[broken])
    assert tuple(box.itemData(n) for n in range(box.count)) == allowed


class _TotalSegmentator:
    """What the panel uses of that module."""

    name = "TotalSegmentator"

    def __init__(self, scene):
        import qt
        import slicer

        self.widget = qt.QWidget()
        self.selector = slicer.qMRMLNodeComboBox(self.widget)
        self.selector.name = "inputVolumeSelector"
        self.selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.selector.noneEnabled = True
        self.selector.setMRMLScene(scene)

    def widgetRepresentation(self):
        return self.widget
