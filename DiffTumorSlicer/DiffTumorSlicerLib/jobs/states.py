"""How the jobs of the panels stand, and who wants to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from DiffTumorSlicerLib.translation import tr as _

SYNTHESIS, ANOMALY, SEGMENTATION, MODELS, DOCTOR = PANELS = (
    "synthesis", "anomaly", "segmentation", "models", "doctor",
)  # fmt: skip
TICK_S = 0.25  # how often the elapsed time is told anew
REPLACED = _("A newer request took the place of this one.")


@dataclass(frozen=True)
class JobState:
    """What a panel shows of its job. Times are in seconds; `remaining_s` is of this stage.

    Attributes:
        kind: "idle", "running", "done", "failed" or "cancelled".
        sentence: how it ended, with the next step if it failed.
        result_node_ids: what it added or changed; `result_node_id` is the first, or "".
        notes: further sentences about the result.
        details: for a bug report (traceback, end of the log); to be folded away.
        report: values that a task returned for the panel, such as the doctor's.
    """

    panel: str
    number: int = 0
    kind: str = "idle"
    stage: str = ""
    done: int = 0
    total: int = 0
    elapsed_s: float = 0.0
    remaining_s: float | None = None
    sentence: str = ""
    result_node_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    details: str = ""
    log_path: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def result_node_id(self) -> str:
        """The first result, or ""."""
        return self.result_node_ids[0] if self.result_node_ids else ""

    @property
    def running(self) -> bool:
        """Whether the job has not ended."""
        return self.kind == "running"


class Board:
    """The newest state of each panel's job, and who wants to know of changes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.states = {panel: JobState(panel) for panel in PANELS}
        self.listeners: list[Callable[[JobState], None]] = []
        self._clock = clock
        self._started: dict[str, float] = {}
        self._changed: list[str] = []

    def begin(self, panel: str, number: int, stage: str) -> None:
        """A job has started."""
        self._started[panel] = self._clock()
        self.states[panel] = JobState(panel, number, "running", stage)
        self._mark(panel)

    def change(self, panel: str, **values: Any) -> None:
        """Something about a running job is new, or it has ended (`kind`)."""
        if values.get("kind", "running") != "running":
            values = {"stage": "", "remaining_s": None, **values}
        elapsed = self._clock() - self._started[panel]
        self.states[panel] = replace(self.states[panel], elapsed_s=elapsed, **values)
        self._mark(panel)

    def tick(self) -> None:
        """Let the elapsed time of running jobs go on."""
        for panel, state in self.states.items():
            elapsed = self._clock() - self._started.get(panel, 0.0)
            if state.running and elapsed - state.elapsed_s >= TICK_S:
                self.change(panel)

    def tell(self) -> None:
        """Call the listeners, once per changed panel; they see a session that is ready for requests."""
        changed, self._changed = self._changed, []
        for panel in changed:
            for listener in list(self.listeners):
                listener(self.states[panel])

    def _mark(self, panel: str) -> None:
        if panel not in self._changed:
            self._changed.append(panel)
