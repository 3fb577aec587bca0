"""Pictures for reports: slices as a radiologist reads them, before and after, marked as synthetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from difftumor.grids import Grid, crop_grid
from difftumor.images.resampling import resample

ABDOMEN_WINDOW = (-160.0, 240.0)  # width 400, level 40
LIVER_WINDOW = (20.0, 180.0)
CLOSE_UP_MM = 110.0
PIXEL_MM = 0.75
DARK_GROUND = {"facecolor": "black", "alpha": 0.65, "pad": 1.5, "linewidth": 0}
FLAT_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}


def plane(
    array: NDArray[np.generic],
    grid: Grid,
    center_ras: tuple[float, float, float],
    field_mm: float,
    view: str = "axial",
    order: int = 1,
) -> NDArray[np.generic]:
    """One slice through a point in radiological display: patient's right on the left, front or head up.

    Args:
        array: (I, J, K) on `grid`.
        center_ras: shown in the middle, RAS mm.
        field_mm: side of the square.
        view: 'axial', 'coronal' or 'sagittal'.
        order: 1 for images, 0 for masks.

    Returns:
        (rows, columns), row 0 on top.
    """
    pixels = round(field_mm / PIXEL_MM)
    flat = FLAT_AXIS[view]
    shape = [1 if axis == flat else pixels for axis in range(3)]
    target = crop_grid(center_ras, shape, (PIXEL_MM,) * 3)
    fill = -1024.0 if order else 0
    values = resample(array, grid, target, order=order, fill=fill).squeeze(axis=flat)
    return values[::-1, ::-1].T


def in_slice(
    middle_ras: NDArray[np.float64], point_ras: tuple[float, float, float], view: str
) -> tuple[float, float, float]:
    """The middle of the image, moved into the slice that holds the point; RAS mm."""
    flat = FLAT_AXIS[view]
    moved = [point_ras[a] if a == flat else float(middle_ras[a]) for a in range(3)]
    return (moved[0], moved[1], moved[2])


def marks(
    view: str, window: tuple[float, float], close_up: float | None, synthetic: bool
) -> Iterator[tuple[float, float, str, str]]:
    """What every picture must tell by itself: sides, window, size, and that a tumor is synthetic."""
    top, bottom = ("A", "P") if view == "axial" else ("S", "I")
    for x, y, letter in (
        (0.02, 0.5, "R"),
        (0.95, 0.5, "L"),
        (0.48, 0.95, top),
        (0.48, 0.02, bottom),
    ):
        yield x, y, letter, "white"
    width, level = window[1] - window[0], (window[1] + window[0]) / 2
    size = f", {close_up:.0f} mm" if close_up else ""
    yield 0.02, 0.02, f"W {width:.0f} L {level:.0f}{size}", "#cccccc"
    if synthetic:
        yield 0.74, 0.02, "SYNTHETIC", "#ffd400"


def before_and_after(
    before: NDArray[np.generic],
    after: NDArray[np.generic],
    mask: NDArray[np.generic],
    grid: Grid,
    center_ras: tuple[float, float, float],
    title: str,
    path: Path,
) -> None:
    """Write a PNG: the whole slice, then close-ups before, after, and after with the mask's outline."""
    low, high = grid.bounds_ras
    whole_mm = float(max(high[:2] - low[:2]))
    figure = Figure(figsize=(13.6, 7.2), facecolor="black", layout="constrained")
    axes = figure.subplots(2, 4)
    for row, view in zip(axes, ("axial", "coronal"), strict=True):
        panels = (
            (after, None, ABDOMEN_WINDOW, f"{view}, SYNTHETIC tumor", False),
            (before, CLOSE_UP_MM, LIVER_WINDOW, "before", False),
            (after, CLOSE_UP_MM, LIVER_WINDOW, "after (SYNTHETIC)", False),
            (after, CLOSE_UP_MM, LIVER_WINDOW, "outline of the mask", True),
        )
        for axis, (array, close_up, window, text, outlined) in zip(row, panels, strict=True):
            field = close_up or whole_mm
            middle = center_ras if close_up else in_slice(grid.center_ras, center_ras, view)
            image = plane(array, grid, middle, field, view)
            axis.imshow(
                image, cmap="gray", vmin=window[0], vmax=window[1], interpolation="bilinear"
            )
            if not close_up:
                mark = np.subtract(
                    middle, center_ras
                )  # from the point to the middle of the picture
                across, up = (mark[0], mark[1 if view == "axial" else 2])
                box = ((field / 2 + across - CLOSE_UP_MM / 2), (field / 2 + up - CLOSE_UP_MM / 2))
                axis.add_patch(
                    Rectangle(
                        (box[0] / PIXEL_MM, box[1] / PIXEL_MM),
                        CLOSE_UP_MM / PIXEL_MM,
                        CLOSE_UP_MM / PIXEL_MM,
                        fill=False,
                        color="#ffd400",
                        linewidth=0.8,
                    )
                )
            if outlined:
                shown = plane(mask.astype(np.uint8), grid, center_ras, field, view, order=0)
                axis.contour(shown, levels=[0.5], colors="#ffd400", linewidths=1.0)
            axis.set_title(text, color="white", fontsize=10)
            axis.set_axis_off()
            for x, y, text_, color in marks(view, window, close_up, array is after):
                axis.text(
                    x, y, text_, color=color, transform=axis.transAxes, fontsize=8, bbox=DARK_GROUND
                )
    figure.suptitle(title, color="white", fontsize=12)
    figure.savefig(path, dpi=90)
