"""Figures of an image that must not differ between real and synthetic cases: everything but the lesion itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.grids import Box, Grid
from difftumor.reader_study.audit.showings import lesion_mask

AIR_HU, FAT_HU, SOFT_HU, BONE_HU = (-3000, -300), (-150, -30), (0, 200), (250, 4000)
AWAY_MM = 8.0  # from here on the image is no longer that of the lesion
RING_MM = 3.0  # width of the two rings in which a seam is looked for
REACH_MM = 18.0  # how far around the lesion its surroundings go
FEWEST_VOXELS = 40
MOST_VOXELS = 2_000_000  # of those that enter histograms
# How figures are named in reports: "kind: name".
Features = dict[tuple[str, str], float]


def image_features(path: Path, lesions: Mapping[str, Any] | None) -> Features:
    """Figures of one copy.

    Args:
        path: of the image.
        lesions: packed mask of the key; None: no lesion, and no figures of its surroundings.

    Returns:
        (kind of finding, name) -> value; NaN where there is too little to measure.
    """
    image: Any = nib.load(path)
    array = np.asanyarray(image.dataobj)
    grid = Grid(array.shape, image.affine)
    if lesions is None:
        return {**_whole(array, None), **_noise(array, np.ones(array.shape, bool), "in the image")}
    mask = lesion_mask(lesions, grid)
    box = _around(mask, grid, REACH_MM)
    part, inside = array[box].astype(np.float32), mask[box]
    distance = ndimage.distance_transform_edt(~inside, sampling=grid.spacing)
    far = distance > AWAY_MM
    away = np.ones(array.shape, bool)
    away[box] = far
    return {
        **_whole(array, away),
        **_noise(part, far, "away from the lesion"),
        **_seam(part, distance, grid.spacing),
        **_lesion_digits(part, inside, far),
    }


def _whole(array: NDArray[np.generic], away: NDArray[np.bool_] | None) -> Features:
    """Rounding and histogram of the image without the lesion."""
    stride = max(1, math.ceil(array.size / MOST_VOXELS))
    flat = array.reshape(-1, order="A")[::stride]
    if away is not None:
        flat = flat[away.reshape(-1, order="F" if array.flags.f_contiguous else "C")[::stride]]
    values = flat.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    between = values[(values > low) & (values < high)]
    found: Features = {
        ("rounding", "lowest value"): low,
        ("rounding", "highest value"): high,
        ("rounding", "share of voxels at the lowest value"): float((values == low).mean()),
        ("rounding", "share of voxels at the highest value"): float((values == high).mean()),
        **_digits(between, ""),
    }
    for name, (first, last) in (
        ("air", AIR_HU),
        ("fat", FAT_HU),
        ("soft tissue", SOFT_HU),
        ("bone", BONE_HU),
    ):
        found["histogram", f"share of {name}"] = float(((values >= first) & (values < last)).mean())
    tissue = values[(values > -200) & (values < BONE_HU[0])]
    for q in (5, 25, 50, 75, 95):
        found["histogram", f"{q}th percentile of tissue"] = (
            float(np.percentile(tissue, q)) if tissue.size else math.nan
        )
    return found


def _digits(values: NDArray[np.float64], where: str) -> Features:
    """Traces of rounding and scaling: fractions, even values, tens, gaps between values in use."""
    if values.size < FEWEST_VOXELS:
        names = ("share of fractions", "share of even values", "share of multiples of 5", "gaps")
        return {("rounding", name + where): math.nan for name in names}
    whole = np.rint(values)
    used = np.unique(whole[np.abs(whole - np.median(whole)) <= 100])
    span = used[-1] - used[0] + 1
    return {
        ("rounding", "share of fractions" + where): float((whole != values).mean()),
        ("rounding", "share of even values" + where): float((whole % 2 == 0).mean()),
        ("rounding", "share of multiples of 5" + where): float((whole % 5 == 0).mean()),
        ("rounding", "gaps" + where): float(1 - used.size / span),
    }


def _lesion_digits(
    part: NDArray[np.float32], inside: NDArray[np.bool_], far: NDArray[np.bool_]
) -> Features:
    """Whether values within the lesion are rounded otherwise than around it."""
    here = _digits(part[inside].astype(float), " within the lesion less around it")
    there = _digits(part[far].astype(float), " within the lesion less around it")
    # Gaps depend on the number of voxels, which is the lesion's size.
    return {key: here[key] - there[key] for key in here if not key[1].startswith("gaps")}


def _noise(array: NDArray[Any], where: NDArray[np.bool_], place: str) -> Features:
    """Strength and grain of noise in soft tissue."""
    soft = where & (array >= SOFT_HU[0]) & (array < SOFT_HU[1])
    right, front, up = (_spread(_bends(array, soft, axis)) for axis in range(3))
    in_slice = (right + front) / 2
    grain = _ratio(_spread(_bends(array, soft, 0, reach=2)), right)
    return {
        ("noise", f"noise in the slice {place}"): in_slice,
        ("noise", f"noise along R by that along A {place}"): _ratio(right, front),
        ("noise", f"noise across slices by that in the slice {place}"): _ratio(up, in_slice),
        ("noise", f"grain (noise over two voxels by that over one) {place}"): grain,
    }


def _seam(
    part: NDArray[np.float32], distance: NDArray[np.floating], spacing_mm: NDArray[np.float64]
) -> Features:
    """Noise in two rings around the lesion, by that farther away; blending leaves traces there.

    Args:
        part: HU around the lesion.
        distance: from the lesion, mm; 0 inside.
        spacing_mm: voxel size; a ring is two voxels wide at least.
    """
    soft = (part >= SOFT_HU[0]) & (part < SOFT_HU[1]) & (distance > 0)
    width = max(RING_MM, 2 * float(spacing_mm[:2].max()))
    rings = {
        "next to the lesion": (distance > 0) & (distance <= width),
        "a little away from the lesion": (distance > width) & (distance <= 2 * width),
    }
    reference = distance > max(AWAY_MM, 2.5 * width)
    found: Features = {}
    for what, reach in (("noise", 1), ("noise over two voxels", 2)):

        def spread(middles: NDArray[np.bool_], reach: int = reach) -> float:
            both = [_bends(part, soft, axis, reach, middles) for axis in (0, 1)]
            return _spread(np.concatenate(both))

        far = spread(reference)
        for name, ring in rings.items():
            found["seam", f"{what} {name} by that farther away"] = _ratio(spread(ring), far)
    return found


def _bends(
    array: NDArray[np.generic],
    where: NDArray[np.bool_],
    axis: int,
    reach: int = 1,
    middles: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """a[i - reach] - 2 a[i] + a[i + reach] of triples in `where` with their middle in `middles`: blind to slopes."""
    values, kept = np.moveaxis(array, axis, 0), np.moveaxis(where, axis, 0)
    if values.shape[0] <= 2 * reach:
        return np.empty(0, np.float32)
    left, middle, right = slice(None, -2 * reach), slice(reach, -reach), slice(2 * reach, None)
    triples = kept[left] & kept[middle] & kept[right]
    if middles is not None:
        triples &= np.moveaxis(middles, axis, 0)[middle]
    a, b, c = (values[part][triples].astype(np.float32) for part in (left, middle, right))
    return a - 2 * b + c


def _spread(values: NDArray[np.float32]) -> float:
    """Root mean square with the outer tenth drawn in, since edges are no noise; NaN of too few."""
    if values.size < FEWEST_VOXELS:
        return math.nan
    return float(np.sqrt(np.mean(np.clip(values, *np.percentile(values, [5, 95])) ** 2)))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _around(mask: NDArray[np.bool_], grid: Grid, reach_mm: float) -> Box:
    """The box that holds the mask and so many mm around it."""
    found = []
    for axis, spacing in enumerate(grid.spacing):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = math.ceil(reach_mm / spacing) + 1
        found.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + margin + 1))
    return found[0], found[1], found[2]
