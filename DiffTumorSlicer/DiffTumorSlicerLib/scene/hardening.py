"""The remedy for transforms that bend space: a copy that lies in the patient without any transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray

from DiffTumorSlicerLib.scene.geometry import SceneError, general_transform, to_array, to_vtk
from DiffTumorSlicerLib.scene.volume_nodes import (
    add_resampled,
    place_beside,
    unique_name,
    volume_array,
)
from DiffTumorSlicerLib.translation import tr as _

# A gantry's tilt or an uneven table makes a volume a little larger; what makes it this much larger is
# no acquisition geometry.
MAX_GROWTH = 4.0
SAMPLES = 17  # per axis, where the bent volume's extent is looked at


def harden_clone(scene: Any, node: Any) -> Any:
    """Copy a volume or segmentation so that it lies where its transforms put it, without them.

    A volume is resampled (linear, labels nearest) at its own spacing and directions onto a grid that
    holds all of it.

    Args:
        node: volume or segmentation node; never changed.

    Returns:
        the copy, "<name> hardened", beside the original.

    Raises:
        SceneError: nothing to copy, or a transform that tears the volume apart.
    """
    name = unique_name(scene, node.GetName() + " hardened{}")
    if node.IsA("vtkMRMLSegmentationNode"):
        return _hardened_segmentation(scene, node, name)
    volume_array(node)  # refuses what is no single volume
    start, size = _bent_extent(node)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(node.GetImageData())
    transform = _index_to_index(node)
    reslice.SetResliceTransform(transform)
    reslice.SetOutputExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    reslice.SetOutputOrigin(*(float(v) for v in start))
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetBackgroundLevel(node.GetImageBackgroundScalarComponentAsDouble(0))
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        reslice.SetInterpolationModeToNearestNeighbor()
    else:
        reslice.SetInterpolationModeToLinear()
    reslice.Update()
    image = vtk.vtkImageData()
    image.DeepCopy(reslice.GetOutput())
    image.SetOrigin(0, 0, 0)
    affine = _ijk_to_ras(node)
    affine[:3, 3] += affine[:3, :3] @ start
    return add_resampled(scene, node, name, image, affine)


def _hardened_segmentation(scene: Any, node: Any, name: str) -> Any:
    copy = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    copy.CopyContent(node)
    copy.SetName(name)
    copy.CreateDefaultDisplayNodes()
    copy.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    copy.HardenTransform()
    place_beside(scene, copy, node)
    return copy


def _ijk_to_ras(node: Any) -> NDArray[np.float64]:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return to_array(matrix)


def _index_to_index(node: Any) -> Any:
    """Transform from indices of the straight copy to indices of the bent original."""
    affine = _ijk_to_ras(node)
    transform = vtk.vtkGeneralTransform()
    transform.PostMultiply()
    transform.Concatenate(to_vtk(affine))
    transform.Concatenate(general_transform(None, node.GetParentTransformNode()))
    transform.Concatenate(to_vtk(np.linalg.inv(affine)))
    return transform


def _bent_extent(node: Any) -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """First index and size, on the node's own lattice, of a box around the bent volume."""
    affine = _ijk_to_ras(node)
    bend = general_transform(node.GetParentTransformNode(), None)
    extent = np.array(node.GetImageData().GetExtent()).reshape(3, 2)
    lattice = [np.linspace(low - 0.5, high + 0.5, SAMPLES) for low, high in extent]
    points = np.stack(np.meshgrid(*lattice, indexing="ij"), axis=-1).reshape(-1, 3)
    ras = points @ affine[:3, :3].T + affine[:3, 3]
    bent = np.array([bend.TransformPoint(*point) for point in ras])
    back = np.linalg.inv(affine)
    index = bent @ back[:3, :3].T + back[:3, 3]
    # Half an index less on both sides: edges of voxels to their centers.
    first = np.floor(index.min(axis=0) + 0.5 + 1e-6).astype(np.int64)
    last = np.ceil(index.max(axis=0) - 0.5 - 1e-6).astype(np.int64)
    size = last - first + 1
    growth = np.prod(size.astype(float)) / np.prod(np.diff(extent).astype(float) + 1)
    if not np.isfinite(index).all() or growth > MAX_GROWTH:
        raise SceneError(
            _(
                'A hardened copy of "{name}" would be {growth:.0f} times as large as the original: '
                "its transform is no acquisition geometry. Check the transform, or resample the volume with "
                "the module Resample Scalar/Vector/DWI Volume."
            ).format(name=node.GetName(), growth=growth)
        )
    i, j, k = (int(n) for n in size)
    return first, (i, j, k)
