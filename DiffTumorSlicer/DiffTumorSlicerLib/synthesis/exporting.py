"""Results as files: image, tumor mask and side-car beside each other, or DICOM through Slicer.

Files say in their names, in the side-car and in DICOM's descriptions that the tumors are synthetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from DiffTumorSlicerLib.scene.dicom_files import (
    INSTANCES,
    export_dicom,
    has_plugin,
    into_database,
    writes_segmentations,
)
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import segmentation_of, sidecar_of
from DiffTumorSlicerLib.scene.segments import organ_mask
from DiffTumorSlicerLib.scene.volume_files import (
    ExportError,
    mask_beside,
    plain_name,
    write_together,
)
from DiffTumorSlicerLib.scene.volume_nodes import volume_array
from DiffTumorSlicerLib.translation import tr as _

MARK = "SYNTHETIC"


def file_stem(node: Any) -> str:
    """Name for the files of a result, without a suffix; it always says that the image is synthetic."""
    name = plain_name(node)
    return name if "synthetic" in name.lower() else f"{name}-synthetic"


def save_files(scene: Any, node: Any, path: Path) -> list[Path]:
    """Write a result, its tumor mask (0 and 1) and its side-car.

    Args:
        scene: of the result.
        node: the result volume.
        path: of the image; the others get its name with "-mask" and ".json".

    Returns and raises as `scene.volume_files.write_together`.
    """
    with mask_beside(scene, node, _tumor_mask(node)) as mask:
        return write_together(scene, path, {"": node, "-mask": mask}, sidecar_of(node))


def can_segment(node: Any) -> bool:
    """Whether Slicer could write the tumors of a result as a DICOM segmentation."""
    return writes_segmentations() and segmentation_of(node) is not None


def save_dicom(scene: Any, node: Any, folder: Path, *, segmentation: bool = False) -> list[Path]:
    """Write a result as a DICOM series, and its tumors as a DICOM segmentation of that series.

    Args:
        scene: of the result.
        node: the result volume; patient and study are those of its place in the subject hierarchy.
        folder: where to; a folder for each series is made in it.
        segmentation: needs `can_segment`, and puts the series into Slicer's DICOM database, since Slicer
            writes segmentations of what is there only.

    Returns:
        the folders that were written.

    Raises:
        ExportError: Slicer has no DICOM export here, or refused.
    """
    if not has_plugin("DICOMScalarVolumePlugin"):
        raise ExportError(
            _(
                "This Slicer has no DICOM export. Save as NIfTI or NRRD, or install Slicer with its DICOM "
                "modules."
            )
        )
    words = (file_stem(node), f"{MARK} tumor, research only: {node.GetName()}")
    plugin = "DICOMScalarVolumePlugin"
    written = [export_dicom(scene, node, node, plugin, "image", folder, *words)]
    if not segmentation:
        return written
    # For this export only: with its next tumor the result is not that series any more.
    node.SetAttribute(INSTANCES, into_database(written[0]))
    try:
        outlines = segmentation_of(node)
        plugin = "DICOMSegmentationPlugin"
        return [
            *written,
            export_dicom(scene, node, outlines, plugin, "segmentation", folder, *words),
        ]
    finally:
        node.RemoveAttribute(INSTANCES)


def _tumor_mask(node: Any) -> NDArray[np.uint8]:
    """All tumors of a result, 0 and 1."""
    mask = np.zeros(volume_array(node).shape, np.uint8)
    segmentation = segmentation_of(node)
    if segmentation is not None:
        for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
            try:
                mask |= organ_mask(segmentation, segment_id, node).astype(np.uint8)
            except SceneError as error:
                raise ExportError(str(error)) from error
    return mask
