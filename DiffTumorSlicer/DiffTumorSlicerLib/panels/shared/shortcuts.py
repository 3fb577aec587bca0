"""Keys that work while the keyboard is in a panel, and nowhere else in Slicer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from DiffTumorSlicerLib.panels.shared.texts import with_key


class Shortcuts:
    """Shortcuts of one panel; each presses a button and is shown on it.

    They end with the panel, and in other modules the same keys do what they always do.
    """

    def __init__(self, panel: Any) -> None:
        self._panels = [panel]
        self._actions: list[Any] = []

    def add(self, key: str, button: Any) -> Any:
        """Let a key press a button, and show the key on it.  Returns: the action."""
        button.text = with_key(button.text, key)
        return self.add_function(key, button.click)

    def add_function(self, key: str, function: Callable[[], None]) -> Any:
        """Let a key call a function.  Returns: the action, to switch it on and off."""
        action = qt.QAction(self._panels[0])
        action.shortcut = qt.QKeySequence(key)
        action.shortcutContext = qt.Qt.WidgetWithChildrenShortcut
        action.connect("triggered()", function)
        for widget in self._panels:
            widget.addAction(action)
        self._actions.append(action)
        return action

    def reach(self, widget: Any) -> None:
        """Let the keys work in another widget, too, such as the views; until `remove`."""
        self._panels.append(widget)
        for action in self._actions:
            widget.addAction(action)

    def remove(self) -> None:
        """Take all of them off the panel, and off what else they reached."""
        for action in self._actions:
            for widget in self._panels:
                widget.removeAction(action)
            action.deleteLater()
        self._actions.clear()
        del self._panels[1:]
