"""Segments: organ masks for the engine, and synthetic tumors as segments with standard terminology."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk

from difftumor.ellipsoids import Box
from difftumor.grids import Grid, GridError
from difftumor.images.resampling import covering_box, resample
from DiffTumorSlicerLib.scene.geometry import SceneError, to_array, to_world
from DiffTumorSlicerLib.scene.volume_nodes import array_of, place_beside, volume_grid
from DiffTumorSlicerLib.translation import tr as _

LABELMAP = "Binary labelmap"  # Slicer's own name of the representation
# SNOMED CT codes of the shipped terminologies; a mass has no recommended color there.
REGIONS = {
    "liver": ("10200004", "Liver"),
    "pancreas": ("15776009", "Pancreas"),
    "kidney": ("64033007", "Kidney"),
    "brain": ("12738006", "Brain"),
}
COLORS = ((0.96, 0.49, 0.13), (0.90, 0.22, 0.45), (0.58, 0.40, 0.93), (0.16, 0.65, 0.82))


def find_segment(segmentation_node: Any | None, text: str) -> str | None:
    """Id of the segment that a script names by its id or its name; None where it names none.

    What is neither is returned as it is; whoever uses it says what is wrong.
    """
    if segmentation_node is None or not text:
        return text or None
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.GetSegment(text) is not None:
        return text
    return segmentation.GetSegmentIdBySegmentName(text) or text


def organ_mask(segmentation_node: Any, segment_id: str, volume_node: Any) -> NDArray[np.bool_]:
    """One segment on the grid of a volume.

    Args:
        segmentation_node: on any grid, under any linear transform; never changed.
        segment_id: of the segment.
        volume_node: the grid that is wanted.

    Returns:
        bool (I, J, K); a voxel belongs to the organ if its center does (nearest voxel).

    Raises:
        SceneError: no such segment, it cannot be made a labelmap, or a transform bends space.
    """
    name = segmentation_node.GetName()
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id) if segment_id else None
    if segment is None:
        raise SceneError(
            _('The chosen segment is not in "{name}" any more. Choose the organ again.').format(
                name=name
            )
        )
    target = volume_grid(volume_node)
    transform = to_world(segmentation_node)
    image = slicer.vtkOrientedImageData()
    if segment.GetRepresentation(LABELMAP) is not None:
        found = segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image)
    else:  # drawn or imported as a surface: converted aside, the node stays as it is
        found = slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentRepresentation(
            segmentation_node, segment_id, LABELMAP, image, False
        )
    if not found:
        raise SceneError(
            _(
                'The segment "{segment}" of "{name}" cannot be turned into voxels. Create its '
                "binary labelmap in the Segmentations module, or choose another segment."
            ).format(segment=segment.GetName(), name=name)
        )
    if image.GetNumberOfPoints() == 0:
        return np.zeros(target.shape, bool)
    mask = array_of(image) != 0
    if (occupied := _occupied(mask)) is None:
        return np.zeros(target.shape, bool)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = transform @ to_array(matrix)
    affine[:3, 3] += affine[:3, :3] @ image.GetExtent()[::2]
    try:
        source = Grid(mask.shape, affine).cropped(occupied)
    except GridError as error:
        raise SceneError(
            _('The geometry of "{name}" cannot be used: {error}').format(name=name, error=error)
        ) from error
    found = np.zeros(target.shape, bool)
    box = covering_box(source, target)
    if all(part.start < part.stop for part in box):
        found[box] = resample(mask[occupied], source, target.cropped(box), order=0)
    return found


def only_segment(segmentation_node: Any | None) -> str:
    """Id of the segment where there is no choice; "" without a segmentation.

    Raises:
        SceneError: there is no segment, or a choice.
    """
    if segmentation_node is None:
        return ""
    segmentation = segmentation_node.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 1:
        return str(segmentation.GetNthSegmentID(0))
    if segmentation.GetNumberOfSegments() == 0:
        raise SceneError(
            _(
                '"{name}" has no segments. Segment the organ, or choose another segmentation.'
            ).format(name=segmentation_node.GetName())
        )
    raise SceneError(
        _('"{name}" has several segments. Choose the one that is meant.').format(
            name=segmentation_node.GetName()
        )
    )


def box_of(mask: NDArray[np.bool_]) -> Box:
    """The box around a mask that is not empty."""
    box = _occupied(mask)
    assert box is not None
    return box


def _occupied(mask: NDArray[np.bool_]) -> Box | None:
    """The box around a mask; None if it is empty."""
    spans = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if any(span.size == 0 for span in spans):
        return None
    i, j, k = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return i, j, k


def add_tumor_segment(
    scene: Any,
    result_node: Any,
    segmentation_node: Any | None,
    box: Box,
    mask: NDArray[np.bool_],
    *,
    organ: str,
    name: str,
) -> tuple[Any, str]:
    """Add the voxels of a tumor as a segment.

    Args:
        scene: of both nodes.
        result_node: the volume with the tumor; gives geometry and parent transform.
        segmentation_node: where to; a new segmentation beside the volume if None.
        box: slices into the volume.
        mask: the tumor in the box.
        organ: 'liver', 'pancreas' or 'kidney', for the terminology.
        name: of the segment.

    Returns:
        the segmentation node and the id of the segment.

    Raises:
        SceneError: Slicer did not take it.
    """
    if segmentation_node is None:
        segmentation_node = scene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", f"{result_node.GetName()} tumors"
        )
        segmentation_node.CreateDefaultDisplayNodes()
        segmentation_node.GetDisplayNode().SetVisibility2DFill(False)  # a fill would hide the tumor
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(result_node)
        segmentation_node.SetAndObserveTransformNodeID(result_node.GetTransformNodeID())
        segmentation_node.SetAttribute("DiffTumor.Synthetic", "1")
        place_beside(scene, segmentation_node, result_node)
    segmentation = segmentation_node.GetSegmentation()
    color = COLORS[segmentation.GetNumberOfSegments() % len(COLORS)]
    image = labelmap(result_node, box, mask)
    segment_id = segmentation_node.AddSegmentFromBinaryLabelmapRepresentation(image, name, color)
    segment = segmentation.GetSegment(segment_id) if segment_id else None
    if segment is None:
        raise SceneError(
            _(
                'The tumor could not be added to "{name}". Remove that segmentation '
                "and press Synthesize again."
            ).format(name=segmentation_node.GetName())
        )
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology(organ))
    segment.SetTag("DiffTumor.Synthetic", "1")
    # Slicer's DICOM export would call it drawn by hand otherwise.
    segment.SetTag("DICOM.SegmentAlgorithmType", "AUTOMATIC")
    segment.SetTag("DICOM.SegmentAlgorithmName", "DiffTumorSlicer")
    return segmentation_node, segment_id


def terminology(organ: str) -> str:
    """Slicer's terminology entry of a mass in an organ: contexts, category, type and region, SNOMED CT.

    Without an organ ("") the entry names no region.
    """
    code, meaning = REGIONS.get(organ, ("", ""))
    return "~".join(
        (
            "Segmentation category and type - 3D Slicer General Anatomy list",
            "SCT^49755003^Morphologically Altered Structure",
            "SCT^4147007^Mass",
            "^^",
            "Anatomic codes - DICOM master list",
            f"SCT^{code}^{meaning}" if code else "^^",
            "^^",
        )
    )


def labelmap(result_node: Any, box: Box, mask: NDArray[np.bool_]) -> Any:
    """The mask as an oriented image whose extent is the box in the volume's own indices."""
    first = result_node.GetImageData().GetExtent()[::2]
    image = slicer.vtkOrientedImageData()
    extent = [
        edge + start
        for part, start in zip(box, first, strict=True)
        for edge in (part.start, part.stop - 1)
    ]
    image.SetExtent(extent)
    scalars = numpy_to_vtk(np.ascontiguousarray(mask.T, np.uint8).ravel(), deep=True)
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    result_node.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    return image
