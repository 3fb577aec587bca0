"""The sequences of one MR examination: whether they lie on each other, where the brain is, how they scale.

The models were trained on co-registered, skull-stripped sequences on one grid. Images that come from a
scanner are neither; nothing here repairs that, but everything here says it and names what does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import Grid, slice_of
from difftumor.images.sequences import canonical

REGISTRATION_ADVICE = (
    "Bring all sequences onto one of them first, in Slicer with General Registration (BRAINS) or General "
    "Registration (Elastix, of the SlicerElastix extension), with that sequence as fixed volume and as "
    "reference of the output."
)
STRIPPING_ADVICE = (
    "Give a brain mask, made in Slicer with the HDBrainExtraction (HD-BET) or SwissSkullStripper extension, or "
    "with Segment Editor."
)
# A skull-stripped field is mostly background of one value; a head in a scanner's field is not.
MIN_BACKGROUND = 0.15
MIN_BORDER = 0.98


class CaseError(ValueError):
    """The images of a case cannot be used together, or not by a model: what is wrong, why, and what to do next."""


def check_same_geometry(grids: Mapping[str, Grid], tolerance: float = 0.1) -> None:
    """Check that the images of a case lie on each other, voxel by voxel.

    This is all that geometry can tell: a patient who moved between two sequences shows in the images only.

    Args:
        grids: by name of the image, the first is what the others are compared with.
        tolerance: allowed distance of two voxel centers, in smallest voxel sizes.

    Raises:
        CaseError: names the two images, how they differ, and how to register them.
    """
    names = list(grids)
    for name in names[1:]:
        first, other = grids[names[0]], grids[name]
        if first.shape != other.shape:
            how = f"{first} against {other}"
        elif not first.same_as(other, tolerance_mm=tolerance * float(first.spacing.min())):
            corners = np.asarray([[0, 0, 0], np.asarray(first.shape) - 1])
            apart = np.linalg.norm(first.to_ras(corners) - other.to_ras(corners), axis=1).max()
            how = f"their voxels lie up to {apart:.3g} mm apart"
        else:
            continue
        raise CaseError(
            f"{names[0]} and {name} have different geometry ({how}), but the model compares them voxel by voxel. "
            + REGISTRATION_ADVICE
        )


def channels_of(
    images: Mapping[str, NDArray[np.generic]], channel_order: Sequence[str]
) -> tuple[list[NDArray[np.generic]], list[str]]:
    """Put the images of a case into the model's order.

    Args:
        images: by name, any spelling that `sequences` knows.
        channel_order: names that the model wants.

    Returns:
        the images, and the names of those that it does not use.

    Raises:
        CaseError: one is missing or given twice.
    """
    found: dict[str, str] = {}
    for name in images:
        ours = canonical(name)
        if ours in found:
            raise CaseError(
                f"{found[ours]} and {name} are the same sequence. Give each sequence once."
            )
        found[ours] = name
    wanted = [canonical(name) for name in channel_order]
    if missing := [
        name for name, ours in zip(channel_order, wanted, strict=True) if ours not in found
    ]:
        raise CaseError(
            f"the model needs {', '.join(channel_order)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing (given: {', '.join(images) or 'nothing'}). Add what is "
            "missing, say which image is which (NAME=PATH), or choose a model for these images."
        )
    unused = [name for ours, name in found.items() if ours not in wanted]
    return [images[found[ours]] for ours in wanted], unused


def find_brain(images: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
    """Take the brain from images that are skull-stripped already: all that is not their background.

    Args:
        images: (I, J, K) each.

    Returns:
        bool (I, J, K), holes filled slice by slice along K.

    Raises:
        CaseError: the background is not one value: the skull may still be there.
    """
    brain: NDArray[np.bool_] | None = None
    for name, image in images.items():
        border = np.concatenate(
            [slice_of(image, axis, edge).ravel() for axis in (0, 1) for edge in (0, -1)]
        )
        values, counts = np.unique(border, return_counts=True)
        background = values[counts.argmax()]
        shown = image != background
        if counts.max() < MIN_BORDER * border.size or shown.mean() > 1 - MIN_BACKGROUND:
            raise CaseError(
                f"{name} is not skull-stripped: around the head there is no background of one value. The model "
                "knows brains only and would mark skull and scalp. " + STRIPPING_ADVICE
            )
        brain = shown if brain is None else brain | shown
    if brain is None or not brain.any():
        raise CaseError(
            "the images are empty: they hold one value everywhere. Choose other images."
        )
    return np.stack(
        [ndimage.binary_fill_holes(brain[:, :, k]) for k in range(brain.shape[2])], axis=2
    )


def value_range(
    values: NDArray[np.generic], percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """The two percentiles between which a sequence is scaled, or None if they are one value.

    Args:
        values: (n,) of the brain; more than a million are thinned out evenly.
    """
    sample = values[:: 1 + values.size // 1_000_000].astype(np.float64)
    if not sample.size:
        return None
    low, high = np.percentile(sample, percentiles)
    return (float(low), float(high)) if high - low > 1e-9 * max(abs(low), abs(high), 1e-3) else None
