"""The canvas of the phantom: a voxel grid with a warped patient space, and the primitives painted on it.

Anatomy is written in a canonical patient space (RAS mm, origin between aorta and vertebra L1); a smooth warp
carries it to the voxels, so that every seed has its own shape. Large organs are implicit functions of the warped
coordinates; vessels and bowel are tubes, placed by the inverse warp and painted in true millimeters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

from difftumor.ellipsoids import rotation_matrix
from difftumor.phantom.material import Material
from difftumor.phantom.texture import Axes, bspline_weights, evaluate_lattice, smooth_field

Box = tuple[slice, slice, slice]
Triple = tuple[float, float, float]
Point = Sequence[float] | np.ndarray
"""A position or size, (3,) mm."""
Knots = Sequence[tuple[float, float, float, float]]
"""Center line of a tube: x, y, z, radius; mm."""

_WARP_REACH_MM = (
    280.0  # the lattice of the warp spans +-280 mm, whatever the grid: same seed, same anatomy
)


@dataclass(frozen=True, eq=False)
class Warp:
    """Map from voxel positions to canonical positions: q = p / scale + displacement(p)."""

    scale: np.ndarray  # (3,)
    lattice: np.ndarray  # (3, n, n, n) mm
    length_mm: float

    @classmethod
    def sample(
        cls, rng: np.random.Generator, *, amplitude_mm: float = 4.0, length_mm: float = 70.0
    ) -> Warp:
        """Draw body proportions and a smooth displacement."""
        n = int(np.ceil(2 * _WARP_REACH_MM / length_mm)) + 4
        lattice = rng.standard_normal((3, n, n, n)).astype(np.float32) * (amplitude_mm / 0.332)
        scale = np.array(
            [rng.uniform(0.93, 1.06), rng.uniform(0.92, 1.03), rng.uniform(0.92, 1.08)]
        )
        return cls(scale, lattice, length_mm)

    def weights(self, axes: Axes) -> list[np.ndarray]:
        """Spline weights of the lattice on each axis."""
        n = self.lattice.shape[1]
        return [bspline_weights(a, self.length_mm, -_WARP_REACH_MM, n) for a in axes]

    def displacement_at(self, points: np.ndarray) -> np.ndarray:
        """Displacement in mm at points (n, 3)."""
        x, y, z = points.T
        wx, wy, wz = self.weights((x, y, z))
        found: np.ndarray = np.einsum("cijk,ni,nj,nk->nc", self.lattice, wx, wy, wz, optimize=True)
        return found

    def place(self, points: np.ndarray) -> np.ndarray:
        """True positions of canonical points (n, 3): the inverse of the warp by fixed-point iteration."""
        points = np.atleast_2d(np.asarray(points, float))
        placed: np.ndarray = points * self.scale
        for _ in range(4):  # the displacement's slope is below 0.3, so the error falls below 0.1 mm
            placed = self.scale * (points - self.displacement_at(placed))
        return placed


class Canvas:
    """Material and organ maps under construction, with the warped coordinates of every voxel.

    Attributes:
        axes: voxel centers along R, A, S in mm.
        warped: canonical coordinates, float32 (3, I, J, K).
        material: uint8 (I, J, K), see `phantom_material.Material`.
        organs: uint8 (I, J, K), TotalSegmentator v2 numbers.
    """

    def __init__(self, axes: Axes, warp: Warp):
        self.axes = axes
        self.warp = warp
        self.shape = tuple(len(a) for a in axes)
        weights = warp.weights(axes)
        self.warped = np.empty((3, *self.shape), np.float32)
        for c in range(3):
            self.warped[c] = evaluate_lattice(warp.lattice[c], weights)
            coordinate = (axes[c] / warp.scale[c]).astype(np.float32)
            self.warped[c] += coordinate.reshape([-1 if a == c else 1 for a in range(3)])
        self.material = np.zeros(self.shape, np.uint8)
        self.organs = np.zeros(self.shape, np.uint8)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size (3,) in mm."""
        return np.array([a[1] - a[0] for a in self.axes])

    def box(self, low: Point, high: Point) -> Box:
        """Voxels whose centers lie between two true positions (mm); may be empty."""
        slices = []
        for coordinates, a, b in zip(self.axes, low, high, strict=True):
            start, stop = np.searchsorted(coordinates, (a, b))
            slices.append(slice(int(start), int(max(start, stop))))
        right, front, up = slices
        return right, front, up

    def canonical_box(self, low: Point, high: Point, margin_mm: float = 7.0) -> Box:
        """Voxels that may lie in a canonical box: its corners placed, with a margin for the warp between them."""
        corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
        placed = self.warp.place(corners)
        return self.box(placed.min(0) - margin_mm, placed.max(0) + margin_mm)

    def box_axes(self, box: Box) -> Axes:
        """Voxel centers of a box along each axis."""
        x, y, z = (a[s] for a, s in zip(self.axes, box, strict=True))
        return x, y, z

    def free(self, box: Box) -> np.ndarray:
        """Voxels of a box that are still visceral fat: where soft organs may spread."""
        return np.asarray(self.material[box] == Material.VISCERAL_FAT)

    def paint(self, box: Box, mask: np.ndarray, material: int, organ: int = 0) -> None:
        """Set material and organ number where the mask is true."""
        self.material[box][mask] = material
        self.organs[box][mask] = organ

    def ellipsoid(
        self, center: Point, radii: Point, *, tilt_deg: Triple = (0.0, 0.0, 0.0)
    ) -> tuple[Box, np.ndarray]:
        """Squared radius function of an ellipsoid in canonical space: below 1 inside.

        Args:
            center: canonical mm.
            radii: likewise.
            tilt_deg: rotation about R, then A, then S.

        Returns:
            its box, and float32 values over the box.
        """
        center, radii = np.asarray(center, float), np.asarray(radii, float)
        rotation = rotation_matrix(tilt_deg)
        reach = np.sqrt(((rotation * radii) ** 2).sum(1))
        box = self.canonical_box(center - reach, center + reach)
        offset = [self.warped[c][box] - np.float32(center[c]) for c in range(3)]
        total = np.zeros(offset[0].shape, np.float32)
        for axis in range(3):
            u = sum(np.float32(rotation[c, axis] / radii[axis]) * offset[c] for c in range(3))
            total += u * u
        return box, total

    def blob(
        self,
        box: Box,
        parts: Sequence[tuple[Triple, Triple]],
        sharpness: float = 3.0,
    ) -> np.ndarray:
        """Smooth union of axis-aligned ellipsoids over a box, positive inside (float32)."""
        x, y, z = (self.warped[c][box] for c in range(3))
        total = np.full(x.shape, -1.0, np.float32)
        for (cx, cy, cz), (rx, ry, rz) in parts:
            rho2 = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
            total += np.exp(np.minimum(sharpness * (1 - rho2), 4))
        return total

    def tube(
        self, points: np.ndarray, radii: np.ndarray, margin_mm: float = 0.0
    ) -> tuple[Box, np.ndarray]:
        """Signed distance to a tube of varying radius through true positions, negative inside.

        Args:
            points: (n, 3) mm, consecutive points form the center line. radii: (n,) mm.
            margin_mm: how far outside the surface the distance is wanted.

        Returns:
            box, float32 distances (beyond the margin: large).
        """
        pair = np.maximum(radii[:-1], radii[1:])  # a segment's box is as wide as its thicker end
        reach = np.maximum(np.append(pair, 0), np.append(0, pair))[:, None] + margin_mm
        box = self.box((points - reach).min(0), (points + reach).max(0))
        distance = np.full([s.stop - s.start for s in box], np.inf, np.float32)
        for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            reach = max(ra, rb) + margin_mm
            part = self.box(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
            if any(s.stop == s.start for s in part):
                continue
            inner = tuple(
                slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, box, strict=True)
            )
            x, y, z = np.ix_(*self.box_axes(part))
            x, y, z = x - np.float32(a[0]), y - np.float32(a[1]), z - np.float32(a[2])
            v = (b - a).astype(np.float32)
            t = (x * v[0] + y * v[1] + z * v[2]) / np.float32(max(float(v @ v), 1e-6))
            np.clip(t, 0, 1, out=t)
            squared = (x - t * v[0]) ** 2 + (y - t * v[1]) ** 2 + (z - t * v[2]) ** 2
            candidate = np.sqrt(squared) - (np.float32(ra) + t * np.float32(rb - ra))
            np.minimum(distance[inner], candidate, out=distance[inner])
        return box, distance

    def lump(
        self,
        rng: np.random.Generator,
        center: np.ndarray,
        radii: np.ndarray,
        rotation: np.ndarray,
        *,
        roughness: float,
        margin_mm: float,
    ) -> tuple[Box, np.ndarray]:
        """Signed distance to an ellipsoid with a bumpy surface at a true position.

        Args:
            rng: source of the bumps.
            center: (3,) mm. radii: (3,) mm. rotation: (3, 3), columns are the ellipsoid's own axes.
            roughness: standard deviation of the radius, as a part of it.
            margin_mm: how far outside the surface the distance is wanted.

        Returns:
            box, float32 distances in mm, negative inside; exact for a smooth sphere, else near the surface
            only.
        """
        reach = np.sqrt(((rotation * radii) ** 2).sum(1)) * (1 + 1.5 * roughness) + margin_mm
        box = self.box(center - reach, center + reach)
        axes = self.box_axes(box)
        offset = [a - np.float32(c) for a, c in zip(np.ix_(*axes), center, strict=True)]
        local = [
            sum(np.float32(rotation[c, k] / radii[k]) * offset[c] for c in range(3))
            for k in range(3)
        ]
        rho = np.sqrt(sum(u * u for u in local))
        mean = float(np.cbrt(np.prod(radii)))
        rho = rho - np.float32(roughness) * smooth_field(rng, axes, max(1.1 * mean, 2.0))
        rho = rho - np.float32(0.35 * roughness) * smooth_field(rng, axes, max(0.5 * mean, 1.5))
        return box, (rho - 1) * np.float32(mean)

    def pick(
        self, rng: np.random.Generator, box: Box, allowed: np.ndarray, depth_mm: float
    ) -> np.ndarray | None:
        """A random true position (3,) at least `depth_mm` below the surface of the allowed voxels; None if none is."""
        if allowed.size == 0:
            return None
        # Every 2 mm is fine enough to choose a place, and the distance transform is the slow part.
        stride = np.maximum(1, np.floor(2.0 / self.spacing)).astype(int)
        sparse = np.pad(allowed[tuple(slice(None, None, s) for s in stride)], 1)
        depth = ndimage.distance_transform_edt(sparse, sampling=self.spacing * stride)
        candidates = np.argwhere(depth[1:-1, 1:-1, 1:-1].astype(np.float32) >= max(depth_mm, 1e-3))
        if len(candidates) == 0:
            return None
        index = candidates[rng.integers(len(candidates))] * stride
        return np.array([float(a[i]) for a, i in zip(self.box_axes(box), index, strict=True)])

    def organ_box(self, number: int) -> Box:
        """Smallest box around an organ; empty slices if it is not in the field of view."""
        present = self.organs == number
        box = []
        for others in ((1, 2), (0, 2), (0, 1)):
            hit = np.nonzero(present.any(axis=others))[0]
            box.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0))
        right, front, up = box
        return right, front, up


def coverage(distance: np.ndarray, soft_mm: float) -> np.ndarray:
    """Smooth step from 1 inside to 0 outside, `soft_mm` wide on either side of distance 0."""
    t = np.clip(0.5 - distance / (2 * soft_mm), 0, 1)
    return t * t * (3 - 2 * t)


def curve(knots: Knots, step_mm: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth curve through knots (x, y, z, radius): points (n, 3) and radii (n,)."""
    table = np.asarray(knots, float)
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(table[:, :3], axis=0), axis=1))])
    spline = CubicSpline(chord, table, bc_type="natural")
    samples = spline(np.linspace(0, chord[-1], max(2, int(chord[-1] / step_mm) + 1)))
    return samples[:, :3], np.maximum(samples[:, 3], 0.6)
