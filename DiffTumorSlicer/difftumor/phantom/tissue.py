"""HU of the phantom: one value per material and patient, parenchymal texture, contents, and vessel trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftumor.phantom.canvas import Box, Canvas
from difftumor.phantom.material import TISSUE, Material
from difftumor.phantom.texture import smooth_field
from difftumor.phantom.vessels import Segment, Trees


@dataclass(frozen=True)
class Palette:
    """HU of this patient's tissues (by material) and of the vessels in the liver."""

    mean: np.ndarray
    hepatic_vein: float
    duct: float

    def __getitem__(self, material: Material) -> float:
        return float(self.mean[material])


def tissue_hu(canvas: Canvas, rng: np.random.Generator) -> tuple[np.ndarray, Palette]:
    """Turn the material map into HU.

    Returns:
        float32 (I, J, K) HU with hard edges and without noise; the palette of this patient.
    """
    table = np.array([TISSUE[m] for m in Material], np.float32)
    shift = np.clip(rng.standard_normal(len(table)), -2, 2).astype(np.float32)
    mean = table[:, 0] + table[:, 1] * shift
    # Enhancement rises and falls together with the injected dose and the circulation.
    dose = np.float32(rng.uniform(-1, 1))
    enhanced = (
        Material.ARTERY,
        Material.CAVA,
        Material.PORTAL,
        Material.HEART,
        Material.KIDNEY_CORTEX,
        Material.KIDNEY_MEDULLA,
    )
    mean[list(enhanced)] += 14 * dose
    mean[[Material.LIVER, Material.SPLEEN, Material.PANCREAS]] += 3 * dose
    oral_contrast = rng.random()
    if oral_contrast < 0.3:
        mean[[Material.STOMACH_CONTENT, Material.BOWEL_FLUID]] = (
            rng.uniform(150, 320),
            rng.uniform(120, 260),
        )
    veins = mean[Material.PORTAL] + rng.uniform(-22, 0)
    if rng.random() < 0.2:  # early phase: hepatic veins not yet filled and darker than the liver
        veins = mean[Material.LIVER] - rng.uniform(12, 38)
    palette = Palette(mean, hepatic_vein=float(veins), duct=float(rng.uniform(5, 25)))

    material = canvas.material
    hu = mean[material]
    hu += table[:, 2][material] * smooth_field(rng, canvas.axes, 14.0)
    hu += table[:, 3][material] * smooth_field(rng, canvas.axes, 2.6)
    _mottle_contents(canvas, hu, rng)
    _streak_fat(canvas, hu, rng)
    return hu, palette


def _mottle_contents(canvas: Canvas, hu: np.ndarray, rng: np.random.Generator) -> None:
    """Gas bubbles in feces, crumbs in the stomach."""
    for material, length, threshold, value in (
        (Material.FECES, 3.6, 0.75, -430.0),
        (Material.STOMACH_CONTENT, 3.0, 2.5, -260.0),
    ):
        index = np.nonzero(canvas.material == material)
        if len(index[0]) == 0:
            continue
        right, front, up = (slice(int(i.min()), int(i.max()) + 1) for i in index)
        box = (right, front, up)
        bubbles = smooth_field(rng, canvas.box_axes(box), length)
        bubbles += 0.8 * smooth_field(rng, canvas.box_axes(box), 16.0)
        picked = (canvas.material[box] == material) & (bubbles > threshold)
        hu[box][picked] = value


def _streak_fat(canvas: Canvas, hu: np.ndarray, rng: np.random.Generator) -> None:
    """Septa and small strands: thin sheets where a smooth field crosses zero."""
    sheet = np.abs(smooth_field(rng, canvas.axes, 17.0)) < 0.045
    fat = (canvas.material == Material.VISCERAL_FAT) | (
        canvas.material == Material.SUBCUTANEOUS_FAT
    )
    hu[sheet & fat] += np.float32(rng.uniform(22, 45))
    lobule = np.abs(smooth_field(rng, canvas.axes, (7.0, 7.0, 11.0))) < 0.06
    muscle = canvas.material == Material.MUSCLE
    hu[lobule & muscle] -= np.float32(rng.uniform(15, 50))


def paint_trees(canvas: Canvas, hu: np.ndarray, trees: Trees, palette: Palette) -> None:
    """Blend the vessels into the liver and the mesenteric fat."""
    box = canvas.organ_box(5)
    liver = (canvas.organs[box] == 5).astype(np.float32)
    for segments, value in (
        (trees.hepatic, palette.hepatic_vein),
        (trees.portal, palette[Material.PORTAL]),
    ):
        alpha = tree_alpha(canvas, box, segments) * liver
        hu[box] += alpha * (np.float32(value) - hu[box])
    whole = (slice(0, canvas.shape[0]), slice(0, canvas.shape[1]), slice(0, canvas.shape[2]))
    alpha = tree_alpha(canvas, whole, trees.mesenteric)
    alpha *= canvas.material == Material.VISCERAL_FAT
    hu += alpha * (np.float32(palette[Material.CAVA] - 10) - hu)


def tree_alpha(canvas: Canvas, box: Box, segments: list[Segment]) -> np.ndarray:
    """Coverage of a box by tubes, float32 0...1; thin vessels fade as partial volume makes them fade."""
    soft_mm = max(1.0, float(canvas.spacing.mean()))
    alpha = np.zeros([s.stop - s.start for s in box], np.float32)
    if alpha.size == 0:
        return alpha
    axes = canvas.box_axes(box)
    first, last = np.array([a[0] for a in axes]), np.array([a[-1] for a in axes])
    for a, b, ra, rb in segments:
        if np.any(np.maximum(a, b) < first - 8) or np.any(np.minimum(a, b) > last + 8):
            continue
        part, distance = canvas.tube(np.stack([a, b]), np.array([ra, rb]), margin_mm=soft_mm)
        low = [max(p.start, s.start) for p, s in zip(part, box, strict=True)]
        high = [min(p.stop, s.stop) for p, s in zip(part, box, strict=True)]
        if any(h <= g for g, h in zip(low, high, strict=True)):
            continue
        source = tuple(
            slice(g - p.start, h - p.start) for g, h, p in zip(low, high, part, strict=True)
        )
        target = tuple(
            slice(g - s.start, h - s.start) for g, h, s in zip(low, high, box, strict=True)
        )
        value = np.clip(0.5 - distance[source] / soft_mm, 0, 1)
        np.maximum(alpha[target], value, out=alpha[target])
    return alpha
