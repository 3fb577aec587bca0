"""Pictures of heat maps: one slice, and the contact sheet over noise levels and guidance scales.

The sheet follows figures 2 and 3 of Babaei et al. (heat maps, and what a threshold makes of them, over N and S),
with the healthy rewritings below. Colors are those of "inferno", which stay in order for color-blind readers
and in print; marks are told by their outline, not by their color alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from difftumor.anomaly.layout import PLANES, shown_plane, voxel_axes
from difftumor.grids import Grid
from difftumor.images.pictures import DARK_GROUND
from difftumor.parameters import Plane

COLORS = "inferno"
OUTLINE = "#00d7ff"
MARGIN_MM = 12.0
CELL_INCH = 2.1
SIDES = {"axial": ("A", "R"), "coronal": ("S", "R"), "sagittal": ("S", "A")}
NOTICE = "Research use only: never for diagnosis."


@dataclass(frozen=True, eq=False)
class ShownSlice:
    """One slice of an image as a radiologist looks at it.

    Attributes:
        image: float (rows, columns); the patient's left on the right, front or head on top.
        window: values that are shown black and white.
        aspect: height of a pixel over its width.
        plane: of the slice.
        part: rows and columns that are shown.
    """

    image: NDArray[np.generic]
    window: tuple[float, float]
    aspect: float
    plane: Plane
    part: tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Cell:
    """What one pair of N and S made of the slice; arrays like `ShownSlice.image`.

    Attributes:
        heat: scaled map, 0 to 1.
        marked: bool, what the threshold marks.
        healthy: the rewriting in units of the image, or None.
        highest: maximum of the map before scaling, in units of the model's range.
    """

    heat: NDArray[np.float32]
    marked: NDArray[np.bool_]
    healthy: NDArray[np.generic] | None
    highest: float


def shown_slice(
    array: NDArray[Any],
    grid: Grid,
    plane: Plane,
    index: int,
    inside: NDArray[np.bool_] | None,
    window: tuple[float, float] | None,
) -> ShownSlice:
    """Prepare a slice for display.

    Args:
        array: image (I, J, K).
        inside: bool (I, J, K) that the picture is centered on, or None for the whole slice.
        window: values that become black and white; None takes the 1st and 99th percentile of the slice.
    """
    image, aspect = shown_plane(array, grid, plane, index)
    if window is None:
        used = image[image > image.min()]
        low, high = np.percentile(used if used.size else image, (1, 99))
        window = (float(low), float(max(high, low + 1e-6)))
    part = (slice(None), slice(None))
    if inside is not None:
        mask, _ = shown_plane(inside, grid, plane, index)
        if mask.any():
            axes = voxel_axes(grid)
            steps = [grid.spacing[axes[p]] for p in PLANES[plane][1:]]
            spans = []
            for d, step in enumerate(steps):
                filled = np.flatnonzero(mask.any(axis=1 - d))
                margin = int(np.ceil(MARGIN_MM / step))
                spans.append(slice(max(0, filled[0] - margin), filled[-1] + margin + 1))
            part = (spans[0], spans[1])
    return ShownSlice(image, window, aspect, plane, part)


def draw_image(axes: Axes, shown: ShownSlice, image: NDArray[np.generic] | None = None) -> None:
    """Show the slice, or another image of the same place, with its sides."""
    values = shown.image if image is None else image
    axes.imshow(
        values[shown.part],
        cmap="gray",
        vmin=shown.window[0],
        vmax=shown.window[1],
        aspect=shown.aspect,
        interpolation="nearest",
    )
    axes.set_axis_off()
    top, left = SIDES[shown.plane]
    for x, y, letter in ((0.5, 0.97, top), (0.03, 0.5, left)):
        axes.text(
            *(x, y, letter),
            transform=axes.transAxes,
            color="#cccccc",
            fontsize=7,
            ha="left" if x < 0.5 else "center",
            va="top" if y > 0.5 else "center",
        )


def draw_heat(axes: Axes, shown: ShownSlice, heat: NDArray[np.float32]) -> None:
    """Lay a map over the image: the hotter, the less transparent."""
    values = np.clip(np.asarray(heat, float)[shown.part], 0, 1)
    colors = colormaps[COLORS](0.25 + 0.75 * values)  # black would darken where nothing is
    colors[..., 3] = np.clip(1.8 * values, 0, 0.85)
    axes.imshow(colors, aspect=shown.aspect, interpolation="nearest")


def draw_outline(axes: Axes, shown: ShownSlice, mask: NDArray[np.bool_], color: str) -> None:
    """Outline a mask."""
    part = np.asarray(mask)[shown.part]
    if part.any() and min(part.shape) > 1:
        axes.contour(part.astype(float), levels=[0.5], colors=color, linewidths=1.0)


def write_sheet(
    path: Path,
    shown: ShownSlice,
    cells: Mapping[tuple[int, float], Cell],
    *,
    title: str,
    subtitle: str,
    threshold: str,
) -> None:
    """Write the contact sheet: rows are noise levels N, columns guidance scales S.

    Args:
        path: of the PNG.
        shown: the slice.
        cells: (N, S) -> what it made; every N with every S.
        title: above the sheet.
        subtitle: likewise.
        threshold: how the marks came about, in words.

    Raises:
        ValueError: a pair of N and S is missing.
    """
    levels = sorted({n for n, _ in cells})
    scales = sorted({s for _, s in cells})
    if missing := [(n, s) for n in levels for s in scales if (n, s) not in cells]:
        raise ValueError(f"the sheet lacks N = {missing[0][0]}, S = {missing[0][1]:g}")
    blocks = [
        "heat map (each scaled by its own maximum, in units of the model, stands in its corner)"
    ]
    blocks.append(f"marked: {threshold}")
    if all(cell.healthy is not None for cell in cells.values()):
        blocks.append("rewritten as healthy")
    rows, columns = len(levels), len(scales) + 1
    across = np.asarray(shown.image[shown.part]).shape
    cell = CELL_INCH * float(np.clip(across[0] * shown.aspect / across[1], 0.4, 2.0))
    height = len(blocks) * (rows * (cell + 0.1) + 0.6) + 0.9
    figure = Figure(
        figsize=(max(columns, 3) * CELL_INCH + 0.9, height), facecolor="black", layout="constrained"
    )
    figure.suptitle(f"{title}\n{subtitle}\n{NOTICE}", color="white", fontsize=10)
    parts = figure.subfigures(len(blocks), 1, squeeze=False).ravel()
    for number, (part, text) in enumerate(zip(parts, blocks, strict=True)):
        part.set_facecolor("black")
        part.suptitle(text, color="#ffd400", fontsize=9)
        grid = part.subplots(rows, columns, squeeze=False)
        for line, level in zip(grid, levels, strict=True):
            _draw_row(line, shown, level, scales, cells, number)
        for axes, scale in zip(grid[0, 1:], scales, strict=True):
            axes.set_title(f"S = {scale:g}", color="white", fontsize=9)
        for axes in grid[1:, 0]:
            axes.images[0].remove()  # the image itself is shown once per block
            for side in list(axes.texts):
                if side.get_text() in SIDES[shown.plane]:
                    side.remove()
        grid[0, 0].set_title("image", color="white", fontsize=9)
        if number == 0:
            _colour_bar(grid[0, 0])
    figure.savefig(path, dpi=110)


def _draw_row(
    line: Sequence[Axes],
    shown: ShownSlice,
    level: int,
    scales: Sequence[float],
    cells: Mapping[tuple[int, float], Cell],
    block: int,
) -> None:
    """One noise level: the image, then one cell per guidance scale."""
    draw_image(line[0], shown)
    line[0].text(
        -0.04,
        0.5,
        f"N = {level}",
        transform=line[0].transAxes,
        rotation=90,
        color="white",
        fontsize=9,
        ha="right",
        va="center",
    )
    for axes, scale in zip(line[1:], scales, strict=True):
        cell = cells[level, scale]
        draw_image(axes, shown, cell.healthy if block == 2 else None)
        if block == 0:
            draw_heat(axes, shown, cell.heat)
            _corner(axes, f"max {cell.highest:.2g}")
        elif block == 1:
            draw_outline(axes, shown, cell.marked, OUTLINE)
            if not cell.marked.any():
                _corner(axes, "nothing")


def _corner(axes: Axes, text: str) -> None:
    """A word in the lower right corner."""
    place: dict[str, Any] = {
        "transform": axes.transAxes,
        "ha": "right",
        "va": "bottom",
        "fontsize": 7,
    }
    axes.text(0.98, 0.03, text, color="white", bbox=DARK_GROUND, **place)


def _colour_bar(axes: Axes) -> None:
    """Legend of the heat, below the image itself."""
    place = axes.inset_axes((0.15, -0.08, 0.7, 0.04))
    bar = axes.figure.colorbar(
        ScalarMappable(cmap=COLORS), cax=place, orientation="horizontal", ticks=[0, 0.5, 1]
    )
    bar.ax.tick_params(colors="white", labelsize=6, length=2, pad=1)
    bar.outline.set_edgecolor("#cccccc")


def write_overlay(
    path: Path,
    shown: ShownSlice,
    cell: Cell,
    *,
    title: str,
    truth: NDArray[np.bool_] | None = None,
) -> None:
    """Write a PNG of one slice: image, heat map, marks (and the true outline, if known), healthy rewriting.

    Args:
        truth: bool, like the image; of a phantom.
    """
    panels = ["image", "heat map", "marked" + (" (dashed: the truth)" if truth is not None else "")]
    if cell.healthy is not None:
        panels.append("rewritten as healthy")
    figure = Figure(figsize=(3.4 * len(panels), 3.9), facecolor="black", layout="constrained")
    for axes, text in zip(figure.subplots(1, len(panels)), panels, strict=True):
        draw_image(axes, shown, cell.healthy if text == "rewritten as healthy" else None)
        axes.set_title(text, color="white", fontsize=10)
        if text == "heat map":
            draw_heat(axes, shown, cell.heat)
        if text.startswith("marked"):
            draw_outline(axes, shown, cell.marked, OUTLINE)
            if truth is not None and truth[shown.part].any():
                axes.contour(
                    truth[shown.part].astype(float),
                    levels=[0.5],
                    colors="#ffd400",
                    linewidths=1.0,
                    linestyles="dashed",
                )
    figure.suptitle(title, color="white", fontsize=11)
    figure.text(0.995, 0.01, NOTICE, color="#cccccc", fontsize=7, ha="right", va="bottom")
    figure.savefig(path, dpi=100)
