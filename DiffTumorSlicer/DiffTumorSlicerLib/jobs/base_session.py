"""What a session does whatever is asked for: jobs start, are followed, stop, and are told of.

No Qt and no trame here. Everything happens in the thread that calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.jobs import Answer, BridgeLike, Job, Outcome, SessionError, WorkerJobs
from DiffTumorSlicerLib.jobs.model_jobs import (
    ModelJobs,
    Work,
    download_work,
    import_work,
    remove_work,
    verify_work,
)
from DiffTumorSlicerLib.jobs.request import Request, check_free
from DiffTumorSlicerLib.jobs.states import DOCTOR, MODELS, REPLACED, Board, JobState
from DiffTumorSlicerLib.jobs.wording import doctor_line
from DiffTumorSlicerLib.translation import tr as _

SCENE_CLOSED = _("The scene was closed, so the computation was stopped. Load a volume to go on.")


class BaseSession:
    """One user, one scene, one worker; `DiffTumorSlicerLib.session.Session` adds what can be asked for."""

    def __init__(
        self, scene: Any, *, bridge: BridgeLike | None = None, host: Host | None = None
    ) -> None:
        """Watch the scene; no process is started before the first job.

        Args:
            scene: vtkMRMLScene that nodes come from and results go to.
            bridge: in place of the host's own, for tests.
            host: settings and measurements of the program around.
        """
        self.scene = scene
        self.host = host or Host()
        self._number = 0
        # By panel: task and models of the newest job. By task: models that the worker holds, as far as known.
        self._newest: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._warm: dict[str, tuple[str, ...]] = {}
        self._polling = False
        self._board = Board(self.host.clock)
        self._jobs = WorkerJobs(lambda: bridge or self.host.make_bridge(), self._board)
        self._models = ModelJobs(self._board)
        event = slicer.vtkMRMLScene.StartCloseEvent
        self._tags = [scene.AddObserver(event, self._on_scene_closing)]

    # --------------------------------------------------------------------------------------- states

    @property
    def states(self) -> dict[str, JobState]:
        """The newest job of each panel."""
        return self._board.states

    @property
    def busy(self) -> bool:
        """Whether any job has not ended."""
        return self._jobs.busy or self._models.busy

    def add_listener(self, listener: Callable[[JobState], None]) -> None:
        """Call `listener(state)` whenever the job of a panel changes."""
        self._board.listeners.append(listener)

    def remove_listener(self, listener: Callable[[JobState], None]) -> None:
        """Call it no more; no error if it is not called any more, as after `close`."""
        if listener in self._board.listeners:
            self._board.listeners.remove(listener)

    def poll(self) -> None:
        """Follow all jobs and show their results. Never blocks."""
        if self._polling:  # a listener that lets the event loop turn
            return
        self._polling = True
        try:
            self._jobs.poll()
            self._models.poll()
            self._board.tick()
            self._note_warm_models()
        finally:
            self._polling = False
        self._board.tell()

    def wait(
        self,
        number: int,
        *,
        pump: Callable[[], None] | None = None,
        timeout_s: float | None = None,
    ) -> JobState:
        """Poll until a job has ended, for scripts.

        Args:
            number: as the call that started it returned it.
            pump: called in between, to let the event loop turn.
            timeout_s: after which the job is cancelled.

        Returns:
            its last state.
        """
        panel = next((p for p, s in self.states.items() if s.number == number), None)
        started, cancelled = self.host.clock(), False
        while panel and self.states[panel].number == number and self.states[panel].running:
            self.poll()
            if pump is not None:
                pump()
            late = timeout_s is not None and self.host.clock() - started > timeout_s
            if late and not cancelled:
                cancelled = self.cancel(number)
            time.sleep(0.01)
        self.poll()  # what is left to be shown
        if panel is None or self.states[panel].number != number:
            return JobState(panel or "", number, "cancelled", sentence=REPLACED)
        return self.states[panel]

    def start(self, request: Request) -> int:
        """Start a request in place of an older one of its panel.

        Returns:
            the number of the job; `states` of its panel tells of its end.

        Raises:
            SessionError: too little memory or disk, or it cannot travel; nothing has been started then.
        """
        warm = bool(request.models) and self._warm.get(request.task) == request.models
        check_free(request, self.host, warm=warm)
        return self.start_job(request.job(self.scene), request.models)

    def start_job(self, job: Job, models: tuple[str, ...] = ()) -> int:
        """Start a job in place of an older one of its panel.

        Args:
            job: what is sent, and what becomes of the answers.
            models: that the worker loads for it and keeps.

        Returns:
            its number.

        Raises:
            SessionError: it cannot travel to the worker.
        """
        self._number += 1
        self._jobs.start(job, self._number)
        self._newest[job.panel] = (job.task, models)
        self._board.tell()
        return self._number

    # --------------------------------------------------------------------------------------- models

    def examine(self) -> int:
        """Ask the worker what this computer can do; the answer is in `states["doctor"].report`."""

        def finish(answers: list[Answer]) -> Outcome:
            report = answers[0].metadata
            return Outcome(doctor_line(report), report=report)

        return self.start_job(Job(DOCTOR, "doctor", [("", {})], finish))

    def download(self, model_id: str, accept: bool = False) -> int:
        """Download a model; `accept` says that the person has read its license and accepts it.

        Raises:
            SessionError: unknown model, license not accepted, or another model is being worked on.
        """
        return self._start_model_work(download_work(model_id, accept), "downloading")

    def import_model(self, path: Path | str, model_id: str | None = None) -> int:
        """Install a model from a file or folder on disk; `model_id` where the file does not tell.

        The worker looks into the file, since that needs torch; the copy is made here.
        """
        self._models.check_free()
        if not Path(path).exists():
            raise SessionError(
                _("There is nothing at {path}. Choose the file again.").format(path=path)
            )

        def finish(answers: list[Answer]) -> None:
            work = import_work(path, model_id, answers[0].metadata)
            self._models.start(work, self.states[MODELS].number, "copying")

        return self.start_job(Job(MODELS, "identify_model", [("", {"path": str(path)})], finish))

    def verify(self, model_id: str) -> int:
        """Compare an installed model with its checksum."""
        return self._start_model_work(verify_work(model_id), "verifying")

    def remove(self, model_id: str, forget: bool = False) -> int:
        """Delete an installed model; `forget` also drops the checksum that was pinned."""
        return self._start_model_work(remove_work(model_id, forget), "removing")

    def _start_model_work(self, work: Work, stage: str) -> int:
        self._models.check_free()
        self._number += 1
        self._models.start(work, self._number, stage)
        self._board.tell()
        return self._number

    # ------------------------------------------------------------------------------------- lifetime

    def cancel(self, number: int | None = None) -> bool:
        """Stop a job; its state says so a moment later.

        Args:
            number: as the call that started it returned it; None: all that run.

        Returns:
            False if there was nothing to stop.
        """
        stopped = False
        for panel, state in list(self.states.items()):
            if state.running and number in (None, state.number):
                stopped |= self._jobs.cancel(panel) or (panel == MODELS and self._models.cancel())
        self._board.tell()
        return stopped

    def set_host(self, host: Host) -> None:
        """Change the worker's Python or folders; the next job starts a new worker.

        Raises:
            SessionError: a job is running.
        """
        if self.busy:
            raise SessionError(
                _("Something is still being computed. Wait for it, or cancel it first.")
            )
        self._jobs.close()
        self._warm.clear()
        self.host = host

    def close(self) -> None:
        """End everything; the session cannot be used afterwards."""
        for tag in self._tags:
            self.scene.RemoveObserver(tag)
        self._tags = []
        self._models.close()
        self._jobs.close()
        self._board.listeners.clear()

    # --------------------------------------------------------------------------------------- inside

    def _note_warm_models(self) -> None:
        """Remember which models the worker holds; a worker that failed may be gone."""
        for panel, (task, models) in self._newest.items():
            kind = self.states[panel].kind
            if kind == "done" and models:
                self._warm[task] = models
            elif kind in ("failed", "cancelled"):
                self._warm.pop(task, None)

    def _on_scene_closing(self, *_: Any) -> None:
        self._jobs.drop_jobs_of_scene(SCENE_CLOSED)
        self._board.tell()
