"""Tumor segmentation of a CT: from the scan to labels, probabilities and measurements on its own grid.

As published (DiffTumor, Chen et al., CVPR 2024): the scan in RAS order at 1 mm, windows of 96 voxels with Gaussian
weights at overlap 0.75, logits carried back to the scan's grid by linear interpolation, the most probable class, and
tumor only inside the organ.  With an organ mask only the windows that touch it are computed, which changes nothing
inside.  Several models are combined by the mean of their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftumor.grids import Box, Grid, resample
from difftumor.lesion_tables import LesionRow, measure_rows, number_lesions
from difftumor.lesions import equivalent_diameter_mm
from difftumor.parameters import SegmentationParameters
from difftumor.provenance import image_hash
from difftumor.sliding_windows import plan_windows, predict_windows
from difftumor.working_grid import box_around, grown, needed_voxels, oriented_grid

if TYPE_CHECKING:
    from difftumor.segmentation_models import SegmentationModel

AIR_HU = -1024.0
REACH_MM = 20.0  # beyond the organ mask, where tumors may leave it
CHUNK_VOXELS = 1 << 22  # of the scan that are carried back at a time
BATCH = {"cpu": 1, "cuda": 4, "mps": 1}
FLIPS = [[2 + d for d in range(3) if on[d]] for on in product((0, 1), repeat=3)]
CACHE_KEY = "segmentation evidence"
Callback = Callable[[str, int, int], None]


class SegmentationError(ValueError):
    """No segmentation can be made; says why and what to change."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the networks say, on a part of their working grid.

    Attributes:
        grid: of the arrays.
        log_probability: float32 (K, X, Y, Z); up to a constant per voxel.
        members: float16 (K, X, Y, Z) of each model, to ask them one by one; empty: one model.
        windows: how many were computed, and how many the whole scan has.
    """

    grid: Grid
    log_probability: NDArray[np.float32]
    members: list[NDArray[np.float16]]
    windows: dict[str, int]


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
        models: of `segmentation_models.load_segmentation_models`.
        callback: called with stage, done, total for each batch of windows; may raise Cancelled.
        cache: keeps what the networks said: another threshold or component rule then computes no window.

    Raises: SegmentationError: no segmentation can be made; says why and what to change.
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
    region = organ
    if organ is not None and not parameters.clip_to_organ:
        region = grown(organ, grid, REACH_MM)
    settings = _settings(parameters, models[0], organ is not None)
    evidence = _kept_evidence(scan, grid, region, parameters, models, report, cache)
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


def collect_evidence(
    scan: NDArray[np.generic],
    grid: Grid,
    region: NDArray[np.bool_] | None,
    models: Sequence[SegmentationModel],
    overlap: float,
    flips: bool,
    report: Callback,
) -> Evidence:
    """Run all models where a region of the scan needs them.

    Args:
        scan: (I, J, K) HU.
        grid: its geometry.
        region: bool (I, J, K); None: everywhere.
        models: one or several of equal classes and voxel size.
        overlap: of the windows.
        flips: average each window over its eight mirror images.
        report: called with stage, done, total.
    """
    working = oriented_grid(grid, models[0].spacing_mm)
    wanted = None if region is None else needed_voxels(region, grid, working)
    plans = [plan_windows(working.shape, model.window, overlap, wanted) for model in models]
    box, shape = plans[0].box, plans[0].box_shape
    total, done = sum(map(len, plans)), 0
    summed: NDArray[np.float32] | None = None
    members = []
    for model, plan in zip(models, plans, strict=True):
        image = _on_working_grid(scan, grid, working, plan.field)
        if not np.isfinite(image).all():
            raise SegmentationError(
                "the scan has voxels that are not numbers. Replace them (by -1024) or export it again."
            )
        own = np.zeros((model.classes, *shape), np.float32)
        for rows, logits in predict_windows(
            model.scaled(image)[None],
            plan,
            _mirrored(model.logits) if flips else model.logits,
            model.device,
            BATCH.get(model.device.type, 1),
            lambda n, _, before=done: report("segmenting", before + n, total),
        ):
            part = slice(rows.start - box[0].start, rows.stop - box[0].start)
            own[:, part] = logits.log_softmax(dim=0).cpu().numpy()
        done += len(plan)
        if len(models) > 1:
            members.append(own.astype(np.float16))
        # The sum of probabilities, by its logarithm: one model is then exactly the published way.
        summed = own if summed is None else np.logaddexp(summed, own)
    assert summed is not None
    windows = {"computed": total, "of": sum(plan.total for plan in plans)}
    return Evidence(working.cropped(box), summed, members, windows)


def _on_working_grid(
    scan: NDArray[np.generic], grid: Grid, working: Grid, box: Box
) -> NDArray[np.float32]:
    """A box of the scan on the working grid, float32 HU."""
    # By rounding the last voxel may lie beyond the scan; it continues its neighbor, as published.
    beyond = [
        part.stop == n and not grid.contains(working.to_ras((n - 1) * np.eye(3)[d]))
        for d, (part, n) in enumerate(zip(box, working.shape, strict=True))
    ]
    x, y, z = (slice(part.start, part.stop - int(b)) for part, b in zip(box, beyond, strict=True))
    image = resample(scan, grid, working.cropped((x, y, z)), order=1, fill=AIR_HU)
    return np.pad(image, [(0, int(b)) for b in beyond], mode="edge")


def _kept_evidence(
    scan: NDArray[np.generic],
    grid: Grid,
    region: NDArray[np.bool_] | None,
    parameters: SegmentationParameters,
    models: Sequence[SegmentationModel],
    report: Callback,
    cache: MutableMapping[str, Any] | None,
) -> Evidence:
    """Evidence of the last request, if it was for the same input, or new."""
    key = (
        image_hash(scan, grid.affine),
        None if region is None else image_hash(region, grid.affine),
        tuple((model.facts["sha256"], model.device_name) for model in models),
        (parameters.overlap, parameters.flips),
    )
    kept = None if cache is None else cache.get(CACHE_KEY)
    if kept is not None and kept[0] == key:
        return kept[1]
    if cache is not None:
        cache.pop(CACHE_KEY, None)  # before the memory of the new one is needed
    evidence = collect_evidence(
        scan, grid, region, models, parameters.overlap, parameters.flips, report
    )
    if cache is not None:
        cache[CACHE_KEY] = (key, evidence)
    return evidence


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
    sizes = np.bincount(numbers.ravel())[1:]
    small = [
        n
        for n, size in enumerate(sizes.tolist(), start=1)
        if equivalent_diameter_mm(size * grid.voxel_volume_mm3) < least_mm
    ]
    if small:
        tumor[numbers >= small[0]] = False  # numbered from the largest
    return len(small)


def _mirrored(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Mean of the logits over the eight mirror images of a window."""

    def averaged(x: Tensor) -> Tensor:
        total = torch.zeros(())
        for axes in FLIPS:
            found = predict(x.flip(axes)).flip(axes)
            total = total.to(found) + found
        return total / len(FLIPS)

    return averaged


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
