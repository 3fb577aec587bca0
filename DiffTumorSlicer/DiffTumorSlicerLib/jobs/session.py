"""What the user asks for becomes jobs, and what comes back becomes nodes.

    session = Session(scene)
    session.add_listener(show)                       # show(state: JobState)
    session.synthesize(parameters, volume, roi_node=roi)
    session.poll()                                   # from a QTimer or an asyncio task, every 30 ms or so

No Qt and no trame here. Everything happens in the thread that calls. A call that cannot be done raises
`SessionError` (a `SceneError`), whose text is a sentence with the next step; what fails later ends in the
`sentence` of a `JobState`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer

from difftumor.parameters import MODELLED, AnomalyParameters, SynthesisParameters
from DiffTumorSlicerLib.anomaly import results as anomaly_results
from DiffTumorSlicerLib.anomaly.job import anomaly_job, sweep_job
from DiffTumorSlicerLib.anomaly.request import PANEL as ANOMALY
from DiffTumorSlicerLib.anomaly.request import (
    AnomalyWish,
    anomaly_wish,
    check_anomaly_room,
    sweep_of,
)
from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.jobs import Answer, BridgeLike, Job, Outcome, SessionError, WorkerJobs
from DiffTumorSlicerLib.jobs.model_jobs import (
    PANEL as MODELS,
)
from DiffTumorSlicerLib.jobs.model_jobs import (
    ModelJobs,
    Work,
    download_work,
    import_work,
    remove_work,
    verify_work,
)
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.states import REPLACED, Board, JobState
from DiffTumorSlicerLib.jobs.wording import doctor_line
from DiffTumorSlicerLib.synthesis import results
from DiffTumorSlicerLib.synthesis.job import synthesis_job
from DiffTumorSlicerLib.synthesis.request import PANEL, Wish, check_room, wish
from DiffTumorSlicerLib.translation import tr as _

__all__ = ["JobState", "Session", "SessionError"]

DOCTOR = "doctor"
LARGEST_SEED = 2**63 - 1
SCENE_CLOSED = _("The scene was closed, so the computation was stopped. Load a volume to go on.")


class Session:
    """One user, one scene, one worker."""

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
        # By panel: the model of the newest job, and the one that the worker has loaded, as far as known.
        self._wanted: dict[str, str] = {}
        self._warm: dict[str, str] = {}
        self._polling = False
        self._board = Board(self.host.clock)
        for panel in (PANEL, ANOMALY, MODELS, DOCTOR):
            self._board.states[panel] = JobState(panel)
        self._jobs = WorkerJobs(lambda: bridge or self.host.make_bridge(), self._board)
        self._models = ModelJobs(self._board)
        event = slicer.vtkMRMLScene.StartCloseEvent
        self._tags = [scene.AddObserver(event, self._on_scene_closing)]

    # --------------------------------------------------------------------------------------- states

    @property
    def state(self) -> JobState:
        """The synthesis panel's job."""
        return self.states[PANEL]

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

        Returns: its last state.
        """
        panel = next((p for p, s in self.states.items() if s.number == number), None)
        started, cancelled = self.host.clock(), False
        while panel and self.states[panel].number == number and self.states[panel].running:
            self.poll()
            if pump is not None:
                pump()
            late = timeout_s is not None and self.host.clock() - started > timeout_s
            if late and not cancelled:
                cancelled = self.cancel(panel)
            time.sleep(0.01)
        self.poll()  # what is left to be shown
        if panel is None or self.states[panel].number != number:
            return JobState(panel or "", number, "cancelled", sentence=REPLACED)
        return self.states[panel]

    def start(self, job: Job, model: str = "") -> int:
        """Start a job in place of an older one of its panel: what every request to the worker comes down to.

        Args:
            job: of a panel.
            model: that the worker loads for it and keeps; none if "".

        Returns: the number of the job.
        Raises: SessionError: it cannot travel to the worker.
        """
        self._wanted[job.panel] = model
        self._number += 1
        self._jobs.start(job, self._number)
        self._board.tell()
        return self._number

    # ------------------------------------------------------------------------------------ synthesis

    def synthesize(
        self, parameters: SynthesisParameters | Mapping[str, Any], volume_node: Any, **nodes: Any
    ) -> int:
        """Put a synthetic tumor into a copy of a volume, or one more into a result.

        Arguments: as `synthesis.request.wish`; no node is changed but the result.
        Returns: the number of the job. Its result is in `state.result_node_id` at the end.
        Raises: SessionError: what is wrong, and the next step; nothing has been started then.
        """
        return self._synthesize(wish(parameters, volume_node, **nodes), ())

    def variants(
        self,
        parameters: SynthesisParameters | Mapping[str, Any],
        volume_node: Any,
        *,
        seeds: int | Sequence[int] = 3,
        **nodes: Any,
    ) -> int:
        """Make the same tumor with several seeds, each in a volume of its own, to choose from.

        Args:
            seeds: how many, counted from the seed of the parameters; or the seeds themselves.

        Further arguments, Returns, Raises: as `synthesize`. See `keep_variant`.
        """
        if isinstance(seeds, int):
            pack = parameters if isinstance(parameters, Mapping) else vars(parameters)
            first = int(pack.get("seed", 0))
            seeds = [(first + index) % (LARGEST_SEED + 1) for index in range(seeds)]
        if not seeds:
            raise SessionError(_("No variant was asked for. Ask for one seed or more."))
        return self._synthesize(wish(parameters, volume_node, **nodes), seeds)

    def _synthesize(self, asked: Wish, seeds: Sequence[int]) -> int:
        model = asked.parameters.model
        if model != MODELLED:
            check_model(model, PANEL, _("tumor synthesis"))
        check_room(asked, self.host, warm=self._is_warm(PANEL, model))
        return self.start(synthesis_job(self.scene, asked, seeds), model)

    def keep_variant(self, node: Any) -> int:
        """Keep one of the variants and remove the others; returns how many were removed."""
        return results.keep_variant(self.scene, node)

    def remove_last(self, node: Any) -> int:
        """Take the last tumor out of a result.

        Returns: how many are left; with the last one the result leaves the scene.
        Raises: SessionError: a job is working on the result. SceneError: there is nothing to remove.
        """
        if self.state.running:
            raise SessionError(
                _("A tumor is being made. Wait for it, or press Cancel, then remove the last one.")
            )
        return results.remove_last(self.scene, node)

    # ------------------------------------------------------------------------------------ heat maps

    def anomaly(
        self,
        parameters: AnomalyParameters | Mapping[str, Any],
        images: Any,
        *,
        live: bool = False,
        **nodes: Any,
    ) -> int:
        """Make an anomaly heat map beside a scan.

        Args:
            live: whether the result is the one map of the scan that follows the sliders.

        Further arguments: as `anomaly.request.anomaly_wish`; no image is changed.
        Returns: the number of the job. The map is in `states["anomaly"].result_node_id` at the end, also
            after a cancel, if slices were finished by then.
        Raises: SessionError: what is wrong, and the next step; nothing has been started then.
        """
        asked = anomaly_wish(parameters, images, **nodes)
        return self._map(asked, anomaly_job(self.scene, asked, live=live))

    def sweep(
        self,
        parameters: AnomalyParameters | Mapping[str, Any],
        images: Any,
        noise_levels: Sequence[int],
        guidance_scales: Sequence[float],
        **nodes: Any,
    ) -> int:
        """Make maps of one slice, the first that is asked for, with every pair of N and S.

        Arguments, Returns, Raises: as `anomaly`; the cells are in the report of the state.
        """
        asked = anomaly_wish(parameters, images, **nodes)
        packs = sweep_of(asked, list(noise_levels), list(guidance_scales))
        return self._map(asked, sweep_job(self.scene, asked, packs))

    def _map(self, asked: AnomalyWish, job: Job) -> int:
        model = asked.parameters.model
        check_anomaly_room(asked, self.host, warm=self._is_warm(ANOMALY, model))
        return self.start(job, model)

    def remove_map(self, node: Any) -> list[Any]:
        """Remove a heat map with all that belongs to it.

        Returns: the maps that are left.
        Raises: SessionError: a map is being made, perhaps into this one.
        """
        if self.states[ANOMALY].running:
            raise SessionError(
                _("A map is being made. Wait for it, or press Cancel, then remove this one.")
            )
        anomaly_results.remove_map(self.scene, node)
        return anomaly_results.maps_of(self.scene)

    # --------------------------------------------------------------------------------------- models

    def examine(self) -> int:
        """Ask the worker what this computer can do; the answer is in `states["doctor"].report`."""

        def finish(answers: list[Answer]) -> Outcome:
            report = answers[0].metadata
            return Outcome(doctor_line(report), report=report)

        return self.start(Job(DOCTOR, "doctor", [("", {})], finish))

    def download(self, model_id: str, accept: bool = False) -> int:
        """Download a model; `accept` says that the person has read its licence and accepts it.

        Raises: SessionError: unknown model, licence not accepted, or another model is being worked on.
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

        return self.start(Job(MODELS, "identify_model", [("", {"path": str(path)})], finish))

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

    def cancel(self, panel: str = PANEL) -> bool:
        """Stop the job of a panel; its state says so a moment later. False if there is none."""
        found = self._jobs.cancel(panel) or (panel == MODELS and self._models.cancel())
        self._board.tell()
        return found

    def set_host(self, host: Host) -> None:
        """Change the worker's Python or folders; the next job starts a new worker.

        Raises: SessionError: a job is running.
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
        for panel, model in self._wanted.items():
            kind = self.states[panel].kind
            if kind == "done" and model != MODELLED:
                self._warm[panel] = model
            elif kind in ("failed", "cancelled"):
                self._warm[panel] = ""

    def _is_warm(self, panel: str, model: str) -> bool:
        return bool(model) and self._warm.get(panel) == model

    def _on_scene_closing(self, *_: Any) -> None:
        self._jobs.drop_jobs_of_scene(SCENE_CLOSED)
        self._board.tell()
