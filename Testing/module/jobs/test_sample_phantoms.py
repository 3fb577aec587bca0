"""Sample data without a patient: abdomen, abdomen with a lesion, head; made by their own process."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from Testing.module.scene.scenes import segment_voxels, slicer, voxels

from DiffTumorSlicerLib.jobs.case_images import find_sequence_nodes  # isort: skip
from DiffTumorSlicerLib.jobs.sample_phantom import HEAD, LESION, PhantomMaker  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import modality_of  # isort: skip

SLOW_S = 240.0


def made(scene, kind):
    maker = PhantomMaker(scene)
    maker.start(sys.executable, kind)
    end = time.monotonic() + SLOW_S
    try:
        while time.monotonic() < end:
            if (found := maker.poll()) is not None:
                return found
            time.sleep(0.02)
    finally:
        maker.close()
    raise AssertionError("no phantom came")


@pytest.fixture
def coarse(monkeypatch):
    """Phantoms of few voxels."""
    from DiffTumorSlicerLib.jobs import sample_phantom

    monkeypatch.setattr(sample_phantom, "SPACING_MM", (2.5, 2.5, 5.0))
    monkeypatch.setattr(sample_phantom, "HEAD_SPACING_MM", (3.0, 3.0, 4.0))


def test_a_lesion_lies_in_a_kidney_and_belongs_to_its_outline(scene, coarse):
    volume, segmentation = made(scene, LESION)
    assert "with a lesion" in volume.GetName()
    array, segments = voxels(volume), segmentation.GetSegmentation()
    depths = []
    for name in ("right kidney", "left kidney"):
        mask = segment_voxels(segmentation, segments.GetSegmentIdBySegmentName(name), array.shape)
        assert mask.any()
        depths.append(np.median(array[mask]) - np.percentile(array[mask], 2))
    assert max(depths) > 60, "one of the kidneys has something dark in it"


def test_a_head_brings_its_four_sequences_and_its_brain(scene, coarse):
    volume, segmentation = made(scene, HEAD)
    found = find_sequence_nodes(scene, volume)
    assert set(found) == {"t1", "t1c", "t2", "flair"}
    assert found["flair"] is volume
    assert {modality_of(scene, node) for node in found.values()} == {"MR"}
    array = voxels(volume)
    brain = segment_voxels(segmentation, "brain", array.shape)
    assert (array[~brain] == 0).all()
    assert np.median(array[brain]) > 0
    term = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    from Testing.module.scene.scenes import vtk

    segment = segmentation.GetSegmentation().GetSegment("brain")
    text = vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), text)
    assert logic.DeserializeTerminologyEntry(str(text), term)
    assert term.GetTypeObject().GetCodeValue() == "12738006"
