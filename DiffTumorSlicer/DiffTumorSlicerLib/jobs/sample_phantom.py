"""Sample data without a patient: a computed abdomen with its organs, or a head in four MR sequences.

It is made in a process of its own, which needs no torch, so that it works before anything is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from difftumor.worker.bridge import Bridge
from difftumor.worker.protocol import ErrorEvent, ResultEvent
from DiffTumorSlicerLib.jobs.wording import sentence_of

SEED = 20001  # none of those that models are trained on
SPACING_MM = (1.0, 1.0, 2.0)
HEAD_SPACING_MM = (1.0, 1.0, 2.0)
LESION_RADIUS_MM = (9.0, 12.0)  # large enough to be found without searching
VOLUME_NAME = "Phantom abdomen (computed)"
LESION_NAME = "Phantom abdomen with a lesion (computed)"
HEAD_NAME = "Phantom head {sequence} (computed)"
ABDOMEN, LESION, HEAD = "abdomen", "lesion", "head"  # kinds of phantoms
SEQUENCES = {"t1": "T1", "t1c": "T1c", "t2": "T2", "flair": "FLAIR"}  # the last one is shown
BRAIN = ("brain", "12738006", "Brain", (0.96, 0.84, 0.69))
# Label of the phantom (TotalSegmentator v2), name, SNOMED CT code, color of the segment.
ORGANS: tuple[tuple[int, str, str, str, tuple[float, float, float]], ...] = (
    (5, "liver", "10200004", "Liver", (0.87, 0.72, 0.49)),
    (7, "pancreas", "15776009", "Pancreas", (0.98, 0.90, 0.47)),
    (2, "right kidney", "9846003", "Right kidney", (0.73, 0.40, 0.33)),
    (3, "left kidney", "18639004", "Left kidney", (0.73, 0.40, 0.33)),
)


class PhantomError(RuntimeError):
    """The phantom could not be made; the message says why and what to do."""


class PhantomMaker:
    """Makes one phantom at a time; the owner asks `poll` until it gives the volume."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._bridge: Bridge | None = None
        self._request = 0
        self._kind = ABDOMEN

    @property
    def busy(self) -> bool:
        """Whether a phantom is being made."""
        return self._bridge is not None

    def start(self, python: str | Path | None = None, kind: str = ABDOMEN) -> None:
        """Begin, with this interpreter (None: the running one); the result comes from `poll`.

        Args:
            python: interpreter.
            kind: `ABDOMEN`, `LESION` (an abdomen with one in a kidney) or `HEAD`.
        """
        self.close()
        self._bridge, self._kind = Bridge(python, tasks="difftumor.phantom.task"), kind
        labels = [organ[0] for organ in ORGANS]
        asked: dict[str, Any] = {"seed": SEED, "spacing_mm": list(SPACING_MM), "labels": labels}
        if kind != ABDOMEN:
            asked |= {"tumors": 1, "tumor_organs": ["kidney"]}
            asked |= {"tumor_radius_mm": list(LESION_RADIUS_MM)}
        if kind == HEAD:
            asked |= {"kind": "head", "spacing_mm": list(HEAD_SPACING_MM)}
        self._request = self._bridge.request("phantom", asked)

    def poll(self) -> tuple[Any, Any] | None:
        """Volume node and segmentation node, once they are made; None as long as they are not.

        Raises:
            PhantomError: it failed; nothing was added to the scene.
        """
        if self._bridge is None:
            return None
        for event in self._bridge.poll():
            if isinstance(event, ResultEvent):
                arrays = self._bridge.take(event.id)
                self.close()
                if self._kind == HEAD:
                    return add_head(self._scene, arrays, event.metadata)
                name = LESION_NAME if self._kind == LESION else VOLUME_NAME
                return add_phantom(self._scene, arrays, event.metadata, name)
            if isinstance(event, ErrorEvent) and event.id is not None:
                self.close()
                raise PhantomError(sentence_of(event))
        return None

    def close(self) -> None:
        """Stop, and end the process."""
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None


def add_phantom(
    scene: Any, arrays: dict[str, np.ndarray], metadata: dict[str, Any], name: str = VOLUME_NAME
) -> tuple[Any, Any]:
    """Add a phantom's volume and its organs to the scene.

    Args:
        scene: where to.
        arrays: `ct` and `organ_<label>`, (K, J, I).
        metadata: their `affine` and `starts`, as `phantom.task` returned them.
        name: of the volume.

    Returns:
        the volume node and the segmentation node.
    """
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.ravel(metadata["affine"]))
    volume = _add_volume(scene, name, arrays["ct"], matrix)
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(400, 40)
    segmentation = _add_segmentation(scene, "Organs of the phantom", volume)
    for label, organ, code, meaning, color in ORGANS:
        if str(label) in metadata["starts"]:
            start = metadata["starts"][str(label)]
            array = arrays[f"organ_{label}"]
            _add_segment(segmentation, array, start, matrix, organ, code, meaning, color)
    segmentation.GetDisplayNode().SetVisibility2DFill(False)
    return volume, segmentation


def add_head(
    scene: Any, arrays: dict[str, np.ndarray], metadata: dict[str, Any]
) -> tuple[Any, Any]:
    """Add the sequences of a head and its brain to the scene.

    Args:
        scene: where to.
        arrays: `image_<sequence>` and `brain`, (K, J, I).
        metadata: their `affine`, as `phantom.task` returned it.

    Returns:
        the node of the FLAIR image and the segmentation node.
    """
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.ravel(metadata["affine"]))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for sequence, words in SEQUENCES.items():
        name = HEAD_NAME.replace("{sequence}", words)
        volume = _add_volume(scene, name, arrays[f"image_{sequence}"], matrix)
        root = hierarchy.GetSceneItemID()
        item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(root, volume)
        hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    segmentation = _add_segmentation(scene, "Brain of the phantom", volume)
    _add_segment(segmentation, arrays["brain"], (0, 0, 0), matrix, *BRAIN)
    segmentation.GetDisplayNode().SetVisibility(False)  # its outline is where the image ends
    return volume, segmentation


def _add_volume(scene: Any, name: str, array: np.ndarray, matrix: Any) -> Any:
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    volume.SetIJKToRASMatrix(matrix)
    volume.SetAndObserveImageData(_image(vtk.vtkImageData(), array, (0, 0, 0)))
    volume.CreateDefaultDisplayNodes()
    return volume


def _add_segmentation(scene: Any, name: str, volume: Any) -> Any:
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return segmentation


def _add_segment(
    segmentation: Any,
    array: np.ndarray,
    start: Sequence[int],
    matrix: Any,
    name: str,
    code: str,
    meaning: str,
    color: tuple[float, float, float],
) -> None:
    """Add a mask (K, J, I) whose first voxel has the index `start` as a segment with a standard term."""
    image = _image(slicer.vtkOrientedImageData(), array, start)
    image.SetImageToWorldMatrix(matrix)
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(*color)
    segment.SetTag(
        segment.GetTerminologyEntryTagName(),
        "Segmentation category and type - 3D Slicer General Anatomy list"
        f"~SCT^123037004^Anatomical Structure~SCT^{code}^{meaning}~^^"
        "~Anatomic codes - DICOM master list~^^~^^",
    )
    labelmap = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
    segment.AddRepresentation(labelmap, image)
    segmentation.GetSegmentation().AddSegment(segment, name.replace(" ", "_"))


def _image(image: Any, array: np.ndarray, start: Sequence[int]) -> Any:
    """Copy a (K, J, I) array into VTK image data whose first voxel has the index `start`."""
    extent = [(s, s + n - 1) for s, n in zip(start, array.shape[::-1], strict=True)]
    image.SetExtent([limit for pair in extent for limit in pair])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    return image
