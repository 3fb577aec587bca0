"""Tumors of the phantom: shape, place, tissue, and the facts that are measured on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from difftumor.ellipsoids import rotation_matrix
from difftumor.phantom.canvas import Canvas, coverage
from difftumor.phantom.texture import Axes, smooth_field


@dataclass(frozen=True)
class _Habit:
    """How tumors sit in an organ."""

    labels: tuple[int, ...]  # TotalSegmentator numbers
    contrast_hu: tuple[float, float]  # darkest, faintest
    depth: float  # how deep the center must lie below the surface, in radii
    bulges: bool  # whether it may grow into the fat, the organ's label with it


_HABITS = {
    "liver": _Habit((5,), (-60.0, -20.0), 0.75, bulges=False),
    "pancreas": _Habit((7,), (-60.0, -20.0), 0.25, bulges=True),
    "kidney": _Habit((2, 3), (-90.0, -30.0), 0.35, bulges=True),
}
_KINDS = {"homogeneous": 0.35, "heterogeneous": 0.3, "necrotic": 0.2, "rim": 0.15}


@dataclass(frozen=True)
class Draft:
    """A tumor that has been painted and is yet to be measured."""

    label: int
    organ: str
    organ_label: int
    kind: str
    radii_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Lesion(Draft):
    """Facts of one tumor, measured on the noise-free image.

    Attributes:
        label: value in the tumor map.
        organ: "liver", "pancreas" or "kidney".
        organ_label: TotalSegmentator number of the organ.
        kind: "homogeneous", "heterogeneous", "necrotic" (dark core) or "rim" (bright edge).
        radii_mm: half axes of the ellipsoid it was made from, before deformation.
        center_ras: centroid of the mask, mm.
        volume_mm3: voxels of the mask times the volume of one.
        contrast_hu: mean of the tumor less median of the tumor-free organ.
        texture_sd_hu: standard deviation inside, one voxel off the edge where the tumor is large enough.
    """

    center_ras: tuple[float, float, float]
    volume_mm3: float
    contrast_hu: float
    texture_sd_hu: float


def add_lesions(
    canvas: Canvas,
    hu: np.ndarray,
    look_alikes: np.ndarray,
    rng: np.random.Generator,
    *,
    count: int,
    organs: tuple[str, ...],
    radius_mm: tuple[float, float],
) -> tuple[np.ndarray, list[Draft]]:
    """Paint tumors into organs; none touches another, and none replaces a look-alike.

    Args:
        canvas: organ map is grown where a tumor of pancreas or kidney bulges into the fat.
        hu: float32 (I, J, K), changed in place.
        look_alikes: marks of `add_look_alikes`; the few voxels that a tumor covers are cleared.
        count: see `phantom.make_abdomen`.
        organs: likewise.
        radius_mm: likewise.

    Returns:
        uint8 (I, J, K) map of labels 1...count, and the drafts in that order.

    Raises:
        ValueError: if an organ is outside the field of view or has no room left.
    """
    tumors = np.zeros(canvas.shape, np.uint8)
    drafts: list[Draft] = []
    first = int(rng.integers(len(organs)))
    for label in range(1, count + 1):
        organ = organs[(first + label - 1) % len(organs)]
        radius = float(np.exp(rng.uniform(*np.log(radius_mm))))
        for attempt in range(12):
            smaller = max(radius * 0.87**attempt, radius_mm[0])
            draft = _try_lesion(canvas, hu, look_alikes, tumors, rng, label, organ, smaller)
            if draft is not None:
                drafts.append(draft)
                break
        else:
            raise ValueError(
                f"no room for tumor {label} of {count} (radius {radius_mm[0]} mm or more) in the {organ}: ask for "
                "fewer or smaller tumors, or for a field of view that holds the organ"
            )
    return tumors, drafts


def measure(draft: Draft, clean: np.ndarray, canvas: Canvas, tumors: np.ndarray) -> Lesion:
    """Measure the facts of a tumor.

    Args:
        draft: the tumor.
        clean: float32 (I, J, K), HU after the blur, without noise.
        canvas: organ map and axes. tumors: map of `add_lesions`.

    Returns:
        draft and facts.
    """
    box = ndimage.find_objects(tumors, max_label=draft.label)[draft.label - 1]
    mask = tumors[box] == draft.label
    x, y, z = (
        float(a[i].mean()) for a, i in zip(canvas.box_axes(box), np.nonzero(mask), strict=True)
    )
    inner = ndimage.binary_erosion(mask)
    inner = inner if inner.sum() >= 20 else mask
    values = clean[box]
    organ = canvas.organ_box(draft.organ_label)
    healthy = clean[organ][(canvas.organs[organ] == draft.organ_label) & (tumors[organ] == 0)]
    return Lesion(
        **vars(draft),
        center_ras=(x, y, z),
        volume_mm3=float(mask.sum() * np.prod(canvas.spacing)),
        contrast_hu=float(values[mask].mean() - np.median(healthy)),
        texture_sd_hu=float(values[inner].std()),
    )


def _try_lesion(
    canvas: Canvas,
    hu: np.ndarray,
    look_alikes: np.ndarray,
    tumors: np.ndarray,
    rng: np.random.Generator,
    label: int,
    organ: str,
    radius: float,
) -> Draft | None:
    """Paint one tumor of about this radius, or return None where it finds no place."""
    habit = _HABITS[organ]
    number = int(rng.choice(habit.labels))
    radii = radius * np.exp(rng.uniform(-0.22, 0.22, 3))
    rotation = rotation_matrix(tuple(rng.uniform(-180, 180, 3)))
    organ_box = canvas.organ_box(number)
    healthy = (
        (canvas.organs[organ_box] == number)
        & (tumors[organ_box] == 0)
        & (look_alikes[organ_box] == 0)
    )
    center = canvas.pick(rng, organ_box, healthy, habit.depth * radius)
    if center is None:
        return None
    box, distance = canvas.lump(
        rng, center, radii, rotation, roughness=rng.uniform(0.08, 0.2), margin_mm=4
    )
    room = canvas.organs[box] == number
    if habit.bulges:
        room |= canvas.free(box)
    if radius > 3 * canvas.spacing.max():
        room = ndimage.binary_opening(room)  # not through a gap of one voxel
    mask = _fit(distance < 0, room, tumors[box] > 0, look_alikes[box] > 0)
    if mask is None:
        return None

    kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    base = float(np.median(hu[organ_box][canvas.organs[organ_box] == number]))
    contrast = rng.uniform(*habit.contrast_hu)
    tissue = _tissue(rng, canvas.box_axes(box), distance, kind, base, contrast, radius, radii)
    mean = float(np.cbrt(np.prod(radii)))
    alpha = coverage(distance, min(rng.uniform(0.6, 1.8), 0.25 * mean))
    alpha *= ndimage.gaussian_filter(room.astype(np.float32), 0.4) * (room | mask)
    hu[box] += alpha * (tissue - hu[box])
    tumors[box][mask] = label
    canvas.organs[box][mask] = number
    look_alikes[box][mask] = 0
    return Draft(label, organ, number, kind, tuple(radii.tolist()))


def _fit(
    shape: np.ndarray, room: np.ndarray, tumors: np.ndarray, look_alikes: np.ndarray
) -> np.ndarray | None:
    """The largest connected part of a shape that fits in the room, or None where too little of it does.

    All arrays are bool and of one box; a gap of a voxel to other tumors is kept.

    Returns:
        bool mask of the tumor.
    """
    pieces, n = ndimage.label(shape & room)
    if n == 0:
        return None
    mask: np.ndarray = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    near = ndimage.binary_dilation(mask, iterations=2)
    if (
        mask.sum() < max(4, 0.75 * shape.sum())
        or tumors[near].any()
        or look_alikes[mask].mean() > 0.02
    ):
        return None
    return mask


def _tissue(
    rng: np.random.Generator,
    axes: Axes,
    distance: np.ndarray,
    kind: str,
    base_hu: float,
    contrast_hu: float,
    radius: float,
    radii: np.ndarray,
) -> np.ndarray:
    """HU of a tumor over its box, float32: a level, two scales of texture, and a core or a rim."""
    fine = rng.uniform(3, 7) * (1.7 if kind == "heterogeneous" else 1.0)
    value = np.full(distance.shape, base_hu + contrast_hu, np.float32)
    value += np.float32(fine) * smooth_field(rng, axes, rng.uniform(1.8, 3.2))
    coarse = smooth_field(rng, axes, max(0.7 * radius, 2.5))
    value += np.float32(0.5 * fine) * coarse
    mean = float(np.cbrt(np.prod(radii)))
    if kind == "necrotic":
        core = coverage(distance + 0.45 * mean + 0.12 * mean * coarse, 0.15 * mean + 0.5)
        value -= core * np.float32(rng.uniform(0.35, 0.7) * (base_hu + contrast_hu - 15))
    elif kind == "rim":
        rim = np.exp(-(((distance + 0.18 * mean) / (0.14 * mean + 0.6)) ** 2))
        value += rim * np.float32(rng.uniform(0.3, 0.7) * -contrast_hu)
    return value
