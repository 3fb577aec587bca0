"""The phantom in Slicer's module Sample Data: offered after the start, made by a click."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest

from Testing.module.panels.bench import ROOT


class QuickMaker:
    """A PhantomMaker without a process: the phantom is there at the second look."""

    error = ""
    started: tuple[object, ...] = ()
    made: tuple[QuickMaker, ...] = ()

    def __init__(self, scene):
        self.scene, self.looks = scene, -1
        QuickMaker.made = (*QuickMaker.made, self)

    @property
    def busy(self):
        return self.looks >= 0

    def start(self, python, kind):
        QuickMaker.started = (*QuickMaker.started, (python, kind))
        self.looks = 0

    def poll(self):
        from DiffTumorSlicerLib.jobs.sample_phantom import PhantomError

        self.looks += 1
        if self.looks < 2:
            return None
        self.looks = -1
        if self.error:
            raise PhantomError(self.error)
        volume = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Phantom")
        return volume, self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Organs")


@pytest.fixture
def source(app, scene, monkeypatch):
    """What Sample Data offers of us, in a Slicer that has just been started."""
    import slicer

    from DiffTumorSlicerLib.panels.shared import sample_data
    from Testing.slicer_stand_in import load_module
    from Testing.slicer_stand_in.pythonqt import emit

    monkeypatch.setattr(sample_data, "PhantomMaker", QuickMaker)
    monkeypatch.setattr(QuickMaker, "started", ())
    monkeypatch.setattr(QuickMaker, "made", ())
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {})
    load_module(ROOT / "DiffTumorSlicer" / "DiffTumorSlicer.py")
    emit(app, "startupCompleted()")
    # Each file that was loaded in this process listens to the start; the last one is this test's.
    return slicer.modules.sampleDataSources["DiffTumor Slicer"][-3]


def test_phantoms_with_a_lesion_are_offered_too(app, scene, source):
    import slicer

    offered = slicer.modules.sampleDataSources["DiffTumor Slicer"][-3:]
    assert [one.sampleName for one in offered] == [
        "Phantom abdomen", "Phantom abdomen with a lesion", "Phantom head",
    ]  # fmt: skip
    assert all(Path(one.thumbnailFileName).is_file() for one in offered)
    for one in offered:
        click(app, one)
    assert [kind for _python, kind in QuickMaker.started] == ["abdomen", "lesion", "head"]


def click(app, source, times=1):
    for _ in range(times):
        source.customDownloader(source)  # as the module's button does
    end = time.monotonic() + 60
    while any(maker.busy for maker in QuickMaker.made) and time.monotonic() < end:
        app.processEvents()
        time.sleep(0.01)


def test_is_offered_with_a_picture_and_nothing_to_download(source):
    assert source.sampleName == "Phantom abdomen"
    assert source.uris == []
    assert Path(source.thumbnailFileName).is_file()


def test_a_click_adds_the_phantom_and_a_second_one_meanwhile_does_not(app, scene, source):
    click(app, source, times=2)
    assert len(QuickMaker.started) == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    click(app, source)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2


def test_a_failure_is_a_sentence(app, scene, source, monkeypatch, caplog):
    monkeypatch.setattr(QuickMaker, "error", "The disk is full. Free some space.")
    with caplog.at_level(logging.ERROR):
        click(app, source)
    assert "The phantom could not be made. The disk is full. Free some space." in caplog.text
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_a_slicer_without_sample_data_starts_all_the_same(app, source, monkeypatch):
    import slicer

    monkeypatch.delattr(slicer.modules, "sampledata")
    monkeypatch.setitem(sys.modules, "SampleData", None)
    slicer.modules.sampleDataSources.clear()
    sys.modules["DiffTumorSlicer"].registerSampleData()
    assert slicer.modules.sampleDataSources == {}
