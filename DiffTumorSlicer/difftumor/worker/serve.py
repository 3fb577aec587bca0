"""The one worker function: a request with arrays on disk becomes a result with arrays on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difftumor.parameters import from_dict
from difftumor.provenance import versions
from difftumor.task import Outcome, Task, run_task
from difftumor.worker.main import Context
from difftumor.worker.protocol import write_array, write_partial
from difftumor.worker.request_arrays import hashes_of, read_request


def serve(task: Task, request: dict[str, Any], folder: Path, context: Context) -> dict[str, Any]:
    """Answer one request: arrays of a case in, `task.arrays` of the result out.

    What is finished on the way is left behind as a partial result: the same arrays, and what is returned here
    without the hashes.

    Args:
        task: what is asked for.
        request: {"parameters": those of the task as a dictionary, "affine": 4 x 4 (IJK to RAS mm), "device": name},
            and what else `request_arrays.read_request` and the task know.
        folder: where the arrays lie.
        context: progress, cancel, and the cache that is kept between requests.

    Returns:
        `task.facts`, and "model", "device", "versions", "sha256" of all that came in and of "output"
        (`task.output`), as `provenance.image_hash` makes them.
    """
    case = read_request(request, folder)
    parameters: Any = from_dict(task.parameters, request["parameters"])
    pacer = Pacer()

    def told(outcome: Outcome) -> dict[str, Any]:
        made = {"model": outcome.model, "device": outcome.device, "versions": versions()}
        return {**task.facts(outcome.result), **made}

    def leave(partial: Outcome) -> None:
        with pacer.if_due() as due:
            if due:
                write_partial(folder, told(partial), task.arrays(partial.result))

    outcome = run_task(
        task,
        case,
        parameters,
        request.get("device", "auto"),
        context.cache,
        context.progress,
        leave,
    )
    context.progress("describing the result", 0, 1)
    for name, array in task.arrays(outcome.result).items():
        write_array(folder, name, array)
    hashes = hashes_of(case, task.output(outcome.result, case))
    return {**told(outcome), "sha256": hashes, **task.answer(outcome.result, request)}


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
