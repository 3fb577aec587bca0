"""A clock that only goes where it is told."""

from __future__ import annotations

from difftumor.reader_study.session import Clock


class TestClock(Clock):
    """Wall and monotonic time in seconds; `set` moves the wall alone, as a person or a time server does."""

    __test__ = False

    def __init__(self, wall: float = 1.8e9, monotonic: float = 1000.0) -> None:
        self._wall, self._monotonic = wall, monotonic

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def wait(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds

    def set(self, by: float) -> None:
        self._wall += by
