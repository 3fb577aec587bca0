"""`slicer.ScriptedLoadableModule`, and how Slicer loads a scripted module and its widget."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from Testing.slicer_stand_in.pythonqt import emit, python_class


class ScriptedLoadableModule:
    """Base of a module class: metadata, icon and self-test."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = self.__class__.__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""
        for suffix in (".svg", ".png"):
            icon = Path(parent.path).parent / "Resources" / "Icons" / (self.moduleName + suffix)
            if icon.is_file():
                parent.icon = QtGui.QIcon(str(icon))
                break
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return f'<p>For more information see the <a href="{docPage}">online documentation</a>.</p>'

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        case = getattr(sys.modules[self.__module__], f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """Base of a module's widget class; `parent` is the Qt widget that it fills."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = self.__class__.__name__.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(QtWidgets.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect(
            "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
        )

    def resourcePath(self, filename: str) -> str:
        path = getattr(slicer.modules, self.moduleName.lower()).path
        return str(Path(path).parent / "Resources" / filename)

    def setup(self) -> None:
        self.setupDeveloperSection()

    def setupDeveloperSection(self) -> None:
        """Only there in developer mode, which the stand-in does not have."""

    def cleanup(self) -> None:
        """For the module's own class to fill."""

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect(
                "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
            )


class ScriptedLoadableModuleLogic:
    """Base of a module's logic class: the parameter node, one in a scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = self.__class__.__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        node.SetAttribute("ModuleName", self.moduleName)
        return node

    def getAllParameterNodes(self) -> list[Any]:
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of a module's self-test."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*(args or ("runTest",)), **kwargs)
        self.messageDelay = 0

    def delayDisplay(
        self, message: str, requestedDelay: int | None = None, msec: int | None = None
    ) -> None:
        slicer.util.delayDisplay(message, 0)

    def runTest(self) -> None:
        """For the module's own class to fill."""


class _ScriptedModule(QtCore.QObject):
    """The module object that Slicer makes for a scripted module: `slicer.modules.<name in lower case>`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path, self._widget, self._facts = path, None, {}

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def logic(self) -> Any:
        """A scripted module's C++ logic knows nothing of its Python logic."""
        return self

    def widgetRepresentation(self) -> Any:
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self) -> Any:
        widget = slicer.qSlicerScriptedLoadableModuleWidget()
        widget._load(self)
        return widget

    def _fact(name: str, kind: Any, empty: Any) -> QtCore.Property:
        return QtCore.Property(
            kind,
            lambda self: self._facts.get(name, empty),
            lambda self, value: self._facts.update({name: value}),
        )

    title = _fact("title", str, "")
    helpText = _fact("helpText", str, "")
    acknowledgementText = _fact("acknowledgementText", str, "")
    categories = _fact("categories", "QStringList", [])
    contributors = _fact("contributors", "QStringList", [])
    dependencies = _fact("dependencies", "QStringList", [])
    hidden = _fact("hidden", bool, False)
    icon = _fact("icon", QtGui.QIcon, QtGui.QIcon())
    path = QtCore.Property(str, lambda self: self._path)
    name = QtCore.Property(str, lambda self: Path(self._path).stem)


class _ScriptedModuleWidget(QtWidgets.QWidget):
    """The panel in which a scripted module's widget class lives."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, *parent: Any) -> None:
        super().__init__(*parent)
        QtWidgets.QVBoxLayout(self)
        self._module, self._python, self._entered, self._scene = None, None, False, None

    def _load(self, module: Any) -> None:
        self._module = module
        name = Path(module.path).stem
        kind = getattr(sys.modules[name], f"{name}Widget")
        self._python = kind(self)
        setattr(slicer.modules, f"{name}Widget", self._python)
        self._python.setup()
        self.setMRMLScene(slicer.mrmlScene)

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            emit(self, "mrmlSceneChanged(vtkMRMLScene*)", scene)

    def self(self) -> Any:
        return self._python

    def module(self) -> Any:
        return self._module

    def enter(self) -> None:
        self._entered = True
        if hasattr(self._python, "enter"):
            self._python.enter()

    def exit(self) -> None:
        self._entered = False
        if hasattr(self._python, "exit"):
            self._python.exit()

    def reload(self) -> None:
        entered, self._scene = self._entered, None
        self._load(self._module)
        if entered:
            self.enter()

    isEntered = QtCore.Property(bool, lambda self: self._entered)
    moduleName = QtCore.Property(str, lambda self: self._module.name)


def load_module(path: Path) -> Any:
    """Load a scripted module's file as Slicer does; returns `slicer.modules.<name>`."""
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    module = slicer.qSlicerScriptedLoadableModule(str(path))
    setattr(slicer.modules, f"{name}Instance", getattr(loaded, name)(module))
    setattr(slicer.modules, name.lower(), module)
    return module


def install() -> None:
    """Put the classes where a module's `from slicer.ScriptedLoadableModule import *` finds them."""
    module = types.ModuleType("slicer.ScriptedLoadableModule")
    names = ("", "Widget", "Logic", "Test")
    module.__all__ = [f"ScriptedLoadableModule{name}" for name in names]
    for name in module.__all__:
        setattr(module, name, globals()[name])
    sys.modules["slicer.ScriptedLoadableModule"] = slicer.ScriptedLoadableModule = module
    for name, kind in (
        ("qSlicerScriptedLoadableModule", _ScriptedModule),
        ("qSlicerScriptedLoadableModuleWidget", _ScriptedModuleWidget),
    ):
        setattr(slicer, name, python_class(kind, name))
