"""One reader's session on one package: which case comes, and answers that are on the disk when `answer` returns.

A session that ended in any way - closed, crashed, killed, on another computer - is gone on with by
`ReadingSession.join`, at exactly the case that has no answer yet. Standard library only; used by one thread.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from difftumor import __version__
from difftumor.reader_study.journal import JOURNAL_VERSION, Journal, open_journal
from difftumor.reader_study.locking import Lock, LockedError, take_lock
from difftumor.reader_study.reading import Answer, ReadingState
from difftumor.reader_study.study import (
    JOURNAL_FILE,
    LOCK_FILE,
    Package,
    StudyError,
    StudyFacts,
    read_package,
)

__all__ = ["Answer", "CaseView", "Clock", "LockedError", "ReadingSession", "StudyError"]


class Clock:
    """The computer's clocks; tests bring their own."""

    def wall(self) -> float:
        """Seconds since 1970, UTC; may be set by anybody."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only go forward, from an unknown start."""
        return time.monotonic()


@dataclass(frozen=True)
class CaseView:
    """A case as the panel shows it.

    Attributes:
        token: opaque name.
        path: image, NIfTI without compression.
        position: 1, 2, ... among the practice cases, or among those that count.
        total: number of them.
        practice: does not count.
        start_ras: where to begin, RAS mm; found by the same rule in all cases.
        answered: the answer so far, after going back.
    """

    token: str
    path: Path
    position: int
    total: int
    practice: bool
    start_ras: tuple[float, float, float]
    answered: Answer | None


class ReadingSession:
    """A joined package; made by `join`.

    Every step is stored before it takes effect. A step that could not be stored raises, and the session stands
    where it stood: the same step may be tried again.
    """

    def __init__(
        self, package: Package, lock: Lock, journal: Journal, state: ReadingState, clock: Clock
    ) -> None:
        self.package = package
        self._lock = lock
        self._journal = journal
        self._state = state
        self._clock = clock
        self._closed = False

    @classmethod
    def join(
        cls, package: Path, code: str, *, clock: Clock | None = None, take_over: bool = False
    ) -> ReadingSession:
        """Open a package, for the first time or to go on.

        Args:
            package: folder of the reader's package.
            code: the reader's code.
            clock: for tests.
            take_over: a person says that the session of another computer has ended (see LockedError).

        Raises:
            StudyError: wrong code, damaged package or journal, a folder that cannot be written.
            LockedError: open elsewhere; who, and since when.
        """
        clock = clock or Clock()
        found = read_package(Path(package))
        if code.strip().casefold() != found.reader.casefold():
            raise StudyError(
                f"The code {code.strip()!r} does not belong to this package. Check the code and the folder that "
                "the coordinator gave you."
            )
        lock = take_lock(found.folder / LOCK_FILE, _utc(clock.wall()), take_over=take_over)
        try:
            journal, reading = open_journal(found.folder / JOURNAL_FILE, found.digest)
            try:
                session = cls(
                    found, lock, journal, ReadingState.replay(found, reading.records), clock
                )
                session._store(
                    "joined",
                    journal_version=JOURNAL_VERSION,
                    program=__version__,
                    reader=found.reader,
                    torn_bytes=reading.torn_bytes,
                    took_over=take_over,
                )
            except BaseException:
                journal.close()
                raise
        except BaseException:
            lock.release()
            raise
        return session

    @property
    def facts(self) -> StudyFacts:
        """What everybody may know."""
        return self.package.facts

    @property
    def current(self) -> CaseView | None:
        """The case to show; None: all are answered."""
        return self._view(self._state.current)

    @property
    def following(self) -> CaseView | None:
        """The case after that, to be loaded early."""
        at, first = self._state.current, self._state.first_open
        if at is None or first is None:
            return None
        after = first if at < first else at + 1
        return self._view(after if after < len(self.package.cases) else None)

    @property
    def progress(self) -> tuple[int, int]:
        """Answered and all cases, of practice while it lasts, then of those that count."""
        cases = self.package.cases
        practice = sum(case.practice for case in cases)
        done = len(self._state.given)
        if done < practice:
            return done, practice
        return done - practice, len(cases) - practice

    @property
    def finished(self) -> bool:
        """Every case has an answer."""
        return self._state.first_open is None

    @property
    def paused(self) -> bool:
        """Between `pause` and `resume`."""
        return self._state.paused

    @property
    def visible(self) -> bool:
        """The current case was reported as shown, and time runs."""
        return self._state.visible

    @property
    def can_go_back(self) -> bool:
        """Whether `back` has somewhere to go."""
        return self._state.earlier() is not None

    @property
    def seconds(self) -> float:
        """How long the current case has been on the screen, pauses left out."""
        at = self._state.current
        if at is None:
            return 0.0
        return self._state.seconds(self.package.cases[at].token, self._clock.monotonic())

    @property
    def remaining_s(self) -> float | None:
        """Time left for the current case, 0 if it is over; None: no limit. An answer is taken even then."""
        limit = self.facts.time_limit_s
        return None if limit is None else max(0.0, limit - self.seconds)

    def shown(self) -> None:
        """The image of the current case is on the screen: time starts. Again after `resume`."""
        if not self._state.visible:
            self._store("shown", **self._about_current("show"))

    def answer(self, answer: Answer) -> None:
        """Store the answer to the current case and go to the next; when this returns it is on the disk.

        Raises:
            StudyError: no answer to the question, or the case is not on the screen.
            JournalError: it could not be stored; nothing has changed, try again.
        """
        answer.check(self.facts)
        about = self._about_current("answer")
        if not self._state.visible:
            raise StudyError("The case is not on the screen yet. Wait until it is shown.")
        self._store("answered", **about, **answer.to_dict())

    def back(self) -> None:
        """Go to the case before; its answer may be given again. Allowed by some studies only."""
        if not self.can_go_back:
            raise StudyError("There is no way back here: answers of this study stand.")
        self._check_running("go back")
        self._store("back")

    def forward(self) -> None:
        """After `back`, return to the first case without an answer."""
        self._check_running("go on")
        self._store("forward")

    def pause(self) -> None:
        """Time stands still; hide the image."""
        if not self._state.paused:
            self._store("paused")

    def resume(self) -> None:
        """Go on after `pause`; call `shown` when the image is back."""
        if self._state.paused:
            self._store("resumed")

    def viewed(
        self,
        window: float,
        level: float,
        lowest_mm: float,
        highest_mm: float,
        planes: tuple[str, ...] = ("axial",),
    ) -> None:
        """Note how the current case was looked at, now and then or before the answer.

        Args:
            window: width, HU.
            level: center, HU.
            lowest_mm: lowest place along S that was scrolled to.
            highest_mm: highest.
            planes: that were looked at.
        """
        numbers = {
            "window": window,
            "level": level,
            "lowest_mm": lowest_mm,
            "highest_mm": highest_mm,
        }
        if not all(math.isfinite(v) for v in numbers.values()):
            raise StudyError(f"Window, level and places must be numbers, got {numbers}.")
        rounded = {name: round(float(value), 2) for name, value in numbers.items()}
        self._store("viewed", **self._about_current("view"), **rounded, planes=list(planes))

    def close(self) -> None:
        """Leave; a second call does nothing. What was answered is stored already."""
        if self._closed:
            return
        try:
            self._store("left", finished=self.finished)
        except StudyError:
            pass  # nothing is lost: the next session sees that this one ended
        finally:
            self._closed = True
            self._journal.close()
            self._lock.release()

    def _store(self, event: str, **content: Any) -> None:
        """Write a record, then let it take effect."""
        if self._closed:
            raise StudyError(
                "This session was closed. Open the study again: it goes on at the same case."
            )
        self._lock.check()
        wall = self._clock.wall()
        record = {
            "event": event,
            "utc": _utc(wall),
            "wall_s": round(wall, 3),
            "monotonic_s": round(self._clock.monotonic(), 4),
            **content,
        }
        self._state.apply(self._journal.append(record))

    def _about_current(self, verb: str) -> dict[str, Any]:
        self._check_running(verb)
        at = self._state.current
        if at is None:
            raise StudyError(f"Every case is answered; there is nothing to {verb}.")
        return {"token": self.package.cases[at].token, "case": at + 1}

    def _check_running(self, verb: str) -> None:
        if self._state.paused:
            raise StudyError(f"The reading is paused. Resume it to {verb}.")

    def _view(self, at: int | None) -> CaseView | None:
        if at is None:
            return None
        cases = self.package.cases
        case = cases[at]
        practice = sum(other.practice for other in cases)
        given = self._state.given.get(case.token)
        return CaseView(
            token=case.token,
            path=self.package.folder / case.file,
            position=at + 1 if case.practice else at + 1 - practice,
            total=practice if case.practice else len(cases) - practice,
            practice=case.practice,
            start_ras=case.start_ras,
            answered=given.answer if given else None,
        )


def _utc(wall: float) -> str:
    return (
        datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
