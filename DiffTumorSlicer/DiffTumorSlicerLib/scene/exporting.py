"""Results as files: image, tumor mask and side-car beside each other, or DICOM through Slicer.

Files say in their names, in the side-car and in DICOM's descriptions that the tumors are synthetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

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
LONGEST_DESCRIPTION = 64  # DICOM's limit for such a text
SERIES_NUMBERS = {"image": "9001", "segmentation": "9002"}
# What Slicer remembers of a volume that came from its DICOM database, and where its plug-in for
# segmentations looks for the images that they belong to.
INSTANCES = "DICOM.instanceUIDs"
PATIENT_TAGS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY_TAGS = ("StudyID", "StudyDate", "StudyTime", "StudyDescription")


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

    Returns, Raises: as `scene.volume_files.write_together`.
    """
    with mask_beside(scene, node, _tumor_mask(node)) as mask:
        return write_together(scene, path, {"": node, "-mask": mask}, sidecar_of(node))


def can_segment(node: Any) -> bool:
    """Whether Slicer could write the tumors of a result as a DICOM segmentation."""
    return _writes_segmentations() and segmentation_of(node) is not None


def can_write_segmentation(scan: Any) -> bool:
    """Whether Slicer could write a segmentation of a scan as DICOM: it must have come from its DICOM database."""
    return _writes_segmentations() and bool(scan.GetAttribute(INSTANCES))


def _writes_segmentations() -> bool:
    plugins = getattr(slicer.modules, "dicomPlugins", None) or {}
    database = _database()
    return "DICOMSegmentationPlugin" in plugins and database is not None and bool(database.isOpen)


def save_dicom(scene: Any, node: Any, folder: Path, *, segmentation: bool = False) -> list[Path]:
    """Write a result as a DICOM series, and its tumors as a DICOM segmentation of that series.

    Args:
        scene: of the result.
        node: the result volume; patient and study are those of its place in the subject hierarchy.
        folder: where to; a folder for each series is made in it.
        segmentation: needs `can_segment`, and puts the series into Slicer's DICOM database, since Slicer
            writes segmentations of what is there only.

    Returns: the folders that were written.
    Raises: ExportError: Slicer has no DICOM export here, or refused.
    """
    plugins = getattr(slicer.modules, "dicomPlugins", None) or {}
    if "DICOMScalarVolumePlugin" not in plugins:
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
    node.SetAttribute(INSTANCES, _into_database(written[0]))
    try:
        outlines = segmentation_of(node)
        plugin = "DICOMSegmentationPlugin"
        return [
            *written,
            export_dicom(scene, node, outlines, plugin, "segmentation", folder, *words),
        ]
    finally:
        node.RemoveAttribute(INSTANCES)


def export_dicom(
    scene: Any,
    image: Any,
    node: Any,
    plugin: str,
    what: str,
    folder: Path,
    stem: str,
    description: str,
) -> Path:
    """Let one of Slicer's DICOM plug-ins write a node into a folder of its own.

    Args:
        scene: of the nodes.
        image: whose patient and study it belongs to.
        node: what is written.
        plugin: name of the class.
        what: "image" or "segmentation".
        folder: where to.
        stem: the folder of its own begins with it.
        description: of the series.

    Raises: ExportError: it could not be written.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    tags = _patient_tags(hierarchy, image)
    target = folder / f"{stem}-{what}"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            _(
                "The folder {target} could not be made ({why}). Choose a folder that is "
                "yours, with enough free space."
            ).format(target=target, why=error.strerror or error)
        ) from error
    before = _files(target)
    exporter = slicer.modules.dicomPlugins[plugin]()
    exportables = exporter.examineForExport(hierarchy.GetItemByDataNode(node))
    tags |= {
        "SeriesDescription": description[:LONGEST_DESCRIPTION],
        "SeriesNumber": SERIES_NUMBERS[what],
        "PatientComments": description.partition(":")[0],
    }
    for exportable in exportables:
        exportable.directory = str(target)
        for name, value in tags.items():
            exportable.setTag(name, value)
    refused = exporter.export(exportables)
    words = {"image": _("image"), "segmentation": _("segmentation")}
    # The plug-in does not look whether the program that it calls has written anything.
    if refused or not _files(target) - before:
        raise ExportError(
            _(
                "Slicer could not write the {what} as DICOM: {why}. Save as NIfTI or NRRD instead."
            ).format(what=words[what], why=refused or _("no file was made"))
        )
    return target


def _patient_tags(hierarchy: Any, node: Any) -> dict[str, str]:
    """Patient and study of a volume; Slicer's plug-ins take them from nowhere else.

    Raises: ExportError: it belongs to none.
    """
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    patient = hierarchy.GetItemParent(study) if study else 0
    if not patient or patient == hierarchy.GetSceneItemID():
        raise ExportError(
            _(
                "Slicer cannot write this as DICOM: the scan has no patient and study. Load the scan from DICOM, "
                "or drag it into a study in the Data module, and try again."
            )
        )
    tags = {
        name: str(hierarchy.GetItemAttribute(item, f"DICOM.{name}") or "")
        for item, names in ((patient, PATIENT_TAGS), (study, STUDY_TAGS))
        for name in names
    }
    tags["StudyInstanceUID"] = str(hierarchy.GetItemUID(study, "DICOM") or "")
    return {name: value for name, value in tags.items() if value}


def _database() -> Any:
    """Slicer's DICOM database; None where it has none."""
    return getattr(slicer, "dicomDatabase", None)


def _into_database(folder: Path) -> str:
    """Put a series into Slicer's DICOM database.  Returns: the UIDs of its images."""
    import pydicom  # in every Slicer, but not at file scope

    database = _database()
    uids = []
    for file in sorted(_files(folder)):
        database.insert(str(file))
        uids.append(str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID))
    if not all(database.fileForInstance(uid) for uid in uids):
        raise ExportError(
            _(
                "The images were written to {folder}, but Slicer's DICOM database did not take them. Import that "
                "folder in the DICOM module, or save the outline as NIfTI or NRRD."
            ).format(folder=folder)
        )
    return " ".join(uids)


def _files(folder: Path) -> set[Path]:
    """All files below a folder; each plug-in has its own way of naming them."""
    return {path for path in folder.rglob("*") if path.is_file()}


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
