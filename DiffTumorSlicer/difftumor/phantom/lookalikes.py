"""Healthy dark things in the phantom's organs, so that darkness alone is no tumor."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy import ndimage

from difftumor.phantom.canvas import Canvas, coverage
from difftumor.phantom.material import Material
from difftumor.phantom.texture import smooth_field
from difftumor.phantom.tissue import Palette, tree_alpha
from difftumor.phantom.vessels import Trees

# organ: TotalSegmentator numbers, mean number of cysts beyond the first, smallest and largest radius in mm,
# how deep the center must lie in radii (cysts of the kidney bulge into the fat)
_CYSTS = {
    "liver": ((5,), 1.6, (2.0, 8.0), 1.1),
    "kidney": ((2, 3), 1.0, (2.5, 11.0), 0.2),
}


class LookAlike(IntEnum):
    """Healthy dark structures."""

    DUCT = 1
    FAT_CLEFT = 2
    CYST = 3
    FOCAL_FAT = 4
    DARK_VESSEL = 5


def add_look_alikes(
    canvas: Canvas, hu: np.ndarray, trees: Trees, palette: Palette, rng: np.random.Generator
) -> np.ndarray:
    """Paint ducts, clefts, focal fat and cysts into healthy organs, and mark the veins that are darker than the liver.

    Args:
        canvas: a fat cleft leaves the liver's label, a cyst has its organ's.
        hu: float32 (I, J, K), changed in place.

    Returns:
        uint8 (I, J, K) map of `LookAlike` values.
    """
    marks = np.zeros(canvas.shape, np.uint8)
    box = canvas.organ_box(5)
    liver = canvas.organs[box] == 5
    if palette.hepatic_vein < palette[Material.LIVER] - 8:
        alpha = tree_alpha(canvas, box, trees.hepatic)
        marks[box][(alpha > 0.6) & liver] = LookAlike.DARK_VESSEL
    _add_fissure(canvas, hu, marks, palette, rng)
    if trees.ducts:
        alpha = tree_alpha(canvas, box, trees.ducts) * liver
        hu[box] += alpha * (np.float32(palette.duct) - hu[box])
        marks[box][alpha > 0.6] = LookAlike.DUCT
    for organ, (_, mean_count, radius_mm, _) in _CYSTS.items():
        for _ in range(1 + rng.poisson(mean_count)):
            _add_cyst(canvas, hu, marks, rng, organ, float(np.exp(rng.uniform(*np.log(radius_mm)))))
    return marks


def _add_fissure(
    canvas: Canvas, hu: np.ndarray, marks: np.ndarray, palette: Palette, rng: np.random.Generator
) -> None:
    """Fissure of the round ligament: a fat cleft between the lobes; in half the patients focal fat beside it."""
    box = canvas.canonical_box((0, 10, -40), (45, 100, 62))
    x, y, z = (canvas.warped[c][box] for c in range(3))
    bend = 2.5 * smooth_field(rng, canvas.box_axes(box), 22.0)
    plane = np.abs(x - 19 - 0.12 * (z - 20) + 0.08 * (y - 40) + bend)
    top = rng.uniform(14, 32)
    width = rng.uniform(1.6, 3.6) * np.clip((top + 8 - z) / 14, 0, 1)
    liver = canvas.organs[box] == 5
    cleft = (plane < width) & liver & (y > 34)
    beside = (plane < width + rng.uniform(5, 9)) & liver & (y > 52) & (z < top - 2) & (bend > -1)
    if rng.random() < 0.5:
        amount = ndimage.gaussian_filter(beside.astype(np.float32), 2.0)
        hu[box] -= amount * np.float32(rng.uniform(18, 35)) * liver
        marks[box][(amount > 0.5) & liver] = LookAlike.FOCAL_FAT
    hu[box][cleft] = palette[Material.VISCERAL_FAT] + 20
    marks[box][cleft] = LookAlike.FAT_CLEFT
    canvas.paint(box, cleft, Material.VISCERAL_FAT)


def _add_cyst(
    canvas: Canvas,
    hu: np.ndarray,
    marks: np.ndarray,
    rng: np.random.Generator,
    organ: str,
    radius: float,
) -> None:
    """One simple cyst: water, round, sharp, without texture; none where the organ has no room."""
    numbers, _, _, depth = _CYSTS[organ]
    number = int(rng.choice(numbers))
    value = rng.uniform(0, 12)
    radii = radius * rng.uniform(0.85, 1.15, 3)
    box = canvas.organ_box(number)
    center = canvas.pick(
        rng, box, (canvas.organs[box] == number) & (marks[box] == 0), radius * depth
    )
    if center is None:
        return
    box, distance = canvas.lump(rng, center, radii, np.eye(3), roughness=0.03, margin_mm=2)
    room = canvas.organs[box] == number
    if organ == "kidney":
        room |= canvas.free(box)
    alpha = coverage(distance, 0.5) * room
    hu[box] += alpha * (np.float32(value) - hu[box])
    inside = (distance < 0) & room
    marks[box][inside] = LookAlike.CYST
    canvas.organs[box][inside] = number
