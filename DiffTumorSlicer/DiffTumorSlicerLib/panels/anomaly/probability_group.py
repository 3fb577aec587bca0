"""The curve of the probability on screen: a click on a point goes to its slice, a line shows where the views are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from DiffTumorSlicerLib.anomaly.probability import (
    CurveView,
    chart_of,
    mark_position,
    nearest_position,
    position_of_point,
)
from DiffTumorSlicerLib.anomaly.results import axis_of, plane_of
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.slice_ranges import position_of, show_slice, slice_at, this_slice
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid

BOTTOM = vtk.vtkAxis.BOTTOM
LOOK_S = 0.1  # how often it is looked which slice is on screen


class ProbabilityGroup:
    """The button "Confidence curve" of the Anomaly panel, and the plot view."""

    def __init__(
        self,
        ui: Any,
        scene: Any,
        chosen: Callable[[], Any],
        say: Callable[[str], None],
        leave_others: Callable[[], None],
    ) -> None:
        """Connect the button.

        Args:
            ui: widgets of the Anomaly panel.
            scene: of the maps.
            chosen: tells the map that is worked on, or None.
            say: shows a sentence to the person.
            leave_others: ends what else has a layout of its own.
        """
        self._ui = ui
        self._scene = scene
        self._chosen = chosen
        self._say = say
        self._leave_others = leave_others
        self._view = CurveView(scene)
        self._plots: list[Any] = []  # plot views that are listened to
        self._tags: list[tuple[Any, int]] = []
        self._next_s = 0.0
        ui.curveButton.connect("toggled(bool)", self._toggle)

    def leave(self) -> None:
        """Give the views back."""
        self._ui.curveButton.checked = False
        self._listen(False)
        self._view.hide()

    def refresh(self) -> None:
        """Show the curve of the map that is chosen now."""
        node = self._chosen()
        if self._view.shown and node is not None and chart_of(node) is not None:
            self._view.choose(chart_of(node))

    def tick(self) -> None:
        """Move the line to the slice on screen; called by the module's timer."""
        if self._ui.curveButton.checked and not self._view.shown:
            self._ui.curveButton.checked = False
        if not self._view.shown or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + LOOK_S
        self._mark()

    def picked(self, series_ids: Any, selections: Any) -> None:
        """Points of the curve were picked with the mouse: the first one counts.

        Args:
            series_ids: vtkStringArray with the nodes of the series.
            selections: vtkCollection with the points of each, vtkIdTypeArray.
        """
        node = self._chosen()
        if node is None:
            return
        for number in range(series_ids.GetNumberOfValues()):
            points = selections.GetItemAsObject(number)
            if points is None or not points.GetNumberOfValues():
                continue
            position = position_of_point(node, series_ids.GetValue(number), points.GetValue(0))
            if position is not None:
                self._go_to(node, position)
                return

    def pressed(self, plot: Any) -> None:
        """The mouse was pressed in a plot: go to the slice there; no point has to be hit exactly."""
        node, interactor = self._chosen(), plot.renderWindow().GetInteractor()
        axis = plot.chart().GetAxis(BOTTOM)
        first, second = axis.GetPoint1()[0], axis.GetPoint2()[0]
        if node is None or second <= first:
            return
        part = (interactor.GetEventPosition()[0] - first) / (second - first)
        low, high = axis.GetUnscaledMinimum(), axis.GetUnscaledMaximum()
        position = nearest_position(node, low + part * (high - low))
        if 0 <= part <= 1 and position is not None:
            self._go_to(node, position)

    def _go_to(self, node: Any, position_mm: float) -> None:
        grid = volume_grid(node)
        index = slice_at(grid, plane_of(node), position_mm)
        show_slice(self._scene, grid, axis_of(node), index)
        self._mark()

    def _mark(self) -> None:
        node = self._chosen()
        if node is None:
            return
        try:
            grid, plane = volume_grid(node), plane_of(node)
            index = this_slice(self._scene, grid, plane)
        except SceneError:
            return  # outside the scan: the line stays where it was
        mark_position(node, position_of(grid, plane, index))

    def _toggle(self, on: bool) -> None:
        node = self._chosen()
        if not on:
            self._listen(False)
            self._view.hide()
            return
        if node is None or chart_of(node) is None:
            return
        self._leave_others()
        if not self._view.show(chart_of(node)):
            self._say(_("There are no views to show the curve in."))
            return
        self._listen(True)
        self._mark()

    def _listen(self, on: bool) -> None:
        """Hear of clicks in the plot views, or do not any more."""
        for plot in self._plots:
            plot.disconnect("dataSelected(vtkStringArray*,vtkCollection*)", self.picked)
        for interactor, tag in self._tags:
            interactor.RemoveObserver(tag)
        self._plots, self._tags = [], []
        manager = slicer.app.layoutManager()
        if not on or manager is None:
            return
        widget = manager.plotWidget(0)
        if widget is not None:
            plot = widget.plotView()
            plot.connect("dataSelected(vtkStringArray*,vtkCollection*)", self.picked)
            self._plots.append(plot)
            # A press picks no point by itself: Slicer's plots tell only of points in a rectangle.
            interactor = plot.renderWindow().GetInteractor()
            event = vtk.vtkCommand.LeftButtonPressEvent
            tag = interactor.AddObserver(event, lambda *_: self.pressed(plot), 1.0)
            self._tags.append((interactor, tag))
