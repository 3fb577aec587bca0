"""The panels on a bench: genuine .ui files and classes, real MRML, and a worker that is the test."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PySide6 import QtCore, QtTest, QtWidgets

ROOT = Path(__file__).resolve().parents[3]
UI = ROOT / "DiffTumorSlicer" / "Resources" / "UI"


class NothingMissing:
    """A worker's Python that has all it needs; a test may give it a `lack`."""

    lack = ""

    def __init__(self):
        self.asked = 0

    def problem(self):
        return self.lack

    def ensure(self):
        from DiffTumorSlicerLib.scene.geometry import SceneError

        self.asked += 1
        if self.lack:
            raise SceneError(self.lack)

    def python(self):
        return None


class Bench:
    """The whole module widget without the module file."""

    def __init__(self, app, scene, bridge, *, free_memory=64 * 10**9, free_disk=10**12):
        import slicer

        from DiffTumorSlicerLib.jobs.host import Host
        from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
        from DiffTumorSlicerLib.panels import Panels
        from DiffTumorSlicerLib.session import Session

        self.app, self.scene, self.bridge = app, scene, bridge
        self.room = {"memory": free_memory, "disk": free_disk}
        self.clock = time.monotonic  # of the jobs; a test may stop it
        host = Host(
            free_memory=lambda: self.room["memory"],
            free_disk=lambda _folder: self.room["disk"],
            clock=lambda: self.clock(),
        )
        self.session = Session(scene, bridge=bridge, host=host)
        self.requirements = NothingMissing()
        self.widget = slicer.util.loadUI(str(UI / "DiffTumorSlicer.ui"))
        self.widget.setMRMLScene(scene)
        self.panels = Panels(
            self.widget,
            self.session,
            scene=scene,
            ui_folder=UI,
            requirements=self.requirements,
        )
        self.node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "parameters")
        self.parameters = ModuleParameters(self.node)
        self.panels.set_parameter_node(self.parameters)
        self.panels.enter()
        self.widget.show()
        self.turn()

    @property
    def ui(self):
        """Widgets of the Synthesis panel."""
        return self.panels.synthesis.ui

    @property
    def volumes(self):
        return self.panels.volumes.ui

    @property
    def models(self):
        return self.panels.models.ui

    @property
    def message(self):
        """What the Synthesis panel says, as a person reads it."""
        return plain(self.ui.messageLabel)

    def turn(self, seconds=0.0):
        """Let the event loop turn; the timer of the panels ticks in it."""
        end = time.monotonic() + seconds
        while True:
            self.app.processEvents()
            self.panels.tick()
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def press(self, button):
        """A mouse click on a button."""
        assert QtWidgets.QWidget.isVisible(button), button.name
        QtTest.QTest.mouseClick(button, QtCore.Qt.MouseButton.LeftButton)
        self.turn()

    def key(self, widget, key, modifier=QtCore.Qt.KeyboardModifier.NoModifier):
        QtTest.QTest.keyClick(widget, key, modifier)
        self.turn()

    def type(self, edit, text):
        """Type into a line edit in place of what it holds, and press Return."""
        edit.selectAll()
        QtTest.QTest.keyClicks(edit, text)
        self.key(edit, QtCore.Qt.Key.Key_Return)

    def choose(self, box, value):
        """Choose the entry of a combo box by its value, as with the mouse."""
        for row in range(box.count):
            if box.itemData(row) == value:
                box.setCurrentIndex(row)
                self.turn()
                return
        raise AssertionError(f"{box.name} does not offer {value}")

    def load_ct(self, **more):
        """A CT, chosen in the Volumes panel."""
        from Testing.module.scene.scenes import add_ct

        node = add_ct(self.scene, **more)
        self.volumes.volumeSelector.setCurrentNode(node)
        self.turn()
        return node

    def place(self, ras=(30.0, 26.0, 22.0)):
        """An ellipsoid, by the numbers of the panel."""
        self.panels.synthesis.place._place(ras)  # as after a click
        self.turn()

    def synthesize(self, **facts):
        """Press Synthesize and let the worker answer; returns the result node."""
        self.press(self.ui.synthesizeButton)
        number = len(self.bridge.requests)
        assert number, self.message
        self.bridge.answer(number, **facts)
        self.turn()
        return self.parameters.result

    def close(self):
        if self.widget is not None:
            self.panels.cleanup()
            self.session.close()
            self.widget.hide()
            self.widget.deleteLater()
            self.widget = None
            # Outside a running event loop nobody else does it, and the widgets would follow the next scene.
            deferred = QtCore.QEvent.Type.DeferredDelete
            QtCore.QCoreApplication.sendPostedEvents(None, deferred.value)


def plain(label):
    """Text of a label as a person reads it; empty while it is not shown."""
    from PySide6 import QtGui

    if QtWidgets.QWidget.isHidden(label):
        return ""
    document = QtGui.QTextDocument()
    document.setHtml(label.text)
    return document.toPlainText()


def box_mask(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


WORKER_FAILURES = (
    ("crashed", "The worker ended during the computation: it crashed.", "Try again."),
    ("out_of_memory", "The memory was not enough.", "Close other programs."),
    ("disk_full", "The disk is full.", "Free some space."),
    ("missing_package", "The Python of the worker has no package 'torch'.", "Install it there."),
    ("not_started", "The worker did not start.", "Choose another Python in the settings."),
    ("refused", "the model file is damaged. Get it again.", ""),
)


def fail(bench, button, volume, *failure):
    """Press, let the worker fail (one of `WORKER_FAILURES`), and see that it is told and nothing was changed."""
    from Testing.module.scene.scenes import voxels

    before, nodes = voxels(volume), bench.scene.GetNumberOfNodes()
    bench.press(button)
    bench.bridge.fail(1, *failure)
    bench.turn()
    assert ends_in_next_step(bench.message.removesuffix("Show details").strip())
    assert "Show details" in bench.message
    assert np.array_equal(voxels(volume), before)
    assert bench.scene.GetNumberOfNodes() == nodes


def ends_in_next_step(text):
    """A sentence for a person: whole, without a traceback or a command, and with something to do."""
    assert text, "nothing was said"
    assert text.rstrip().endswith((".", "…")), text
    for word in ("Traceback", "Error:", "--", "difftumor ", "None", "vtkMRML", "KeyError"):
        assert word not in text, text
    last = text.lower()
    steps = (
        "choose", "press", "next:", "move", "make", "get", "close", "free", "try", "install", "load",
        "draw", "click", "switch", "save", "take", "wait", "restart", "segment", "go on", "use",
        "radii from", "ask", "check",
    )  # fmt: skip
    assert any(step in last for step in steps), text
    return True
