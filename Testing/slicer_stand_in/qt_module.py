"""The module `qt` of Slicer: Qt's classes as PythonQt presents them."""

from __future__ import annotations

import sys
import types
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtTest import QTest

from Testing.slicer_stand_in.pythonqt import python_class

# What Qt 6 moved or dropped is absent here too if Slicer's Qt 5 lacks it; the rest is looked up.
_LIBRARIES = (QtCore, QtGui, QtWidgets, QtUiTools)


def _file_name(dialog: str) -> Any:
    """PySide6 returns (name, filter), PythonQt the name only."""

    def ask(*arguments: Any) -> Any:
        return getattr(QtWidgets.QFileDialog, dialog)(*arguments)[0]

    return staticmethod(ask)


def _find(name: str) -> Any:
    """A member of `qt`, made at its first use."""
    if name == "QUiLoader":
        from Testing.slicer_stand_in.ui_files import UiLoader

        return UiLoader
    for library in _LIBRARIES:
        found = getattr(library, name, None)
        if found is not None:
            break
    else:
        raise AttributeError(f"qt has no '{name}'")
    if not (isinstance(found, type) and issubclass(found, QtCore.QObject)):
        return found
    if issubclass(found, QtWidgets.QLayout):
        return found  # its properties are rarely used, and Qt calls several of the same names
    kind = python_class(found)
    if name == "QFileDialog":
        for dialog in ("getOpenFileName", "getOpenFileNames", "getSaveFileName"):
            setattr(kind, dialog, _file_name(dialog))
    return kind


class QtModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _find(name)
        setattr(self, name, found)
        return found


def install() -> types.ModuleType:
    """Put `qt` where `import qt` finds it."""
    module = sys.modules.get("qt") or QtModule("qt", "Stand-in of Slicer's qt")
    module.QTest = QTest
    sys.modules["qt"] = module
    return module
