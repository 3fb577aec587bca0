"""The Reader study panel: join, practice, read, pause, finish."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from difftumor.reader_study.session import LockedError
from difftumor.reader_study.study import StudyError
from DiffTumorSlicerLib.jobs.wording import capitalized
from DiffTumorSlicerLib.panels.reading.answer_group import AnswerGroup
from DiffTumorSlicerLib.panels.reading.reading_window import ReadingWindow
from DiffTumorSlicerLib.panels.reading.view_clicks import ViewClicks
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.shortcuts import Shortcuts
from DiffTumorSlicerLib.panels.shared.surroundings import Surroundings
from DiffTumorSlicerLib.panels.shared.texts import with_key
from DiffTumorSlicerLib.panels.shared.widgets import say
from DiffTumorSlicerLib.reading.reading import DETECTION, StudyReading

BUTTON_KEYS = {
    "nextCaseButton": "Space",
    "previousCaseButton": "Backspace",
    "pauseButton": "Esc",
    "removeMarkButton": "Delete",
    "resetViewButton": "Home",
}
PAGES = {"outside": "joinPage", "ready": "infoPage", "reading": "readPage", "finished": "donePage"}


class ReaderStudyPanel:
    """One page for each stage of a reading; the case itself is on the screen, not in here."""

    def __init__(
        self, around: Surroundings, *, others: Sequence[Any], step_aside: Callable[[], None]
    ) -> None:
        """Build the panel.

        Args:
            around: what it stands in.
            others: sections of the module's other panels, out of sight while somebody reads.
            step_aside: lets the other panels give back the views that they use.
        """
        self._section = around.section
        self._step_aside = step_aside
        self._shown: tuple[Any, ...] = ()
        self.widget, self.ui = around.load("ReaderStudyPanel")
        ui = self.ui
        self.reading = StudyReading(around.scene, entered=self._enter_room, left=self._leave_room)
        self.answer = AnswerGroup(ui, self.reading, self.refresh)
        self.window = ReadingWindow(others, self.reading.pause)
        self._clicks = ViewClicks(self.answer.mark)
        self._shortcuts = Shortcuts(self.widget)
        for name, key in BUTTON_KEYS.items():
            button = getattr(ui, name)
            button.text = with_key(button.text, key)
        for button, function in (
            (ui.continueStudyButton, self.go_on),
            (ui.joinButton, self.join),
            (ui.takeOverButton, lambda: self.join(take_over=True)),
            (ui.beginButton, self.begin),
            (ui.leaveStudyButton, self.close_study),
            (ui.nextCaseButton, self.next),
            (ui.previousCaseButton, self.back),
            (ui.pauseButton, self.reading.pause),
            (ui.resetViewButton, self.reading.restart_view),
            (ui.openPackageButton, self.open_folder),
            (ui.closeStudyButton, self.close_study),
        ):
            button.connect("clicked()", function)
        ui.readerCodeEdit.connect("returnPressed()", self.join)
        ui.takeOverButton.visible = False
        folder = settings.study()[0]
        if folder and Path(folder).is_dir():
            ui.studyFolderButton.directory = folder
        self.refresh()

    @property
    def in_room(self) -> bool:
        """Whether somebody reads, and everything else is out of sight."""
        return self.reading.in_room

    # ------------------------------------------------------------------------------------- joining

    def join(self, take_over: bool = False) -> None:
        """Open the package that is chosen, with the code that is typed."""
        self._join(str(self.ui.studyFolderButton.directory), self.ui.readerCodeEdit.text, take_over)

    def go_on(self) -> None:
        """Open the package that was read last, and begin at once."""
        folder, code, _title = settings.study()
        self.ui.studyFolderButton.directory = folder
        self.ui.readerCodeEdit.text = code
        self._join(folder, code)
        if self.reading.stage == "ready":
            self.begin()

    def close_study(self) -> None:
        """Close the package."""
        if self.reading.stage == "finished":
            settings.set_study("", "", "")
        self.reading.close()
        self.refresh()

    def open_folder(self) -> None:
        """Show the package in the file browser."""
        folder = str(self.reading.session.package.folder)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(folder))

    # ------------------------------------------------------------------------------------- reading

    def begin(self) -> None:
        """The first image, or the one that was left."""
        self.reading.begin()
        self.refresh()
        if self.in_room:
            self.window.hide_view_bars()
            self._clicks.start()
            self.answer.take_keyboard()

    def next(self) -> None:
        """Store the answer and show the next case, or say what the answer lacks."""
        if self.reading.practice_over:
            self.begin()
            return
        self.reading.next()
        self.refresh()

    def back(self) -> None:
        """To the case before."""
        self.reading.back()
        self.refresh()

    def leave(self) -> None:
        """Another module is opened: pause."""
        self.reading.pause()
        self.refresh()

    def cleanup(self) -> None:
        """The module goes away: everything is as before, and the package is free for others."""
        self.reading.close()
        self._shortcuts.remove()

    def tick(self) -> None:
        """Follow time and loading; called by the module's timer.

        A dialog of Slicer pauses: whatever it saves or loads, the scene is the person's own by then.
        """
        if self.in_room and slicer.app.activeModalWidget() is not None:
            self.reading.pause()
        self.reading.tick()
        self.refresh()

    # ------------------------------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show the state; cheap while nothing has changed."""
        reading = self.reading
        state = (reading.stage, reading.shown, reading.case, reading.draft, reading.message,
                 self._seconds_left(), reading.time_over)  # fmt: skip
        if state == self._shown:
            return
        self._shown = state
        for stage, page in PAGES.items():
            getattr(self.ui, page).visible = stage == reading.stage
        message = reading.message
        say(self.ui.studyMessage, escape(capitalized(message)) if message else "")
        {
            "outside": self._show_join, "ready": self._show_info, "reading": self._show_case,
            "finished": self._show_done,
        }[reading.stage]()  # fmt: skip

    def _show_join(self) -> None:
        ui = self.ui
        folder, code, title = settings.study()
        say(
            ui.rememberedLabel,
            _("<b>{title}</b>, reader {code}").format(title=escape(title), code=escape(code))
            if folder
            else "",
        )
        ui.continueStudyButton.visible = bool(folder)

    def _show_info(self) -> None:
        ui, reading = self.ui, self.reading
        facts, case = reading.facts, reading.case
        assert case is not None, "a study without an open case is finished"
        ui.studyTitleLabel.text = f"<b>{escape(facts.title)}</b>"
        lines = [self._where_it_stands(case), escape(facts.question)]
        if facts.type != DETECTION:
            lines.append(_("The views begin at the tumor; the key Home brings you back to it."))
        if facts.time_limit_s is not None:
            lines.append(
                _("Each image is shown for {seconds} s; you can answer afterwards, too.").format(
                    seconds=f"{facts.time_limit_s:g}"
                )
            )
        lines.append(
            _(
                "Each answer is stored at once. Pause whenever you like; the time then stands still. Please "
                "read alone, and do not look up the cases elsewhere."
            )
        )
        lines.append(
            _(
                "The images are real ones and synthetic ones: research use only, never for diagnosis."
            )
        )
        ui.studyFactsLabel.text = "".join(f"<p>{line}</p>" for line in lines)
        begun = case.position > 1 or reading.session.seconds > 0
        ui.beginButton.text = _("Continue") if begun or reading.practice_over else _("Begin")
        if reading.practice_over:
            ui.beginButton.text = _("Begin with the cases that count")
            ui.beginButton.setFocus()

    def _where_it_stands(self, case: Any) -> str:
        if case.practice:
            every = len(self.reading.session.package.cases)
            return _(
                "Cases for practice: {practice}; their answers do not count. Cases that count: {total}. Next: "
                "practice case {position}."
            ).format(practice=case.total, total=every - case.total, position=case.position)
        if self.reading.practice_over:
            return _("The practice is over. Cases that follow: {total}.").format(total=case.total)
        if case.position == 1:
            return _("Cases: {total}.").format(total=case.total)
        return _("Next: case {position} of {total}.").format(
            position=case.position, total=case.total
        )

    def _show_case(self) -> None:
        ui, reading = self.ui, self.reading
        case = reading.case
        assert case is not None, "who reads has a case"
        words = _("Practice {position} of {total}") if case.practice else _("{position} of {total}")
        ui.caseLabel.text = words.format(position=case.position, total=case.total)
        ui.studyProgressBar.maximum = case.total
        ui.studyProgressBar.value = case.position - 1
        ui.questionLabel.text = f"<b>{escape(reading.facts.question)}</b>"
        left = self._seconds_left()
        say(
            ui.caseTimeLabel, _("{seconds} s left").format(seconds=left) if left is not None else ""
        )
        self.answer.refresh()
        ready = reading.shown or reading.time_over
        ui.nextCaseButton.enabled = ready and not reading.missing
        ui.previousCaseButton.visible = reading.facts.allow_back
        ui.previousCaseButton.enabled = reading.session.can_go_back
        if not ready:
            say(ui.lackingLabel, _("The image is being loaded…"))
        elif reading.time_over:
            say(ui.lackingLabel, _("The time for this image is over. ") + reading.missing)
        else:
            say(ui.lackingLabel, "")

    def _show_done(self) -> None:
        session = self.reading.session
        self.ui.doneLabel.text = _(
            "<b>Finished, thank you.</b><p>All answers are stored in the folder <i>{folder}</i>. "
            "Give this folder back to the coordinator of the study.</p>"
        ).format(folder=escape(str(session.package.folder)))

    def _seconds_left(self) -> int | None:
        left = self.reading.remaining_s if self.reading.stage == "reading" else None
        return None if left is None else math.ceil(left)

    # -------------------------------------------------------------------------------------- inside

    def _join(self, folder: str, code: str, take_over: bool = False) -> None:
        self.ui.takeOverButton.visible = False
        reading = self.reading
        try:
            reading.join(Path(folder), code, take_over=take_over)
        except (StudyError, OSError) as error:
            reading.message = str(error)
            elsewhere = isinstance(error, LockedError) and error.may_take_over
            self.ui.takeOverButton.visible = elsewhere
            self.refresh()
            return
        package = reading.session.package
        settings.set_study(str(package.folder), package.reader, reading.facts.title)
        self.answer.set_study(reading.facts)
        self.refresh()
        self.ui.beginButton.setFocus()

    def _enter_room(self) -> None:
        """Everything but the image goes out of sight, and the keys wake up."""
        self._step_aside()
        self.window.enter()
        for key, row in self.answer.keys.items():
            self._shortcuts.add_function(key, partial(self.answer.choose, row))
        for number in range(1, 6):
            self._shortcuts.add_function(str(number), partial(self.answer.be_sure, number))
        for name, key in BUTTON_KEYS.items():
            press = self.next if name == "nextCaseButton" else getattr(self.ui, name).click
            self._shortcuts.add_function(key, press)
        manager = slicer.app.layoutManager()
        if manager is not None:
            self._shortcuts.reach(manager.viewport())

    def _leave_room(self) -> None:
        """Slicer is the person's own again; the keys sleep."""
        self._clicks.stop()
        self._shortcuts.remove()
        self.window.leave()
