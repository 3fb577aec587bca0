"""Gliomas of the head phantom: edema, necrotic core and enhancing rim, with the facts measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from difftumor.ellipsoids import rotation_matrix
from difftumor.phantom.canvas import Box, Canvas
from difftumor.phantom.head_anatomy import Brain
from difftumor.phantom.head_sequences import Tissue
from difftumor.phantom.head_space import Field, Push, filled


class TumorPart(IntEnum):
    """Values of the tumor map."""

    NONE = 0
    EDEMA = 1
    CORE = 2
    ENHANCING = 3


_KINDS = {"ring": 0.45, "solid": 0.15, "patchy": 0.15, "diffuse": 0.25}


@dataclass(frozen=True)
class Plan:
    """A lesion that is decided but not painted: everything but the voxels."""

    kind: str
    center: tuple[float, float, float]
    radius_mm: float
    reach_mm: float
    shift_mm: float
    seed: int

    @property
    def push(self) -> Push:
        """Its mass effect."""
        return Push(self.center, 1.15 * self.radius_mm, self.shift_mm)


@dataclass(frozen=True)
class HeadLesion:
    """Facts of one tumor.

    Attributes:
        kind: "ring" (necrotic, enhancing rim), "solid" (enhancing), "patchy" (partly enhancing) or "diffuse" (no
            enhancement).
        center_ras: centroid of all its voxels, mm.
        radius_mm: mean radius of the core. reach_mm: mean radius of the edema.
        volumes_mm3: of edema, core and enhancing part.
        contrast: mean of each sequence over the lesion less that of normal white matter, in percent of the latter,
            before noise and receive field (FLAIR, T1, T1c, T2).
    """

    kind: str
    center_ras: tuple[float, float, float]
    radius_mm: float
    reach_mm: float
    volumes_mm3: tuple[float, float, float]
    contrast: tuple[float, float, float, float]


def plan_lesions(
    scout: Brain, rng: np.random.Generator, *, count: int, radius_mm: tuple[float, float]
) -> list[Plan]:
    """Choose kinds, sizes and places on a coarse brain, most of them in the white matter.

    Args:
        scout: the patient without tumors on a coarse grid.
        count: number of lesions. radius_mm: smallest and largest mean radius of the core.

    Raises:
        ValueError: if a lesion finds no room.
    """
    axes = scout.canvas.axes
    room = (scout.wall > 1) & (scout.cerebrum > 4) & (scout.tissues.labels != Tissue.CSF)
    weight = room * (0.08 + scout.white) * (np.abs(scout.canvas.warped[0]) > 6)
    plans: list[Plan] = []
    for number in range(count):
        kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
        radius = float(np.exp(rng.uniform(*np.log(radius_mm))))
        reach = radius * rng.uniform(1.2, 1.5) if kind == "diffuse" else radius + rng.uniform(3, 16)
        shift = float(rng.uniform(0, 0.38)) * radius * (rng.random() < 0.7)
        seed = int(rng.integers(2**31))
        place = float(rng.random())
        free = weight * (scout.cerebrum > min(0.5 * radius, 12))
        for other in plans:
            offset = [a - c for a, c in zip(np.ix_(*axes), other.center, strict=True)]
            free = free * (np.sqrt(sum(o * o for o in offset)) > radius + other.radius_mm + 12)
        total = np.cumsum(free.ravel(), dtype=np.float64)
        if total[-1] <= 0:
            raise ValueError(
                f"no room for tumor {number + 1} of {count} (core of {radius:.0f} mm): ask for fewer or smaller tumors"
            )
        index = np.unravel_index(int(np.searchsorted(total, place * total[-1])), free.shape)
        within = rng.uniform(-0.5, 0.5, 3) * scout.canvas.spacing
        x, y, z = (float(a[i] + w) for a, i, w in zip(axes, index, within, strict=True))
        plans.append(Plan(kind, (x, y, z), radius, float(reach), shift, seed))
    return plans


def add_lesions(
    brain: Brain, plans: list[Plan], marks: np.ndarray
) -> tuple[np.ndarray, list[HeadLesion]]:
    """Paint tumors over the normal brain.

    Args:
        brain: painted, with the mass effect already in its coordinates.
        plans: of `plan_lesions`.
        marks: look-alikes; cleared where a tumor lies.

    Returns:
        uint8 (I, J, K), values of `TumorPart`, and the facts in the order of the plans.
    """
    parts = np.zeros(brain.canvas.shape, np.uint8)
    owner = np.zeros(brain.canvas.shape, np.uint8)
    normal = brain.tissues.signal[Tissue.WHITE]
    for number, plan in enumerate(plans, start=1):
        _paint(brain, plan, np.random.default_rng(plan.seed), parts, owner, number)
    marks[parts > 0] = 0
    facts = []
    volume = float(np.prod(brain.canvas.spacing))
    for number, plan in enumerate(plans, start=1):
        where = np.nonzero(owner == number)
        x, y, z = (
            float(a[i].mean()) if len(i) else c
            for a, i, c in zip(brain.canvas.axes, where, plan.center, strict=True)
        )
        edema, core, enhancing = (float((parts[where] == p).sum()) * volume for p in (1, 2, 3))
        flair, t1, t1c, t2 = (
            float(100 * (image[where].mean() - n) / n) if len(where[0]) else 0.0
            for image, n in zip(brain.tissues.images, normal, strict=True)
        )
        facts.append(
            HeadLesion(
                plan.kind,
                (x, y, z),
                plan.radius_mm,
                plan.reach_mm,
                (edema, core, enhancing),
                (flair, t1, t1c, t2),
            )
        )
    return parts, facts


def _shape(
    canvas: Canvas,
    rng: np.random.Generator,
    center: np.ndarray,
    radius: float,
    stretch: float,
    rough: float,
    reach: float,
) -> tuple[Box, np.ndarray]:
    """Depth below the surface of a bumpy ellipsoid at a true position, mm; (box, float32)."""
    radii = radius * np.exp(rng.uniform(-stretch, stretch, 3))
    rotation = rotation_matrix(tuple(rng.uniform(-180, 180, 3)))
    bumps = [
        Field.sample(rng, max(f * radius, 2.5), center=center, reach_mm=90) for f in (0.9, 0.4)
    ]
    box = canvas.box(center - reach, center + reach)
    axes = canvas.box_axes(box)
    offset = [a - np.float32(c) for a, c in zip(np.ix_(*axes), center, strict=True)]
    rho = np.sqrt(sum(
        sum(np.float32(rotation[c, k] / radii[k]) * offset[c] for c in range(3)) ** 2 for k in range(3)
    ))  # fmt: skip
    if all(len(a) for a in axes):
        rho = (
            rho
            - np.float32(rough) * bumps[0].on(axes)
            - np.float32(0.45 * rough) * bumps[1].on(axes)
        )
    return box, (1 - rho) * np.float32(radius)


def _paint(
    brain: Brain,
    plan: Plan,
    rng: np.random.Generator,
    parts: np.ndarray,
    owner: np.ndarray,
    number: int,
) -> None:
    """Paint one tumor: edema first, the core over it, the rim over that."""
    canvas, tissues = brain.canvas, brain.tissues
    center = np.asarray(plan.center)
    reach = 2.1 * plan.reach_mm + 4
    box, edge = _shape(canvas, rng, center, plan.reach_mm, 0.3, rng.uniform(0.18, 0.34), reach)
    _, core = _shape(canvas, rng, center, plan.radius_mm, 0.25, rng.uniform(0.1, 0.22), reach)
    fields = [
        Field.sample(rng, length, center=center, reach_mm=60)
        for length in (2.8, max(0.6 * plan.radius_mm, 3.5))
    ]
    if 0 in edge.shape:
        return
    fine, coarse = (f.on(canvas.box_axes(box)) for f in fields)
    soft = max(brain.voxel_mm, float(rng.uniform(1.2, 3.0)))
    sided = np.sign(plan.center[0]) * canvas.warped[0][box]
    here = (sided > 0.6) | (brain.block[box] > 3)  # the falx is not crossed, the corpus callosum is
    solid = (
        filled(brain.cerebrum[box] - 0.8, 1.0)
        * filled(brain.wall[box] - 0.3, brain.voxel_mm)
        * here
    )
    white = np.clip(1.3 * brain.white[box] - 0.1, 0, 1)
    labels = tissues.labels[box]
    solid = solid * (labels != Tissue.VENTRICLE)  # the third and fourth too
    nuclei = (labels >= Tissue.STRIATUM) & (labels <= Tissue.STEM)

    # Edema follows the white matter and spares the cortex; a diffuse tumor swells the cortex too.
    cortex = (
        float(rng.uniform(0.55, 0.9)) if plan.kind == "diffuse" else float(rng.uniform(0.0, 0.2))
    )
    fluid = np.isin(labels, (Tissue.CSF, Tissue.VENTRICLE, Tissue.VESSEL, Tissue.CHOROID_PLEXUS))
    host = np.maximum(np.maximum(white, 0.65 * nuclei), np.where(fluid, 0, np.float32(cortex)))
    edema = filled(edge, soft) * host * solid
    strength = float(rng.uniform(0.5, 1.0))
    level = rng.uniform((165, 82, 82, 165), (215, 104, 104, 235)).astype(np.float32)
    level[2] = level[1] * np.float32(rng.uniform(0.96, 1.06))
    signal = level[:, None, None, None] + _texture(rng, coarse, fine, (9, 4, 4, 14))
    tissues.blend_signal(box, np.float32(strength) * edema, signal)

    inside = filled(core, max(brain.voxel_mm, 1.2)) * solid
    where = np.where(edema > 0.5, TumorPart.EDEMA, 0).astype(np.uint8)
    bulk, bulk_part, bright = _bulk(rng, plan, core, coarse, fine)
    tissues.blend_signal(box, inside, bulk)
    if bulk_part is not None:
        where[inside > 0.5] = bulk_part
    if bright is not None:
        enhancing = np.minimum(inside, bright)
        level = rng.uniform((125, 92, 190, 115), (185, 118, 300, 190)).astype(np.float32)
        tissues.blend_signal(
            box,
            enhancing,
            level[:, None, None, None] + _texture(rng, coarse, fine, (10, 5, 22, 12)),
        )
        where[enhancing > 0.5] = TumorPart.ENHANCING
    where = _largest(where)
    fresh = where > 0
    parts[box][fresh] = where[fresh]
    owner[box][fresh] = number
    labels[fresh & (inside > 0.5)] = Tissue.GLIOSIS


def _bulk(
    rng: np.random.Generator, plan: Plan, core: np.ndarray, coarse: np.ndarray, fine: np.ndarray
) -> tuple[np.ndarray, int | None, np.ndarray | None]:
    """Signals of the core, its label (None: as the edema), and the share of it that enhances."""
    if plan.kind == "diffuse":
        level = rng.uniform((150, 80, 80, 180), (225, 100, 100, 280)).astype(np.float32)
        level[2] = level[1]
        return (
            level[:, None, None, None] + _texture(rng, coarse, fine, (14, 5, 5, 22)),
            TumorPart.EDEMA,
            None,
        )
    level = rng.uniform((60, 50, 50, 190), (165, 78, 80, 290)).astype(np.float32)
    level[2] = level[1] * np.float32(rng.uniform(1.0, 1.12))
    bulk = level[:, None, None, None] + _texture(rng, coarse, fine, (16, 5, 6, 22))
    thick = float(rng.uniform(0.16, 0.42)) * plan.radius_mm + float(rng.uniform(0.6, 1.4))
    if plan.kind == "ring":
        bright = filled(thick * (1 + 0.45 * coarse + 0.25 * fine) - core, 1.5)
    elif plan.kind == "solid":
        bright = filled(np.float32(0.9) + 0.6 * coarse + 0.25 * fine, 0.8)
    else:
        bright = filled(coarse + 0.4 * fine - np.float32(rng.uniform(0.2, 0.9)), 0.6)
    return bulk, TumorPart.CORE, bright


def _texture(
    rng: np.random.Generator, coarse: np.ndarray, fine: np.ndarray, sd: tuple[float, ...]
) -> np.ndarray:
    """Unevenness of the four sequences, float32 (4, I, J, K)."""
    mix = rng.uniform(-0.7, 0.7, 4)
    return np.stack(
        [
            np.float32(s) * (np.float32(m) * coarse + 0.55 * fine)
            for s, m in zip(sd, mix, strict=True)
        ]
    )


def _largest(where: np.ndarray) -> np.ndarray:
    """Drop crumbs: keep pieces of at least a twentieth of the largest."""
    pieces, n = ndimage.label(where > 0)
    if n < 2:
        return where
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.where(sizes[pieces] >= max(2, 0.05 * sizes.max()), where, 0).astype(np.uint8)
