"""A task as one record: what the worker, the command line and a replay need to know to run any of them alike.

    SEGMENTATION = Task("segmentation", SegmentationParameters, load, run, arrays, output, facts)

Each capability holds its own record in its `task.py`; `worker.tasks` lists them. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid

SCAN = "scan"  # name of the only image of a task that takes one CT

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Case:
    """What a task computes from; never changed.

    Attributes:
        images: (I, J, K) by name: one CT (`SCAN`), or each channel of the model.
        grid: geometry of all of them.
        organ: bool (I, J, K), or None.
        labels: (I, J, K) whole numbers that a reader painted, or None.
        before: "result" of a side-car that is made again: what was drawn then is taken from it. None: drawn anew.
    """

    images: Mapping[str, NDArray[np.generic]]
    grid: Grid
    organ: NDArray[np.bool_] | None = None
    labels: NDArray[np.generic] | None = None
    before: Mapping[str, Any] | None = None

    @property
    def scan(self) -> NDArray[np.generic]:
        """The only image.  Raises: ValueError: there are several."""
        (scan,) = self.images.values()
        return scan


class Model(Protocol):
    """What `Task.load` returns: `facts` (id, title, sha256) go into the side-car."""

    facts: dict[str, Any]
    device_name: str


@dataclass(frozen=True)
class Task:
    """A capability that can be asked for.

    Attributes:
        name: of the worker's task and in side-cars.
        parameters: frozen dataclass of a request.
        load: called with parameters, device, cache, progress; opens the model, or takes it from the cache.
        run: called with case, parameters, model, progress, cache, on_partial; on_partial (or None) is told what is
            finished so far. Returns a result of the capability's own.
        arrays: arrays of a result for a viewer, by name: of one box of the grid, which `facts` names.
        output: called with result and case; the array on the whole grid whose hash tells results apart.
        facts: what a report and a side-car say of a result; JSON-ready.
        answer: called with result and request of the worker; what else is done and told there.
    """

    name: str
    parameters: type
    load: Callable[[Any, str, MutableMapping[str, Any], Progress], Any]
    run: Callable[..., Any]
    arrays: Callable[[Any], dict[str, NDArray[Any]]]
    output: Callable[[Any, Case], NDArray[Any]]
    facts: Callable[[Any], dict[str, Any]]
    answer: Callable[[Any, Mapping[str, Any]], dict[str, Any]] = lambda _result, _request: {}


@dataclass(frozen=True, eq=False)
class Outcome:
    """A result, and with what it was made: facts of the model, and the device that computed."""

    result: Any
    model: dict[str, Any]
    device: str


def run_task(
    task: Task,
    case: Case,
    parameters: Any,
    device: str,
    cache: MutableMapping[str, Any],
    progress: Progress,
    on_partial: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Load the model (or take it from the cache) and compute one case.

    Args:
        task: what is asked for.
        case: what it is computed from.
        parameters: of the kind `task.parameters`.
        device: see `devices.resolve_device`.
        cache: kept between requests: models, and what they said.
        progress: called with stage, done, total; may raise Cancelled.
        on_partial: told what is finished so far, so that a caller that cancels keeps it.

    Raises:
        ModelError: as the capability says.
        DeviceError: likewise.
        ValueError: likewise.
        Cancelled: from `progress`.
    """
    model = task.load(parameters, device, cache, progress)

    def told(result: Any) -> Outcome:
        return Outcome(result, model.facts, model.device_name)

    partial = None if on_partial is None else lambda result: on_partial(told(result))
    return told(task.run(case, parameters, model, progress, cache, partial))
