"""Heat maps over the scan: colors, threshold, opacity, legend.  MRML only, nothing is computed.

The tables grow evenly in brightness, so they read the same with any color vision and in a gray print
(Nuñez et al. 2018 for cividis; van der Walt and Smith 2015 for the others). They are nodes of the scene, saved
with it: Slicer's own tables of these names lie in files that a scene opened elsewhere may lack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from DiffTumorSlicerLib.scene.comparing import user_composites

# Every sixteenth color of matplotlib's tables (CC0), the last one included; linear between them.
TABLES = {
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 "
    "fcac11 f9cb35 f2ea69 fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 "
    "84d44b addc30 d8e219 fde725",
    "cividis": "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c "
    "cdbb63 dec958 f0d846 fee838",
}
COLORS = "DiffTumor.Colors"  # attribute of a color node of ours: the name of its table
ENTRIES = 256
TOP = 1e9  # no upper threshold


def color_node(scene: Any, table: str) -> Any:
    """The color node of one of `TABLES`, made at its first use in a scene."""
    name = "vtkMRMLColorTableNode"
    for index in range(scene.GetNumberOfNodesByClass(name)):
        node = scene.GetNthNodeByClass(index, name)
        if node.GetAttribute(COLORS) == table:
            return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(f"Heat map ({table})")
    node.SetTypeToUser()
    node.SetAttribute("Category", "DiffTumor")
    node.SetAttribute(COLORS, table)
    fill(node, colors_of(table))
    return scene.AddNode(node)


def colors_of(table: str) -> np.ndarray:
    """(256, 3) of a table, 0 to 1."""
    points = np.array([list(bytes.fromhex(color)) for color in TABLES[table].split()]) / 255
    at = np.linspace(0, len(points) - 1, ENTRIES)
    return np.stack([np.interp(at, range(len(points)), points[:, c]) for c in range(3)], axis=1)


def fill(node: Any, colors: np.ndarray) -> None:
    """Write colors (n, 3) into a color table node."""
    node.SetNumberOfColors(len(colors))
    lookup = vtk.vtkLookupTable()
    lookup.SetNumberOfTableValues(len(colors))
    lookup.SetRange(0, len(colors) - 1)
    for index, color in enumerate(colors):
        lookup.SetTableValue(index, *color, 1.0)
    node.SetAndObserveLookupTable(lookup)
    node.SetNamesFromColors()


def style_map(scene: Any, node: Any, table: str, threshold: float, brightest: float = 1.0) -> None:
    """Give a map, scaled to 0 to 1, its colors and its threshold; `brightest` and above get the last color."""
    display = node.GetDisplayNode()
    if display is None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
    colors = color_node(scene, table)
    changed = display.StartModify()
    if display.GetColorNodeID() != colors.GetID():
        display.SetAndObserveColorNodeID(colors.GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, brightest)
    display.SetInterpolate(True)
    display.SetAutoThreshold(False)
    # Exactly 0 is where nothing was computed: never shown.
    display.SetThreshold(max(threshold, 1e-6), TOP)
    display.SetApplyThreshold(True)
    display.EndModify(changed)


def show_map(scene: Any, node: Any, scan: Any, opacity: float) -> None:
    """Lay a map over its scan in the person's slice views.

    Args:
        scene: of the views.
        node: the map.
        scan: what it was made of; views that show something else are left alone, unless none shows the scan.
        opacity: 0 to 1.
    """
    views = user_composites(scene)
    showing = [c for c in views if c.GetBackgroundVolumeID() == scan.GetID()]
    for composite in showing or views:
        if not showing:
            composite.SetBackgroundVolumeID(scan.GetID())
        if composite.GetForegroundVolumeID() != node.GetID():
            composite.SetForegroundVolumeID(node.GetID())
        if composite.GetForegroundOpacity() != opacity:
            composite.SetForegroundOpacity(opacity)


def hide_map(scene: Any, node_id: str) -> None:
    """Take a map out of the person's slice views."""
    for composite in user_composites(scene):
        if node_id and composite.GetForegroundVolumeID() == node_id:
            composite.SetForegroundVolumeID(None)


def is_shown(scene: Any, node: Any) -> bool:
    """Whether a slice view of the person shows a map."""
    return any(c.GetForegroundVolumeID() == node.GetID() for c in user_composites(scene))


def has_legend(node: Any) -> bool:
    """Whether the legend of a map is on screen."""
    legend = _legend_of(node)
    return legend is not None and bool(legend.GetVisibility())


def show_legend(node: Any, visible: bool, title: str) -> None:
    """Show or hide the legend of a map beside the slices."""
    legend = _legend_of(node)
    if legend is None:
        if not visible or node.GetDisplayNode() is None:
            return
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node.GetDisplayNode())
        if legend is None:
            return
        legend.SetNumberOfLabels(5)
        legend.SetLabelFormat("%.2f")
    legend.SetTitleText(title)
    legend.SetVisibility(visible)


def _legend_of(node: Any) -> Any:
    display = node.GetDisplayNode()
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(display) if display else None
