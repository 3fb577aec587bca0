"""The Segmentation panel and its real worker: a trained model, learning, one more slice, what was learned."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.panels.bench import box_mask
from Testing.module.panels.segmentation_bench import SHAPE, SegmentationBench
from Testing.module.scene.scenes import add_segmentation, add_volume, oblique_affine, voxels
from Testing.tiny_anomaly import write_tiny_model
from Testing.tiny_segmenter import write_tiny_segmenter

WAIT_S = 300  # a busy machine imports torch slowly
LIVER, TUMOR = ((8, 8, 4), (52, 46, 40)), ((20, 18, 12), (40, 34, 30))


@pytest.fixture
def real(app, scene, tmp_path, monkeypatch):
    from DiffTumorSlicerLib.jobs.host import Host

    home = tmp_path / "models"
    monkeypatch.setenv("DIFFTUMOR_HOME", str(home))
    write_tiny_segmenter(home / "tiny-segmenter")
    write_tiny_model(home / "tiny-anomaly", organs=["liver"], spacing_mm=[1.5, 1.5])
    bridge = Host().make_bridge()
    made = SegmentationBench(app, scene, bridge, home)
    yield made
    made.close()
    bridge.close()


def run(bench, slack):
    """Press the big button and wait for the end; returns the result."""
    before = bench.result
    bench.press(bench.ui.segmentButton)
    button, end = bench.panels.segmentation.run_button, WAIT_S * slack
    while button.running and end > 0:
        bench.turn(0.1)
        end -= 0.1
    assert bench.result is not before, bench.message
    return bench.result


def dice(bench, node, scan):
    from DiffTumorSlicerLib.scene.segments import organ_mask

    found = organ_mask(node, node.GetSegmentation().GetNthSegmentID(0), scan)
    truth = box_mask(SHAPE, *TUMOR)
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_from_the_first_press_to_the_saved_model(real, tmp_path, monkeypatch, slack):
    import qt

    bench = real
    rng = np.random.default_rng(0)
    array = np.where(box_mask(SHAPE, *TUMOR), 130, 60) + rng.integers(-6, 7, SHAPE)
    affine = oblique_affine(spacing=(1.0, 1.0, 2.0))
    scan = add_volume(bench.scene, "CT", array.astype(np.int16), affine)
    bench.volumes.volumeSelector.setCurrentNode(scan)
    add_segmentation(bench.scene, scan, {"liver": box_mask(SHAPE, *LIVER)})
    bench.turn()
    before = voxels(scan)
    bench.choose(bench.ui.mapModelComboBox, "tiny-segmenter")
    bench.choose(bench.ui.overlapComboBox, "0.5")
    segmented = run(bench, slack)
    assert segmented.GetAttribute("DiffTumor.Segmented") == "trained"

    bench.learn_from_slices("tiny-anomaly")
    asked = bench.parameters.learning
    asked.members, asked.steps = 2, 30
    bench.paint(20, TUMOR[0][:2], TUMOR[1][:2])
    learned = run(bench, slack)
    assert dice(bench, learned, scan) > 0.8
    assert bench.table()[0][0] == "Tumor"
    bench.press(bench.ui.goToSliceButton)
    bench.paint(15, TUMOR[0][:2], TUMOR[1][:2])
    again = run(bench, slack)
    assert dice(bench, again, scan) > 0.8
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 4, "the draft went"

    monkeypatch.setattr(qt.QInputDialog, "getText", staticmethod(lambda *_: "Mine"))
    bench.press(bench.ui.saveLearnedButton)
    bench.choose(bench.ui.wayComboBox, "trained")
    bench.choose(bench.ui.mapModelComboBox, "mine")
    applied = run(bench, slack)
    assert dice(bench, applied, scan) > 0.7
    assert np.array_equal(voxels(scan), before)
