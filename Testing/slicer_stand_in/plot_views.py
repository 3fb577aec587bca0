"""`qMRMLPlotWidget` and `qMRMLPlotView`: charts of plot nodes, drawn off-screen by VTK, which take mouse events.

Slicer draws the same nodes with the same VTK chart; what differs is fonts and colors of the axes.
"""

from __future__ import annotations

from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in.pythonqt import emit, python_class
from Testing.slicer_stand_in.view_surface import Surface

_BACKGROUND = (255, 253, 246)
_MARKERS = {"none": 0, "cross": 1, "plus": 2, "square": 3, "circle": 4, "diamond": 5}
_LINES = {"none": 0, "solid": 1, "dash": 2, "dot": 3, "dash-dot": 4, "dash-dot-dot": 5}


class _ContextView:
    """What `Surface` needs of a view."""

    def __init__(self) -> None:
        self.view = vtk.vtkContextView()
        window = vtk.vtkRenderWindow()
        window.SetOffScreenRendering(1)
        window.SetSize(200, 200)
        self.view.SetRenderWindow(window)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(window)
        self._style = vtk.vtkContextInteractorStyle()
        self._style.SetScene(self.view.GetScene())
        self._interactor.SetInteractorStyle(self._style)
        self._interactor.Initialize()
        self.chart = vtk.vtkChartXY()
        self.view.GetScene().AddItem(self.chart)

    def render_window(self) -> Any:
        return self.view.GetRenderWindow()

    def interactor(self) -> Any:
        return self._interactor

    def render(self) -> None:
        self.view.GetRenderWindow().Render()


class _PlotView(QtWidgets.QWidget):
    """`qMRMLPlotView`."""

    dataSelected = QtCore.Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._view, self._surface = _ContextView(), Surface()
        self._node: Any = None
        self._tags: list[tuple[Any, int]] = []
        self._series: list[tuple[Any, Any]] = []  # plot, series node
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._surface)
        self._surface.show_view(self._view)
        self._view.chart.GetBackgroundBrush().SetColor(*_BACKGROUND)
        self._view.chart.AddObserver(
            vtk.vtkCommand.SelectionChangedEvent, lambda *_: self._tell_selection()
        )

    def chart(self) -> Any:
        return self._view.chart

    def scene(self) -> Any:
        return self._view.view.GetScene()

    def renderWindow(self) -> Any:
        return self._view.render_window()

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show_chart())
        node.AddObserver(node.PlotChartNodeChangedEvent, lambda *_: self._show_chart())
        self._show_chart()

    def fitToContent(self) -> None:
        self._view.chart.RecalculateBounds()
        self._surface.render_soon()

    def RemovePlotSelections(self) -> None:
        for plot, _ in self._series:
            plot.SetSelection(vtk.vtkIdTypeArray())
        self._surface.render_soon()

    def _chart_node(self) -> Any:
        scene = self._node.GetScene() if self._node is not None else None
        node_id = self._node.GetPlotChartNodeID() if scene is not None else None
        return scene.GetNodeByID(node_id) if node_id else None

    def _show_chart(self) -> None:
        """Draw the chart node, and look after everything that it is made of."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags = []
        chart = self._view.chart
        chart.ClearPlots()
        self._series = []
        self._set_mouse()
        node = self._chart_node()
        self._surface.render_soon()
        if node is None:
            chart.SetTitle("")
            return
        self._observe(node)
        for index in range(node.GetNumberOfNodeReferences(node.GetPlotSeriesNodeReferenceRole())):
            series = node.GetNthPlotSeriesNode(index)
            if series is not None:
                self._observe(series)
                self._draw(series)
        chart.SetTitle(node.GetTitle() or "")
        chart.GetTitleProperties().SetFontSize(node.GetTitleFontSize())
        chart.SetShowLegend(bool(node.GetLegendVisibility()))
        self._draw_axes(node)

    def _draw(self, series: Any) -> None:
        table = series.GetTableNode().GetTable() if series.GetTableNode() is not None else None
        names = series.GetXColumnName(), series.GetYColumnName()
        if table is None or any(table.GetColumnByName(name) is None for name in names):
            return
        self._observe(series.GetTableNode())
        plot = vtk.vtkPlotLine()
        plot.SetInputData(table, *names)
        plot.SetLabel(series.GetName())
        plot.SetColorF(*series.GetColor())
        plot.SetWidth(series.GetLineWidth())
        plot.GetPen().SetLineType(_LINES[series.GetLineStyleAsString(series.GetLineStyle())])
        plot.SetMarkerStyle(_MARKERS[series.GetMarkerStyleAsString(series.GetMarkerStyle())])
        plot.SetMarkerSize(series.GetMarkerSize())
        self._view.chart.AddPlot(plot)
        self._series.append((plot, series))

    def _draw_axes(self, node: Any) -> None:
        chart = self._view.chart
        for axis, title, automatic, reach in (
            (vtk.vtkAxis.BOTTOM, node.GetXAxisTitle(), node.GetXAxisRangeAuto(), node.GetXAxisRange()),
            (vtk.vtkAxis.LEFT, node.GetYAxisTitle(), node.GetYAxisRangeAuto(), node.GetYAxisRange()),
        ):  # fmt: skip
            one = chart.GetAxis(axis)
            one.SetTitle(title or "")
            one.SetGridVisible(bool(node.GetGridVisibility()))
            one.GetTitleProperties().SetFontSize(node.GetAxisTitleFontSize())
            one.GetTitleProperties().SetBold(False)
            one.GetLabelProperties().SetFontSize(node.GetAxisLabelFontSize())
            if automatic:
                one.SetBehavior(vtk.vtkAxis.AUTO)
            else:
                one.SetBehavior(vtk.vtkAxis.FIXED)
                one.SetUnscaledRange(*reach)
        chart.RecalculateBounds()

    def _set_mouse(self) -> None:
        """What the left button does, as Slicer sets it."""
        pick = self._node.GetInteractionMode() == self._node.InteractionModeSelectPoints
        action = vtk.vtkChart.SELECT if pick else vtk.vtkChart.PAN
        self._view.chart.SetActionToButton(action, vtk.vtkContextMouseEvent.LEFT_BUTTON)

    def _tell_selection(self) -> None:
        ids, points = vtk.vtkStringArray(), vtk.vtkCollection()
        for plot, series in self._series:
            selection = plot.GetSelection()
            if selection is not None and selection.GetNumberOfValues() > 0:
                points.AddItem(selection)
                ids.InsertNextValue(series.GetID())
        emit(self, "dataSelected(vtkStringArray*,vtkCollection*)", ids, points)
        self._surface.render_soon()

    def _observe(self, node: Any) -> None:
        tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show_chart())
        self._tags.append((node, tag))


class _PlotWidget(QtWidgets.QFrame):
    """`qMRMLPlotWidget`: the view below a bar with its label."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        bar = QtWidgets.QLabel(f" {node.GetLayoutLabel() or node.GetLayoutName()}")
        bar.setStyleSheet("background: rgb(190,190,190); color: black")
        box = QtWidgets.QVBoxLayout(self)
        box.setContentsMargins(1, 1, 1, 1)
        box.setSpacing(0)
        box.addWidget(bar)
        self._plot_view = python_class(_PlotView, "qMRMLPlotView")()
        box.addWidget(self._plot_view, 1)
        self._plot_view.setMRMLPlotViewNode(node)

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def plotView(self) -> Any:
        return self._plot_view


def make_plot_widget(node: Any) -> Any:
    """The widget of a plot view node."""
    return python_class(_PlotWidget, "qMRMLPlotWidget")(node)
