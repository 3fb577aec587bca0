"""Hollow organs of the phantom: stomach, duodenum, colon and small bowel with walls, contents and gas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftumor.phantom.anatomy import Frame
from difftumor.phantom.canvas import Canvas, Knots, curve
from difftumor.phantom.material import Material
from difftumor.phantom.texture import smooth_field

# Knots (x, y, z, radius) in canonical mm.
_DUODENUM: Knots = [
    (30, 38, -14, 9), (44, 26, -24, 11), (46, 12, -48, 11), (30, 2, -66, 10), (0, 6, -68, 9), (-28, 14, -54, 10),
]  # fmt: skip
_ASCENDING: Knots = [(92, 10, -130, 24), (98, 0, -95, 23), (96, 4, -62, 20), (84, 30, -52, 19)]
_DESCENDING: Knots = [
    (-98, 4, 6, 15),
    (-104, -18, -30, 14),
    (-104, -14, -80, 14),
    (-98, -6, -130, 15),
]

# Small bowel fills this canonical box: center, half size.
_LOOPS_CENTER = np.array((0.0, 32.0, -78.0))
_LOOPS_HALF = np.array((92.0, 42.0, 58.0))


@dataclass(frozen=True)
class _Lumen:
    """What a hollow organ is made of."""

    organ: int  # TotalSegmentator number
    content: Material
    wall_mm: float
    lumps_mm: float  # roughness of the wall
    cavity_margin_mm: (
        float | None
    )  # distance kept from the abdominal wall; None: only free fat counts
    displaces: tuple[int, ...] = ()  # organs it may overwrite
    lowest_y: float = -np.inf  # canonical; the retroperitoneum behind stays free


_STOMACH = _Lumen(6, Material.STOMACH_CONTENT, 3.6, 2.2, 2.5, displaces=(18, 20))
_DUODENAL = _Lumen(19, Material.BOWEL_FLUID, 2.4, 1.2, None)
_COLON = _Lumen(20, Material.FECES, 2.2, 2.0, 2.5)
_SMALL_BOWEL = _Lumen(18, Material.BOWEL_FLUID, 2.5, 1.5, 2.0, lowest_y=-20.0)


def paint_stomach(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Stomach, more or less full, and the duodenum around the head of the pancreas."""
    full = rng.uniform(0.85, 1.2)
    points, radii = curve(
        [
            (-50, -12, 62, 20 * full), (-60, 4, 44, 32 * full), (-58, 26, 20, 33 * full), (-44, 46, -8, 26 * full),
            (-14, 54, -22, 19 * full), (14, 46, -18, 14), (30, 38, -14, 9),
        ]
    )  # fmt: skip
    placed = canvas.warp.place(points)
    _paint_hollow(
        canvas, frame, rng, placed, radii, _STOMACH, float(placed[:, 1].max() + rng.uniform(-8, 18))
    )
    points, radii = curve(_DUODENUM)
    _paint_hollow(canvas, frame, rng, canvas.warp.place(points), radii, _DUODENAL, gas_level=np.inf)


def paint_bowel(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Colon as a frame, small bowel as loops inside it that take what room is left."""
    sag = rng.uniform(-25, 10)
    transverse: Knots = [
        _ASCENDING[-1], (50, 62, -66 + sag, 18), (0, 70, -74 + sag, 17), (-50, 62, -56 + sag, 17), (-88, 32, -18, 16),
        _DESCENDING[0],
    ]  # fmt: skip
    for knots in (_ASCENDING, transverse, _DESCENDING):
        points, radii = curve(knots)
        width, pitch_mm, phase = rng.uniform(0.85, 1.15), rng.uniform(28, 42), rng.uniform(0, 6)
        # Haustra: the radius swells and shrinks along the colon (points lie 4 mm apart).
        radii = (
            radii
            * width
            * (1 + 0.13 * np.sin(np.arange(len(points)) * 4.0 * 2 * np.pi / pitch_mm + phase))
        )
        placed = canvas.warp.place(points)
        level = float(np.median(placed[:, 1]) + rng.uniform(-6, 26))
        _paint_hollow(canvas, frame, rng, placed, radii, _COLON, level)
    for _ in range(int(rng.integers(28, 36))):
        placed = canvas.warp.place(_sample_loop(rng))
        radii = rng.uniform(8.5, 13) * (1 + 0.08 * rng.standard_normal(len(placed)))
        level = float(placed[:, 1].max() + rng.uniform(-8, 30))
        _paint_hollow(canvas, frame, rng, placed, radii, _SMALL_BOWEL, level)


def _sample_loop(rng: np.random.Generator) -> np.ndarray:
    """Center line of one loop: a random walk with inertia, turned back at the faces of its box; (n, 3) canonical mm."""
    position = _LOOPS_CENTER + _LOOPS_HALF * rng.uniform(-0.9, 0.9, 3)
    heading = rng.standard_normal(3)
    points = []
    for _ in range(int(rng.integers(10, 22))):
        points.append(position)
        offset = position - _LOOPS_CENTER
        pull = -0.9 * offset / _LOOPS_HALF * (np.abs(offset) > 0.75 * _LOOPS_HALF)
        heading = heading / np.linalg.norm(heading) + 0.75 * rng.standard_normal(3) + pull
        position = position + 7.0 * heading / np.linalg.norm(heading)
    return np.array(points)


def _paint_hollow(
    canvas: Canvas,
    frame: Frame,
    rng: np.random.Generator,
    points: np.ndarray,
    radii: np.ndarray,
    kind: _Lumen,
    gas_level: float,
) -> None:
    """A tube with wall, content, and gas in front of y = `gas_level` (mm): the patient lies on the back."""
    box, distance = canvas.tube(points, radii, margin_mm=2 + 2 * kind.lumps_mm)
    if distance.size == 0:
        return
    distance = distance + kind.lumps_mm * smooth_field(rng, canvas.box_axes(box), 9.0)
    room = canvas.free(box) | np.isin(canvas.organs[box], kind.displaces)
    if kind.cavity_margin_mm is not None:
        room &= frame.cavity(box, kind.cavity_margin_mm)
    room &= canvas.warped[1][box] > kind.lowest_y
    canvas.paint(box, (distance < 0) & room, Material.BOWEL_WALL, kind.organ)
    lumen = (distance < -kind.wall_mm) & room
    canvas.paint(box, lumen, kind.content, kind.organ)
    y = canvas.box_axes(box)[1][None, :, None]
    canvas.paint(box, lumen & (y > gas_level), Material.GAS, kind.organ)
