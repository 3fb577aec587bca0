"""`slicer.app.layoutManager()` and the main window: real slice, 3-D and plot views, drawn off-screen.

The views are trame-slicer's, with Slicer's own displayable managers; each is copied into a Qt widget,
which hands its mouse events to VTK. So handles can be dragged and windows grabbed. Needs EGL or OSMesa.
"""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.plot_views import _PlotWidget, make_plot_widget
from Testing.slicer_stand_in.pythonqt import emit, python_class
from Testing.slicer_stand_in.view_surface import OwnSliceView, OwnThreeDView, SoonRendering, Surface


class _View(QtWidgets.QWidget):
    """Common to `qMRMLSliceView` and `qMRMLThreeDView`."""

    def __init__(self, view: Any, surface: Surface) -> None:
        super().__init__()
        self._view, self._surface = view, surface
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(surface)
        surface.show_view(view)

    def renderWindow(self) -> Any:
        return self._view.render_window()

    def interactor(self) -> Any:
        return self._view.interactor()

    def scheduleRender(self) -> None:
        self._surface.render_soon()

    def forceRender(self) -> None:
        self._surface.render_now()


class _SliceView(_View):
    """`qMRMLSliceView`."""

    def mrmlSliceNode(self) -> Any:
        return self._view._view_node

    def convertRASToXYZ(self, ras: Any) -> list[float]:
        to_xy = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.mrmlSliceNode().GetXYToRAS(), to_xy)
        return list(to_xy.MultiplyPoint((*ras, 1.0))[:3])

    def convertXYZToRAS(self, xyz: Any) -> list[float]:
        return list(self.mrmlSliceNode().GetXYToRAS().MultiplyPoint((*xyz, 1.0))[:3])


class _ThreeDView(_View):
    """`qMRMLThreeDView`."""

    def mrmlViewNode(self) -> Any:
        return self._view._view_node

    def resetFocalPoint(self) -> None:
        self._view.reset_focal_point()

    def resetCamera(self) -> None:
        self._view.fit_view_to_content()


class _ViewWidget(QtWidgets.QFrame):
    """A view below a bar with its letter in its color."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._bar = python_class(QtWidgets.QLabel)(
            f" {node.GetLayoutLabel() or node.GetLayoutName()}"
        )
        red, green, blue = (round(255 * part) for part in node.GetLayoutColor())
        self._bar.setStyleSheet(f"background: rgb({red},{green},{blue}); color: black")
        self._box = QtWidgets.QVBoxLayout(self)
        self._box.setContentsMargins(1, 1, 1, 1)
        self._box.setSpacing(0)
        self._box.addWidget(self._bar)
        self._surface = Surface()

    def _hold(self, view: QtWidgets.QWidget) -> Any:
        self._box.addWidget(view, 1)
        return view


class _SliceWidget(_ViewWidget):
    """`qMRMLSliceWidget`."""

    def __init__(self, node: Any, scene: Any, logic: Any) -> None:
        super().__init__(node)
        self._trame = OwnSliceView(
            node, scene, logic, scheduled_render_strategy=SoonRendering(self._surface)
        )
        self._node = node
        self._slice_view = self._hold(
            python_class(_SliceView, "qMRMLSliceView")(self._trame, self._surface)
        )

    def mrmlSliceNode(self) -> Any:
        return self._node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._trame._logic.GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        return self._trame._logic

    def sliceView(self) -> Any:
        return self._slice_view

    def sliceController(self) -> Any:
        return self._bar

    def fitSliceToBackground(self) -> None:
        self._trame._logic.FitSliceToBackground()


class _ThreeDWidget(_ViewWidget):
    """`qMRMLThreeDWidget`."""

    def __init__(self, node: Any, scene: Any, logic: Any) -> None:
        super().__init__(node)
        self._trame = OwnThreeDView(
            node, scene, logic, scheduled_render_strategy=SoonRendering(self._surface)
        )
        self._node = node
        self._view = self._hold(
            python_class(_ThreeDView, "qMRMLThreeDView")(self._trame, self._surface)
        )

    def mrmlViewNode(self) -> Any:
        return self._node

    def threeDView(self) -> Any:
        return self._view


class _LayoutManager(QtCore.QObject):
    """`slicer.app.layoutManager()`: builds what the scene's layout node describes."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, application: Any) -> None:
        super().__init__()
        self._application = application
        self._viewport = QtWidgets.QWidget()
        self._frame: QtWidgets.QWidget | None = None
        QtWidgets.QVBoxLayout(self._viewport).setContentsMargins(0, 0, 0, 0)
        self._widgets: dict[str, Any] = {}
        self._shown: list[str] = []
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(application.mrmlScene())
        self._description = ""
        node = self._logic.GetLayoutNode()
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._rebuild())
        node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._rebuild()

    def layoutLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return self._application.mrmlScene()

    def viewport(self) -> QtWidgets.QWidget:
        return self._viewport

    def setLayout(self, number: int) -> None:
        self._logic.GetLayoutNode().SetViewArrangement(number)

    def sliceViewNames(self) -> list[str]:
        return [name for name in self._shown if isinstance(self._widgets[name], _SliceWidget)]

    def sliceWidget(self, name: str) -> Any:
        widget = self._widgets.get(name)
        return widget if isinstance(widget, _SliceWidget) else None

    def threeDWidget(self, index: int) -> Any:
        shown = [w for name in self._shown if isinstance(w := self._widgets[name], _ThreeDWidget)]
        return shown[index] if index < len(shown) else None

    def plotWidget(self, index: int) -> Any:
        shown = [w for name in self._shown if isinstance(w := self._widgets[name], _PlotWidget)]
        return shown[index] if index < len(shown) else None

    def mrmlSliceLogics(self) -> Any:
        return self._application.applicationLogic().GetSliceLogics()

    def resetSliceViews(self) -> None:
        for name in self.sliceViewNames():
            self._widgets[name].fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        for widget in self._widgets.values():
            if isinstance(widget, _ThreeDWidget):
                widget.threeDView().resetCamera()

    layout = QtCore.Property(
        int, lambda self: self._logic.GetLayoutNode().GetViewArrangement(), setLayout
    )
    threeDViewCount = QtCore.Property(
        int,
        lambda self: sum(isinstance(self._widgets[n], _ThreeDWidget) for n in self._shown),
    )
    plotViewCount = QtCore.Property(
        int,
        lambda self: sum(isinstance(self._widgets[n], _PlotWidget) for n in self._shown),
    )

    def _rebuild(self) -> None:
        """Make the widgets of another layout; a view that was there before is used again."""
        node = self._logic.GetLayoutNode()
        description = f"{node.GetViewArrangement()} {node.GetCurrentLayoutDescription()}"
        if description == self._description or self.mrmlScene().IsBatchProcessing():
            return
        self._description = description
        nodes = self._logic.GetViewNodes()
        for index in range(nodes.GetNumberOfItems()):
            self._make(nodes.GetItemAsObject(index))
        self._shown = []
        frame = self._build(node.GetLayoutRootElement())
        old, self._frame = self._frame, frame
        QtWidgets.QWidget.layout(self._viewport).addWidget(frame)
        if old is not None:
            for widget in self._widgets.values():
                if old.isAncestorOf(widget):  # not in this layout, but perhaps in the next
                    QtWidgets.QWidget.hide(widget)
                    QtWidgets.QWidget.setParent(widget, None)
            old.hide()
            old.deleteLater()
        emit(self, "layoutChanged(int)", node.GetViewArrangement())

    def _make(self, node: Any) -> None:
        name = node.GetLayoutName()
        if name in self._widgets:
            return
        if node.IsA("vtkMRMLPlotViewNode"):
            self._widgets[name] = make_plot_widget(node)
            return
        kind, real = (
            (_SliceWidget, "qMRMLSliceWidget")
            if node.IsA("vtkMRMLSliceNode")
            else (_ThreeDWidget, "qMRMLThreeDWidget")
        )
        self._widgets[name] = python_class(kind, real)(
            node, self.mrmlScene(), self._application.applicationLogic()
        )

    def _build(self, element: Any) -> QtWidgets.QWidget:
        """A layout element (`layout`, `item` or `view`) as a widget."""
        if element.GetName() == "view":
            name = element.GetAttribute("singletontag")
            self._shown.append(name)
            return self._widgets[name]
        frame = QtWidgets.QWidget()
        kind = element.GetAttribute("type")
        box = QtWidgets.QVBoxLayout(frame) if kind == "vertical" else QtWidgets.QHBoxLayout(frame)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        for index in range(element.GetNumberOfNestedElements()):
            nested = element.GetNestedElement(index)
            if nested.GetName() in ("item", "layout", "view"):
                widget = self._build(nested)
                box.addWidget(widget, int(nested.GetAttribute("splitSize") or 1))
                widget.show()
        return frame


def show_main_window(panel: QtWidgets.QWidget, application: Any) -> QtWidgets.QMainWindow:
    """A main window like Slicer's: the module's panel on the left, the views on the right.

    After this `slicer.util.mainWindow()` and `slicer.app.layoutManager()` are there.
    """
    manager = python_class(_LayoutManager, "slicer.app.layoutManager()")(application)
    application.setLayoutManager(manager)
    window = python_class(QtWidgets.QMainWindow)()
    window.setObjectName("qSlicerMainWindow")
    scroll = QtWidgets.QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setWidget(panel)
    scroll.setMinimumWidth(520)
    splitter = QtWidgets.QSplitter()
    splitter.addWidget(scroll)
    splitter.addWidget(manager.viewport())
    splitter.setStretchFactor(1, 1)
    window.setCentralWidget(splitter)
    window.resize(1400, 900)
    window.show()
    return window
