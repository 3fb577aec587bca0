"""Segmentations of tumors as nodes: segments, overlays and measurements, made beside the scan and found again.

A result is a segmentation of its own; what the person has drawn is never written into. Overlays (probability,
agreement, uncertainty) are volumes that cover the organ only. The side-car of the segmentation says how it was made
and holds the measurements, so that a scene that was saved and opened again is complete.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from difftumor.ellipsoids import Box
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import (
    GENERATED,
    INPUT_ROLE,
    OVERLAYS,
    SIDECAR,
    input_of,
    sidecar_of,
)
from DiffTumorSlicerLib.scene.segments import COLORS, box_of, labelmap, terminology
from DiffTumorSlicerLib.scene.volume_nodes import (
    add_box_of,
    array_of,
    place_beside,
    remove_node,
    unique_name,
)
from DiffTumorSlicerLib.translation import tr as _

SEGMENTED = "DiffTumor.Segmented"  # attribute of a result: "trained" or "learned"
DRAFT = "DiffTumor.Draft"  # of a result that the next one takes the place of
CONTENT = "DiffTumor.Content"  # checksum of the segments as they were made
ROLE = "DiffTumor.Overlay."  # and the kind of overlay
LABELS_ROLE = "DiffTumor.Labels"
ORGAN = (
    "DiffTumor.Organ"  # tag of a segment that is no tumor: the organ that a model found by itself
)
ORGAN_COLOR = (0.55, 0.65, 0.75)
OPACITY_AROUND = 0.3  # in 3-D, of what other segments lie in
NAME = "{input} tumors{number}, {model} (research only)"
OVERLAY_NAME = "{input} {kind}{number} (research only)"


@dataclass(frozen=True, eq=False)
class Part:
    """One segment to be.

    Attributes:
        name: for people.
        mask: bool (I, J, K) in the box of the result.
        color: red, green, blue, 0 to 1; None: the next one of the module's.
        row: its measurements (`LesionRow` as a dictionary); None for what is no lesion.
        around: other segments lie in it; it is see-through in 3-D.
    """

    name: str
    mask: NDArray[np.bool_]
    color: tuple[float, float, float] | None = None
    row: dict[str, Any] | None = None
    around: bool = False


@dataclass(frozen=True, eq=False)
class Segmented:
    """What one request made.

    Attributes:
        box: voxels of the scan that something is said about.
        parts: segments to be.
        overlays: kind -> values in the box, float32, 0 to 1.
        sidecar: how it was made (`provenance.describe`).
        kind: "trained" or "learned".
        organ: anatomy for the terminology, or "".
        labels: segmentation that it was learned from.
    """

    box: Box
    parts: list[Part]
    overlays: Mapping[str, NDArray[np.float32]]
    sidecar: dict[str, Any]
    kind: str
    organ: str = ""
    labels: Any | None = None
    model: str = field(default="")


def is_segmented(node: Any) -> bool:
    """Whether a segmentation is a result of this module."""
    return node is not None and node.GetAttribute(SEGMENTED) is not None


def results_of(scene: Any, scan: Any | None = None) -> list[Any]:
    """All results of a scene, or those of one scan; oldest first."""
    name = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    return [one for one in nodes if is_segmented(one) and (scan is None or input_of(one) is scan)]


def overlay_of(node: Any, kind: str) -> Any | None:
    """The probability, agreement or uncertainty of a result, if it is in the scene."""
    return node.GetNodeReference(ROLE + kind)


def overlays_of(node: Any) -> dict[str, Any]:
    """Kind -> volume, of those that a result has."""
    found = {kind: overlay_of(node, kind) for kind in OVERLAYS}
    return {kind: one for kind, one in found.items() if one is not None}


def lesions_of(node: Any) -> list[dict[str, Any]]:
    """Measurements of the segments that are still there, under the names that they have now."""
    rows = []
    for row in sidecar_of(node).get("result", {}).get("lesions", []):
        segment = node.GetSegmentation().GetSegment(row.get("segment") or "")
        if segment is not None:
            rows.append({**row, "name": segment.GetName()})
    return rows


def is_draft(node: Any) -> bool:
    """Whether the next learning takes the place of a result."""
    return node.GetAttribute(DRAFT) is not None


def is_edited(node: Any) -> bool:
    """Whether somebody has changed the segments of a result since it was made."""
    return node.GetAttribute(CONTENT) != content_of(node)


def keep(node: Any, name: str) -> None:
    """Make a result the person's own: later ones leave it alone."""
    node.RemoveAttribute(DRAFT)
    if name.strip():
        node.SetName(name.strip())


def add_segmented(scene: Any, source: Any, made: Segmented) -> Any:
    """Show a new result as nodes beside the scan.

    Args:
        scene: of the scan.
        source: the image that it is laid over; gives geometry, parent transform and place.
        made: what was computed.

    Returns:
        the segmentation. The scene stays as it was if anything fails. An earlier draft from the same labels
        goes, unless somebody has worked on it.
    """
    earlier = [] if made.labels is None else _replaced(scene, source, made.labels)
    pattern = NAME.replace("{model}", _plain(made.model))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", _name(scene, pattern, source))
    try:
        _describe(scene, node, source, made)
        rows = _add_parts(node, source, made)
        for kind, values in made.overlays.items():
            name = _name(scene, OVERLAY_NAME.replace("{kind}", kind), source)
            volume = add_box_of(
                scene, source, name, made.box, values.astype(np.float32, copy=False)
            )
            volume.SetAttribute(GENERATED, "1")
            volume.SetNodeReferenceID(INPUT_ROLE, source.GetID())
            node.SetNodeReferenceID(ROLE + kind, volume.GetID())
        _write_rows(node, made.sidecar, rows)
        node.SetAttribute(CONTENT, content_of(node))
    except Exception:
        remove_segmented(scene, node)
        raise
    for old in earlier:
        remove_segmented(scene, old)
    if earlier:  # their names are free now
        node.SetName("")
        node.SetName(_name(scene, pattern, source))
    return node


def remove_segmented(scene: Any, node: Any) -> None:
    """Remove a result with its overlays."""
    for other in (*overlays_of(node).values(), node):
        remove_node(scene, other)


def set_rows(node: Any, rows: list[dict[str, Any]]) -> None:
    """Write measurements that were taken again."""
    _write_rows(node, sidecar_of(node), rows)


def content_of(node: Any) -> str:
    """Checksum of the voxels of all segments; the same after saving and opening."""
    found = 0
    for segment_id in node.GetSegmentation().GetSegmentIDs():
        image = slicer.vtkOrientedImageData()
        if not node.GetBinaryLabelmapRepresentation(segment_id, image):
            continue
        if image.GetNumberOfPoints() == 0:
            continue
        mask = array_of(image) != 0
        if mask.any():
            part = np.ascontiguousarray(mask[box_of(mask)])
            found = zlib.crc32(
                np.packbits(part).tobytes(), zlib.crc32(str(part.shape).encode(), found)
            )
    return f"{found:08x}"


def _describe(scene: Any, node: Any, source: Any, made: Segmented) -> None:
    """Everything of a result but its voxels."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)  # a fill would hide the tumor and the overlay
    node.SetReferenceImageGeometryParameterFromVolumeNode(source)
    node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    node.SetAttribute(SEGMENTED, made.kind)
    node.SetNodeReferenceID(INPUT_ROLE, source.GetID())
    if made.labels is not None:
        node.SetAttribute(DRAFT, "1")
        node.SetNodeReferenceID(LABELS_ROLE, made.labels.GetID())
    place_beside(scene, node, source)


def _add_parts(node: Any, source: Any, made: Segmented) -> list[dict[str, Any]]:
    """Add the segments.  Returns: the rows, each with the id of its segment."""
    rows = []
    segmentation = node.GetSegmentation()
    lesions = 0
    for part in made.parts:
        if not part.mask.any():
            continue
        inner = box_of(part.mask)
        box = tuple(
            slice(outer.start + within.start, outer.start + within.stop)
            for outer, within in zip(made.box, inner, strict=True)
        )
        color = part.color or COLORS[lesions % len(COLORS)]
        lesions += part.color is None
        image = labelmap(source, box, part.mask[inner])  # type: ignore[arg-type]
        segment_id = node.AddSegmentFromBinaryLabelmapRepresentation(image, part.name, color)
        segment = segmentation.GetSegment(segment_id) if segment_id else None
        if segment is None:
            raise SceneError(
                _('The segment "{name}" could not be added. Try again.').format(name=part.name)
            )
        if part.row is not None:
            segment.SetTag(segment.GetTerminologyEntryTagName(), terminology(made.organ))
            rows.append({**part.row, "segment": segment_id})
        else:
            segment.SetTag(ORGAN, "1")
        # Slicer's DICOM export would call it drawn by hand otherwise.
        segment.SetTag(
            "DICOM.SegmentAlgorithmType", "AUTOMATIC" if made.kind == "trained" else "SEMIAUTOMATIC"
        )
        segment.SetTag("DICOM.SegmentAlgorithmName", "DiffTumorSlicer")
        if part.around:
            node.GetDisplayNode().SetSegmentOpacity3D(segment_id, OPACITY_AROUND)
    segmentation.CollapseBinaryLabelmaps(False)  # many lesions, few layers
    node.CreateClosedSurfaceRepresentation()
    return rows


def _write_rows(node: Any, sidecar: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    result = {**sidecar.get("result", {}), "lesions": rows}
    node.SetAttribute(SIDECAR, json.dumps({**sidecar, "result": result}))


def _replaced(scene: Any, source: Any, labels: Any) -> list[Any]:
    """Drafts that were learned from the same labels and that nobody has worked on."""
    return [
        node
        for node in results_of(scene, source)
        if is_draft(node) and node.GetNodeReference(LABELS_ROLE) is labels and not is_edited(node)
    ]


def _name(scene: Any, pattern: str, source: Any) -> str:
    name = pattern.replace("{input}", _plain(source.GetName()))
    return unique_name(scene, name.replace("{number}", "{}"))


def _plain(name: str) -> str:
    return name.replace("{", "").replace("}", "")
