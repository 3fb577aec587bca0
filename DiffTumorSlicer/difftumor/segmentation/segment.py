"""Tumor segmentation of a CT: from the scan to labels, probabilities and measurements on its own grid.

As published (DiffTumor, Chen et al., CVPR 2024): the scan in RAS order at 1 mm, windows of 96 voxels with Gaussian
weights at overlap 0.75, logits carried back to the scan's grid by linear interpolation, the most probable class, and
tumor only inside the organ.  With an organ mask only the windows that touch it are computed, which changes nothing
inside.  Several models are combined by the mean of their probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Box, Grid
from difftumor.images.resampling import resample
from difftumor.measuring.lesions import equivalent_diameter_mm
from difftumor.measuring.tables import LesionRow, measure_rows, number_lesions
from difftumor.parameters import SegmentationParameters
from difftumor.segmentation.evidence import (
    Callback,
    Evidence,
    SegmentationError,
    kept_evidence,
)
from difftumor.segmentation.working_grid import box_around, grown

if TYPE_CHECKING:
    from difftumor.segmentation.model import SegmentationModel

REACH_MM = 20.0  # beyond the organ mask, where tumors may leave it
CHUNK_VOXELS = 1 << 22  # of the scan that are carried back at a time


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """A segmentation, in one box of the scan's grid; outside it nothing was asked for.

    Attributes:
        grid: of the scan.
        box: slices into the scan.
        labels: uint8, 0 background, 1 organ, 2 tumor.
        numbers: int32, lesions 1 to n.
        probability: float32, of tumor; 0 where none may be.
        agreement: float32, share of the models that agree with the result on tumor or not; None: one model.
        lesions: their measurements.
        settings: what the result was made with; JSON-ready.
        windows: how many were computed, and how many the whole scan has.
        notes: sentences for the user.
    """

    grid: Grid
    box: Box
    labels: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    probability: NDArray[np.float32]
    agreement: NDArray[np.float32] | None
    lesions: list[LesionRow]
    settings: dict[str, Any]
    windows: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def whole(self, part: NDArray[Any]) -> NDArray[Any]:
        """One of the arrays on the whole grid, 0 outside the box."""
        result = np.zeros(self.grid.shape, part.dtype)
        result[self.box] = part
        return result

    def facts(self) -> dict[str, Any]:
        """What a report and a side-car say, JSON-ready."""
        return {
            "box": [[part.start, part.stop] for part in self.box],
            "lesions": [row.to_dict() for row in self.lesions],
            "settings": self.settings,
            "windows": self.windows,
            "notes": self.notes,
        }


def segment(
    scan: NDArray[np.generic],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: SegmentationParameters,
    models: Sequence[SegmentationModel],
    callback: Callback | None = None,
    cache: MutableMapping[str, Any] | None = None,
) -> SegmentationResult:
    """Segment tumors.

    Args:
        scan: (I, J, K) HU; never changed.
        grid: its geometry.
        organ: bool (I, J, K), or None: the whole scan is computed, and the networks' own organ is written.
        parameters: the request.
        models: of `segmentation.model.load_segmentation_models`.
        callback: called with stage, done, total for each batch of windows; may raise Cancelled.
        cache: keeps what the networks said: another threshold or component rule then computes no window.

    Raises:
        SegmentationError: no segmentation can be made; says why and what to change.
    """
    report = callback or (lambda _stage, _done, _total: None)
    for what, array in (("scan", scan), ("organ mask", organ)):
        if array is not None and array.shape != grid.shape:
            raise ValueError(f"the {what} has shape {array.shape}, its grid {grid.shape}")
    if organ is not None and not organ.any():
        raise SegmentationError(
            "the organ mask is empty: no voxel is set. Choose the organ's segment or label, or leave the "
            "mask out to search the whole scan."
        )
    notes = [note for model in models for note in model.facts.get("notes", [])]
    if 1 in grid.shape:
        notes.append(
            "The image is a single slice, and the networks know volumes only. They were shown the slice "
            "repeated to both sides: take the result as a trial, not as a figure of the model."
        )
    region = organ
    if organ is not None and not parameters.clip_to_organ:
        region = grown(organ, grid, REACH_MM)
    settings = _settings(parameters, models[0], organ is not None)
    evidence = kept_evidence(scan, grid, region, parameters, models, report, cache)
    report("measuring", 0, 1)
    box = (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
    box = box if region is None else box_around(region)
    tumor, others, probability = _decide(evidence, grid, box, models[0], settings["threshold"])
    if region is not None:
        tumor &= region[box]
        probability[~region[box]] = 0
    dropped = _drop_small(tumor, grid.cropped(box), settings["min_diameter_mm"])
    if dropped:
        notes.append(
            f"{dropped} piece{'s' if dropped > 1 else ''} of less than {settings['min_diameter_mm']:g} mm "
            "equivalent diameter removed."
        )
    inside = others if organ is None else organ[box]
    labels = np.where(tumor, 2, inside).astype(np.uint8)
    agreement = _agreement(evidence, grid, box, tumor, models[0].tumor_label, settings["threshold"])
    numbers = number_lesions(tumor)
    lesions = measure_rows(
        numbers,
        grid.cropped(box),
        scan[box],
        inside.astype(bool) if inside.any() else None,
        name=_lesion_name(models),
        probability=probability,
        agreement=agreement,
        origin=[part.start for part in box],
    )
    report("measuring", 1, 1)
    return SegmentationResult(
        grid,
        box,
        labels,
        numbers,
        probability,
        agreement,
        lesions,
        settings,
        evidence.windows,
        notes,
    )


def _decide(
    evidence: Evidence, grid: Grid, box: Box, model: SegmentationModel, threshold: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.uint8], NDArray[np.float32]]:
    """Tumor, the class of all else (1 organ), and the probability of tumor, in a box of the scan."""
    shape = grid.cropped(box).shape
    tumor, others = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    probability = np.zeros(shape, np.float32)
    for part, target in _chunks(grid, box):
        values = _resampled(evidence.log_probability, evidence.grid, target)
        tumor[part], probability[part] = _is_tumor(values, model.tumor_label, threshold)
        if model.organ_label is not None:
            values[model.tumor_label] = -np.inf
            others[part] = values.argmax(axis=0) == model.organ_label
    return tumor, others, probability


def _agreement(
    evidence: Evidence,
    grid: Grid,
    box: Box,
    tumor: NDArray[np.bool_],
    tumor_label: int,
    threshold: float | None,
) -> NDArray[np.float32] | None:
    """Share of the models that say as the result says; None for one model."""
    if not evidence.members:
        return None
    agree = np.zeros(tumor.shape, np.float32)
    for part, target in _chunks(grid, box):
        for member in evidence.members:
            values = _resampled(member, evidence.grid, target)
            says, _ = _is_tumor(values, tumor_label, threshold)
            agree[part] += says == tumor[part]
    return agree / np.float32(len(evidence.members))


def _resampled(
    values: NDArray[np.floating[Any]], source: Grid, target: Grid
) -> NDArray[np.float32]:
    """(K, X, Y, Z) carried to another grid."""
    return np.stack([resample(one, source, target, order=1) for one in values])


def _is_tumor(
    values: NDArray[np.float32], tumor_label: int, threshold: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Which voxels are tumor, and its probability, from logarithms of probabilities (K, ...)."""
    weights = np.exp(values - values.max(axis=0))
    probability = weights[tumor_label] / weights.sum(axis=0)
    if threshold is not None:
        return probability >= threshold, probability
    others = np.delete(values, tumor_label, axis=0).max(axis=0)
    return values[tumor_label] > others, probability


def _chunks(grid: Grid, box: Box) -> Iterator[tuple[Box, Grid]]:
    """A box of the scan in slabs along K: slices into the box, and the slab's grid."""
    i, j, k = box
    thick = max(1, CHUNK_VOXELS // ((i.stop - i.start) * (j.stop - j.start)))
    for start in range(k.start, k.stop, thick):
        stop = min(start + thick, k.stop)
        part = (slice(None), slice(None), slice(start - k.start, stop - k.start))
        yield part, grid.cropped((i, j, slice(start, stop)))


def _drop_small(tumor: NDArray[np.bool_], grid: Grid, least_mm: float) -> int:
    """Remove 26-connected pieces of less than an equivalent diameter, in place; returns how many."""
    numbers = number_lesions(tumor)
    sizes = np.bincount(numbers.ravel())[1:] * grid.voxel_volume_mm3
    diameters = [equivalent_diameter_mm(volume) for volume in sizes.tolist()]
    if 1 in grid.shape:  # one slice: of the circle of equal area
        thickness = grid.spacing[grid.shape.index(1)]
        diameters = (2 * np.sqrt(sizes / thickness / np.pi)).tolist()
    small = [n for n, diameter in enumerate(diameters, start=1) if diameter < least_mm]
    if small:
        tumor[numbers >= small[0]] = False  # numbered from the largest
    return len(small)


def _settings(
    parameters: SegmentationParameters, model: SegmentationModel, has_organ: bool
) -> dict[str, Any]:
    """What the result is made with, gaps filled as the first model recommends."""
    threshold, least = parameters.tumor_threshold, parameters.min_diameter_mm
    if threshold is None:
        threshold = model.recommended["tumor_threshold"]
    return {
        "overlap": parameters.overlap,
        "flips": parameters.flips,
        "organ_mask": has_organ,
        "clip_to_organ": parameters.clip_to_organ and has_organ,
        "threshold": threshold,
        "min_diameter_mm": float(model.recommended["min_diameter_mm"] if least is None else least),
    }


def _lesion_name(models: Sequence[SegmentationModel]) -> str:
    organs = next((model.organs for model in models if model.organs), [])
    return f"{organs[0]} tumor" if len(organs) == 1 else "tumor"
