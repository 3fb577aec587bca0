"""Pictures of anomaly maps: examples with masks and marks, and the grid over N and S."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from anomaly_figures import Planes
from anomaly_methods import Rewritings, Settings
from numpy.typing import NDArray

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw_examples(
    made: Rewritings,
    settings: Settings,
    maps: Planes,
    marked: NDArray[np.bool_],
    path: Path,
    each: int = 5,
) -> None:
    """Rows of slices: image with the true outline, healthy rewriting, map, marks; diseased, look-alikes, healthy."""
    slices = made.slices
    groups = (
        slices.diseased,
        ~slices.diseased & slices.with_look_alikes,
        ~slices.diseased & ~slices.with_look_alikes,
    )
    rows: list[int] = []
    for group, count in zip(groups, (each, 2, 1), strict=True):
        found = np.flatnonzero(group)
        rows += found[np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)].tolist()
    healthy = made.rewritten(settings.noise_level, settings.steps, settings.guidance_scale)
    channel = slices.images.shape[1] - 1  # FLAIR of a head
    low, high = made.model.intensity_range
    figure, axes = plt.subplots(
        len(rows), 4, figsize=(7.4, 1.9 * len(rows)), squeeze=False, layout="constrained"
    )
    for line, k in zip(axes, rows, strict=True):
        panels: list[tuple[Any, dict[str, Any], str]] = [
            (slices.images[k, channel], {"cmap": "gray", "vmin": low, "vmax": high}, "slice, lesion"),
            (healthy[k, channel], {"cmap": "gray", "vmin": low, "vmax": high}, "rewritten as healthy"),
            (maps[k], {"cmap": "inferno", "vmin": 0, "vmax": max(float(maps[k].max()), 1e-6)},
             f"map, p = {made.probabilities[k]:.2f}"),
            (slices.images[k, channel], {"cmap": "gray", "vmin": low, "vmax": high}, "marked"),
        ]  # fmt: skip
        for axis, (image, options, title) in zip(line, panels, strict=True):
            axis.imshow(image, **options)
            axis.set_title(title, fontsize=8)
            axis.axis("off")
        _outline(line[0], slices.tumor[k], "tab:green")
        _outline(line[0], slices.look_alikes[k] > 0, "tab:cyan")
        _outline(line[3], marked[k], "tab:orange")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_grid(grid: dict[str, Any], path: Path, title: str) -> None:
    """Dice over N and S as a colored table."""
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    values = np.array(grid["dice_35"])
    shown = axis.imshow(values, cmap="viridis", vmin=0, vmax=1)
    axis.set_xticks(range(len(grid["S"])), [f"{s:g}" for s in grid["S"]])
    axis.set_yticks(range(len(grid["N"])), [str(n) for n in grid["N"]])
    axis.set_xlabel("guidance scale S")
    axis.set_ylabel("noise level N")
    axis.set_title(f"{title}: Dice at 35 %, {grid['slices']} slices", fontsize=9)
    for (row, column), value in np.ndenumerate(values):
        axis.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
            color="white" if value < 0.6 else "black",
        )  # fmt: skip
    figure.colorbar(shown, ax=axis, shrink=0.8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _outline(axis: Any, mask: NDArray[np.bool_], color: str) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask, [0.5], colors=color, linewidths=0.8)
