"""One job as a person sees it: a bar, a line with stage and times, and the sentence at the end."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import slicer
from slicer.i18n import tr as _

from difftumor.weights.models import ModelError
from DiffTumorSlicerLib.jobs.base_session import SCENE_CLOSED
from DiffTumorSlicerLib.jobs.states import JobState
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.scene.geometry import SceneError

DETAILS_LINK = "details"


class Progress:
    """Bar, line and message of one panel."""

    def __init__(self, bar: Any, line: Any, message: Any) -> None:
        """Take over three widgets of a panel.

        Args:
            bar: QProgressBar.
            line: label under it.
            message: label for sentences; it shows a link where there is more to tell.
        """
        self._bar, self._line, self._message = bar, line, message
        self._details = ""
        self.said = ""  # the sentence that is shown
        message.connect("linkActivated(QString)", self._show_details)
        self._show_running(False)
        self.say("")

    def say(self, text: str, details: str = "") -> None:
        """Show a sentence, and a link to what is only for a bug report; "" clears it."""
        self._details, self.said = details, text
        rich = escape(text).replace("\n", "<br>")
        if details:
            rich += f' <a href="{DETAILS_LINK}">{escape(_("Show details"))}</a>'
        if self._message.text != rich:
            self._message.text = rich
        self._message.visible = bool(text)

    def attempt(self, action: Callable[[], Any]) -> bool:
        """Do something, or say why it cannot be done.  Returns: whether it was done."""
        try:
            action()
        except (SceneError, ModelError, OSError) as error:
            self.say(texts.sentence(sentence_of(error)))
            return False
        return True

    def forget(self) -> None:
        """The scene was closed: take back what was said of it, but not that it was closed."""
        if not self.said.startswith(SCENE_CLOSED):
            self.say("")

    def follow(self, state: JobState) -> None:
        """Show a job's state (`jobs.JobState`)."""
        self._show_running(state.running)
        if not state.running:
            self.say("\n".join((state.sentence, *state.notes)), state.details)
            return
        self.say("")
        self._bar.maximum = max(state.total, 0)  # 0 of 0: the bar runs without an end
        self._bar.value = state.done if state.total else 0
        parts = (
            texts.stage(state.stage),
            texts.time_line(state.elapsed_s, state.remaining_s),
        )
        self._line.text = " · ".join(filter(None, parts))

    def _show_running(self, running: bool) -> None:
        self._bar.visible = running
        self._line.visible = running

    def _show_details(self, _link: str) -> None:
        slicer.util.infoDisplay(
            _("This helps to find the fault; it holds no image data."),
            windowTitle=_("Details"),
            detailedText=self._details,
        )
