"""Votes of pixel classifiers, laid on the grid of the input: segmentation, uncertainty, table, next slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Box
from difftumor.learning.feature_slices import FeatureSlices
from difftumor.learning.labels import around, connected_to, overrun, slice_areas_mm2
from difftumor.learning.result import LearnedResult, volumes_of

# The next slice is chosen by the disagreement in and around the tumor: what lies far from anything that was painted
# is left out anyway.
AROUND_MM = 10.0


class Canvas:
    """Lays votes on the grid of the input and tells the result."""

    def __init__(
        self,
        slices: FeatureSlices,
        painted: NDArray[np.uint8],
        labelled: tuple[int, ...],
        values: Sequence[int],
        shown: Sequence[int],
    ) -> None:
        """Take the slices in.

        Args:
            slices: prepared slices.
            painted: (I, J, K) labels of the reader; zeros if there are none.
            labelled: voxel indices of the slices that were labeled throughout: they stay as they were painted.
            values: label of each class but the background.
            shown: voxel indices of the slices that are segmented.
        """
        self.stack, self.labelled, self.values = slices.fine, labelled, values
        self.axis = axis = slices.fine.axis
        self.shown = [index for index in self.stack.indices if index in set(shown)]
        self.truth = np.zeros_like(painted)
        self.is_labelled = np.zeros(painted.shape[axis], bool)
        self.is_labelled[list(labelled)] = True
        keep = np.moveaxis(self.truth, axis, 0)
        keep[self.is_labelled] = np.moveaxis(painted, axis, 0)[self.is_labelled]
        self.box = _united(self.stack.box, self.truth > 0)

    def result(
        self,
        votes: NDArray[np.float32],
        disagreement: NDArray[np.float32],
        names: dict[int, str],
        keep: str,
        notes: list[str],
    ) -> LearnedResult:
        """Votes and disagreement on the box of the input."""
        grid, axis, box = self.stack.grid, self.axis, self.box
        shares = np.stack([self.stack.to_box(planes, box) for planes in votes])
        background = 1 - shares.sum(axis=0)
        values = np.array([0, *self.values], np.uint8)
        labels = values[np.where(background >= shares.max(axis=0), 0, 1 + shares.argmax(axis=0))]
        uncertainty = np.clip(self.stack.to_box(disagreement, box), 0, 1)
        truth = self.truth[box]
        along = np.moveaxis(labels, axis, 0)
        here = self.is_labelled[box[axis]]
        along[here] = np.moveaxis(truth, axis, 0)[here]
        np.moveaxis(uncertainty, axis, 0)[here] = 0
        hidden = ~np.isin(np.arange(box[axis].start, box[axis].stop), self.shown) & ~here
        along[hidden] = 0
        np.moveaxis(uncertainty, axis, 0)[hidden] = 0
        voxel = grid.voxel_volume_mm3
        left_out = {"parts": 0, "volume_mm3": 0.0}
        matters = np.ones(labels.shape, bool)
        if keep == "painted":
            found = labels > 0
            kept, parts = connected_to(found, truth > 0)
            lost = float((found & ~kept).sum()) * voxel
            left_out = {"parts": parts, "volume_mm3": round(lost, 3)}
            labels[~kept] = 0
            matters = around(kept, grid.cropped(box), AROUND_MM)
            if parts:
                notes = [
                    *notes,
                    f"{parts} more parts ({lost / 1000:.2g} ml) look like what was painted but are not connected to "
                    "it, and were left out. Paint in one of them to keep it, or keep all parts.",
                ]
        rows, next_slice = self._rows(labels, uncertainty, matters, names)
        if keep == "painted" and (leak := self._leak(labels)):
            next_slice, length_mm = leak
            notes = [
                *notes,
                f"The outline goes on for {length_mm:.0f} mm beyond the painted slices, further than the painted tumor "
                "is wide: it may have run into healthy tissue that looks alike. Label the slice that is proposed "
                "next, also if it shows no tumor any more.",
            ]
        return LearnedResult(
            grid=grid,
            box=box,
            labels_box=labels,
            uncertainty_box=uncertainty,
            names=names,
            labelled=self.labelled,
            next_slice=next_slice,
            slices=rows,
            volumes_mm3=volumes_of(labels, names, voxel),
            left_out=left_out,
            training={},
            settings={},
            notes=list(dict.fromkeys(notes)),
        )

    def _leak(self, labels: NDArray[np.uint8]) -> tuple[int, float] | None:
        """See `overrun`."""
        grid, axis = self.stack.grid, self.axis
        found = np.zeros(grid.shape[axis], bool)
        found[self.box[axis]] = np.moveaxis(labels, axis, 0).any(axis=(1, 2))
        painted_mm2 = slice_areas_mm2(self.truth > 0, grid, axis)
        return overrun(painted_mm2, found, self.is_labelled, float(grid.spacing[axis]))

    def _rows(
        self,
        labels: NDArray[np.uint8],
        uncertainty: NDArray[np.float32],
        matters: NDArray[np.bool_],
        names: dict[int, str],
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Table of the slices, and the slice to label next."""
        grid, axis, first = self.stack.grid, self.axis, self.box[self.axis].start
        areas = {n: slice_areas_mm2(labels == v, grid, axis) for v, n in names.items()}
        doubt = slice_areas_mm2(np.where(matters, uncertainty, 0), grid, axis)
        positions = dict(zip(self.stack.indices, self.stack.positions_mm, strict=True))
        rows: list[dict[str, Any]] = [
            {
                "index": index,
                "position_mm": round(positions[index], 3),
                "labelled": bool(self.is_labelled[index]),
                "area_mm2": {
                    name: round(float(area[index - first]), 3) for name, area in areas.items()
                },
                "disagreement_mm2": round(float(doubt[index - first]), 3),
            }
            for index in self.shown
        ]
        open_rows = [row for row in rows if not row["labelled"] and row["disagreement_mm2"] > 0]
        best = max(open_rows, key=lambda row: row["disagreement_mm2"], default=None)
        return rows, None if best is None else best["index"]


def _united(box: Box, painted: NDArray[np.bool_]) -> Box:
    """The smallest box that holds a box and all painted voxels."""
    spans = []
    for d, part in enumerate(box):
        places = np.flatnonzero(painted.any(axis=tuple(other for other in range(3) if other != d)))
        low, high = (places[0], places[-1] + 1) if places.size else (part.start, part.stop)
        spans.append(slice(min(part.start, int(low)), max(part.stop, int(high))))
    return spans[0], spans[1], spans[2]
