"""Images of a reader study on their way from the package to the scene: read ahead, shown without a copy.

A thread reads and knows nothing of MRML. The one volume node keeps nothing of a case but its voxels: it has a neutral
name, no file, no attribute, and is neither saved with the scene nor listed by other modules.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from difftumor.reader_study.case_files import CaseImage, read_case
from difftumor.reader_study.study import StudyError
from DiffTumorSlicerLib.scene.geometry import to_vtk
from DiffTumorSlicerLib.scene.volume_nodes import remove_node
from DiffTumorSlicerLib.translation import tr as _

NAME = "Case"


class CaseLoader:
    """Reads the case that is wanted, and the next one while that is looked at; keeps no more than two."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[
            Path, str
        ] = {}  # with the checksum, in the order in which they are needed
        self._read: dict[Path, CaseImage | StudyError] = {}
        self._thread: threading.Thread | None = None

    def want(self, *cases: tuple[Path, str]) -> None:
        """Read these cases, (path, SHA-256 or ""), the first one first; forget all others."""
        with self._lock:
            self._wanted = dict(cases)
            self._read = {path: seen for path, seen in self._read.items() if path in self._wanted}
        self._go_on()

    def take(self, path: Path) -> CaseImage | None:
        """A wanted case, or None while it is still being read.

        Raises:
            StudyError: it cannot be read; it is tried again when it is wanted the next time.
        """
        with self._lock:
            seen = self._read.get(path)
            if isinstance(seen, StudyError):
                del self._read[path]
                self._wanted.pop(path, None)
                raise seen
        return seen

    def forget(self) -> None:
        """Let go of all images."""
        self.want()

    def _go_on(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="case loader", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                left = [item for item in self._wanted.items() if item[0] not in self._read]
                if not left:
                    self._thread = None  # under the lock: whoever wants more starts another one
                    return
            path, sha256 = left[0]
            try:
                seen: CaseImage | StudyError = read_case(path, sha256)
            except StudyError as error:
                seen = error
            except MemoryError:
                seen = StudyError(
                    _(
                        "The memory of this computer is not enough for the next case. Close other programs, and "
                        "go on; the answers so far are stored."
                    )
                )
            with self._lock:
                if path in self._wanted:
                    self._read[path] = seen


class CaseNode:
    """The volume node that shows one case after the other."""

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._node_id = ""

    @property
    def node(self) -> Any:
        """The volume node; None if there is none."""
        return self._scene.GetNodeByID(self._node_id) if self._node_id else None

    def show(self, case: CaseImage, window_hu: tuple[float, float]) -> Any:
        """Put a case into the node, with the window that every case begins with.  Returns: the node."""
        node = self.node or self._add()
        image = vtk.vtkImageData()
        image.SetDimensions(*case.array.shape)
        flat = np.ravel(case.array, order="F")  # a view: VTK's order is the file's
        image.GetPointData().SetScalars(numpy_to_vtk(flat, deep=False))
        modified = node.StartModify()
        node.SetIJKToRASMatrix(to_vtk(case.affine))
        node.SetAndObserveImageData(image)
        self.reset_window(window_hu)
        node.EndModify(modified)
        return node

    def reset_window(self, window_hu: tuple[float, float]) -> None:
        """Back to the window that every case begins with."""
        display = self.node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*window_hu)

    def window(self) -> tuple[float, float]:
        """Width and level of the display now, HU."""
        display = self.node.GetDisplayNode()
        return float(display.GetWindow()), float(display.GetLevel())

    def remove(self) -> None:
        """Take node and voxels out of the scene."""
        node, self._node_id = self.node, ""
        if node is not None:
            node.SetAndObserveImageData(None)
            remove_node(self._scene, node)

    def _add(self) -> Any:
        display = slicer.vtkMRMLScalarVolumeDisplayNode()
        node = slicer.vtkMRMLScalarVolumeNode()
        for one in (display, node):  # before they are in the scene, so that nobody lists them
            one.SetName(NAME)
            one.SetSaveWithScene(False)
            one.SetHideFromEditors(True)
        self._scene.AddNode(display)
        display.SetDefaultColorMap()
        self._scene.AddNode(node)
        node.SetAndObserveDisplayNodeID(display.GetID())
        self._node_id = node.GetID()
        return node
