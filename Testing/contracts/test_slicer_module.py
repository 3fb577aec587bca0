"""The genuine module file: loads with nothing installed, opens, reloads, closes, and works from a script."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
import unittest

import numpy as np
import pytest

from Testing import slicer_stand_in
from Testing.contracts.slicer_sources import MODULE, MODULE_FILE, ROOT

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
slicer = pytest.importorskip("slicer", reason="needs slicer-core")

APP = slicer_stand_in.start()
WAIT_S = 300  # a busy machine imports torch slowly

# What a Slicer right after the installation of the extension does not have.
NOT_INSTALLED = (
    "torch", "monai", "einops", "nibabel", "safetensors", "tyro", "rich", "jsonschema",
    "psutil", "matplotlib", "lightning", "hypothesis",
)  # fmt: skip

BARE = """
import socket, sys
for name in {blocked!r}:
    sys.modules[name] = None
def refuse(*_):
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refuse
from Testing import slicer_stand_in
app = slicer_stand_in.start()
module = slicer_stand_in.load_module({path!r})
import slicer
assert slicer.util.mainWindow() is None and app.layoutManager() is None
from DiffTumorSlicerLib import session
assert session._ is slicer.i18n.tr, "sentences of the session are not translated"
panel = module.widgetRepresentation()
panel.enter(); panel.show(); app.processEvents()
panel.exit(); panel.self().cleanup()
assert slicer_stand_in.slot_errors() == [], slicer_stand_in.slot_errors()
loaded = sorted(set(sys.modules) & {{"torch", "DICOMLib", "PyTorchUtils"}})
assert [n for n in loaded if sys.modules[n] is not None] == [], loaded
print("built", module.title)
"""


@pytest.fixture(scope="module")
def module():
    return slicer_stand_in.load_module(MODULE_FILE)


@pytest.fixture
def panel(module):
    slicer.mrmlScene.Clear(0)
    slicer_stand_in.slot_errors()
    made = module.createNewWidgetRepresentation()
    made.enter()
    yield made
    made.exit()
    made.self().cleanup()
    slicer.mrmlScene.Clear(0)
    assert slicer_stand_in.slot_errors() == []


def observers_of(scene):
    events = (scene.StartCloseEvent, scene.EndCloseEvent, scene.EndImportEvent, scene.NodeAddedEvent,
              scene.NodeRemovedEvent)  # fmt: skip
    return [bool(scene.HasObserver(event)) for event in events]


def test_the_module_opens_with_nothing_installed_no_network_and_no_main_window():
    program = BARE.format(blocked=NOT_INSTALLED, path=str(MODULE_FILE))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(MODULE), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "built DiffTumor Slicer" in done.stdout


def test_what_slicer_shows_of_the_module(module):
    assert module.title == "DiffTumor Slicer"
    assert module.categories == ["Image Synthesis"]
    assert "Research use only" in module.helpText
    assert "https://" in module.helpText
    assert "cite" in module.acknowledgementText
    assert len(module.contributors) >= 1
    assert not module.icon.isNull(), "Resources/Icons/DiffTumorSlicer.png is missing"


def test_leaving_and_entering_the_module_keeps_the_parameters(panel):
    panel.self().logic.getParameterNode().synthesis.seed = 77
    panel.exit()
    panel.enter()
    assert panel.self().logic.getParameterNode().synthesis.seed == 77


def test_closing_the_scene_starts_anew(panel):
    panel.self().logic.getParameterNode().synthesis.seed = 77
    slicer.mrmlScene.Clear(0)
    APP.processEvents()
    assert panel.self().logic.getParameterNode().synthesis.seed == 0


def test_closing_the_scene_from_another_module_does_not_make_a_parameter_node(panel):
    panel.exit()
    slicer.mrmlScene.Clear(0)
    APP.processEvents()
    nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    assert [n.GetName() for n in nodes if n.GetParameterCount()] == []


def test_cleaning_up_takes_all_observers_along(module):
    slicer.mrmlScene.Clear(0)
    before = observers_of(slicer.mrmlScene)
    made = module.createNewWidgetRepresentation()
    made.enter()
    made.self().cleanup()
    made.self().cleanup()  # Slicer calls it once more when it ends
    made.deleteLater()
    APP.sendPostedEvents(None, 52)  # QEvent.DeferredDelete
    APP.processEvents()
    assert observers_of(slicer.mrmlScene) == before


@pytest.fixture
def same_library_afterwards():
    """Other tests keep the library that they have imported."""
    before = {
        n: m for n, m in sys.modules.items() if n.startswith(("DiffTumorSlicer", "difftumor"))
    }
    yield
    for name in [n for n in sys.modules if n.startswith(("DiffTumorSlicer", "difftumor"))]:
        del sys.modules[name]
    sys.modules.update(before)
    slicer_stand_in.load_module(MODULE_FILE)


@pytest.mark.usefixtures("same_library_afterwards")
def test_reloading_takes_the_library_along():
    module = slicer_stand_in.load_module(MODULE_FILE)
    panel = module.widgetRepresentation()
    panel.enter()
    first, library = panel.self(), sys.modules["DiffTumorSlicerLib.session"]
    first.onReload()
    APP.processEvents()
    second = module.widgetRepresentation().self()
    assert second is not first
    assert first.panels is None
    assert sys.modules["DiffTumorSlicerLib.session"] is not library
    second.cleanup()
    assert slicer_stand_in.slot_errors() == []


@pytest.mark.usefixtures("same_library_afterwards")
def test_reloading_while_a_job_runs_ends_it_and_the_next_press_works(monkeypatch):
    from Testing.module.scene.scenes import FakeBridge, add_ct

    bridges = []
    module = slicer_stand_in.load_module(MODULE_FILE)

    def opened():
        from DiffTumorSlicerLib.jobs.environment import WorkerPython
        from DiffTumorSlicerLib.jobs.host import Host

        monkeypatch.setattr(WorkerPython, "ensure", lambda _self: None)
        monkeypatch.setattr(
            Host, "make_bridge", lambda _self: bridges.append(FakeBridge()) or bridges[-1]
        )
        panel = module.widgetRepresentation()
        panel.enter()
        return panel.self()

    slicer.mrmlScene.Clear(0)
    first = opened()
    first.panels.volumes.ui.volumeSelector.setCurrentNode(add_ct(slicer.mrmlScene))
    first.panels.synthesis.place._place((30.0, 26.0, 22.0))
    first.panels.synthesis.synthesize()
    assert bridges[0].requests
    nodes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    first.onReload()
    APP.processEvents()
    assert bridges[0].closed
    second = opened()
    assert second is not first
    assert not second.panels.synthesis.run_button.running
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == nodes
    assert second.panels.synthesis.place.ellipsoid is not None  # kept by the scene
    second.panels.synthesis.synthesize()
    # Its answer would be made of the library before the reload.
    assert bridges[1].requests
    second.cleanup()
    slicer.mrmlScene.Clear(0)
    assert slicer_stand_in.slot_errors() == []


def test_the_self_test_runs_and_passes():
    loaded = slicer_stand_in.load_module(MODULE_FILE)
    slicer.selfTests["DiffTumorSlicer"](msec=0)
    assert loaded.name == "DiffTumorSlicer"


@pytest.mark.parametrize("spoiled", ["none", "skipped", "failing"])
def test_the_self_test_fails_when_it_ran_nothing(monkeypatch, spoiled):
    slicer_stand_in.load_module(MODULE_FILE)
    kind = sys.modules["DiffTumorSlicer"].DiffTumorSlicerTest
    for name in unittest.TestLoader().getTestCaseNames(kind):
        monkeypatch.delattr(kind, name)
    if spoiled == "skipped":
        monkeypatch.setattr(kind, "test_a", lambda self: self.skipTest("no torch"), raising=False)
    elif spoiled == "failing":
        monkeypatch.setattr(kind, "test_a", lambda self: self.fail("wrong"), raising=False)
    with pytest.raises(RuntimeError, match="self-tests"):
        kind().runTest()


class TestScripts:
    """`DiffTumorSlicerLogic` without a window."""

    @pytest.fixture
    def logic(self, module):
        slicer.mrmlScene.Clear(0)
        made = sys.modules["DiffTumorSlicer"].DiffTumorSlicerLogic()
        yield made
        made.close()
        slicer.mrmlScene.Clear(0)

    @pytest.fixture
    def worker(self):
        from DiffTumorSlicerLib.jobs import environment

        if (lack := environment.find_lack()) is not None:
            pytest.skip(lack.sentence)

    @pytest.fixture
    def nodes(self, logic):
        return sys.modules["DiffTumorSlicer"]._test_scene()

    def test_a_callback_gets_every_state_and_the_call_returns_at_once(
        self, worker, logic, nodes, within
    ):
        def called():
            states, asked = [], {"model": "modelled", "device": "cpu"}
            began = time.monotonic()
            number = logic.synthesize(*nodes, **asked, callback=states.append)
            duration_s = time.monotonic() - began
            assert isinstance(number, int)
            assert logic.session.busy
            while not states or states[-1].running:
                APP.processEvents()
                assert time.monotonic() - began < WAIT_S
            assert states[-1].kind == "done", states[-1].sentence
            result = slicer.mrmlScene.GetNodeByID(states[-1].result_node_id)
            assert "synthetic" in result.GetName()
            assert not logic._follower.active
            return duration_s

        within(2, called)

    def test_a_callback_hears_of_a_cancel(self, worker, logic, nodes):
        states = []
        logic.synthesize(*nodes, model="modelled", device="cpu", callback=states.append)
        logic.session.cancel()
        began = time.monotonic()
        while not states or states[-1].running:
            APP.processEvents()
            assert time.monotonic() - began < WAIT_S
        assert states[-1].kind == "cancelled"
        assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == [nodes[0]]

    def test_what_cannot_be_done_is_said_before_the_start(self, worker, logic, nodes):
        with pytest.raises(ValueError, match=r"\.$"):
            logic.synthesize(None, nodes[1])
        with pytest.raises(ValueError, match=r"\.$"):
            logic.synthesize(nodes[0], None)
        with pytest.raises(ValueError, match="feather_mm"):
            logic.synthesize(*nodes, model="modelled", feather_mm=99.0)

    def test_a_failure_raises_its_sentence(self, worker, logic, nodes, monkeypatch):
        from DiffTumorSlicerLib.jobs.jobs import JobState

        monkeypatch.setattr(logic.session, "synthesize", lambda *_, **__: 1)
        failed = JobState("synthesis", 1, "failed", sentence="The disk is full. Free some space.")
        monkeypatch.setattr(logic.session, "wait", lambda *_, **__: failed)
        with pytest.raises(RuntimeError, match="The disk is full"):
            logic.synthesize(*nodes)

    def test_a_heat_map_from_a_script(self, worker, logic, nodes, tmp_path, monkeypatch):
        from Testing.tiny_anomaly import write_tiny_model

        monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path))
        write_tiny_model(tmp_path / "tiny-anomaly", organs=[])
        asked = {"model": "tiny-anomaly", "steps": 5, "slices": (30, 32), "gate": False}
        node = logic.anomalyMap(nodes[0], device="cpu", **asked)
        assert "anomaly map" in node.GetName()
        with pytest.raises(ValueError, match="guidance_scale"):
            logic.anomalyMap(nodes[0], **{**asked, "guidance_scale": -1.0})

    def test_a_worker_that_cannot_run_is_said_before_the_start(self, logic, nodes, monkeypatch):
        from DiffTumorSlicerLib.jobs import environment

        lack = environment.Lack("torch_missing", "PyTorch is not installed yet.")
        monkeypatch.setattr(environment, "find_lack", lambda chosen="": lack)
        with pytest.raises(ValueError, match="PyTorch is not installed"):
            logic.synthesize(*nodes)

    def test_what_the_page_on_scripts_shows_works_as_written(
        self, worker, module, tmp_path, capsys, monkeypatch
    ):
        from Testing.module.scene.scenes import add_segmentation
        from Testing.tiny_anomaly import write_tiny_model
        from Testing.tiny_segmenter import write_tiny_segmenter

        monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path / "models"))
        write_tiny_model(tmp_path / "models" / "tiny-anomaly", organs=["liver"])
        write_tiny_segmenter(tmp_path / "models" / "tiny-segmenter")
        slicer.mrmlScene.Clear(0)
        volume, roi = sys.modules["DiffTumorSlicer"]._test_scene()
        before = slicer.util.arrayFromVolume(volume).copy()
        shape = before.shape[::-1]
        organ, label = np.zeros(shape, bool), np.zeros(shape, bool)
        organ[10:-10, 10:-10, 25:45] = True
        label[30:40, 30:40, 34] = True
        organs, _ids = add_segmentation(slicer.mrmlScene, volume, {"liver": organ})
        painted, _ids = add_segmentation(slicer.mrmlScene, volume, {"tumor": label})
        names = {
            "slicer": slicer, "volumeNode": volume, "roiNode": roi, "organs": organs, "painted": painted,
            "anomalyModel": "tiny-anomaly", "segmenter": "tiny-segmenter",
        }  # fmt: skip
        for program in _programs_of_the_page():
            exec(program.replace("/tmp", str(tmp_path)), names)
        assert (slicer.util.arrayFromVolume(volume) == before).all()
        assert (slicer.util.arrayFromVolume(names["result"]) != before).any()
        assert (tmp_path / "tumor-synthetic.nrrd").is_file()
        assert "anomaly map" in names["heat"].GetName()
        kinds = [names[name].GetAttribute("DiffTumor.Segmented") for name in ("lesions", "rest")]
        assert kinds == ["trained", "learned"]
        assert names["again"].GetAttribute("DiffTumor.Segmented") == "learned"
        began = time.monotonic()
        while names["logic"].session.busy:
            APP.processEvents()
            assert time.monotonic() - began < WAIT_S
        said = capsys.readouterr()
        assert "(synthetic" in said.out.splitlines()[-1], "the callback has the last word"
        assert "Slicer" not in said.err
        names["logic"].close()
        slicer.mrmlScene.Clear(0)

    def test_all_calls_take_the_same_arguments_by_the_same_names(self, logic):
        shared = {"segmentationNode", "segmentId", "device", "callback", "parameters"}
        for call in (logic.synthesize, logic.anomalyMap, logic.segment, logic.learn):
            assert shared <= set(inspect.signature(call).parameters)

    def test_segment_and_learn_say_what_is_missing(self, worker, logic, nodes):
        with pytest.raises(ValueError, match=r"no scan yet.*\.$"):
            logic.segment(None)
        with pytest.raises(ValueError, match=r"no model .*\.$"):
            logic.segment(nodes[0], model="of-nobody")
        with pytest.raises(ValueError, match=r"no model .*\.$"):
            logic.learn(nodes[0], None, model="of-nobody")
        organs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
        with pytest.raises(ValueError, match=r"\.$"):
            logic.learn(nodes[0], None, organs)
        with pytest.raises(ValueError, match="overlap"):
            logic.segment(nodes[0], overlap=7.0)

    def test_random_tumors_in_an_organ_as_the_page_says(self, worker, logic):
        from Testing.module.scene.scenes import add_ct, add_segmentation

        volume = add_ct(slicer.mrmlScene, shape=(80, 80, 60))
        mask = np.zeros((80, 80, 60), bool)
        mask[15:65, 15:65, 10:50] = True
        organs, ids = add_segmentation(slicer.mrmlScene, volume, {"liver": mask})
        result = logic.synthesize(
            volume,
            segmentationNode=organs,
            segmentId=ids["liver"],
            size="tiny",
            count=2,
            model="modelled",
        )
        assert "synthetic" in result.GetName()


def _programs_of_the_page():
    """The programs of the page on scripts."""
    text = (ROOT / "docs" / "scripting.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
