"""The task `anomaly` as a record.

In: the images of a model and, optionally, an organ. Out: of a box `map`, `scaled`, `mask` and `healthy_<name>`, as
`AnomalyResult` describes them. Finished slices are told on the way.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.compute import compute_anomaly
from difftumor.anomaly.model import AnomalyModel, load_anomaly_model
from difftumor.anomaly.result import AnomalyResult
from difftumor.parameters import AnomalyParameters
from difftumor.task import Case, Progress, Task


def load(
    parameters: AnomalyParameters,
    device: str,
    cache: MutableMapping[str, Any],
    progress: Progress,
) -> AnomalyModel:
    """The networks; see `load_anomaly_model`."""
    return load_anomaly_model(parameters.model, device, cache, progress)


def run(
    case: Case,
    parameters: AnomalyParameters,
    model: AnomalyModel,
    progress: Progress,
    cache: MutableMapping[str, Any],
    on_partial: Callable[[AnomalyResult], None] | None,
) -> AnomalyResult:
    """Arguments as of `compute_anomaly`."""
    return compute_anomaly(
        case.images, case.grid, case.organ, parameters, model, progress, cache, on_partial
    )


def arrays(result: AnomalyResult) -> dict[str, NDArray[Any]]:
    """Of `result.box`."""
    healthy = {f"healthy_{name}": patch for name, patch in result.healthy_box.items()}
    return {
        "map": result.map_box,
        "scaled": result.scaled_box,
        "mask": result.mask_box.astype(np.uint8),
        **healthy,
    }


ANOMALY = Task(
    "anomaly",
    AnomalyParameters,
    load,
    run,
    arrays,
    output=lambda result, _case: result.scaled_map,
    facts=AnomalyResult.facts,
)
