"""One reader at one study: which case is on the screen, the answer that is being given, and when the room is left.

Ties the journalled session of the engine to the views. No Qt: a panel shows what stands here and passes on what is
pressed; `tick` is called by its timer. A scene that is closed, replaced or joined by another one pauses the reading
first, so that nothing of the study gets into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from difftumor.reader_study.session import Answer, CaseView, ReadingSession
from difftumor.reader_study.study import StudyError, StudyFacts
from DiffTumorSlicerLib.reading.case_images import CaseLoader, CaseNode
from DiffTumorSlicerLib.reading.case_mark import CaseMark
from DiffTumorSlicerLib.reading.scene_aside import SceneAside, SceneEvents
from DiffTumorSlicerLib.reading.views import ReadingViews
from DiffTumorSlicerLib.translation import tr as _

# outside: no study. ready: joined, and between practice and the cases that count. reading: in the room.
Stage = Literal["outside", "ready", "reading", "finished"]
DETECTION = "detection"
QUIET_TURNS = 20  # of the timer without a change of the window, before it is noted

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Draft:
    """The answer as far as it is given."""

    choice: str = ""
    confidence: int | None = None
    mark_ras: Point | None = None
    comment: str = ""


class StudyReading:
    """A joined study, and the room to read it in."""

    def __init__(
        self, scene: Any, *, entered: Callable[[], None], left: Callable[[], None]
    ) -> None:
        """Nothing is joined yet.

        Args:
            scene: the MRML scene; nothing of it is changed but what `pause` brings back.
            entered: called when the room is entered: what else is on the screen goes away.
            left: called when it is left.
        """
        self._scene = scene
        self._entered, self._left = entered, left
        self._session: ReadingSession | None = None
        self._views = ReadingViews(scene)
        self._aside = SceneAside(scene)
        self._loader = CaseLoader()
        self._case = CaseNode(scene)
        self._mark = CaseMark(scene)
        self._events: SceneEvents | None = None
        self._shown = ""  # token of the case that is on the screen
        self._window: tuple[float, float] = (0.0, 0.0)
        self._quiet = 0
        self.stage: Stage = "outside"
        self.draft = Draft()
        self.message = ""  # what went wrong last, as a sentence
        self.practice_over = False  # `ready` between practice and what counts

    # ------------------------------------------------------------------------------------- what is

    @property
    def session(self) -> ReadingSession:
        """The joined study.  Raises: StudyError: there is none."""
        if self._session is None:
            raise StudyError(_("No study is open. Join one first."))
        return self._session

    @property
    def facts(self) -> StudyFacts:
        """Of the joined study."""
        return self.session.facts

    @property
    def case(self) -> CaseView | None:
        """The case whose turn it is; None: no study, or all are answered."""
        return self._session.current if self._session is not None else None

    @property
    def in_room(self) -> bool:
        """Whether the reading's layout is on screen."""
        return self._views.open

    @property
    def shown(self) -> bool:
        """Whether the image of the case is on screen."""
        return bool(self._shown)

    @property
    def remaining_s(self) -> float | None:
        """Time left for this case, or None without a limit."""
        return self._session.remaining_s if self._session is not None else None

    @property
    def time_over(self) -> bool:
        """The image is gone because the study's time for a case is over."""
        return self.stage == "reading" and self.remaining_s == 0.0

    @property
    def missing(self) -> str:
        """What the answer still lacks, as a sentence; empty: it is complete."""
        facts, draft = self.facts, self.draft
        if not draft.choice:
            return _("Answer the question first.")
        marked = draft.mark_ras is not None or not facts.ask_mark
        if facts.type == DETECTION and draft.choice == facts.choices[0] and not marked:
            return _("Click on the lesion to mark it, or choose the other answer.")
        if facts.ask_confidence and draft.confidence is None:
            return _("Say how sure you are, 1 to 5.")
        return ""

    # ------------------------------------------------------------------------------------ joining

    def join(self, package: Path, code: str, *, take_over: bool = False) -> None:
        """Open a package.  Raises: StudyError, LockedError: of `ReadingSession.join`."""
        self.close()
        self._session = ReadingSession.join(package, code, take_over=take_over)
        self.stage = "finished" if self._session.finished else "ready"
        self.message, self.draft, self.practice_over = "", Draft(), False
        self._read_ahead()

    def close(self) -> None:
        """Leave the study; answers are stored already."""
        self.leave_room()
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._loader.forget()
        self.stage, self.draft = "outside", Draft()

    # ------------------------------------------------------------------------------------ reading

    def begin(self) -> None:
        """Enter the room, or go on after a pause, with the case whose turn it is."""
        if self.stage != "ready":
            return
        if not self._try(self.session.resume):
            return
        self.stage, self.practice_over = "reading", False
        if not self.in_room:
            self._events = SceneEvents(self._scene, self.pause)
            self._entered()
            self._aside.hide()
            self._views.enter()
        self._show()

    def pause(self) -> None:
        """Hide the image and give the person their own Slicer back; what is half answered stays."""
        if self.stage == "reading":
            self._note_look()
            self.stage = "ready"
            self._try(self.session.pause)
        self.leave_room()

    def leave_room(self) -> None:
        """Everything on the screen and in the scene as it was before."""
        if not self.in_room:
            return
        events, self._events = self._events, None
        if events is not None:
            events.stop()
        self._shown = ""
        self._views.leave()
        self._mark.remove()
        self._case.remove()
        self._aside.bring_back()
        self._left()

    def choose(self, choice: str) -> None:
        """Answer the question; can be changed until `next`."""
        if not self._is_answered_now():
            return
        self.draft, self.message = replace(self.draft, choice=choice), ""
        if self.facts.type == DETECTION and choice != self.facts.choices[0]:
            self.set_mark(None)

    def set_confidence(self, confidence: int) -> None:
        """1 (a guess) to 5 (certain)."""
        if self._is_answered_now() and self.facts.ask_confidence:
            self.draft, self.message = replace(self.draft, confidence=confidence), ""

    def set_mark(self, point: Point | None) -> None:
        """Mark a place, or none. In a detection study a mark is the answer that there is a lesion."""
        if not self._is_answered_now() or not self.facts.ask_mark:
            return
        self.draft, self.message = replace(self.draft, mark_ras=point), ""
        if point is not None and self.facts.type == DETECTION:
            self.draft = replace(self.draft, choice=self.facts.choices[0])
        self._mark.show(point)

    def restart_view(self) -> None:
        """Window, zoom and slices as when the case was shown first."""
        if self.shown:
            self._case.reset_window(self.facts.window_hu)
            self._views.restart()

    def set_comment(self, text: str) -> None:
        """Free words about the case."""
        self.draft = replace(self.draft, comment=text)

    def next(self) -> None:
        """Store the answer and show the next case. What could not be stored stays to be tried again."""
        case = self.case
        if self.stage != "reading" or case is None:
            return
        self.message = self.missing
        if self.message or not (self.shown or self.time_over):
            return
        if self.shown and not self._drawn():
            return
        self._note_look()
        draft = self.draft
        answer = Answer(draft.choice, draft.confidence, draft.mark_ras, draft.comment.strip())
        if not self._try(lambda: self.session.answer(answer)):
            return
        self._go_to_current(practiced=case.practice)

    def back(self) -> None:
        """To the case before, where the study allows it."""
        if self.stage == "reading" and self.session.can_go_back:
            self._note_look()
            if self._try(self.session.back):
                self._go_to_current()

    def tick(self) -> None:
        """Look after loading, time and views; called by the timer."""
        if self.stage != "reading":
            return
        if self._views.disturbed:
            self.pause()
            return
        if not self.shown and not self.time_over:
            self._show()
        self._views.settle()
        if not self.shown or not self._drawn():
            return
        self._views.watch()
        self._note_window()
        if self.time_over:
            self._note_look()
            self._hide_image()

    # -------------------------------------------------------------------------------------- inside

    def _is_answered_now(self) -> bool:
        return self.stage == "reading" and (self.shown or self.time_over)

    def _go_to_current(self, practiced: bool = False) -> None:
        """After a step of the session: the next case, the end of the practice, or the end."""
        self._hide_image()
        self.draft, self.message = Draft(), ""
        case = self.case
        if case is None:
            self.stage = "finished"
            self.leave_room()
            return
        if case.answered is not None:
            given = case.answered
            self.draft = Draft(given.choice, given.confidence, given.mark_ras, given.comment)
        if practiced and not case.practice:
            self.stage, self.practice_over = "ready", True
            self._read_ahead()
            return
        self._show()

    def _show(self) -> None:
        """Put the case on the screen if it was read, and let time start."""
        case = self.case
        if case is None or self.shown or self.time_over:
            return
        try:
            image = self._loader.take(case.path)
        except StudyError as error:
            self._stop(str(error))
            return
        if image is None:
            self._read_ahead()
            return
        node = self._case.show(image, self.facts.window_hu)
        self._aside.hide(except_for=self._mark.display_id)
        self._views.show(node, case.start_ras)
        self._mark.show(self.draft.mark_ras)
        self._window = self._case.window()
        self._quiet = QUIET_TURNS
        self._shown = case.token

    def _drawn(self) -> bool:
        """The views have drawn the image: its time starts, and the next one can be read without delaying it."""
        if not self.session.visible:
            if not self._try(self.session.shown):
                self._stop(self.message)
                return False
            self._read_ahead()
        return True

    def _stop(self, why: str) -> None:
        """Leave the room because the reading cannot go on before a person has done something."""
        self.stage, self.message = "ready", why
        self._try(self.session.pause)
        self.message = why
        self.leave_room()

    def _hide_image(self) -> None:
        self._shown = ""
        self._mark.show(None)
        self._views.blank()

    def _read_ahead(self) -> None:
        """Read the case whose turn it is and the one after it."""
        session = self.session
        checksums = {case.token: case.sha256 for case in session.package.cases}
        views = [view for view in (session.current, session.following) if view is not None]
        self._loader.want(*((view.path, checksums[view.token]) for view in views))

    def _note_window(self) -> None:
        """Note another window once it has come to rest."""
        window = self._case.window()
        if window != self._window:
            self._window, self._quiet = window, 0
        elif self._quiet < QUIET_TURNS:
            self._quiet += 1
            if self._quiet == QUIET_TURNS:
                self._note_look()

    def _note_look(self) -> None:
        """Tell the session which window and slices the case is looked at with; a note, not worth a halt."""
        if not self.shown or self._case.node is None:
            return
        self._views.watch()
        seen = self._views.seen
        low, high = seen.axial_mm
        self._try(lambda: self.session.viewed(*self._case.window(), low, high, seen.planes))

    def _try(self, step: Callable[[], None]) -> bool:
        """Take a step of the session, or say why it was not possible."""
        try:
            step()
        except (StudyError, OSError) as error:
            self.message = str(error)
            return False
        return True
