"""The Reader study panel on the bench: a package of noise images, keys, and the person's own things in the scene."""

from __future__ import annotations

import json

from PySide6 import QtCore, QtTest, QtWidgets

from Testing.engine.reader_study.tiny_package import tiny_package
from Testing.module.panels.bench import Bench, plain

Key = QtCore.Qt.Key
LOADING_S = 20


class StudyBench(Bench):
    """The whole module widget with the Reader study section open, and a package beside it."""

    def __init__(self, app, scene, bridge, folder, **facts):
        super().__init__(app, scene, bridge)
        import slicer

        self.sections = slicer.util.childWidgetVariables(self.widget)
        self.sections.readerStudySection.collapsed = False
        self.folder = folder
        if not folder.exists():
            tiny_package(folder, **facts)
        self.turn()

    @property
    def panel(self):
        return self.panels.reader_study

    @property
    def reading(self):
        return self.panel.reading

    @property
    def ui(self):
        return self.panel.ui

    @property
    def message(self):
        return plain(self.ui.studyMessage)

    def join(self, code="R1", folder=None):
        """Choose the folder, type the code, press Join."""
        self.ui.studyFolderButton.directory = str(folder or self.folder)
        self.ui.readerCodeEdit.text = code
        self.press(self.ui.joinButton)

    def begin(self):
        """Press Begin and wait for the image."""
        self.widget.activateWindow()
        self.press(self.ui.beginButton)
        self.wait()

    def wait(self):
        """Until the image is there, or something else than an image is to be seen."""
        for _ in range(LOADING_S * 100):
            self.turn()
            if self.reading.stage != "reading" or self.reading.shown or self.reading.time_over:
                return
            self.turn(0.01)
        raise AssertionError("the image did not come")

    def keys(self, *keys):
        """Press keys where the keyboard is."""
        for key in keys:
            QtTest.QTest.keyClick(QtWidgets.QApplication.focusWidget() or self.widget, key)
            self.wait()

    def journal(self, event=""):
        """Records of the journal, of one kind."""
        lines = (self.folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [r for r in records if not event or r["event"] == event]

    def answers(self):
        """(case, choice, confidence) as they were stored."""
        return [(r["case"], r["choice"], r["confidence"]) for r in self.journal("answered")]


def state_of(scene):
    """What of a scene the person would miss: every node that is saved, with what it says of itself."""
    import slicer

    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    lines = {}
    for node in nodes:
        if node.GetSaveWithScene():
            names = [
                node.GetAttributeNames()[i] for i in range(len(node.GetAttributeNames() or ()))
            ]
            lines[node.GetID()] = (
                node.GetName(),
                tuple((name, node.GetAttribute(name)) for name in names),
                node.GetVisibility() if isinstance(node, slicer.vtkMRMLDisplayNode) else None,
            )
    return lines


def words_of(scene):
    """Everything that a person or a program can read off the scene's nodes, as one text."""
    return "\n".join(str(scene.GetNthNode(n)) for n in range(scene.GetNumberOfNodes()))
