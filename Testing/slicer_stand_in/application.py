"""`slicer.app`: the application object with its scene, logics, settings and file manager."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in import api
from Testing.slicer_stand_in.files import CoreIOManager
from Testing.slicer_stand_in.pythonqt import python_class

# slicer.modules.<name>.logic(), of the modules whose logic the slicer-core wheel has.
_LOGICS = {
    "colors": ("Colors", "vtkMRMLColorLogic"),
    "cropvolume": ("CropVolume", "vtkSlicerCropVolumeLogic"),
    "markups": ("Markups", "vtkSlicerMarkupsLogic"),
    "segmentations": ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    "subjecthierarchy": ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    "terminologies": ("Terminologies", "vtkSlicerTerminologiesModuleLogic"),
    "volumes": ("Volumes", "vtkSlicerVolumesLogic"),
}


class _ModuleManager(QtCore.QObject):
    """`slicer.app.moduleManager()`."""

    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleLoaded = QtCore.Signal(str)

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self) -> list[str]:
        return [module.name for module in vars(slicer.modules).values() if hasattr(module, "logic")]


class CoreModule:
    """A module of Slicer itself, of which only the logic is there."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name, self._logic = name, logic

    def logic(self) -> Any:
        return self._logic


class Modules:
    """`slicer.modules`."""


class Application(QtWidgets.QApplication):
    """`slicer.app`. Its testing mode is on, so that message boxes answer themselves and are logged."""

    startupCompleted = QtCore.Signal()
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(arguments or ([],)))
        QtCore.QCoreApplication.setOrganizationName("difftumor-stand-in")
        QtCore.QCoreApplication.setApplicationName("Slicer")
        self._home = tempfile.TemporaryDirectory(prefix="slicer-stand-in-")
        folder = self._home.name
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        for scope in QtCore.QSettings.Scope:
            QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, scope, folder)
        self._settings = python_class(QtCore.QSettings)()
        self._testing = True
        self._paused = 0
        self._module_manager = python_class(_ModuleManager, "qSlicerModuleManager")()
        self._io = CoreIOManager()
        self._layout_manager: Any = None
        self._scene = slicer.vtkMRMLScene()
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetMRMLScene(self._scene)
        self._set_up_scene()

    def _set_up_scene(self) -> None:
        """What the application adds to an empty scene."""
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self._scene.AddNode(crosshair)
        colors = self._logic.GetColorLogic()
        colors.SetMRMLScene(self._scene)
        colors.AddDefaultColorNodes()
        self._scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        for factory in (
            slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
            slicer.vtkMRMLSliceViewDisplayableManagerFactory,
        ):
            factory.GetInstance().SetMRMLApplicationLogic(self._logic)
        slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance().RegisterDisplayableManager(
            "vtkMRMLColorLegendDisplayableManager"
        )
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self._scene, True)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleManager(self) -> Any:
        return self._module_manager

    def layoutManager(self) -> Any:
        """None without a main window, as with `Slicer --no-main-window`."""
        return self._layout_manager

    def setLayoutManager(self, manager: Any) -> None:
        self._layout_manager = manager

    def coreIOManager(self) -> CoreIOManager:
        return self._io

    def ioManager(self) -> CoreIOManager:
        return self._io

    def settings(self) -> Any:
        return self._settings

    def userSettings(self) -> Any:
        return self._settings

    def testingEnabled(self) -> bool:
        return self._testing

    def setRenderPaused(self, value: bool) -> None:
        self._paused += 1 if value else -1

    def pauseRender(self) -> None:
        self.setRenderPaused(True)

    def resumeRender(self) -> None:
        self.setRenderPaused(False)

    def openNodeModule(self, node: Any) -> None:
        """Switching to another module has no meaning here."""

    def _get_temporary_path(self) -> str:
        return self._home.name

    temporaryPath = QtCore.Property(str, _get_temporary_path)
    slicerHome = QtCore.Property(str, lambda self: self._home.name)
    majorVersion = QtCore.Property(int, lambda self: 5)
    minorVersion = QtCore.Property(int, lambda self: 12)
    revision = QtCore.Property(str, lambda self: "stand-in")
    os = QtCore.Property(str, lambda self: "linux")
    extensionsInstallPath = QtCore.Property(
        str, lambda self: str(Path(self._home.name) / "Extensions")
    )


def make_application() -> Any:
    """The one application object; Qt allows no second."""
    return python_class(Application, api.APPLICATION)()


def make_modules(application: Any) -> Modules:
    """The logics of Slicer's own modules, as `slicer.modules.<name>.logic()`."""
    modules = Modules()
    for name, (title, kind) in _LOGICS.items():
        logic = getattr(slicer, kind)()
        if name == "terminologies" and not _give_terminologies(logic):
            continue
        logic.SetMRMLScene(application.mrmlScene())
        logic.SetMRMLApplicationLogic(application.applicationLogic())
        application.applicationLogic().SetModuleLogic(title, logic)
        setattr(modules, name, CoreModule(title, logic))
    return modules


def _give_terminologies(logic: Any) -> bool:
    """Slicer's terminology files are not in the wheel; trame-slicer has them."""
    found = importlib.util.find_spec("trame_slicer")
    if found is None:
        return False
    folder = Path(found.origin).parent / "resources" / "terminologies"
    logic.SetModuleShareDirectory(str(folder))
    return folder.is_dir()
