"""What every panel stands in, and how its .ui gets there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import slicer

from DiffTumorSlicerLib.panels.shared.field_widgets import describe
from DiffTumorSlicerLib.session import Session


class Requirements(Protocol):
    """What the panels need to know of the worker's Python (`environment.WorkerPython`)."""

    def problem(self) -> str:
        """What is missing, with the remedy; "" if nothing is."""

    def ensure(self) -> None:
        """Install what is missing, after asking.  Raises: SceneError: something stays missing."""

    def python(self) -> str | None:
        """The interpreter of the worker; None for the running one."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a panel is given.

    Attributes:
        section: where it goes, a ctkCollapsibleButton.
        ui_folder: with the .ui files.
        scene: the MRML scene.
        session: starts jobs and tells of them.
        requirements: of the worker's Python.
    """

    section: Any
    ui_folder: Path
    scene: Any
    session: Session
    requirements: Requirements

    def load(self, name: str) -> tuple[Any, Any]:
        """Load a panel's .ui into its section.

        Args:
            name: of the file, without .ui.

        Returns:
            the panel's widget, and an object with the widgets in it by name.
        """
        widget = slicer.util.loadUI(str(self.ui_folder / f"{name}.ui"))
        self.section.layout().addWidget(widget)
        widget.setMRMLScene(self.scene)
        ui = slicer.util.childWidgetVariables(widget)
        describe(name, ui)
        return widget, ui
