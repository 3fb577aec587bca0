"""Vessels of the phantom: the great ones in their canonical courses, and trees grown by chance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from difftumor.phantom.anatomy import Frame, spine_depth
from difftumor.phantom.canvas import Canvas, Knots, curve
from difftumor.phantom.material import Material

Segment = tuple[np.ndarray, np.ndarray, float, float]
"""Start, end (3,), radius at the start, radius at the end; mm."""

# Knots (x, y, z, radius) in canonical mm.
_SPLENIC: Knots = [
    (14, 12, 0, 6.2),
    (-12, 18, 5, 4.2),
    (-38, 7, 12, 3.9),
    (-64, -12, 21, 3.7),
    (-82, -24, 27, 3),
]
_MESENTERIC_VEIN: Knots = [(14, 12, 0, 6.8), (12, 18, -25, 6), (12, 20, -50, 5.5), (16, 28, -95, 4)]
_PORTAL: Knots = [(14, 12, 0, 7.2), (24, 10, 8, 7), (36, 8, 16, 7)]
_PORTAL_BRANCHES: tuple[Knots, ...] = (
    [(36, 8, 16, 6.5), (54, 4, 22, 6), (66, 2, 26, 5.4)],
    [(36, 8, 16, 5.6), (26, 22, 28, 5), (16, 36, 34, 4.5)],
)
# For each branch: where its daughters leave, in which direction, with which radius.
_PORTAL_DAUGHTERS = (
    (
        ((66, 2, 26), (0.8, 0.6, 0.5), 4.6),
        ((66, 2, 26), (0.7, -0.7, 0.3), 4.4),
        ((66, 2, 26), (0.6, 0.1, -0.9), 4.3),
        ((58, 4, 24), (0.4, 0.3, 1), 3.4),
    ),
    (
        ((16, 36, 34), (-1, 0.2, 0.25), 3.6),
        ((16, 36, 34), (-0.2, 0.9, -0.2), 3.4),
        ((24, 25, 29), (0.9, 0.8, 0.4), 3.2),
    ),
)
_HEPATIC_VEINS: tuple[
    Knots, ...
] = (  # right, middle, left, and a lower right one; from the cava outwards
    [(24, -2, 62, 5.5), (48, -10, 48, 4.6), (76, -16, 24, 3.6)],
    [(24, 2, 62, 5.5), (38, 18, 48, 4.4), (52, 30, 22, 3.2)],
    [(22, 2, 62, 5.0), (8, 20, 52, 4.0), (-10, 36, 40, 3.0)],
    [(24, -6, 32, 3.4), (50, -26, 18, 2.8), (72, -34, 2, 2.2)],
)


@dataclass(eq=False)
class Trees:
    """Branching tubes in true positions."""

    portal: list[Segment] = field(default_factory=list)
    hepatic: list[Segment] = field(default_factory=list)
    ducts: list[Segment] = field(default_factory=list)
    mesenteric: list[Segment] = field(default_factory=list)


def paint_great_vessels(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Aorta with celiac trunk, mesenteric and renal arteries; cava with renal veins; portal system."""
    width = rng.uniform(0.88, 1.12)
    z = np.linspace(190, -150, 30)
    front = spine_depth(z) + 17
    aorta = np.stack([np.full_like(z, -9), front + 11, z], axis=1)
    _paint_vessel(canvas, aorta, 10.5 * width - 0.006 * (150 - z), Material.ARTERY, 52, halo_mm=1.6)
    # The cava leaves the spine above the kidneys and runs forward to the heart.
    cava = np.stack(
        [19 + 4 * np.clip(z / 60, 0, 1), front + 10 + 14 * np.clip((z - 10) / 70, 0, 1), z], axis=1
    )
    cava = cava[z < frame.habitus.dome_right - 2]
    radii = np.full(len(cava), 10.0 * rng.uniform(0.8, 1.2))
    _paint_vessel(canvas, cava, radii, Material.CAVA, 63, halo_mm=1.6)

    y = float(spine_depth(0.0)) + 17
    celiac, _ = curve(
        [(-9, y + 18, 8, 3), (-7, y + 34, 14, 3), (-20, y + 40, 16, 2.4), (-50, 4, 18, 2)]
    )
    _paint_vessel(canvas, celiac, np.linspace(3.4, 2, len(celiac)), Material.ARTERY, halo_mm=1.2)
    hepatic, _ = curve([(-7, y + 34, 14, 3), (12, y + 38, 8, 2.5), (30, 14, 8, 2)])
    _paint_vessel(
        canvas, hepatic, np.linspace(2.6, 1.6, len(hepatic)), Material.ARTERY, halo_mm=1.0
    )
    superior_mesenteric: Knots = [
        (-9, y + 19, -6, 3.6),
        (-7, y + 31, -18, 3.5),
        (-4, y + 36, -45, 3.3),
        (4, 28, -90, 2.6),
    ]
    _paint_vessel(canvas, *curve(superior_mesenteric), Material.ARTERY, halo_mm=2.0)
    for side, height in ((1, -24), (-1, -14)):
        artery, _ = curve(
            [
                (-9 + side * 8, y + 11, -8, 2.5),
                (side * 26, -18, height, 2.5),
                (side * 44, -32, height, 2.2),
            ]
        )
        _paint_vessel(
            canvas, artery, np.linspace(3, 2.2, len(artery)), Material.ARTERY, halo_mm=0.8
        )
        # The left renal vein crosses in front of the aorta.
        middle = (side * 22, y + 19 if side < 0 else -12, height + 4, 4)
        vein, _ = curve([(16, y + 14, -12, 4), middle, (side * 45, -27, height, 4)])
        _paint_vessel(canvas, vein, np.linspace(5, 4, len(vein)), Material.CAVA, halo_mm=0.8)
    for knots, halo_mm in ((_SPLENIC, 0.8), (_MESENTERIC_VEIN, 1.2), (_PORTAL, 1.0)):
        _paint_vessel(canvas, *curve(knots), Material.PORTAL, 64, halo_mm=halo_mm)


def _paint_vessel(
    canvas: Canvas,
    points: np.ndarray,
    radii: np.ndarray,
    material: Material,
    organ: int = 0,
    *,
    halo_mm: float,
) -> None:
    """A vessel along canonical points with a thin coat of fat, which also parts it from its neighbors."""
    box, distance = canvas.tube(canvas.warp.place(points), radii, margin_mm=halo_mm)
    bone = np.isin(
        canvas.material[box], (Material.CORTICAL_BONE, Material.TRABECULAR_BONE, Material.DISC)
    )
    kept = np.isin(
        canvas.material[box], (Material.MUSCLE, Material.ARTERY, Material.CAVA, Material.PORTAL)
    )
    kept |= np.isin(canvas.organs[box], (5, 7, 2, 3))
    canvas.paint(box, (distance < halo_mm) & ~bone & ~kept, Material.VISCERAL_FAT)
    canvas.paint(box, (distance < 0) & ~bone, material, organ)


def grow_liver_trees(canvas: Canvas, trees: Trees, rng: np.random.Generator) -> None:
    """Portal branches, hepatic veins, and in most patients bile ducts beside the portal branches."""
    for knots, daughters in zip(_PORTAL_BRANCHES, _PORTAL_DAUGHTERS, strict=True):
        points, radii = _route(canvas, knots)
        trees.portal += zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
        for start, direction, radius in daughters:
            stem = canvas.warp.place(np.array([start]))[0]
            _grow(
                trees.portal,
                stem,
                np.array(direction, float),
                radius,
                23.0,
                rng,
                smallest_mm=0.6,
                spread=0.75,
            )
    for knots in _HEPATIC_VEINS:
        points, radii = _route(canvas, knots)
        trees.hepatic += zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
        heading = points[-1] - points[-2]
        _grow(
            trees.hepatic,
            points[-1],
            heading,
            radii[-1] * 0.95,
            22.0,
            rng,
            smallest_mm=0.6,
            spread=0.65,
        )
        for i in range(2, len(points) - 1, 3):
            side = np.cross(heading, rng.standard_normal(3))
            aside = heading * 0.15 + side / np.linalg.norm(side) * 5
            _grow(
                trees.hepatic,
                points[i],
                aside,
                radii[i] * 0.55,
                17.0,
                rng,
                smallest_mm=0.6,
                spread=0.7,
            )
    width = rng.choice([0.0, 1.0, 1.8], p=[0.35, 0.4, 0.25])  # not seen, normal, dilated
    for begin, end, r0, r1 in trees.portal:
        if width and r0 > 2.2:
            offset = np.array((0.3, 0.9, 0.3)) * (r0 + width * 0.9)
            trees.ducts.append(
                (begin + offset, end + offset, width * (0.5 + r0 / 8), width * (0.5 + r1 / 8))
            )


def grow_mesentery(canvas: Canvas, trees: Trees, rng: np.random.Generator) -> None:
    """Vessels in the mesenteric and omental fat: without them fat looks like plastic."""
    for _ in range(24):
        start = np.array((rng.uniform(-8, 18), rng.uniform(14, 26), rng.uniform(-95, -20)))
        direction = np.array((rng.uniform(-1, 1), rng.uniform(0, 0.8), rng.uniform(-0.8, 0.3)))
        stem = canvas.warp.place(start)[0]
        _grow(
            trees.mesenteric,
            stem,
            direction,
            rng.uniform(1.8, 2.8),
            22.0,
            rng,
            smallest_mm=0.9,
            spread=0.7,
        )
    for _ in range(18):
        start = np.array((rng.uniform(-80, 70), rng.uniform(20, 75), rng.uniform(-80, 0)))
        direction = np.array((rng.uniform(-1, 1), 0, rng.uniform(-1, 1)))
        stem = canvas.warp.place(start)[0]
        _grow(
            trees.mesenteric,
            stem,
            direction,
            rng.uniform(1.2, 1.8),
            18.0,
            rng,
            smallest_mm=0.8,
            spread=0.6,
        )


def _route(canvas: Canvas, knots: Knots) -> tuple[np.ndarray, np.ndarray]:
    """True points (n, 3) and radii (n,) along canonical knots."""
    points, radii = curve(knots, step_mm=5)
    return canvas.warp.place(points), radii


def _grow(
    segments: list[Segment],
    start: np.ndarray,
    direction: np.ndarray,
    radius: float,
    length_mm: float,
    rng: np.random.Generator,
    *,
    smallest_mm: float,
    spread: float,
    generation: int = 0,
) -> None:
    """Grow a tree by bifurcation; Murray's law, r^3 = r_a^3 + r_b^3, sets the radii of the daughters."""
    if radius < smallest_mm or generation > 9:
        return
    steps = 3
    point, heading = start, direction / np.linalg.norm(direction)
    share = rng.uniform(0.3, 0.7)
    for i in range(steps):
        heading = heading + 0.16 * rng.standard_normal(3)
        heading /= np.linalg.norm(heading)
        end = point + heading * length_mm / steps
        segments.append(
            (point, end, radius * (1 - 0.12 * i / steps), radius * (1 - 0.12 * (i + 1) / steps))
        )
        point = end
    aside = np.cross(heading, rng.standard_normal(3))
    aside /= np.linalg.norm(aside)
    for sign, part in ((1, share), (-1, 1 - share)):
        # The thinner daughter turns more. Both taper a little beyond Murray's law, so that trees end.
        child = heading + sign * spread * (1.25 - part) * aside
        child_radius = radius * 0.93 * part ** (1 / 3)
        child_length = length_mm * rng.uniform(0.68, 0.9)
        _grow(
            segments, point, child, child_radius, child_length, rng,
            smallest_mm=smallest_mm, spread=spread, generation=generation + 1,
        )  # fmt: skip
