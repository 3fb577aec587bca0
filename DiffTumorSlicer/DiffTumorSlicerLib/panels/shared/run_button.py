"""The big button of a panel and its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from DiffTumorSlicerLib.panels.shared.shortcuts import Shortcuts
from DiffTumorSlicerLib.panels.shared.texts import with_key

START_KEY = "Ctrl+Return"
CANCEL_KEY = "Esc"


class RunButton:
    """Starts the panel's job, and cancels it while it runs."""

    def __init__(
        self,
        button: Any,
        words: str,
        shortcuts: Shortcuts,
        start: Callable[[], None],
        cancel: Callable[[], None],
    ) -> None:
        """Take over a button.

        Args:
            button: QPushButton.
            words: that it shows while nothing runs.
            shortcuts: of the panel; they get the keys.
            start: starts the job.
            cancel: stops it.
        """
        self._button, self._words = button, words
        self._start, self._cancel = start, cancel
        self.running = False
        button.connect("clicked()", self._press)
        shortcuts.add_function(START_KEY, start)
        self._escape = shortcuts.add_function(CANCEL_KEY, cancel)
        self.show(False)

    def show(self, running: bool) -> None:
        """Show what a press does now."""
        self.running = running
        words = with_key(_("Cancel"), CANCEL_KEY) if running else with_key(self._words, START_KEY)
        if self._button.text != words:
            self._button.text = words
        # While nothing runs, Escape belongs to whatever else wants it.
        self._escape.enabled = running

    def rename(self, words: str) -> None:
        """Start something else from now on."""
        self._words = words
        self.show(self.running)

    def _press(self) -> None:
        (self._cancel if self.running else self._start)()
