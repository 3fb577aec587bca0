"""Heat maps from request to nodes: geometry, what is kept, what is refused, and the way back from a scene."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.module.scene.anomaly_answers import (
    CT_MODEL,
    SEQUENCES,
    answer_map,
    list_model,
    list_mr_model,
    stop_map,
)
from Testing.module.scene.scenes import (
    add_bend,
    add_ct,
    add_segmentation,
    add_transform,
    add_volume,
    gantry,
    make_scene,
    oblique_affine,
    segment_voxels,
    slicer,
    turned,
    voxel_centers_in_world,
    voxels,
)

from difftumor.weights import models  # isort: skip
from DiffTumorSlicerLib.anomaly import results as anomaly_results  # isort: skip
from DiffTumorSlicerLib.anomaly import segments as anomaly_segments  # isort: skip
from DiffTumorSlicerLib.anomaly import probability  # isort: skip
from DiffTumorSlicerLib.scene import heat_display  # isort: skip
from DiffTumorSlicerLib.anomaly.exporting import save_map_files  # isort: skip
from DiffTumorSlicerLib.jobs.case_images import find_sequence_nodes  # isort: skip
from DiffTumorSlicerLib.scene.results import input_of, segmentation_of, sidecar_of  # isort: skip
from DiffTumorSlicerLib.session import SessionError  # isort: skip

SHAPE = (30, 26, 22)
FIELDS = {"model": CT_MODEL}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path / "models"))
    list_model(tmp_path / "models")
    return tmp_path / "models"


def ball(shape=SHAPE, center=None, radius=8):
    """A round organ."""
    center = np.array(shape) / 2 if center is None else np.array(center)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.linalg.norm(index - center, axis=-1) <= radius


def case(scene, affine=None, dtype=np.int16):
    ct = add_ct(scene, shape=SHAPE, affine=affine, dtype=dtype)
    organs, ids = add_segmentation(scene, ct, {"liver": ball()})
    return ct, organs, ids["liver"]


def make(session, bridge, ct, organs, segment_id, **fields):
    """A finished map."""
    asked = {**FIELDS, **fields}
    number = session.anomaly(asked, ct, segmentation_node=organs, segment_id=segment_id)
    answer_map(bridge, len(bridge.requests))
    session.poll()
    state = session.states["anomaly"]
    assert state.number == number
    assert state.kind == "done", state.sentence
    return session.scene.GetNodeByID(state.result_node_id)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("left_handed", [True, False])
def test_a_bright_voxel_lights_up_the_same_place_of_the_patient(
    scene, session, bridge, home, plane, left_handed
):
    """Oblique, anisotropic, left- and right-handed, under a linear transform (issue 4, point 5)."""
    ct, organs, segment_id = case(scene, oblique_affine(left_handed=left_handed))
    parent = add_transform(scene, turned((10, -20, 30), shift=(40, 0, -25)), child=ct)
    organs.SetAndObserveTransformNodeID(parent.GetID())
    bright = (17, 11, 13)
    array = voxels(ct)
    array[bright] = 900
    slicer.util.updateVolumeFromArray(ct, array.T.copy())
    before = voxels(ct)
    node = make(session, bridge, ct, organs, segment_id, plane=plane)
    assert np.array_equal(voxels(ct), before), "the input is bit-identical"
    assert node.GetTransformNodeID() == parent.GetID()
    hottest = np.unravel_index(voxels(node).argmax(), SHAPE)
    assert hottest == bright
    where = voxel_centers_in_world(node)[hottest]
    assert np.allclose(where, voxel_centers_in_world(ct)[bright], atol=1e-9)
    healthy = anomaly_results.healthy_of(node)[0]
    assert healthy.GetTransformNodeID() == parent.GetID()
    assert np.allclose(voxel_centers_in_world(healthy), voxel_centers_in_world(ct))
    changed = voxels(healthy) != before
    assert changed.any()
    assert not changed[~ball()].any(), "outside the organ nothing is rewritten"
    assert voxels(healthy).dtype == before.dtype


def test_the_request_carries_images_organ_and_place(scene, session, bridge, home):
    ct, organs, segment_id = case(scene, oblique_affine())
    session.anomaly(
        {**FIELDS, "slices": (9, 12)}, ct, segmentation_node=organs, segment_id=segment_id
    )
    task, asked, arrays, panel = bridge.requests[1]
    assert (task, panel) == ("anomaly", "anomaly")
    assert asked["parameters"]["slices"] == (9, 12)
    assert asked["parameters"]["noise_level"] is None, "as the model recommends"
    assert set(arrays) == {"image_ct", "organ"}
    assert np.array_equal(arrays["image_ct"], voxels(ct))
    assert np.array_equal(arrays["organ"] > 0, ball())


def test_a_map_says_what_it_is_and_how_it_was_made(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    node = make(session, bridge, ct, organs, segment_id, noise_level=200, guidance_scale=7.5)
    assert node.GetName() == "CT anomaly map, N 200 S 7.5 (research only)"
    assert anomaly_results.is_map(node)
    assert input_of(node) is ct
    sidecar = sidecar_of(node)
    assert sidecar["task"] == "anomaly"
    assert sidecar["parameters"]["guidance_scale"] == 7.5
    assert sidecar["model"]["id"] == CT_MODEL
    assert sidecar["inputs"]["ct"]["name"] == "CT"
    assert sidecar["inputs"]["organ"]["segment"] == segment_id
    assert sidecar["versions"] == {"torch": "of the worker"}
    healthy = anomaly_results.healthy_of(node)[0]
    assert healthy.GetName() == "CT rewritten as healthy, N 200 S 7.5 (generated)"
    assert "marked" in session.states["anomaly"].sentence


def test_several_maps_are_kept_and_told_apart(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    first = make(session, bridge, ct, organs, segment_id, guidance_scale=5.0)
    second = make(session, bridge, ct, organs, segment_id, guidance_scale=5.0)
    other_ct = add_ct(scene, "other", shape=SHAPE)
    third = make(session, bridge, other_ct, organs, segment_id, guidance_scale=5.0)
    assert first.GetName() != second.GetName()
    assert anomaly_results.maps_of(scene, ct) == [first, second]
    assert anomaly_results.maps_of(scene) == [first, second, third]


def test_the_live_map_is_replaced_and_never_another_one(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    kept = make(session, bridge, ct, organs, segment_id)
    before = voxels(kept)
    for turn, index in enumerate((8, 12)):
        asked = {**FIELDS, "slices": (index, index + 1)}
        session.anomaly(asked, ct, segmentation_node=organs, segment_id=segment_id, live=True)
        answer_map(bridge, turn + 2)
        session.poll()
        live = scene.GetNodeByID(session.states["anomaly"].result_node_id)
        assert live is anomaly_results.live_map_of(scene, ct)
        shown = voxels(live)
        assert set(np.flatnonzero(shown.any(axis=(0, 1)))) == {index}, "the last slice is gone"
    assert np.array_equal(voxels(kept), before)
    assert len(anomaly_results.maps_of(scene)) == 2
    assert len(anomaly_results.healthy_of(live)) == 1


def test_a_cancel_keeps_the_finished_slices(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    session.cancel()
    stop_map(bridge, 1, unfinished=5)
    session.poll()
    state = session.states["anomaly"]
    assert state.kind == "cancelled"
    node = scene.GetNodeByID(state.result_node_id)
    assert "12 finished of 17 slices" in state.sentence
    assert len(anomaly_results.slices_of(node)) == 12
    assert sidecar_of(node)["result"]["unfinished"] == 5
    filled = np.flatnonzero(voxels(node).any(axis=(0, 1)))
    assert len(filled) == 12


def test_a_cancel_before_the_first_slice_changes_nothing(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    nodes = scene.GetNumberOfNodes()
    session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    session.cancel()
    session.poll()
    assert session.states["anomaly"].kind == "cancelled"
    assert "Nothing was changed" in session.states["anomaly"].sentence
    assert scene.GetNumberOfNodes() == nodes


def test_partial_results_of_a_scene_that_was_closed_are_thrown_away(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    request = bridge.requests[1]
    scene.Clear(0)
    assert bridge.requests[1] is request
    stop_map(bridge, 1, unfinished=5)
    session.poll()
    assert session.states["anomaly"].kind == "cancelled"
    assert "scene was closed" in session.states["anomaly"].sentence
    assert bridge.results == {}, "the files are taken, so that they are removed"
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_the_input_deleted_during_the_job(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    scene.RemoveNode(ct)
    session.poll()
    state = session.states["anomaly"]
    assert state.kind == "failed"
    assert "was removed from the scene" in state.sentence
    assert "Choose a volume" in state.sentence


def test_all_healthy_slices_give_an_empty_map_and_say_what_to_do(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    answer_map(bridge, 1, gated=range(30))
    session.poll()
    state = session.states["anomaly"]
    assert "Nothing is marked" in state.sentence
    assert "Leave healthy slices empty" in state.sentence
    assert not voxels(scene.GetNodeByID(state.result_node_id)).any()


# ------------------------------------------------------------------------------------- MR sequences


def sequences(scene, names=("case t1", "case T1ce", "case T2", "case FLAIR"), **more):
    return [
        add_volume(
            scene, name, np.random.default_rng(n).uniform(0, 800, SHAPE).astype(np.float32), **more
        )
        for n, name in enumerate(names)
    ]


def test_four_sequences_are_found_by_name_and_sent_in_the_models_order(
    scene, session, bridge, home
):
    list_mr_model(home)
    nodes = sequences(scene)
    add_volume(scene, "ADC", np.zeros(SHAPE, np.float32))
    found = find_sequence_nodes(scene, None)
    assert found == dict(zip(SEQUENCES, nodes, strict=True))
    brain, ids = add_segmentation(scene, nodes[0], {"brain": ball()})
    session.anomaly(
        {"model": "mr-anomaly"}, found, segmentation_node=brain, segment_id=ids["brain"]
    )
    arrays = bridge.requests[1][2]
    assert list(arrays) == ["image_t1", "image_t1c", "image_t2", "image_flair", "organ"]
    answer_map(bridge, 1)
    session.poll()
    node = scene.GetNodeByID(session.states["anomaly"].result_node_id)
    assert input_of(node) is found["flair"], "the map lies over the FLAIR image"
    healthy = anomaly_results.healthy_of(node)
    assert input_of(healthy[0]).GetName() == "case FLAIR"
    assert len(healthy) == 4


def test_sequences_beside_the_chosen_scan_come_first(scene):
    study = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    sequences(scene, ("old t1", "old flair"))
    new = sequences(scene, ("new t1", "new flair"))
    item = study.CreateStudyItem(study.GetSceneItemID(), "new study")
    for node in new:
        study.SetItemParent(study.GetItemByDataNode(node) or study.CreateItem(item, node), item)
    found = find_sequence_nodes(scene, new[1])
    assert found == {"t1": new[0], "flair": new[1]}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda scene, found: found.pop("t2"), "Not chosen yet: T2"),
        (
            lambda scene, found: add_transform(scene, turned((0, 0, 5)), child=found["t2"]),
            r"different geometry.*General Registration \(BRAINS\)",
        ),
        (
            lambda scene, found: found.update(
                t2=add_volume(scene, "t2 small", np.ones((10, 10, 10), np.float32))
            ),
            r"different geometry.*General Registration \(BRAINS\)",
        ),
        (lambda scene, found: found.update(t2=found["t1"]), "same volume is chosen for two"),
        (
            lambda scene, found: found.update(t2=add_ct(scene, "t2", shape=SHAPE)),
            "is a CT, but .* is a model for MR images",
        ),
        (
            lambda scene, found: add_bend(scene, gantry, child=found["t2"]),
            "bends space.*hardened copy",
        ),
    ],
    ids=["missing", "moved", "another grid", "twice", "a CT", "bent"],
)
def test_sequences_that_do_not_fit_are_refused_with_the_remedy(
    scene, session, bridge, home, spoil, words
):
    list_mr_model(home)
    found = dict(zip(SEQUENCES, sequences(scene), strict=True))
    spoil(scene, found)
    with pytest.raises(ValueError, match=words):
        session.anomaly({"model": "mr-anomaly"}, found)
    assert not bridge.requests


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "nobody"}, "no model"),
        ({"model": "demo-abdomen-early"}, "not for anomaly maps"),
        ({"model": CT_MODEL, "noise_level": 1000}, "noise_level must be 1 to 999"),
        ({"model": CT_MODEL, "guidance_scale": -1.0}, "guidance_scale must be 0 to"),
        ({"model": CT_MODEL, "slices": (0, 40)}, "Choose slices of the image"),
        ({"model": CT_MODEL, "slices": (0, 2)}, "nothing of the chosen segment in these slices"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_start(scene, session, bridge, home, fields, words):
    ct, organs, segment_id = case(scene)
    with pytest.raises(SessionError, match=words):
        session.anomaly(fields, ct, segmentation_node=organs, segment_id=segment_id)
    assert not bridge.requests


def test_an_mr_image_is_refused_by_a_ct_model(scene, session, home):
    ct, organs, segment_id = case(scene)
    study = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = study.GetItemByDataNode(ct) or study.CreateItem(study.GetSceneItemID(), ct)
    study.SetItemAttribute(item, "DICOM.Modality", "MR")
    with pytest.raises(SessionError, match=r"is an MR image, but .* a model for CT"):
        session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)


def test_an_empty_organ_no_scan_and_a_map_as_input_are_refused(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    empty, ids = add_segmentation(scene, ct, {"liver": np.zeros(SHAPE, bool)})
    with pytest.raises(SessionError, match="empty or belongs to another scan"):
        session.anomaly(FIELDS, ct, segmentation_node=empty, segment_id=ids["liver"])
    with pytest.raises(SessionError, match="no scan yet"):
        session.anomaly(FIELDS, None)
    node = make(session, bridge, ct, organs, segment_id)
    with pytest.raises(SessionError, match="was made by this module"):
        session.anomaly(FIELDS, node, segmentation_node=organs, segment_id=segment_id)


def test_too_little_memory_is_said_before_the_start(scene, bridge, home):
    from DiffTumorSlicerLib.jobs.host import Host
    from DiffTumorSlicerLib.session import Session

    session = Session(scene, bridge=bridge, host=Host(free_memory=lambda: 10**6))
    ct, organs, segment_id = case(scene)
    with pytest.raises(SessionError, match="GB of memory are needed"):
        session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    session.close()


# ------------------------------------------------------------------------------- what is made of it


def test_colors_grow_in_brightness_and_a_low_value_is_never_shown(scene, session, bridge, home):
    for table in heat_display.TABLES:
        colors = heat_display.colors_of(table)
        luminance = colors @ (0.2126, 0.7152, 0.0722)
        assert (np.diff(luminance) > -2e-3).all(), f"{table} is safe for color-blind readers"
    ct, organs, segment_id = case(scene)
    node = make(session, bridge, ct, organs, segment_id)
    heat_display.style_map(scene, node, "viridis", 0.35)
    display = node.GetDisplayNode()
    assert display.GetColorNode().GetAttribute(heat_display.COLORS) == "viridis"
    assert display.GetLowerThreshold() == 0.35
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)
    heat_display.style_map(scene, node, "inferno", 0.0)
    assert display.GetLowerThreshold() > 0
    assert heat_display.color_node(scene, "inferno") is heat_display.color_node(scene, "inferno")


def test_a_segmentation_of_what_is_shown_has_a_standard_term_and_says_what_it_is(
    scene, session, bridge, home
):
    ct, organs, segment_id = case(scene, oblique_affine())
    parent = add_transform(scene, turned((0, 0, 30)), child=ct)
    organs.SetAndObserveTransformNodeID(parent.GetID())
    node = make(session, bridge, ct, organs, segment_id)
    segmentation, count = anomaly_segments.segment_map(scene, node, 0.6)
    mask = voxels(node) > 0.6
    assert count == mask.sum() > 0
    assert segmentation_of(node) is segmentation
    assert segmentation.GetTransformNodeID() == parent.GetID()
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    assert "anomaly map, research only" in segment.GetName()
    found = segment_voxels(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), SHAPE)
    assert np.array_equal(found, mask)
    term = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic()
    assert logic.DeserializeTerminologyEntry(segment_tag(segment), term)
    assert term.GetCategoryObject().GetCodeValue() == "49755003"
    assert term.GetRegionObject().GetCodeMeaning() == "Liver"
    again, _ = anomaly_segments.segment_map(scene, node, 0.6)
    assert again is segmentation
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1, "replaced, not doubled"
    anomaly_segments.segment_map(scene, node, 0.8, largest=True)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    with pytest.raises(ValueError, match="Nothing of the map lies above"):
        anomaly_segments.segment_map(scene, node, 1.0)


def segment_tag(segment):
    from Testing.module.scene.scenes import vtk

    value = vtk.reference("")
    assert segment.GetTag(segment.GetTerminologyEntryTagName(), value)
    return str(value)


def test_the_automatic_threshold_lies_between_the_two_kinds_of_values(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    node = make(session, bridge, ct, organs, segment_id)
    assert 0 < anomaly_segments.automatic_threshold(node) < 1
    slicer.util.updateVolumeFromArray(node, np.zeros(SHAPE[::-1], np.float32))
    assert anomaly_segments.automatic_threshold(node) is None


def test_the_curve_holds_the_probability_of_each_slice(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    node = make(session, bridge, ct, organs, segment_id, plane="coronal")
    chart = probability.chart_of(node)
    slices = anomaly_results.slices_of(node)
    series = chart.GetNthPlotSeriesNode(0)
    table = series.GetTableNode().GetTable()
    assert table.GetNumberOfRows() == len(slices) == 17
    assert "mm A" in chart.GetXAxisTitle()
    for row, one in enumerate(slices):
        assert table.GetValueByName(row, series.GetYColumnName()).ToDouble() == one["probability"]
        place = probability.position_of_point(node, series.GetID(), row)
        assert place == pytest.approx(one["position_mm"])
    assert probability.position_of_point(node, "another series", 0) is None
    probability.mark_position(node, slices[3]["position_mm"])
    here = chart.GetNthPlotSeriesNode(2).GetTableNode().GetTable()
    assert here.GetValueByName(0, "Position").ToDouble() == slices[3]["position_mm"]


def test_removing_a_map_removes_all_that_belongs_to_it(scene, session, bridge, home):
    ct, organs, segment_id = case(scene)
    heat_display.color_node(scene, "inferno")
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    node = make(session, bridge, ct, organs, segment_id)
    heat_display.style_map(scene, node, "inferno", 0.35)
    anomaly_segments.segment_map(scene, node, 0.6)
    assert session.remove_map(node) == []
    after = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    assert after == before
    session.anomaly(FIELDS, ct, segmentation_node=organs, segment_id=segment_id)
    with pytest.raises(SessionError, match="A map is being made"):
        session.remove_map(ct)


def test_a_map_is_found_again_when_a_scene_is_opened(scene, session, bridge, home, tmp_path):
    ct, organs, segment_id = case(scene, np.diag([0.8, 1.1, 2.5, 1.0]))
    node = make(session, bridge, ct, organs, segment_id)
    heat_display.style_map(scene, node, "cividis", 0.4)
    anomaly_segments.segment_map(scene, node, 0.6)
    kept = voxels(node), sidecar_of(node), node.GetName()
    path = str(tmp_path / "scene.mrb")
    save(scene, path)
    other = make_scene(tmp_path / "cache")
    load(other, path)
    (found,) = anomaly_results.maps_of(other)
    assert found.GetName() == kept[2]
    assert np.allclose(voxels(found), kept[0])
    assert sidecar_of(found) == kept[1]
    assert input_of(found).GetName() == "CT"
    assert len(anomaly_results.healthy_of(found)) == 1
    assert segmentation_of(found).GetSegmentation().GetNumberOfSegments() == 1
    series = probability.chart_of(found).GetNthPlotSeriesNode(0)
    assert series.GetTableNode().GetTable().GetNumberOfRows() == 17
    display = found.GetDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(0.4)
    colors = display.GetColorNode()
    assert colors.GetAttribute(heat_display.COLORS) == "cividis"
    wanted = heat_display.colors_of("cividis")
    lookup = colors.GetLookupTable()
    shown = np.array([lookup.GetTableValue(n)[:3] for n in range(256)])
    assert np.abs(shown - wanted).max() < 0.01
    # And it can be worked on: the same table is used again, the map can go.
    assert heat_display.color_node(other, "cividis") is colors
    anomaly_results.remove_map(other, found)
    assert anomaly_results.maps_of(other) == []


def save(scene, path):
    assert scene.WriteToMRB(path)


def load(scene, path):
    assert scene.ReadFromMRB(path, True)


def test_files_of_a_map_have_the_scans_geometry_and_say_what_they_are(
    scene, session, bridge, home, tmp_path
):
    from difftumor.images.volumes import read_volume

    ct, organs, segment_id = case(scene, oblique_affine(left_handed=False))
    node = make(session, bridge, ct, organs, segment_id)
    for suffix in (".nii.gz", ".nrrd"):
        folder = tmp_path / suffix.strip(".")
        folder.mkdir()
        written = save_map_files(scene, node, folder / f"x-anomaly-map{suffix}", 0.5)
        names = [path.name for path in written]
        assert names == [
            f"x-anomaly-map{suffix}", f"x-anomaly-map-mask{suffix}", f"x-anomaly-map-healthy{suffix}",
            "x-anomaly-map.json",
        ]  # fmt: skip
        whole = read_volume(written[0])
        assert np.allclose(whole.array, voxels(node), atol=1e-6)
        assert np.allclose(whole.affine, oblique_affine(left_handed=False), atol=1e-4)
        assert np.array_equal(read_volume(written[1]).array > 0, voxels(node) > 0.5)
        assert '"Research use only."' in written[3].read_text()
    assert scene.GetFirstNodeByName(f"{node.GetName()} mask") is None


def test_the_models_of_this_task_are_known(home):
    from DiffTumorSlicerLib.jobs.case_models import anomaly_rows, model_facts

    rows = anomaly_rows(models.list_models())
    installed = [row["installed"] for row in rows]
    assert installed == sorted(installed, reverse=True), "installed ones come first"
    assert CT_MODEL in [row["id"] for row in rows]
    assert {row["task"] for row in rows} == {"anomaly"}
    facts = model_facts(CT_MODEL, rows)
    assert facts.recommended["noise_level"] == 180
    assert facts.recommended["gate_probability"] == 0.5, "what the card does not say"
    assert facts.channels == ("ct",)
    assert not facts.of_brain
    assert facts.passes(360, None) == pytest.approx(2 * facts.passes(180, None))
    list_mr_model(home)
    assert model_facts("mr-anomaly").channels == SEQUENCES
    assert model_facts("mr-anomaly").of_brain
