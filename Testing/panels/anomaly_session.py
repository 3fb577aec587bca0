"""A session with the Anomaly panel in Slicer's window: mouse, views, plot and the real worker.

    python -m Testing.panels.anomaly_session FOLDER [dark] [150]     # leaves the pictures of each step in FOLDER

Every step asserts what it must show; the pictures are those of the tutorial. Run by `test_anomaly_session.py` in a
process of its own, since views and their drawing would stay in the process of the tests.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from Testing.panels.session_script import Session, open_module

SEED = (
    21001  # of the phantoms that are set apart for demonstrations: none that a model was trained on
)
MODEL = "demo-abdomen-anomaly"
LIVE_S = 20.0


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
        from Testing.panels.bench import plain

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


def load_phantom(session: AnomalySession) -> tuple[Any, Any, np.ndarray]:
    """A phantom with a lesion in a kidney: volume node, segmentation node, and where the lesion is."""
    import slicer

    from difftumor.phantom import make_abdomen
    from Testing.scene.scenes import add_segmentation, add_volume

    made = make_abdomen(
        SEED,
        tumors=1,
        tumor_organs=("kidney",),
        tumor_radius_mm=(9.0, 12.0),
        spacing_mm=(1.0, 1.0, 3.0),
        orientation="LPS",
    )
    lesion = made.tumors > 0
    sides = {"right kidney": made.organs == 2, "left kidney": made.organs == 3}
    near = np.linalg.norm
    middle = made.grid.to_ras(np.argwhere(lesion).mean(axis=0))
    centers = {n: made.grid.to_ras(np.argwhere(mask).mean(axis=0)) for n, mask in sides.items()}
    side = min(centers, key=lambda name: near(centers[name] - middle))
    sides[side] |= lesion
    node = add_volume(
        slicer.mrmlScene, "Phantom with a lesion", np.ascontiguousarray(made.ct), made.grid.affine
    )
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(350, 90)
    organs, ids = add_segmentation(
        slicer.mrmlScene, node, {"liver": made.organs == 5, side: sides[side]}
    )
    organs.SetName("Organs")
    organs.GetDisplayNode().SetVisibility2DFill(False)
    organs.GetDisplayNode().SetVisibility(False)
    session.panels.volumes.ui.volumeSelector.setCurrentNode(node)
    session.panels.volumes._choose(node)
    session.app.layoutManager().resetSliceViews()
    session.turn(0.5)
    assert session.parameters.area is organs, "the organ is found by its name"
    assert session.parameters.area_segment_id == ids[side]
    return node, organs, middle


def run_session(folder: Path, *, dark: bool = False, scale: float = 1.0) -> dict[str, Any]:
    """All steps; asserts what each must show, and returns what was measured."""
    import slicer

    from DiffTumorSlicerLib.anomaly_results import healthy_of, slices_of
    from DiffTumorSlicerLib.placing import show_position
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
    volume, _organs, lesion = load_phantom(session)
    before = np.array(slicer.util.arrayFromVolume(volume))
    sections.volumesSection.collapsed = True
    show_position(slicer.mrmlScene, lesion)
    for name in ("Red", "Yellow", "Green"):
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
        wide, high, deep = node.GetFieldOfView()
        node.SetFieldOfView(wide * 200 / high, 200, deep)
        node.JumpSliceByCentering(*lesion)
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
    if session.ui.liveCheckBox.enabled:
        session.press(session.ui.liveCheckBox)
        session.ui.guidanceSlider.value = 70
        started = time.monotonic()
        session.turn(until=lambda: session.parameters.map is not first)
        report["a moved slider shows after, s"] = round(time.monotonic() - started, 2)
        session.picture("slider-moved")
        session.press(session.ui.liveCheckBox)
        session.press(session.ui.recommendedButton)
        session.turn(0.5, until=None)
        session.turn(until=lambda: not session.running)

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
    report["pictures"] = [str(picture) for picture in session.pictures]
    session.panel.self().cleanup()
    session.window.close()
    return report


def click_curve(session: AnomalySession, node: Any) -> int:
    """Click on a point of the curve; returns the slice that the views show then."""
    import slicer
    from PySide6 import QtCore, QtTest, QtWidgets

    from DiffTumorSlicerLib.anomaly_results import plane_of, slices_of
    from DiffTumorSlicerLib.slice_ranges import this_slice
    from DiffTumorSlicerLib.volume_nodes import volume_grid
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


def main() -> int:
    """Run the session, keep its pictures, and say what was measured."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    report = run_session(folder, dark="dark" in words, scale=1.5 if "150" in words else 1.0)
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # views that are still there draw once more while Python takes itself apart
