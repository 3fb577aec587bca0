"""The space of the head phantom: patient coordinates, fields that do not depend on the grid, and distances.

Canonical space is RAS mm with the anterior commissure at the origin and the size of the MNI template; a warp
gives every patient a shape of his own. All random fields hang on lattices in patient space, never on voxels, so
that the same seed is the same patient on every grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from difftumor.phantom.canvas import Box, Canvas, Knots, Point, Warp, curve
from difftumor.phantom.texture import Axes, bspline_weights, evaluate_lattice

CENTER_MM = (0.0, -16.0, 7.0)
"""Middle of the field of view, RAS mm from the anterior commissure."""

_REACH_MM = 120.0
_LATTICE_SD = (151 / 315) ** 1.5  # of a tensor-product cubic B-spline over white noise


@dataclass(frozen=True, eq=False)
class Field:
    """Zero-mean, unit-variance smooth random field in patient space."""

    lattice: np.ndarray  # (n, n, n)
    start_mm: np.ndarray  # (3,)
    length_mm: float

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        length_mm: float,
        *,
        center: Point = CENTER_MM,
        reach_mm: float = _REACH_MM,
    ) -> Field:
        """Draw a field that spans `reach_mm` about a center and is continued beyond."""
        n = int(np.ceil(2 * reach_mm / length_mm)) + 4
        lattice = rng.standard_normal((n, n, n), dtype=np.float32) / np.float32(_LATTICE_SD)
        return cls(lattice, np.asarray(center, float) - reach_mm, length_mm)

    def on(self, axes: Axes) -> np.ndarray:
        """Values on a box of voxels, float32 (I, J, K)."""
        n = self.lattice.shape[0]
        weights = [
            bspline_weights(a, self.length_mm, float(s), n)
            for a, s in zip(axes, self.start_mm, strict=True)
        ]
        return evaluate_lattice(self.lattice, weights)


@dataclass(frozen=True)
class Push:
    """Mass effect: tissue about a center is pushed outward.

    Attributes:
        center: RAS mm, (3,). radius_mm: of the mass. shift_mm: displacement at its surface.
    """

    center: tuple[float, float, float]
    radius_mm: float
    shift_mm: float

    def apply(self, canvas: Canvas) -> None:
        """Move the canonical coordinates of the canvas; exact where the warp is locally rigid."""
        reach = 3.2 * self.radius_mm + self.shift_mm
        center = np.asarray(self.center)
        box = canvas.box(center - reach, center + reach)
        offset = [
            a - np.float32(c) for a, c in zip(np.ix_(*canvas.box_axes(box)), center, strict=True)
        ]
        r = np.sqrt(sum(o * o for o in offset)) / np.float32(self.radius_mm)
        fall = np.minimum(r, 1) * np.exp(-(np.maximum(r - 1, 0) ** 2))
        fall *= np.float32(self.shift_mm / self.radius_mm) / np.maximum(r, 1e-3)
        for c in range(3):
            canvas.warped[c][box] -= fall * offset[c] / np.float32(canvas.warp.scale[c])


def head_warp(rng: np.random.Generator) -> Warp:
    """Draw a patient's proportions and irregularities; brains are a tenth smaller than the template."""
    warp = Warp.sample(rng, amplitude_mm=3.2, length_mm=60.0)
    lattice = warp.lattice * np.array([0.7, 1, 1], np.float32)[:, None, None, None]
    scale = np.array([rng.uniform(0.9, 1.0), rng.uniform(0.9, 0.99), rng.uniform(0.9, 0.98)])
    return Warp(scale, lattice, warp.length_mm)


def ellipsoid(coordinates: Sequence[np.ndarray], center: Point, radii: Point) -> np.ndarray:
    """Approximate signed distance to an axis-aligned ellipsoid, mm, positive inside."""
    p = [u - np.float32(c) for u, c in zip(coordinates, center, strict=True)]
    k0 = np.sqrt(sum((u / np.float32(r)) ** 2 for u, r in zip(p, radii, strict=True)))
    k1 = np.sqrt(sum((u / np.float32(r * r)) ** 2 for u, r in zip(p, radii, strict=True)))
    distance: np.ndarray = k0 * (1 - k0) / np.maximum(k1, 1e-5)
    return distance


def join(a: np.ndarray, b: np.ndarray, soft_mm: float) -> np.ndarray:
    """Smooth union of two signed distances (positive inside)."""
    h = np.clip(0.5 + 0.5 * (a - b) / np.float32(soft_mm), 0, 1)
    union: np.ndarray = b + (a - b) * h + np.float32(soft_mm) * h * (1 - h)
    return union


def tube(
    canvas: Canvas,
    knots: Knots,
    *,
    side: int = 0,
    swell: float = 1.0,
    margin_mm: float = 4.0,
    step_mm: float = 5.0,
) -> tuple[Box, np.ndarray]:
    """Distance to a tube in canonical space, mm, positive inside.

    Args:
        canvas: coordinates.
        knots: center line (x, y, z, radius) for the right side.
        side: -1 mirrors the tube to the left.
        swell: factor of all radii.
        margin_mm: how far outside the surface the distance is wanted.

    Returns:
        box, float32 distances; far outside -99.
    """
    points, radii = curve(knots, step_mm)
    points = points * np.array([side or 1, 1, 1])
    radii = radii * swell
    reach = float(radii.max()) + margin_mm
    box = canvas.canonical_box(points.min(0) - reach, points.max(0) + reach, margin_mm=8.0)
    distance = np.full([s.stop - s.start for s in box], -99, np.float32)
    if distance.size == 0:
        return box, distance
    x, y, z = (canvas.warped[c][box] for c in range(3))
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        near = max(ra, rb) + margin_mm
        part = canvas.canonical_box(np.minimum(a, b) - near, np.maximum(a, b) + near, margin_mm=8.0)
        inner = tuple(
            slice(max(p.start, s.start) - s.start, max(p.stop, s.start) - s.start)
            for p, s in zip(part, box, strict=True)
        )
        if any(s.stop <= s.start for s in inner):
            continue
        v = (b - a).astype(np.float32)
        o = [u[inner] - np.float32(c) for u, c in zip((x, y, z), a, strict=True)]
        t = sum(u * w for u, w in zip(o, v, strict=True)) / np.float32(max(float(v @ v), 1e-6))
        np.clip(t, 0, 1, out=t)
        squared = sum((u - t * w) ** 2 for u, w in zip(o, v, strict=True))
        candidate = np.float32(ra) + t * np.float32(rb - ra) - np.sqrt(squared)
        np.maximum(distance[inner], candidate, out=distance[inner])
    return box, distance


def layer(distance: np.ndarray, half_width: np.ndarray | float, voxel_mm: float) -> np.ndarray:
    """Share of a voxel that a sheet fills: thin sheets fade as partial volume makes them fade.

    Args:
        distance: to the middle of the sheet, mm, 0 or more.
        half_width: of the sheet, mm.
        voxel_mm: size of the voxel.

    Returns:
        float32 in [0, 1].
    """
    half = np.float32(voxel_mm / 2)
    inside = np.minimum(distance + half, half_width) - np.maximum(distance - half, -half_width)
    return np.clip(inside / np.float32(voxel_mm), 0, 1)


def filled(distance: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Share of a voxel that a body fills, from its signed distance (positive inside); float32 in [0, 1]."""
    return np.clip(0.5 + distance / np.float32(voxel_mm), 0, 1)
