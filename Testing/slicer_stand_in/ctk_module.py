"""The module `ctk` of Slicer: the few widgets of the Common Toolkit that are used, and no others."""

from __future__ import annotations

import sys
import types
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from Testing.slicer_stand_in.pythonqt import emit, native_signal, python_class

_FLOAT_STEPS = 1_000_000


class _CollapsibleButton(QtWidgets.QAbstractButton):
    """A titled bar on top; a press shows or hides what lies below it."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, *arguments: Any) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(*[a for a in arguments if not isinstance(a, str)])
        self._collapsed = False
        self._hidden_here: list[QtWidgets.QWidget] = []
        QtWidgets.QAbstractButton.setText(self, text)
        QtWidgets.QAbstractButton.setCheckable(self, True)
        QtWidgets.QAbstractButton.setChecked(self, True)
        QtWidgets.QWidget.setContentsMargins(self, 0, self._bar_height(), 0, 0)
        native_signal(self, "toggled(bool)").connect(lambda on: self._collapse(not on))

    def _bar_height(self) -> int:
        return QtGui.QFontMetrics(QtWidgets.QWidget.font(self)).height() + 8

    def collapse(self, value: bool) -> None:
        QtWidgets.QAbstractButton.setChecked(self, not value)

    def _collapse(self, value: bool) -> None:
        if value == self._collapsed:
            return
        self._collapsed = value
        children = [c for c in self.children() if isinstance(c, QtWidgets.QWidget)]
        if value:
            self._hidden_here = [c for c in children if not c.isHidden()]
        for child in self._hidden_here:
            QtWidgets.QWidget.setVisible(child, not value)
        emit(self, "contentsCollapsed(bool)", value)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    collapsed = QtCore.Property(bool, _get_collapsed, collapse)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """What is added while closed stays hidden."""
        if event.added() and self.__dict__.get("_collapsed") and event.child().isWidgetType():
            event.child().hide()
            self._hidden_here.append(event.child())
        super().childEvent(event)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() <= self._bar_height()

    def sizeHint(self) -> QtCore.QSize:
        layout = QtWidgets.QWidget.layout(self)
        if layout is None or self._collapsed:
            return QtCore.QSize(150, self._bar_height())
        return layout.totalSizeHint()

    def minimumSizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(60, self._bar_height())

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, QtWidgets.QWidget.width(self), self._bar_height())
        mark = "▸" if self._collapsed else "▾"
        option.text = f"{mark} {QtWidgets.QAbstractButton.text(self)}"
        painter = QtGui.QPainter(self)
        QtWidgets.QWidget.style(self).drawControl(
            QtWidgets.QStyle.ControlElement.CE_PushButton, option, painter, self
        )
        painter.end()


class _SliderWidget(QtWidgets.QWidget):
    """A slider with a spin box beside it; `value` is a float."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, _FLOAT_STEPS)
        self._box = QtWidgets.QDoubleSpinBox()
        self._box.setRange(0.0, 99.0)
        self._box.setKeyboardTracking(False)
        self._tracking = True
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._follow_box)
        self._slider.valueChanged.connect(self._follow_slider)
        self._slider.sliderReleased.connect(self._released)

    def _follow_box(self, value: float) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._slider.blockSignals(True)
        part = (value - self._box.minimum()) / span if span else 0.0
        self._slider.setValue(round(part * _FLOAT_STEPS))
        self._slider.blockSignals(False)
        if self._slider.isSliderDown() and not self._tracking:
            emit(self, "valueIsChanging(double)", value)
        else:
            emit(self, "valueChanged(double)", value)

    def _follow_slider(self, position: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._box.setValue(low + (high - low) * position / _FLOAT_STEPS)

    def _released(self) -> None:
        if not self._tracking:
            emit(self, "valueChanged(double)", self._box.value())

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    def setDecimals(self, value: int) -> None:
        self._box.setDecimals(value)

    def setSpinBoxVisible(self, value: bool) -> None:
        self._box.setVisible(value)

    def _set_minimum(self, value: float) -> None:
        self._box.setMinimum(value)

    def _set_maximum(self, value: float) -> None:
        self._box.setMaximum(value)

    value = QtCore.Property(float, lambda self: self._box.value(), setValue)
    minimum = QtCore.Property(float, lambda self: self._box.minimum(), _set_minimum)
    maximum = QtCore.Property(float, lambda self: self._box.maximum(), _set_maximum)
    decimals = QtCore.Property(int, lambda self: self._box.decimals(), setDecimals)
    singleStep = QtCore.Property(
        float,
        lambda self: self._box.singleStep(),
        lambda self, value: self._box.setSingleStep(value),
    )
    pageStep = QtCore.Property(
        float, lambda self: 10 * self._box.singleStep(), lambda self, value: None
    )
    suffix = QtCore.Property(
        str, lambda self: self._box.suffix(), lambda self, value: self._box.setSuffix(value)
    )
    prefix = QtCore.Property(
        str, lambda self: self._box.prefix(), lambda self, value: self._box.setPrefix(value)
    )
    tracking = QtCore.Property(
        bool, lambda self: self._tracking, lambda self, value: self.__dict__.update(_tracking=value)
    )
    spinBoxVisible = QtCore.Property(bool, lambda self: not self._box.isHidden(), setSpinBoxVisible)


class _PathLineEdit(QtWidgets.QWidget):
    """A line for a path and a button that opens a file dialog."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._line = QtWidgets.QLineEdit()
        self._button = QtWidgets.QToolButton()
        self._button.setText("…")
        self._filters, self._name_filters, self._setting, self._label = 0, [], "", ""
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line, 1)
        layout.addWidget(self._button)
        self._line.textChanged.connect(lambda text: emit(self, "currentPathChanged(QString)", text))
        self._button.clicked.connect(lambda: self.browse())

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    def browse(self) -> None:
        chosen = sys.modules["qt"].QFileDialog.getOpenFileName(self, self._label, self._line.text())
        if chosen:
            self._line.setText(chosen)

    def addCurrentPathToHistory(self) -> None:
        """The history lives in Slicer's settings; the stand-in keeps none."""

    currentPath = QtCore.Property(str, lambda self: self._line.text(), setCurrentPath)
    nameFilters = QtCore.Property(
        list, lambda self: self._name_filters, lambda self, v: self.__dict__.update(_name_filters=v)
    )
    settingKey = QtCore.Property(
        str, lambda self: self._setting, lambda self, v: self.__dict__.update(_setting=v)
    )
    filters = QtCore.Property(
        int, lambda self: self._filters, lambda self, v: self.__dict__.update(_filters=v)
    )
    label = QtCore.Property(
        str, lambda self: self._label, lambda self, v: self.__dict__.update(_label=v)
    )
    showHistoryButton = QtCore.Property(bool, lambda self: False, lambda self, v: None)


class _ElidingButton(QtWidgets.QPushButton):
    """Leaves out the middle of a text that it has no room for, as ctkPushButton does."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self._words = words
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Fixed)

    def show_words(self, words: str) -> None:
        self._words = words
        self._elide()
        self.updateGeometry()

    def minimumSizeHint(self) -> QtCore.QSize:
        room = self.fontMetrics().horizontalAdvance("…") + self._margin()
        return QtCore.QSize(room, super().minimumSizeHint().height())

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        room = self.width() - self._margin()
        middle = QtCore.Qt.TextElideMode.ElideMiddle
        self.setText(self.fontMetrics().elidedText(self._words, middle, room))

    def _margin(self) -> int:
        return 2 * self.fontMetrics().horizontalAdvance("x")


class _DirectoryButton(QtWidgets.QWidget):
    """A button that shows a folder and lets choose another one."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)

    def __init__(self, *parent: QtWidgets.QWidget) -> None:
        super().__init__(*parent)
        self._directory, self._caption = QtCore.QDir.currentPath(), ""
        self._button = _ElidingButton(self._directory)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.clicked.connect(lambda: self.browse())

    def _set_directory(self, path: str) -> None:
        path = QtCore.QDir(path).absolutePath()
        if path != self._directory:
            self._directory = path
            self._button.show_words(path)
            emit(self, "directoryChanged(QString)", path)

    def browse(self) -> None:
        dialog = sys.modules["qt"].QFileDialog
        chosen = dialog.getExistingDirectory(self, self._caption, self._directory)
        if chosen:
            self._set_directory(chosen)
            emit(self, "directorySelected(QString)", self._directory)

    directory = QtCore.Property(str, lambda self: self._directory, _set_directory)
    caption = QtCore.Property(
        str, lambda self: self._caption, lambda self, v: self.__dict__.update(_caption=v)
    )


class _CollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose tick shows or hides its contents."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        QtWidgets.QGroupBox.setCheckable(self, True)
        native_signal(self, "toggled(bool)").connect(self._show_contents)

    def expand(self, value: bool) -> None:
        QtWidgets.QGroupBox.setChecked(self, value)

    def _show_contents(self, on: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                QtWidgets.QWidget.setVisible(child, on)
        # Closed, only the title is left; no frame around nothing.
        title = QtWidgets.QWidget.fontMetrics(self).height() + 2
        QtWidgets.QGroupBox.setFlat(self, not on)
        QtWidgets.QWidget.setMaximumHeight(self, (1 << 24) - 1 if on else title)

    collapsed = QtCore.Property(
        bool,
        lambda self: not QtWidgets.QGroupBox.isChecked(self),
        lambda self, value: self.expand(not value),
    )


class _MessageBox(QtWidgets.QMessageBox):
    """A message box; the tick "Don't show again" is left out."""


class _MenuButton(QtWidgets.QPushButton):
    """A push button whose right edge opens a menu."""


class _ComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    defaultText = QtCore.Property(
        str,
        lambda self: QtWidgets.QComboBox.placeholderText(self),
        lambda self, value: QtWidgets.QComboBox.setPlaceholderText(self, value),
    )


class _SearchBox(QtWidgets.QLineEdit):
    """A line edit with a magnifying glass."""


CLASSES = {
    "ctkCollapsibleButton": _CollapsibleButton,
    "ctkCollapsibleGroupBox": _CollapsibleGroupBox,
    "ctkComboBox": _ComboBox,
    "ctkDirectoryButton": _DirectoryButton,
    "ctkMenuButton": _MenuButton,
    "ctkMessageBox": _MessageBox,
    "ctkPathLineEdit": _PathLineEdit,
    "ctkSearchBox": _SearchBox,
    "ctkSliderWidget": _SliderWidget,
}


def install() -> types.ModuleType:
    """Put `ctk` where `import ctk` finds it."""
    module = sys.modules.get("ctk") or types.ModuleType("ctk", "Stand-in of Slicer's ctk")
    for name, kind in CLASSES.items():
        setattr(module, name, python_class(kind, name))
    sys.modules["ctk"] = module
    return module
