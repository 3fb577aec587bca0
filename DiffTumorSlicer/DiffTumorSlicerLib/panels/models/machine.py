"""On what it computes: the doctor's line, what is missing, the device, and the Python of the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.states import DOCTOR, JobState
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.surroundings import Requirements
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, quietly, say
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.session import Session


class MachineGroup:
    """The upper and lower part of the Models panel."""

    def __init__(
        self,
        ui: Any,
        session: Session,
        requirements: Requirements,
        say_below: Callable[[str], None],
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Models panel.
            session: examines the machine and starts the worker.
            requirements: of the worker.
            say_below: shows a sentence in the panel.
        """
        self._ui = ui
        self._session = session
        self._requirements = requirements
        self._say = say_below
        ui.examineButton.connect("clicked()", self.examine)
        ui.installButton.connect("clicked()", self.install)
        ui.deviceComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_device())
        ui.pythonPath.connect("currentPathChanged(QString)", self._choose_python)
        ui.logButton.connect("clicked()", self.open_log)
        fill_combo(ui.deviceComboBox, _devices(), settings.device())
        with quietly(ui.pythonPath):
            ui.pythonPath.currentPath = settings.python()
        self._line = ""
        self._use_python()

    def examine(self) -> None:
        """Ask the worker what this computer can do."""
        try:
            self._requirements.ensure()
            self._session.examine()
        except SceneError as error:
            self._say(str(error))

    def install(self) -> None:
        """Install what is missing."""
        try:
            self._requirements.ensure()
        except SceneError as error:
            self._say(str(error))
        self.refresh()

    def open_log(self) -> None:
        """Show the worker's log."""
        paths = [state.log_path for state in self._session.states.values() if state.log_path]
        if not paths:
            self._say(_("There is no log yet: nothing has been computed since Slicer was started."))
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(paths[-1]))

    def follow(self, state: JobState) -> None:
        """Show what the doctor says; called by the session."""
        if state.panel != DOCTOR:
            return
        if state.running:
            self._line = _("Examining this computer…")
        elif state.kind != "idle":
            self._line = state.sentence
        self._ui.examineButton.enabled = not state.running
        self.refresh()

    def refresh(self) -> None:
        """Show the line and what is missing; looks anew, so not for every tick."""
        problem = self._requirements.problem()
        unknown = _("Not examined yet. Press Examine to see what this computer can do.")
        self._ui.machineLabel.text = self._line or unknown
        say(self._ui.remedyLabel, problem)
        self._ui.installButton.visible = bool(problem)

    def _choose_device(self) -> None:
        settings.set_device(chosen_of(self._ui.deviceComboBox))

    def _choose_python(self, path: str) -> None:
        """Let another Python compute, from the next job on; a path that is still being typed is none."""
        if path == settings.python() or (path and not Path(path).is_file()):
            return
        settings.set_python(path)
        self._line = ""
        self._use_python()
        self.refresh()

    def _use_python(self) -> None:
        """Let the chosen Python compute, if it does not do so already."""
        python = self._requirements.python()
        if python == self._session.host.python:
            return
        try:
            self._session.set_host(replace(self._session.host, python=python))
        except SceneError as error:
            self._say(str(error))


def _devices() -> dict[str, str]:
    return {
        "auto": _("Automatic (graphics card if it works)"),
        "cuda": _("NVIDIA graphics card (CUDA)"),
        "mps": _("Apple graphics (MPS)"),
        "cpu": _("CPU (works everywhere, slower)"),
    }
