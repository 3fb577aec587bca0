"""What the module knows of a MRML scene: nodes as arrays on grids in the patient, results as nodes.

This is the one door; the scene is always passed in, and nothing here knows Qt, jobs or the worker.
"""

from DiffTumorSlicerLib.geometry import SceneError, has_nonlinear_parent, to_world
from DiffTumorSlicerLib.hardening import harden_clone
from DiffTumorSlicerLib.history import tumors_of
from DiffTumorSlicerLib.results import (
    add_synthetic_volume,
    add_tumor,
    input_of,
    is_result,
    keep_variant,
    remove_last,
    remove_result,
    segmentation_of,
    sidecar_of,
)
from DiffTumorSlicerLib.segments import add_tumor_segment, organ_mask, terminology
from DiffTumorSlicerLib.volume_nodes import (
    modality_of,
    place_beside,
    set_patch,
    volume_array,
    volume_grid,
)
from DiffTumorSlicerLib.volumes_info import volume_facts, volume_notes, volume_warnings

__all__ = [
    "SceneError",
    "add_synthetic_volume",
    "add_tumor",
    "add_tumor_segment",
    "harden_clone",
    "has_nonlinear_parent",
    "input_of",
    "is_result",
    "keep_variant",
    "modality_of",
    "organ_mask",
    "place_beside",
    "remove_last",
    "remove_result",
    "segmentation_of",
    "set_patch",
    "sidecar_of",
    "terminology",
    "to_world",
    "tumors_of",
    "volume_array",
    "volume_facts",
    "volume_grid",
    "volume_notes",
    "volume_warnings",
]
