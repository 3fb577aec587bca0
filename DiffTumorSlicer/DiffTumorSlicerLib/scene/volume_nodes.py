"""Volume nodes as arrays on grids, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from difftumor.ellipsoids import Box
from difftumor.grids import Grid, GridError
from DiffTumorSlicerLib.scene.geometry import SceneError, to_array, to_vtk, to_world
from DiffTumorSlicerLib.translation import tr as _


def volume_array(node: Any) -> NDArray[Any]:
    """The voxels of a volume node: a view (I, J, K), in its voxel type. Writing into it changes the node.

    Raises:
        SceneError: no image in the node, or several values per voxel.
    """
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise SceneError(
            _('"{name}" holds no image. Load it again, or choose another volume.').format(
                name=node.GetName()
            )
        )
    if image.GetNumberOfScalarComponents() != 1:
        raise SceneError(
            _(
                '"{name}" holds {count} values per voxel (a color or '
                "vector volume). Choose a volume with one value per voxel; the module Vector to Scalar Volume "
                "makes one."
            ).format(name=node.GetName(), count=image.GetNumberOfScalarComponents())
        )
    return array_of(image)


def array_of(image: Any) -> NDArray[Any]:
    """The scalars of a vtkImageData as a view (I, J, K)."""
    flat = vtk_to_numpy(image.GetPointData().GetScalars())
    return np.asarray(flat.reshape(image.GetDimensions()[::-1]).T)


def volume_grid(node: Any) -> Grid:
    """Where the voxels of a volume lie in the patient: IJK to RAS, then its parent transforms.

    Raises:
        SceneError: a parent transform is not linear, or the geometry is no geometry.
    """
    array = volume_array(node)
    affine = to_world(node) @ own_affine(node)
    try:
        return Grid(array.shape, affine)
    except GridError as error:
        raise SceneError(
            _('The geometry of "{name}" cannot be used: {error}').format(
                name=node.GetName(), error=error
            )
        ) from error


def changed_since(node: Any) -> int:
    """A number that grows when somebody writes into the voxels of a volume or replaces its image."""
    image = node.GetImageData()
    return int(image.GetPointData().GetScalars().GetMTime()) if image is not None else -1


def set_patch(node: Any, box: Box, patch: NDArray[Any]) -> None:
    """Replace a box of voxels and tell everybody who shows the volume.

    Raises:
        SceneError: box or voxel type do not fit the volume.
    """
    array = volume_array(node)
    if array[box].shape != patch.shape or array.dtype != patch.dtype:
        raise SceneError(
            _(
                'The result does not fit "{name}", which has been cropped, resampled or converted '
                "since. Press Synthesize again."
            ).format(name=node.GetName())
        )
    array[box] = patch
    tell_changed(node)


def tell_changed(node: Any) -> None:
    """Tell everybody who shows a volume that its voxels were written."""
    node.GetImageData().GetPointData().GetScalars().Modified()
    node.GetImageData().Modified()
    node.Modified()


def add_volume_like(scene: Any, node: Any, name: str, array: NDArray[Any]) -> Any:
    """Add a volume with other voxels and the geometry, parent transform and look of `node`.

    Args:
        array: (I, J, K) of the shape of `node`; copied, whatever its order.

    Returns:
        the new node, beside `node` in the subject hierarchy.
    """
    source = node.GetImageData()
    image = vtk.vtkImageData()
    image.SetExtent(source.GetExtent())
    image.AllocateScalars(get_vtk_array_type(array.dtype), 1)
    array_of(image)[:] = array
    return _add_volume(scene, node, name, image, _vtk_affine(node), node.GetTransformNodeID())


def add_box_of(scene: Any, node: Any, name: str, box: Box, array: NDArray[Any]) -> Any:
    """Add a volume that covers a box of `node`, where the rest of it would hold nothing.

    Args:
        box: slices into `node`.
        array: (I, J, K) of the box; copied.

    Returns:
        the new node, beside `node` in the subject hierarchy.
    """
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape)
    image.AllocateScalars(get_vtk_array_type(array.dtype), 1)
    array_of(image)[:] = array
    affine = own_affine(node)
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return _add_volume(scene, node, name, image, to_vtk(affine), node.GetTransformNodeID())


def add_resampled(scene: Any, node: Any, name: str, image: Any, affine: NDArray[np.float64]) -> Any:
    """Add a volume with another grid in the patient's space, looking like `node`."""
    return _add_volume(scene, node, name, image, to_vtk(affine), None)


def _add_volume(
    scene: Any, node: Any, name: str, image: Any, ijk_to_ras: Any, transform_id: str | None
) -> Any:
    volume = scene.AddNewNodeByClass(node.GetClassName(), name)
    volume.SetIJKToRASMatrix(ijk_to_ras)
    volume.SetAndObserveImageData(image)
    volume.SetAndObserveTransformNodeID(transform_id)
    _look_like(scene, volume, node.GetDisplayNode())
    place_beside(scene, volume, node)
    return volume


def _look_like(scene: Any, volume: Any, look: Any | None) -> None:
    """Give a volume the colors and the window of another one's display node."""
    if look is None:
        volume.CreateDefaultDisplayNodes()
        return
    display = scene.AddNewNodeByClass(look.GetClassName())
    display.SetAndObserveColorNodeID(look.GetColorNodeID())
    display.SetInterpolate(look.GetInterpolate())
    if look.IsA("vtkMRMLScalarVolumeDisplayNode"):
        # Before and after are compared in one window; and Slicer's own choice of a window would count all
        # voxels first, half a second of a large CT.
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(look.GetWindow(), look.GetLevel())
        display.SetAutoThreshold(False)
        display.SetThreshold(look.GetLowerThreshold(), look.GetUpperThreshold())
        display.SetApplyThreshold(look.GetApplyThreshold())
        display.SetInvertDisplayScalarRange(look.GetInvertDisplayScalarRange())
    volume.SetAndObserveDisplayNodeID(display.GetID())


def place_beside(scene: Any, node: Any, neighbor: Any) -> None:
    """Put a node under the same parent in the subject hierarchy as another one, with its modality."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is None:
        return
    beside = hierarchy.GetItemByDataNode(neighbor)
    parent = hierarchy.GetItemParent(beside) if beside else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        item = hierarchy.CreateItem(parent, node)
    modality = hierarchy.GetItemAttribute(beside, "DICOM.Modality") if beside else ""
    if modality and node.IsA("vtkMRMLVolumeNode"):
        hierarchy.SetItemAttribute(item, "DICOM.Modality", modality)


def remove_node(scene: Any, node: Any) -> None:
    """Remove a node together with its display and storage nodes and its place in the hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if item:
        hierarchy.RemoveItem(item, False, False)
    belongings = []
    if node.IsA("vtkMRMLDisplayableNode"):
        count = node.GetNumberOfDisplayNodes()
        belongings += [node.GetNthDisplayNode(i) for i in range(count)]
    if node.IsA("vtkMRMLStorableNode"):
        belongings.append(node.GetStorageNode())
    scene.RemoveNode(node)
    for other in belongings:
        if other is not None and scene.IsNodePresent(other):
            scene.RemoveNode(other)


def unique_name(scene: Any, pattern: str) -> str:
    """The first of "x (synthetic)", "x (synthetic 2)" ... that no node has; `pattern` holds {} for " 2"."""
    number = 1
    while scene.GetFirstNodeByName(name := pattern.format(f" {number}" if number > 1 else "")):
        number += 1
    return name


def modality_of(scene: Any, node: Any) -> str:
    """What DICOM says of a volume ("CT"), or ""."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene) if scene else None
    if hierarchy is None:
        return ""
    item = hierarchy.GetItemByDataNode(node)
    return str(hierarchy.GetItemAttribute(item, "DICOM.Modality") or "") if item else ""


def _vtk_affine(node: Any) -> Any:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def own_affine(node: Any) -> NDArray[np.float64]:
    """Indices of `volume_array` to the node's own RAS, before any transform."""
    affine = to_array(_vtk_affine(node))
    extent = node.GetImageData().GetExtent()
    affine[:3, 3] += affine[:3, :3] @ extent[::2]
    return affine
