"""Jobs of the panels: started, followed and ended in one thread, whatever becomes of the worker.

A job is a task name, a parameter pack, arrays in and arrays out; synthesis is one kind, later tasks
are others. Nothing here knows nodes, except that a job can say what of its scene has gone.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from difftumor.worker.protocol import (
    CancelledEvent,
    ErrorEvent,
    Event,
    ProgressEvent,
    ProtocolError,
    ResultEvent,
    SupersededEvent,
)
from DiffTumorSlicerLib.jobs.states import Board, JobState
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.translation import tr as _

__all__ = [
    "Answer",
    "Board",
    "BridgeLike",
    "Job",
    "JobState",
    "Outcome",
    "SessionError",
    "WorkerJobs",
    "explain",
]

Arrays = dict[str, npt.NDArray[Any]]


class SessionError(SceneError):
    """What was asked cannot be started; the message is a sentence with the next step."""


@dataclass(frozen=True)
class Answer:
    """What a task returned."""

    metadata: dict[str, Any]
    arrays: Arrays


@dataclass(frozen=True)
class Outcome:
    """How a job ended well; `later` is work on the scene that the next poll does, so that none is long."""

    sentence: str
    node_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    later: Callable[[], None] | None = None


@dataclass(eq=False)
class Job:
    """What a panel asks for: one task, once or several times with other parameters.

    Attributes:
        panel: who asks; a newer job of the same panel takes the place of the older one.
        task: of the worker.
        requests: label and parameters of each request; the label ("variant 2 of 3") precedes the stage.
        finish: shows the answers; None means that the job goes on elsewhere.
        arrays: the input, taken anew for each request.
        gone: a sentence if a node that the job needs has left the scene or has changed, else "".
        of_scene: whether it ends with the scene.
        keep: shows what a request that is cancelled had finished; None where nothing is worth keeping.
    """

    panel: str
    task: str
    requests: Sequence[tuple[str, dict[str, Any]]]
    finish: Callable[[list[Answer]], Outcome | None]
    arrays: Callable[[], Arrays] = dict
    gone: Callable[[], str] = lambda: ""
    of_scene: bool = False
    keep: Callable[[list[Answer]], Outcome | None] | None = None
    answers: list[Answer] = field(default_factory=list)
    request_id: int = 0
    cancelled: bool = False

    @property
    def label(self) -> str:
        """What precedes the stage at the moment."""
        return self.requests[min(len(self.answers), len(self.requests) - 1)][0]


class BridgeLike(Protocol):
    """What is needed of `difftumor.worker.bridge.Bridge`."""

    @property
    def log_path(self) -> Path | None:
        """The worker's log."""

    def request(
        self,
        task: str,
        parameters: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        panel: str | None = None,
    ) -> int:
        """Ask; returns the number."""
        ...

    def cancel(self, number: int) -> bool:
        """Stop a request."""
        ...

    def take(self, number: int) -> Arrays:
        """Arrays of a result."""
        ...

    def poll(self) -> list[Event]:
        """What happened."""
        ...

    def close(self) -> None:
        """End."""


class WorkerJobs:
    """Carries jobs through the bridge and their fate to the board."""

    def __init__(self, make_bridge: Callable[[], BridgeLike], board: Board) -> None:
        self._make_bridge = make_bridge
        self._bridge: BridgeLike | None = None
        self._board = board
        self._jobs: dict[str, Job] = {}
        self._later: list[Callable[[], None]] = []

    @property
    def busy(self) -> bool:
        """Whether a job has not ended."""
        return bool(self._jobs)

    @property
    def started(self) -> bool:
        """Whether there is a bridge that may hold a worker."""
        return self._bridge is not None

    def start(self, job: Job, number: int) -> None:
        """Send a job's first request.  Raises: SessionError: it cannot travel."""
        if self._bridge is None:
            self._bridge = self._make_bridge()
        self._ask(job)
        self._jobs[job.panel] = job
        self._board.begin(job.panel, number, _stage(job, "starting"))

    def cancel(self, panel: str) -> bool:
        """Stop a panel's job; its state follows from `poll`. False if there is none."""
        job = self._jobs.get(panel)
        if job is None or self._bridge is None:
            return False
        if not job.cancelled:
            job.cancelled = True
            self._bridge.cancel(job.request_id)
            self._board.change(panel, stage="stopping", remaining_s=None)
        return True

    def drop_jobs_of_scene(self, sentence: str) -> None:
        """The scene closes: what works for it stops, and its results go nowhere."""
        self._later.clear()
        for job in [job for job in self._jobs.values() if job.of_scene]:
            self._drop(job, kind="cancelled", sentence=sentence)

    def poll(self) -> None:
        """Take what the bridge has to tell. Never blocks."""
        if self._bridge is None:
            return
        while self._later:
            self._later.pop(0)()
        for event in self._bridge.poll():
            self._receive(event)
        for job in list(self._jobs.values()):
            if not job.cancelled and (sentence := job.gone()):
                self._drop(job, kind="failed", sentence=sentence)

    def close(self) -> None:
        """End the worker; running jobs count as cancelled. A later job starts a new one."""
        for job in list(self._jobs.values()):
            self._end(job, kind="cancelled", sentence=_("The computation was stopped."))
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None

    # ------------------------------------------------------------------------------------- inside

    def _ask(self, job: Job) -> None:
        """Send the next request of a job."""
        _label, parameters = job.requests[len(job.answers)]
        try:
            job.request_id = self._bridge.request(  # type: ignore[union-attr]
                job.task, parameters, job.arrays(), panel=job.panel
            )
        except (ProtocolError, RuntimeError) as error:  # WorkerError is a RuntimeError
            raise SessionError(sentence_of(error)) from error

    def _receive(self, event: Event) -> None:
        number = getattr(event, "id", None)
        job = next((job for job in self._jobs.values() if job.request_id == number), None)
        if job is None:  # of a job that was replaced, or a remark that ends no job
            self._unfinished(event)  # nobody wants it, but its files must go
            return
        match event:
            case ProgressEvent() if not job.cancelled:
                self._board.change(
                    job.panel,
                    stage=_stage(job, event.stage),
                    done=event.done,
                    total=event.total,
                    remaining_s=event.remaining_s,
                )
            case ResultEvent():
                self._answered(job, event)
            case ErrorEvent() if not job.cancelled:
                self._end(
                    job,
                    kind="failed",
                    sentence=sentence_of(event),
                    details=event.details,
                    log_path=event.log,
                )
            case CancelledEvent() | SupersededEvent() | ErrorEvent():
                self._cancelled(job, event)

    def _answered(self, job: Job, event: ResultEvent) -> None:
        """A result has come: the next request, or the end."""
        try:
            arrays = self._bridge.take(event.id)  # type: ignore[union-attr]
            if job.cancelled:
                self._end(job, kind="cancelled", sentence=_("Cancelled. Nothing was changed."))
                return
            if sentence := job.gone():
                self._end(job, kind="failed", sentence=sentence)
                return
            job.answers.append(Answer(event.metadata, arrays))
            if len(job.answers) < len(job.requests):
                self._ask(job)
                return
            outcome = job.finish(job.answers)
        except Exception as error:  # noqa: BLE001 -- a panel never meets a traceback
            self._end(job, kind="failed", **explain(error))
            return
        if outcome is None:
            del self._jobs[job.panel]
        else:
            if outcome.later is not None:
                self._later.append(outcome.later)
            self._end(
                job,
                kind="done",
                sentence=outcome.sentence,
                result_node_ids=outcome.node_ids,
                notes=outcome.notes,
                report=outcome.report,
            )

    def _cancelled(self, job: Job, event: Event) -> None:
        """A request was stopped: show what it had finished, if it is worth anything."""
        answers = [*job.answers, *self._unfinished(event)]
        ended: dict[str, Any] = {"sentence": _("Cancelled. Nothing was changed.")}
        if job.keep is not None and answers and not job.gone():
            try:
                outcome = job.keep(answers)
            except Exception as error:  # noqa: BLE001 -- a panel never meets a traceback
                ended, outcome = explain(error), None
            if outcome is not None:
                ended = {
                    "sentence": outcome.sentence,
                    "result_node_ids": outcome.node_ids,
                    "notes": outcome.notes,
                    "report": outcome.report,
                }
        self._end(job, kind="cancelled", **ended)

    def _unfinished(self, event: Event) -> list[Answer]:
        """What a cancelled request had finished; none or one."""
        if not isinstance(event, CancelledEvent) or event.partial is None:
            return []
        try:
            arrays = self._bridge.take(event.id)  # type: ignore[union-attr]
        except (RuntimeError, OSError):  # its files are gone, so there is nothing to keep
            return []
        return [Answer(event.partial, arrays)]

    def _drop(self, job: Job, **values: Any) -> None:
        self._bridge.cancel(job.request_id)  # type: ignore[union-attr]
        self._end(job, **values)

    def _end(self, job: Job, **values: Any) -> None:
        del self._jobs[job.panel]
        log = getattr(self._bridge, "log_path", None)
        self._board.change(job.panel, **{"log_path": str(log or ""), **values})


def explain(error: Exception) -> dict[str, str]:
    """Sentence and details of an exception."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        sentence = _(
            "The memory was not enough to show the result. Close other programs or volumes, then try again."
        )
    elif isinstance(error, (ValueError, OSError, RuntimeError)) and str(error):
        sentence = sentence_of(error)
    else:
        sentence = _(
            "A fault of the program ({kind}) stopped this. Try again; if it happens again, "
            "report it with the details."
        ).format(kind=type(error).__name__)
    return {"sentence": sentence, "details": details}


def _stage(job: Job, stage: str) -> str:
    return f"{job.label}: {stage}" if job.label else stage
