"""Widgets that stand for a parameter say what its field says, and take what it allows."""

from __future__ import annotations

from dataclasses import fields

import pytest

from difftumor.fields import help_of
from difftumor.parameters import (
    AnomalyParameters,
    Ellipsoid,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
)

# Fields that a person cannot set in a panel, or sets by what they do there.
NO_WIDGET = {
    (SynthesisParameters, "ellipsoid"),  # its own fields have widgets
    (AnomalyParameters, "slices"),  # which are meant follows from the views
    (AnomalyParameters, "threshold_rule"),  # a button, which moves the threshold
    (AnomalyParameters, "reference_compat"),
    (AnomalyParameters, "seed"),
    (LearningParameters, "labelled"),  # what is painted
    (LearningParameters, "slices"),
    (LearningParameters, "blocks"),
    (LearningParameters, "timesteps"),
    (LearningParameters, "seed"),
}
# One box, which stands for the field of the way that is chosen.
MODELS = {
    (AnomalyParameters, "model"),
    (SegmentationParameters, "models"),
    (LearningParameters, "model"),
}
PACKS = (
    SynthesisParameters,
    Ellipsoid,
    AnomalyParameters,
    SegmentationParameters,
    LearningParameters,
)
EVERY = {(kind, item.name): item for kind in PACKS for item in fields(kind)}


@pytest.fixture
def stands(bench):
    """(panel's widgets, kind, field, widget) of all that stands for a field."""
    from DiffTumorSlicerLib.panels.shared.field_widgets import WIDGETS

    uis = {
        "SynthesisPanel": bench.panels.synthesis.ui,
        "AnomalyPanel": bench.panels.anomaly.ui,
        "SegmentationPanel": bench.panels.segmentation.ui,
    }
    return [
        (kind, field, getattr(uis[panel], widget))
        for panel, kinds in WIDGETS.items()
        for kind, names in kinds.items()
        for field, widgets in names.items()
        for widget in widgets
    ]


def test_every_field_has_a_widget_or_is_known_to_have_none(stands):
    shown = {(kind, field) for kind, field, _widget in stands}
    assert shown | MODELS | NO_WIDGET == set(EVERY)
    assert not shown & (MODELS | NO_WIDGET)


def test_tool_tips_are_what_the_fields_say(stands):
    for kind, field, widget in stands:
        assert widget.toolTip == help_of(EVERY[kind, field]), (kind.__name__, field)


def test_numbers_go_as_far_as_the_fields_allow(stands):
    for kind, field, widget in stands:
        limits = EVERY[kind, field].metadata
        if "min" not in limits or not hasattr(widget, "maximum"):
            continue
        if widget.name == "guidanceSlider":  # its positions are no scales
            continue
        empty = EVERY[kind, field].default is None  # 0 says "not given" where it is no value
        assert widget.maximum == limits["max"], (kind.__name__, field)
        assert widget.minimum in ((limits["min"], 0) if empty else (limits["min"],)), field


def test_the_box_of_models_tells_of_the_field_that_it_stands_for(bench):
    panels = bench.panels
    told = {
        "trained": help_of(EVERY[SegmentationParameters, "models"]),
        "learned": help_of(EVERY[LearningParameters, "model"]),
    }
    for way, text in told.items():
        bench.parameters.segmenting_way = way
        panels.segmentation.refresh()
        assert panels.segmentation.ui.mapModelComboBox.toolTip.startswith(text), way
    text = help_of(EVERY[AnomalyParameters, "model"])
    assert panels.anomaly.ui.mapModelComboBox.toolTip.startswith(text)
