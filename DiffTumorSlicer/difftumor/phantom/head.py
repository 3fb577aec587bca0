"""The head phantom: FLAIR, T1, T1 with contrast agent and T2 of one brain, with tumors whose masks are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftumor.grids import Grid
from difftumor.phantom.arguments import check_common
from difftumor.phantom.head_anatomy import Patient, paint_brain
from difftumor.phantom.head_lesions import HeadLesion, add_lesions, plan_lesions
from difftumor.phantom.head_lookalikes import add_look_alikes
from difftumor.phantom.head_sequences import SEQUENCES, Scanner, Tissues
from difftumor.phantom.head_space import CENTER_MM, Field
from difftumor.phantom.texture import Axes

HEAD_VERSION = 1
"""Raised whenever a seed would give another image."""

HEAD_FIELD_MM = (160.0, 208.0, 160.0)
"""Field of view along R, A, S when no shape is given."""

HEAD_TUMOR_SIZES_MM = (4.0, 22.0)
_SCOUT_MM = 4.0


@dataclass(frozen=True, eq=False)
class HeadPhantom:
    """A synthetic head and everything that is known about it; skull-stripped, four sequences on one grid.

    Attributes:
        images: "flair", "t1", "t1c", "t2", each int16 (I, J, K), arbitrary units that differ between sequences and
            patients; 0 outside the brain.
        clean: the same before the noise was added, float32.
        brain: bool (I, J, K), the brain with its fluid, as a skull-stripping program leaves it.
        tissues: uint8 (I, J, K), values of `Tissue`: what a voxel mostly consists of; 0 outside the brain.
        tumors: uint8 (I, J, K), 1 edema, 2 necrotic (or not enhancing) core, 3 enhancing, 0 elsewhere.
        look_alikes: uint8 (I, J, K), healthy bright, dark or enhancing things, values of `HeadLookAlike`; never
            overlaps `tumors`.
        grid: voxels to RAS mm; the anterior commissure lies near the origin.
        lesions: facts of each tumor.
        seed, version: what makes the case again.
    """

    images: dict[str, np.ndarray]
    clean: dict[str, np.ndarray]
    brain: np.ndarray
    tissues: np.ndarray
    tumors: np.ndarray
    look_alikes: np.ndarray
    grid: Grid
    lesions: tuple[HeadLesion, ...]
    seed: int
    version: int = HEAD_VERSION


def make_head(
    seed: int,
    *,
    tumors: int = 0,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    shape: tuple[int, int, int] | None = None,
    orientation: str = "RAS",
    tumor_radius_mm: tuple[float, float] = HEAD_TUMOR_SIZES_MM,
    noise_percent: float | None = None,
) -> HeadPhantom:
    """Make a head in four MR sequences.

    The same seed gives the same patient, lesions and scanner on every grid; only the noise depends on the grid. Equal
    arguments give equal bytes on one machine and one version of the libraries.

    Args:
        seed: non-negative; see TRAINING_SEEDS, VALIDATION_SEEDS, TEST_SEEDS.
        tumors: number of gliomas in the cerebrum, 0 to 8.
        spacing_mm: voxel size along I, J, K, 0.4 to 8 mm.
        shape: voxels along I, J, K, at least 8 each, centered on the brain; HEAD_FIELD_MM if None.
        orientation: direction of growing indices, "R" or "L", "A" or "P", "S" or "I".
        tumor_radius_mm: smallest and largest mean radius of the core (edema comes on top), 2 to 40 mm; log-uniform.
        noise_percent: standard deviation of the noise in percent of the signal of cortex; None draws it.

    Returns:
        the phantom.

    Raises:
        ValueError: for an argument out of range, or when a tumor finds no place.
    """
    _check(seed, tumors, spacing_mm, shape, orientation, tumor_radius_mm, noise_percent)
    spacing = np.asarray(spacing_mm, float)
    if shape is None:
        shape = tuple(round(f / s) for f, s in zip(HEAD_FIELD_MM, spacing, strict=True))
    axes = _axes(shape, spacing)

    def stream(part: int) -> np.random.Generator:
        # One stream per part, so that a lesion more does not change the patient, the scanner or the noise.
        return np.random.default_rng([seed, HEAD_VERSION, 1, part])

    patient = Patient.sample(stream(0))
    plans = []
    if tumors:
        scout_shape = tuple(round(f / _SCOUT_MM) for f in HEAD_FIELD_MM)
        canvas = patient.canvas(_axes(scout_shape, np.full(3, _SCOUT_MM)))
        scout = paint_brain(canvas, patient, Tissues(canvas.shape, stream(1)))
        plans = plan_lesions(scout, stream(4), count=tumors, radius_mm=tumor_radius_mm)
    canvas = patient.canvas(axes)
    tissues = Tissues(canvas.shape, stream(1))
    brain = paint_brain(canvas, patient, tissues, tuple(plan.push for plan in plans))
    scanner = Scanner(stream(2))
    scanner.textured(tissues.images, axes)
    look_alikes = add_look_alikes(brain, patient, stream(3))
    tumor_map, lesions = add_lesions(brain, plans, look_alikes)
    # Programs strip the skull a little more or less tightly, and not evenly.
    strip = stream(6)
    inside = brain.hull > strip.uniform(-0.2, 1.4) + 0.5 * Field.sample(strip, 22.0).on(axes)
    clean = scanner.scanned(tissues.images, axes, spacing)
    noisy = scanner.noisy(clean, stream(5), spacing, noise_percent)
    np.rint(np.clip(noisy, 0, 32767, out=noisy), out=noisy)

    signs = np.where(np.array(list(orientation)) == np.array(list("RAS")), 1, -1)
    ends = [float(a[0] if s > 0 else a[-1]) for a, s in zip(axes, signs, strict=True)]
    affine = np.diag([*(signs * spacing), 1.0])
    affine[:3, 3] = ends

    def oriented(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((array * inside)[:: signs[0], :: signs[1], :: signs[2]])

    return HeadPhantom(
        images={n: oriented(a.astype(np.int16)) for n, a in zip(SEQUENCES, noisy, strict=True)},
        clean={n: oriented(a) for n, a in zip(SEQUENCES, clean, strict=True)},
        brain=oriented(inside),
        tissues=oriented(tissues.labels),
        tumors=oriented(tumor_map),
        look_alikes=oriented(look_alikes),
        grid=Grid(shape, affine),
        lesions=tuple(lesions),
        seed=seed,
    )


def _axes(shape: tuple[int, ...], spacing: np.ndarray) -> Axes:
    """Voxel centers of a grid about the middle of the head, RAS mm."""
    return tuple(
        ((np.arange(n) - (n - 1) / 2) * s + c).astype(np.float32)
        for n, s, c in zip(shape, spacing, CENTER_MM, strict=True)
    )


def _check(
    seed: int,
    tumors: int,
    spacing_mm: tuple[float, ...],
    shape: tuple[int, ...] | None,
    orientation: str,
    tumor_radius_mm: tuple[float, float],
    noise_percent: float | None,
) -> None:
    """Refuse what cannot be made, naming the argument, what was given and what is allowed."""
    check_common(seed, tumors, 8, spacing_mm, shape, orientation, tumor_radius_mm)
    if noise_percent is not None and not 0 <= noise_percent <= 50:
        raise ValueError(f"noise_percent must be 0 to 50, not {noise_percent}")
