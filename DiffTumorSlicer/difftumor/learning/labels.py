"""Labels that a reader painted on a few slices of a case: which slices they are, and the labels of pixels.

No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.anomaly.layout import AXIS_NAMES, slice_box
from difftumor.anomaly.slices import low_pass
from difftumor.anomaly.stack import SliceStack
from difftumor.grids import Grid
from difftumor.images.resampling import resample

MOST_LABEL = 255


class LearningError(ValueError):
    """Nothing can be learned from this input: what is wrong, why, and what to do next."""


def check_labels_grid(labels: Grid, images: Grid) -> None:
    """Refuse labels that were painted on another grid than the images.

    Raises:
        LearningError: says how they differ and what to do.
    """
    near = 0.1 * float(images.spacing.min())
    if labels.shape == images.shape and labels.same_as(images, tolerance_mm=near):
        return
    how = f"{labels} against {images}"
    if labels.shape == images.shape:
        corners = np.asarray([[0, 0, 0], np.asarray(images.shape) - 1])
        apart = np.linalg.norm(labels.to_ras(corners) - images.to_ras(corners), axis=1).max()
        how = f"their voxels lie up to {apart:.3g} mm apart"
    raise LearningError(
        f"the labels lie on another grid than the images ({how}). Labels are learned from voxel by voxel: paint them "
        "on one of these images, or export the segmentation with one of them as reference."
    )


def checked_labels(labels: NDArray[np.generic], grid: Grid) -> NDArray[np.uint8]:
    """Labels as uint8, 0 is what was not painted.

    Args:
        labels: (I, J, K) whole numbers.
        grid: of the images.

    Raises:
        LearningError: another grid, no label map, or nothing painted.
    """
    if labels.shape != grid.shape:
        raise LearningError(
            f"the labels have {labels.shape} voxels, the images {grid.shape}: they lie on another grid. Paint them "
            "on one of these images, or export the segmentation with one of them as reference."
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high > MOST_LABEL or (labels.dtype.kind == "f" and (labels % 1 != 0).any()):
        raise LearningError(
            f"the labels are no label map: they hold values from {low:g} to {high:g}, and labels are whole numbers "
            f"from 0 to {MOST_LABEL}. Export the segmentation as a label map."
        )
    if not high:
        raise LearningError(
            "there are labels on no slice: no voxel is painted. Paint the tumor on at least one slice."
        )
    return labels.astype(np.uint8)


def labelled_slices(
    labels: NDArray[np.uint8], grid: Grid, axis: int, asked: Sequence[int] | None
) -> list[int]:
    """Voxel indices of the slices that are labeled throughout.

    Args:
        labels: of `checked_labels`.
        grid: of the images.
        axis: voxel axis of the slices.
        asked: slices that the reader named; None: all with a label.

    Raises:
        LearningError: a slice is outside, or none of them has a label.
    """
    others = tuple(d for d in range(3) if d != axis)
    painted = np.flatnonzero(labels.any(axis=others)).tolist()
    if asked is None:
        return painted
    if outside := [index for index in asked if index >= grid.shape[axis]]:
        raise LearningError(
            f"slice {outside[0]} lies outside the images, which have {grid.shape[axis]} slices along voxel axis "
            f"{AXIS_NAMES[axis]} (0 to {grid.shape[axis] - 1}). Name the slices that were labeled."
        )
    if not set(asked) & set(painted):
        told = ", ".join(map(str, painted[:8])) + (" ..." if len(painted) > 8 else "")
        raise LearningError(
            f"none of the slices {', '.join(map(str, asked))} has a label; labels are on {told}. Name at least one "
            "slice with a label, or none to take all of these."
        )
    return list(asked)


def many_slices_note(count: int, plane: str) -> str | None:
    """A hint if labels seem to have been painted in another plane."""
    if count <= 40:
        return None
    return (
        f"{count} slices of the {plane} plane hold labels. If they were painted in another plane, choose that plane: "
        "unpainted parts of a labeled slice count as background."
    )


def labels_of_pixels(
    labels: NDArray[np.uint8], values: Sequence[int], stack: SliceStack, position: int
) -> NDArray[np.int64]:
    """Labels of the pixels of one slice, by the larger share of a pixel.

    Args:
        labels: (I, J, K).
        values: labels that are told apart; what else is painted counts as not painted.
        stack: the prepared slices.
        position: of the slice in the stack.

    Returns:
        (H, W), 0 for not painted, k for values[k - 1].
    """
    crop = stack.grids[position]
    box = slice_box(stack.grid, stack.axis, stack.indices[position])
    source = stack.grid.cropped(box)
    sigma = low_pass(source, crop, stack.axis)
    painted = labels[box]
    shares = np.zeros((len(values) + 1, *crop.shape[:2]), np.float32)
    for k, value in enumerate(values, 1):
        if not (painted == value).any():
            continue
        share = (painted == value).astype(np.float32)
        if sigma.any():
            share = ndimage.gaussian_filter(share, sigma, mode="nearest")
        shares[k] = resample(share, source, crop, order=1)[..., 0]
    shares[0] = 1 - shares[1:].sum(axis=0)
    # A pixel is painted if half of it is; which label, is decided among the labels.
    found = np.where(shares[0] > 0.5, 0, 1 + shares[1:].argmax(axis=0))
    return found.T if stack.transposed else found


def connected_to(
    found: NDArray[np.bool_], painted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], int]:
    """Parts of a segmentation that hold a painted voxel; parts touch over faces, edges and corners.

    Returns:
        the kept voxels, and how many parts were left out.
    """
    parts, count = ndimage.label(found, ndimage.generate_binary_structure(3, 3))
    kept = np.unique(parts[painted & found])
    kept = kept[kept > 0]
    return np.isin(parts, kept), count - len(kept)


def around(mask: NDArray[np.bool_], grid: Grid, distance_mm: float) -> NDArray[np.bool_]:
    """Voxels within a distance of a mask."""
    if not mask.any():
        return mask
    near = ndimage.distance_transform_edt(~mask, sampling=grid.spacing)
    return np.asarray(near <= distance_mm)


def slice_areas_mm2(mask: NDArray[Any], grid: Grid, axis: int) -> NDArray[np.float64]:
    """Sum of a mask (or of weights) over each slice, times the area of a voxel; (slices,)."""
    first, second = (grid.affine[:3, d] for d in range(3) if d != axis)
    pixel = float(np.linalg.norm(np.cross(first, second)))
    across = tuple(d for d in range(3) if d != axis)
    return np.asarray(mask.sum(axis=across, dtype=np.float64) * pixel)


def overrun(
    painted_mm2: NDArray[np.float64],
    found: NDArray[np.bool_],
    labeled: NDArray[np.bool_],
    spacing_mm: float,
) -> tuple[int, float] | None:
    """Whether a segmentation goes on beyond the painted slices further than the tumor is wide, as leaks do.

    Tumors are about as long as wide.  Where one has leaked into tissue of the same density, the disagreement of the
    classifiers is small all along the leak, and a label at its far end changes little.  The slice that tells most is
    the first beyond a ball of the largest painted area around the middle of what was painted.

    Args:
        painted_mm2: (S,) painted area of each slice.
        found: (S,) whether the segmentation has a part in the slice.
        labeled: (S,) slices that the reader has labeled, also as without tumor.
        spacing_mm: distance of the slices.

    Returns:
        index of the slice to label next, and how far the longer overrun reaches (mm); None: there is none.
    """
    painted = np.flatnonzero(painted_mm2)
    if not painted.size:
        return None
    width_mm = 2 * float(np.sqrt(painted_mm2.max() / np.pi))
    middle = float(np.average(painted, weights=painted_mm2[painted]))
    worst = None
    for step, edge in ((-1, int(painted[0])), (1, int(painted[-1]))):
        last = edge
        while 0 <= last + step < len(found) and found[last + step] and not labeled[last + step]:
            last += step
        length_mm = abs(last - edge) * spacing_mm
        if length_mm > max(width_mm, worst[1] if worst else 0.0):
            beyond = int(np.floor(step * middle + width_mm / 2 / spacing_mm)) + 1
            worst = step * max(beyond, step * edge + 1), length_mm
    return worst
