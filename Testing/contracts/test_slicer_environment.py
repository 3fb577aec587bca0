"""What is missing for the worker is told apart, and got in the right order, with the person asked."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from Testing import slicer_stand_in

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
slicer = pytest.importorskip("slicer", reason="needs slicer-core")
slicer_stand_in.start()

from DiffTumorSlicerLib.jobs import environment, python_packages  # noqa: E402
from DiffTumorSlicerLib.scene.geometry import SceneError  # noqa: E402

needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="its Pythons are shell scripts")
ALL = {"torch": "2.6.0", "monai": "1.6.1", "einops": "0.8.1", "nibabel": "5.4", "safetensors": "0.8",
       "tyro": "1.0", "rich": "15.0", "jsonschema": "4.26", "psutil": "7.2"}  # fmt: skip


class Manager:
    """Slicer's extensions manager."""

    def __init__(self, installed=False, delivers=True):
        self.installed, self.delivers, self.interactive, self.asked_for = (
            installed,
            delivers,
            True,
            [],
        )

    def isExtensionInstalled(self, name):
        return self.installed and name == "PyTorch"

    def installExtensionFromServer(self, name, restart):
        self.asked_for.append((name, restart))
        self.installed = self.delivers
        return self.delivers


@pytest.fixture
def packages(monkeypatch):
    """What Slicer's Python has; tests take some away."""
    found = dict(ALL)
    monkeypatch.setattr(
        environment, "own_packages", lambda names: {n: found[n] for n in names if n in found}
    )
    return found


@pytest.fixture
def manager(monkeypatch):
    made = Manager()
    monkeypatch.setattr(environment, "_extensions_manager", lambda: made)
    return made


def agree(monkeypatch, answer=True):
    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text) or answer
    )
    return asked


def test_nothing_is_missing_when_all_is_there(packages):
    assert environment.find_lack() is None
    environment.prepare()


def test_the_real_packages_of_this_python_are_looked_up():
    assert environment.own_packages(["pytest", "no-such-package"]).keys() == {"pytest"}


def test_without_the_extension_the_extension_is_missing(packages, manager):
    del packages["torch"]
    lack = environment.find_lack()
    assert (lack.kind, lack.action) == ("extension_missing", "install_extension")
    assert "Extensions Manager" in lack.sentence


def test_an_extension_that_is_not_loaded_yet_needs_a_restart(packages, manager):
    del packages["torch"]
    manager.installed = True
    assert environment.find_lack().kind == "restart_pending"


def test_with_the_extension_torch_is_missing(packages, manager, monkeypatch):
    del packages["torch"]
    monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
    assert environment.find_lack().kind == "torch_missing"


def test_a_torch_that_is_too_old_is_replaced(packages, monkeypatch):
    packages["torch"] = "2.5.1+cu121"
    monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
    assert environment.find_lack().action == "install_torch"


def test_missing_and_too_old_packages_are_named(packages):
    del packages["tyro"]
    packages["nibabel"] = "5.2.1"
    lack = environment.find_lack()
    assert lack.kind == "packages_missing"
    assert "nibabel, tyro" in lack.sentence


def test_a_slicer_before_5_12_is_told_so(packages, monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    assert environment.find_lack().kind == "slicer_old"


def test_installing_the_extension_asks_first_and_ends_with_a_restart(
    packages, manager, monkeypatch
):
    del packages["torch"]
    asked = agree(monkeypatch)
    with pytest.raises(environment.NotReady, match="restart Slicer") as caught:
        environment.prepare()
    assert len(asked) == 1
    assert manager.asked_for == [
        ("PyTorch", False)
    ]  # only the person restarts: the scene may not be saved
    assert manager.interactive is False
    assert caught.value.lack.kind == "restart_pending"


def test_declining_installs_nothing(packages, manager, monkeypatch):
    del packages["torch"]
    agree(monkeypatch, answer=False)
    with pytest.raises(environment.NotReady, match="PyTorch extension") as caught:
        environment.prepare()
    assert manager.asked_for == []
    assert "could not be installed" not in str(caught.value)


def test_a_server_that_does_not_deliver_is_told(packages, manager, monkeypatch):
    del packages["torch"]
    manager.delivers = False
    agree(monkeypatch)
    with pytest.raises(environment.NotReady, match="could not be installed"):
        environment.prepare()


def test_torch_comes_through_the_extension_and_then_the_packages(packages, monkeypatch):
    del packages["torch"], packages["rich"]
    calls = []

    class Logic:
        def installTorch(
            self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None
        ):
            calls.append((askConfirmation, forceComputationBackend, torchVersionRequirement))
            packages["torch"] = "2.13.0"
            return types.ModuleType("torch")

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = Logic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)

    def pip_ensure(requirements, requester=None):
        calls.append((sorted(r.name for r in requirements)[:2], requester))
        packages["rich"] = "15.0"

    monkeypatch.setattr(slicer.packaging, "pip_ensure", pip_ensure)
    environment.prepare()
    assert calls == [
        (True, None, ">=2.6"),
        (["einops", "jsonschema"], "DiffTumorSlicer"),
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("User declined"), "agree"),
        (subprocess.CalledProcessError(1, "pip"), "could not be installed"),
    ],
)
def test_a_failed_or_declined_pip_ends_in_a_sentence(packages, monkeypatch, error, words):
    del packages["tyro"]

    def pip_ensure(requirements, requester=None):
        raise error

    monkeypatch.setattr(slicer.packaging, "pip_ensure", pip_ensure)
    with pytest.raises(SceneError, match=words):
        environment.prepare()


def test_what_stays_missing_is_not_tried_for_ever(packages, monkeypatch):
    del packages["tyro"]
    monkeypatch.setattr(slicer.packaging, "pip_ensure", lambda *_, **__: None)
    with pytest.raises(environment.NotReady):
        environment.prepare()


@needs_sh
def test_another_python_is_asked_in_a_process_of_its_own_and_never_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(python_packages, "_PROBE_TIMEOUT_S", 300.0)  # a busy machine starts slowly
    assert (
        environment.find_lack(sys.executable) is None
        or "lacks" in environment.find_lack(sys.executable).sentence
    )
    missing = environment.find_lack(str(tmp_path / "python"))
    assert (missing.kind, missing.action) == ("python_missing", "")
    liar = tmp_path / "liar"
    liar.write_text("#!/bin/sh\necho hello\n")
    liar.chmod(0o755)
    assert environment.find_lack(str(liar)).kind == "python_missing"


@needs_sh
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ('{"python": [3, 10], "packages": {}}', "python_old"),
        ('{"python": [3, 12], "packages": {"numpy": "2.0"}}', "torch_missing"),
        ('{"python": [3, 12], "packages": {"torch": "2.13.0"}}', "packages_missing"),
    ],
)
def test_another_python_tells_what_it_lacks(tmp_path, answer, kind):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{answer}'\n")
    python.chmod(0o755)
    lack = environment.find_lack(str(python))
    assert (lack.kind, lack.action) == (kind, "")
    assert str(python) in lack.sentence or "3.10" in lack.sentence


def test_the_panels_view_starts_no_process_for_another_python(monkeypatch, tmp_path):
    monkeypatch.setattr(
        python_packages, "run_python", lambda *_: pytest.fail("a process was started")
    )
    worker = environment.WorkerPython(lambda: str(tmp_path / "python"))
    assert worker.problem() == ""
    with pytest.raises(environment.NotReady):
        worker.ensure()
    assert "is not there" in worker.problem()
    assert worker.python() == str(tmp_path / "python")


@needs_sh
def test_another_python_that_is_fine_is_asked_once(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(environment, "find_lack", lambda chosen="": asked.append(chosen))
    worker = environment.WorkerPython(lambda: str(tmp_path / "python"))
    worker.ensure()
    worker.ensure()
    assert asked == [str(tmp_path / "python")]


def test_slicers_own_python_is_used_unless_one_is_chosen(monkeypatch):
    assert environment.worker_python() is None  # sys.executable is a Python here
    assert environment.worker_python("/opt/python") == "/opt/python"
    monkeypatch.setattr(sys, "executable", "/opt/Slicer/SlicerApp-real")
    monkeypatch.setattr(environment.shutil, "which", lambda name: f"/opt/Slicer/bin/{name}")
    assert environment.worker_python() == "/opt/Slicer/bin/PythonSlicer"


@pytest.mark.parametrize(
    ("requirement", "version", "meets"),
    [
        ("torch>=2.6", "2.13.0+cpu", True),
        ("torch>=2.6", "2.6", True),
        ("torch>=2.6", "2.5.1", False),
        ("nibabel>=5.3", "5.3.0rc1", True),
        ("nibabel>=0.30", "1.0", True),
    ],
)
def test_versions_are_compared_as_numbers(requirement, version, meets):
    name = requirement.partition(">=")[0]
    assert environment.meets(requirement, {name: version}) is meets


def test_requirements_name_nothing_that_slicer_has():
    names = {environment.name_of(one).lower() for one in environment.requirements()}
    assert not names & {
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "simpleitk",
        "requests",
        "pydicom",
        "vtk",
    }
    assert names == set(ALL) - {"torch"}
    assert all(">=" in one and "==" not in one for one in environment.requirements())
