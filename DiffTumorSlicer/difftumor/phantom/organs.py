"""Solid organs of the phantom's abdomen, and the order in which everything inside the cavity is painted."""

from __future__ import annotations

import numpy as np

from difftumor.phantom.anatomy import Frame
from difftumor.phantom.bowel import paint_bowel, paint_stomach
from difftumor.phantom.canvas import Canvas, Knots, curve
from difftumor.phantom.material import Material
from difftumor.phantom.texture import smooth_field
from difftumor.phantom.vessels import Trees, grow_liver_trees, grow_mesentery, paint_great_vessels


def paint_organs(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> Trees:
    """Paint all organs, later ones over earlier ones, and return the trees that lie in them."""
    trees = Trees()
    paint_bowel(canvas, frame, rng)
    paint_stomach(canvas, frame, rng)
    _paint_liver(canvas, frame, rng)
    _paint_spleen(canvas, frame, rng)
    _paint_kidneys(canvas, frame, rng)
    _paint_pancreas(canvas, rng)
    paint_great_vessels(canvas, frame, rng)
    grow_liver_trees(canvas, trees, rng)
    grow_mesentery(canvas, trees, rng)
    return trees


def _paint_liver(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    left = rng.uniform(0.75, 1.15)
    low = rng.uniform(-12, 10)
    box = canvas.canonical_box((-75, -95, -95), (145, 105, 130), margin_mm=4)
    parts = [
        ((76, -4, 24), (64, 78, 66 - low * 0.3)),
        ((84, 2, -18 + low), (44, 58, 46)),
        ((30, 40, 36), (52, 48, 42)),
        ((-18 * left, 46, 40), (52 * left, 34, 30)),
        ((24, 0, 34), (20, 22, 30)),
    ]
    f = canvas.blob(box, parts, sharpness=2.6)
    f += 0.10 * smooth_field(rng, canvas.box_axes(box), 26.0)
    x, y, z = (canvas.warped[c][box] for c in range(3))
    # Visceral hollow: stomach, duodenum and hilum press from below, left and behind.
    hollow = ((x - 8) / 34) ** 2 + ((y - 4) / 30) ** 2 + ((z + 22) / 36) ** 2
    f -= 1.6 * np.exp(-2.2 * hollow)
    hilum = ((x - 36) / 20) ** 2 + ((y - 10) / 9) ** 2 + ((z - 4) / 16) ** 2
    f -= 3.0 * np.exp(-2.0 * hilum)
    liver = (f > 0) & frame.cavity(box, 1.8)
    soft = np.isin(canvas.material[box], (Material.VISCERAL_FAT, Material.HEART))
    soft |= np.isin(canvas.organs[box], (6, 18, 20))
    canvas.paint(box, liver & soft, Material.LIVER, 5)
    bladder, rho2 = canvas.ellipsoid(
        (50, 42, -26 + low), (13, 24, 17) * rng.uniform(0.85, 1.15, 3), tilt_deg=(-25, 0, 0)
    )
    ok = canvas.material[bladder] != Material.MUSCLE
    canvas.paint(bladder, (rho2 < 1.22) & ok, Material.BOWEL_WALL, 4)
    canvas.paint(bladder, (rho2 < 1.0) & ok, Material.BILE, 4)


def _paint_spleen(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    size = rng.uniform(0.85, 1.12)
    center = (-94, -32, 32 + rng.uniform(-8, 8))
    box, rho2 = canvas.ellipsoid(center, np.array((37, 56, 62)) * size, tilt_deg=(-25, 0, -18))
    x, y, z = (canvas.warped[c][box] for c in range(3))
    hollow = ((x + 62) / 26) ** 2 + ((y + 8) / 36) ** 2 + ((z - 34) / 55) ** 2
    rho2 = rho2 + 0.9 * np.exp(-2.5 * hollow) + 0.05 * smooth_field(rng, canvas.box_axes(box), 16.0)
    ok = frame.cavity(box, 2.0) & (canvas.free(box) | np.isin(canvas.organs[box], (6, 20)))
    canvas.paint(box, (rho2 < 1) & ok, Material.SPLEEN, 1)


def _paint_kidneys(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    for side, number, height in ((1, 2, -26), (-1, 3, -14)):
        size = rng.uniform(0.88, 1.08)
        center = np.array((64 if side > 0 else -60, -36, height + rng.uniform(-8, 8)))
        # Long axis follows the psoas: upper pole medial and posterior; hilum turned forwards.
        tilt = (-8, side * -13, side * 28)
        box, rho2 = canvas.ellipsoid(center, np.array((29, 24, 53)) * size, tilt_deg=tilt)
        noise = smooth_field(rng, canvas.box_axes(box), 13.0)
        rho2 = rho2 + 0.045 * noise
        hilum = center + np.array((-side * 21, 11, 0)) * size
        sx, sy, sz = (canvas.warped[c][box] - np.float32(hilum[c]) for c in range(3))
        along = -side * sx * 0.88 + sy * 0.47  # towards the hilum
        across = side * sx * 0.47 + sy * 0.88
        sinus = ((along + 2) / 18) ** 2 + (across / 7.0) ** 2 + (sz / (31 * size)) ** 2
        sinus = sinus + 0.35 * smooth_field(rng, canvas.box_axes(box), 8.0)
        free = ~np.isin(
            canvas.material[box],
            (Material.MUSCLE, Material.CORTICAL_BONE, Material.TRABECULAR_BONE),
        )
        free &= frame.depth[box] > frame.wall[box]
        # Perirenal fat pushes bowel and liver off the capsule.
        canvas.paint(box, (rho2 < 1.12) & free & (canvas.organs[box] != 5), Material.VISCERAL_FAT)
        kidney = (rho2 < 1) & free
        canvas.paint(box, kidney, Material.KIDNEY_CORTEX, number)
        # Pyramids: cones between the sinus and the cortex, parted by columns of cortex.
        pyramids = smooth_field(rng, canvas.box_axes(box), 10.0)
        canvas.paint(
            box, kidney & (rho2 < 0.55) & (pyramids > -0.35), Material.KIDNEY_MEDULLA, number
        )
        canvas.paint(box, kidney & (sinus < 1), Material.VISCERAL_FAT, 0)
        pelvis = (along / 13) ** 2 + (across / 4) ** 2 + (sz / 10) ** 2 + 0.2 * noise < 0.8
        canvas.paint(box, pelvis & (rho2 < 1.1), Material.URINE, 0)
        adrenal = canvas.warp.place(
            center
            + np.array([(-side * 18, 14, 50), (-side * 24, 0, 56), (-side * 8, -8, 50)])
            * (1, 1, size)
        )
        for a, b in ((0, 1), (1, 2)):
            abox, d = canvas.tube(adrenal[[a, b]], np.array((2.2, 2.4)))
            canvas.paint(abox, (d < 0) & canvas.free(abox), Material.ADRENAL, 8 if side > 0 else 9)


def _paint_pancreas(canvas: Canvas, rng: np.random.Generator) -> None:
    up = rng.uniform(-6, 8)
    thick = rng.uniform(0.95, 1.25)
    knots: Knots = [
        (28, 18, -36, 10), (25, 21, -20, 14), (10, 28, -7 + up, 10), (-10, 32, up, 10),
        (-34, 22, 4 + up, 10.5), (-58, 3, 10 + up, 11), (-75, -12, 16 + up, 8),
    ]  # fmt: skip
    points, radii = curve(knots)
    box, distance = canvas.tube(canvas.warp.place(points), radii * thick, margin_mm=4)
    axes = canvas.box_axes(box)
    # Lobules: two scales of roughness; fat grows between them.
    distance = distance + 1.3 * smooth_field(rng, axes, 9.0) + 0.9 * smooth_field(rng, axes, 4.0)
    ok = canvas.free(box) | np.isin(canvas.organs[box], (6, 18, 20))
    canvas.paint(box, (distance < 2.2) & ok, Material.VISCERAL_FAT)
    canvas.paint(box, (distance < 0) & ok, Material.PANCREAS, 7)
