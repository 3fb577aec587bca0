"""Widgets that stand for a parameter: their tool tips and ranges are those of the engine's field.

The texts are the engine's, as on the command line and in the documentation; labels may be friendlier.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from difftumor.fields import help_of
from difftumor.parameters import (
    AnomalyParameters,
    Ellipsoid,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
)

# Of each .ui file: which widgets stand for which field. The models of the Anomaly and the Segmentation
# panel are told of by `MapInputGroup`, as one box stands for several fields in turn.
WIDGETS: dict[str, dict[type, dict[str, tuple[str, ...]]]] = {
    "SynthesisPanel": {
        SynthesisParameters: {
            "model": ("modelComboBox",),
            "size": ("sizeComboBox",),
            "count": ("countSpinBox",),
            "organ": ("organComboBox",),
            "clip_to_organ": ("clipCheckBox",),
            "steps": ("stepsSpinBox",),
            "seed": ("seedEdit",),
            "feather_mm": ("featherSpinBox",),
            "blend": ("blendComboBox",),
            "grain": ("grainComboBox",),
        },
        Ellipsoid: {
            "center_ras": ("centerRSpinBox", "centerASpinBox", "centerSSpinBox"),
            "radii_mm": ("radiusRSpinBox", "radiusASpinBox", "radiusSSpinBox"),
            "rotation_deg": ("rotationRSpinBox", "rotationASpinBox", "rotationSSpinBox"),
        },
    },
    "AnomalyPanel": {
        AnomalyParameters: {
            "noise_level": ("noiseLabel", "noiseSlider", "noiseSpinBox"),
            "guidance_scale": ("guidanceLabel", "guidanceSlider", "guidanceSpinBox"),
            "steps": ("levelsSpinBox",),
            "plane": ("planeComboBox",),
            "map_kind": ("kindComboBox",),
            "smoothing_mm": ("smoothingSpinBox",),
            "normalisation": ("normalisationComboBox",),
            "threshold": ("thresholdSlider",),
            "gate": ("gateCheckBox",),
            "largest_component": ("largestCheckBox",),
            "guidance_stop": ("stopSpinBox",),
            "guidance_weighting": ("weightingComboBox",),
        },
    },
    "SegmentationPanel": {
        SegmentationParameters: {
            "overlap": ("overlapComboBox",),
            "flips": ("flipsCheckBox",),
            "clip_to_organ": ("clipCheckBox",),
            "min_diameter_mm": ("leastSpinBox",),
            "tumor_threshold": ("tumorThresholdSpinBox",),
        },
        LearningParameters: {
            "plane": ("learnPlaneComboBox",),
            "keep": ("keepPartsComboBox",),
            "members": ("membersSpinBox",),
            "steps": ("learnStepsSpinBox",),
        },
    },
}


def describe(panel: str, ui: Any) -> None:
    """Give the widgets of a panel the tool tips of their fields.

    Args:
        panel: name of the .ui file.
        ui: its widgets.
    """
    for kind, names in WIDGETS.get(panel, {}).items():
        for field, widgets in names.items():
            for widget in widgets:
                getattr(ui, widget).toolTip = tip_of(kind, field)


def tip_of(kind: type, field: str) -> str:
    """The tool tip of what stands for a field."""
    return help_of(_item(kind, field))


def limits_of(kind: type, field: str) -> tuple[float, float]:
    """Smallest and largest value of a field."""
    metadata = _item(kind, field).metadata
    return metadata["min"], metadata["max"]


def limit(kind: type, field: str, *widgets: Any) -> None:
    """Let spin boxes and sliders take what a field allows, and nothing else."""
    for widget in widgets:
        # A widget of whole numbers takes no 1.0, and the panels' limits are whole where it has them.
        number = type(widget.minimum)
        widget.minimum, widget.maximum = (number(value) for value in limits_of(kind, field))


def _item(kind: type, field: str) -> Any:
    return next(item for item in fields(kind) if item.name == field)
