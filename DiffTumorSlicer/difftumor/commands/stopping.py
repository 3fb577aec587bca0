"""A polite end of a long computation: the first Ctrl-C stops it at its next step, the second at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from difftumor.commands.console import Reporter
from difftumor.worker.protocol import Cancelled

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While it is entered, the progress callback raises Cancelled after Ctrl-C or SIGTERM.

    Attributes:
        reporter: shows the progress, and that the wish to stop was heard.
        asked: whether it was.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        # Only the main thread may set handlers; elsewhere whoever started the thread cancels it.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show one step, or stop.  Raises: Cancelled."""
        if self.asked:
            raise Cancelled
        self.reporter(stage, done, total)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            before = self._before.get(number)
            if callable(before):
                before(number, frame)  # the program's own way to end at once
            raise KeyboardInterrupt
        self.asked = True
        self.reporter.note("stopping; what is finished is kept (once more stops at once)")
