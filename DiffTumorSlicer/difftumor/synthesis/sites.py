"""Where tumors go and what shape they have: a placed ellipsoid, or random shapes in an organ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.ellipsoids import (
    Box,
    ellipsoid_box,
    ellipsoid_mask,
    half_extent_mm,
    rotation_matrix,
)
from difftumor.grids import Grid, crop_grid
from difftumor.images.resampling import covering_box, resample
from difftumor.parameters import Ellipsoid, SynthesisParameters, to_dict
from difftumor.remedies import Remedy, with_remedy
from difftumor.synthesis.shapes import TumorShape, lesion_mask, sample_lesions

CROP_MM = 96  # the networks see one crop of 96 voxels of 1 mm
CROP_MARGIN_MM = 4  # surroundings that must be visible around a tumor
NEEDED_MEMORY_GB = 2.0  # a process that makes a tumor with the full-size networks peaks below this
LATENT_STRIDE = 4  # the mask reaches the network as every fourth voxel


class SynthesisError(ValueError):
    """The tumor cannot be made as asked; the message says why and what to change."""


@dataclass(frozen=True, eq=False)
class Site:
    """One tumor: a place, and a shape that can be drawn on any grid.

    Attributes:
        center_ras: the point that the generator's crop is centered on, RAS mm.
        draw: the tumor's voxels on a grid, bool, before the organ clip.
        box_on: the index box of a grid that can hold the tumor.
        clip: whether the organ mask cuts it.
        facts: JSON-ready description from which the same site can be made again.
        index: number of the tumor in its request; decides its noise.
    """

    center_ras: NDArray[np.float64]
    draw: Callable[[Grid], NDArray[np.bool_]]
    box_on: Callable[[Grid], Box]
    clip: bool
    facts: dict[str, Any]
    index: int = 0


def sites_of(
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: SynthesisParameters,
    shapes: Mapping[int, TumorShape] | None = None,
) -> tuple[list[Site], list[str]]:
    """The tumors that were asked for, and sentences about them for the user.

    Args:
        grid: of the scan.
        organ: bool mask on it, or None.
        parameters: with an ellipsoid, or with a random size (needs `organ`).
        shapes: random shapes that were drawn before, by number; then nothing is drawn (replay).

    Raises:
        SynthesisError: no tumor of this size can be made there.
    """
    if parameters.ellipsoid is not None:
        return _ellipsoid_site(grid, parameters.ellipsoid, parameters.clip_to_organ)
    if organ is None or not organ.any():
        raise with_remedy(
            SynthesisError("random placement needs an organ mask with voxels in it."),
            Remedy("give_organ"),
        )
    occupied = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(organ))
    low, high = grid.cropped(occupied).bounds_ras  # type: ignore[arg-type]
    extent = tuple(int(n) for n in np.maximum(np.ceil(high - low), 1))
    shape_grid = crop_grid((low + high) / 2, extent)
    organ_1mm = resample(organ, grid, shape_grid, order=0)
    if shapes is None:
        rng = np.random.default_rng(parameters.seed)
        size = parameters.size or "small"
        drawn = sample_lesions(rng, size, organ_1mm, parameters.organ, parameters.count)
        shapes = dict(enumerate(drawn))
    clip = parameters.clip_to_organ
    return [_shape_site(index, shape, shape_grid, clip) for index, shape in shapes.items()], []


def _ellipsoid_site(grid: Grid, ellipsoid: Ellipsoid, clip: bool) -> tuple[list[Site], list[str]]:
    """The ellipsoid as a site, after the questions that have a clear answer before any computing."""
    geometry = (ellipsoid.center_ras, ellipsoid.radii_mm, ellipsoid.rotation_deg)
    if not grid.contains(np.asarray(ellipsoid.center_ras)):
        low, high = (tuple(round(float(v), 1) for v in edge) for edge in grid.bounds_ras)
        raise SynthesisError(
            f"the ellipsoid's center {ellipsoid.center_ras} lies outside the scan, which reaches from "
            f"{low} to {high} (R, A, S in mm). Move it into the scan."
        )
    axes = rotation_matrix(ellipsoid.rotation_deg) * np.asarray(ellipsoid.radii_mm)
    extent = 2 * np.linalg.norm(np.linalg.inv(grid.affine)[:3, :3] @ axes, axis=1)
    if extent.min() < 2:
        raise SynthesisError(
            f"the ellipsoid spans {extent.min():.1f} voxels along one axis of the scan; a tumor needs at "
            f"least two. In this scan radii from {grid.spacing.max():.1f} mm up fit in every direction."
        )
    widest = 2 * float(half_extent_mm(ellipsoid.radii_mm, ellipsoid.rotation_deg).max())
    limit = CROP_MM - 2 * CROP_MARGIN_MM - LATENT_STRIDE
    if widest > limit:
        raise SynthesisError(
            f"the ellipsoid is {widest:.0f} mm wide; the model sees one crop of {CROP_MM} mm and needs "
            f"{CROP_MARGIN_MM} mm around the tumor. Make it at most {limit} mm wide, or put several "
            "overlapping tumors one after the other."
        )
    box = ellipsoid_box(grid, *geometry)
    volume = 4 / 3 * np.pi * float(np.prod(ellipsoid.radii_mm))
    held = int(ellipsoid_mask(grid.cropped(box), *geometry).sum()) * grid.voxel_volume_mm3
    notes = []
    index = grid.to_ijk(np.asarray(ellipsoid.center_ras))
    beyond = (index - extent / 2 < -0.5) | (index + extent / 2 > np.asarray(grid.shape) - 0.5)
    # Thick slices alone can hold fewer voxel centers than the volume says; only a border cuts.
    if beyond.any() and held < 0.9 * volume:
        share = 100 * (1 - held / volume)
        notes.append(
            f"About {share:.0f} % of the ellipsoid lies outside the scan and was left out."
        )
    site = Site(
        np.asarray(ellipsoid.center_ras, float),
        lambda other: ellipsoid_mask(other, *geometry),
        lambda other: ellipsoid_box(other, *geometry),
        clip,
        {"shape": "ellipsoid", **to_dict(ellipsoid), "analytic_volume_mm3": round(volume, 3)},
    )
    return [site], notes


def _shape_site(index: int, shape: TumorShape, shape_grid: Grid, clip: bool) -> Site:
    """One bent ellipsoid on a 1 mm grid of its own, which may reach beyond the organ's box."""
    mask, start = lesion_mask(shape)
    affine = shape_grid.affine.copy()
    affine[:3, 3] = shape_grid.to_ras(start)
    own = Grid(mask.shape, affine)
    center = shape_grid.to_ras(shape.center_voxel)
    return Site(
        center,
        lambda other: resample(mask, own, other, order=0).astype(bool),
        lambda other: covering_box(own, other),
        clip and shape.clip_to_organ,
        {"shape": "random", "center_ras": center.round(3).tolist(), **shape.to_dict()},
        index,
    )
