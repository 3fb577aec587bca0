"""The outcome of learning from labeled slices, on the grid of the input. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Box, Grid

# Labels of brain tumors and the regions that are evaluated (BraTS; Alshenoudy et al.).
BRAIN_LABELS = {1: "edema", 2: "necrotic core", 3: "enhancing tumor"}
REGIONS: dict[str, tuple[int, ...]] = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
TUMOR_LABELS = {1: "tumor"}


def label_names(values: Sequence[int], organs: Sequence[str]) -> dict[int, str]:
    """Names of labels for people."""
    known = BRAIN_LABELS if "brain" in organs else TUMOR_LABELS
    return {value: known.get(value, f"label {value}") for value in values}


@dataclass(frozen=True, eq=False)
class LearnedResult:
    """Segmentation of a case and how sure the classifiers are; kept for one box of the input's grid.

    Attributes:
        grid: of the input.
        box: slices into the input that hold all segmented slices and everything that was painted.
        labels_box: uint8, values as they were painted; labeled slices are as the reader left them.
        uncertainty_box: float32 in [0, 1], disagreement of the classifiers; 0 in labeled slices and outside the
            organ.
        names: label -> its name.
        labelled: voxel indices of the slices that were learned from.
        next_slice: where labels would help most: the unlabeled slice on which the classifiers disagree most, or, where
            the tumor seems to go on too far, the slice where it should have ended (`learning.labels.overrun`); None if
            they agree everywhere.
        slices: a row for each segmented slice: index, position_mm, labeled, area_mm2 by label, disagreement_mm2.
        volumes_mm3: by label, and by region for brain tumors.
        left_out: {"parts", "volume_mm3"} of what was found without being connected to a painted voxel.
        training: pixels, features, members, steps.
        settings: all resolved values, JSON-ready.
        notes: sentences for the user.
        learned: what was learned (`learned.LearnedModel`); None where something learned before was applied.
    """

    grid: Grid
    box: Box
    labels_box: NDArray[np.uint8]
    uncertainty_box: NDArray[np.float32]
    names: dict[int, str]
    labelled: tuple[int, ...]
    next_slice: int | None
    slices: list[dict[str, Any]]
    volumes_mm3: dict[str, float]
    left_out: dict[str, Any]
    training: dict[str, Any]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    learned: Any = None

    @property
    def segmentation(self) -> NDArray[np.uint8]:
        """Labels on the whole grid, uint8 (I, J, K)."""
        return self._whole(self.labels_box)

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """Disagreement on the whole grid, float32 (I, J, K)."""
        return self._whole(self.uncertainty_box)

    def facts(self) -> dict[str, Any]:
        """What a report and a side-car say, JSON-ready."""
        return {
            "box": [[part.start, part.stop] for part in self.box],
            "label_names": {str(value): name for value, name in self.names.items()},
            "labelled": list(self.labelled),
            "next_slice": self.next_slice,
            "slices": self.slices,
            "volumes_mm3": self.volumes_mm3,
            "left_out": self.left_out,
            "training": self.training,
            "settings": self.settings,
            "notes": self.notes,
        }

    def _whole(self, part: NDArray[Any]) -> NDArray[Any]:
        whole = np.zeros(self.grid.shape, part.dtype)
        whole[self.box] = part
        return whole


def volumes_of(
    labels: NDArray[np.uint8], names: dict[int, str], voxel_mm3: float
) -> dict[str, float]:
    """Volume of each label, and of the regions of brain tumors."""
    counts = np.bincount(labels.ravel(), minlength=256)
    found = {name: round(float(counts[value]) * voxel_mm3, 3) for value, name in names.items()}
    if set(names.values()) <= set(BRAIN_LABELS.values()):
        for region, members in REGIONS.items():
            found[region] = round(float(counts[list(members)].sum()) * voxel_mm3, 3)
    return found
