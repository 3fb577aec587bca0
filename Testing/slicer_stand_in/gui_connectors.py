"""What ties a widget to a parameter: the same pairs as Slicer's connectors, by the widget's exact type."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer

from Testing.slicer_stand_in.parameter_types import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    SingleStep,
    WithinRange,
    findFirstAnnotation,
    getNodeTypes,
    isNodeOrUnionOfNodes,
    splitAnnotations,
)


@dataclass
class Connector:
    """How to read, write and watch one widget."""

    widget: Any
    signal: str
    read: Callable[[], Any]
    write: Callable[[Any], None]
    _callback: Callable[[], None] | None = None

    def on_changed(self, callback: Callable[[], None] | None) -> None:
        if self._callback is not None:
            self.widget.disconnect(self.signal, self._callback)
        self._callback = callback
        if callback is not None:
            self.widget.connect(self.signal, callback)


def kinds_of(widget_class: str, kind: Any) -> bool:
    """Whether a widget of this class can show a (possibly annotated) type. Slicer's own rules.

    Source: specs/slicer.md 2.2, which lists the connectors of Slicer 5.12. Radio buttons, plain text
    editors, tabs and collapsible state have none.
    """
    plain, annotations = splitAnnotations(kind)
    bounded = findFirstAnnotation(annotations, WithinRange) is not None or (
        findFirstAnnotation(annotations, Minimum) is not None
        and findFirstAnnotation(annotations, Maximum) is not None
    )
    is_enum = isinstance(plain, type) and issubclass(plain, enum.Enum)
    if widget_class in ("QCheckBox", "QPushButton", "ctkCheckBox", "ctkCheckablePushButton"):
        return plain is bool
    if widget_class == "QSpinBox":
        return plain is int
    if widget_class == "QSlider":
        return plain is int and bounded
    if widget_class in ("QDoubleSpinBox", "ctkDoubleSpinBox", "qMRMLSpinBox"):
        return plain is float
    if widget_class in ("ctkSliderWidget", "qMRMLSliderWidget", "ctkDoubleSlider"):
        return plain is float and bounded
    if widget_class in ("QComboBox", "ctkComboBox"):
        return is_enum or (
            plain in (int, float, str, bool)
            and findFirstAnnotation(annotations, Choice) is not None
        )
    if widget_class in ("QLineEdit", "QTextEdit", "QLabel"):
        return plain is str
    return widget_class == "qMRMLNodeComboBox" and isNodeOrUnionOfNodes(kind)


def make_connector(widget: Any, kind: Any) -> Connector:
    """The connector of a widget and a type.

    Raises: RuntimeError: where Slicer has none either.
    """
    if not kinds_of(widget.className(), kind):
        raise RuntimeError(f"Unable to create GUI connector from {kind} to {widget.className()}")
    qt, ctk = sys.modules["qt"], sys.modules["ctk"]
    exact = type(widget)
    if exact in (qt.QCheckBox, qt.QPushButton):
        return _property(widget, "toggled(bool)", "checked")
    if exact in (qt.QSpinBox, qt.QSlider):
        _limit(widget, kind, -(2**31), 2**31 - 1)
        return _property(widget, "valueChanged(int)", "value")
    if exact in (qt.QDoubleSpinBox, ctk.ctkSliderWidget):
        _limit(widget, kind, float("-inf"), float("inf"))
        return _property(widget, "valueChanged(double)", "value")
    if exact in (qt.QComboBox, ctk.ctkComboBox):
        return _combo_box(widget, kind)
    if exact is qt.QLineEdit:
        return _property(widget, "textChanged(QString)", "text")
    if exact is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = getNodeTypes(kind)
        return Connector(
            widget, "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode
        )
    raise NotImplementedError(f"the stand-in has no connector for {widget.className()} yet")


def _property(widget: Any, signal: str, name: str) -> Connector:
    return Connector(
        widget, signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value)
    )


def _limit(widget: Any, kind: Any, low: float, high: float) -> None:
    """Take range, decimals and step from the annotations."""
    annotations = splitAnnotations(kind)[1]
    if (decimals := findFirstAnnotation(annotations, Decimals)) is not None:
        widget.decimals = decimals.value
    if (step := findFirstAnnotation(annotations, SingleStep)) is not None:
        widget.singleStep = step.value
    within = findFirstAnnotation(annotations, WithinRange)
    minimum = within or findFirstAnnotation(annotations, Minimum)
    maximum = within or findFirstAnnotation(annotations, Maximum)
    widget.minimum = minimum.minimum if minimum else low
    widget.maximum = maximum.maximum if maximum else high


def _combo_box(widget: Any, kind: Any) -> Connector:
    plain, annotations = splitAnnotations(kind)
    choice = findFirstAnnotation(annotations, Choice)
    if choice is not None:
        values, labels = list(choice.choices), [str(value) for value in choice.choices]
    else:
        values = list(plain)
        labels = [one.label() if hasattr(one, "label") else one.name for one in plain]
    widget.clear()
    widget.addItems(labels)

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return Connector(widget, "currentIndexChanged(int)", lambda: values[widget.currentIndex], write)
