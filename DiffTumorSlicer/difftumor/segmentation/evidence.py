"""What segmentation networks say about a scan, on their own grid: windows, mirror images, several models."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftumor.grids import Box, Grid
from difftumor.images.resampling import resample
from difftumor.parameters import SegmentationParameters
from difftumor.provenance import image_hash
from difftumor.segmentation.windows import plan_windows, predict_windows
from difftumor.segmentation.working_grid import needed_voxels, oriented_grid

if TYPE_CHECKING:
    from difftumor.segmentation.model import SegmentationModel

AIR_HU = -1024.0
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


def kept_evidence(
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
        found: Evidence = kept[1]
        return found
    if cache is not None:
        cache.pop(CACHE_KEY, None)  # before the memory of the new one is needed
    if 1 in grid.shape:
        scan, grid, region = _thickened(scan, grid, region, min(models[0].window))
    evidence = collect_evidence(
        scan, grid, region, models, parameters.overlap, parameters.flips, report
    )
    if cache is not None:
        cache[CACHE_KEY] = (key, evidence)
    return evidence


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
            partial(_told, report, done, total),
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


def _told(report: Callback, before: int, total: int, done: int, _of: int) -> None:
    """Progress of one model among the windows of all."""
    report("segmenting", before + done, total)


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


def _thickened(
    scan: NDArray[np.generic], grid: Grid, region: NDArray[np.bool_] | None, least_mm: float
) -> tuple[NDArray[np.generic], Grid, NDArray[np.bool_]]:
    """A single slice repeated to both sides; only its own place is asked for."""
    axis = grid.shape.index(1)
    beside = int(np.ceil(least_mm / 2 / grid.spacing[axis]))
    copies = 2 * beside + 1
    affine = grid.affine.copy()
    affine[:3, 3] -= beside * affine[:3, axis]
    shape = [copies if d == axis else n for d, n in enumerate(grid.shape)]
    wanted = np.zeros(shape, bool)
    place = [slice(None)] * 3
    place[axis] = slice(beside, beside + 1)
    wanted[tuple(place)] = True if region is None else region
    thick = Grid((shape[0], shape[1], shape[2]), affine)
    return np.repeat(scan, copies, axis=axis), thick, wanted


def _mirrored(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Mean of the logits over the eight mirror images of a window."""

    def averaged(x: Tensor) -> Tensor:
        total = torch.zeros(())
        for axes in FLIPS:
            found = predict(x.flip(axes)).flip(axes)
            total = total.to(found) + found
        return total / len(FLIPS)

    return averaged
