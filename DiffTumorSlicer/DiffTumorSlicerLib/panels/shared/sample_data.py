"""Phantoms in Slicer's module Sample Data: they are computed on this machine, nothing is downloaded."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.sample_phantom import ABDOMEN, PhantomError, PhantomMaker

TICK_MS = 50


class SamplePhantom:
    """Makes one phantom at a time, while the window stays alive."""

    def __init__(self, scene: Any) -> None:
        """Prepare; nothing is started before `start`.

        Args:
            scene: where the phantom and its organs go.
        """
        self._maker = PhantomMaker(scene)
        self._timer = qt.QTimer()
        self._timer.interval = TICK_MS
        self._timer.connect("timeout()", self._tick)

    def start(self, python: str | None, kind: str = ABDOMEN) -> None:
        """Begin, with this interpreter (None: the running one), unless one is being made already.

        Args:
            python: interpreter.
            kind: of `jobs.sample_phantom`.
        """
        if not self._maker.busy:
            self._maker.start(python, kind)
            self._timer.start()
        slicer.util.showStatusMessage(_("Making the phantom. This takes some seconds…"))

    def _tick(self) -> None:
        try:
            made = self._maker.poll()
        except PhantomError as error:
            self._timer.stop()
            slicer.util.errorDisplay(_("The phantom could not be made. {why}").format(why=error))
            return
        if made is None:
            return
        self._timer.stop()
        slicer.util.setSliceViewerLayers(background=made[0], fit=True)
        slicer.util.showStatusMessage(_("The phantom is ready; its organs are outlined."), 3000)
