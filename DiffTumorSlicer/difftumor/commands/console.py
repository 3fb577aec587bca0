"""What a command says: a progress bar on a terminal, plain lines otherwise, nothing if quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Progress callback of the command line; use as a context manager.

    Args:
        quiet: print results and errors only.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._stage = ""
        self._task = TaskID(0)
        self._said = 0.0

    def __enter__(self) -> Reporter:
        if not self.quiet and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show one step."""
        if self.quiet:
            return
        if self._bar is not None:
            if stage != self._stage:
                self._task = self._bar.add_task(stage, total=total)
            self._bar.update(self._task, completed=done, total=total)
        elif stage != self._stage or time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            print(f"{stage}: {done}/{total}", file=sys.stderr, flush=True)  # noqa: T201
        self._stage = stage

    def note(self, sentence: str) -> None:
        """Say something that the user should know."""
        if not self.quiet:
            print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def complain(sentence: str) -> None:
    """Say what failed, on stderr, also when quiet."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def say(sentence: str) -> None:
    """Print a result line."""
    print(sentence, flush=True)  # noqa: T201
