"""Healthy things of the head phantom that are as bright, or enhance as much, as a tumor: what a model must not mark."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from difftumor.phantom.canvas import Box
from difftumor.phantom.head_anatomy import LATERAL_VENTRICLE, Brain, Patient
from difftumor.phantom.head_sequences import Tissue
from difftumor.phantom.head_space import Field, filled, layer, tube


class HeadLookAlike(IntEnum):
    """Values of the look-alike map."""

    NONE = 0
    PERIVENTRICULAR_CAP = 1
    WHITE_MATTER_SPOT = 2
    PERIVASCULAR_SPACE = 3
    LACUNE = 4
    ARACHNOID_CYST = 5
    CHOROID_PLEXUS = 6
    VESSEL = 7
    DURA = 8
    FLOW_ARTEFACT = 9


# Center lines in canonical mm; pairs are mirrored, `True`: on both sides.
_VESSELS = (
    (True, ((8, -4, -12, 2.4), (12, 0, -13, 2.1), (26, 2, -14, 1.6), (38, 4, -13, 1.4), (43, -6, -4, 1.1))),  # middle
    (True, ((9, -3, -12, 1.5), (3, 12, -10, 1.3), (2, 30, 4, 1.1), (2, 34, 20, 1.0), (2, 12, 34, 0.8))),  # anterior
    (True, ((2, -14, -16, 1.4), (14, -22, -13, 1.3), (20, -34, -10, 1.1), (14, -60, -2, 0.8))),  # posterior cerebral
    (False, ((0, -10, -44, 1.7), (0, -8, -30, 1.7), (0, -12, -17, 1.6))),  # basilar artery
    (True, ((2, 3, 11, 0.9), (3, -14, 13, 1.1), (2, -32, 10, 1.4), (0, -38, 9, 2.0))),  # internal cerebral vein
    (False, ((0, -37, 8, 2.2), (0, -46, 6, 2.6), (0, -62, 0, 2.6), (0, -84, -8, 2.8), (0, -94, -9, 3.2))),  # straight
    (True, ((0, -93, -9, 3.0), (16, -91, -14, 3.0), (36, -80, -20, 3.0), (52, -58, -27, 3.0), (54, -46, -34, 3))),
    (False, ((0, 62, 36, 1.6), (0, 40, 62, 2.2), (0, 0, 77, 3), (0, -40, 74, 3), (0, -80, 44, 3), (0, -96, 2, 3))),
)  # fmt: skip


def add_look_alikes(brain: Brain, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Paint small-vessel disease, fluid, plexus, vessels and dura.

    Returns:
        uint8 (I, J, K), values of `HeadLookAlike`.
    """
    marks = np.zeros(brain.canvas.shape, np.uint8)
    for aging in (_caps, _spots, _spaces, _plexus):
        aging(brain, patient, rng.spawn(1)[0], marks)
    for paint in (_cyst, _flow, _dura, _vessels):
        paint(brain, rng.spawn(1)[0], marks)
    return marks


def _mark(
    brain: Brain,
    box: Box | None,
    share: np.ndarray,
    signal: np.ndarray,
    marks: np.ndarray,
    kind: int,
) -> None:
    """Blend a signal and mark the voxels that it changes clearly."""
    brain.tissues.blend_signal(box, share, signal)
    marks[box or ...][share > 0.4] = kind


def _caps(brain: Brain, patient: Patient, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Bright caps of the horns and a thin halo along the bodies, wider with age."""
    uneven = Field.sample(rng, 9.0).on(brain.canvas.axes)
    _, y, z = brain.canvas.warped
    horns = np.exp(-(((y - 30) / 9) ** 2)) + np.exp(-(((y + 62) / 11) ** 2))
    width = (
        0.5
        + patient.age * rng.uniform(0.3, 2.2)
        + horns * rng.uniform(1.0, 3.0 + 4.0 * patient.age)
    )
    width = width * np.clip(1 + 0.45 * uneven, 0.2, 2) * (z > -4)
    strength = rng.uniform(0.35, 1.0)
    share = filled(width - brain.wall, max(brain.voxel_mm, 1.6)) * filled(
        brain.wall, brain.voxel_mm
    )
    share *= np.float32(strength) * np.clip(brain.white * 1.2, 0, 1)
    brain.tissues.blend(None, share, Tissue.GLIOSIS)
    marks[(share > 0.4 * strength) & (brain.wall > 0)] = HeadLookAlike.PERIVENTRICULAR_CAP


def _spots(brain: Brain, patient: Patient, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Small-vessel disease: spots in the deep white matter, some flowing together."""
    count = rng.poisson(2 + 22 * patient.age**2)
    for _ in range(count):
        box, depth = _droplet(brain, rng, (1.2, 3.0 + 1.6 * patient.age), far_mm=4.0, stretch=0.35)
        share = filled(depth, max(brain.voxel_mm, 1.2)) * brain.white[box]
        bright = brain.tissues.signal[Tissue.GLIOSIS] * np.array(
            [rng.uniform(0.8, 1.12), 1, 1, rng.uniform(0.8, 1.1)], np.float32
        )
        _mark(brain, box, share, bright, marks, HeadLookAlike.WHITE_MATTER_SPOT)


def _spaces(brain: Brain, patient: Patient, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Perivascular spaces below the lentiform nucleus and in the white matter, and now and then a lacune with a rim."""
    fluid = brain.tissues.signal[Tissue.CSF]
    for _ in range(rng.poisson(8 + 14 * patient.age)):
        side = rng.choice((-1, 1))
        if rng.random() < 0.5:
            start = np.array([side * rng.uniform(20, 30), rng.uniform(-4, 8), rng.uniform(-9, -4)])
            direction = np.array([0, 0, 1.0])
        else:
            start = np.array(
                [side * rng.uniform(20, 42), rng.uniform(-50, 35), rng.uniform(30, 45)]
            )
            direction = np.array([side * 0.5, 0, 0.9])
        end = start + direction * rng.uniform(4, 12)
        r = float(rng.uniform(0.5, 1.3))
        box, depth = tube(brain.canvas, ((*start, r), (*end, r)), margin_mm=2)
        share = filled(depth, brain.voxel_mm) * (brain.wall[box] > 2) * (brain.pial[box] > 4)
        _mark(brain, box, share, fluid, marks, HeadLookAlike.PERIVASCULAR_SPACE)
    for _ in range(rng.poisson(1.2 * patient.age)):
        box, depth = _droplet(brain, rng, (1.8, 4.5), far_mm=6.0, stretch=0.2)
        rim = filled(depth + 1.4, max(brain.voxel_mm, 1.2)) * brain.white[box]
        brain.tissues.blend(box, rim, Tissue.GLIOSIS)
        marks[box][rim > 0.4] = HeadLookAlike.LACUNE
        _mark(brain, box, filled(depth, brain.voxel_mm), fluid, marks, HeadLookAlike.LACUNE)


def _droplet(
    brain: Brain,
    rng: np.random.Generator,
    radius_mm: tuple[float, float],
    *,
    far_mm: float,
    stretch: float,
) -> tuple[Box, np.ndarray]:
    """An ellipsoid somewhere in the white matter of the hemispheres: box and depth below its surface, mm.

    The place is drawn in canonical space without looking at voxels, so that it is the same on every grid.
    """
    theta = rng.uniform(0, 2 * np.pi)
    spread = rng.uniform(0.25, 1)
    center = np.array([
        rng.choice((-1, 1)) * (27 + 13 * spread * np.cos(theta)), -14 + rng.uniform(-46, 46),
        24 + 22 * spread * np.sin(theta),
    ])  # fmt: skip
    radius = float(np.exp(rng.uniform(*np.log(radius_mm))))
    radii = radius * np.exp(rng.normal(0, stretch, 3))
    box, rho = brain.canvas.ellipsoid(center, radii + 2, tilt_deg=tuple(rng.uniform(-60, 60, 3)))
    depth = (1 - np.sqrt(rho)) * np.float32(radius + 2) - 2
    outside = (brain.wall[box] < 1) | (brain.pial[box] < far_mm)
    depth[outside] = -9
    return box, depth


def _cyst(brain: Brain, rng: np.random.Generator, marks: np.ndarray) -> None:
    """An arachnoid cyst at the temporal pole, the convexity or behind the cerebellum, in one patient of four."""
    places = ((46, 24, -24), (56, -30, 44), (50, 34, 26), (16, -92, -30), (30, 58, 20))
    place = np.array(places[rng.integers(len(places))]) * (rng.choice((-1, 1)), 1, 1)
    radii = rng.uniform(7, 17) * np.exp(rng.uniform(-0.3, 0.3, 3))
    tilt = tuple(rng.uniform(-50, 50, 3))
    if rng.random() > 0.25:
        return
    box, rho = brain.canvas.ellipsoid(place, radii, tilt_deg=tilt)
    depth = (1 - np.sqrt(rho)) * np.float32(radii.min())
    share = filled(depth, brain.voxel_mm)
    signal = brain.tissues.signal[Tissue.CSF]
    _mark(brain, box, share, signal, marks, HeadLookAlike.ARACHNOID_CYST)
    brain.tissues.labels[box][share > 0.5] = Tissue.CSF


def _plexus(brain: Brain, patient: Patient, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Choroid plexus in the atria and bodies: enhances, and may be large on one side."""
    uneven = Field.sample(rng, 3.2).on(brain.canvas.axes)
    for side, size in zip((1, -1), patient.ventricles, strict=True):
        r = float(rng.uniform(1.5, 3.2))
        x, y, z, _ = LATERAL_VENTRICLE[6]
        knots = (
            (12, -14, 20, 0.8),
            (17, -28, 19, 1.0),
            (x, y, z - 2, r),
            (30, -40, 3, r * 0.8),
            (33, -32, -6, 0.8),
        )
        box, depth = tube(brain.canvas, knots, side=side, swell=0.7 + 0.3 * size)
        share = filled(depth + 0.7 * uneven[box], max(brain.voxel_mm, 1.0)) * filled(
            -brain.wall[box], 1.5
        )
        signal = brain.tissues.signal[Tissue.CHOROID_PLEXUS]
        _mark(brain, box, share, signal, marks, HeadLookAlike.CHOROID_PLEXUS)
        brain.tissues.labels[box][share > 0.5] = Tissue.CHOROID_PLEXUS


def _flow(brain: Brain, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Pulsating fluid is not suppressed in FLAIR: bright clouds in cisterns and ventricles."""
    if rng.random() > 0.5:
        return
    cloud = np.clip(Field.sample(rng, 11.0).on(brain.canvas.axes) - 0.9, 0, 1.2)
    labels = brain.tissues.labels
    fluid = ((labels == Tissue.CSF) | (labels == Tissue.VENTRICLE)) & (brain.hull > 8)
    image = brain.tissues.images[0]
    change = cloud * fluid * np.float32(rng.uniform(40, 90))
    image += change
    marks[change > 25] = HeadLookAlike.FLOW_ARTEFACT


def _dura(brain: Brain, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Falx and tentorium: thin sheets that enhance."""
    x, y, z = brain.canvas.warped
    falx = layer(np.abs(x), float(rng.uniform(0.3, 0.6)), brain.voxel_mm)
    falx *= filled(-brain.block - 5, 3.0) * (z > -2) * filled(brain.hull, brain.voxel_mm)
    tent = np.abs(z + 4.8 + 0.4 * np.abs(x))
    tent = layer(tent, float(rng.uniform(0.3, 0.6)), brain.voxel_mm)
    tent *= filled(-36 - y - 0.55 * np.abs(x), 4.0) * filled(brain.hull, brain.voxel_mm)
    share = np.maximum(falx, tent)
    brain.tissues.blend_signal(None, share, brain.tissues.signal[Tissue.DURA])
    marks[share > 0.25] = HeadLookAlike.DURA


def _vessels(brain: Brain, rng: np.random.Generator, marks: np.ndarray) -> None:
    """Arteries and veins: dark flow voids in FLAIR and T2, bright with contrast agent; cortical veins in the sulci."""
    canvas, tissues = brain.canvas, brain.tissues
    signal = tissues.signal[Tissue.VESSEL]
    strength = float(rng.uniform(0.55, 1.0))
    # A vein runs where a deep and a shallow sulcus meet, and over the surface along the sulci.
    down = np.hypot(brain.deep, brain.shallow) + np.maximum(brain.pial - 16, 0)
    over = np.hypot(brain.deep, brain.pial - 0.4) + np.maximum(-0.2 - brain.hull, 0)
    patchy = Field.sample(rng, 16.0).on(canvas.axes)
    distance = np.minimum(down, over + np.float32(0.6) - 0.7 * patchy)
    veins = filled(
        np.float32(rng.uniform(0.35, 0.7)) + 0.15 * patchy - distance, max(canvas.spacing.mean(), 1)
    )
    veins *= (
        np.float32(strength)
        * np.clip(0.75 + 0.7 * patchy, 0, 1)
        * filled(brain.hull, 1.0)
        * (brain.cerebrum > 0)
    )
    veins *= (brain.white < 0.35) & (marks != HeadLookAlike.ARACHNOID_CYST)
    _mark(brain, None, veins, signal, marks, HeadLookAlike.VESSEL)
    for both, knots in _VESSELS:
        jitter = [
            (*(np.array(k[:3]) + rng.normal(0, 1.0, 3) * (abs(k[0]) > 1, 1, 1)), k[3])
            for k in knots
        ]
        for side in (1, -1) if both else (0,):
            swell = float(np.exp(rng.normal(0, 0.2)))
            box, depth = tube(canvas, jitter, side=side, swell=swell, margin_mm=2)
            share = filled(depth, brain.voxel_mm) * filled(brain.hull[box], 1.0)
            _mark(brain, box, share, signal, marks, HeadLookAlike.VESSEL)
            tissues.labels[box][share > 0.5] = Tissue.VESSEL
    for _ in range(
        rng.poisson(0.7)
    ):  # a vein that crosses the white matter: a developmental anomaly
        side = rng.choice((-1, 1))
        tip = np.array([side * rng.uniform(38, 50), rng.uniform(-45, 30), rng.uniform(28, 46)])
        root = np.array(
            [side * rng.uniform(14, 22), tip[1] + rng.uniform(-8, 8), rng.uniform(22, 28)]
        )
        for twig in rng.normal(0, 6, (4, 3)):
            box, depth = tube(
                canvas,
                ((*root, 1.1), (*(0.4 * root + 0.6 * tip), 0.8), (*(tip + twig), 0.5)),
                margin_mm=2,
            )
            share = (
                filled(depth, brain.voxel_mm) * (brain.wall[box] > 0) * np.float32(0.6 * strength)
            )
            _mark(brain, box, share, signal, marks, HeadLookAlike.VESSEL)
