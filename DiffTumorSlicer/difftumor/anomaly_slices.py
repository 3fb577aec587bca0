"""Slices of an image as the anomaly models see them, and the exact way back to the image's own grid.

A slice is a voxel slice of the input: nothing is interpolated across slices, so an oblique or anisotropic
image keeps its planes. In the plane it is laid on the model's pixels, always with the same orientation
(the patient's left on the right, anterior or superior at the top), whatever way the voxel axes run:

    plane      slice axis is nearest to   rows run to   columns run to
    axial      superior                   posterior     left
    coronal    anterior                   inferior      left
    sagittal   right                      inferior      posterior

The training programs prepare their slice sets with these functions too, so a model meets what it learned.
Tissue outside the organ is removed (Babaei et al.: "tissue refinement"). No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import Box, Grid, covering_box, resample
from difftumor.parameters import Plane

# Patient axis (R, A, S = 0, 1, 2) of the slice normal, of the rows and of the columns.
PLANES: dict[Plane, tuple[int, int, int]] = {
    "axial": (2, 1, 0),
    "coronal": (1, 2, 0),
    "sagittal": (0, 2, 1),
}
AXIS_NAMES = "IJK"
# A slice with less of the organ than this shows a classifier nothing; training leaves it out too.
MIN_ORGAN_PIXELS = 16
# Gaussian whose half width is that of a pixel: sigma = width / 2.355.
FWHM = 2.3548


class AnomalyError(ValueError):
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
        centred: where the crop's centre lies: on the organ of each "slice", on that of the "volume", or on the
            "field" of the image (published MR models). None: "slice" for CT, "volume" for MR.
        transposed: rows and columns swapped, as arrays read with nibabel lie (published MR models).
        percentiles: MR values outside are clipped before the min-max.
        scaled_by: MR minimum and maximum of each sequence are those of the "volume" or of each "slice".
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
    scaled_by: Literal["volume", "slice"] = "volume"


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Prepared slices, and where they came from.

    Attributes:
        images: float32 (n, C, H, W) in the model's intensity range; its lower end outside the organ.
        organ: bool (n, H, W).
        indices: voxel index of each slice along `axis` of the input.
        grids: where the pixels of each slice lie; shape (H, W, 1), or (W, H, 1) if transposed.
        grid: geometry of the input.
        axis: voxel axis of the input that is nearest to the plane's normal.
        plane: as asked.
        inside: bool (I, J, K), the organ on the input grid; None: everything.
        units: input units per unit of the model's range, (n, C): HU, or the sequence's own.
        transposed: as the model's format says.
        notes: sentences for the user.
    """

    images: NDArray[np.float32]
    organ: NDArray[np.bool_]
    indices: tuple[int, ...]
    grids: tuple[Grid, ...]
    grid: Grid
    axis: int
    plane: Plane
    inside: NDArray[np.bool_] | None
    units: NDArray[np.float64]
    transposed: bool = False
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def box(self) -> Box:
        """Voxels of the input that the slices can say something about."""
        boxes = [
            covering_box(crop, self.grid.cropped(_slice_box(self.grid, self.axis, index)))
            for crop, index in zip(self.grids, self.indices, strict=True)
        ]
        spans = [
            slice(min(b[d].start for b in boxes), max(b[d].stop for b in boxes)) for d in range(3)
        ]
        spans[self.axis] = slice(min(self.indices), max(self.indices) + 1)
        return spans[0], spans[1], spans[2]

    @property
    def positions_mm(self) -> list[float]:
        """RAS coordinate along the plane's normal of the middle of each slice, mm."""
        middle = (np.asarray(self.grid.shape) - 1) / 2
        points = np.tile(middle, (len(self), 1))
        points[:, self.axis] = self.indices
        return self.grid.to_ras(points)[:, PLANES[self.plane][0]].tolist()  # type: ignore[no-any-return]

    def to_box(self, planes: NDArray[Any], box: Box | None = None) -> NDArray[np.float32]:
        """Carry values of the model's pixels to the voxels of a box of the input.

        Linear in the plane, between pixels of the organ only, so that the organ's rim is not darkened.

        Args:
            planes: (n, H, W).
            box: part of the input; default: `self.box`.
        Returns: float32 of the box's shape, 0 outside the organ, the crops and the slices.
        Raises: ValueError: if `planes` does not belong to these slices.
        """
        if planes.shape != self.organ.shape:
            raise ValueError(
                f"planes: got shape {planes.shape}, the slices have {self.organ.shape}"
            )
        box = box or self.box
        target = self.grid.cropped(box)
        result = np.zeros(target.shape, np.float32)
        for plane, organ, crop, index in zip(
            planes, self.organ, self.grids, self.indices, strict=True
        ):
            at = index - box[self.axis].start
            if not 0 <= at < target.shape[self.axis]:
                continue
            part = _slice_box(target, self.axis, at)
            result[part] = self._back(plane, organ, crop, target.cropped(part))
        if self.inside is not None:
            result[~self.inside[box]] = 0
        return result

    def to_volume(self, planes: NDArray[Any]) -> NDArray[np.float32]:
        """As `to_box`, on the whole input grid; float32 (I, J, K)."""
        result = np.zeros(self.grid.shape, np.float32)
        result[self.box] = self.to_box(planes)
        return result

    def _back(
        self, plane: NDArray[Any], organ: NDArray[np.bool_], crop: Grid, target: Grid
    ) -> NDArray[np.float32]:
        """One slice from the model's pixels to the voxels of a slice of the input."""
        if self.transposed:
            plane, organ = plane.T, organ.T
        weight = organ.astype(np.float32)[..., None]
        known = resample(weight, crop, target, order=1)
        values = resample(
            np.where(organ, plane, 0).astype(np.float32)[..., None], crop, target, order=1
        )
        # Voxels that no pixel of the organ reaches stay unknown.
        reached = known > 1e-3
        return np.where(reached, values / np.where(reached, known, 1), 0).astype(np.float32)


def prepare_ct(
    scan: NDArray[np.generic],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    facts: SliceFormat,
    plane: Plane = "axial",
    slices: tuple[int, int] | None = None,
) -> SliceStack:
    """Cut the slices of an organ out of a CT as the model sees them.

    Args:
        scan: (I, J, K) HU, any voxel type.
        grid: its geometry.
        organ: bool (I, J, K); tissue outside is removed and the crop is centred on it. None: the whole field.
        facts: what the model wants.
        plane: in which slices are cut.
        slices: first and one past the last voxel index along the plane's normal; None: all of the organ.
    Returns: the slices that hold enough of the organ to be judged.
    Raises: AnomalyError: empty organ, slices outside, values that are not finite, nothing but one value.
    """
    if facts.modality != "CT" or facts.window_hu is None or len(facts.channel_order) != 1:
        raise AnomalyError(
            "the model is not made for CT: it wants "
            f"{facts.modality} images ({', '.join(facts.channel_order)}) and "
            + ("names no HU window. " if facts.window_hu is None else "a HU window. ")
            + "Choose a model whose list entry says CT."
        )
    low, high = facts.window_hu
    scale = (facts.intensity_range[1] - facts.intensity_range[0]) / (high - low)
    layout = lay_slices(grid, organ, facts, plane, slices)
    check_finite("The CT", scan, layout)

    def to_model(values: NDArray[Any]) -> NDArray[np.float32]:
        windowed = np.clip(values.astype(np.float32), low, high)
        return (windowed - low) * np.float32(scale) + np.float32(facts.intensity_range[0])

    images, insides = [], []
    for index, crop in zip(layout.indices, layout.crops, strict=True):
        image, inside = _cut(scan, organ, grid, layout.axis, index, crop, to_model)
        images.append(np.where(inside, image, facts.intensity_range[0])[None])
        insides.append(inside)
    units = np.full((len(images), 1), 1 / scale)
    return stack_of(images, insides, layout, grid, organ, facts, units)


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


def lay_slices(
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    facts: SliceFormat,
    plane: Plane,
    slices: tuple[int, int] | None,
) -> Layout:
    """Decide which slices are computed and where their crops lie.

    Args: as of `prepare_ct`.
    Raises: AnomalyError: the organ is empty, or the slices lie outside the image.
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
        crops.append(_crop(grid, plane, center, facts))
    return Layout(plane, axis, indices, crops, [])


def check_finite(name: str, image: NDArray[np.generic], layout: Layout) -> None:
    """Refuse values that are not finite in the slices that are needed.

    Raises: AnomalyError: how many, and where the first one is.
    """
    if image.dtype.kind != "f":
        return
    for index in layout.indices:
        part = image.take(index, axis=layout.axis)
        if not np.isfinite(part).all():
            bad = int((~np.isfinite(part)).sum())
            raise AnomalyError(
                f"{name} has values that are not finite (NaN or infinite): {bad:,} voxels of slice {index} along "
                f"voxel axis {AXIS_NAMES[layout.axis]}. Replace them (by -1024 in a CT, by 0 in an MR image) or "
                "export the image again."
            )


def stack_of(
    images: Sequence[NDArray[np.float32]],
    insides: Sequence[NDArray[np.bool_]],
    layout: Layout,
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    facts: SliceFormat,
    units: NDArray[np.float64],
) -> SliceStack:
    """Keep the slices that can be judged, and say what was left out.

    Args:
        images: (C, H, W) of each slice, rows and columns as in the table above.
        insides: bool (H, W).
        units: (n, C) input units per unit of the model's range.
    Raises: AnomalyError: no slice is left.
    """
    notes = list(layout.notes)
    sizes = [int(inside.sum()) for inside in insides]
    flat = [
        size > 0 and all(np.ptp(channel[inside]) < 1e-6 for channel in image)
        for image, inside, size in zip(images, insides, sizes, strict=True)
    ]
    kept = [k for k, size in enumerate(sizes) if size >= MIN_ORGAN_PIXELS and not flat[k]]
    if not kept:
        raise AnomalyError(
            "the image has one and the same value everywhere in the organ"
            + (" once it is clipped to the model's HU window" if facts.modality == "CT" else "")
            + ". Check that image and mask belong together and that the values are "
            + ("Hounsfield units." if facts.modality == "CT" else "those of the sequence.")
            if any(flat)
            else f"the organ is too small for the model: no slice holds {MIN_ORGAN_PIXELS} of its pixels of "
            f"{facts.spacing_mm[0]:g} x {facts.spacing_mm[1]:g} mm. Choose a larger segment or another plane."
        )
    if small := sum(size < MIN_ORGAN_PIXELS for size in sizes):
        notes.append(f"{small} slices hold too little of the organ to be judged and were left out.")
    if constant := sum(flat):
        notes.append(f"{constant} slices show one value only and were left out.")
    if organ is not None and (cut := _share_outside(organ, layout, grid)) > 0.005:
        notes.append(
            f"{max(cut, 0.01):.0%} of the organ lie outside the {facts.image_size} x {facts.image_size} pixels of "
            f"{facts.spacing_mm[0]:g} mm that the model sees; nothing is said about them."
        )
    chosen = np.stack([images[k] for k in kept]).astype(np.float32)
    inside = np.stack([insides[k] for k in kept])
    if facts.transposed:
        chosen, inside = chosen.swapaxes(-1, -2), inside.swapaxes(-1, -2)
    return SliceStack(
        np.ascontiguousarray(chosen),
        np.ascontiguousarray(inside),
        tuple(layout.indices[k] for k in kept),
        tuple(layout.crops[k] for k in kept),
        grid,
        layout.axis,
        layout.plane,
        organ,
        units[kept],
        facts.transposed,
        notes,
    )


def _cut(
    image: NDArray[np.generic],
    organ: NDArray[np.bool_] | None,
    grid: Grid,
    axis: int,
    index: int,
    crop: Grid,
    to_model: Any,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One slice on the model's pixels, mixed from voxels of the organ only; (H, W) and its organ."""
    box = _slice_box(grid, axis, index)
    source = grid.cropped(box)
    sigma = _low_pass(source, crop, axis)
    near = covering_box(crop, source, margin=int(np.ceil(4 * sigma.max())) + 2)
    part = source.cropped(near)
    values = to_model(image[box][near])
    weight = (
        np.ones(part.shape, np.float32) if organ is None else organ[box][near].astype(np.float32)
    )
    values = values * weight
    if sigma.any():
        values, weight = (
            ndimage.gaussian_filter(a, sigma, mode="nearest") for a in (values, weight)
        )
    values, weight = (resample(a, part, crop, order=1)[..., 0] for a in (values, weight))
    inside = weight >= 0.5
    return np.where(inside, values / np.where(inside, weight, 1), 0).astype(np.float32), inside


def _low_pass(source: Grid, crop: Grid, axis: int) -> NDArray[np.float64]:
    """Gaussian in voxels of `source` that makes them as wide as the crop's pixels; 0 where they are wider.

    Differs from the published pipelines, which do not filter: a CT of 0.7 mm would keep all its noise at 2 mm.
    """
    pixels = np.linalg.inv(source.affine[:3, :3]) @ crop.affine[:3, :2]
    ratio = np.abs(pixels).max(axis=1)
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0)) / FWHM
    sigma[axis] = 0
    sigma[ratio < 1.01] = 0
    return sigma


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


def _slice_box(grid: Grid, axis: int, index: int) -> Box:
    """The voxels of one slice."""
    box = [slice(0, n) for n in grid.shape]
    box[axis] = slice(index, index + 1)
    return box[0], box[1], box[2]


def _boxes_of_slices(
    organ: NDArray[np.bool_], axis: int
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Smallest and largest voxel index (3,) of the organ in each slice that holds some of it."""
    boxes = {}
    for index in np.flatnonzero(organ.any(axis=tuple(d for d in range(3) if d != axis))):
        part = np.argwhere(organ.take(index, axis=axis)).astype(float)
        low, high = (np.insert(edge, axis, index) for edge in (part.min(axis=0), part.max(axis=0)))
        boxes[int(index)] = (low, high)
    return boxes


def _share_outside(organ: NDArray[np.bool_], layout: Layout, grid: Grid) -> float:
    """Share of the organ's voxels in the slices that lie outside the crops."""
    inside = whole = 0
    for index, crop in zip(layout.indices, layout.crops, strict=True):
        voxels = np.argwhere(organ.take(index, axis=layout.axis))
        voxels = np.insert(voxels, layout.axis, index, axis=1)
        whole += len(voxels)
        inside += int(crop.contains(grid.to_ras(voxels)).sum())
    return 1 - inside / max(whole, 1)
