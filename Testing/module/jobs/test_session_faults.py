"""What can be known to fail is refused at the press: a sentence with the next step, and nothing started."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_roi,
    add_segmentation,
    add_volume,
    gantry,
    turned,
    voxels,
)

from difftumor.parameters import Ellipsoid, SynthesisParameters  # isort: skip
from DiffTumorSlicerLib.scene.geometry import SceneError  # isort: skip
from DiffTumorSlicerLib.scene.hardening import harden_clone  # isort: skip
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid  # isort: skip
from DiffTumorSlicerLib.jobs.host import Host, free_disk_bytes, free_memory_bytes  # isort: skip
from DiffTumorSlicerLib.session import Session  # isort: skip

SHAPE = (60, 52, 44)


@pytest.fixture
def ct(scene):
    return add_ct(scene)


@pytest.fixture
def refused(session, bridge, scene):
    """A function that asks, expects a refusal, and sees that nothing happened."""

    def ask(parameters, volume, match, **kwargs):
        count = scene.GetNumberOfNodes()
        with pytest.raises(SceneError, match=match) as caught:
            session.synthesize(parameters, volume, **kwargs)
        text = str(caught.value)
        assert text[0] in '"' or text[0].isupper(), text
        assert text.endswith("."), text
        assert "--" not in text
        assert bridge.requests == {}
        assert session.states["synthesis"].kind == "idle"
        assert scene.GetNumberOfNodes() == count

    return ask


def ball(center, radius=8.0, **kwargs):
    return SynthesisParameters(ellipsoid=Ellipsoid(center, (radius,) * 3), **kwargs)


def test_no_volume(refused, parameters):
    refused(parameters, None, r"no volume yet.*Load a CT")


def test_no_ellipsoid(refused, ct):
    refused({"model": "modelled"}, ct, r"no ellipsoid yet.*Press Place")


def test_roi_without_a_place(refused, scene, ct, parameters):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    refused(parameters, ct, r"no place yet.*click", roi_node=roi)


def test_roi_outside_too_wide_too_small(refused, scene, ct, parameters):
    refused(
        parameters,
        ct,
        r"outside the scan.*Move it",
        roi_node=add_roi(scene, (500, 0, 0), (9, 9, 9)),
    )
    refused(parameters, ct, "at most 84 mm", roi_node=add_roi(scene, (30, 26, 22), (100, 9, 9)))
    refused(parameters, ct, "at least two", roi_node=add_roi(scene, (30, 26, 22), (1.2, 9, 9)))


def test_wrong_numbers(refused, ct, parameters):
    refused({"ellipsoid": {"center_ras": (30, 26, 22)}, "steps": 0}, ct, r"steps must be 1 to 200")
    refused({"ellipsoid": {"center_ras": (30, 26, 22)}, "paint": 1}, ct, "does not know paint")


def test_no_image_vector_label_map_single_slice(refused, scene, parameters):
    refused(parameters, scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "e"), "holds no image")
    labels = add_volume(scene, "l", np.ones(SHAPE, np.uint8), kind="vtkMRMLLabelMapVolumeNode")
    refused(parameters, labels, r"label map.*Choose the CT")
    refused(parameters, add_ct(scene, "flat", shape=(60, 52, 1)), r"single slice.*whole series")


def test_bent_volume_and_the_remedy_works(session, bridge, scene, refused, ct):
    """Refused with the remedy; the remedy makes a volume that is accepted, at the right place."""
    add_bend(scene, gantry, child=ct)
    before = voxels(ct)
    refused(ball((30, 33, 22)), ct, "hardened copy in the Volumes panel")
    copy = harden_clone(scene, ct)
    session.synthesize(ball((30, 33, 22)), copy)
    assert np.allclose(bridge.requests[1][1]["affine"], volume_grid(copy).affine)
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "done"
    assert (
        scene.GetNodeByID(session.states["synthesis"].result_node_id).GetName()
        == "CT hardened (synthetic)"
    )
    assert np.array_equal(voxels(ct), before)


def test_bent_roi(refused, scene, ct, parameters):
    roi = add_roi(scene, (30, 26, 22), (9, 9, 9))
    add_bend(scene, gantry, child=roi)
    refused(parameters, ct, r"Transforms module, or place a new one", roi_node=roi)


def test_organs(refused, scene, ct, parameters):
    empty, elsewhere = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    elsewhere[50:56, 40:48, 30:40] = True
    node, ids = add_segmentation(scene, ct, {"empty": empty, "kidney": elsewhere})
    refused(parameters, ct, "several segments", segmentation_node=node)
    for name, match in (
        ("empty", r"no voxel inside the volume.*Choose another segment"),
        ("kidney", r"entirely outside the organ.*Move it"),
    ):
        refused(parameters, ct, match, segmentation_node=node, segment_id=ids[name])
    refused(parameters, ct, "Choose the organ again", segmentation_node=node, segment_id="gone")
    bare = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bare")
    refused(parameters, ct, "has no segments", segmentation_node=bare)
    far, far_ids = add_segmentation(scene, add_ct(scene, "far", affine=turned((0, 0, 0), shift=(900, 0, 0))),
                                    {"liver": ~empty})  # fmt: skip
    refused(
        parameters,
        ct,
        "belongs to another scan",
        segmentation_node=far,
        segment_id=far_ids["liver"],
    )


def test_random_placement_needs_an_organ(refused, ct):
    refused(SynthesisParameters(size="small"), ct, r"needs an organ.*or place an ellipsoid")
    refused({"size": "small"}, ct, "needs an organ")


def test_organ_elsewhere_is_fine_when_it_does_not_clip(session, bridge, scene, ct):
    elsewhere = np.zeros(SHAPE, bool)
    elsewhere[50:56, 40:48, 30:40] = True
    node, _ = add_segmentation(scene, ct, {"kidney": elsewhere})
    session.synthesize(ball((30, 26, 22), clip_to_organ=False), ct, segmentation_node=node)
    assert len(bridge.requests) == 1


def test_models(refused, ct):
    place = (30, 26, 22)
    refused(ball(place, model="no-such-model"), ct, r'no model "no-such-model".*Models panel')
    refused(
        ball(place, model="difftumor-liver-early"),
        ct,
        r"is not installed. Press Download or Import",
    )
    refused(
        ball(place, model="difftumor-autoencoder"), ct, r"not for tumor synthesis. Choose another"
    )


def test_a_result_of_somebody_else(refused, scene, ct, parameters):
    refused(parameters, ct, "was not made by this module", into=add_ct(scene, "foreign"))


@pytest.mark.parametrize(
    ("host", "match"),
    [
        (
            Host(free_memory=lambda: 10**8, free_disk=lambda _: 10**12),
            r"GB of memory are needed.*Crop Volume",
        ),
        (
            Host(free_memory=lambda: None, free_disk=lambda _: 10**6),
            r"MB are needed for temporary files.*Free some",
        ),
    ],
)
def test_memory_and_disk_are_checked_before_the_start(scene, bridge, ct, parameters, host, match):
    session = Session(scene, bridge=bridge, host=host)
    with pytest.raises(SceneError, match=match):
        session.synthesize(parameters, ct)
    with pytest.raises(SceneError, match=match):
        session.variants(parameters, ct)
    assert bridge.requests == {}
    session.close()


def test_a_temporary_folder_that_is_gone(scene, bridge, ct, parameters, tmp_path):
    session = Session(
        scene,
        bridge=bridge,
        host=Host(temporary_folder=tmp_path / "gone", free_memory=lambda: None),
    )
    with pytest.raises(SceneError, match=r"cannot be used.*Choose another"):
        session.synthesize(parameters, ct)
    session.close()


def test_the_host_measures_this_computer(tmp_path):
    assert free_memory_bytes() > 10**7
    assert free_disk_bytes(tmp_path) > 0
    assert Host(temporary_folder=tmp_path).arrays_folder == tmp_path
    assert Host().arrays_folder.is_dir()
