"""The worker task `segmentation`; the command line calls the same function, so both give the same results."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from difftumor.parameters import SegmentationParameters, from_dict
from difftumor.provenance import versions
from difftumor.segmentation.model import load_segmentation_models
from difftumor.segmentation.segment import Callback, SegmentationResult, segment
from difftumor.worker.main import Context
from difftumor.worker.protocol import write_array
from difftumor.worker.request_arrays import SCAN, read_request


def run_segmentation(
    scan: NDArray[np.generic],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: SegmentationParameters,
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callback,
) -> tuple[SegmentationResult, dict[str, Any], str]:
    """Load the models (or take them from the cache) and segment; arguments as of `segment`.

    Returns: the result, the facts of the model or of all (`model_facts`), and the device that computed.
    """
    models = load_segmentation_models(parameters.models, device, cache, callback)
    result = segment(scan, grid, organ, parameters, models, callback, cache)
    return result, model_facts([model.facts for model in models]), models[0].device_name


def model_facts(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a side-car says of the models: of one its facts, of several a name for all, and `members`."""
    if len(facts) == 1:
        return facts[0]
    return {
        "id": "+".join(one["id"] for one in facts),
        "title": "Ensemble: " + "; ".join(one["title"] for one in facts),
        "sha256": None,
        "members": list(facts),
    }


def segmentation(request: dict[str, Any], folder: Path, context: Context) -> dict[str, Any]:
    """Worker task: arrays `scan` and (optionally) `organ` in; of a box `labels`, `numbers`, `probability` and, of
    several models, `agreement` out, as `SegmentationResult` describes them.

    Args:
        request: {"parameters": SegmentationParameters as a dictionary, "affine": 4 x 4 (IJK to RAS mm),
            "device": name}.
        folder: where the arrays lie.
        context: progress, cancel, and the cache that keeps models and what they said between requests.

    Returns: what `SegmentationResult.facts` says, and "model", "device", "versions", "sha256" of "scan", "organ" and
        "output" (the labels on the whole grid).
    """
    given = read_request(request, folder)
    result, model, device = run_segmentation(
        given.arrays[SCAN],
        given.grid,
        given.organ,
        from_dict(SegmentationParameters, request["parameters"]),
        request.get("device", "auto"),
        context.cache,
        context.progress,
    )
    context.progress("describing the result", 0, 1)
    write_array(folder, "labels", result.labels)
    write_array(folder, "numbers", result.numbers)
    write_array(folder, "probability", result.probability)
    if result.agreement is not None:
        write_array(folder, "agreement", result.agreement)
    hashes = given.hashes(result.whole(result.labels))
    told = {"model": model, "device": device, "versions": versions(), "sha256": hashes}
    return {**result.facts(), **told}
