"""Where the slices that an anomaly model sees lie in an image: axis, crop, orientation.

A slice is a voxel slice of the input: nothing is interpolated across slices, so an oblique or anisotropic
image keeps its planes. In the plane it is laid on the model's pixels, always with the same orientation
(the patient's left on the right, anterior or superior at the top), whatever way the voxel axes run:

    plane      slice axis is nearest to   rows run to   columns run to
    axial      superior                   posterior     left
    coronal    anterior                   inferior      left
    sagittal   right                      inferior      posterior

No torch here, and no voxel values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Box, Grid, slice_of
from difftumor.images.mr import CaseError
from difftumor.parameters import Plane

# Patient axis (R, A, S = 0, 1, 2) of the slice normal, of the rows and of the columns.
PLANES: dict[Plane, tuple[int, int, int]] = {
    "axial": (2, 1, 0),
    "coronal": (1, 2, 0),
    "sagittal": (0, 2, 1),
}
AXIS_NAMES = "IJK"


class AnomalyError(CaseError):
    """No anomaly map can be made of this input: what is wrong, why, and what to do next."""


@dataclass(frozen=True)
class SliceFormat:
    """What a model wants to see; plain numbers of its card.

    Args:
        image_size: pixels per side, H = W.
        spacing_mm: size of a pixel, rows and columns.
        window_hu: HU that become the ends of the intensity range; None for MR.
        intensity_range: (0, 1) or (-1, 1).
        channel_order: names of the images, one channel each.
        modality: "CT" or "MR".
        centred: where the crop's center lies: on the organ of each "slice", on that of the "volume", or on the
            "field" of the image (published MR models). None: "slice" for CT, "volume" for MR.
        transposed: rows and columns swapped, as arrays read with nibabel lie (published MR models).
        percentiles: MR values outside are clipped before the min-max.
        scaled_by: MR minimum and maximum of each sequence are those of the "volume" or of each "slice"; "together":
            of all sequences of a slice (Alshenoudy et al.), background included.
    """

    image_size: int
    spacing_mm: tuple[float, float]
    window_hu: tuple[float, float] | None = None
    intensity_range: tuple[float, float] = (0.0, 1.0)
    channel_order: tuple[str, ...] = ("ct",)
    modality: Literal["CT", "MR"] = "CT"
    centred: Literal["slice", "volume", "field"] | None = None
    transposed: bool = False
    percentiles: tuple[float, float] = (1.0, 99.0)
    scaled_by: Literal["volume", "slice", "together"] = "volume"

    @classmethod
    def of_card(cls, card: Mapping[str, Any], image_size: int) -> SliceFormat:
        """How the slices of a model are prepared, as its card says it."""
        first, second, *_ = card["spacing_mm"]
        window, (low, high) = card.get("window_hu"), card["intensity_range"]
        options: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in card.get("preparation", {}).items()
        }
        return cls(
            image_size=image_size,
            spacing_mm=(first, second),
            window_hu=None if window is None else (window[0], window[1]),
            intensity_range=(low, high),
            channel_order=tuple(card["channel_order"]),
            modality=card["modality"],
            **options,
        )


@dataclass(frozen=True)
class Layout:
    """Where the slices lie: voxel axis, indices along it, the crops' grids, and notes for the user."""

    plane: Plane
    axis: int
    indices: list[int]
    crops: list[Grid]
    notes: list[str]


def voxel_axes(grid: Grid) -> tuple[int, int, int]:
    """Voxel axes that run along R, A and S, each used once, whatever the obliquity."""
    cosines = np.abs(grid.affine[:3, :3] / grid.spacing)
    best = max(permutations(range(3)), key=lambda axes: sum(cosines[d, axes[d]] for d in range(3)))
    return best[0], best[1], best[2]


def slice_axis(grid: Grid, plane: Plane) -> int:
    """Voxel axis of the slices of a plane: 0, 1, 2 for I, J, K."""
    return voxel_axes(grid)[PLANES[plane][0]]


def shown_plane(
    array: NDArray[Any], grid: Grid, plane: Plane, index: int
) -> tuple[NDArray[Any], float]:
    """A voxel slice turned as in the table above: rows to posterior or inferior, columns to left or posterior.

    Args:
        array: (I, J, K) on `grid`.
        index: voxel index along the plane's normal.

    Returns:
        (rows, columns), and the height of a pixel over its width.
    """
    axes = voxel_axes(grid)
    normal, rows, columns = (axes[p] for p in PLANES[plane])
    part = array.take(index, axis=normal)
    if rows > columns:
        part = part.T
    # R, A and S grow against the rows and columns.
    if grid.affine[PLANES[plane][1], rows] > 0:
        part = part[::-1]
    if grid.affine[PLANES[plane][2], columns] > 0:
        part = part[:, ::-1]
    return part, float(grid.spacing[rows] / grid.spacing[columns])


def lay_slices(
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    facts: SliceFormat,
    plane: Plane,
    slices: tuple[int, int] | None,
    fineness: int = 1,
) -> Layout:
    """Decide which slices are computed and where their crops lie.

    Arguments as of `prepare_ct`.

    Raises:
        AnomalyError: the organ is empty, or the slices lie outside the image.
    """
    axis = slice_axis(grid, plane)
    first, end = slices or (0, grid.shape[axis])
    if not 0 <= first < end <= grid.shape[axis]:
        raise AnomalyError(
            f"slices {first}:{end} lie outside the image, which has {grid.shape[axis]} slices in the {plane} "
            f"plane (0:{grid.shape[axis]}, along its voxel axis {AXIS_NAMES[axis]}). Choose slices in that range."
        )
    if organ is None:
        indices, boxes = list(range(first, end)), {}
    else:
        if organ.shape != grid.shape:
            raise ValueError(f"the organ mask has shape {organ.shape}, its image {grid.shape}")
        boxes = _boxes_of_slices(organ, axis)
        if not boxes:
            raise AnomalyError(
                "the organ mask is empty: no voxel is set, so there is nothing to judge. Choose the segment or "
                "label of the organ, or segment it first (for CT for instance with TotalSegmentator)."
            )
        indices = [index for index in range(first, end) if index in boxes]
        if not indices:
            raise AnomalyError(
                f"slices {first}:{end} hold nothing of the organ, which lies in slices {min(boxes)}:"
                f"{max(boxes) + 1} of the {plane} plane. Choose slices of the organ."
            )
    middle = (np.asarray(grid.shape) - 1) / 2
    centred = facts.centred or ("slice" if facts.modality == "CT" else "volume")
    if boxes and centred == "volume":
        low = np.min([box[0] for box in boxes.values()], axis=0)
        high = np.max([box[1] for box in boxes.values()], axis=0)
        middle = (low + high) / 2
    crops = []
    for index in indices:
        center = np.mean(boxes[index], axis=0) if boxes and centred == "slice" else middle.copy()
        center[axis] = index
        crops.append(subdivided(_crop(grid, plane, center, facts), fineness))
    return Layout(plane, axis, indices, crops, [])


def subdivided(crop: Grid, fineness: int) -> Grid:
    """The same field with each pixel divided into `fineness` x `fineness` smaller ones."""
    affine = crop.affine.copy()
    affine[:3, :2] /= fineness
    affine[:3, 3] -= affine[:3, :2].sum(axis=1) * (fineness - 1) / 2
    rows, columns, depth = crop.shape
    return Grid((rows * fineness, columns * fineness, depth), affine)


def share_outside(organ: NDArray[np.bool_], layout: Layout, grid: Grid) -> float:
    """Share of the organ's voxels in the slices that lie outside the crops."""
    inside = whole = 0
    for index, crop in zip(layout.indices, layout.crops, strict=True):
        voxels = np.argwhere(slice_of(organ, layout.axis, index))
        voxels = np.insert(voxels, layout.axis, index, axis=1)
        whole += len(voxels)
        inside += int(crop.contains(grid.to_ras(voxels)).sum())
    return 1 - inside / max(whole, 1)


def slice_box(grid: Grid, axis: int, index: int) -> Box:
    """The voxels of one slice."""
    box = [slice(0, n) for n in grid.shape]
    box[axis] = slice(index, index + 1)
    return box[0], box[1], box[2]


def _crop(grid: Grid, plane: Plane, center: NDArray[np.float64], facts: SliceFormat) -> Grid:
    """The model's pixels around a fractional voxel index of one slice; shape (H, W, 1)."""
    _, rows, columns = PLANES[plane]
    axes = voxel_axes(grid)
    normal = slice_axis(grid, plane)
    # Rows run to posterior or inferior, columns to left or posterior: against R, A and S in all planes.
    along = [
        -np.sign(grid.affine[p, axes[p]]) * grid.affine[:3, axes[p]] / grid.spacing[axes[p]]
        for p in (rows, columns)
    ]
    # Right angles also in a plane that a tilted gantry sheared.
    along[0] = along[0] - (along[0] @ along[1]) * along[1]
    along[0] /= np.linalg.norm(along[0])
    spacing = facts.spacing_mm[::-1] if facts.transposed else facts.spacing_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along[0] * spacing[0], along[1] * spacing[1]
    affine[:3, 2] = grid.affine[:3, normal]
    half = (facts.image_size - 1) / 2
    first = grid.to_ras(center) - affine[:3, :2] @ [half, half]
    steps = np.abs(np.linalg.inv(grid.affine[:3, :3]) @ affine[:3, :2])
    whole = [axes[rows], axes[columns]]
    if np.allclose([steps[whole[0], 0], steps[whole[1], 1]], 1, atol=1e-4):
        # Voxels as large as the pixels: let them coincide, so that nothing is interpolated.
        at = grid.to_ijk(first)
        at[whole] = np.floor(at[whole] + 0.5)
        first = grid.to_ras(at)
    affine[:3, 3] = first
    return Grid((facts.image_size, facts.image_size, 1), affine)


def _boxes_of_slices(
    organ: NDArray[np.bool_], axis: int
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Smallest and largest voxel index (3,) of the organ in each slice that holds some of it."""
    boxes = {}
    for index in np.flatnonzero(organ.any(axis=tuple(d for d in range(3) if d != axis))).tolist():
        part = np.argwhere(slice_of(organ, axis, index)).astype(float)
        low, high = (np.insert(edge, axis, index) for edge in (part.min(axis=0), part.max(axis=0)))
        boxes[index] = (low, high)
    return boxes
