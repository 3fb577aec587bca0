"""What every panel does with its widgets: write without echo, fill and read combo boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import qt
import slicer


@contextmanager
def quietly(*widgets: Any) -> Iterator[None]:
    """Change widgets without their signals, so that a refresh is not taken for the user's wish."""
    before = [widget.blockSignals(True) for widget in widgets]
    try:
        yield
    finally:
        for widget, blocked in zip(widgets, before, strict=True):
            widget.blockSignals(blocked)


def fill_combo(box: Any, items: Mapping[str, str], chosen: str) -> None:
    """Offer `items` (value to words) and choose one of them, without signals and only if needed."""
    with quietly(box):
        now = {box.itemData(row): box.itemText(row) for row in range(box.count)}
        if list(now.items()) != list(items.items()):
            box.clear()
            for value, words in items.items():
                box.addItem(words, value)
        row = list(items).index(chosen) if chosen in items else -1
        if box.currentIndex != row:
            box.setCurrentIndex(row)


def chosen_of(box: Any) -> str:
    """Value of a combo box that `fill_combo` filled; empty if none is chosen."""
    return str(box.itemData(box.currentIndex)) if box.currentIndex >= 0 else ""


def keep_narrow(*selectors: Any) -> None:
    """Let node selectors be narrower than the longest name in them, so that the panel is."""
    for selector in selectors:
        selector.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon


def say(label: Any, text: str) -> None:
    """Write a message into its label; an empty one takes no room."""
    if label.text != text:
        label.text = text
    label.visible = bool(text)


def switch_to_module(name: str) -> None:
    """Open another module of Slicer; without a main window nothing happens."""
    if slicer.util.mainWindow() is not None:
        slicer.util.selectModule(name)
