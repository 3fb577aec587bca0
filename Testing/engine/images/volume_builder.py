"""Small NIfTI files for tests."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() @ np.diag(
    [-0.7, 0.8, 2.5]
)
OBLIQUE[:3, 3] = [12.5, -30.25, 100.125]


def hu_array(shape=(9, 8, 17), dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1500, shape).astype(dtype)


def save_nifti(
    path: Path, array, affine=OBLIQUE, *, slope=None, kind=nib.Nifti1Image, **fields
) -> Path:
    image = kind(array, affine, dtype=array.dtype)
    for name, value in fields.items():
        image.header[name] = value
    if slope:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path
