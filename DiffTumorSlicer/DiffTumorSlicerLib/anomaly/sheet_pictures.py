"""Pictures of one slice with its map over it, for the sheet over N and S.  No Qt, no matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk

from difftumor.anomaly.layout import PLANES, shown_plane, voxel_axes
from difftumor.grids import Grid
from DiffTumorSlicerLib.anomaly.request import Cell
from DiffTumorSlicerLib.scene.heat_display import colors_of
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid

MARGIN_MM = 10.0


def picture_of(
    cell: Cell, plane: Any, table: str, threshold: float, opacity: float, side: int
) -> NDArray[np.uint8]:
    """A slice as a radiologist looks at it, the patient's left on the right, with the map over it.

    Args:
        cell: of the sheet.
        plane: of the slice.
        table: of colors.
        threshold: below which the map is not shown.
        opacity: 0 to 1.
        side: pixels of the longer side.

    Returns:
        (rows, columns, 3).
    """
    grid = volume_grid(cell.source)
    heat = np.zeros(grid.shape, np.float32)
    heat[cell.heat.box] = cell.heat.values
    shown = _crop(cell, grid, plane)
    gray = _gray(cell.source, shown_plane(volume_array(cell.source), grid, plane, cell.index)[0])
    over, _aspect = shown_plane(heat, grid, plane, cell.index)
    colors = colors_of(table)[np.clip(over * 255, 0, 255).astype(int)]
    alpha = np.where(over > max(threshold, 1e-6), opacity, 0.0)[..., None]
    mixed = (1 - alpha) * gray[..., None] + alpha * colors
    rows, columns = _resampled(shown, grid, plane, side)
    return np.round(255 * mixed[rows][:, columns]).astype(np.uint8)


def write_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture (rows, columns, 3)."""
    image = vtk.vtkImageData()
    image.SetDimensions(picture.shape[1], picture.shape[0], 1)
    flipped = np.ascontiguousarray(picture[::-1].reshape(-1, 3))
    image.GetPointData().SetScalars(numpy_to_vtk(flipped, deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()


def _gray(source: Any, part: NDArray[Any]) -> NDArray[np.float64]:
    """0 to 1 in the window that the views have."""
    display = source.GetDisplayNode()
    if display is None:
        low, high = float(part.min()), float(part.max())
    else:
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    return np.clip((part - low) / max(high - low, 1e-6), 0, 1)


def _crop(cell: Cell, grid: Grid, plane: Any) -> tuple[slice, slice]:
    """Rows and columns around what the model saw."""
    mask = np.zeros(grid.shape, bool)
    mask[cell.heat.box] = True
    seen, _aspect = shown_plane(mask, grid, plane, cell.index)
    axes = voxel_axes(grid)
    spans = []
    for d, patient in enumerate(PLANES[plane][1:]):
        filled = np.flatnonzero(seen.any(axis=1 - d))
        margin = int(np.ceil(MARGIN_MM / grid.spacing[axes[patient]]))
        low, high = (filled[0], filled[-1]) if filled.size else (0, seen.shape[d] - 1)
        spans.append(slice(max(0, low - margin), min(seen.shape[d], high + margin + 1)))
    return spans[0], spans[1]


def _resampled(
    shown: tuple[slice, slice], grid: Grid, plane: Any, side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of rows and columns for square pixels, the nearest voxel each."""
    axes = voxel_axes(grid)
    lengths = [
        (part.stop - part.start) * grid.spacing[axes[p]]
        for part, p in zip(shown, PLANES[plane][1:], strict=True)
    ]
    scale = side / max(lengths)
    found = []
    for part, length in zip(shown, lengths, strict=True):
        count = max(1, round(length * scale))
        at = part.start + (np.arange(count) + 0.5) / count * (part.stop - part.start)
        found.append(at.astype(np.int64))
    return found[0], found[1]
