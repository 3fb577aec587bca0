"""Slices of an image as the anomaly models see them; `SliceStack` knows the way back.

The training programs prepare their slice sets with these functions too, so a model meets what it learned.
Tissue outside the organ is removed (Babaei et al.: "tissue refinement"). No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.anomaly.layout import (
    AXIS_NAMES,
    AnomalyError,
    Layout,
    SliceFormat,
    lay_slices,
    share_outside,
    slice_axis,
    slice_box,
)
from difftumor.anomaly.stack import SliceStack
from difftumor.grids import Grid, slice_of
from difftumor.images.mr import (
    REGISTRATION_ADVICE,
    channels_of,
    find_brain,
    value_range,
)
from difftumor.images.resampling import covering_box, resample
from difftumor.images.sequences import sequence_of
from difftumor.parameters import Plane

__all__ = [
    "AnomalyError",
    "SliceFormat",
    "SliceStack",
    "prepare",
    "prepare_ct",
    "prepare_mr",
    "slice_axis",
]

# A slice with less of the organ than this shows a classifier nothing; training leaves it out too.
MIN_ORGAN_PIXELS = 16
# Gaussian whose half width is that of a pixel: sigma = width / 2.355.
FWHM = 2.3548


def prepare_ct(
    scan: NDArray[np.generic],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    facts: SliceFormat,
    plane: Plane = "axial",
    slices: tuple[int, int] | None = None,
    fineness: int = 1,
) -> SliceStack:
    """Cut the slices of an organ out of a CT as the model sees them.

    Args:
        scan: (I, J, K) HU, any voxel type.
        grid: its geometry.
        organ: bool (I, J, K); tissue outside is removed and the crop is centered on it. None: the whole field.
        facts: what the model wants.
        plane: in which slices are cut.
        slices: first and one past the last voxel index along the plane's normal; None: all of the organ.
        fineness: the same field on pixels that are so many times smaller.

    Returns:
        the slices that hold enough of the organ to be judged.

    Raises:
        AnomalyError: empty organ, slices outside, values that are not finite, nothing but one value.
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
    layout = lay_slices(grid, organ, facts, plane, slices, fineness)
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


def prepare_mr(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    brain: NDArray[np.bool_] | None,
    facts: SliceFormat,
    plane: Plane = "axial",
    slices: tuple[int, int] | None = None,
    fineness: int = 1,
) -> SliceStack:
    """Cut the slices of a brain out of one or several MR sequences as the model sees them.

    Each sequence is clipped to percentiles of its values in the brain and brought to the intensity range by
    its own minimum and maximum (Wolleb et al. 2022 do it per slice; "volume" here keeps slices comparable).

    Args:
        images: sequences by name, (I, J, K) each on one grid; see `images.mr.check_same_geometry`.
        grid: their geometry.
        brain: bool (I, J, K); None: the images are skull-stripped, and the brain is what is not background.
        facts: as of `prepare_ct`.
        plane: likewise.
        slices: likewise.
        fineness: likewise.

    Returns:
        the slices that hold enough of the brain to be judged.

    Raises:
        AnomalyError: as `prepare_ct`; also a missing sequence, other shapes, a skull that is still there.
    """
    if facts.modality != "MR":
        raise AnomalyError(
            f"the model is made for {facts.modality}, not for MR images. Choose a model whose list entry says MR."
        )
    chosen, unused = channels_of(images, facts.channel_order)
    for name, image in images.items():
        if image.shape != grid.shape:
            raise AnomalyError(
                f"{name} has {image.shape} voxels, the other images {grid.shape}: they are not on one grid. "
                + REGISTRATION_ADVICE
            )
    notes = [f"{name} is not used by this model." for name in unused]
    if brain is None:
        for image in chosen:
            check_finite("The MR image", image, None)
        brain = find_brain(dict(zip(facts.channel_order, chosen, strict=True)))
        notes.append(
            "No brain mask was given; the background is of one value, so the images were taken as skull-stripped."
        )
    layout = lay_slices(grid, brain, facts, plane, slices, fineness)
    low, width = facts.intensity_range[0], facts.intensity_range[1] - facts.intensity_range[0]
    scalers = []
    for name, image in zip(facts.channel_order, chosen, strict=True):
        check_finite(name, image, None)
        limits = value_range(image[brain], facts.percentiles)
        if limits is None:
            raise AnomalyError(
                f"{name} has one and the same value everywhere in the brain. Check that image and brain mask "
                "belong together, or choose another image."
            )
        scalers.append(limits)
    stacks, insides, units = [], [], []
    for index, crop in zip(layout.indices, layout.crops, strict=True):
        channels = []
        of_slice = list(scalers)
        box = slice_box(grid, layout.axis, index)
        if facts.scaled_by == "together":
            together = np.concatenate([image[box].ravel() for image in chosen])
            of_slice = [value_range(together, facts.percentiles) or scalers[0]] * len(chosen)
        for c, image in enumerate(chosen):
            if facts.scaled_by == "slice":
                # A slice of one value keeps the scale of the volume and is left out below.
                of_slice[c] = value_range(image[box][brain[box]], facts.percentiles) or scalers[c]
            first, last = of_slice[c]

            def to_model(
                values: NDArray[Any], first: float = first, last: float = last
            ) -> NDArray[np.float32]:
                clipped = np.clip(values.astype(np.float64), first, last)
                return ((clipped - first) * (width / (last - first)) + low).astype(np.float32)

            cut, inside = _cut(image, brain, grid, layout.axis, index, crop, to_model)
            channels.append(np.where(inside, cut, low))
        stacks.append(np.stack(channels))
        insides.append(inside)
        units.append([(last - first) / width for first, last in of_slice])
    layout.notes.extend(notes)
    return stack_of(stacks, insides, layout, grid, brain, facts, np.asarray(units))


def prepare(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    facts: SliceFormat,
    plane: Plane = "axial",
    slices: tuple[int, int] | None = None,
    fineness: int = 1,
) -> SliceStack:
    """`prepare_ct` or `prepare_mr`, whichever the model is made for.

    Raises:
        AnomalyError: as those; also if the images are of another modality than the model.
    """
    if facts.modality == "MR":
        return prepare_mr(images, grid, organ, facts, plane, slices, fineness)
    if len(images) != 1 or any(map(sequence_of, images)):
        raise AnomalyError(
            f"the model is made for one CT, but the images are {', '.join(images) or 'none'}. Choose a CT, or a "
            "model for these images."
        )
    return prepare_ct(next(iter(images.values())), grid, organ, facts, plane, slices, fineness)


def check_finite(name: str, image: NDArray[np.generic], layout: Layout | None) -> None:
    """Refuse values that are not finite in the slices that are needed (layout None: anywhere).

    Raises:
        AnomalyError: how many, and where the first one is.
    """
    if image.dtype.kind != "f":
        return
    axis = layout.axis if layout else 2
    for index in layout.indices if layout else range(image.shape[axis]):
        part = slice_of(image, axis, index)
        if not np.isfinite(part).all():
            bad = int((~np.isfinite(part)).sum())
            raise AnomalyError(
                f"{name} has values that are not finite (NaN or infinite): {bad:,} voxels of slice {index} along "
                f"voxel axis {AXIS_NAMES[axis]}. Replace them (by -1024 in a CT, by 0 in an MR image) or "
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

    Raises:
        AnomalyError: no slice is left.
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
        notes.append(
            f"Slices left out, as they hold too little of the organ to be judged: {small}."
        )
    if constant := sum(flat):
        notes.append(f"Slices left out, as they show one value only: {constant}.")
    if organ is not None and (cut := share_outside(organ, layout, grid)) > 0.005:
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
    to_model: Callable[[NDArray[Any]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One slice on the model's pixels, mixed from voxels of the organ only; (H, W) and its organ."""
    box = slice_box(grid, axis, index)
    source = grid.cropped(box)
    sigma = low_pass(source, crop, axis)
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


def low_pass(source: Grid, crop: Grid, axis: int) -> NDArray[np.float64]:
    """Gaussian in voxels of `source` that makes them as wide as the crop's pixels; 0 where they are wider.

    Differs from the published pipelines, which do not filter: a CT of 0.7 mm would keep all its noise at 2 mm.
    """
    pixels = np.linalg.inv(source.affine[:3, :3]) @ crop.affine[:3, :2]
    ratio = np.abs(pixels).max(axis=1)
    sigma: NDArray[np.float64] = np.sqrt(np.maximum(ratio**2 - 1, 0)) / FWHM
    sigma[axis] = 0
    sigma[ratio < 1.01] = 0
    return sigma
