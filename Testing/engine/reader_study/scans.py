"""Small scans with lesions, real and synthetic, as a coordinator would have them in folders."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from difftumor.images.volumes import Volume, write_volume
from difftumor.provenance import SYNTHETIC_NOTICE, describe, image_hash

ORGANS = ("liver", "pancreas", "kidney")
SHAPE = (24, 20, 16)
SPACING_MM = 2.0


def write_scan(
    path: Path,
    seed: int,
    *,
    radius_mm: float | None = 6.0,
    organ: str = "liver",
    synthetic: bool = False,
    shape: tuple[int, int, int] = SHAPE,
    spacing: float | tuple[float, float, float] = SPACING_MM,
    dtype: type = np.int16,
) -> np.ndarray:
    """Write a scan of noise with a ball in it, its mask, and the side-car of a synthetic one; returns HU."""
    rng = np.random.default_rng(seed)
    sizes = np.broadcast_to(spacing, 3)
    affine = np.diag([-sizes[0], -sizes[1], sizes[2], 1.0])  # LPS, as scanners write
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    hu = rng.normal(60, 12, shape)
    if radius_mm is not None:
        center = np.array(shape) / 2 + rng.uniform(-1, 1, 3)
        apart = (np.indices(shape).T - center) * sizes
        mask = (np.linalg.norm(apart, axis=-1) <= radius_mm).T
        hu[mask] -= 40
        write_volume(Volume.of_mask(mask, affine), beside(path, "-mask"))
    hu = hu.astype(dtype)
    notice = {"description": SYNTHETIC_NOTICE} if synthetic else None
    write_volume(Volume(hu, affine), path, metadata=notice)
    if synthetic:
        scan = {"path": str(path), "sha256": f"{seed:064x}"}
        facts = {"output_sha256": image_hash(hu, affine), "lesions": []}
        content = describe("synthesis", {"organ": organ}, {"scan": scan}, {"id": "m"}, facts, "cpu")
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(content))
    return hu


def beside(path: Path, part: str) -> Path:
    return path.with_name(path.name.replace(".nii.gz", f"{part}.nii.gz"))


def folders_of_scans(folder: Path, each: int = 3, **options: object) -> dict[str, Path]:
    """`each` real, synthetic and healthy scans in folders by organ: {kind: folder}."""
    seed = 0
    found = {}
    for kind in ("real", "synthetic", "healthy"):
        found[kind] = folder / kind
        for organ in ORGANS:
            (folder / kind / organ).mkdir(parents=True)
            for number in range(each):
                seed += 1
                write_scan(
                    folder / kind / organ / f"anna-{kind[0]}{number}.nii.gz",
                    seed,
                    radius_mm=None if kind == "healthy" else 5.0 + 3 * (number % 2),
                    organ=organ,
                    synthetic=kind == "synthetic",
                    **options,  # type: ignore[arg-type]
                )
    return found


def geometry_of(path: Path) -> np.ndarray:
    return nib.load(path).affine
