"""The parameter node takes its defaults and ranges from the engine, and survives scenes of any age."""

from __future__ import annotations

from dataclasses import fields

import pytest

from difftumor.parameters import Ellipsoid, SynthesisParameters
from Testing import slicer_stand_in

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
slicer = pytest.importorskip("slicer", reason="needs slicer-core")
slicer_stand_in.start()

from DiffTumorSlicerLib.jobs.parameter_node import (  # noqa: E402
    SCHEMA_VERSION,
    ModuleParameters,
    SynthesisPack,
    open_parameters,
    synthesis_request,
)


@pytest.fixture
def scene():
    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def node(scene):
    return scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "parameters")


def test_every_plain_field_of_the_engine_is_a_parameter():
    assert set(SynthesisPack.allParameters) == {f.name for f in fields(SynthesisParameters)} - {
        "ellipsoid"
    }


def test_defaults_are_the_engines():
    pack = SynthesisPack()
    engine = SynthesisParameters(ellipsoid=Ellipsoid((0.0, 0.0, 0.0)))
    for name in SynthesisPack.allParameters:
        wanted = getattr(engine, name)
        if name == "size":  # the panel starts from a size, should the place be random
            assert pack.size == "small"
        else:
            assert pack.getValue(name) == (0 if wanted is None else wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feather_mm", 4.5),
        ("steps", 0),
        ("steps", 201),
        ("seed", -1),
        ("count", 21),
        ("organ", "lung"),
    ],
)
def test_what_the_engine_refuses_the_parameter_node_refuses(node, name, value):
    parameters, _ = open_parameters(node)
    before = parameters.synthesis.getValue(name)
    with pytest.raises(ValueError, match="Value"):
        parameters.synthesis.setValue(name, value)
    assert parameters.synthesis.getValue(name) == before


def test_a_seed_of_63_bits_is_kept(node):
    parameters, _ = open_parameters(node)
    parameters.synthesis.seed = 2**63 - 1
    assert open_parameters(node)[0].synthesis.seed == 2**63 - 1


def test_an_ellipsoid_request_gives_no_size(node):
    parameters, _ = open_parameters(node)
    request = synthesis_request(parameters)
    assert request["size"] is None
    assert request["count"] is None
    asked = SynthesisParameters(**request, ellipsoid=Ellipsoid((1.0, 2.0, 3.0)))
    assert asked.ellipsoid.center_ras == (1.0, 2.0, 3.0)


def test_a_random_request_gives_a_size_and_a_count_only_if_there_is_one(node):
    parameters, _ = open_parameters(node)
    parameters.random_placement = True
    parameters.synthesis.size = "tiny"
    assert SynthesisParameters(**synthesis_request(parameters)).count is None
    parameters.synthesis.count = 2
    asked = SynthesisParameters(**synthesis_request(parameters))
    assert (asked.size, asked.count, asked.ellipsoid) == ("tiny", 2, None)


def test_values_and_nodes_come_back_with_the_scene(scene, node, tmp_path):
    parameters, _ = open_parameters(node)
    parameters.volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    parameters.segment_id = "liver"
    parameters.synthesis.blend = "paper"
    parameters.synthesis.clip_to_organ = False
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": True})
    parameters, sentence = open_parameters(scene.GetFirstNodeByName("parameters"))
    assert sentence == ""
    assert parameters.volume.GetName() == "scan"
    assert parameters.segment_id == "liver"
    assert parameters.synthesis.blend == "paper"
    assert parameters.synthesis.clip_to_organ is False


def test_a_removed_node_is_let_go(scene, node):
    parameters, _ = open_parameters(node)
    parameters.volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    scene.RemoveNode(parameters.volume)
    assert parameters.volume is None


def test_settings_of_a_newer_module_are_refused_with_a_sentence(node):
    ModuleParameters(node).synthesis.seed = 9
    node.SetParameter("schema_version", str(SCHEMA_VERSION + 1))
    parameters, sentence = open_parameters(node)
    assert "newer version" in sentence
    assert parameters.synthesis.seed == 0
    assert parameters.schema_version == SCHEMA_VERSION


def test_damaged_settings_start_from_their_defaults_with_a_sentence(node):
    ModuleParameters(node)
    node.SetParameter("synthesis.steps", "many")
    parameters, sentence = open_parameters(node)
    assert "damaged" in sentence
    assert parameters.synthesis.steps == 50


def test_settings_of_an_older_module_get_the_defaults_of_what_is_new(node):
    ModuleParameters(node).synthesis.steps = 20
    node.UnsetParameter("synthesis.grain")
    parameters, sentence = open_parameters(node)
    assert (parameters.synthesis.steps, parameters.synthesis.grain, sentence) == (20, "auto", "")
