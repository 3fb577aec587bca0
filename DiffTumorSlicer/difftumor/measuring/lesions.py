"""Lesions in masks: connected components, their size, and the labels of early tumors for training.

Sizes follow DiffTumor (Chen et al., CVPR 2024): a lesion counts as early if the sphere of its
volume has a diameter of at most 20 mm. Two voxels belong together if they share a face
(6-connectivity), unless said otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import Grid

EARLY_DIAMETER_MM = 20.0
SMALLEST_LABELLED_VOXELS = 8
_STEPS = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class Lesion:
    """Measurements of one labeled lesion.

    Attributes:
        label: its number in the label array.
        voxels: their count.
        volume_mm3: voxels times the voxel volume.
        equivalent_diameter_mm: of the sphere of the same volume.
        centroid_ras: mean of the voxel centers, RAS mm.
        early: the equivalent diameter is at most EARLY_DIAMETER_MM.
    """

    label: int
    voxels: int
    volume_mm3: float
    equivalent_diameter_mm: float
    centroid_ras: tuple[float, float, float]
    early: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return dataclasses.asdict(self)


def label_components(mask: NDArray[Any], connectivity: int = 6) -> tuple[NDArray[np.int32], int]:
    """Number the connected pieces of a mask.

    Args:
        mask: (I, J, K); every value other than 0 belongs to the mask.
        connectivity: 6 (shared faces), 18 (and edges) or 26 (and corners).

    Returns:
        int32 (I, J, K) with 0 and 1 to n in array order, and n.

    Raises:
        ValueError: if the mask is not 3-D or the connectivity is another number.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"mask has shape {mask.shape} instead of (I, J, K)")
    if connectivity not in _STEPS:
        raise ValueError(f"connectivity is {connectivity}; it must be 6, 18 or 26")
    structure = ndimage.generate_binary_structure(3, _STEPS[connectivity])
    labels, count = ndimage.label(mask != 0, structure, output=np.int32)
    return labels, int(count)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest 6-connected piece of a mask (I, J, K); of equals the first in the array."""
    labels, count = label_components(mask)
    if count < 2:
        return mask.copy()
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def measure_lesions(labels: NDArray[Any], grid: Grid) -> tuple[Lesion, ...]:
    """Measure every numbered lesion of a label array.

    Args:
        labels: integers (I, J, K), 0 is background; a number need not be one connected piece. For a
            mask without numbers use `label_components` first.
        grid: where the voxels lie.

    Returns:
        one entry per number that occurs, in ascending order.

    Raises:
        ValueError: if labels and grid differ in shape, or labels are not integers from 0 up.
    """
    labels = np.asarray(labels)
    if labels.shape != grid.shape:
        raise ValueError(f"labels have shape {labels.shape}, their grid {grid.shape}")
    if labels.dtype != np.bool_ and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are of type {labels.dtype}; lesion numbers are integers")
    places = np.argwhere(labels)
    numbers = labels[tuple(places.T)].astype(np.int64)
    if numbers.size and numbers.min() < 0:
        raise ValueError(f"the label {numbers.min()} is negative; lesion numbers start at 1")
    lesions = []
    for number in np.unique(numbers).tolist():
        own = places[numbers == number]
        volume = len(own) * grid.voxel_volume_mm3
        diameter = equivalent_diameter_mm(volume)
        r, a, s = grid.to_ras(own.mean(axis=0)).tolist()
        lesions.append(
            Lesion(number, len(own), volume, diameter, (r, a, s), diameter <= EARLY_DIAMETER_MM)
        )
    return tuple(lesions)


def equivalent_diameter_mm(volume_mm3: float) -> float:
    """Diameter (6 V / pi)^(1/3) in mm of the sphere with the volume V in mm3."""
    return math.cbrt(6 * volume_mm3 / math.pi)


def early_tumor_labels(
    labels: NDArray[Any],
    *,
    voxel_volume_mm3: float = 1.0,
    organ_label: int = 1,
    tumor_label: int = 2,
) -> NDArray[Any]:
    """Keep the early tumors of a training label and call all other tumor voxels organ.

    Stage 2 of DiffTumor learns early tumors from such labels. A 6-connected tumor stays if it has
    SMALLEST_LABELLED_VOXELS or more and the sphere of its volume a radius of at most 10 mm.

    Args:
        labels: integers (I, J, K), usually 0 background, 1 organ, 2 tumor.
        voxel_volume_mm3: 1 on the 1 mm grid of the published training.
        organ_label: what becomes of tumors that do not stay.
        tumor_label: what tumors are called.

    Returns:
        a new array of the same type and shape.

    Raises:
        ValueError: if labels are not 3-D or the voxel volume is not positive.
    """
    if not voxel_volume_mm3 > 0:
        raise ValueError(f"voxel_volume_mm3 is {voxel_volume_mm3}; it must be positive")
    pieces, count = label_components(np.asarray(labels) == tumor_label)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    diameters = np.cbrt(6 * sizes * voxel_volume_mm3 / np.pi)
    dropped = (sizes < SMALLEST_LABELLED_VOXELS) | (diameters > EARLY_DIAMETER_MM)
    dropped[0] = False  # the background of the pieces
    result = np.array(labels)
    result[dropped[pieces]] = organ_label
    return result
