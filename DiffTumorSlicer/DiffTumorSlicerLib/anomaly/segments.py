"""What lies above the threshold of a heat map, as a mask and as a segment with standard terminology."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from DiffTumorSlicerLib.anomaly.results import resolved
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import (
    MAP,
    SEGMENTATION_ROLE,
    input_of,
    segmentation_of,
    sidecar_of,
)
from DiffTumorSlicerLib.scene.segments import REGIONS, box_of, labelmap, terminology
from DiffTumorSlicerLib.scene.volume_nodes import place_beside, volume_array
from DiffTumorSlicerLib.translation import tr as _

SMALLEST = 1e-6  # exactly 0 is where nothing was computed
# Cool, so that an outline stands out from the warm colors of a map and from those of synthetic tumors.
COLORS = ((0.0, 0.84, 1.0), (0.35, 0.95, 0.65), (0.60, 0.70, 1.0))
NAME = "Anomaly above {threshold} (anomaly map, research only)"


def map_mask(map_node: Any, threshold: float, *, largest: bool = False) -> NDArray[np.bool_]:
    """The voxels that a map shows above a threshold.

    Args:
        map_node: values 0 to 1.
        threshold: 0 to 1.
        largest: keep the largest connected part only.
    """
    mask = volume_array(map_node) > max(threshold, SMALLEST)
    if largest:
        from difftumor.anomaly.maps import largest_component  # late, as it brings SimpleITK along

        mask = largest_component(mask)
    return mask


def automatic_threshold(map_node: Any) -> float | None:
    """Otsu's threshold of the part of a map that says something; None where that is the same everywhere."""
    from difftumor.anomaly.maps import otsu_threshold  # late, as it brings SimpleITK along

    values = volume_array(map_node)
    return otsu_threshold(values[values > SMALLEST])


def segment_map(
    scene: Any, map_node: Any, threshold: float, *, largest: bool = False
) -> tuple[Any, int]:
    """Add what lies above a threshold to the segmentation of a map; the same threshold replaces its segment.

    Arguments as of `map_mask`.

    Returns:
        the segmentation node and the number of voxels.

    Raises:
        SceneError: nothing lies above the threshold.
    """
    mask = map_mask(map_node, threshold, largest=largest)
    if not mask.any():
        raise SceneError(
            _(
                "Nothing of the map lies above {threshold:.2f}. Move the threshold down, or make the map "
                "with other settings."
            ).format(threshold=threshold)
        )
    node = segmentation_of(map_node)
    if node is None:
        node = _add_segmentation(scene, map_node)
    name = NAME.replace("{threshold}", f"{threshold:.2f}")
    segmentation = node.GetSegmentation()
    if (same := segmentation.GetSegmentIdBySegmentName(name)) and segmentation.GetSegment(same):
        segmentation.RemoveSegment(same)
    color = COLORS[segmentation.GetNumberOfSegments() % len(COLORS)]
    box = box_of(mask)
    image = labelmap(map_node, box, mask[box])
    segment_id = node.AddSegmentFromBinaryLabelmapRepresentation(image, name, color)
    segment = segmentation.GetSegment(segment_id) if segment_id else None
    if segment is None:
        raise SceneError(
            _(
                'The segment could not be added to "{name}". Remove that segmentation and try again.'
            ).format(name=node.GetName())
        )
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology(_region(map_node)))
    segment.SetTag(MAP, "1")
    # Slicer's DICOM export would call it drawn by hand otherwise.
    segment.SetTag("DICOM.SegmentAlgorithmType", "AUTOMATIC")
    segment.SetTag("DICOM.SegmentAlgorithmName", "DiffTumorSlicer")
    node.CreateClosedSurfaceRepresentation()
    return node, int(mask.sum())


def _add_segmentation(scene: Any, map_node: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{map_node.GetName()} segmentation")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility2DFill(False)  # a fill would hide map and scan
    node.SetReferenceImageGeometryParameterFromVolumeNode(input_of(map_node) or map_node)
    node.SetAndObserveTransformNodeID(map_node.GetTransformNodeID())
    node.SetAttribute(MAP, "1")
    place_beside(scene, node, map_node)
    map_node.SetNodeReferenceID(SEGMENTATION_ROLE, node.GetID())
    return node


def _region(map_node: Any) -> str:
    """The anatomy of a map's model, for the terminology; "" if none is known."""
    organs = resolved(sidecar_of(map_node)).get("organs") or []
    return next((organ for organ in organs if organ in REGIONS), "")
