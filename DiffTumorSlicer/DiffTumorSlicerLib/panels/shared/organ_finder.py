"""The way to TotalSegmentator and back, for organs that are not outlined yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.panels.shared.widgets import switch_to_module


class OrganFinder:
    """Opens TotalSegmentator with a scan; afterwards tells which segmentation is new."""

    def __init__(self, scene: Any, say: Callable[[str], None]) -> None:
        self._scene = scene
        self._say = say
        self._awaiting: list[str] | None = None  # segmentations before TotalSegmentator was opened

    def open(self, volume: Any) -> None:
        """Open TotalSegmentator with this scan, or say how to get it."""
        if volume is None:
            self._say(_("Choose a scan in the section Volumes first."))
            return
        module = getattr(slicer.modules, "totalsegmentator", None)
        if module is None:
            self._say(
                _(
                    "TotalSegmentator is not installed in this Slicer. Open View > Extensions Manager, "
                    "install “TotalSegmentator”, and restart Slicer. Or outline the organ yourself in "
                    "the module Segment Editor."
                )
            )
            return
        self._awaiting = self._segmentations()
        switch_to_module(module.name)
        selector = slicer.util.findChildren(module.widgetRepresentation(), "inputVolumeSelector")
        if selector:
            selector[0].setCurrentNode(volume)
        self._say(
            _(
                "TotalSegmentator has your scan. Press Apply there and come back to this module when it is "
                "done; the organ is then chosen here."
            )
        )

    def found(self) -> Any | None:
        """The segmentation that has come since `open`, once; None if none has."""
        if self._awaiting is None:
            return None
        new = [node_id for node_id in self._segmentations() if node_id not in self._awaiting]
        if not new:
            return None
        self._awaiting = None
        return self._scene.GetNodeByID(new[-1])

    def _segmentations(self) -> list[str]:
        """In the order in which they came."""
        name = "vtkMRMLSegmentationNode"
        count = self._scene.GetNumberOfNodesByClass(name)
        return [self._scene.GetNthNodeByClass(n, name).GetID() for n in range(count)]
