"""A study of small volumes, noise with a blob in it, made by the genuine program; for tests of the audit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from difftumor.reader_study.choosing import Plan
from difftumor.reader_study.key import Study
from difftumor.reader_study.packages import create_study
from difftumor.reader_study.sources import measure, sources_in
from difftumor.reader_study.study import StudyFacts

SHAPE = (26, 26, 20)
SPACING_MM = 2.0
RADIUS_MM = 6.0


def blob(seed: int, synthetic: bool) -> tuple[np.ndarray, np.ndarray]:
    """An image (HU) with tissue, fat and air, and the mask of its lesion; both kinds are made alike."""
    rng = np.random.default_rng([seed, synthetic])
    center = (np.array(SHAPE) - 1) / 2 + rng.uniform(-1, 1, 3)
    squares = (np.indices(SHAPE) - center[:, None, None, None]) ** 2
    distance = np.sqrt(squares.sum(axis=0)) * SPACING_MM
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.6)
    level = rng.uniform(95, 110) - 40 * (distance < RADIUS_MM)
    hu = level + rng.uniform(11, 13) * noise / noise.std()
    hu[:, -3:] = -100 + 20 * rng.normal(size=hu[:, -3:].shape)
    hu[:, :2] = -1000 + 10 * rng.normal(size=hu[:, :2].shape)
    return hu, distance < RADIUS_MM


def small_study(
    folder: Path,
    *,
    cases: int = 12,
    readers: tuple[str, ...] = ("R1",),
    practice: int = 0,
    make=blob,
) -> Study:
    """Write sources of a liver study below `folder`, and the study made of them.

    Args:
        make: (seed, synthetic) -> image, mask.
    """
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    candidates = []
    for kind in ("real", "synthetic"):
        sources = folder / kind / "liver"
        sources.mkdir(parents=True)
        for seed in range(cases + practice):
            hu, mask = make(seed, kind == "synthetic")
            for name, array in (
                ("", np.rint(hu).astype(np.int16)),
                ("-mask", mask.astype(np.uint8)),
            ):
                nib.save(nib.Nifti1Image(array, affine), sources / f"{kind}{seed:02}{name}.nii")
        candidates += [measure(one, print) for one in sources_in(folder / kind, kind)]
    facts = StudyFacts("0" * 12, "Liver", "visual_turing_test", "2026-11-20")
    plan = Plan(readers=readers, practice=2 * practice)
    return create_study(folder / "study", facts, candidates, plan, salt="5" * 64)[0]
