"""Callbacks of scripts: told how a job is getting on, from Qt's event loop, without a panel."""

from __future__ import annotations

from collections.abc import Callable

import qt

from DiffTumorSlicerLib.jobs.states import JobState
from DiffTumorSlicerLib.session import Session

POLL_MS = 30


class Follower:
    """Polls a session as long as one of its jobs runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._callbacks: dict[int, Callable[[JobState], None]] = {}
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._poll)
        session.add_listener(self._tell)

    @property
    def active(self) -> bool:
        """Whether it polls."""
        return bool(self._timer.active)

    def follow(self, number: int, callback: Callable[[JobState], None]) -> None:
        """Call callback(state) on every change of a job, the last time when it has ended."""
        self._callbacks[number] = callback
        self._timer.start()

    def stop(self) -> None:
        """Poll no more."""
        self._timer.stop()

    def _poll(self) -> None:
        self._session.poll()
        if not self._session.busy:
            self._timer.stop()

    def _tell(self, state: JobState) -> None:
        callback = self._callbacks.get(state.number)
        if callback is None:
            return
        if not state.running:
            del self._callbacks[state.number]
        callback(state)
