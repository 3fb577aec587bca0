"""The way from Slicer to the worker: requests in, events out, over a process that comes and goes.

    bridge = Bridge()
    number = bridge.request("synthesis", parameters, {"ct": array}, panel="synthesis")
    for event in bridge.poll():          # from a QTimer or an asyncio task, every 50 ms or so
        if isinstance(event, ResultEvent):
            arrays = bridge.take(event.id)

Every request ends with exactly one of `result`, `error`, `cancelled`, `superseded`. Requests are done one at a time,
in order; those that wait stay on this side, so a worker that dies takes only one along. All of it happens in the
thread that calls: the threads of `worker.process` only read.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from difftumor.worker import failures
from difftumor.worker.log import WorkerLog
from difftumor.worker.process import WorkerEnd, WorkerProcess, worker_environment
from difftumor.worker.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    CancelledEvent,
    ErrorEvent,
    Event,
    ExitedEvent,
    ProgressEvent,
    ProtocolError,
    ReadyEvent,
    Request,
    ResultEvent,
    SupersededEvent,
    encode,
)
from difftumor.worker.request_folders import RequestFolders

# After these a worker carries damage or dead weight along; a new one costs seconds.
_RENEW_AFTER = ("out_of_memory", "missing_package", "device_failed")
# A library that writes to the protocol's stream is reported a few times, not for ever.
_MAX_GARBAGE_EVENTS = 3
# A process that waits inside a driver survives SIGKILL for a while; the person does not wait for it.
_KILL_TIMEOUT_S = 5.0


class WorkerError(RuntimeError):
    """The bridge cannot do what it was asked: it is closed, or a result is not there any more."""


@dataclass
class _Job:
    """A request that has not ended, and what is wanted of it."""

    request: Request
    panel: str | None
    sent: bool = False
    kill_at: float | None = None  # set once it is to stop
    killed: bool = False
    superseded_by: int | None = None

    @property
    def id(self) -> int:
        return self.request.id


class Bridge:
    """Requests to one resident worker, which is started with the first of them."""

    def __init__(
        self,
        python: str | Path | None = None,
        *,
        tasks: str = "difftumor.worker.tasks",
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        log_folder: Path | None = None,
        temporary_folder: Path | None = None,
        start_timeout_s: float = 60.0,
        cancel_grace_s: float = 0.3,
        supersede_grace_s: float = 10.0,
    ) -> None:
        """Prepare; nothing is started or written yet.

        Args:
            python: interpreter of the worker; the running one if None (in Slicer: PythonSlicer).
            tasks: module of the worker that holds TASKS.
            command: program and arguments in place of `python -m difftumor.worker`.
            environment: variables to start from, see `worker_environment`; this process's if None.
            log_folder: for the worker's stderr; `~/.difftumor/logs` if None.
            temporary_folder: for the arrays; the system's if None.
            start_timeout_s: how long a worker may take until it says that it is ready.
            cancel_grace_s: how long a cancelled request may go on before the worker is killed; with
                the kill and two polls the default makes less than half a second.
            supersede_grace_s: the same for a superseded one. Longer, because a killed worker loses
                its models: a slider would otherwise kill each worker that still imports torch.
        """
        interpreter = str(python or sys.executable)
        self._command = list(command or [interpreter, "-m", "difftumor.worker", "--tasks", tasks])
        self._is_own_worker = command is None
        self._environment = worker_environment(interpreter, environment)
        self._log_folder = log_folder
        self._folders = RequestFolders(temporary_folder)
        self._start_timeout_s = start_timeout_s
        self._cancel_grace_s = cancel_grace_s
        self._supersede_grace_s = supersede_grace_s
        self._closed = False
        self._log: WorkerLog | None = None
        self._worker: WorkerProcess | None = None
        self._leaving: list[WorkerProcess] = []
        self._garbage_events = 0
        self._last_id = 0
        self._running: _Job | None = None
        self._waiting: list[_Job] = []
        self._results: dict[int, list[str]] = {}
        self._events: list[Event] = []

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def busy(self) -> bool:
        """Whether a request has not ended."""
        return self._running is not None or bool(self._waiting)

    @property
    def log_path(self) -> Path | None:
        """The log of the worker's stderr; None before the first start."""
        return self._log.path if self._log else None

    def request(
        self,
        task: str,
        parameters: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        panel: str | None = None,
    ) -> int:
        """Ask for a computation; returns its number at once. How it ends comes from `poll`.

        Args:
            task: name of a task of the worker.
            parameters: JSON values for the task.
            arrays: its input, by name; written to disk before this returns, so they may change then.
            panel: who asks. A newer request of one panel supersedes its older ones.

        Raises:
            ProtocolError: if parameters or arrays cannot travel. (A full disk is an `error` event.)
            WorkerError: if the bridge is closed.
        """
        if self._closed:
            raise WorkerError("The bridge to the worker is closed. Make a new one.")
        self._last_id += 1
        number = self._last_id
        request = Request(number, task, dict(parameters), folder="")
        encode(request)  # mistakes come before anything changes
        if panel is not None:
            self._supersede(panel, number)
        try:
            request = replace(request, folder=str(self._folders.write(number, arrays or {})))
            encode(request)  # the path may have made it too long
        except OSError as error:
            self._events.append(failures.explain_unwritten(number, error, self._folders.parent))
            return number
        except ProtocolError:
            self._folders.remove(number)
            raise
        self._waiting.append(_Job(request, panel))
        self._start_next()
        return number

    def cancel(self, number: int) -> bool:
        """Stop a request; a `cancelled` event follows once it has stopped.

        Returns:
            False if it has ended already, or never was; then nothing follows.
        """
        for job in self._waiting:
            if job.id == number:
                self._waiting.remove(job)
                self._end_job(job, CancelledEvent(number))
                return True
        if self._running is not None and self._running.id == number:
            self._stop(self._running, self._cancel_grace_s)
            return True
        return False

    def take(self, number: int) -> dict[str, npt.NDArray[Any]]:
        """Load the arrays of a result, by name, and remove their files.

        Args:
            number: of a request whose `result` (or `cancelled` with `partial`) event has come.

        Raises:
            WorkerError: if there is no such result, if it was taken before, or cannot be read.
        """
        if number not in self._results:
            raise WorkerError(f"Request {number} has no result to take. Ask for it again.")
        try:
            return self._folders.read(number, self._results.pop(number))
        except (OSError, ProtocolError) as error:
            raise WorkerError(
                f"The result of request {number} cannot be read: {error} Something removed or "
                "changed the temporary files; ask for it again."
            ) from error
        finally:
            self._folders.remove(number)

    def close(self) -> None:
        """End the worker and remove the temporary files. Pending requests get no event any more."""
        if self._closed:
            return
        self._closed = True
        self._running = None
        self._waiting.clear()
        if self._worker is not None:
            self._dismiss(self._worker)
        for worker in self._leaving:
            worker.wait(1.0)
        self._folders.close()
        if self._log is not None:
            self._log.close()
        atexit.unregister(self.close)

    # ------------------------------------------------------------------------------------- events

    def poll(self) -> list[Event]:
        """Look after the worker; return what happened since the last call, in order. Never blocks."""
        if not self._closed:
            self._leaving = [worker for worker in self._leaving if worker.is_running()]
            if self._worker is not None:
                self._listen(self._worker)
            self._start_next()
        events, self._events = self._events, []
        return events

    def _listen(self, worker: WorkerProcess) -> None:
        """Take the worker's events, its end, and what is overdue."""
        end = worker.end()  # asked before the events are taken, so that none comes after it
        for event in worker.take_events():
            # What a killed worker still said is too late: its request counts as cancelled.
            if worker is self._worker and not (self._running and self._running.killed):
                self._receive(worker, event)
        if worker is not self._worker:
            return
        job, now = self._running, time.monotonic()
        if end is not None:
            self._worker = None
            self._bury(worker, end)
        elif job and job.kill_at is not None and now >= job.kill_at:
            if not job.killed:
                job.killed = True
                self._note(f"request {job.id} did not stop, the worker is killed")
                worker.kill()
            elif now >= job.kill_at + _KILL_TIMEOUT_S:
                self._dismiss(worker)
                self._running = None
                self._end_job(job, CancelledEvent(job.id, True, job.superseded_by))
        elif not worker.ready and now - worker.started_at > self._start_timeout_s:
            self._dismiss(worker)
            reason = f"it was not ready after {self._start_timeout_s:.0f} s"
            self._fail_pending(failures.explain_start(reason, self._log))

    def _receive(self, worker: WorkerProcess, event: Event | ProtocolError) -> None:
        """Act on one event of the worker."""
        job = self._running if self._running and self._running.sent else None
        match event:
            case ReadyEvent() if event.protocol != PROTOCOL_VERSION:
                self._dismiss(worker)
                self._fail_pending(failures.explain_version(event.protocol, self._log))
            case ReadyEvent():
                worker.ready = True
                self._events.append(event)
                # At once: a worker that dies right after this line then costs one request, and is
                # not started over and over for it.
                self._start_next()
            case ProgressEvent() if job and job.id == event.id:
                if job.kill_at is None:
                    self._events.append(event)
            case ResultEvent() | ErrorEvent() | CancelledEvent() if job and job.id == event.id:
                self._running = None
                if isinstance(event, ErrorEvent):
                    event = replace(event, log=self._log_name())
                    if event.kind in _RENEW_AFTER:
                        self._dismiss(worker)
                if job.kill_at is not None:
                    event = CancelledEvent(job.id, superseded_by=job.superseded_by)
                self._end_job(job, event)
            case _:
                self._garbage_events += 1
                if self._garbage_events > _MAX_GARBAGE_EVENTS:
                    return
                reason = event if isinstance(event, ProtocolError) else f"untimely {event.type}"
                self._note(f"left out a line of the worker: {reason}")
                if worker.ready:  # before, it is a launcher that prints
                    self._events.append(failures.explain_garbage(self._log))

    def _bury(self, worker: WorkerProcess, end: WorkerEnd) -> None:
        """The worker has ended: tell it, and end the request that it took along."""
        job = self._running if self._running and self._running.sent else None
        if job and job.killed:
            self._running = None
            self._end_job(job, CancelledEvent(job.id, True, job.superseded_by))
            return
        self._note(f"the worker ended: {end.text}")
        if not worker.ready:
            self._fail_pending(failures.explain_start(end.text, self._log))
            return
        message = f"The worker ended unexpectedly: {end.text}. The next request starts a new one."
        self._events.append(ExitedEvent(end.code, message, end.signal, self._log_name()))
        if job:
            self._running = None
            if job.kill_at is not None:
                self._end_job(job, CancelledEvent(job.id, superseded_by=job.superseded_by))
            else:
                self._end_job(job, failures.explain_crash(job.id, end, self._log))

    # ---------------------------------------------------------------------------------- the worker

    def _start_next(self) -> None:
        """Send the next request if nothing runs, with a new worker if there is none."""
        if self._running is None and self._waiting:
            self._running = self._waiting.pop(0)
        job = self._running
        if job is None or job.sent:
            return
        if self._worker is None:
            self._start_worker()
        elif self._worker.ready:
            job.sent = True
            self._worker.send(job.request)

    def _start_worker(self) -> None:
        """Start a worker; if that fails, end all requests with the reason."""
        if self._log is None:
            self._log = WorkerLog(self._log_folder)
            atexit.register(self.close)
        self._garbage_events = 0
        self._log.begin("a worker is started")
        try:
            session = self._folders.session()
            own = ["--session", str(session)] if self._is_own_worker else []
            command = [*self._command, *own]
            self._worker = WorkerProcess(command, self._environment, session, self._log)
        except OSError as error:
            self._fail_pending(failures.explain_start(error.strerror or str(error), self._log))

    def _dismiss(self, worker: WorkerProcess) -> None:
        """Part with a worker without waiting for its end."""
        worker.kill()
        self._leaving.append(worker)
        self._worker = None

    def _stop(self, job: _Job, grace_s: float) -> None:
        """Make the running request stop within `grace_s`."""
        if not job.sent:  # its worker is still starting, and nothing has to be undone
            self._running = None
            by = job.superseded_by
            self._end_job(job, SupersededEvent(job.id, by) if by else CancelledEvent(job.id))
            return
        if job.kill_at is None and self._worker is not None:
            self._worker.send(Cancel(job.id))
        kill_at = time.monotonic() + grace_s
        job.kill_at = kill_at if job.kill_at is None else min(job.kill_at, kill_at)

    def _supersede(self, panel: str, by: int) -> None:
        """Drop or stop what the same panel asked for before."""
        for job in [job for job in self._waiting if job.panel == panel]:
            self._waiting.remove(job)
            self._end_job(job, SupersededEvent(job.id, by))
        if self._running is not None and self._running.panel == panel:
            self._running.superseded_by = by
            self._stop(self._running, self._supersede_grace_s)

    def _end_job(self, job: _Job, event: Event) -> None:
        """Tell how a request ended; results, partial ones too, keep their files until they are taken."""
        event, arrays = self._folders.what_remains(event)
        if arrays is not None:
            self._results[job.id] = arrays
        else:
            self._folders.remove(job.id)
        self._events.append(event)

    def _fail_pending(self, error: ErrorEvent) -> None:
        """End every request with one error: another start would fail in the same way."""
        jobs = [*([self._running] if self._running else []), *self._waiting]
        self._running = None
        self._waiting.clear()
        for job in jobs:
            self._end_job(job, replace(error, id=job.id))
        if not jobs:
            self._events.append(error)

    # ------------------------------------------------------------------------------------ the log

    def _note(self, text: str) -> None:
        """Write a line of our own into the log."""
        if self._log is not None:
            self._log.note(text)

    def _log_name(self) -> str:
        """Path of the log for messages; empty if there is none."""
        return str(self.log_path or "")
