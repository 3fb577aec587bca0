"""Where a reading stands: the records of a journal, one after the other, give the answers and the next case.

The session and the merge use the same rules, so what a reader sees and what is counted cannot drift apart.
Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from difftumor.reader_study.study import Package, StudyError, StudyFacts


@dataclass(frozen=True)
class Answer:
    """What a reader says of a case.

    Attributes:
        choice: one of the study's choices.
        confidence: 1 (guessed) to 5 (certain), or None where the study does not ask.
        mark_ras: a place in the image, mm; or None.
        comment: free text.
    """

    choice: str
    confidence: int | None = None
    mark_ras: tuple[float, float, float] | None = None
    comment: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        mark = None if self.mark_ras is None else [round(float(v), 3) for v in self.mark_ras]
        return {
            "choice": self.choice,
            "confidence": self.confidence,
            "mark_ras": mark,
            "comment": self.comment,
        }

    def check(self, facts: StudyFacts) -> None:
        """Raise StudyError if this is no answer to the question."""
        if self.choice not in facts.choices:
            raise StudyError(
                f"{self.choice!r} is no answer here. Choose one of: {', '.join(facts.choices)}."
            )
        if facts.ask_confidence != (self.confidence is not None):
            asked = "with" if facts.ask_confidence else "without"
            raise StudyError(f"This study asks for answers {asked} a confidence.")
        if self.confidence is not None and (
            type(self.confidence) is not int or not 1 <= self.confidence <= 5
        ):
            raise StudyError(f"The confidence must be 1 to 5, got {self.confidence!r}.")
        if self.mark_ras is not None:
            if not facts.ask_mark:
                raise StudyError("This study asks for no marks.")
            if len(self.mark_ras) != 3 or not all(math.isfinite(v) for v in self.mark_ras):
                raise StudyError(f"A mark is a place of three coordinates, got {self.mark_ras!r}.")
        if not isinstance(self.comment, str) or len(self.comment) > 4000:
            raise StudyError("A comment is a text of at most 4000 characters. Make it shorter.")


@dataclass
class Given:
    """The answer to a case, as it stands.

    Attributes:
        answer: the last one.
        at: UTC time of it.
        seconds: how long the case was on the screen until it, pauses left out.
        changes: how often it was answered again.
        late: after the time limit.
    """

    answer: Answer
    at: str
    seconds: float
    changes: int = 0
    late: bool = False


@dataclass
class ReadingState:
    """Replay of a journal; `apply` takes one record at a time.

    Attributes:
        package: what is read.
        given: answers by token, in the order of the package.
        runs: number of sessions so far.
        paused: between pause and resume.
        clock_jumps_s: by how much the computer's clock was moved within a session, each time; times of
            reading do not suffer, they are measured with a clock that nobody can set.
        ended: the last session was closed.
    """

    package: Package
    given: dict[str, Given] = field(default_factory=dict)
    runs: int = 0
    paused: bool = False
    ended: bool = True
    clock_jumps_s: list[float] = field(default_factory=list)
    _seconds: dict[str, float] = field(default_factory=dict)
    _visible: str | None = None
    _back: int | None = None
    _last: tuple[float, float] | None = None  # monotonic and wall clock of the record before

    @classmethod
    def replay(cls, package: Package, records: Iterable[Mapping[str, Any]]) -> ReadingState:
        """State after all records.  Raises: StudyError: they cannot follow each other."""
        state = cls(package)
        for record in records:
            state.apply(record)
        return state

    @property
    def current(self) -> int | None:
        """Index of the case to show: the first without an answer, or an earlier one after `back`."""
        return self._back if self._back is not None else self.first_open

    @property
    def first_open(self) -> int | None:
        """Index of the first case without an answer; None: all are answered."""
        count = len(self.given)  # answers are given in order
        return count if count < len(self.package.cases) else None

    @property
    def visible(self) -> bool:
        """Whether the current case is on the screen."""
        return self._visible is not None

    def seconds(self, token: str, now: float | None = None) -> float:
        """How long a case was on the screen, up to the monotonic time `now`."""
        total = self._seconds.get(token, 0.0)
        if now is not None and self._visible == token and self._last is not None:
            total += max(0.0, now - self._last[0])
        return total

    def earlier(self) -> int | None:
        """Index of the case before the current one, if a reader may go back to it."""
        at = self.current if self.current is not None else len(self.package.cases)
        cases = self.package.cases
        if not self.package.facts.allow_back or at == 0:
            return None
        # Practice is over once the first case that counts was reached.
        if at < len(cases) and cases[at - 1].practice != cases[at].practice:
            return None
        return at - 1

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take one record.

        Raises:
            StudyError: it cannot stand here, so the journal was not written by this program.
        """
        try:
            monotonic, wall = float(record["monotonic_s"]), float(record["wall_s"])
            self._pass_time(record["event"] == "joined", monotonic, wall)
            self._take(record)
        except StudyError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise StudyError(
                f"Record {record.get('n')} of the journal cannot be understood ({error!r}). Use the program "
                "version with which the study was made."
            ) from None

    def _take(self, record: Mapping[str, Any]) -> None:
        match record["event"]:
            case "joined":
                self.runs += 1
                self._visible, self._back, self.paused, self.ended = None, None, False, False
            case "left":
                self._visible, self.ended = None, True
            case "shown":
                self._visible = self._expect_current(record)
            case "viewed":
                self._expect_current(record)
            case "paused":
                self._visible, self.paused = None, True
            case "resumed":
                self.paused = False
            case "back":
                to = self.earlier()
                if to is None:
                    raise StudyError(
                        f"Record {record['n']} of the journal goes back, which is not allowed."
                    )
                self._visible, self._back = None, to
            case "forward":
                self._visible, self._back = None, None
            case "answered":
                self._take_answer(record)
            case other:
                raise KeyError(other)

    def _pass_time(self, new_run: bool, monotonic: float, wall: float) -> None:
        if self._last is not None and not new_run:
            elapsed = max(0.0, monotonic - self._last[0])
            moved = wall - self._last[1] - elapsed
            if abs(moved) > 2:
                self.clock_jumps_s.append(round(moved, 1))
            if self._visible is not None:
                self._seconds[self._visible] = self._seconds.get(self._visible, 0.0) + elapsed
        self._last = (monotonic, wall)

    def _take_answer(self, record: Mapping[str, Any]) -> None:
        token = self._expect_current(record)
        mark = record["mark_ras"]
        answer = Answer(
            record["choice"],
            record["confidence"],
            None if mark is None else (float(mark[0]), float(mark[1]), float(mark[2])),
            record["comment"],
        )
        answer.check(self.package.facts)
        if self._visible != token:
            raise StudyError(f"Record {record['n']} answers a case that was not on the screen.")
        seconds = self._seconds.get(token, 0.0)
        limit = self.package.facts.time_limit_s
        before = self.given.get(token)
        self.given[token] = Given(
            answer,
            record["utc"],
            round(seconds, 3),
            before.changes + 1 if before else 0,
            limit is not None and seconds > limit,
        )
        self._visible, self._back = None, None

    def _expect_current(self, record: Mapping[str, Any]) -> str:
        at = self.current
        token = record["token"]
        if at is None or self.package.cases[at].token != token or self.paused:
            raise StudyError(
                f"Record {record['n']} of the journal is about case {token}, which was not its turn."
            )
        return str(token)
