"""Prepared slices of an image and the exact way back to its own grid. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.layout import PLANES, slice_box
from difftumor.grids import Box, Grid
from difftumor.images.resampling import covering_box, resample
from difftumor.parameters import Plane


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Prepared slices, and where they came from.

    Attributes:
        images: float32 (n, C, H, W) in the model's intensity range; its lower end outside the organ.
        organ: bool (n, H, W).
        indices: voxel index of each slice along `axis` of the input.
        grids: where the pixels of each slice lie; shape (H, W, 1), or (W, H, 1) if transposed.
        grid: geometry of the input.
        axis: voxel axis of the input that is nearest to the plane's normal.
        plane: as asked.
        inside: bool (I, J, K), the organ on the input grid; None: everything.
        units: input units per unit of the model's range, (n, C): HU, or the sequence's own.
        transposed: as the model's format says.
        notes: sentences for the user.
    """

    images: NDArray[np.float32]
    organ: NDArray[np.bool_]
    indices: tuple[int, ...]
    grids: tuple[Grid, ...]
    grid: Grid
    axis: int
    plane: Plane
    inside: NDArray[np.bool_] | None
    units: NDArray[np.float64]
    transposed: bool = False
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, first: int, end: int) -> SliceStack:
        """Some of the slices: positions `first` up to `end` in this stack."""
        span = slice(first, end)
        return replace(
            self,
            images=self.images[span],
            organ=self.organ[span],
            indices=self.indices[span],
            grids=self.grids[span],
            units=self.units[span],
        )

    def chosen(self, indices: Sequence[int]) -> SliceStack:
        """The slices with these voxel indices, in this order.  Raises: ValueError: there is none such."""
        rows = [self.indices.index(index) for index in indices]
        if rows == list(range(len(self))):
            return self
        return replace(
            self,
            images=self.images[rows],
            organ=self.organ[rows],
            indices=tuple(indices),
            grids=tuple(self.grids[row] for row in rows),
            units=self.units[rows],
        )

    @property
    def box(self) -> Box:
        """Voxels of the input that the slices can say something about."""
        boxes = [
            covering_box(crop, self.grid.cropped(slice_box(self.grid, self.axis, index)))
            for crop, index in zip(self.grids, self.indices, strict=True)
        ]
        spans = [
            slice(min(b[d].start for b in boxes), max(b[d].stop for b in boxes)) for d in range(3)
        ]
        spans[self.axis] = slice(min(self.indices), max(self.indices) + 1)
        return spans[0], spans[1], spans[2]

    @property
    def positions_mm(self) -> list[float]:
        """RAS coordinate along the plane's normal of the middle of each slice, mm."""
        middle = (np.asarray(self.grid.shape) - 1) / 2
        points = np.tile(middle, (len(self), 1))
        points[:, self.axis] = self.indices
        return self.grid.to_ras(points)[:, PLANES[self.plane][0]].tolist()  # type: ignore[no-any-return]

    def to_box(self, planes: NDArray[Any], box: Box | None = None) -> NDArray[np.float32]:
        """Carry values of the model's pixels to the voxels of a box of the input.

        Linear in the plane, between pixels of the organ only, so that the organ's rim is not darkened.

        Args:
            planes: (n, H, W).
            box: part of the input; default: `self.box`.

        Returns:
            float32 of the box's shape, 0 outside the organ, the crops and the slices.

        Raises:
            ValueError: if `planes` does not belong to these slices.
        """
        if planes.shape != self.organ.shape:
            raise ValueError(
                f"planes: got shape {planes.shape}, the slices have {self.organ.shape}"
            )
        box = box or self.box
        target = self.grid.cropped(box)
        result = np.zeros(target.shape, np.float32)
        for plane, organ, crop, index in zip(
            planes, self.organ, self.grids, self.indices, strict=True
        ):
            at = index - box[self.axis].start
            if not 0 <= at < target.shape[self.axis]:
                continue
            part = slice_box(target, self.axis, at)
            result[part] = self._back(plane, organ, crop, target.cropped(part))
        if self.inside is not None:
            result[~self.inside[box]] = 0
        return result

    def to_volume(self, planes: NDArray[Any]) -> NDArray[np.float32]:
        """As `to_box`, on the whole input grid; float32 (I, J, K)."""
        result = np.zeros(self.grid.shape, np.float32)
        result[self.box] = self.to_box(planes)
        return result

    def _back(
        self, plane: NDArray[Any], organ: NDArray[np.bool_], crop: Grid, target: Grid
    ) -> NDArray[np.float32]:
        """One slice from the model's pixels to the voxels of a slice of the input."""
        if self.transposed:
            plane, organ = plane.T, organ.T
        weight = organ.astype(np.float32)[..., None]
        known = resample(weight, crop, target, order=1)
        values = resample(
            np.where(organ, plane, 0).astype(np.float32)[..., None], crop, target, order=1
        )
        # Voxels that no pixel of the organ reaches stay unknown.
        reached = known > 1e-3
        return np.where(reached, values / np.where(reached, known, 1), 0).astype(np.float32)
