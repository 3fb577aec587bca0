"""A study read by two scripted readers in Slicer's window: one with keys, one with the mouse.

    python -m Testing.module.panels.study_session PICTURES [SCAN.nii.gz] PACKAGE [PACKAGE ...]

Every step asserts what it must show, and that the person's own window, views and scene are back afterwards. The
pictures are those of the tutorial. Packages are those of a study, or noise (`test_study_session.py`); the scan is what
the person had open before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from Testing.module.panels.session_script import Session, leave, open_module
from Testing.module.panels.study_bench import state_of, words_of

LEFT_DRAG = ((0, 0), (40, 25))  # pixels; changes window and level


class StudySession(Session):
    """The steps' view of the window, for the Reader study panel."""

    @property
    def panel_(self) -> Any:
        return self.panels.reader_study

    @property
    def ui(self) -> Any:
        return self.panel_.ui

    @property
    def reading(self) -> Any:
        return self.panel_.reading

    def wait(self) -> None:
        """Until the image is on the screen, or something else is to be seen."""
        reading = self.reading
        self.turn(
            until=lambda: reading.stage != "reading" or (reading.shown and reading.session.visible)
        )

    def key(self, *keys: Any) -> None:
        from PySide6 import QtTest, QtWidgets

        for key in keys:
            QtTest.QTest.keyClick(QtWidgets.QApplication.focusWidget(), key)
            self.wait()

    def click_view(self, view: str, part: tuple[float, float] = (0.5, 0.5)) -> None:
        """Click into a view, at a part of its width and height."""
        from PySide6 import QtCore, QtTest

        surface = self.surface(view)
        at = QtCore.QPoint(round(part[0] * surface.width()), round(part[1] * surface.height()))
        QtTest.QTest.mouseMove(surface, at)
        QtTest.QTest.mouseClick(surface, QtCore.Qt.MouseButton.LeftButton, pos=at)
        self.turn(0.05)

    def drag(self, view: str) -> None:
        """Drag with the left button: another window, and no mark."""
        from PySide6 import QtCore, QtTest

        surface = self.surface(view)
        middle = QtCore.QPoint(surface.width() // 2, surface.height() // 2)
        start, end = (middle + QtCore.QPoint(*offset) for offset in LEFT_DRAG)
        QtTest.QTest.mouseMove(surface, start)
        QtTest.QTest.mousePress(surface, QtCore.Qt.MouseButton.LeftButton, pos=start)
        for step in np.linspace(0, 1, 6)[1:]:
            at = start + QtCore.QPoint(*(round(step * v) for v in (end - start).toTuple()))
            QtTest.QTest.mouseMove(surface, at)
            self.turn()
        QtTest.QTest.mouseRelease(surface, QtCore.Qt.MouseButton.LeftButton, pos=end)
        self.turn(0.05)

    def scroll(self, view: str, steps: int) -> None:
        """Turn the wheel."""
        from PySide6 import QtCore, QtGui

        surface = self.surface(view)
        middle = QtCore.QPointF(surface.width() / 2, surface.height() / 2)
        for _ in range(abs(steps)):
            event = QtGui.QWheelEvent(
                middle, surface.mapToGlobal(middle), QtCore.QPoint(),
                QtCore.QPoint(0, 120 if steps > 0 else -120), QtCore.Qt.MouseButton.NoButton,
                QtCore.Qt.KeyboardModifier.NoModifier, QtCore.Qt.ScrollPhase.NoScrollPhase, False,
            )  # fmt: skip
            surface.wheelEvent(event)
            self.turn()


def furnish(window: Any) -> list[Any]:
    """Give the window what Slicer's has: bars, docks, names of patients."""
    from PySide6 import QtCore, QtWidgets

    from Testing.slicer_stand_in.pythonqt import python_class

    bar = python_class(QtWidgets.QToolBar)("Load")
    bar.addAction("Load")
    window.addToolBar(bar)
    menu = python_class(QtWidgets.QMenuBar)()
    menu.addMenu("File").addAction("Recent: PATIENT")
    window.setMenuBar(menu)
    probe = python_class(QtWidgets.QLabel)("B: PATIENT (12, 30, 7) 104")
    probe.name = "DataProbeCollapsibleWidget"
    status = python_class(QtWidgets.QStatusBar)()
    window.setStatusBar(status)
    status.addWidget(probe)
    docks = []
    for name in ("PythonConsoleDockWidget", "PanelDockWidget"):
        docks.append(python_class(QtWidgets.QDockWidget)("Dock"))
        docks[-1].name = name
        window.addDockWidget(QtCore.Qt.DockWidgetArea.LeftDockWidgetArea, docks[-1])
    window.windowTitle = "3D Slicer - PATIENT"
    return [bar, menu, status, probe, *docks]


def looks(session: StudySession, furniture: list[Any]) -> tuple[Any, ...]:
    """What of the window and the views the person would miss."""
    layout = session.app.layoutManager()
    return (
        [widget.isHidden() for widget in furniture],
        session.window.windowTitle,
        layout.layout,
        [
            (name, layout.sliceWidget(name).mrmlSliceCompositeNode().GetBackgroundVolumeID())
            for name in layout.sliceViewNames()
        ],
    )


def check_blind(session: StudySession, furniture: list[Any]) -> None:
    """While a case is on the screen, nothing else is that could tell."""
    from DiffTumorSlicerLib.reading.views import VIEWS

    *others, own_dock = furniture
    assert all(widget.isHidden() for widget in others)
    assert not own_dock.isHidden()
    assert session.window.windowTitle == "Reader study"
    layout = session.app.layoutManager()
    assert sorted(layout.sliceViewNames()) == sorted(VIEWS)
    assert all(layout.sliceWidget(view).sliceController().isHidden() for view in VIEWS)


def read_package(
    session: StudySession, package: Path, by_mouse: bool, furniture: list[Any]
) -> dict[str, Any]:
    """Read a package to its end."""
    from PySide6 import QtCore

    from DiffTumorSlicerLib.reading.views import VIEWS

    key, ui, reading = QtCore.Qt.Key, session.ui, session.reading
    rng = np.random.default_rng(7 if by_mouse else 3)
    code = json.loads((package / "package.json").read_text(encoding="utf-8"))["reader"]
    ui.studyFolderButton.directory = str(package)
    ui.readerCodeEdit.text = code
    session.turn(0.1)
    if not by_mouse:
        session.picture("join")
    session.press(ui.joinButton)
    assert reading.stage == "ready", reading.message
    facts = reading.facts
    if not by_mouse:
        session.picture("joined")
    session.window.activateWindow()
    session.press(ui.beginButton)
    session.wait()
    count = 0
    while reading.stage != "finished":
        if reading.practice_over:
            session.turn(0.2)
            if not by_mouse:
                session.picture("practice-over")
            session.press(ui.beginButton)
            session.wait()
        assert reading.shown, reading.message
        check_blind(session, furniture)
        if not by_mouse and count in (0, 1):
            session.picture(("practice-1", "practice-2")[count])
        session.scroll(VIEWS[0], int(rng.integers(-3, 4)))
        row = int(rng.integers(len(facts.choices)))
        sure = int(rng.integers(1, 6))
        if by_mouse:
            session.drag(VIEWS[0])
            assert reading.draft.mark_ras is None, "a drag is no click"
            session.press(getattr(ui, f"choice{row + 1}Button"))
            if facts.ask_confidence:
                session.press(getattr(ui, f"confidence{sure}Button"))
        else:
            session.key(getattr(key, f"Key_{list(session.panel_.answer.keys)[row]}"))
            if facts.ask_confidence:
                session.key(getattr(key, f"Key_{sure}"))
        if facts.ask_mark and facts.choices[row] != "none":
            session.click_view(VIEWS[0], (0.45, 0.55))
            assert reading.draft.mark_ras is not None
        if not by_mouse and reading.case.position == 2 and not reading.case.practice:
            session.picture("reading")
            session.key(key.Key_Escape)
            session.turn(0.3)
            session.picture("pause")
            session.press(ui.beginButton)
            session.wait()
        session.press(ui.nextCaseButton) if by_mouse else session.key(key.Key_Space)
        session.wait()
        count += 1
    if not by_mouse:
        session.turn(0.3)
        session.picture("finished")
    session.press(ui.closeStudyButton)
    return {"reader": code, "answers": count}


def run_session(folder: Path, packages: list[Path], scan: Path | None = None) -> dict[str, Any]:
    """All readers, one after the other, in one window; asserts that nothing stays."""
    import slicer

    from difftumor.images.volumes import read_volume
    from Testing.module.scene.scenes import add_ct, add_volume

    opened = open_module(folder)
    session = StudySession(opened.app, opened.panel, opened.window, folder)
    furniture = furnish(session.window)
    sections = slicer.util.childWidgetVariables(session.panel)
    for name, section in vars(sections).items():
        if name.endswith("Section"):
            section.collapsed = name != "readerStudySection"
    if scan is None:
        ct = add_ct(slicer.mrmlScene, "CT of PATIENT")
    else:
        volume = read_volume(scan)
        array = np.ascontiguousarray(volume.array)
        ct = add_volume(slicer.mrmlScene, "CT of PATIENT", array, volume.affine)
        ct.GetDisplayNode().SetAutoWindowLevel(False)
        ct.GetDisplayNode().SetWindowLevel(350, 60)
    slicer.util.setSliceViewerLayers(background=ct, fit=True)
    session.turn(0.3)
    before, nodes = looks(session, furniture), state_of(slicer.mrmlScene)
    report: dict[str, Any] = {"readers": []}
    for number, package in enumerate(packages):
        report["readers"].append(read_package(session, package, number % 2 == 1, furniture))
        session.turn(0.3)
        assert looks(session, furniture) == before
        assert state_of(slicer.mrmlScene) == nodes
        tokens = [path.stem for path in (package / "cases").iterdir()]
        text = words_of(slicer.mrmlScene)
        assert not any(token in text for token in tokens)
    report["pictures"] = [str(picture) for picture in session.pictures]
    session.panel.self().cleanup()
    session.window.close()
    return report


def main() -> None:
    """Run the session and keep its pictures."""
    folder, *paths = (Path(word) for word in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    scan = next((path for path in paths if path.name.endswith(".nii.gz")), None)
    leave(folder, run_session(folder, [path for path in paths if path != scan], scan))


if __name__ == "__main__":
    main()
