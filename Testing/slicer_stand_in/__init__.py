"""Enough of Slicer's application, in PySide6, to run the genuine module on real MRML without Slicer.

    from Testing import slicer_stand_in
    slicer_stand_in.start()                      # once in a process, before the module is imported
    module = slicer_stand_in.load_module(path)   # as Slicer loads a scripted module
    panel = module.widgetRepresentation()        # its widget; panel.self() is the module's own class

MRML (`slicer.vtkMRML*`, `slicer.util`) is real: the wheel `slicer-core`. README.md says what the
stand-ins cannot prove.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_application: Any = None


def start() -> Any:
    """Make `qt`, `ctk`, `slicer.app` and the rest; returns `slicer.app`."""
    global _application
    if _application is None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
        import slicer

        from Testing.slicer_stand_in import (
            application,
            ctk_module,
            functions,
            mrml_widgets,
            parameter_node_wrapper,
            qt_module,
            sample_data,
            scripted_module,
        )

        _refuse_a_qt_that_loses_none()
        qt_module.install()
        _application = slicer.app = application.make_application()
        slicer.mrmlScene = _application.mrmlScene()
        slicer.modules = application.make_modules(_application)
        slicer.selfTests = {}
        ctk_module.install()
        mrml_widgets.install()
        functions.install()
        parameter_node_wrapper.install()
        scripted_module.install()
        sample_data.install()
    return _application


def _refuse_a_qt_that_loses_none() -> None:
    """PySide6 6.12 on Python 3.11 frees None a little with each call, and dies after some thousands."""
    import PySide6
    from PySide6 import QtCore

    timer = QtCore.QTimer()
    before = sys.getrefcount(None)
    for _ in range(200):
        timer.setInterval(1)
    if sys.version_info < (3, 12) and before - sys.getrefcount(None) > 100:
        raise RuntimeError(
            f"PySide6 {PySide6.__version__} does not work with Python {sys.version.split()[0]}. "
            "Install PySide6-Essentials==6.8.3, or use Python 3.12."
        )


def load_module(path: Path | str) -> Any:
    """Load a scripted module's file as Slicer does; returns `slicer.modules.<name in lower case>`."""
    from Testing.slicer_stand_in.scripted_module import load_module as load

    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return load(Path(path))


def slot_errors() -> list[BaseException]:
    """What slots raised since the last call; Slicer prints these and goes on."""
    from Testing.slicer_stand_in import pythonqt

    errors = list(pythonqt.slot_errors)
    pythonqt.slot_errors.clear()
    return errors
