"""One off-screen VTK view as a Qt widget: its picture, and its mouse events handed on to VTK."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from trame_slicer.views import AbstractView, ScheduledRenderStrategy, SliceView, ThreeDView

_LEFT, _RIGHT, _MIDDLE = (
    QtCore.Qt.MouseButton.LeftButton,
    QtCore.Qt.MouseButton.RightButton,
    QtCore.Qt.MouseButton.MiddleButton,
)
_VTK_BUTTONS = {_LEFT: "LeftButton", _RIGHT: "RightButton", _MIDDLE: "MiddleButton"}


class SoonRendering(ScheduledRenderStrategy):
    """Draws once per turn of Qt's event loop, however often it is asked for."""

    def __init__(self, surface: Surface) -> None:
        super().__init__()
        self._surface = surface

    def schedule_render(self) -> None:
        self._surface.render_soon()


class OwnSliceView(SliceView):
    """A slice view of a view node that the layout made; trame-slicer's makes another one."""

    def __init__(self, node: Any, *arguments: Any, **named: Any) -> None:
        self._given = node
        super().__init__(*arguments, node.GetLayoutName(), **named)

    def set_scene(self, scene: Any) -> None:
        AbstractView.set_scene(self, scene)
        orientation = self._given.GetOrientation()
        self._logic.SetMRMLScene(scene)
        self._logic.SetSliceNode(self._given)
        self.set_view_node(self._given)
        self._given.SetOrientation(orientation)  # trame-slicer turns it along the volume's axes


class OwnThreeDView(ThreeDView):
    """The same in three dimensions."""

    def __init__(self, node: Any, *arguments: Any, **named: Any) -> None:
        self._given = node
        super().__init__(*arguments, node.GetLayoutName(), **named)

    def set_scene(self, scene: Any) -> None:
        AbstractView.set_scene(self, scene)
        self._logic.SetMRMLScene(scene)
        self.set_view_node(self._given)


class Surface(QtWidgets.QWidget):
    """A VTK view as a picture that takes mouse events."""

    def __init__(self) -> None:
        super().__init__()
        self.setMouseTracking(True)
        self.setMinimumSize(60, 60)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
        self._view: Any = None
        self._image = QtGui.QImage()
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.render_now)

    def show_view(self, view: Any) -> None:
        self._view = view
        view.render_window().SetMultiSamples(0)  # otherwise translucent models vanish under Mesa

    def render_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start(0)

    def render_now(self) -> None:
        if self._view is None or not self.isVisible():
            return
        self._view.render()
        data = vtk.vtkImageData()
        slicer.vtkMRMLLayerDisplayableManager.RenderWindowBufferToImage(
            self._view.render_window(), data
        )
        width, height, _ = data.GetDimensions()
        scalars = data.GetPointData().GetScalars()
        channels = scalars.GetNumberOfComponents()
        kind = (
            QtGui.QImage.Format.Format_RGBX8888
            if channels == 4
            else QtGui.QImage.Format.Format_RGB888
        )
        raw = bytes(memoryview(scalars))
        self._image = QtGui.QImage(raw, width, height, channels * width, kind).mirrored(False, True)
        self.update()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        if self._view is not None:
            size = (max(self.width(), 2), max(self.height(), 2))
            self._view.render_window().SetSize(*size)
            self._view.interactor().UpdateSize(*size)
            if isinstance(self._view, SliceView):
                self._view._logic.ResizeSliceNode(*size)
            self.render_soon()

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        self.render_soon()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), QtGui.QColor("black"))
        if not self._image.isNull():
            painter.drawImage(self.rect(), self._image)
        painter.end()

    def _hand_on(self, event: Any, name: str) -> None:
        if self._view is None:
            return
        interactor = self._view.interactor()
        keys, at = event.modifiers(), event.position()
        interactor.SetEventInformationFlipY(
            int(at.x()),
            int(at.y()),
            int(bool(keys & QtCore.Qt.KeyboardModifier.ControlModifier)),
            int(bool(keys & QtCore.Qt.KeyboardModifier.ShiftModifier)),
        )
        interactor.InvokeEvent(name)
        self.render_soon()

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        self._hand_on(event, f"{_VTK_BUTTONS[event.button()]}PressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        self._hand_on(event, f"{_VTK_BUTTONS[event.button()]}ReleaseEvent")

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        self._hand_on(event, "MouseMoveEvent")

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        up = event.angleDelta().y() > 0
        self._hand_on(event, "MouseWheelForwardEvent" if up else "MouseWheelBackwardEvent")
