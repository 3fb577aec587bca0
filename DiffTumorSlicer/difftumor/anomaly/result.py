"""The outcome of an anomaly request, on the grid of the input. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly import maps
from difftumor.anomaly.settings import AnomalySettings
from difftumor.anomaly.stack import SliceStack
from difftumor.grids import Box, Grid, slice_of


@dataclass(frozen=True, eq=False)
class AnomalyResult:
    """Heat map, marks and healthy image; what changed is kept for one box of the input's grid.

    Attributes:
        grid: of the input.
        box: slices into the input that hold all computed slices.
        map_box: float32, unnormalized, in units of the model's range; 0 outside the organ.
        scaled_box: float32 in [0, 1]; gated slices are 0.
        mask_box: bool, where the scaled map lies above the threshold.
        healthy_box: by name of the image, the image in `box` as the guidance made it healthy, in its own type
            and units; equal to the input outside organ and crops.
        images: the inputs by name, as given.
        slices: a row for each finished slice: index, position_mm, probability, gated, map_max, threshold,
            area_mm2, organ_area_mm2, and for each image its values in the marked and in the rest of the organ.
        probability: confidence of the classifier for the volume, 0 to 1; None if no slice is finished.
        lesions: JSON-ready facts of all marked voxels together: volume_mm3, parts, values.
        settings: all resolved values, JSON-ready.
        unfinished: how many slices are missing because the request was cancelled.
        notes: sentences for the user.
    """

    grid: Grid
    box: Box
    map_box: NDArray[np.float32]
    scaled_box: NDArray[np.float32]
    mask_box: NDArray[np.bool_]
    healthy_box: dict[str, NDArray[np.generic]]
    images: Mapping[str, NDArray[np.generic]]
    slices: list[dict[str, Any]]
    probability: float | None
    lesions: dict[str, Any]
    settings: dict[str, Any]
    unfinished: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def map(self) -> NDArray[np.float32]:
        """Unnormalized map on the whole grid, 0 where nothing was computed; float32 (I, J, K)."""
        return self._whole(self.map_box)

    @property
    def scaled_map(self) -> NDArray[np.float32]:
        """Map in [0, 1] on the whole grid; float32 (I, J, K)."""
        return self._whole(self.scaled_box)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Marked voxels on the whole grid; bool (I, J, K)."""
        return self._whole(self.mask_box)

    @property
    def counterfactual(self) -> NDArray[np.generic]:
        """The healthy version of the only image, or of the first of several; see `counterfactuals`."""
        return self.counterfactuals[next(iter(self.healthy_box))]

    @property
    def counterfactuals(self) -> dict[str, NDArray[np.generic]]:
        """The healthy version of each image by its name, on the whole grid, in its voxel type."""
        found = {}
        for name, patch in self.healthy_box.items():
            found[name] = np.array(self.images[name])
            found[name][self.box] = patch
        return found

    def facts(self) -> dict[str, Any]:
        """What a report and a side-car say, JSON-ready."""
        return {
            "box": [[part.start, part.stop] for part in self.box],
            "probability": self.probability,
            "slices": self.slices,
            "lesions": self.lesions,
            "settings": self.settings,
            "unfinished": self.unfinished,
            "notes": self.notes,
        }

    def _whole(self, part: NDArray[Any]) -> NDArray[Any]:
        whole = np.zeros(self.grid.shape, part.dtype)
        whole[self.box] = part
        return whole


def hottest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The slice with the highest map, of those that are not gated if there are any."""
    return max(rows, key=lambda row: (not row["gated"], row["map_max"]))


class Canvas:
    """Takes finished slices and tells the result at any time.

    The maps are laid on the input's grid slice by slice as they come, so that a result of few more slices costs
    only these.
    """

    def __init__(
        self,
        stack: SliceStack,
        images: Mapping[str, NDArray[np.generic]],
        channels: list[str],
        settings: AnomalySettings,
        signs: NDArray[np.float32],
    ) -> None:
        """Start empty.

        Args:
            stack: the prepared slices.
            images: the inputs by name.
            channels: name of the input that each channel of the stack shows.
            settings: how maps are made.
            signs: (C,) of `anomaly.maps.direction_signs`.
        """
        self._stack, self._images, self._channels = stack, images, channels
        self._settings, self._signs = settings, signs
        self._box = stack.box
        shape = stack.grid.cropped(self._box).shape
        self._map = np.zeros(shape, np.float32)
        self._change = {name: np.zeros(shape, np.float32) for name in channels}
        self._planes = np.zeros(stack.organ.shape, np.float32)
        self._probabilities: list[float] = []
        spacing = [float(np.linalg.norm(stack.grids[0].affine[:3, d])) for d in (0, 1)]
        self._spacing = spacing[::-1] if stack.transposed else spacing

    def add(
        self,
        probability: NDArray[np.float64],
        healthy: NDArray[np.float32],
        unguided: NDArray[np.float32] | None,
    ) -> None:
        """Lay the next slices down: probabilities (B,), rewritings (B, C, H, W) at S and at S = 0."""
        first = len(self._probabilities)
        part = self._stack.part(first, first + len(healthy))
        planes = maps.difference(
            self._settings.map_kind, part.images, healthy, unguided, self._signs
        )
        planes = maps.smooth(planes, part.organ, self._settings.smoothing_mm, self._spacing)
        self._planes[first : first + len(healthy)] = planes
        self._probabilities += probability.tolist()
        box = part.box
        inner = tuple(
            slice(p.start - whole.start, p.stop - whole.start)
            for p, whole in zip(box, self._box, strict=True)
        )
        # += because crops of a part are a box around slices that need not be neighbors.
        self._map[inner] += part.to_box(planes)
        base = part.images if unguided is None else unguided
        for c, name in enumerate(self._channels):
            change = (healthy[:, c] - base[:, c]) * part.units[:, c, None, None]
            self._change[name][inner] += part.to_box(change.astype(np.float32))

    def result(self, notes: list[str]) -> AnomalyResult:
        """What is finished so far."""
        s, done = self._settings, len(self._probabilities)
        part = self._stack.part(0, done)
        planes = self._planes[:done]
        factors = maps.scale_factors(planes, s.normalisation)
        scaled_planes = maps.scaled(planes, factors[:, None, None])
        limits = maps.thresholds(
            scaled_planes, part.organ, s.threshold_rule, s.threshold, s.normalisation
        )
        empty = np.zeros(done, bool)
        if s.gate:
            empty = maps.gated(np.asarray(self._probabilities), planes, s.gate_probability, s.floor)
        along = np.zeros(self._map.shape[part.axis], np.float32)
        limit_along = np.full(along.shape, np.inf)
        at = np.asarray(part.indices, int) - self._box[part.axis].start
        along[at] = np.where(empty, 0, factors)
        limit_along[at] = limits
        spread = [1, 1, 1]
        spread[part.axis] = -1
        scaled = maps.scaled(self._map, along.reshape(spread))
        mask = (scaled > limit_along.reshape(spread)) & self._organ()
        if s.largest_component:
            mask = maps.largest_component(mask)
        rows = [
            {
                "index": index,
                "position_mm": round(position, 3),
                "probability": round(float(probability), 6),
                "gated": bool(gated),
                "map_max": float(plane.max()),
                "threshold": float(limit) if np.isfinite(limit) else None,
                **self._areas(mask, index),
            }
            for index, position, probability, gated, plane, limit in zip(
                part.indices,
                part.positions_mm,
                self._probabilities,
                empty,
                planes,
                limits,
                strict=True,
            )
        ]
        return AnomalyResult(
            grid=self._stack.grid,
            box=self._box,
            map_box=self._map.copy(),
            scaled_box=scaled,
            mask_box=mask,
            healthy_box={name: self._healthy(name) for name in self._channels},
            images=self._images,
            slices=rows,
            probability=round(maps.volume_probability(self._probabilities), 6) if done else None,
            lesions=self._lesions(mask),
            settings=s.to_dict(),
            unfinished=len(self._stack) - done,
            notes=list(notes),
        )

    def _organ(self) -> NDArray[np.bool_]:
        inside = self._stack.inside
        return np.ones(self._map.shape, bool) if inside is None else inside[self._box]

    def _healthy(self, name: str) -> NDArray[np.generic]:
        """The image in the box plus what the guidance changed, in its own voxel type."""
        before = self._images[name][self._box]
        change = self._change[name]
        after = before.astype(np.float32) + change
        if before.min() >= 0:
            after = np.maximum(
                after, 0
            )  # an MR image has no negative value, its healthy version neither
        if np.issubdtype(before.dtype, np.integer):
            limits = np.iinfo(before.dtype.name)
            after = np.clip(np.rint(after), limits.min, limits.max)
        return np.where(change != 0, after, before).astype(before.dtype)

    def _areas(self, mask: NDArray[np.bool_], index: int) -> dict[str, Any]:
        """Areas and values of one slice."""
        axis = self._stack.axis
        at = index - self._box[axis].start
        marked, organ = (slice_of(part, axis, at) for part in (mask, self._organ()))
        first, second = (self._stack.grid.affine[:3, d] for d in range(3) if d != axis)
        pixel_mm2 = float(np.linalg.norm(np.cross(first, second)))
        return {
            "area_mm2": round(float(marked.sum()) * pixel_mm2, 3),
            "organ_area_mm2": round(float(organ.sum()) * pixel_mm2, 3),
            "values": {
                name: _values(slice_of(self._images[name][self._box], axis, at), marked, organ)
                for name in self._channels
            },
        }

    def _lesions(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """All marked voxels together."""
        organ = self._organ()
        return {
            "volume_mm3": round(float(mask.sum()) * self._stack.grid.voxel_volume_mm3, 3),
            "parts": maps.count_components(mask),
            "values": {
                name: _values(self._images[name][self._box], mask, organ) for name in self._channels
            },
        }


def _values(
    image: NDArray[np.generic], marked: NDArray[np.bool_], organ: NDArray[np.bool_]
) -> dict[str, Any]:
    """Statistics of an image (HU, or the sequence's own units) in the marked and in the rest of the organ."""
    return {
        "marked": maps.value_statistics(image[marked]),
        "rest": maps.value_statistics(image[organ & ~marked]),
    }
