"""Matrices and transforms of MRML nodes: how a node's millimeters become those of the patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from DiffTumorSlicerLib.translation import tr as _


class SceneError(ValueError):
    """The scene does not hold what is needed; the message is a sentence with the next step."""


def to_array(matrix: Any) -> NDArray[np.float64]:
    """vtkMatrix4x4 to (4, 4)."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def to_vtk(array: NDArray[Any]) -> Any:
    """(4, 4) to vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def has_nonlinear_parent(node: Any) -> bool:
    """Whether a transform that bends space lies somewhere above a node."""
    parent = node.GetParentTransformNode()
    return parent is not None and not parent.IsTransformToWorldLinear()


def to_world(node: Any) -> NDArray[np.float64]:
    """Affine (4, 4) from a node's own coordinates to RAS mm of the patient: all its parent transforms.

    Raises:
        SceneError: a parent transform is not linear; says the remedy for this kind of node.
    """
    if has_nonlinear_parent(node):
        raise SceneError(_refusal(node))
    matrix = vtk.vtkMatrix4x4()
    parent = node.GetParentTransformNode()
    if parent is not None:
        parent.GetMatrixTransformToWorld(matrix)
    return to_array(matrix)


def general_transform(source: Any, target: Any) -> Any:
    """The transform (vtkGeneralTransform) between two transform nodes; None is the patient's space."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def _refusal(node: Any) -> str:
    """Why a node under a non-linear transform is not used, and what helps."""
    name = node.GetName()
    above = node.GetParentTransformNode().GetName()
    if node.IsA("vtkMRMLMarkupsNode"):
        return _(
            '"{name}" lies under the transform "{above}", which bends space: an ellipsoid would not stay '
            "one. Take it out of the transform in the Transforms module, or place a new one."
        ).format(name=name, above=above)
    what = _("segmentation") if node.IsA("vtkMRMLSegmentationNode") else _("volume")
    return _(
        'The {what} "{name}" lies under the transform "{above}", which bends space (Slicer adds such a '
        "one for a tilted gantry). Make a hardened copy in the Volumes panel and use the copy; the original "
        "stays as it is."
    ).format(what=what, name=name, above=above)
