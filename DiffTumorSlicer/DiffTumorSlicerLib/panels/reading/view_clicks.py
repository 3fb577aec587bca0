"""Clicks into the reading's views as places in the patient; a drag is no click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from DiffTumorSlicerLib.reading.views import VIEWS

CLICK_PIXELS = 4  # the mouse may move so far
FIRST = 10.0  # before Slicer's own observers, which may keep an event for themselves


class ViewClicks:
    """Listens to the left button in our slice views."""

    def __init__(self, clicked: Callable[[tuple[float, float, float]], None]) -> None:
        """`clicked` gets RAS mm."""
        self._clicked = clicked
        self._tags: list[tuple[Any, int]] = []
        self._pressed: tuple[int, int] | None = None

    def start(self) -> None:
        """Listen to the views of the layout on screen."""
        self.stop()
        manager = slicer.app.layoutManager()
        for view in VIEWS if manager is not None else ():
            widget = manager.sliceWidget(view)
            if widget is None:
                continue
            interactor, node = widget.sliceView().interactor(), widget.mrmlSliceNode()
            for event, function in (
                ("LeftButtonPressEvent", lambda source, _event: self._press(source)),
                (
                    "LeftButtonReleaseEvent",
                    lambda source, _event, node=node: self._release(source, node),
                ),
            ):
                self._tags.append((interactor, interactor.AddObserver(event, function, FIRST)))

    def stop(self) -> None:
        """Listen no more."""
        tags, self._tags = self._tags, []
        for interactor, tag in tags:
            interactor.RemoveObserver(tag)

    def _press(self, interactor: Any) -> None:
        self._pressed = tuple(interactor.GetEventPosition())

    def _release(self, interactor: Any, node: Any) -> None:
        pressed, self._pressed = self._pressed, None
        x, y = interactor.GetEventPosition()
        if pressed is None or max(abs(x - pressed[0]), abs(y - pressed[1])) > CLICK_PIXELS:
            return
        ras = node.GetXYToRAS().MultiplyPoint((x, y, 0.0, 1.0))
        self._clicked((float(ras[0]), float(ras[1]), float(ras[2])))
