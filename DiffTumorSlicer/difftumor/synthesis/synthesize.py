"""Tumor synthesis in a scan: what the generator sees, and how its tumor is put back.

The generator (`generators.py`) only ever sees one 96 mm crop of 1 mm voxels along R, A, S. Everything
else happens on the scan's own grid, so that every voxel outside the blended region stays bit-identical
(method: DiffTumor, Chen et al., CVPR 2024; crop and way back are ours, the paper works on crops only).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from difftumor.ellipsoids import Box
from difftumor.grids import Grid, crop_grid
from difftumor.images.resampling import covering_box, resample
from difftumor.parameters import SynthesisParameters
from difftumor.remedies import Remedy, advice_of, with_remedy
from difftumor.synthesis import blending
from difftumor.synthesis.shapes import TumorShape
from difftumor.synthesis.sites import (
    CROP_MARGIN_MM,
    CROP_MM,
    LATENT_STRIDE,
    Site,
    SynthesisError,
    sites_of,
)

AIR_HU = -1024.0
Callback = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Generated:
    """A crop with a tumor, float32 HU (96, 96, 96).

    Attributes:
        hu: what was painted.
        reference: what it is to be compared with; None is the scan itself, clipped to the model's window.
        feather_mm: the method's own rim instead of the asked one.
    """

    hu: NDArray[np.float32]
    reference: NDArray[np.float32] | None = None
    feather_mm: float | None = None


class Generator(Protocol):
    """Paints a tumor into a crop; `facts` (id, title, sha256) go into the side-car."""

    facts: dict[str, Any]
    device_name: str

    def generate(
        self,
        hu: NDArray[np.float32],
        mask: NDArray[np.bool_],
        parameters: SynthesisParameters,
        seed: int,
        callback: Callback,
    ) -> Generated:
        """Crop in HU and tumor mask, both (X, Y, Z) of 1 mm voxels, to the crop with the tumor."""
        ...


@dataclass(frozen=True, eq=False)
class SynthesisResult:
    """What changed: one box of the scan's grid.

    Attributes:
        box: slices into the scan.
        patch: the scan's voxels in `box` with the tumors, in the scan's voxel type.
        mask: tumors in `box`, bool; the hard mask, never the feathered one.
        lesions: JSON-ready facts of each tumor.
        notes: sentences for the user.
    """

    box: Box
    patch: NDArray[np.generic]
    mask: NDArray[np.bool_]
    lesions: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def applied_to(self, scan: NDArray[np.generic]) -> NDArray[np.generic]:
        """Copy of the scan with the tumors in it."""
        result = scan.copy()
        result[self.box] = self.patch
        return result

    def full_mask(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """0/1 mask on the scan's grid."""
        result = np.zeros(shape, np.uint8)
        result[self.box] = self.mask
        return result


def synthesize(
    scan: NDArray[np.generic],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: SynthesisParameters,
    generator: Generator,
    callback: Callback | None = None,
    shapes: Mapping[int, TumorShape] | None = None,
) -> SynthesisResult:
    """Put one or several tumors into a scan, one after the other.

    Args:
        scan: (I, J, K) HU in any voxel type; never changed.
        grid: its geometry.
        organ: bool mask on the same grid, or None (then nothing is clipped).
        parameters: an ellipsoid, or a random size (needs `organ`).
        generator: paints one crop.
        callback: called with stage, done, total; may raise Cancelled.
        shapes: random shapes of an earlier result, to make it again; see `shapes_of`.

    Returns:
        the changed box.

    Raises:
        SynthesisError: no tumor can be made there; says why and what to change.
    """
    for name, array in (("scan", scan), ("organ mask", organ)):
        if array is not None and array.shape != grid.shape:
            raise ValueError(f"the {name} has shape {array.shape}, its grid {grid.shape}")
    sites, notes = sites_of(grid, organ, parameters, shapes)
    work = scan.copy()
    tumors = np.zeros(grid.shape, bool)
    changed: list[Box] = []
    lesions: list[dict[str, Any]] = []
    for number, site in enumerate(sites, start=1):
        tag = f"tumor {number} of {len(sites)}: " if len(sites) > 1 else ""

        def report(stage: str, done: int, total: int, tag: str = tag) -> None:
            if callback is not None:
                callback(tag + stage, done, total)

        seed = lesion_seed(parameters.seed, site.index)
        try:
            box, facts = _add_tumor(
                work, tumors, grid, organ, site, parameters, generator, seed, report
            )
        except SynthesisError as error:
            # A random shape may miss the organ by its bending; the others still count.
            if number == len(sites) and not changed:
                raise
            notes.append(f"Tumor {number} was left out: {advice_of(error).message}")
            continue
        notes += facts.pop("notes")
        changed.append(box)
        lesions.append({"index": site.index, **site.facts, **facts, "noise_seed": seed})
    box = _union(changed)
    return SynthesisResult(box, work[box].copy(), tumors[box].copy(), lesions, notes)


def shapes_of(lesions: Sequence[Mapping[str, Any]]) -> dict[int, TumorShape] | None:
    """Random shapes that a side-car holds, by number; None if the tumors were placed ellipsoids.

    Raises:
        TumorShapeError: the side-car is damaged.
        KeyError: likewise.
    """
    if not any(lesion.get("shape") == "random" for lesion in lesions):
        return None
    names = [item.name for item in fields(TumorShape)]
    return {
        int(lesion["index"]): TumorShape.from_dict({name: lesion[name] for name in names})
        for lesion in lesions
    }


def lesion_seed(seed: int, index: int) -> int:
    """Seed of the noise of tumor `index`: independent streams from the one number the user sees."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 1)


def crop_around(center_ras: NDArray[np.float64], grid: Grid) -> Grid:
    """The 96 mm crop that the generator sees.

    The tumor's center falls on index 48, a voxel that survives the sub-sampling of the latent mask;
    where the crop would look beyond the scan it is moved by multiples of 4 mm, which keeps that.
    """
    low, high = grid.bounds_ras
    start = np.asarray(center_ras, float) - CROP_MM / 2
    moved = np.clip(start, low, np.maximum(high - CROP_MM, low))
    shift = LATENT_STRIDE * np.trunc((moved - start) / LATENT_STRIDE)
    shift = np.where(high - low >= CROP_MM, shift, 0.0)
    shift = np.clip(shift, -CROP_MM / 2 + 2 * LATENT_STRIDE, CROP_MM / 2 - 2 * LATENT_STRIDE)
    return crop_grid(start + shift + (CROP_MM - 1) / 2, (CROP_MM,) * 3)


def _add_tumor(
    work: NDArray[np.generic],
    tumors: NDArray[np.bool_],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    site: Site,
    parameters: SynthesisParameters,
    generator: Generator,
    seed: int,
    callback: Callback,
) -> tuple[Box, dict[str, Any]]:
    """Paint one tumor into `work` and `tumors` (both changed in place, after all that can fail)."""
    crop = crop_around(site.center_ras, grid)
    clip = organ if site.clip else None
    box, mask, facts = _mask_in_scan(site, grid, crop, clip)
    crop_mask = site.draw(crop)
    if clip is not None:
        crop_mask &= resample(clip, grid, crop, order=0).astype(bool)
    if not crop_mask[::LATENT_STRIDE, ::LATENT_STRIDE, ::LATENT_STRIDE].any():
        raise SynthesisError(
            "the tumor is too thin for the model, which sees the mask on a grid of 4 mm and finds no "
            "voxel of it there. Make it thicker, or switch the organ clip off."
        )
    hu = resample(work, grid, crop, order=1, fill=AIR_HU)
    if not np.isfinite(hu).all():
        raise SynthesisError(
            "the scan has voxels that are not numbers around the tumor. Repair the scan first."
        )
    generated = generator.generate(hu, crop_mask, parameters, seed, callback)

    sigma = parameters.feather_mm if generated.feather_mm is None else generated.feather_mm
    whole_crop = False
    if parameters.blend == "paper" and generated.feather_mm is None:
        whole_crop = parameters.organ == "pancreas"
        sigma = float(np.random.default_rng(seed).uniform(0, 4))
    region = covering_box(crop, grid) if whole_crop else _grown(box, grid, sigma)
    weight = np.zeros([part.stop - part.start for part in region], np.float32)
    inner = tuple(
        slice(b.start - r.start, b.stop - r.start) for b, r in zip(box, region, strict=True)
    )
    weight[inner] = mask
    if whole_crop:
        weight[:] = 1
    else:
        weight = blending.feather_weight(weight > 0, grid.spacing, sigma)
    part = grid.cropped(region)
    painted = generated.hu if generated.reference is None else generated.hu - generated.reference
    if parameters.blend == "paper" and generated.reference is None and not whole_crop:
        painted = np.clip(painted, *blending.WINDOW_HU)
    painted = resample(painted, crop, part, order=1, fill=np.nan)
    weight[np.isnan(painted)] = 0
    if not whole_crop:
        # A wide rim must end before the crop does, or its end shows as an edge.
        weight *= np.nan_to_num(resample(_border_ramp(), crop, part, order=1, fill=0))
    before = work[region]
    after = blending.blend(
        before if parameters.blend == "feather" else _windowed(before, weight),
        np.nan_to_num(painted, copy=False),
        None if generated.reference is None else np.zeros_like(painted),
        weight,
    )
    facts |= _contrast(before[inner], after[inner], mask)
    facts |= {"feather_mm": round(sigma, 4), "crop_origin_ras": crop.affine[:3, 3].tolist()}
    work[region] = after
    tumors[box] |= mask
    return region, facts


def _mask_in_scan(
    site: Site, grid: Grid, crop: Grid, clip: NDArray[np.bool_] | None
) -> tuple[Box, NDArray[np.bool_], dict[str, Any]]:
    """The tumor's voxels in the scan: clipped to the organ and to what the generator sees."""
    notes = []
    seen = crop.cropped((slice(CROP_MARGIN_MM, CROP_MM - CROP_MARGIN_MM),) * 3)
    box = site.box_on(grid)
    drawn = site.draw(grid.cropped(box))
    whole = int(drawn.sum())
    mask = drawn & seen.contains(grid.centers(box))
    if mask.sum() < drawn.sum():
        notes.append(f"The tumor was cut at the border of the {CROP_MM} mm that the model sees.")
    if clip is not None:
        mask &= clip[box]
        if not mask.any():
            raise with_remedy(
                SynthesisError("the tumor lies entirely outside the organ mask."),
                Remedy("leave_organ"),
            )
        if mask.sum() < 0.5 * whole:
            share = 100 * mask.sum() / whole
            notes.append(
                f"Only {share:.0f} % of the tumor lies in the organ; the rest was cut off."
            )
    if not mask.any():
        raise SynthesisError("no voxel of the scan lies in the tumor. Make it larger or move it.")
    volume = float(mask.sum()) * grid.voxel_volume_mm3
    facts = {
        "volume_before_clip_mm3": round(whole * grid.voxel_volume_mm3, 3),
        "volume_mm3": round(volume, 3),
        "equivalent_diameter_mm": round((6 * volume / np.pi) ** (1 / 3), 3),
        "notes": notes,
    }
    return box, mask, facts


def _border_ramp() -> NDArray[np.float32]:
    """1 inside the crop, falling to 0 over its outermost CROP_MARGIN_MM; (96, 96, 96)."""
    index = np.arange(CROP_MM)
    depth = np.minimum(index, CROP_MM - 1 - index).astype(np.float32)
    ramp = np.minimum(depth / CROP_MARGIN_MM, 1)
    return np.minimum(np.minimum(ramp[:, None, None], ramp[:, None]), ramp)


def _windowed(hu: NDArray[np.generic], weight: NDArray[np.float32]) -> NDArray[np.generic]:
    """The published rule keeps nothing beyond the window inside the blended region."""
    return np.where(weight > 0, np.clip(hu, *blending.WINDOW_HU), hu).astype(hu.dtype)


def _contrast(
    before: NDArray[np.generic], after: NDArray[np.generic], mask: NDArray[np.bool_]
) -> dict[str, Any]:
    """Mean and standard deviation in HU inside the tumor, before and after."""
    values = {"before": before[mask], "after": after[mask]}
    return {
        f"hu_{name}": {"mean": round(float(v.mean()), 2), "sd": round(float(v.std()), 2)}
        for name, v in values.items()
    }


def _grown(box: Box, grid: Grid, sigma_mm: float) -> Box:
    margin = blending.feather_margin(grid.spacing, sigma_mm)
    return tuple(  # type: ignore[return-value]
        slice(max(part.start - int(m), 0), min(part.stop + int(m), n))
        for part, m, n in zip(box, margin, grid.shape, strict=True)
    )


def _union(boxes: list[Box]) -> Box:
    return tuple(  # type: ignore[return-value]
        slice(min(b[d].start for b in boxes), max(b[d].stop for b in boxes)) for d in range(3)
    )
