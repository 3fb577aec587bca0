"""Picture of the head phantom for the documents; Resources/phantom_head.png was made by it."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy import ndimage

from difftumor.phantom import TEST_SEEDS, HeadPhantom, make_head
from difftumor.phantom.head_sequences import SEQUENCES

mpl.use("Agg")
from matplotlib import pyplot as plt

PART_COLORS = ("limegreen", "deepskyblue", "red")
LOOK_ALIKE_COLOR = "gold"


def slice_of(head: HeadPhantom) -> int:
    """The slice with most tumor, or with most look-alikes where there is no tumor."""
    marks = head.tumors if head.tumors.any() else (head.look_alikes > 0) & (head.look_alikes < 6)
    return int(np.argmax((marks > 0).sum(axis=(0, 1))))


def shown(array: np.ndarray, k: int) -> np.ndarray:
    """An axial slice in radiological display: patient's right on the left, front up."""
    return array[::-1, ::-1, k].T


def main() -> int:
    """Draw a tumor with all its parts and a healthy old head; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(TEST_SEEDS[11], TEST_SEEDS[7]))
    chosen = parser.parse_args()
    figure, rows = plt.subplots(2, 5, figsize=(10, 5.1), dpi=80, facecolor="black")
    for row, seed, tumors in zip(rows, chosen.seeds, (1, 0), strict=True):
        head = make_head(seed, tumors=tumors)
        k = slice_of(head)
        crop = tuple(
            slice(int(i.min()) - 3, int(i.max()) + 4) for i in np.nonzero(shown(head.brain, k))
        )
        pictures = [(name.upper() if len(name) < 5 else "FLAIR", name) for name in SEQUENCES]
        for axes, (title, name) in zip(row, [*pictures, ("labels", "flair")], strict=True):
            low, high = np.percentile(head.images[name][head.brain], (0.5, 99.6))
            plane = shown(head.images[name], k)[crop]
            axes.imshow(plane, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
            axes.set_axis_off()
            axes.set_title(title.replace("T1C", "T1c"), color="white", fontsize=11)
        if tumors:
            for part, color in enumerate(PART_COLORS, start=1):
                outline(row[4], shown(head.tumors == part, k)[crop], color)
        outline(row[4], shown(head.look_alikes > 0, k)[crop], LOOK_ALIKE_COLOR)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.94, 0.02, 0.1)
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    picture.quantize(96).save(chosen.out, optimize=True)
    return 0


def outline(axes: plt.Axes, mask: np.ndarray, color: str) -> None:
    """Edge of a mask."""
    if mask.any():
        smooth = ndimage.zoom(mask.astype(float), 2, order=1)
        extent = (-0.5, mask.shape[1] - 0.5, -0.5, mask.shape[0] - 0.5)
        axes.contour(smooth, (0.5,), colors=color, linewidths=0.8, extent=extent)


if __name__ == "__main__":
    raise SystemExit(main())
