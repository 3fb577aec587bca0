"""The panel and its real worker: geometry, the remedy for bent scans, cancel, reload, and a killed Slicer."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from Testing.module.panels.bench import ROOT, Bench, plain
from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_roi,
    add_transform,
    gantry,
    oblique_affine,
    roi_distance,
    segment_voxels,
    turned,
    voxel_centers_in_world,
    voxels,
)

WAIT_S = 300  # a busy machine imports torch slowly
DEMONSTRATION = "demo-abdomen-early"
# As Slicer runs the module: opens it, presses Synthesize, says the worker's number, and goes on living.
OPENED = """
import time
from Testing import slicer_stand_in
app = slicer_stand_in.start()
module = slicer_stand_in.load_module({path!r})
import slicer
from Testing.module.scene.scenes import add_ct
panel = module.widgetRepresentation()
panel.enter(); panel.show()
panels, told = panel.self().panels, False
panels.volumes.ui.volumeSelector.setCurrentNode(add_ct(slicer.mrmlScene))
panels.synthesis.place._place((30.0, 26.0, 22.0))
panels.synthesis.ui.synthesizeButton.click()
while True:
    app.processEvents()
    bridge = panels._session._jobs._bridge
    worker = bridge._worker if bridge is not None else None
    if worker is not None and worker.ready and not told:
        told = True
        print("worker", worker._process.pid, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def lasting(app):
    """One worker for the tests of this file: importing torch takes seconds."""
    from DiffTumorSlicerLib.jobs.host import Host

    bridge = Host().make_bridge()
    yield bridge
    bridge.close()


@pytest.fixture
def real(app, scene, lasting):
    made = Bench(app, scene, lasting)
    lasting.close, close = lambda: None, lasting.close  # the bench would end the worker
    made.parameters.synthesis.model = "modelled"
    yield made
    made.close()
    lasting.close = close


def finish(bench):
    """Press Synthesize and wait for the end; returns the result."""
    bench.press(bench.ui.synthesizeButton)
    wait(bench, lambda: not bench.panels.synthesis.run_button.running)
    assert bench.parameters.result is not None, bench.message
    return bench.parameters.result


def wait(bench, until):
    end = time.monotonic() + WAIT_S
    while not until():
        assert time.monotonic() < end, bench.message
        bench.turn(0.01)


def mask_of(result):
    from DiffTumorSlicerLib.scene.results import segmentation_of

    segmentation = segmentation_of(result)
    name = segmentation.GetSegmentation().GetNthSegmentID(0)
    return segment_voxels(segmentation, name, voxels(result).shape), segmentation


def test_the_tumor_lies_where_the_handles_are_under_different_transforms(real):
    """Oblique, left-handed, anisotropic, under a linear transform; the ellipsoid under another, mirrored one."""
    ct = add_ct(real.scene, affine=oblique_affine())
    parent = add_transform(real.scene, turned((10, -20, 30), shift=(40, 0, -25)), child=ct)
    real.volumes.volumeSelector.setCurrentNode(ct)
    above = np.diag([1.2, 0.9, -1.0, 1.0]) @ turned((-15, 45, 5), shift=(7, 8, 9))
    world = voxel_centers_in_world(ct)
    own = np.linalg.inv(above) @ [*world[30, 26, 20], 1]
    roi = add_roi(real.scene, own[:3], (14, 22, 18), turned((50, 10, -20)))
    add_transform(real.scene, above, child=roi)
    real.ui.roiSelector.setCurrentNode(roi)
    real.turn()
    before = voxels(ct)
    numbers = [getattr(real.ui, f"center{axis}SpinBox").value for axis in "RAS"]
    assert np.allclose(numbers, world[30, 26, 20], atol=0.06)  # shown to a tenth

    result = finish(real)
    mask, segmentation = mask_of(result)
    distance = roi_distance(roi, world)
    assert mask.sum() > 300
    assert np.abs(distance[mask != (distance <= 1)] - 1).max(initial=0) < 1e-6
    assert result.GetTransformNodeID() == segmentation.GetTransformNodeID() == parent.GetID()
    assert np.array_equal(voxels(ct), before)

    # Moved by its numbers, under the same transforms, the next tumor is at the new place.
    real.ui.resultSelector.setCurrentNode(None)
    real.ui.centerSSpinBox.value = numbers[2] + 6
    real.turn()
    moved, _ = mask_of(finish(real))
    assert np.abs(world[moved].mean(axis=0) - numbers - (0, 0, 6)).max() < 0.6
    distance = roi_distance(roi, world)
    assert np.abs(distance[moved != (distance <= 1)] - 1).max(initial=0) < 1e-6


def test_a_bent_scan_is_refused_and_its_hardened_copy_gets_the_tumor(real):
    ct = real.load_ct()
    add_bend(real.scene, gantry, child=ct)
    real.turn()
    real.place((30.0, 33.0, 22.0))
    real.press(real.ui.synthesizeButton)
    assert "hardened copy in the Volumes panel" in real.message
    real.press(real.volumes.remedyButton)
    copy = real.parameters.volume
    assert copy is not ct
    real.place((30.0, 33.0, 22.0))
    result = finish(real)
    mask, _ = mask_of(result)
    middle = voxel_centers_in_world(copy)[mask].mean(axis=0)
    assert np.abs(middle - (30.0, 33.0, 22.0)).max() < 0.5
    assert result.GetName() == "CT hardened (synthetic)"


def test_the_demonstration_model_is_cancelled_within_half_a_second(real, within):
    """While it paints, not only while it starts; and the next press works."""
    real.load_ct(shape=(120, 110, 60))
    real.parameters.synthesis.model = DEMONSTRATION
    real.place((60.0, 55.0, 30.0))
    button = real.panels.synthesis.run_button

    def cancelled(stage):
        before = real.scene.GetNumberOfNodes()
        real.press(real.ui.synthesizeButton)
        wait(real, lambda: stage in plain(real.ui.progressLabel) or not button.running)
        if not button.running:  # a busy machine may look away for as long as a stage lasts
            assert real.parameters.result is not None, real.message
            return math.inf
        start = time.monotonic()
        real.press(real.ui.synthesizeButton)
        wait(real, lambda: not button.running)
        duration_s = time.monotonic() - start
        assert "Nothing was changed" in real.message
        assert real.scene.GetNumberOfNodes() == before
        return duration_s

    for stage in ("Painting the tumor", "Turning it into an image"):
        within(0.5, functools.partial(cancelled, stage))
    finish(real)


def test_a_killed_slicer_leaves_no_worker_behind(tmp_path):
    path = str(ROOT / "DiffTumorSlicer" / "DiffTumorSlicer.py")
    places = os.pathsep.join((str(ROOT / "DiffTumorSlicer"), str(ROOT)))
    parent = subprocess.Popen(
        [sys.executable, "-c", OPENED.format(path=path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        lines = iter(parent.stdout.readline, "")
        worker = next(int(line.split()[1]) for line in lines if line.startswith("worker "))
        family = [psutil.Process(worker), *psutil.Process(worker).children(recursive=True)]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
        end = time.monotonic() + 20
        while (left := list(tmp_path.glob("difftumor-session-*"))) and time.monotonic() < end:
            time.sleep(0.05)
        assert left == [], "the patient's voxels stay behind"
    finally:
        parent.kill()
        parent.stdout.close()
