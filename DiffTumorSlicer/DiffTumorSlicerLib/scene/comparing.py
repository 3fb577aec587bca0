"""Images side by side in linked views, and before and after in turn in the same views.  MRML only.

The views of the user are left as they were: side by side uses a layout and slice views of its own, and
blinking puts back what each view showed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

LAYOUT_IDS = {2: 5702, 3: 5703}  # ids of ours; Slicer's own layouts are below 500
VIEW_GROUP = 57  # linked among themselves and with no view of the user
OWN_VIEWS = "DiffTumor"  # how the names of our slice views begin
BLINK_S = 0.6
FIELD_MM = 160.0

Point = tuple[float, float, float]
# Title, volume node, and where there is one: what lies over it, and how opaque that is.
Pane = tuple[str, Any] | tuple[str, Any, Any, float]


class SideBySide:
    """Two or three volumes beside each other, in views of one plane that scroll and zoom together."""

    def __init__(
        self, scene: Any, views: str = OWN_VIEWS, layouts: dict[int, int] | None = None
    ) -> None:
        """Nothing is shown yet.

        Args:
            scene: of the views.
            views: how the names of the views begin; a view keeps the title that it was made with, so what
                has other titles needs other views. It begins with `OWN_VIEWS` itself.
            layouts: number of panes -> id of the layout.
        """
        self._scene = scene
        self._views, self._layouts = views, layouts or LAYOUT_IDS
        self._before: int | None = None  # the user's layout
        self._panes: list[tuple[str, str, str, float]] = []  # view, ids of volume and overlay
        self._orientation, self._field_mm, self._width_mm = "Axial", FIELD_MM, 0.0
        self._center: Point | None = None
        self._restless = 0

    @property
    def shown(self) -> bool:
        """Whether the views of ours are on screen; a layout that the user chose ends that."""
        layout = self._layout()
        return (
            bool(self._panes)
            and layout is not None
            and layout.GetViewArrangement() in self._layouts.values()
        )

    def show(
        self,
        panes: Sequence[Pane],
        center: Point | None,
        orientation: str = "Axial",
        field_mm: float = FIELD_MM,
        width_mm: float = 0.0,
    ) -> None:
        """Show volumes side by side.

        Args:
            panes: two or three of (title, volume node).
            center: what the views are centered on, RAS mm; None leaves them in the middle.
            orientation: of the views, as Slicer names it.
            field_mm: height of the views.
            width_mm: what they show at least from side to side; narrow views are higher then.
        """
        layout = self._layout()
        if layout is None:
            return
        number = self._layouts[len(panes)]
        if layout.GetViewArrangement() not in self._layouts.values():
            self._before = layout.GetViewArrangement()
        # A view keeps the title that it was made with, so each layout has views of its own.
        views = [f"{self._views}{len(panes)}{letter}" for letter in "ABC"[: len(panes)]]
        titles = [pane[0] for pane in panes]
        description = layout_description(views, titles)
        if layout.IsLayoutDescription(number):
            layout.SetLayoutDescription(number, description)
        else:
            layout.AddLayoutDescription(number, description)
        layout.SetViewArrangement(number)
        self._panes = []
        for view, (_title, node, *over) in zip(views, panes, strict=True):
            overlay, opacity = (over[0].GetID(), over[1]) if over else ("", 0.0)
            self._panes.append((view, node.GetID(), overlay, opacity))
        self._center, self._orientation = center, orientation
        self._field_mm, self._width_mm = field_mm, width_mm
        self._restless = 3
        self.settle()

    def settle(self) -> None:
        """Fill the views; called again for some turns of the event loop, as they get their size late."""
        if not self._restless:
            return
        self._restless -= 1
        for view, node_id, overlay, opacity in self._panes:
            composite = composite_of(self._scene, view)
            slice_node = self._scene.GetNodeByID(f"vtkMRMLSliceNode{view}")
            if composite is None or slice_node is None or self._scene.GetNodeByID(node_id) is None:
                continue
            composite.SetLinkedControl(1)
            composite.SetHotLinkedControl(1)
            composite.SetBackgroundVolumeID(node_id)
            composite.SetForegroundVolumeID(overlay or None)
            composite.SetForegroundOpacity(opacity)
            if slice_node.GetOrientation() != self._orientation:
                slice_node.SetOrientation(self._orientation)
            if self._center is None:
                continue
            wide, high = slice_node.GetDimensions()[:2]
            depth = slice_node.GetFieldOfView()[2]
            pixel = max(self._field_mm / max(high, 1), self._width_mm / max(wide, 1))
            slice_node.SetFieldOfView(pixel * wide, pixel * high, depth)
            slice_node.SetXYZOrigin(0, 0, 0)
            slice_node.JumpSliceByCentering(*self._center)

    def hide(self) -> None:
        """Bring back the layout that the user had."""
        layout = self._layout()
        if self.shown and self._before is not None:
            layout.SetViewArrangement(self._before)
        self._panes = []
        self._restless = 0

    def _layout(self) -> Any:
        return self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


class Blink:
    """Before and after in turn, in every view that shows one of them."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._views: dict[str, str] = {}  # composite node, what it showed
        self._ids: tuple[str, str] = ("", "")
        self._next_s = 0.0
        self._after = True

    @property
    def running(self) -> bool:
        """Whether the views change by themselves."""
        return bool(self._views)

    def start(self, before: Any, after: Any, now_s: float) -> None:
        """Begin; if no view shows one of the two, all views take part."""
        self.stop()
        self._ids = (before.GetID(), after.GetID())
        composites = user_composites(self._scene)
        showing = [c for c in composites if c.GetBackgroundVolumeID() in self._ids] or composites
        self._views = {c.GetID(): c.GetBackgroundVolumeID() or "" for c in showing}
        self._after = False
        self._show()
        self._next_s = now_s + BLINK_S

    def tick(self, now_s: float) -> None:
        """Change the picture when it is time; ends when one of the two volumes is gone."""
        if not self._views:
            return
        if any(self._scene.GetNodeByID(node_id) is None for node_id in self._ids):
            self.stop()
        elif now_s >= self._next_s:
            self._after = not self._after
            self._show()
            self._next_s = now_s + BLINK_S

    def stop(self) -> None:
        """End, and let each view show what it showed before."""
        views, self._views = self._views, {}
        for composite_id, volume_id in views.items():
            composite = self._scene.GetNodeByID(composite_id)
            if composite is not None and (not volume_id or self._scene.GetNodeByID(volume_id)):
                composite.SetBackgroundVolumeID(volume_id or None)

    def _show(self) -> None:
        for composite_id in self._views:
            composite = self._scene.GetNodeByID(composite_id)
            if composite is not None:
                composite.SetBackgroundVolumeID(self._ids[1 if self._after else 0])


def show_volume(scene: Any, node: Any, instead_of: set[str] | None = None) -> None:
    """Show a volume in the person's slice views, with the zoom and the slice that they have.

    Args:
        scene: of the views.
        node: the volume.
        instead_of: ids of volumes whose place it takes; where no view shows one of them, and with None,
            every view shows it.
    """
    views = user_composites(scene)
    showing = [c for c in views if instead_of and c.GetBackgroundVolumeID() in instead_of]
    for composite in showing or views:
        composite.SetBackgroundVolumeID(node.GetID())


def user_composites(scene: Any) -> list[Any]:
    """Nodes that say what the slice views show, those of our own layouts left out."""
    name = "vtkMRMLSliceCompositeNode"
    found = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    return [node for node in found if not (node.GetLayoutName() or "").startswith(OWN_VIEWS)]


def composite_of(scene: Any, view: str) -> Any:
    """What the slice view of this layout name shows; None if there is no such view."""
    name = "vtkMRMLSliceCompositeNode"
    found = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    return next((node for node in found if node.GetLayoutName() == view), None)


def layout_description(views: list[str], titles: list[str]) -> str:
    """XML of a row of axial slice views, as Slicer's layout manager reads it."""
    items = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag={quoteattr(view)}>'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{_plain(title)}</property>'
        f'<property name="viewgroup" action="default">{VIEW_GROUP}</property>'
        "</view></item>"
        for view, title in zip(views, titles, strict=True)
    )
    return f'<layout type="horizontal" split="true">{items}</layout>'


def _plain(title: str) -> str:
    """A title that is safe inside XML."""
    return title.replace("&", "and").replace("<", "").replace(">", "")
