"""Random tumor shapes: ellipsoids, bent by elastic deformations and placed in an organ.

DiffTumor (Chen et al., CVPR 2024), the mask generator of its third stage. All arrays are (X, Y, Z)
on a grid of 1 mm voxels whose axes run along +R, +A, +S: a voxel is a millimeter and the last
axis counts axial slices. `sample_lesions` draws numbers; `tumor_mask` and `lesion_mask` turn them
into voxels without any randomness, so that the numbers alone make the same mask again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.measuring.lesions import largest_component
from difftumor.synthesis.elastic import CONTROL_SHAPE, Mask, deform

ORGANS = ("liver", "pancreas", "kidney")
MAXIMUM_SEMI_AXIS = 64
MAXIMUM_COUNT = 64
MAXIMUM_DISPLACEMENT = 1000
REDRAWS = 20
# Heights tried one after the other, as fractions of the organ's; after them comes the whole organ.
HEIGHTS = (*repeat((0.3, 0.7), 11), *repeat((0.2, 0.8), 10), *repeat((0.1, 0.9), 10))
# What must be liver around a center in its slice.
INSIDE_EDGE = np.ones((5, 5), dtype=bool)


class TumorShapeError(ValueError):
    """The organ cannot hold the tumor asked for, or the numbers describe none."""


@dataclass(frozen=True)
class SizeRule:
    """What one size of tumor is drawn from; ranges include both ends.

    Attributes:
        count: lesions per mask.
        semi_axes: of the ellipsoid, integer voxels (mm), for each axis by itself.
        sigma: standard deviation of the control points' displacements, voxels (mm).
        whole_sigma: sigma is an integer.
    """

    count: tuple[int, int]
    semi_axes: tuple[int, int]
    sigma: tuple[float, float]
    whole_sigma: bool = True


SIZES: dict[str, SizeRule] = {
    "tiny": SizeRule(count=(1, 3), semi_axes=(3, 5), sigma=(0.5, 1.0), whole_sigma=False),
    "small": SizeRule(count=(1, 3), semi_axes=(6, 10), sigma=(1, 2)),
    "medium": SizeRule(count=(1, 1), semi_axes=(12, 20), sigma=(3, 6)),
    "large": SizeRule(count=(1, 1), semi_axes=(24, 64), sigma=(5, 10)),
}


@dataclass(frozen=True)
class TumorShape:
    """One lesion: a bent ellipsoid and its place. JSON-serialisable, replayable.

    Attributes:
        center_voxel: (x, y, z) in the organ's array, where the ellipsoid's center comes to lie.
        semi_axes: three integers, 1 to MAXIMUM_SEMI_AXIS voxels (mm).
        displacements: nested tuples (3, 2, 3, 3), voxels (mm); see `elastic.deform`.
        clip_to_organ: only its voxels inside the organ count.
        tight: the bent ellipsoid is cropped to its bounding box, the middle of which comes to lie
            on `center_voxel`.
    """

    center_voxel: tuple[int, int, int]
    semi_axes: tuple[int, int, int]
    displacements: tuple[Any, ...]
    clip_to_organ: bool = True
    tight: bool = False

    def __post_init__(self) -> None:
        """Refuse what no sampler draws, such as a damaged side-car may hold."""
        _check_integers("center_voxel", self.center_voxel, -(2**15), 2**15)
        _check_integers("semi_axes", self.semi_axes, 1, MAXIMUM_SEMI_AXIS)
        try:
            control = np.asarray(self.displacements, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TumorShapeError(f"the displacements are no array of numbers: {error}") from error
        # Written so that NaN fails too.
        if control.shape != CONTROL_SHAPE or not np.abs(control).max() <= MAXIMUM_DISPLACEMENT:
            raise TumorShapeError(
                f"the displacements have shape {control.shape}; needed are {CONTROL_SHAPE} numbers "
                f"of at most {MAXIMUM_DISPLACEMENT} voxels"
            )
        object.__setattr__(self, "displacements", _as_tuple(control.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TumorShape:
        """Build the shape from what `to_dict` gave, also after a way through JSON.

        Raises:
            TumorShapeError: if a field is missing, unknown or out of range.
        """
        try:
            return cls(**{name: _as_tuple(value) for name, value in values.items()})
        except (AttributeError, TypeError) as error:
            raise TumorShapeError(f"this describes no tumor shape: {error}") from error


def sample_size(rng: np.random.Generator) -> str:
    """Draw a size as DiffTumor's training does: tiny, small 0.4 each, medium, large 0.1 each."""
    return str(rng.choice(list(SIZES), p=[0.4, 0.4, 0.1, 0.1]))


def sample_lesions(
    rng: np.random.Generator,
    size: str,
    organ_mask: NDArray[Any],
    organ: str,
    count: int | None = None,
) -> tuple[TumorShape, ...]:
    """Draw the lesions of one mask by DiffTumor's rules.

    Liver: a center has liver two voxels around it in its slice. Pancreas, large: the center is that
    of the organ's bounding box. Kidney, medium and large: every second lesion may grow out of the
    organ. Vessels are not avoided; lesions may touch the organ's border and each other.
    Differs from DiffTumor: a lesion that its bending carried wholly out of the organ (about one
    large lesion in a hundred) is drawn again instead of giving an empty mask.

    Args:
        rng: source of all numbers; equal states give equal lesions.
        size: one of SIZES.
        organ_mask: bool or 0/1 (X, Y, Z), 1 mm voxels.
        organ: one of ORGANS.
        count: 1 to MAXIMUM_COUNT lesions; None draws as many as is usual for the size.

    Returns:
        one shape per lesion.

    Raises:
        TumorShapeError: for an empty or too small organ, or an argument out of range.
    """
    _check_choice("size", size, SIZES)
    _check_choice("organ", organ, ORGANS)
    organ_mask = check_organ(organ_mask)
    rule = SIZES[size]
    if count is None:
        count = int(rng.integers(*rule.count, endpoint=True))
    if not 1 <= count <= MAXIMUM_COUNT:
        raise TumorShapeError(f"count is {count}; it must be from 1 to {MAXIMUM_COUNT}")
    lesions = []
    for _ in range(count):
        for _ in range(REDRAWS):
            if organ == "pancreas" and size == "large":
                lesion = sample_lesion(rng, rule, box_center(organ_mask), tight=True)
            else:
                center = sample_center(rng, organ_mask, inside_edge=organ == "liver")
                exophytic = organ == "kidney" and size in ("medium", "large") and rng.random() < 0.5
                lesion = sample_lesion(rng, rule, center, clip_to_organ=not exophytic)
            if _place(organ_mask, lesion, clip=True)[0].any():
                break
        else:
            raise TumorShapeError(
                f"none of {REDRAWS} {size} tumors had a voxel inside the {organ}, which has "
                f"{int(organ_mask.sum())} mm3. Check the organ mask, or place an ellipsoid yourself"
            )
        lesions.append(lesion)
    return tuple(lesions)


def sample_lesion(
    rng: np.random.Generator, rule: SizeRule, center_voxel: tuple[int, int, int], **options: bool
) -> TumorShape:
    """Draw the semi-axes and the bending of one lesion at a given place."""
    x, y, z = (int(r) for r in rng.integers(*rule.semi_axes, size=3, endpoint=True))
    low, high = rule.sigma
    sigma = rng.integers(int(low), int(high) + 1) if rule.whole_sigma else rng.uniform(low, high)
    displacements = rng.normal(0.0, sigma, size=CONTROL_SHAPE)
    return TumorShape(center_voxel, (x, y, z), _as_tuple(displacements.tolist()), **options)


def sample_center(
    rng: np.random.Generator, organ_mask: Mask, *, inside_edge: bool
) -> tuple[int, int, int]:
    """Draw a voxel of the organ, preferably from the middle of its height.

    The slice is uniform between 0.3 and 0.7 of the organ's height; where slices hold no candidate
    the range widens by and by to the whole height. All candidates of a slice are equal.

    Args:
        rng: source of randomness.
        organ_mask: bool (X, Y, Z), not empty.
        inside_edge: candidates are what a 5 x 5 erosion leaves of the slice, else its organ voxels.

    Returns:
        (x, y, z).

    Raises:
        TumorShapeError: if no slice has a candidate.
    """
    heights = np.flatnonzero(organ_mask.any(axis=(0, 1)))
    bottom, top = int(heights[0]), int(heights[-1])

    def candidates(z: int) -> NDArray[np.intp]:
        here = organ_mask[:, :, z]
        if inside_edge:
            # border_value 0: the end of the array is an edge too, so that an array may be cut to the
            # organ's box without a change.
            here = ndimage.binary_erosion(here, INSIDE_EDGE, border_value=0)
        return np.argwhere(here)

    def draw(z: int) -> tuple[int, int, int] | None:
        found = candidates(z)
        if len(found) == 0:
            return None
        x, y = found[rng.integers(len(found))].tolist()
        return x, y, z

    for low, high in HEIGHTS:
        center = draw(round(rng.uniform(low, high) * (top - bottom)) + bottom)
        if center is not None:
            return center
    # DiffTumor now repeats round(U(0, 1) height) for ever; this is its distribution in one draw.
    weights = np.array([len(candidates(z)) > 0 for z in heights.tolist()], dtype=np.float64)
    weights[heights == bottom] /= 2
    weights[heights == top] /= 2
    if weights.sum() > 0:
        center = draw(int(rng.choice(heights, p=weights / weights.sum())))
        if center is not None:
            return center
    raise TumorShapeError(
        f"the organ is too small for a tumor: in none of its {len(heights)} slices does a voxel lie "
        "2 mm inside the edge. Check the organ mask and its label, or place an ellipsoid yourself"
    )


def tumor_mask(
    organ_mask: NDArray[Any], lesions: Iterable[TumorShape], *, clean_components: bool = False
) -> Mask:
    """Put lesions together into one mask.

    Args:
        organ_mask: bool or 0/1 (X, Y, Z), 1 mm voxels, the one the lesions were drawn for.
        lesions: shapes from `sample_lesions` or a side-car; overlapping ones merge.
        clean_components: keep only the largest 6-connected piece of each lesion. Differs from
            DiffTumor, whose masks have crumbs of 1 to 30 voxels; therefore off by default.

    Returns:
        bool (X, Y, Z), not empty.

    Raises:
        TumorShapeError: for an empty organ, or if no voxel of the lesions lies in it.
    """
    organ_mask = check_organ(organ_mask)
    result = np.zeros_like(organ_mask)
    for lesion in lesions:
        piece, part = _place(organ_mask, lesion, clip=lesion.clip_to_organ)
        result[part] |= largest_component(piece) if clean_components else piece
    if not result.any():
        raise TumorShapeError(
            "no voxel of the random tumor lies inside the organ; try another seed or a smaller size"
        )
    return result


def lesion_mask(lesion: TumorShape) -> tuple[Mask, tuple[int, int, int]]:
    """Make one lesion, not clipped, in an array of its own.

    Returns:
        bool array of 4 semi-axes per axis (less if `tight`), and the voxel (x, y, z) of the organ's array on
        which its first voxel comes to lie, which may be negative.
    """
    bent = deform(ellipsoid_box(lesion.semi_axes), lesion.displacements)
    middle = [2 * r for r in lesion.semi_axes]
    if lesion.tight and bent.any():
        # DiffTumor's crop ends one plane early in every axis; kept, to have the same statistics.
        box = ndimage.find_objects(bent.view(np.uint8))[0]
        bent = bent[tuple(slice(s.start, max(s.stop - 1, s.start + 1)) for s in box)]
        middle = [n // 2 for n in bent.shape]
    x, y, z = (c - m for c, m in zip(lesion.center_voxel, middle, strict=True))
    return bent, (x, y, z)


def ellipsoid_box(semi_axes: Sequence[int]) -> Mask:
    """Make an ellipsoid in a box of 4 r voxels per axis, centered on voxel 2 r.

    Voxel i is inside if sum(((i - 2 r) / r)^2) < 1, strictly; in integers, so no rounding decides.
    """
    box = np.zeros([4 * r for r in semi_axes], dtype=bool)
    product = math.prod(semi_axes)
    terms = ((np.arange(1 - r, r, dtype=np.int64) * (product // r)) ** 2 for r in semi_axes)
    i, j, k = np.ix_(*terms)
    box[tuple(slice(r + 1, 3 * r) for r in semi_axes)] = i + j + k < product**2
    return box


def box_center(mask: Mask) -> tuple[int, int, int]:
    """Return the middle voxel of a mask's bounding box, which need not belong to the mask."""
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    x, y, z = ((s.start + s.stop - 1) // 2 for s in box)
    return x, y, z


def check_organ(organ_mask: NDArray[Any]) -> Mask:
    """Return an organ as a bool (X, Y, Z) array.

    Raises:
        TumorShapeError: if it is not 3-D, holds other values than 0 and 1, or is empty.
    """
    organ_mask = np.asarray(organ_mask)
    if organ_mask.ndim != 3:
        raise TumorShapeError(f"the organ mask has shape {organ_mask.shape} instead of (X, Y, Z)")
    if organ_mask.dtype != np.bool_ and not np.isin(organ_mask, (0, 1)).all():
        raise TumorShapeError(
            "the organ mask holds values other than 0 and 1; name the label of one organ (MASK:5)"
        )
    if not organ_mask.any():
        raise TumorShapeError(
            "the organ mask is empty, so no tumor has a place in it. Check the label, and that mask "
            "and CT show the same region"
        )
    return np.ascontiguousarray(organ_mask, dtype=bool)


def _place(organ_mask: Mask, lesion: TumorShape, *, clip: bool) -> tuple[Mask, tuple[slice, ...]]:
    """Return the part of a lesion that lies in the array (in the organ), and where it lies."""
    bent, start = lesion_mask(lesion)
    ours, theirs = _overlap(bent.shape, start, organ_mask.shape)
    return bent[theirs] & organ_mask[ours] if clip else bent[theirs], ours


def _overlap(
    shape: Sequence[int], start: Sequence[int], canvas: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the common part of a box at `start` and a canvas: slices into canvas and box."""
    low = np.clip(start, 0, canvas)
    high = np.maximum(np.clip(np.add(start, shape), 0, canvas), low)
    ours = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    theirs = tuple(slice(s.start - at, s.stop - at) for s, at in zip(ours, start, strict=True))
    return ours, theirs


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise TumorShapeError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _check_integers(name: str, values: Sequence[int], low: int, high: int) -> None:
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if len(values) != 3 or not whole or not all(low <= v <= high for v in values):
        raise TumorShapeError(f"{name} is {values!r}; needed are three integers, {low} to {high}")


def _as_tuple(value: Any) -> Any:
    """Turn nested lists into nested tuples, which compare and stay as they are."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
