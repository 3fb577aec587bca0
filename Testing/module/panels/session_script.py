"""One person's session from empty scene to opened-again scene, with mouse, views and the real worker.

    python -m Testing.module.panels.session_script FOLDER      # leaves the pictures of each step in FOLDER

Every step asserts what it must show. `test_session_script.py` runs it in a process of its own, since views
and their drawing would stay in the process of the tests; the pictures are those of the tutorial.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
MODULE = ROOT / "DiffTumorSlicer" / "DiffTumorSlicer.py"
# Places in the liver of HCC_048 and of the phantom, RAS mm.
PLACES = {
    "HCC_048": ((84.0, 11.0, -258.5), (80.0, -8.0, -283.5)),
    "Phantom": ((70.0, 10.0, 30.0), (60.0, -10.0, 10.0)),
}
DEMONSTRATION, MODELLED = "demo-abdomen-early", "modelled"
LONGEST_S = 600


@dataclass
class Turns:
    """How long the event loop did not turn: on the wall, and of that in our own thread's work."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    count: int = 0

    def joined(self, other: Turns) -> Turns:
        """Both together."""
        longest = max(self.wall_s, other.wall_s), max(self.cpu_s, other.cpu_s)
        return Turns(*longest, self.count + other.count)


@dataclass
class Session:
    """What the steps share."""

    app: Any
    panel: Any
    window: Any
    folder: Path | None
    scan: str = ""
    pictures: list[Path] = field(default_factory=list)

    @property
    def panels(self) -> Any:
        return self.panel.self().panels

    @property
    def ui(self) -> Any:
        return self.panels.synthesis.ui

    @property
    def parameters(self) -> Any:
        return self.panels.synthesis._parameters

    def turn(self, seconds: float = 0.0, until: Any = None) -> Turns:
        """Let the event loop turn until something is so, and measure its longest gap."""
        seen, end = Turns(), time.monotonic() + (LONGEST_S if until else seconds)
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            self.app.processEvents()
            seen.wall_s = max(seen.wall_s, time.perf_counter() - wall)
            seen.cpu_s = max(seen.cpu_s, time.thread_time() - cpu)
            seen.count += 1
            if until is not None and until():
                return seen
            if time.monotonic() >= end:
                assert until is None, self.ui.messageLabel.text
                return seen
            time.sleep(0.004)

    def picture(self, name: str, settle_s: float = 0.3) -> None:
        """Grab the window as it is, after it has settled."""
        self.turn(settle_s)
        if self.folder is not None:
            self.pictures.append(self.folder / f"{len(self.pictures) + 1:02d}-{name}.png")
            self.window.grab().save(str(self.pictures[-1]))

    def press(self, button: Any) -> None:
        from PySide6 import QtCore, QtTest

        area = self.window.findChild("QScrollArea")
        if area is not None:
            area.ensureWidgetVisible(button)
        self.turn()
        QtTest.QTest.mouseClick(button, QtCore.Qt.MouseButton.LeftButton)
        self.turn()

    def choose_model(self, model: str) -> None:
        """Choose an entry of the model's box, as with the mouse."""
        box = self.ui.modelComboBox
        box.setCurrentIndex(next(n for n in range(box.count) if box.itemData(n) == model))
        self.turn()
        assert self.parameters.synthesis.model == model

    def until_done(self) -> Turns:
        """Let the event loop turn until the job has ended."""
        return self.turn(until=lambda: not self.panels.synthesis.run_button.running)

    # ------------------------------------------------------------------------------------- mouse

    def surface(self, view: str) -> Any:
        """The widget of a slice view that takes the mouse."""
        from PySide6 import QtWidgets

        from Testing.slicer_stand_in.views import Surface

        widget = self.app.layoutManager().sliceWidget(view)
        return QtWidgets.QWidget.findChild(widget, Surface)

    def pixel(self, view: str, ras: Any) -> Any:
        """Where a point of the patient is in a slice view."""
        from PySide6 import QtCore

        widget = self.app.layoutManager().sliceWidget(view)
        x, y, _ = widget.sliceView().convertRASToXYZ(list(ras))
        return QtCore.QPoint(round(x), round(self.surface(view).height() - 1 - y))

    def click(self, view: str, ras: Any) -> None:
        """Move the mouse to a point of the patient and click."""
        from PySide6 import QtCore, QtTest

        surface, at = self.surface(view), self.pixel(view, ras)
        QtTest.QTest.mouseMove(surface, at + QtCore.QPoint(3, 3))
        self.turn(0.05)
        QtTest.QTest.mouseMove(surface, at)
        self.turn(0.05)
        QtTest.QTest.mouseClick(surface, QtCore.Qt.MouseButton.LeftButton, pos=at)
        self.turn(0.05)

    def handle(self, view: str, component: int) -> Any:
        """Where a handle of the ellipsoid's box is: the mouse is led around until it lights up."""
        from PySide6 import QtCore, QtTest

        surface, display = self.surface(view), self.parameters.roi.GetDisplayNode()
        middle = self.pixel(view, self.panels.synthesis.place.ellipsoid.center_ras)
        for radius in range(20, 150, 6):
            for angle in np.arange(0, 360, 8):
                turn = np.deg2rad(angle)
                at = middle + QtCore.QPoint(
                    round(radius * np.cos(turn)), round(radius * np.sin(turn))
                )
                QtTest.QTest.mouseMove(surface, at)
                self.app.processEvents()
                if display.GetActiveComponentType() == component:
                    return at, middle
        raise AssertionError("no such handle lights up under the mouse")

    def drag_round(self, view: str, degrees: float) -> None:
        """Turn the ellipsoid by its rotation handle."""
        import slicer
        from PySide6 import QtCore, QtTest

        surface = self.surface(view)
        start, middle = self.handle(view, slicer.vtkMRMLMarkupsDisplayNode.ComponentRotationHandle)
        arm = np.array([start.x() - middle.x(), start.y() - middle.y()], float)
        QtTest.QTest.mousePress(surface, QtCore.Qt.MouseButton.LeftButton, pos=start)
        for step in np.linspace(0, np.deg2rad(degrees), 12)[1:]:
            turn = np.array([[np.cos(step), -np.sin(step)], [np.sin(step), np.cos(step)]])
            x, y = turn @ arm
            at = middle + QtCore.QPoint(round(x), round(y))
            QtTest.QTest.mouseMove(surface, at)
            self.turn(0.02)
        QtTest.QTest.mouseRelease(surface, QtCore.Qt.MouseButton.LeftButton, pos=at)
        self.turn(0.1)


def open_module(folder: Path | None = None) -> Session:
    """Slicer's window with the module in it, and an empty scene."""
    import slicer

    from Testing import slicer_stand_in
    from Testing.slicer_stand_in.views import show_main_window

    app = slicer_stand_in.start()
    slicer.mrmlScene.Clear(0)
    module = getattr(slicer.modules, "difftumorslicer", None) or slicer_stand_in.load_module(MODULE)
    panel = module.createNewWidgetRepresentation()
    window = show_main_window(panel, app)
    panel.enter()
    session = Session(app, panel, window, folder)
    session.turn(0.5)
    return session


def load_ct(session: Session, shared: Path | None) -> Any:
    """The public CT of a patient as DICOM where it lies beside the checkout, else a phantom."""
    import slicer

    from difftumor.images.volumes import read_volume
    from difftumor.phantom import make_abdomen
    from DiffTumorSlicerLib.scene.volume_nodes import array_of
    from Testing.module.scene.scenes import add_volume

    archive = shared / "ct_hcc048" / "hcc048_dicom.tar.xz" if shared else None
    if archive is not None and archive.is_file():
        import tempfile

        with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
            volume = read_volume(Path(folder) / "dicom")
        array, affine, name = volume.array, volume.affine, "HCC_048 portal venous"
    else:
        made = make_abdomen(20001, spacing_mm=(1.5, 1.5, 2.5), orientation="LPS")
        array, affine, name = made.ct, made.grid.affine, "Phantom abdomen"
    session.scan = "HCC_048" if name.startswith("HCC") else "Phantom"
    node = add_volume(slicer.mrmlScene, name, np.ascontiguousarray(array), affine)
    assert array_of(node.GetImageData()).shape == array.shape
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(
        hierarchy.GetSceneItemID(), node
    )
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(350, 60)
    session.panels.volumes.ui.volumeSelector.setCurrentNode(node)
    session.panels.volumes._choose(node)
    session.app.layoutManager().resetSliceViews()
    session.turn(0.5)
    return node


def facts_of(session: Session) -> dict[str, Any]:
    """What must be back after saving and opening again."""
    from DiffTumorSlicerLib.scene.results import segmentation_of, sidecar_of

    parameters = session.parameters
    result, roi = parameters.result, parameters.roi
    segmentation = segmentation_of(result).GetSegmentation()
    ellipsoid = session.panels.synthesis.place.ellipsoid
    return {
        "volume": parameters.volume.GetName(),
        "modality": session.panels.volumes.ui.modalityValue.text,
        "model": parameters.synthesis.model,
        "result": result.GetName(),
        "voxels": _voxels(result),
        "segments": [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())],
        "sidecar": sidecar_of(result),
        "roi": (roi.GetName(), tuple(np.round(ellipsoid.center_ras, 3)), tuple(np.round(ellipsoid.radii_mm, 3))),
        "turn": tuple(np.round(ellipsoid.rotation_deg, 2)),
        "seed": parameters.synthesis.seed,
        "numbers": [getattr(session.ui, f"center{axis}SpinBox").value for axis in "RAS"],
        "title": session.ui.resultGroup.title,
        "selectors": [
            getattr(panel, name).currentNode().GetName()
            for panel, name in (
                (session.panels.volumes.ui, "volumeSelector"),
                (session.ui, "roiSelector"),
                (session.ui, "resultSelector"),
            )
        ],
    }  # fmt: skip


def _voxels(node: Any) -> Any:
    from Testing.module.scene.scenes import voxels

    return voxels(node)


def run_session(folder: Path, data: Path | None) -> dict[str, Any]:
    """All steps; asserts what each must show, and returns what was measured."""
    import slicer

    from DiffTumorSlicerLib.scene.placing import show_position
    from DiffTumorSlicerLib.scene.results import sidecar_of
    from Testing.module.panels.bench import plain

    session = open_module(folder)
    report: dict = {}
    session.picture("empty")
    ct = load_ct(session, data)
    before = np.array(slicer.util.arrayFromVolume(ct))
    first, second = PLACES[session.scan]
    session.picture("scan")

    # Place by a click, size by number, turn by a handle.
    show_position(slicer.mrmlScene, first)
    session.turn(0.3)
    session.press(session.ui.placeButton)
    session.click("Red", first)
    session.turn(0.2)
    placed = session.panels.synthesis.place.ellipsoid
    assert placed is not None
    assert np.allclose(placed.center_ras, first, atol=1.5)
    session.ui.radiusRSpinBox.value = 14
    session.ui.radiusASpinBox.value = 9
    session.picture("placed")
    session.drag_round("Red", 30)
    turned = session.panels.synthesis.place.ellipsoid
    report["turned by the handle, degrees"] = [round(v, 1) for v in turned.rotation_deg]
    assert 15 < abs(turned.rotation_deg[2]) < 45
    assert np.allclose(turned.radii_mm, (14, 9, 8), atol=0.1)
    session.picture("turned")

    # A tumor of the demonstration model, while the window stays alive.
    session.choose_model(DEMONSTRATION)
    session.press(session.ui.synthesizeButton)
    gaps = session.turn(until=lambda: session.panels.synthesis.ui.progressBar.value > 0)
    session.picture("running")
    gaps = gaps.joined(session.until_done())
    report["first tumor: longest gap on the wall, s"] = round(gaps.wall_s, 3)
    report["first tumor: longest turn of our thread, s"] = round(gaps.cpu_s, 3)
    result = session.parameters.result
    assert result is not None, plain(session.ui.messageLabel)
    assert "synthetic" in result.GetName()
    assert sidecar_of(result)["model"]["id"] == DEMONSTRATION
    assert np.array_equal(slicer.util.arrayFromVolume(ct), before)
    assert (slicer.util.arrayFromVolume(result) != before).any()
    session.picture("tumor")
    session.press(session.ui.compareButton)
    session.turn(0.6)
    session.picture("compare")
    session.press(session.ui.compareButton)

    # One that is cancelled in the middle.
    with_one = np.array(slicer.util.arrayFromVolume(result))
    session.press(session.ui.newSeedButton)
    for _ in range(5):  # a busy machine may hold up a try
        session.press(session.ui.synthesizeButton)
        session.turn(until=lambda: session.panels.synthesis.ui.progressBar.value > 0)
        pressed = time.monotonic()
        session.press(session.ui.synthesizeButton)
        gaps = session.until_done()
        cancelled_s = time.monotonic() - pressed
        assert "Cancelled. Nothing was changed." in plain(session.ui.messageLabel)
        assert np.array_equal(slicer.util.arrayFromVolume(result), with_one)
        if cancelled_s - gaps.wall_s < 1:
            break
    report["cancelled within, s"] = round(cancelled_s, 3)
    report["of that without a turn of the loop, s"] = round(gaps.wall_s, 3)
    session.picture("cancelled")

    # A second and a third tumor, of the other model, and the third is taken back.
    session.choose_model(MODELLED)
    for axis, value in zip("RAS", second, strict=True):
        getattr(session.ui, f"center{axis}SpinBox").value = value
    session.press(session.ui.synthesizeButton)
    gaps = session.until_done()
    report["second tumor: longest turn of our thread, s"] = round(gaps.cpu_s, 3)
    with_two = np.array(slicer.util.arrayFromVolume(result))
    assert (with_two != with_one).any()
    session.ui.centerASpinBox.value = second[1] + 25
    session.press(session.ui.synthesizeButton)
    session.until_done()
    assert session.ui.resultGroup.title == "Result with 3 tumors"
    session.press(session.ui.removeLastButton)
    assert np.array_equal(slicer.util.arrayFromVolume(result), with_two)
    assert session.ui.resultGroup.title == "Result with 2 tumors"
    show_position(slicer.mrmlScene, second)
    session.picture("two-tumors")

    # Save, close, open again.
    kept = facts_of(session)
    scene_file = folder / "session.mrb"
    assert slicer.util.saveScene(str(scene_file))
    slicer.mrmlScene.Clear(0)
    session.turn(0.3)
    assert session.parameters is None or session.parameters.volume is None
    session.picture("closed")
    slicer.util.loadScene(str(scene_file), {"clear": True})
    session.turn(0.5)
    again = facts_of(session)
    assert np.array_equal(again.pop("voxels"), kept.pop("voxels"))
    assert again == kept
    session.app.layoutManager().resetSliceViews()
    session.press(session.ui.goButton)
    session.picture("opened-again")

    # And the last tumor can still be taken back, bit for bit.
    session.press(session.ui.removeLastButton)
    loaded = session.parameters.result
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), with_one)

    # Three to choose from, and the models.
    session.press(session.ui.variantsButton)
    session.until_done()
    session.turn(0.5)
    session.picture("variants")
    session.press(session.ui.keep2Button)
    assert session.ui.resultGroup.title == "Result with 2 tumors"
    sections = slicer.util.childWidgetVariables(session.panel)
    for section in (sections.volumesSection, sections.synthesisSection):
        section.collapsed = True
    sections.modelsSection.collapsed = False
    session.turn(0.2)
    session.press(session.panels.models.ui.examineButton)
    session.turn(until=lambda: session.panels.models.ui.examineButton.enabled)
    session.panels.models.choose("difftumor-liver-early")
    session.picture("models")
    report["pictures"] = [str(picture) for picture in session.pictures]
    session.panel.self().cleanup()
    session.window.close()
    return report


def leave(folder: Path, report: dict[str, Any]) -> NoReturn:
    """Keep what a session measured, and end the process at once.

    Views that are still there would draw once more while Python takes itself apart.
    """
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Run the session, keep its pictures, and say what was measured."""
    from Testing.conftest import shared_folder

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    data = shared_folder() / "data"
    leave(folder, run_session(folder, data if data.is_dir() else None))


if __name__ == "__main__":
    main()
