"""Segmentations as files: label map, overlays and side-car, the table, or a DICOM segmentation through Slicer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from difftumor.images.staging import staged
from DiffTumorSlicerLib.scene.dicom_files import can_write_segmentation, export_dicom
from DiffTumorSlicerLib.scene.results import input_of, sidecar_of
from DiffTumorSlicerLib.scene.segments import organ_mask
from DiffTumorSlicerLib.scene.volume_files import (
    ExportError,
    mask_beside,
    plain_name,
    write_together,
)
from DiffTumorSlicerLib.scene.volume_nodes import volume_array
from DiffTumorSlicerLib.segmentation.results import lesions_of, overlays_of
from DiffTumorSlicerLib.translation import tr as _


def write_lesion_table(node: Any, path: Path) -> list[Path]:
    """Write the measurements of a result as CSV or JSON, by the suffix; a present file is replaced.

    Returns:
        the file.

    Raises:
        ExportError: it could not be written.
    """
    from difftumor.measuring.tables import LesionRow, write_table  # late, as it brings SciPy along

    names = {item.name for item in fields(LesionRow)}
    rows = [LesionRow(**{k: v for k, v in row.items() if k in names}) for row in lesions_of(node)]
    try:
        with staged([path], overwrite=True) as stand_ins:
            write_table(rows, stand_ins[0])
    except OSError as error:
        raise ExportError(
            _(
                "The table could not be written to {folder} ({why}). Choose a folder that is yours, with "
                "enough free space."
            ).format(folder=path.parent, why=error.strerror or error)
        ) from error
    return [path]


def write_segmentation_files(scene: Any, node: Any, path: Path) -> list[Path]:
    """Write the segments of a result as a label map on the scan's grid, its overlays and its side-car.

    Args:
        scene: of the result.
        node: the segmentation.
        path: of the label map; the others get its name with the overlay's kind and ".json".

    Returns and raises as `scene.volume_files.write_together`; the side-car names the labels.
    """
    segmentation, scan = node.GetSegmentation(), input_of(node)
    ids = list(segmentation.GetSegmentIDs())
    labels = np.zeros(volume_array(scan).shape, np.uint8 if len(ids) < 256 else np.uint16)
    for number, segment_id in enumerate(ids, start=1):
        labels[organ_mask(node, segment_id, scan)] = number
    sidecar = sidecar_of(node)
    sidecar["files"] = {
        "labels": {n: segmentation.GetSegment(i).GetName() for n, i in enumerate(ids, start=1)}
    }
    with mask_beside(scene, scan, labels) as label_node:
        overlays = {f"-{kind}": volume for kind, volume in overlays_of(node).items()}
        return write_together(scene, path, {"": label_node, **overlays}, sidecar)


def write_dicom_segmentation(scene: Any, node: Any, folder: Path) -> Path:
    """Write a result as a DICOM segmentation of the scan's own series.

    Args:
        scene: of the result.
        node: the segmentation; its scan was loaded from Slicer's DICOM database.
        folder: where to; a folder of its own is made in it.

    Returns:
        the folder that was written.

    Raises:
        ExportError: Slicer cannot do it here, or the scan is in no DICOM database.
    """
    scan = input_of(node)
    if scan is None or not can_write_segmentation(scan):
        raise ExportError(
            _(
                "Slicer writes DICOM segmentations only of scans that were loaded from its DICOM database. Load the "
                "scan from there and segment it, or save as NIfTI or NRRD."
            )
        )
    words = f"Tumor segmentation, research only: {scan.GetName()}"
    plugin, stem = "DICOMSegmentationPlugin", plain_name(node)
    return export_dicom(scene, scan, node, plugin, "segmentation", folder, stem, words)
