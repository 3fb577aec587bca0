"""Signs that a volume is no CT in HU, or too coarse for small tumors, in words."""

from __future__ import annotations

import numpy as np

from difftumor.grids import Grid

MAX_SPACING_MM = 6.0
MIN_SLICES = 16


def ct_warnings(low: float, high: float, grid: Grid, modality: str) -> list[str]:
    """Look whether a volume can be a CT in HU.

    Args:
        low: smallest voxel value.
        high: largest voxel value.
        grid: of the volume.
        modality: as DICOM says it ("CT"), or "" where nothing says it.

    Returns:
        warnings; empty for an ordinary CT.
    """
    warnings = []
    if modality not in ("", "CT"):
        warnings.append(f"The series is of modality {modality}, not CT; the CT models expect HU.")
    if low >= -1.5 and high <= 1.5:
        warnings.append(
            f"The values run from {low:.3g} to {high:.3g}, as if scaled to [0, 1] or [-1, 1]; "
            "the CT models expect HU (air -1000, water 0). Use the original CT."
        )
    elif low >= 0 and high <= 255:
        warnings.append(
            f"The values run from {low:.4g} to {high:.4g}, as in an 8-bit picture; the CT models "
            "expect HU (air -1000, water 0). Use the original CT."
        )
    elif low >= 0:
        warnings.append(
            f"No value is below 0 (they run from {low:.4g} to {high:.4g}): the HU offset, often "
            "-1024, may not have been applied. Check that air is near -1000 and water near 0."
        )
    elif high < -200:
        warnings.append(f"No value is above {high:.4g} HU: nothing here is soft tissue.")
    spacing = grid.spacing
    if spacing.max() > MAX_SPACING_MM:
        warnings.append(
            f"The voxels are {spacing.max():.3g} mm long in one direction; above "
            f"{MAX_SPACING_MM:g} mm small tumors fall between the slices. Use a thinner "
            "reconstruction if there is one."
        )
    if min(grid.shape) < MIN_SLICES:
        extent = (spacing * grid.shape)[int(np.argmin(grid.shape))]
        warnings.append(
            f"The volume has only {min(grid.shape)} slices ({extent:.3g} mm) in one direction; "
            "the models see less of the surroundings than they were trained with."
        )
    return warnings
