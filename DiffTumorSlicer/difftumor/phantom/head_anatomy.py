"""Anatomy of the head phantom: hull, folded cortex, deep nuclei, ventricles, cerebellum and brain stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from difftumor.phantom.canvas import Canvas, Knots
from difftumor.phantom.head_sequences import Tissue, Tissues
from difftumor.phantom.head_space import (
    Field,
    Push,
    ellipsoid,
    filled,
    head_warp,
    join,
    layer,
    tube,
)
from difftumor.phantom.texture import Axes, smooth_field

_FOLD_STEP_MM = 2.5

LATERAL_VENTRICLE: Knots = (
    (8, 33, 0, 1.5), (7, 27, 6, 3.8), (7.5, 14, 13, 4.3), (8.5, 0, 19, 4.3), (11, -14, 22, 4.2), (16, -28, 22, 5.0),
    (23, -41, 16, 6.4), (26, -52, 10, 5.0), (25, -62, 7, 3.0), (23, -72, 6, 1.5),
)  # fmt: skip
TEMPORAL_HORN: Knots = (
    (24, -40, 14, 5.0), (31, -40, 3, 3.6), (34, -30, -8, 2.4), (33, -18, -15, 2.0), (31, -9, -19, 1.4),
)  # fmt: skip
_CAUDATE: Knots = (
    (11, 19, 1, 4.5), (12.5, 14, 9, 5.5), (15, 2, 18, 4.2), (18, -14, 23, 3.2), (23, -30, 20, 2.2), (30, -38, 8, 1.6),
)  # fmt: skip
_HIPPOCAMPUS: Knots = ((21, -8, -20, 5), (26, -18, -17, 4.5), (28, -28, -12, 4), (23, -37, -4, 3))


@dataclass(frozen=True, eq=False)
class Patient:
    """What a seed draws of the normal anatomy, apart from voxels."""

    age: float  # 0 young, 1 old: wide ventricles and sulci, more small-vessel disease
    ventricles: tuple[float, float]  # factors of the radii, right and left
    immature: (
        float  # how much paler the white matter is just below the cortex, part of its contrast
    )
    sulci: Folds
    warp_seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Patient:
        """Draw age, ventricles and folds."""
        age = float(rng.beta(1.6, 1.4))
        size = (0.75 + 0.9 * age) * float(np.exp(rng.normal(0, 0.13)))
        asymmetry = float(np.exp(rng.normal(0, 0.13)))
        ventricles = (size * asymmetry, size / asymmetry)
        immature = float(rng.uniform(0.1, 0.4))
        return cls(age, ventricles, immature, Folds.sample(rng, age), int(rng.integers(2**31)))

    def canvas(self, axes: Axes) -> Canvas:
        """Warped coordinates on a grid."""
        return Canvas(axes, head_warp(np.random.default_rng(self.warp_seed)))


@dataclass(frozen=True, eq=False)
class Folds:
    """Sulci: sheets where a smooth field on the surface of a hemisphere crosses zero.

    The field is written on an ellipsoid inside the hemisphere and carried along its radii, so that a sulcus dips toward
    the middle of the hemisphere as a real one does.
    """

    deep: np.ndarray  # (a, b, c) mm, distance to the nearest deep sulcus on the ellipsoid
    shallow: np.ndarray  # the same of shallow sulci
    start: np.ndarray  # (3,)
    depth: Field
    width: Field
    width_mm: float

    @classmethod
    def sample(cls, rng: np.random.Generator, age: float) -> Folds:
        """Draw the folds of both hemispheres."""
        start = np.array([-78.0, -112.0, -70.0])
        x, y, z = (
            np.arange(s, e, _FOLD_STEP_MM, dtype=np.float32)
            for s, e in zip(start, (78.0, 84.0, 92.0), strict=True)
        )
        sheets = []
        for length in (10.5, 6.5):
            field = smooth_field(rng, (x, y, z), length)
            slope = np.sqrt(sum(g * g for g in np.gradient(field, _FOLD_STEP_MM)))
            sheets.append(np.clip(field / np.maximum(slope, 0.02), -9, 9).astype(np.float32))
        deep, shallow = sheets
        return cls(
            deep,
            shallow,
            start,
            Field.sample(rng, 18.0),
            Field.sample(rng, 30.0),
            0.35 + 0.75 * age + float(rng.uniform(-0.1, 0.15)),
        )

    def on(self, canvas: Canvas, bend: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance to the nearest deep and shallow sulcal sheet at every voxel, mm, and the scale that carried them."""
        x, y, z = canvas.warped
        middle = (np.where(x < 0, np.float32(-27), np.float32(27)), np.clip(y, -52, 28), 14.0)
        radii = (40.0, 44.0, 58.0)
        offset = [u - np.float32(m) if isinstance(m, float) else u - m
                  for u, m in zip((x, y, z), middle, strict=True)]  # fmt: skip
        rho = np.sqrt(sum((o / np.float32(r)) ** 2 for o, r in zip(offset, radii, strict=True)))
        factor = 1 / np.maximum(rho, 0.15)
        index = np.stack(
            [
                (m + o * factor - np.float32(s)) / np.float32(_FOLD_STEP_MM)
                for m, o, s in zip(middle, offset, self.start, strict=True)
            ]
        ).astype(np.float32)
        # A real sulcus bends on its way down.
        for axis, sign in enumerate((0.7, 1.0, -1.0)):
            index[axis] += bend * np.float32(sign * 3.5 / _FOLD_STEP_MM)
        scale = np.clip(rho, 0.4, 1.3)
        deep, shallow = (
            np.abs(ndimage.map_coordinates(f, index, order=1, mode="nearest")) * scale
            for f in (self.deep, self.shallow)
        )
        return deep, shallow, rho


@dataclass(eq=False)
class Brain:
    """The painted normal brain.

    Attributes:
        tissues: images and hard labels so far.
        hull: depth below the smooth surface of the brain, mm, negative outside.
        pial: depth below the nearest large pial surface (hull, fissures), mm.
        deep, shallow: distance to the nearest deep and shallow sulcal sheet, mm.
        white: share of cerebral white matter before the deep nuclei, [0, 1].
        block: how far inside the commissural block (where the hemispheres are one), mm.
        cerebrum: depth inside the cerebrum, mm.
        wall: distance from the lateral ventricles, mm, negative inside, large far away.
    """

    canvas: Canvas
    tissues: Tissues
    hull: np.ndarray
    cerebrum: np.ndarray
    pial: np.ndarray
    deep: np.ndarray
    shallow: np.ndarray
    white: np.ndarray
    block: np.ndarray
    wall: np.ndarray
    voxel_mm: float


def hull_parts(canvas: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Signed distances (mm, positive inside) of cerebrum, cerebellum, brain stem and of all with the cisterns."""
    x, y, z = canvas.warped
    side = np.abs(x)
    lateral = (side, y, z)
    cerebrum = ellipsoid(lateral, (21, -16, 22), (48, 87, 57))
    cerebrum = join(cerebrum, ellipsoid(lateral, (20, 34, 8), (34, 39, 32)), 9)
    cerebrum = join(cerebrum, ellipsoid(lateral, (22, -44, 22), (47, 56, 52)), 8)
    cerebrum = join(cerebrum, ellipsoid(lateral, (44, -16, -20), (25, 45, 25)), 6)
    # Nothing of it below the tentorium, and a cistern around the stem.
    tentorium = z + 4 + 0.4 * side
    petrous = 0.85 * (y + 20 + 0.55 * side)
    np.minimum(cerebrum, join(tentorium, petrous, 8), out=cerebrum)
    np.minimum(cerebrum, -ellipsoid(lateral, (0, -14, -27), (20, 30, 20)), out=cerebrum)
    cerebellum = ellipsoid(lateral, (23, -63, -35), (30, 31, 24))
    cerebellum = join(cerebellum, ellipsoid(lateral, (0, -62, -28), (16, 27, 26)), 6)
    np.minimum(cerebellum, -tentorium - 1.2, out=cerebellum)
    stem = ellipsoid(lateral, (0, -21, -12), (17, 12, 15))
    stem = join(stem, ellipsoid(lateral, (0, -21, -33), (17, 13, 14)), 4)
    stem = join(stem, ellipsoid(lateral, (0, -38, -60), (9, 9, 28)), 6)
    stem = join(stem, ellipsoid(lateral, (14, -40, -34), (9, 14, 7)), 5)
    hull = join(join(cerebrum, cerebellum, 7), stem, 5)
    hull = join(hull, ellipsoid(lateral, (0, -18, -18), (26, 36, 16)), 6)
    return cerebrum, cerebellum, stem, hull


def paint_brain(
    canvas: Canvas, patient: Patient, tissues: Tissues, pushes: Sequence[Push] = ()
) -> Brain:
    """Paint the normal brain.

    Args:
        canvas: its coordinates are changed by the pushes; the hull is not.
        patient: anatomy of the seed.
        tissues: empty images.
        pushes: mass effect of tumors.
    """
    voxel = float(canvas.spacing.mean())
    cerebrum, cerebellum, stem, hull = hull_parts(canvas)
    for push in pushes:
        push.apply(canvas)
    x, y, z = canvas.warped
    side = np.abs(x)
    # The commissural block: an ellipse in the sagittal plane that holds corpus callosum and diencephalon.
    block = ellipsoid((y, z), (-9, 6), (38, 21))
    below = -ellipsoid((y, z), (2, -14), (30, 16))
    fissure = np.hypot(side, np.maximum(np.minimum(block, below + 8), 0))
    vary = patient.sulci.depth.on(canvas.axes)
    lean = z + 6 + 0.33 * y + 2.5 * vary
    sylvius = np.sqrt(
        np.maximum(42 - side, 0) ** 2 + (0.93 * lean) ** 2 + np.maximum(np.abs(y + 8) - 32, 0) ** 2
    )
    insula = np.sqrt(
        (side - 40 + 0.08 * np.abs(y)) ** 2
        + np.maximum(np.abs(lean) - 11, 0) ** 2
        + np.maximum(np.abs(y - 2) - 20, 0) ** 2
    )
    wide = patient.sulci.width.on(canvas.axes)
    half = np.maximum(patient.sulci.width_mm * (1 + 0.4 * wide), 0.15)
    slit = np.minimum(fissure - half - 0.2, np.minimum(sylvius, insula) - 0.5 - 0.8 * half)
    pial = np.minimum(cerebrum - 0.8, slit)
    deep, shallow, rho = patient.sulci.on(canvas, vary)
    # Not through the corpus callosum, and not where the folds would converge to a fan.
    reach = np.maximum(np.clip((-block - 3) / 8, 0, 1), np.clip((side - 16) / 8, 0, 1))
    reach *= np.clip((rho - 0.3) / 0.25, 0, 1)
    sheet = np.minimum(
        np.hypot(deep, np.maximum(pial - np.maximum(18 + 4 * vary, 0) * reach, 0)),
        np.hypot(shallow, np.maximum(pial - np.maximum(6 + 3 * vary, 0) * reach, 0)),
    )
    opening = half * (0.55 + 0.8 * np.exp(-np.maximum(pial, 0) / 4))
    ribbon = 2.5 + 0.3 * vary
    ribbon = ribbon * np.clip(1 - (block + 2) / 4 * (side < 14), 0, 1)
    fluid = np.maximum(filled(-pial, voxel), layer(sheet, opening, voxel))
    gray = np.maximum(filled(ribbon - pial, voxel), layer(sheet, opening + ribbon, voxel))
    inside = filled(cerebrum, voxel)
    fluid = np.maximum(fluid, 1 - inside)
    white = (1 - np.maximum(gray, fluid)) * inside

    tissues.fill(Tissue.CSF)
    # Fibers under the cortex are less myelinated than the deep ones.
    depth = np.maximum(np.minimum(pial, sheet) - ribbon, 0)
    myelin = np.float32(1) - np.float32(patient.immature) * np.exp(-depth / 5)
    bright = white * myelin
    rest = np.clip(1 - bright - fluid, 0, 1) / np.maximum(1 - bright, 1e-3)
    tissues.blend(None, rest, Tissue.CORTEX)
    tissues.blend(None, bright, Tissue.WHITE)
    tissues.labels[fluid > 0.5] = Tissue.CSF
    tissues.labels[white > 0.5] = Tissue.WHITE
    brain = Brain(
        canvas, tissues, hull, cerebrum, pial, deep, shallow, white, block,
        np.full(canvas.shape, 30, np.float32), voxel,
    )  # fmt: skip
    _paint_cerebellum(brain, cerebellum, patient)
    _paint_stem(brain, stem)
    _paint_nuclei(brain)
    _paint_ventricles(brain, patient)
    return brain


def _paint_cerebellum(brain: Brain, distance: np.ndarray, patient: Patient) -> None:
    """Cortex with folia around a white core; the folia fan out from the fourth ventricle."""
    x, y, z = brain.canvas.warped
    radius = np.hypot(y + 42, z + 33)
    angle = np.arctan2(z + 33, -(y + 42))
    wave = np.sin(24 * angle + 0.12 * np.abs(x) + 0.8 * patient.sulci.depth.on(brain.canvas.axes))
    tissues = brain.tissues
    inside = filled(distance - 0.5, brain.voxel_mm)
    tissues.blend(None, inside, Tissue.CEREBELLUM)
    core = ellipsoid((np.abs(x), y, z), (18, -55, -35), (19, 17, 11))
    leaves = filled(core + 5.5 * wave - 1, 3.0) * filled(distance - 6, 2.0)
    tissues.blend(None, inside * leaves, Tissue.CEREBELLAR_WHITE)
    gaps = np.clip(-wave - 0.55, 0, 1) * np.clip(1 - distance / 13, 0, 1)
    gaps *= np.clip(radius / 20, 0, 1) * (0.6 + 0.5 * patient.age)
    tissues.blend(None, inside * gaps, Tissue.CSF)


def _paint_stem(brain: Brain, distance: np.ndarray) -> None:
    """Brain stem with its darker tegmentum, and the aqueduct."""
    brain.tissues.blend(None, filled(distance, brain.voxel_mm), Tissue.STEM)
    for center, radii, tissue in (
        ((6, -20, -10), (4, 3, 4), Tissue.PALLIDUM),  # red nucleus and substantia nigra
        ((0, -27, -33), (11, 5, 11), Tissue.THALAMUS),
    ):
        for side in (1, -1)[: 2 if center[0] else 1]:
            box, rho = brain.canvas.ellipsoid((center[0] * side, *center[1:]), radii)
            brain.tissues.blend(box, 0.5 * np.clip(1.5 - rho, 0, 1), tissue)


def _paint_nuclei(brain: Brain) -> None:
    """Thalamus, lentiform nucleus, caudate, hippocampus; the capsules between them stay white."""
    canvas, tissues, voxel = brain.canvas, brain.tissues, brain.voxel_mm
    for side in (1, -1):
        for center, radii, tilt, tissue in (
            ((11.5, -18, 7), (9.5, 15, 9.5), -22, Tissue.THALAMUS),
            ((27, 2, 2), (5.5, 17, 10), 10, Tissue.STRIATUM),
            ((20.5, -3, -1), (4.2, 9.5, 6.5), 18, Tissue.PALLIDUM),
            ((34.5, 2, 3), (0.9, 15, 10), 6, Tissue.CORTEX),  # claustrum
            ((22, -3, -20), (8, 8, 8), 0, Tissue.CORTEX),  # amygdala
        ):
            box, rho = canvas.ellipsoid(
                (side * center[0], *center[1:]), radii, tilt_deg=(0, 0, -side * tilt)
            )
            depth = (1 - np.sqrt(rho)) * np.float32(min(radii))
            tissues.blend(box, filled(depth, max(voxel, 1.4)), tissue)
        for knots, tissue in ((_CAUDATE, Tissue.STRIATUM), (_HIPPOCAMPUS, Tissue.CORTEX)):
            box, depth = tube(canvas, knots, side=side)
            tissues.blend(box, filled(depth, max(voxel, 1.2)), tissue)


def _paint_ventricles(brain: Brain, patient: Patient) -> None:
    """Lateral, third and fourth ventricle, with the fornix and the septum between the lateral ones."""
    canvas, tissues, voxel = brain.canvas, brain.tissues, brain.voxel_mm
    for side, size in zip((1, -1), patient.ventricles, strict=True):
        for knots, swell in ((LATERAL_VENTRICLE, size), (TEMPORAL_HORN, 0.4 + 0.5 * size)):
            box, depth = tube(canvas, knots, side=side, swell=swell, margin_mm=14)
            across = np.abs(canvas.warped[0][box]) - 0.9  # the septum stays
            depth = np.minimum(depth, np.where(side * canvas.warped[0][box] > 0, across, -across))
            tissues.blend(box, filled(depth, voxel), Tissue.VENTRICLE)
            np.minimum(brain.wall[box], -depth, out=brain.wall[box])
    mean = float(np.mean(patient.ventricles))
    box, rho = canvas.ellipsoid((0, -14, 0), (1.6 + 1.2 * mean, 14, 9))
    tissues.blend(box, filled((1 - np.sqrt(rho)) * 4, voxel), Tissue.VENTRICLE)
    box, rho = canvas.ellipsoid((0, -43, -33), (6 + mean, 6, 11), tilt_deg=(20, 0, 0))
    tissues.blend(box, filled((1 - np.sqrt(rho)) * 5, voxel), Tissue.VENTRICLE)
    box, depth = tube(canvas, ((0, -28, -6, 1.1), (0, -36, -18, 1.0), (0, -41, -28, 1.6)))
    tissues.blend(box, filled(depth, voxel), Tissue.VENTRICLE)
