"""The tasks of the worker. The command line calls the same functions, so both give the same results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.compute import AnomalyResult, compute_anomaly
from difftumor.anomaly.model import load_anomaly_model
from difftumor.doctor import examine
from difftumor.grids import Grid
from difftumor.learning.task import apply_task, learn_task
from difftumor.parameters import AnomalyParameters, SynthesisParameters, from_dict
from difftumor.provenance import versions
from difftumor.segmentation.task import segmentation
from difftumor.synthesis.generators import load_generator
from difftumor.synthesis.shapes import TumorShape
from difftumor.synthesis.synthesize import Callback, SynthesisResult, synthesize
from difftumor.weights.checkpoints import identify
from difftumor.worker.main import Context
from difftumor.worker.protocol import write_array, write_partial
from difftumor.worker.request_arrays import SCAN, read_request


def run_synthesis(
    scan: NDArray[np.generic],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: SynthesisParameters,
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callback,
    shapes: Mapping[int, TumorShape] | None = None,
) -> tuple[SynthesisResult, dict[str, Any], str]:
    """Load the model (or take it from the cache) and synthesize; arguments as of `synthesize`.

    Returns: the result, the model's facts (id, title, sha256), and the device that computed.
    """
    generator = load_generator(parameters.model, device, cache, callback)
    result = synthesize(scan, grid, organ, parameters, generator, callback, shapes)
    return result, generator.facts, generator.device_name


def synthesis(request: dict[str, Any], folder: Path, context: Context) -> dict[str, Any]:
    """Worker task: arrays `scan` and (optionally) `organ` in, `patch` and `mask` of a box out.

    Args:
        request: {"parameters": SynthesisParameters as a dictionary, "affine": 4 x 4 (IJK to RAS mm),
            "device": name}.
        folder: where the arrays lie.
        context: progress, cancel, and the cache that keeps models between requests.

    Returns: {"box": [[start, stop], ...], "lesions", "notes", "model", "device", "versions", "sha256"}; the
        hashes are of the input and of the output as `provenance.image_hash` makes them.
    """
    given = read_request(request, folder)
    scan = given.arrays[SCAN]
    result, model, device = run_synthesis(
        scan,
        given.grid,
        given.organ,
        from_dict(SynthesisParameters, request["parameters"]),
        request.get("device", "auto"),
        context.cache,
        context.progress,
    )
    context.progress("describing the result", 0, 1)
    write_array(folder, "patch", result.patch)
    write_array(folder, "mask", result.mask.astype(np.uint8))
    return {
        "box": [[part.start, part.stop] for part in result.box],
        "lesions": result.lesions,
        "notes": result.notes,
        "model": model,
        "device": device,
        "versions": versions(),
        "sha256": given.hashes(result.applied_to(scan)),
    }


def run_anomaly(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: AnomalyParameters,
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callback,
    on_partial: Callable[[AnomalyResult, dict[str, Any], str], None] | None = None,
) -> tuple[AnomalyResult, dict[str, Any], str]:
    """Load the model (or take it from the cache) and make a heat map; arguments as of `compute_anomaly`.

    Returns: the result, the model's facts (id, title, sha256), and the device that computed. `on_partial` is called
        with the same three.
    """
    model = load_anomaly_model(parameters.model, device, cache, callback)

    def keep(result: AnomalyResult) -> None:
        if on_partial is not None:
            on_partial(result, model.facts, model.device_name)

    partial = keep if on_partial is not None else None
    result = compute_anomaly(images, grid, organ, parameters, model, callback, cache, partial)
    return result, model.facts, model.device_name


def anomaly(request: dict[str, Any], folder: Path, context: Context) -> dict[str, Any]:
    """Worker task: arrays `image_<name>` and (optionally) `organ` in; of a box `map`, `scaled`, `mask` and
    `healthy_<name>` out, as `AnomalyResult` describes them.

    Finished slices are left behind as a partial result: the same arrays, and what is returned here without the
    hashes.

    Args:
        request: {"parameters": AnomalyParameters as a dictionary, "affine": 4 x 4 (IJK to RAS mm), "device": name},
            optionally "affines": {name: 4 x 4}, checked to be one geometry.
        folder: where the arrays lie.
        context: progress, cancel, and the cache that keeps models and encodings between requests.

    Returns: what `AnomalyResult.facts` says, and "model", "device", "versions", "sha256" of "image_<name>", "organ"
        and "output" (the scaled map on the whole grid).
    """
    given = read_request(request, folder)
    wrote = Pacer()

    def leave(result: AnomalyResult, model: dict[str, Any], device: str) -> None:
        with wrote.if_due() as due:
            if due:
                told = {"model": model, "device": device, "versions": versions()}
                write_partial(folder, {**result.facts(), **told}, _anomaly_arrays(result))

    result, model, device = run_anomaly(
        given.images,
        given.grid,
        given.organ,
        from_dict(AnomalyParameters, request["parameters"]),
        request.get("device", "auto"),
        context.cache,
        context.progress,
        leave,
    )
    context.progress("describing the result", 0, 1)
    for name, array in _anomaly_arrays(result).items():
        write_array(folder, name, array)
    told = {
        "model": model,
        "device": device,
        "versions": versions(),
        "sha256": given.hashes(result.scaled_map),
    }
    return {**result.facts(), **told}


def _anomaly_arrays(result: AnomalyResult) -> dict[str, NDArray[Any]]:
    """Arrays of an anomaly answer, all of `result.box`."""
    healthy = {f"healthy_{name}": patch for name, patch in result.healthy_box.items()}
    return {
        "map": result.map_box,
        "scaled": result.scaled_box,
        "mask": result.mask_box.astype(np.uint8),
        **healthy,
    }


class Pacer:
    """Keeps what is done on the side to a tenth of the time."""

    def __init__(self) -> None:
        self._next = 0.0

    @contextmanager
    def if_due(self) -> Iterator[bool]:
        """Tell whether it may be done now; measures how long it takes."""
        start = time.monotonic()
        yield start >= self._next
        took = time.monotonic() - start
        if start >= self._next:
            self._next = start + 10 * took


def identify_model(request: dict[str, Any], _folder: Path, _context: Context) -> dict[str, Any]:
    """Worker task: what the file or folder {"path": ...} is (`checkpoints.identify`)."""
    return asdict(identify(request["path"]))


def doctor(_request: dict[str, Any], _folder: Path, _context: Context) -> dict[str, Any]:
    """Worker task: what this interpreter and machine can do (`doctor.examine`)."""
    return examine()


TASKS: dict[str, Callable[[dict[str, Any], Path, Context], dict[str, Any]]] = {
    "anomaly": anomaly,
    "apply_learned": apply_task,
    "doctor": doctor,
    "identify_model": identify_model,
    "learn": learn_task,
    "segmentation": segmentation,
    "synthesis": synthesis,
}
