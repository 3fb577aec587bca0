"""A reader's package without a study behind it, for tests of the session and of the panel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from difftumor.reader_study.study import PACKAGE_FILE, CaseFile, Package, StudyFacts, case_sha256


def tiny_package(
    folder: Path,
    *,
    practice: int = 2,
    cases: int = 4,
    reader: str = "R1",
    shape: tuple[int, int, int] = (12, 10, 8),
    **facts: object,
) -> Package:
    """Write a package of noise images of 1 mm voxels around 0; more arguments are those of StudyFacts."""
    (folder / "cases").mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(shape) - 1) / 2
    files = []
    for number in range(practice + cases):
        token = hashlib.sha256(f"{reader}{number}".encode()).hexdigest()[:8]
        path = folder / "cases" / f"{token}.nii"
        hu = (40 + 10 * rng.standard_normal(shape)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, affine), path)
        files.append(CaseFile(token, number < practice, (0.0, 0.0, 0.0), case_sha256(token, path)))
    asked = {"type": "visual_turing_test", "title": "Liver", "created": "2026-11-20", **facts}
    package = Package(
        folder,
        StudyFacts(study_id="0123456789ab", **asked),  # type: ignore[arg-type]
        reader,
        "0" * 64,
        path.stat().st_size,
        tuple(files),
    )
    (folder / PACKAGE_FILE).write_text(json.dumps(package.to_dict()), encoding="utf-8")
    return package
