"""How long a reader waits: from the press to the result, with a worker that has to start first, and once more."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from learning_cases import Case

from difftumor.parameters import LearningParameters, to_dict
from difftumor.worker.bridge import Bridge
from difftumor.worker.protocol import ErrorEvent, ResultEvent

POLL_S = 0.02


def waiting_times(case: Case) -> dict[str, float]:
    """Seconds until the first result (nothing is started or loaded), and after one more labeled slice.

    Returns: "first" and "fourth" on the clock, "first_cpu" and "fourth_cpu" of the worker's processor time.
    Raises: RuntimeError: the worker failed.
    """
    slices = case.chosen()
    with tempfile.TemporaryDirectory() as folder, Bridge(log_folder=Path(folder)) as bridge:
        first, told = _ask(bridge, case, slices)
        first_cpu = _worker_cpu()
        following = told["next_slice"]
        if following is None:
            following = next(index for index in case.with_tumor if index not in slices)
        fourth, _ = _ask(bridge, case, [*slices, following])
        fourth_cpu = _worker_cpu() - first_cpu
    found = {"first": first, "fourth": fourth, "first_cpu": first_cpu, "fourth_cpu": fourth_cpu}
    return {name: round(seconds, 2) for name, seconds in found.items()}


def _worker_cpu() -> float:
    """Processor seconds of the processes that this one has started."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def _ask(bridge: Bridge, case: Case, slices: list[int]) -> tuple[float, dict[str, Any]]:
    """One request as the panel makes it; seconds and what the worker tells."""
    arrays: dict[str, Any] = {f"image_{name}": image for name, image in case.images.items()}
    arrays["labels"] = case.labels(slices)
    if case.organ is not None:
        arrays["organ"] = case.organ.astype(np.uint8)
    parameters = LearningParameters(model=case.model, labelled=tuple(slices))
    request = {
        "parameters": to_dict(parameters),
        "affine": case.grid.affine.tolist(),
        "device": "cpu",
    }
    begin = time.perf_counter()
    number = bridge.request("learn", request, arrays)
    while True:
        for event in bridge.poll():
            if isinstance(event, ErrorEvent):
                raise RuntimeError(event.message + event.details)
            if isinstance(event, ResultEvent):
                bridge.take(number)
                return time.perf_counter() - begin, event.metadata
        time.sleep(POLL_S)
