"""Phantoms: synthetic CT with exact labels, for tests, demonstration and the training of demonstration models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftumor.grids import Grid
from difftumor.phantom.anatomy import paint_frame
from difftumor.phantom.arguments import check_common
from difftumor.phantom.canvas import Canvas, Warp
from difftumor.phantom.lesions import Lesion, add_lesions, measure
from difftumor.phantom.lookalikes import add_look_alikes
from difftumor.phantom.material import Material
from difftumor.phantom.organs import paint_organs
from difftumor.phantom.texture import Axes, blur_point_spread, ct_noise
from difftumor.phantom.tissue import paint_trees, tissue_hu

PHANTOM_VERSION = 1
"""Raised whenever a seed would give another image."""

TRAINING_SEEDS = range(0, 10_000)
"""Seeds that training may draw from."""

VALIDATION_SEEDS = range(10_200, 10_400)
"""Seeds for choosing between models, stopping early and tuning."""

TEST_SEEDS = range(10_000, 10_200)
"""Seeds for the figures that are reported; nothing is ever trained, tuned or chosen on them."""

FIELD_MM = (336.0, 256.0, 192.0)
"""Field of view along R, A, S when no shape is given."""

TUMOR_ORGANS = ("liver", "pancreas", "kidney")
TUMOR_SIZES_MM = (3.0, 20.0)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic case and everything that is known about it.

    Attributes:
        ct: int16 (I, J, K), HU with noise.
        clean: float32 (I, J, K), HU before the noise was added.
        organs: uint8 (I, J, K), TotalSegmentator v2 numbers; an organ includes its tumors.
        tumors: uint8 (I, J, K), tumors 1...n, 0 elsewhere.
        look_alikes: uint8 (I, J, K), healthy dark things, values of `LookAlike`, 0 elsewhere; never overlaps `tumors`.
        grid: voxels to RAS mm.
        lesions: facts of each tumor, in the order of their labels.
        noise_hu: standard deviation of the noise.
        seed, version: what makes the case again.
    """

    ct: np.ndarray
    clean: np.ndarray
    organs: np.ndarray
    tumors: np.ndarray
    look_alikes: np.ndarray
    grid: Grid
    lesions: tuple[Lesion, ...]
    noise_hu: float
    seed: int
    version: int = PHANTOM_VERSION


def make_abdomen(
    seed: int,
    *,
    tumors: int = 0,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    shape: tuple[int, int, int] | None = None,
    orientation: str = "RAS",
    tumor_organs: tuple[str, ...] = TUMOR_ORGANS,
    tumor_radius_mm: tuple[float, float] = TUMOR_SIZES_MM,
    noise_hu: float | None = None,
    table: bool = True,
) -> Phantom:
    """Make an abdomen in the portal-venous phase.

    The same seed gives the same patient on every grid (sizes, places, HU of the organs); fine surface detail, texture,
    cysts, tumors and noise depend on the grid too. Equal arguments give equal bytes on one machine and one version of
    the libraries.

    Args:
        seed: non-negative; see TRAINING_SEEDS, VALIDATION_SEEDS, TEST_SEEDS.
        tumors: number of lesions, 0 to 255, dealt to `tumor_organs` in turn from a random start.
        spacing_mm: voxel size along I, J, K, 0.4 to 8 mm.
        shape: voxels along I, J, K, at least 8 each, centered on the body; FIELD_MM if None.
        orientation: direction of growing indices, "R" or "L", "A" or "P", "S" or "I"; scanners write "LPS".
        tumor_organs: any of "liver", "pancreas", "kidney".
        tumor_radius_mm: smallest and largest mean radius, 2 to 40 mm; drawn log-uniformly.
        noise_hu: standard deviation of the noise; None draws 8 to 18 HU at 1 mm, less for thicker slices.
        table: whether the patient lies on a table.

    Returns:
        the phantom.

    Raises:
        ValueError: for an argument out of range, or when a tumor finds no place.
    """
    _check(seed, tumors, spacing_mm, shape, orientation, tumor_organs, tumor_radius_mm, noise_hu)
    spacing = np.asarray(spacing_mm, float)
    if shape is None:
        shape = tuple(round(f / s) for f, s in zip(FIELD_MM, spacing, strict=True))
    # One stream per part, so that a lesion more does not change the patient or the noise.
    streams = [np.random.default_rng([seed, PHANTOM_VERSION, part]) for part in range(8)]
    axes = tuple(
        ((np.arange(n) - (n - 1) / 2) * s).astype(np.float32)
        for n, s in zip(shape, spacing, strict=True)
    )
    canvas = Canvas(axes, Warp.sample(streams[0]))
    frame = paint_frame(canvas, streams[1])
    if table:
        _paint_table(canvas)
    trees = paint_organs(canvas, frame, streams[2])
    del frame
    hu, palette = tissue_hu(canvas, streams[3])
    paint_trees(canvas, hu, trees, palette)
    look_alikes = add_look_alikes(canvas, hu, trees, palette, streams[4])
    tumor_map, drafts = add_lesions(
        canvas,
        hu,
        look_alikes,
        streams[5],
        count=tumors,
        organs=tumor_organs,
        radius_mm=tumor_radius_mm,
    )
    canvas.warped = np.empty((3, 0, 0, 0), np.float32)  # 200 MB that nobody reads any more
    clean = blur_point_spread(hu, spacing, psf_mm=streams[6].uniform(0.55, 0.85))
    np.maximum(clean, -1000, out=clean)
    sigma = streams[6].uniform(8, 18) * min(1.0, spacing[2] ** -0.5)
    sigma = sigma if noise_hu is None else float(noise_hu)
    noise = ct_noise(streams[7], shape, spacing, peak_per_mm=streams[6].uniform(0.17, 0.26))
    ct = np.rint(np.clip(clean + _noise_profile(axes) * sigma * noise, -1024, 3071)).astype(
        np.int16
    )

    lesions = tuple(measure(draft, clean, canvas, tumor_map) for draft in drafts)
    signs = np.where(np.array(list(orientation)) == np.array(list("RAS")), 1, -1)
    affine = np.diag([*(signs * spacing), 1.0])
    affine[:3, 3] = signs * [
        float(a[0]) for a in axes
    ]  # the grid is centered, so a flip swaps its ends

    def oriented(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[:: signs[0], :: signs[1], :: signs[2]])

    return Phantom(
        ct=oriented(ct),
        clean=oriented(clean),
        organs=oriented(canvas.organs),
        tumors=oriented(tumor_map),
        look_alikes=oriented(look_alikes),
        grid=Grid(shape, affine),
        lesions=lesions,
        noise_hu=float(sigma),
        seed=seed,
    )


def _noise_profile(axes: Axes) -> np.ndarray:
    """Noise is highest where the rays have crossed most tissue: the middle of the body; float32 (I, J, 1)."""
    x, y = axes[0][:, None] / 150, axes[1][None, :] / 110
    return (0.72 + 0.45 * np.exp(-1.2 * (x * x + y * y)))[:, :, None].astype(np.float32)


def _paint_table(canvas: Canvas) -> None:
    """Two thin shells under the back where the field of view shows them."""
    x, y = canvas.axes[0][:, None, None], canvas.axes[1][None, :, None]
    bow = y - 0.0016 * x * x + 118
    shell = np.broadcast_to((np.abs(bow) < 0.9) | (np.abs(bow + 14) < 0.9), canvas.shape)
    canvas.material[shell & (canvas.material == Material.AIR)] = Material.TABLE


def _check(
    seed: int,
    tumors: int,
    spacing_mm: tuple[float, ...],
    shape: tuple[int, ...] | None,
    orientation: str,
    tumor_organs: tuple[str, ...],
    tumor_radius_mm: tuple[float, float],
    noise_hu: float | None,
) -> None:
    """Refuse what cannot be made, naming the argument, what was given and what is allowed."""
    check_common(seed, tumors, 255, spacing_mm, shape, orientation, tumor_radius_mm)
    if not tumor_organs or any(o not in TUMOR_ORGANS for o in tumor_organs):
        raise ValueError(f"tumor_organs must be some of {TUMOR_ORGANS}, not {tumor_organs}")
    if noise_hu is not None and not 0 <= noise_hu <= 200:
        raise ValueError(f"noise_hu must be 0 to 200 HU, not {noise_hu}")
