"""The answer to one case: choices, confidence, mark, comment, each with its key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.panels.shared.texts import with_key
from DiffTumorSlicerLib.panels.shared.widgets import quietly, say

MOST_CHOICES = 4
SURE = (1, 2, 3, 4, 5)


class AnswerGroup:
    """Shows the draft of the answer, and passes on what is pressed."""

    def __init__(self, ui: Any, reading: Any, changed: Callable[[], None]) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Reader study panel.
            reading: `reading.reading.StudyReading`.
            changed: called after each change of the draft; what else depends on it.
        """
        self._ui = ui
        self._reading = reading
        self._changed = changed
        self._choices: tuple[str, ...] = ()
        self._buttons = [getattr(ui, f"choice{n}Button") for n in range(1, MOST_CHOICES + 1)]
        self._sure = [getattr(ui, f"confidence{n}Button") for n in SURE]
        for row, button in enumerate(self._buttons):
            button.connect("clicked()", lambda row=row: self.choose(row))
        for number, button in zip(SURE, self._sure, strict=True):
            button.connect("clicked()", lambda number=number: self.be_sure(number))
        ui.removeMarkButton.connect("clicked()", lambda: self.mark(None))
        ui.commentEdit.connect("textChanged(QString)", reading.set_comment)
        ui.commentEdit.connect("returnPressed()", self.take_keyboard)

    @property
    def keys(self) -> dict[str, int]:
        """Letter -> row of the choice."""
        return {key: row for row, key in enumerate(keys_of(self._choices)) if key}

    def set_study(self, facts: Any) -> None:
        """Offer the choices of a study."""
        ui = self._ui
        self._choices = facts.choices[:MOST_CHOICES]
        words, keys = texts.choices(), keys_of(self._choices)
        for row, button in enumerate(self._buttons):
            button.visible = row < len(self._choices)
            if row < len(self._choices):
                choice = self._choices[row]
                button.text = with_key(
                    words.get(choice, choice[:1].upper() + choice[1:]), keys[row]
                )
        for widget in (ui.confidenceLabel, *self._sure):
            widget.visible = facts.ask_confidence
        for widget in (ui.markLabel, ui.removeMarkButton):
            widget.visible = facts.ask_mark

    def refresh(self) -> None:
        """Show the draft."""
        ui, draft, facts = self._ui, self._reading.draft, self._reading.facts
        for choice, button in zip(self._choices, self._buttons, strict=False):
            _check(button, choice == draft.choice)
        for number, button in zip(SURE, self._sure, strict=True):
            _check(button, number == draft.confidence)
        if facts.ask_mark:
            marked = draft.mark_ras is not None
            say(
                ui.markLabel,
                _("Marked. Click elsewhere to move the mark.")
                if marked
                else _("Click into the image to mark the place."),
            )
            ui.removeMarkButton.enabled = marked
        if ui.commentEdit.text != draft.comment:
            with quietly(ui.commentEdit):
                ui.commentEdit.text = draft.comment

    def choose(self, row: int) -> None:
        """Answer the question."""
        if row < len(self._choices):
            self._reading.choose(self._choices[row])
        self.refresh()  # a button that is pressed again stays pressed
        self._changed()

    def be_sure(self, number: int) -> None:
        """Set the confidence."""
        self._reading.set_confidence(number)
        self.refresh()
        self._changed()

    def mark(self, point: tuple[float, float, float] | None) -> None:
        """Mark a place, or none."""
        self._reading.set_mark(point)
        self.refresh()
        self._changed()

    def take_keyboard(self) -> None:
        """Let the keys work: the keyboard goes to a button, away from the comment."""
        self._buttons[0].setFocus()


def keys_of(choices: tuple[str, ...]) -> list[str]:
    """For each choice the first of its letters that no choice before it has; "" if none is left."""
    keys: list[str] = []
    for choice in choices:
        letters = [c.upper() for c in choice if c.isascii() and c.isalpha()]
        keys.append(next((c for c in letters if c not in keys), ""))
    return keys


def _check(button: Any, on: bool) -> None:
    if button.checked != on:
        button.checked = on
