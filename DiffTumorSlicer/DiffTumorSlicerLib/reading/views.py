"""The views in which a reader looks at a case: one plane large, two beside it, the same start for all.  MRML only.

The layout and its slice views are our own, so the person's views keep what they show. Nothing in them is saved with
the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from DiffTumorSlicerLib.scene.comparing import OWN_VIEWS, composite_of
from DiffTumorSlicerLib.scene.volume_nodes import own_affine, volume_array

LAYOUT_ID = 5710  # ours; Slicer's own layouts are below 500
VIEW_GROUP = 58  # linked with no view of the person
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")  # also the ends of the views' names
VIEWS = tuple(f"{OWN_VIEWS}Reading{orientation}" for orientation in ORIENTATIONS)
NORMALS = {"Axial": 2, "Coronal": 1, "Sagittal": 0}  # axis of RAS across the plane
MARGIN = 1.02  # of the field of view around the scan
SETTLING_TURNS = 8  # of the timer: views get their size late


@dataclass(frozen=True)
class Seen:
    """What has been looked at since a case was shown.

    Attributes:
        planes: in which slices were scrolled, "axial" first.
        axial_mm: lowest and highest axial slice, mm along S.
    """

    planes: tuple[str, ...]
    axial_mm: tuple[float, float]


class ReadingViews:
    """The layout of the reading, and the layout, crosshair and mouse mode that the person had."""

    def __init__(self, scene: Any) -> None:
        """Nothing is shown yet."""
        self._scene = scene
        self._before: dict[str, int] | None = None
        self._volume_id = ""
        self._start_ras = (0.0, 0.0, 0.0)
        self._settling = 0
        self._sizes: tuple[tuple[int, int], ...] = ()
        self._seen: dict[str, tuple[float, float]] = {}

    @property
    def open(self) -> bool:
        """Whether the reading's layout was put on screen."""
        return self._before is not None

    @property
    def disturbed(self) -> bool:
        """Whether somebody has chosen another layout since."""
        layout = self._layout()
        return self.open and layout is not None and layout.GetViewArrangement() != LAYOUT_ID

    def enter(self) -> None:
        """Put empty views on screen, hide the crosshair, and let a drag of the mouse change the window."""
        if self.open:
            return
        layout, crosshair, mouse = self._layout(), self._crosshair(), self._interaction()
        self._before = {}
        if crosshair is not None:
            self._before["crosshair"] = crosshair.GetCrosshairMode()
            crosshair.SetCrosshairMode(crosshair.NoCrosshair)
        if mouse is not None:
            self._before["mouse"] = mouse.GetCurrentInteractionMode()
            mouse.SetCurrentInteractionMode(mouse.AdjustWindowLevel)
        if layout is not None:
            self._before["layout"] = layout.GetViewArrangement()
            self._before["saved"] = layout.GetSaveWithScene()
            layout.SetSaveWithScene(
                False
            )  # a scene that a script saves now does not ask for our views
            if layout.IsLayoutDescription(LAYOUT_ID):
                layout.SetLayoutDescription(LAYOUT_ID, _description())
            else:
                layout.AddLayoutDescription(LAYOUT_ID, _description())
            layout.SetViewArrangement(LAYOUT_ID)
        self._settling = SETTLING_TURNS
        self.blank()

    def leave(self) -> None:
        """Bring back what the person had."""
        if self._before is None:
            return
        self.blank()
        before, self._before = self._before, None
        layout, crosshair, mouse = self._layout(), self._crosshair(), self._interaction()
        if layout is not None and "layout" in before:
            layout.SetSaveWithScene(before["saved"])
            if layout.GetViewArrangement() == LAYOUT_ID:
                layout.SetViewArrangement(before["layout"])
        if crosshair is not None and "crosshair" in before:
            crosshair.SetCrosshairMode(before["crosshair"])
        if mouse is not None and "mouse" in before:
            mouse.SetCurrentInteractionMode(before["mouse"])

    def show(self, volume: Any, start_ras: tuple[float, float, float]) -> None:
        """Show a case as every case begins, whatever the one before was looked at with.

        Args:
            volume: the case; all of it fits into the views.
            start_ras: where the three slices meet, RAS mm.
        """
        self._volume_id, self._start_ras = volume.GetID(), start_ras
        self.restart()
        self._seen = {}
        self.watch()

    def blank(self) -> None:
        """Show nothing."""
        self._volume_id = ""
        for composite, slice_node in self._nodes():
            for node in (composite, slice_node):
                node.SetSaveWithScene(False)
            composite.SetBackgroundVolumeID(None)

    def settle(self) -> None:
        """Bring the views to their start until they have their size; called by the timer, cheap afterwards."""
        if not self.open or not self._settling:
            return
        nodes = self._nodes()
        sizes = tuple(slice_node.GetDimensions()[:2] for _, slice_node in nodes)
        self._settling = SETTLING_TURNS if sizes != self._sizes else self._settling - 1
        self._sizes = sizes
        volume = self._scene.GetNodeByID(self._volume_id) if self._volume_id else None
        box = _bounds(volume) if volume is not None else None
        for composite, slice_node in nodes:
            for node in (composite, slice_node):
                node.SetSaveWithScene(False)
            # Where left and right are, and how large things are; that is the same for all cases.
            slice_node.SetOrientationMarkerType(slice_node.OrientationMarkerTypeAxes)
            slice_node.SetOrientationMarkerSize(slice_node.OrientationMarkerSizeSmall)
            slice_node.SetRulerType(slice_node.RulerTypeThin)
            composite.SetLinkedControl(0)
            composite.SetHotLinkedControl(0)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            composite.SetBackgroundVolumeID(self._volume_id or None)
            if box is not None:
                _start(slice_node, *box, self._start_ras)

    def restart(self) -> None:
        """Bring the views back to where the case began; what was looked at stays noted."""
        self._settling = max(self._settling, 1)
        self.settle()

    def watch(self) -> None:
        """Note which slices are on screen; called by the timer."""
        if not self._volume_id:
            return
        for _, slice_node in self._nodes():
            offset = float(slice_node.GetSliceOffset())
            low, high = self._seen.get(slice_node.GetLayoutName(), (offset, offset))
            self._seen[slice_node.GetLayoutName()] = (min(low, offset), max(high, offset))

    @property
    def seen(self) -> Seen:
        """What has been looked at since the case was shown."""
        axial, *others = VIEWS
        scrolled = [view for view in others if len(set(self._seen.get(view, ()))) > 1]
        planes = [ORIENTATIONS[VIEWS.index(view)].lower() for view in (axial, *scrolled)]
        return Seen(tuple(planes), self._seen.get(axial, (0.0, 0.0)))

    def _nodes(self) -> list[tuple[Any, Any]]:
        """(composite, slice node) of each of our views that exists."""
        found = []
        for view in VIEWS:
            composite = composite_of(self._scene, view)
            slice_node = self._scene.GetNodeByID(f"vtkMRMLSliceNode{view}")
            if composite is not None and slice_node is not None:
                found.append((composite, slice_node))
        return found

    def _layout(self) -> Any:
        return self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")

    def _crosshair(self) -> Any:
        return self._scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")

    def _interaction(self) -> Any:
        return self._scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")


def _bounds(volume: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Box of a volume's voxels along the patient's axes, RAS mm."""
    shape, affine = volume_array(volume).shape, own_affine(volume)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1)
    points = affine[:3, :3] @ corners + affine[:3, 3:]
    return points.min(axis=1), points.max(axis=1)


def _start(
    slice_node: Any,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    start_ras: tuple[float, float, float],
) -> None:
    """The slice through a place, with the whole scan in the view."""
    orientation = ORIENTATIONS[VIEWS.index(slice_node.GetLayoutName())]
    if slice_node.GetOrientation() != orientation:
        slice_node.SetOrientation(orientation)
    middle, sides = (low + high) / 2, high - low
    normal = NORMALS[orientation]
    across, up = [axis for axis in range(3) if axis != normal]
    middle[normal] = start_ras[normal]
    wide, tall = (max(n, 1) for n in slice_node.GetDimensions()[:2])
    field = MARGIN * max(sides[across] / wide, sides[up] / tall)  # mm in a pixel
    slice_node.SetFieldOfView(field * wide, field * tall, slice_node.GetFieldOfView()[2])
    slice_node.SetXYZOrigin(0, 0, 0)
    slice_node.JumpSliceByCentering(*middle)


def _description() -> str:
    """XML of the layout, as Slicer's layout manager reads it: axial large, the others one above the other."""
    axial, *others = [
        f'<view class="vtkMRMLSliceNode" singletontag="{view}">'
        f'<property name="orientation" action="default">{orientation}</property>'
        f'<property name="viewlabel" action="default">{orientation}</property>'
        f'<property name="viewgroup" action="default">{VIEW_GROUP}</property></view>'
        for view, orientation in zip(VIEWS, ORIENTATIONS, strict=True)
    ]
    column = "".join(f'<item splitSize="500">{view}</item>' for view in others)
    return (
        '<layout type="horizontal" split="true">'
        f'<item splitSize="640">{axial}</item>'
        f'<item splitSize="360"><layout type="vertical" split="true">{column}</layout></item>'
        "</layout>"
    )
