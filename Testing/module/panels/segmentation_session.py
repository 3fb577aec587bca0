"""A session with the Segmentation panel in Slicer's window: mouse, views and the real worker.

    python -m Testing.module.panels.segmentation_session FOLDER [ct] [head] [dark] [150]   # pictures of each step

Every step asserts what it must show; the pictures are those of the tutorial.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from Testing.module.panels.anomaly_session import AnomalySession, look
from Testing.module.panels.session_script import leave, open_module

SEED = (
    21004  # of the phantoms that are set apart for demonstrations: none that a model was trained on
)
HEAD_SEED = 21002
SEGMENTER, HEAD_MODEL = "demo-liver-segmenter", "demo-head-anomaly"
FIELD_MM = {"ct": 220.0, "head": 190.0}


class SegmentationSession(AnomalySession):
    """The steps' view of the window, for the Segmentation panel."""

    @property
    def ui(self) -> Any:
        return self.panels.segmentation.ui

    @property
    def parameters(self) -> Any:
        return self.panels.segmentation._parameters

    @property
    def running(self) -> bool:
        return bool(self.panels.segmentation.run_button.running)

    @property
    def result(self) -> Any:
        return self.panels.segmentation.lesions.result

    @property
    def message(self) -> str:
        from Testing.module.panels.bench import plain

        return plain(self.ui.segmentMessageLabel)

    def run_job(self) -> float:
        """Press the big button and wait; returns how long the job took, s."""
        before = self.result
        self.press(self.ui.segmentButton)
        self.turn(until=lambda: not self.running)
        assert self.result is not before, self.message
        return round(self.panels.segmentation._session.states["segmentation"].elapsed_s, 1)

    def zoom(self, kind: str, ras: Any) -> None:
        """Let the slice views show a place, each with the same height."""
        import slicer

        from DiffTumorSlicerLib.scene.placing import show_position

        show_position(slicer.mrmlScene, tuple(float(v) for v in ras))
        for name in ("Red", "Yellow", "Green"):
            node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}")
            wide, high, deep = node.GetFieldOfView()
            field = FIELD_MM[kind]
            node.SetFieldOfView(wide * field / high, field, deep)
            node.JumpSliceByCentering(*(float(v) for v in ras))
        self.turn(0.3)


def center_3d(session: SegmentationSession) -> None:
    """What a press on the 3-D view's button for centering does."""
    view = session.app.layoutManager().threeDWidget(0).threeDView()
    view.resetFocalPoint()
    view.resetCamera()
    session.turn(0.3)


def add_image(
    session: SegmentationSession, name: str, array: Any, affine: Any, look: tuple[float, float]
) -> Any:
    """A volume of the phantom with a window."""
    import slicer

    from Testing.module.scene.scenes import add_volume

    node = add_volume(slicer.mrmlScene, name, np.ascontiguousarray(array), affine)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(*look)
    return node


def hide(node: Any) -> None:
    node.GetDisplayNode().SetVisibility2DFill(False)
    node.GetDisplayNode().SetVisibility(False)


def trained(session: SegmentationSession, report: dict[str, Any]) -> None:
    """A liver with lesions: press, table, click, overlay, and the table as a file."""
    import slicer

    from difftumor.phantom import make_abdomen
    from Testing.module.scene.scenes import add_segmentation

    made = make_abdomen(SEED, tumors=3, tumor_organs=("liver",), tumor_radius_mm=(6.0, 13.0),
                        spacing_mm=(1.0, 1.0, 2.5), orientation="LPS")  # fmt: skip
    ct = add_image(session, "Phantom with lesions", made.ct, made.grid.affine, (350, 90))
    liver = (made.organs == 5) | (made.tumors > 0)
    organs, _ids = add_segmentation(slicer.mrmlScene, ct, {"liver": liver})
    organs.SetName("Organs")
    hide(organs)
    session.panels.volumes.ui.volumeSelector.setCurrentNode(ct)
    session.panels.volumes._choose(ct)
    session.app.layoutManager().resetSliceViews()
    session.turn(0.5)
    session.choose(session.ui.mapModelComboBox, SEGMENTER)
    assert session.parameters.segmented_organ is organs, "the organ is found by its name"
    middle = made.grid.to_ras(np.argwhere(made.tumors == 1).mean(axis=0))
    session.zoom("ct", middle)
    session.choose(session.ui.overlapComboBox, "0.5")
    session.picture("ct-ready")
    before = np.array(slicer.util.arrayFromVolume(ct))
    report["segmenting, s"] = session.run_job()
    report["said"] = session.message
    places = [row["position_ras"] for row in session.panels.segmentation.lesions._rows]
    voxels = np.round([made.grid.to_ijk(np.array(place)) for place in places]).astype(int)
    report["of these, lesions of the phantom"] = int((made.tumors[tuple(voxels.T)] > 0).sum())
    tree = session.ui.lesionTree
    assert tree.topLevelItemCount >= 1
    assert np.array_equal(slicer.util.arrayFromVolume(ct), before)
    tree.setCurrentItem(tree.topLevelItem(0))
    session.show(session.ui.removeSegmentationButton)
    session.turn(0.3)
    session.picture("ct-table")
    center_3d(session)
    session.choose(session.ui.overlayComboBox, "probability")
    session.ui.overlayLegendCheckBox.click()
    session.show(session.ui.removeSegmentationButton)
    session.picture("ct-probability")
    session.ui.overlayLegendCheckBox.click()


def learned(session: SegmentationSession, report: dict[str, Any]) -> None:
    """A glioma in four sequences: paint two slices, learn, go where it is uncertain, paint, learn again, reopen."""
    import slicer

    from difftumor.phantom import make_head
    from Testing.module.scene.scenes import add_segmentation

    made = make_head(HEAD_SEED, tumors=1, spacing_mm=(1.0, 1.0, 2.0), orientation="LPS")
    grid, tumor = made.grid, np.asarray(made.tumors)
    nodes = {
        name: add_image(session, f"Phantom {name}", image, grid.affine, window_of(image))
        for name, image in made.images.items()
    }
    brain, _ids = add_segmentation(
        slicer.mrmlScene, nodes["flair"], {"brain": np.asarray(made.brain) > 0}
    )
    brain.SetName("Brain")
    hide(brain)
    session.choose(session.ui.wayComboBox, "learned")
    session.choose(session.ui.mapModelComboBox, HEAD_MODEL)
    session.turn(0.3)
    session.press(session.ui.findSequencesButton)
    assert session.parameters.segmented_organ is brain
    assert all(session.panels.segmentation.inputs.images.values()), session.message
    slicer.util.setSliceViewerLayers(background=nodes["flair"], foreground=None, fit=True)
    session.turn(0.3)
    spans = np.flatnonzero((tumor > 0).any(axis=(0, 1)))
    chosen = spans[[len(spans) // 3, 2 * len(spans) // 3]]
    middle = grid.to_ras(np.argwhere(tumor > 0).mean(axis=0))
    session.zoom("head", middle)
    session.press(session.ui.paintButton)
    for index in chosen[:1]:
        paint(session, tumor, int(index), nodes["flair"])
    at = middle.copy()
    at[2] = grid.to_ras(np.array([0, 0, int(chosen[0])]))[2]
    session.zoom("head", at)
    paint(session, tumor, int(chosen[1]), nodes["flair"])
    session.show(session.ui.segmentButton)
    session.picture("head-1-painted")
    report["learning, s"] = session.run_job()
    report["Dice with 2 slices"] = dice(session, tumor)
    center_3d(session)
    session.press(session.ui.goToSliceButton)
    session.ui.overlayLegendCheckBox.click()
    session.show(session.ui.removeSegmentationButton)
    session.picture("head-2-learned")
    position = session.panels.segmentation.learning._suggestion()
    index = round(float(grid.to_ijk(np.array([0.0, 0.0, position]))[2]))
    session.press(session.ui.paintThereButton)
    paint(session, tumor, index, nodes["flair"])
    session.press(session.ui.learnAgainButton)
    session.turn(until=lambda: not session.running)
    report["learning again, s"] = round(
        session.panels.segmentation._session.states["segmentation"].elapsed_s, 1
    )
    report["Dice with 3 slices"] = dice(session, tumor)
    session.show(session.ui.removeSegmentationButton)
    session.picture("head-3-improved")
    session.ui.resultNameEdit.text = "Glioma, outlined with 3 slices"
    session.press(session.ui.keepResultButton)
    session.show(session.ui.removeSegmentationButton)
    session.picture("head-4-kept")


def window_of(image: Any) -> tuple[float, float]:
    """Window and level that show a brain."""
    inside = image[image > image.max() * 0.02]
    low, high = np.percentile(inside, [1, 99.9])
    return float(high - low), float(high + low) / 2


def paint(session: SegmentationSession, tumor: Any, index: int, scan: Any) -> None:
    """Put the true labels of a slice into the painted segmentation, as a hand would."""
    import slicer

    from DiffTumorSlicerLib.scene.segments import organ_mask

    labels = session.parameters.painted
    segmentation = labels.GetSegmentation()
    for label in (1, 2, 3):
        segment_id = segmentation.GetNthSegmentID(label - 1)
        mask = np.zeros(tumor.shape, np.uint8)
        if segmentation.GetSegment(segment_id).GetRepresentation("Binary labelmap"):
            mask = organ_mask(labels, segment_id, scan).astype(np.uint8)
        mask[:, :, index] = tumor[:, :, index] == label
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.T, labels, segment_id, scan)
    session.turn(0.3)


def dice(session: SegmentationSession, tumor: Any) -> float:
    """Dice of the whole tumor."""
    from DiffTumorSlicerLib.scene.results import input_of
    from DiffTumorSlicerLib.scene.segments import organ_mask

    node = session.result
    found = np.zeros(tumor.shape, bool)
    for segment_id in node.GetSegmentation().GetSegmentIDs():
        found |= organ_mask(node, segment_id, input_of(node))
    truth = tumor > 0
    return round(float(2 * (found & truth).sum() / (found.sum() + truth.sum())), 3)


def run_session(folder: Path, words: list[str]) -> dict[str, Any]:
    """All steps; asserts what each must show, and returns what was measured."""
    import slicer

    from Testing import slicer_stand_in

    slicer_stand_in.start()
    slicer.util.selectModule = lambda _name: None  # the Segment Editor, which this window lacks
    look("dark" in words, 1.5 if "150" in words else 1.0)
    opened = open_module(folder)
    session = SegmentationSession(opened.app, opened.panel, opened.window, folder)
    session.window.resize(1500, 1000)
    sections = slicer.util.childWidgetVariables(session.panel)
    for name in ("volumesSection", "synthesisSection"):
        getattr(sections, name).collapsed = True
    sections.segmentationSection.collapsed = False
    report: dict[str, Any] = {}
    if "head" not in words:
        trained(session, report)
    if "ct" not in words:
        slicer.mrmlScene.Clear(0)
        session.turn(0.5)
        learned(session, report)
    report["pictures"] = [str(picture) for picture in session.pictures]
    session.panel.self().cleanup()
    session.window.close()
    return report


def main() -> None:
    """Run the session, keep its pictures, and say what was measured."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    leave(folder, run_session(folder, words))


if __name__ == "__main__":
    main()
