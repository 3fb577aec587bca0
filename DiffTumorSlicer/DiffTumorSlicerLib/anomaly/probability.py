"""The probability of disease for each slice of a heat map, as a curve. MRML only.

A table, the series of the curve, and a chart that Slicer's plot view shows; where the views are is a second
series. All are saved with the scene and found again from the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk

from DiffTumorSlicerLib.scene.slice_ranges import AXES
from DiffTumorSlicerLib.scene.volume_nodes import place_beside, remove_node

# In saved scenes the probability is called confidence.
CHART_ROLE = "DiffTumor.Confidence"
TABLE_ROLE = "DiffTumor.ConfidenceTable"
HERE_ROLE = "DiffTumor.ConfidenceHere"
SERIES_ROLE = "DiffTumor.ConfidenceSeries"  # all that the chart shows, for removing them again
POSITION, PROBABILITY, LIMIT = "Position", "Probability", "Limit"
# Blue and orange of Okabe and Ito (2008), told apart with any color vision, on light and dark.
CURVE, HERE, GRAY = (0.0, 0.45, 0.70), (0.90, 0.62, 0.0), (0.5, 0.5, 0.5)
PLOT_LAYOUT = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
WITH_PLOT = {
    slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView: slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView,
}


def add_curve(
    scene: Any, map_node: Any, slices: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> None:
    """Add the curve of a map, or replace the one that it has.

    Args:
        scene: of the map.
        map_node: what the slices belong to.
        slices: each with `position_mm` and `probability`.
        facts: `axis` (0, 1, 2 for R, A, S: along which the positions are) and `limit` (least probability of a
            slice that is marked, or None).
    """
    remove_curve(scene, map_node)
    name = map_node.GetName()
    table = _table(scene, f"{name} confidence")
    here = _table(scene, f"{name} position of the views")
    _fill(
        table,
        {
            POSITION: [float(one["position_mm"]) for one in slices],
            PROBABILITY: [float(one["probability"]) for one in slices],
            LIMIT: [float(facts.get("limit") or 0.0) for _ in slices],
        },
    )
    first = float(slices[0]["position_mm"]) if slices else 0.0
    _fill(here, {POSITION: [first, first], PROBABILITY: [0.0, 1.0]})
    series = [_series(scene, "Probability of disease", table, PROBABILITY, CURVE)]
    if facts.get("limit"):
        series.append(_series(scene, "Limit of a mark", table, LIMIT, GRAY, dashed=True))
    series.append(_series(scene, "Slice on screen", here, PROBABILITY, HERE, markers=False))
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{name} confidence")
    chart.SetTitle("Confidence of the classifier")
    # In words, as a legend would lie over the curve.
    limit = ", dashed: limit of a mark" if facts.get("limit") else ""
    chart.SetXAxisTitle(f"Slice, mm {AXES[facts['axis']]} (orange: on screen{limit})")
    chart.SetYAxisTitle("Probability of disease")
    chart.SetTitleFontSize(14)
    chart.SetAxisTitleFontSize(13)
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.02)
    chart.SetLegendVisibility(False)
    chart.SetGridVisibility(True)
    for one in series:
        chart.AddAndObservePlotSeriesNodeID(one.GetID())
        map_node.AddNodeReferenceID(SERIES_ROLE, one.GetID())
    map_node.SetNodeReferenceID(CHART_ROLE, chart.GetID())
    map_node.SetNodeReferenceID(TABLE_ROLE, table.GetID())
    map_node.SetNodeReferenceID(HERE_ROLE, here.GetID())
    for node in (table, chart):
        place_beside(scene, node, map_node)


def remove_curve(scene: Any, map_node: Any) -> None:
    """Remove the curve of a map with its table."""
    nodes = [map_node.GetNodeReference(role) for role in (CHART_ROLE, TABLE_ROLE, HERE_ROLE)]
    count = map_node.GetNumberOfNodeReferences(SERIES_ROLE)
    nodes += [map_node.GetNthNodeReference(SERIES_ROLE, n) for n in range(count)]
    map_node.RemoveNodeReferenceIDs(SERIES_ROLE)
    for node in nodes:
        if node is not None:
            remove_node(scene, node)


def chart_of(map_node: Any) -> Any | None:
    """The chart of a map, if it is still in the scene."""
    return map_node.GetNodeReference(CHART_ROLE)


def position_of_point(map_node: Any, series_id: str, point: int) -> float | None:
    """Position in mm of the slice that a point of the curve stands for; None for another series."""
    positions = positions_of(map_node)
    series = map_node.GetNthNodeReference(SERIES_ROLE, 0)
    if series is None or series.GetID() != series_id or not 0 <= point < len(positions):
        return None
    return positions[point]


def nearest_position(map_node: Any, position_mm: float) -> float | None:
    """Position in mm of the slice of a map that is nearest to a place on the curve's axis."""
    positions = positions_of(map_node)
    return min(positions, key=lambda one: abs(one - position_mm), default=None)


def positions_of(map_node: Any) -> list[float]:
    """Positions in mm of the slices of a map, as its table holds them."""
    table = map_node.GetNodeReference(TABLE_ROLE)
    column = table.GetTable().GetColumnByName(POSITION) if table is not None else None
    if column is None:
        return []
    return [float(column.GetValue(row)) for row in range(column.GetNumberOfTuples())]


def mark_position(map_node: Any, position_mm: float) -> None:
    """Move the line of the slice on screen; nothing happens while it is there already."""
    here = map_node.GetNodeReference(HERE_ROLE)
    column = here.GetTable().GetColumnByName(POSITION) if here is not None else None
    if column is None or abs(column.GetValue(0) - position_mm) < 1e-3:
        return
    for row in range(column.GetNumberOfTuples()):
        column.SetValue(row, position_mm)
    here.GetTable().Modified()
    here.Modified()


class CurveView:
    """Slicer's plot view with the curve of a map in place of a 3-D view; the person's layout comes back."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._before: int | None = None
        self._layout_id = 0

    @property
    def shown(self) -> bool:
        """Whether the plot is on screen; a layout that the person chose ends that."""
        layout = self._layout()
        return (
            self._before is not None
            and layout is not None
            and layout.GetViewArrangement() == self._layout_id
        )

    def show(self, chart: Any) -> bool:
        """Show a chart.  Returns: False without views."""
        layout = self._layout()
        if layout is None:
            return False
        if not self.shown:
            self._before = layout.GetViewArrangement()
            self._layout_id = WITH_PLOT.get(self._before, PLOT_LAYOUT)
            layout.SetViewArrangement(self._layout_id)
        self.choose(chart)
        return True

    def choose(self, chart: Any) -> None:
        """Show another chart in the plot views."""
        name = "vtkMRMLPlotViewNode"
        for index in range(self._scene.GetNumberOfNodesByClass(name)):
            node = self._scene.GetNthNodeByClass(index, name)
            if node.GetPlotChartNodeID() != chart.GetID():
                node.SetPlotChartNodeID(chart.GetID())
        selection = self._scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        if selection is not None:
            selection.SetActivePlotChartID(chart.GetID())

    def hide(self) -> None:
        """Bring back the layout that the person had."""
        layout = self._layout()
        if self.shown and self._before is not None:
            layout.SetViewArrangement(self._before)
        self._before = None

    def _layout(self) -> Any:
        return self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def _table(scene: Any, name: str) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    return node


def _fill(table: Any, columns: dict[str, list[float]]) -> None:
    for name, values in columns.items():
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for value in values:
            column.InsertNextValue(value)
        table.AddColumn(column)


def _series(
    scene: Any,
    name: str,
    table: Any,
    column: str,
    color: tuple[float, float, float],
    *,
    dashed: bool = False,
    markers: bool = True,
) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetXColumnName(POSITION)
    node.SetYColumnName(column)
    node.SetPlotType(node.PlotTypeScatter)
    node.SetColor(*color)
    node.SetLineStyle(node.LineStyleDash if dashed else node.LineStyleSolid)
    node.SetLineWidth(2)
    points = markers and not dashed
    node.SetMarkerStyle(node.MarkerStyleCircle if points else node.MarkerStyleNone)
    node.SetMarkerSize(8)
    return node
