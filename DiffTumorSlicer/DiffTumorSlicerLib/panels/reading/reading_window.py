"""What of Slicer's window goes out of sight while somebody reads: bars, docks, names, lists, annotations.

Everything comes back as it was, also when Slicer is closed in the middle: it keeps the state of its window then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.reading.views import VIEWS

# Kinds of widgets of the main window, and single ones by the names that Slicer gives them.
HIDDEN_KINDS = ("QToolBar", "QMenuBar", "QStatusBar")
HIDDEN_NAMES = ("DataProbeCollapsibleWidget",)
PANEL_DOCK = "PanelDockWidget"  # holds the module itself


class ReadingWindow:
    """The main window, as far as it is not the image."""

    def __init__(self, sections: Sequence[Any], closing: Callable[[], None]) -> None:
        """Nothing is hidden yet.

        Args:
            sections: of this module, with lists and names that belong to other tasks.
            closing: called before Slicer's window closes.
        """
        self._sections = sections
        self._closing = closing
        self._hidden: list[Any] = []
        self._title: str | None = None
        self._annotated = False
        self._filter: Any = None

    def enter(self) -> None:
        """Hide all but the image and the panel; call it before the layout changes."""
        for section in self._sections:
            self._hide(section)
        window = slicer.util.mainWindow()
        if window is None:
            return
        self._title = str(window.windowTitle)
        window.windowTitle = _("Reader study")
        for kind in HIDDEN_KINDS:
            for widget in window.findChildren(kind):
                self._hide(widget)
        for dock in window.findChildren("QDockWidget"):
            if dock.name != PANEL_DOCK:
                self._hide(dock)
        for name in HIDDEN_NAMES:
            for widget in slicer.util.findChildren(window, name):
                self._hide(widget)
        self._annotate(False)
        self._filter = _CloseFilter(self._closing)
        window.installEventFilter(self._filter)

    def hide_view_bars(self) -> None:
        """Hide the bars of our views, with their lists of volumes; call it after the layout changed."""
        manager = slicer.app.layoutManager()
        for view in VIEWS if manager is not None else ():
            widget = manager.sliceWidget(view)
            if widget is not None:
                widget.sliceController().visible = False

    def leave(self) -> None:
        """Bring everything back."""
        hidden, self._hidden = self._hidden, []
        for widget in hidden:
            widget.visible = True
        window = slicer.util.mainWindow()
        if window is not None and self._filter is not None:
            window.removeEventFilter(self._filter)
        if window is not None and self._title is not None:
            window.windowTitle = self._title
        if self._annotated:
            self._annotate(True)
        self._title, self._filter, self._annotated = None, None, False

    def _hide(self, widget: Any) -> None:
        # What lies in a hidden parent counts, too: it would show with its parent.
        if not widget.isHidden():
            widget.visible = False
            self._hidden.append(widget)

    def _annotate(self, on: bool) -> None:
        """Switch Slicer's corner annotations: names of volumes, of patients, dates."""
        probe = getattr(slicer.modules, "DataProbeInstance", None)
        info = getattr(probe, "infoWidget", None)  # made with the main window
        annotations = getattr(info, "sliceAnnotations", None)
        if annotations is None:
            return
        if not on:
            self._annotated = bool(annotations.sliceViewAnnotationsEnabled)
        if on or self._annotated:
            annotations.sliceViewAnnotationsEnabled = on
            annotations.updateSliceViewFromGUI()


class _CloseFilter(qt.QWidget):
    """Hears of the window's end before the window does."""

    def __init__(self, closing: Callable[[], None]) -> None:
        super().__init__()
        self._closing = closing

    def eventFilter(self, _watched: Any, event: Any) -> bool:
        """Called by Qt; the event goes its way."""
        if event.type() == qt.QEvent.Close:
            self._closing()
        return False
