"""The tasks of the worker. The command line calls the same functions, so both give the same results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.checkpoints import identify
from difftumor.doctor import examine
from difftumor.generators import load_generator
from difftumor.grids import Grid
from difftumor.parameters import SynthesisParameters, from_dict
from difftumor.protocol import read_array, write_array
from difftumor.provenance import image_hash, versions
from difftumor.synthesis import Callback, SynthesisResult, synthesize
from difftumor.tumor_shapes import TumorShape
from difftumor.worker import Context


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
    scan = read_array(folder, "scan", mapped=True)
    organ = None
    if (folder / "organ.npy").is_file():
        organ = read_array(folder, "organ", mapped=True).astype(bool)
    grid = Grid(scan.shape, np.asarray(request["affine"], float))  # type: ignore[arg-type]
    result, model, device = run_synthesis(
        np.asarray(scan),
        grid,
        organ,
        from_dict(SynthesisParameters, request["parameters"]),
        request.get("device", "auto"),
        context.cache,
        context.progress,
    )
    context.progress("describing the result", 0, 1)
    hashes = {
        "scan": image_hash(scan, grid.affine),
        "output": image_hash(result.applied_to(scan), grid.affine),
    }
    if organ is not None:
        hashes["organ"] = image_hash(organ, grid.affine)
    write_array(folder, "patch", result.patch)
    write_array(folder, "mask", result.mask.astype(np.uint8))
    return {
        "box": [[part.start, part.stop] for part in result.box],
        "lesions": result.lesions,
        "notes": result.notes,
        "model": model,
        "device": device,
        "versions": versions(),
        "sha256": hashes,
    }


def identify_model(request: dict[str, Any], _folder: Path, _context: Context) -> dict[str, Any]:
    """Worker task: what the file or folder {"path": ...} is (`checkpoints.identify`)."""
    return asdict(identify(request["path"]))


def doctor(_request: dict[str, Any], _folder: Path, _context: Context) -> dict[str, Any]:
    """Worker task: what this interpreter and machine can do (`doctor.examine`)."""
    return examine()


TASKS: dict[str, Callable[[dict[str, Any], Path, Context], dict[str, Any]]] = {
    "doctor": doctor,
    "identify_model": identify_model,
    "synthesis": synthesis,
}
