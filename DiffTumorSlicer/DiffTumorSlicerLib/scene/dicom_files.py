"""Nodes as DICOM, written by Slicer's own plug-ins: images, and segmentations of what its database holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from DiffTumorSlicerLib.scene.volume_files import ExportError
from DiffTumorSlicerLib.translation import tr as _

LONGEST_DESCRIPTION = 64  # DICOM's limit for such a text
SERIES_NUMBERS = {"image": "9001", "segmentation": "9002"}
# What Slicer remembers of a volume that came from its DICOM database, and where its plug-in for
# segmentations looks for the images that they belong to.
INSTANCES = "DICOM.instanceUIDs"
PATIENT_TAGS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY_TAGS = ("StudyID", "StudyDate", "StudyTime", "StudyDescription")


def can_write_segmentation(scan: Any) -> bool:
    """Whether Slicer could write a segmentation of a scan as DICOM: it must have come from its DICOM database."""
    return writes_segmentations() and bool(scan.GetAttribute(INSTANCES))


def writes_segmentations() -> bool:
    """Whether this Slicer has what DICOM segmentations take: the plug-in and an open database."""
    database = _database()
    return has_plugin("DICOMSegmentationPlugin") and database is not None and bool(database.isOpen)


def has_plugin(name: str) -> bool:
    """Whether this Slicer has a DICOM plug-in of that name."""
    return name in (getattr(slicer.modules, "dicomPlugins", None) or {})


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

    Raises:
        ExportError: it could not be written.
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

    Raises:
        ExportError: it belongs to none.
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


def into_database(folder: Path) -> str:
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
