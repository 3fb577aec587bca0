"""Sample data without a patient: a computed abdomen with its organs as segments.

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

from difftumor.bridge import Bridge
from difftumor.protocol import ErrorEvent, ResultEvent

SEED = 20001  # none of those that models are trained on
SPACING_MM = (1.0, 1.0, 2.0)
VOLUME_NAME = "Phantom abdomen (computed)"
# Label of the phantom (TotalSegmentator v2), name, SNOMED CT code, color of the segment.
ORGANS = (
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

    @property
    def busy(self) -> bool:
        """Whether a phantom is being made."""
        return self._bridge is not None

    def start(self, python: str | Path | None = None) -> None:
        """Begin, with this interpreter (None: the running one); the result comes from `poll`."""
        self.close()
        self._bridge = Bridge(python, tasks="difftumor.phantom.task")
        labels = [organ[0] for organ in ORGANS]
        asked = {"seed": SEED, "spacing_mm": list(SPACING_MM), "labels": labels}
        self._request = self._bridge.request("phantom", asked)

    def poll(self) -> tuple[Any, Any] | None:
        """Volume node and segmentation node, once they are made; None as long as they are not.

        Raises: PhantomError: it failed; nothing was added to the scene.
        """
        if self._bridge is None:
            return None
        for event in self._bridge.poll():
            if isinstance(event, ResultEvent):
                arrays = self._bridge.take(event.id)
                self.close()
                return add_phantom(self._scene, arrays, event.metadata)
            if isinstance(event, ErrorEvent) and event.id is not None:
                self.close()
                raise PhantomError(" ".join(filter(None, (event.message, event.hint))))
        return None

    def close(self) -> None:
        """Stop, and end the process."""
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None


def add_phantom(
    scene: Any, arrays: dict[str, np.ndarray], metadata: dict[str, Any]
) -> tuple[Any, Any]:
    """Add a phantom's volume and its organs to the scene.

    Args:
        scene: where to.
        arrays: `ct` and `organ_<label>`, (K, J, I).
        metadata: their `affine` and `starts`, as `phantom.task` returned them.

    Returns: the volume node and the segmentation node.
    """
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.ravel(metadata["affine"]))
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", VOLUME_NAME)
    volume.SetIJKToRASMatrix(matrix)
    volume.SetAndObserveImageData(_image(vtk.vtkImageData(), arrays["ct"], (0, 0, 0)))
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(400, 40)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs of the phantom")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label, name, code, meaning, color in ORGANS:
        if str(label) not in metadata["starts"]:
            continue
        start = metadata["starts"][str(label)]
        image = _image(slicer.vtkOrientedImageData(), arrays[f"organ_{label}"], start)
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
    segmentation.GetDisplayNode().SetVisibility2DFill(False)
    return volume, segmentation


def _image(image: Any, array: np.ndarray, start: Sequence[int]) -> Any:
    """Copy a (K, J, I) array into VTK image data whose first voxel has the index `start`."""
    extent = [(s, s + n - 1) for s, n in zip(start, array.shape[::-1], strict=True)]
    image.SetExtent([limit for pair in extent for limit in pair])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    return image
