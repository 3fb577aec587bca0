"""`.ui` files: Qt's own reader, with the classes of the stand-ins in place of Slicer's plug-ins."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from Testing.slicer_stand_in.pythonqt import reading_ui_file


def class_named(name: str) -> Any:
    """The stand-in of a class named in a `.ui` file."""
    import slicer

    if name.startswith("Q"):
        return getattr(sys.modules["qt"], name)
    if name.startswith("ctk"):
        return getattr(sys.modules["ctk"], name)
    return getattr(slicer, name)


class UiLoader(QtUiTools.QUiLoader):
    """`qt.QUiLoader`."""

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        if class_name in ("Line", "QLayoutWidget", "Spacer"):
            return super().createWidget(class_name, parent, name)
        try:
            widget = class_named(class_name)(*([parent] if parent is not None else []))
        except Exception as error:
            # Qt's reader only prints a line and leaves the widget out.
            self.__dict__.setdefault("_errors", []).append(error)
            raise
        QtCore.QObject.setObjectName(widget, name)
        return widget

    def load(self, file: QtCore.QIODevice, parent: Any = None) -> QtWidgets.QWidget:
        """The widget of a `.ui` file, its connections made.

        Connections that carry a scene have C++ signatures that PySide6 does not know, so all of them
        are taken out of the file and made here, each checked against the real interface.
        """
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        connections = [
            {part.tag: part.text or "" for part in connection if part.text}
            for connection in root.iter("connection")
        ]
        for group in root.findall("connections"):
            root.remove(group)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        reading_ui_file.append("")
        try:
            widget = super().load(buffer, parent)
        finally:
            reading_ui_file.pop()
        if errors := self.__dict__.pop("_errors", []):
            raise errors[0]
        if widget is None:
            raise RuntimeError(self.errorString())
        for connection in connections:
            sender = _named(widget, connection["sender"])
            receiver = _named(widget, connection["receiver"])
            sender.connect(connection["signal"], receiver, connection["slot"])
        return widget


def _named(widget: QtWidgets.QWidget, name: str) -> Any:
    if QtCore.QObject.objectName(widget) == name:
        return widget
    found = QtCore.QObject.findChild(widget, QtCore.QObject, name)
    if found is None:
        raise RuntimeError(f"the .ui file connects '{name}', which it does not have")
    return found
