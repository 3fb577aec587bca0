"""A session with the Anomaly panel in Slicer's window: mouse, views, plot and the real worker.

    python -m Testing.module.panels.anomaly_session FOLDER [dark] [150]     # leaves the pictures of each step in FOLDER

Every step asserts what it must show; the pictures are those of the tutorial. Run by `test_anomaly_session.py` in a
process of its own, since views and their drawing would stay in the process of the tests.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from Testing.module.panels.session_script import Session, leave, open_module

MODEL, HEAD_MODEL = "demo-abdomen-anomaly", "demo-head-anomaly"
LESION, HEAD = "lesion", "head"  # kinds of sample phantoms


class AnomalySession(Session):
    """The steps' view of the window, for the Anomaly panel."""

    @property
    def ui(self) -> Any:
        return self.panels.anomaly.ui

    @property
    def parameters(self) -> Any:
        return self.panels.anomaly._parameters

    @property
    def running(self) -> str:
        return self.panels.anomaly._running

    @property
    def message(self) -> str:
        from Testing.module.panels.bench import plain

        return plain(self.ui.mapMessageLabel)

    def choose(self, box: Any, value: str) -> None:
        """Choose an entry of a combo box by its value."""
        for row in range(box.count):
            if box.itemData(row) == value:
                box.setCurrentIndex(row)
                self.turn(0.1)
                return
        raise AssertionError(f"{box.name} does not offer {value}")

    def show(self, widget: Any) -> None:
        """Scroll the panel so that a widget is seen."""
        area = self.window.findChild("QScrollArea")
        area.ensureWidgetVisible(widget)
        self.turn(0.1)


def look(dark: bool, scale: float) -> None:
    """Slicer's dark style, and larger text."""
    from PySide6 import QtGui, QtWidgets

    QtWidgets.QApplication.setStyle("Fusion")
    font = QtGui.QFont(QtWidgets.QApplication.font())
    font.setPointSizeF(font.pointSizeF() * scale)
    QtWidgets.QApplication.setFont(font)
    palette = QtGui.QPalette()
    role = QtGui.QPalette.ColorRole
    light = {
        role.Window: "#efefef", role.Base: "#ffffff", role.Button: "#e8e8e8", role.Text: "#000000",
        role.WindowText: "#000000", role.ButtonText: "#000000", role.AlternateBase: "#f6f6f6",
        role.Highlight: "#308cc6", role.HighlightedText: "#ffffff", role.PlaceholderText: "#808080",
    }  # fmt: skip
    night = {
        role.Window: "#353535", role.Base: "#2a2a2a", role.Button: "#353535", role.Text: "#ffffff",
        role.WindowText: "#ffffff", role.ButtonText: "#ffffff", role.AlternateBase: "#424242",
        role.Highlight: "#2a82da", role.HighlightedText: "#000000", role.PlaceholderText: "#909090",
        role.Link: "#5aa9ff",
    }  # fmt: skip
    for one, color in (night if dark else light).items():
        palette.setColor(one, QtGui.QColor(color))
    off = QtGui.QPalette.ColorGroup.Disabled
    for one in (role.Text, role.WindowText, role.ButtonText):
        palette.setColor(off, one, QtGui.QColor("#808080"))
    QtWidgets.QApplication.setPalette(palette)


def load_phantom(session: AnomalySession, kind: str) -> tuple[Any, np.ndarray]:
    """A phantom of Sample Data, made by its own process: volume node, and where its lesion is."""
    import slicer

    from difftumor.phantom import make_abdomen, make_head
    from DiffTumorSlicerLib.jobs import sample_phantom

    maker = sample_phantom.PhantomMaker(slicer.mrmlScene)
    maker.start(sys.executable, kind)
    made: list[Any] = []

    def there() -> bool:
        if (found := maker.poll()) is not None:
            made.extend(found)
        return bool(made)

    session.turn(until=there)
    volume, segmentation = made
    segmentation.GetDisplayNode().SetVisibility(False)
    session.panels.volumes.ui.volumeSelector.setCurrentNode(volume)
    session.panels.volumes._choose(volume)
    session.app.layoutManager().resetSliceViews()
    session.turn(0.5)
    assert session.parameters.area is segmentation, "the organ is found by its name"
    asked: dict[str, Any] = {"tumors": 1, "spacing_mm": sample_phantom.HEAD_SPACING_MM}
    if kind == sample_phantom.LESION:
        asked |= {"spacing_mm": sample_phantom.SPACING_MM}
        asked |= {
            "tumor_organs": ("kidney",),
            "tumor_radius_mm": sample_phantom.LESION_RADIUS_MM,
        }
    make = make_head if kind == sample_phantom.HEAD else make_abdomen
    same = make(sample_phantom.SEED, orientation="LPS", **asked)
    return volume, same.grid.to_ras(np.argwhere(same.tumors > 0).mean(axis=0))


def choose_side(session: AnomalySession, lesion: np.ndarray) -> None:
    """Choose the kidney with the lesion, as a person would."""
    from DiffTumorSlicerLib.scene.segments import organ_mask
    from DiffTumorSlicerLib.scene.volume_nodes import volume_grid

    volume, area = session.parameters.volume, session.parameters.area
    grid, away = volume_grid(volume), {}
    for name in ("right_kidney", "left_kidney"):
        middle = grid.to_ras(np.argwhere(organ_mask(area, name, volume)).mean(axis=0))
        away[name] = np.linalg.norm(middle - lesion)
    session.ui.areaSelector.setCurrentSegmentID(min(away, key=lambda name: away[name]))
    session.turn(0.1)


def look_at(point: np.ndarray, height_mm: float) -> None:
    """Zoom the three slice views to a place."""
    import slicer

    for name in ("Red", "Yellow", "Green"):
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        wide, high, deep = node.GetFieldOfView()
        node.SetFieldOfView(wide * height_mm / high, height_mm, deep)
        node.JumpSliceByCentering(*point)


def run_session(folder: Path, *, dark: bool = False, scale: float = 1.0) -> dict[str, Any]:
    """All steps; asserts what each must show, and returns what was measured."""
    import slicer

    from DiffTumorSlicerLib.anomaly.results import healthy_of, slices_of
    from DiffTumorSlicerLib.scene.placing import show_position
    from Testing import slicer_stand_in

    slicer_stand_in.start()
    look(dark, scale)
    opened = open_module(folder)
    session = AnomalySession(opened.app, opened.panel, opened.window, folder)
    session.window.resize(1500, 1000)
    report: dict[str, Any] = {}
    sections = slicer.util.childWidgetVariables(session.panel)
    sections.synthesisSection.collapsed = True
    sections.anomalySection.collapsed = False
    session.choose(session.ui.mapModelComboBox, MODEL)
    volume, lesion = load_phantom(session, LESION)
    choose_side(session, lesion)
    before = np.array(slicer.util.arrayFromVolume(volume))
    sections.volumesSection.collapsed = True
    look_at(lesion, 200)
    session.picture("ready")

    # One slice, then the sliders move it.
    session.choose(session.ui.rangeComboBox, "slice")
    session.press(session.ui.runButton)
    session.turn(until=lambda: not session.running)
    first = session.parameters.map
    assert first is not None, session.message
    report["one slice, s"] = round(session.panels.anomaly._session.states["anomaly"].elapsed_s, 2)
    report["live updates are offered"] = bool(session.ui.liveCheckBox.enabled)
    session.picture("one-slice")
    live = bool(session.ui.liveCheckBox.enabled)
    if live:
        session.press(session.ui.liveCheckBox)
    started = time.monotonic()
    session.ui.guidanceSlider.value = 70
    if not live:  # a slow or busy machine
        session.press(session.ui.runButton)
    session.turn(until=lambda: session.parameters.map is not first)
    report["a moved slider shows after, s"] = round(time.monotonic() - started, 2)
    session.turn(until=lambda: not session.running)
    session.picture("slider-moved")
    if live:
        session.press(session.ui.liveCheckBox)
    session.press(session.ui.recommendedButton)

    # The whole organ.
    session.choose(session.ui.rangeComboBox, "organ")
    session.press(session.ui.runButton)
    session.picture("running", settle_s=0.4)
    gaps = session.turn(until=lambda: not session.running)
    report["longest turn of our thread, s"] = round(gaps.cpu_s, 3)
    whole = session.parameters.map
    assert whole is not first, session.message
    assert np.array_equal(slicer.util.arrayFromVolume(volume), before)
    assert len(slices_of(whole)) > 3
    session.show(session.ui.removeMapButton)
    session.picture("map")
    report["slices"] = len(slices_of(whole))
    report["message"] = session.message
    session.press(session.ui.peakButton)
    session.picture("strongest")

    # Threshold and opacity: the display alone.
    session.ui.thresholdSlider.value = 0.6
    session.ui.opacitySlider.value = 0.8
    session.choose(session.ui.colorsComboBox, "viridis")
    session.press(session.ui.legendCheckBox)
    session.picture("look")
    session.choose(session.ui.colorsComboBox, "inferno")
    session.ui.thresholdSlider.value = 0.35
    session.ui.opacitySlider.value = 0.6
    session.press(session.ui.legendCheckBox)

    # The curve, and a click into it.
    session.press(session.ui.curveButton)
    session.turn(0.6)
    session.picture("curve")
    report["click went to slice"] = click_curve(session, whole)
    session.picture("curve-clicked")
    session.press(session.ui.curveButton)
    session.turn(0.3)

    # Healthy beside, comparison, segmentation, sheet.
    show_position(slicer.mrmlScene, lesion)
    assert healthy_of(whole)
    session.press(session.ui.healthyButton)
    session.turn(0.8)
    session.picture("healthy")
    session.press(session.ui.healthyButton)
    session.ui.otherSelector.setCurrentNode(first)
    session.turn(0.2)
    session.press(session.ui.compareMapsButton)
    session.turn(0.8)
    session.picture("compare")
    session.press(session.ui.compareMapsButton)
    session.turn(0.3)
    session.press(session.ui.segmentMapButton)
    session.picture("segmentation")
    report["segmentation"] = session.message
    session.ui.sweepGroup.collapsed = False
    session.turn(0.2)
    session.press(session.ui.sweepButton)
    session.turn(until=lambda: not session.running)
    session.turn(0.3)
    session.show(session.ui.saveSheetButton)
    session.picture("sheet")

    # Save, close, open again.
    kept = whole.GetName(), np.array(slicer.util.arrayFromVolume(whole))
    scene_file = folder / "session.mrb"
    assert slicer.util.saveScene(str(scene_file))
    slicer.mrmlScene.Clear(0)
    session.turn(0.3)
    slicer.util.loadScene(str(scene_file), {"clear": True})
    session.turn(0.8)
    found = slicer.mrmlScene.GetFirstNodeByName(kept[0])
    assert np.allclose(slicer.util.arrayFromVolume(found), kept[1], atol=1e-6)
    assert session.parameters.map is not None
    session.ui.mapSelector.setCurrentNode(found)
    session.app.layoutManager().resetSliceViews()
    session.turn(0.3)
    session.press(session.ui.peakButton)
    session.picture("opened-again")
    report |= run_head(session)
    report["pictures"] = [str(picture) for picture in session.pictures]
    session.panel.self().cleanup()
    session.window.close()
    return report


def run_head(session: AnomalySession) -> dict[str, Any]:
    """Four sequences found by name, and their map."""
    import slicer

    from DiffTumorSlicerLib.anomaly.results import healthy_of

    slicer.mrmlScene.Clear(0)
    session.panel.self().initializeParameterNode()
    session.turn(0.5)
    session.choose(session.ui.mapModelComboBox, HEAD_MODEL)
    volume, lesion = load_phantom(session, HEAD)
    volume.GetDisplayNode().SetAutoWindowLevel(True)
    look_at(lesion, 220)
    area = session.window.findChild("QScrollArea")
    area.verticalScrollBar().setValue(0)
    session.picture("head-ready")
    assert session.ui.flairSelector.currentNode() is volume
    session.choose(session.ui.rangeComboBox, "slice")
    session.press(session.ui.runButton)
    session.turn(until=lambda: not session.running)
    node = session.parameters.map
    assert node is not None, session.message
    assert len(healthy_of(node)) == 4
    session.picture("head-map")
    session.press(session.ui.healthyButton)
    session.turn(0.8)
    session.picture("head-healthy")
    session.press(session.ui.healthyButton)
    return {"head": session.message}


def click_curve(session: AnomalySession, node: Any) -> int:
    """Click on a point of the curve; returns the slice that the views show then."""
    import slicer
    from PySide6 import QtCore, QtTest, QtWidgets

    from DiffTumorSlicerLib.anomaly.results import plane_of, slices_of
    from DiffTumorSlicerLib.scene.slice_ranges import this_slice
    from DiffTumorSlicerLib.scene.volume_nodes import volume_grid
    from Testing.slicer_stand_in.views import Surface

    rows = slices_of(node)
    wanted = rows[len(rows) // 4]
    widget = session.app.layoutManager().plotWidget(0)
    surface = QtWidgets.QWidget.findChild(widget, Surface)
    chart = widget.plotView().chart()
    point = [chart.GetAxis(axis) for axis in (1, 0)]  # bottom and left
    pixels = []
    for axis, value in zip(point, (wanted["position_mm"], wanted["probability"]), strict=True):
        low, high = axis.GetUnscaledMinimum(), axis.GetUnscaledMaximum()
        first, second = axis.GetPoint1(), axis.GetPoint2()
        along = 0 if axis is point[0] else 1
        part = (value - low) / (high - low)
        pixels.append(first[along] + part * (second[along] - first[along]))
    at = QtCore.QPoint(round(pixels[0]), round(surface.height() - 1 - pixels[1]))
    QtTest.QTest.mouseMove(surface, at)
    session.turn(0.1)
    QtTest.QTest.mouseClick(surface, QtCore.Qt.MouseButton.LeftButton, pos=at)
    session.turn(0.4)
    shown = this_slice(slicer.mrmlScene, volume_grid(node), plane_of(node))
    assert shown == wanted["index"], (shown, wanted)
    return shown


def main() -> None:
    """Run the session, keep its pictures, and say what was measured."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    leave(folder, run_session(folder, dark="dark" in words, scale=1.5 if "150" in words else 1.0))


if __name__ == "__main__":
    main()
