"""The task `synthesis`: one CT and, optionally, an organ in; `patch` and `mask` of the box that changed out."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.parameters import SynthesisParameters
from difftumor.synthesis.generators import load_generator
from difftumor.synthesis.synthesize import Generator, SynthesisResult, shapes_of, synthesize
from difftumor.task import Case, Progress, Task


def load(
    parameters: SynthesisParameters,
    device: str,
    cache: MutableMapping[str, Any],
    progress: Progress,
) -> Generator:
    """The generator; see `load_generator`."""
    return load_generator(parameters.model, device, cache, progress)


def run(
    case: Case,
    parameters: SynthesisParameters,
    model: Generator,
    progress: Progress,
    _cache: MutableMapping[str, Any],
    _on_partial: object,
) -> SynthesisResult:
    """Arguments as of `synthesize`; the random shapes of an earlier result are taken from it."""
    shapes = None if case.before is None else shapes_of(case.before["lesions"])
    return synthesize(case.scan, case.grid, case.organ, parameters, model, progress, shapes)


def arrays(result: SynthesisResult) -> dict[str, NDArray[Any]]:
    """Of `result.box`."""
    return {"patch": result.patch, "mask": result.mask.astype(np.uint8)}


def facts(result: SynthesisResult) -> dict[str, Any]:
    """Where the scan changed, and what was put there."""
    box = [[part.start, part.stop] for part in result.box]
    return {"box": box, "lesions": result.lesions, "notes": result.notes}


SYNTHESIS = Task(
    "synthesis",
    SynthesisParameters,
    load,
    run,
    arrays,
    output=lambda result, case: result.applied_to(case.scan),
    facts=facts,
)
