"""The Models panel: the list, licenses, download, import, verify, remove, and what computes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from difftumor.weights import models
from Testing.engine.weights.model_server import ModelServer, serving
from Testing.module.panels.bench import ends_in_next_step, plain

EARLY = "difftumor-liver-early"


@pytest.fixture
def shown(bench):
    """The Models panel, opened."""
    import slicer

    ui = slicer.util.childWidgetVariables(bench.widget)
    ui.modelsSection.collapsed = False
    bench.turn()
    return bench


@pytest.fixture
def settings(app):
    from DiffTumorSlicerLib.panels.shared import settings

    return settings


@pytest.fixture
def server(monkeypatch):
    from difftumor.weights import downloads
    from difftumor.weights import installation as model_installation

    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in downloads.OFFLINE_VARIABLES:
            monkeypatch.delenv(name)
    # The content of these tests is no real checkpoint.
    monkeypatch.setattr(model_installation, "describe_foreign", lambda path: None)
    with serving(ModelServer(bytes(range(256)) * 40)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url + "/")
        yield running


@pytest.fixture
def yes(monkeypatch):
    """Every question is answered with yes; the questions."""
    import slicer

    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or True
    )
    return asked


def message(bench):
    return plain(bench.models.modelsMessage)


def listed(bench):
    tree = bench.models.modelsTree
    return [tree.topLevelItem(n).data(0, 0x100) for n in range(tree.topLevelItemCount)]


def until(bench, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message(bench)
        bench.turn(0.02)


def test_lists_the_registry_by_task(shown):
    assert EARLY in listed(shown)
    assert "difftumor-unet-liver" not in listed(shown)
    shown.choose(shown.models.taskComboBox, "segmentation")
    assert "difftumor-unet-liver" in listed(shown)
    shown.choose(shown.models.taskComboBox, "all")
    assert len(listed(shown)) == len(models.registry())


def test_a_chosen_model_shows_its_facts_and_its_licence(shown):
    shown.panels.models.choose(EARLY)
    shown.turn()
    details = plain(shown.models.modelDetails)
    for words in (
        "early liver tumors",
        "CC BY-NC-ND 4.0",
        "Not for commercial use",
        "patents",
        "GB of memory",
    ):
        assert words in details
    item = shown.models.modelsTree.selectedItems()[0]
    columns = [item.text(n) for n in range(5)]
    assert columns[0] == "Early liver tumors"
    assert columns[1:] == ["not installed", "290 MB", "Liver", "CC BY-NC-ND 4.0"]


def test_a_download_asks_for_the_licence_shows_progress_and_makes_the_model_usable(
    shown, server, yes
):
    shown.panels.models.choose(EARLY)
    shown.press(shown.models.downloadButton)
    assert "CC BY-NC-ND 4.0" in yes[0]
    assert "https://" in yes[0]
    until(shown, lambda: "installed" in message(shown))
    assert models.find_model(EARLY)
    assert "< 1 MB" in shown.models.modelsTree.selectedItems()[0].text(2)
    assert not shown.models.downloadButton.enabled
    shown.choose(shown.ui.modelComboBox, EARLY)
    assert shown.ui.modelComboBox.currentText == "DiffTumor: early liver tumors"
    shown.press(shown.models.verifyButton)
    until(shown, lambda: "unchanged" in message(shown))
    shown.press(shown.models.removeButton)
    until(shown, lambda: "removed" in message(shown))
    assert len(yes) == 2
    assert shown.models.removeButton.text == "Forget checksum…"
    shown.press(shown.models.removeButton)
    until(shown, lambda: shown.models.removeButton.text == "Remove…")
    assert not shown.models.removeButton.enabled
    assert "(not installed)" in shown.ui.modelComboBox.currentText


def test_without_the_licence_nothing_is_downloaded(shown, server, monkeypatch):
    import slicer

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_, **__: False)
    shown.panels.models.choose(EARLY)
    shown.press(shown.models.downloadButton)
    shown.turn(0.1)
    assert not server.requests
    assert "not accepted" in message(shown)


def test_a_server_that_fails_ends_in_a_sentence(shown, server, yes):
    server.statuses = [404] * 10
    shown.panels.models.choose(EARLY)
    shown.press(shown.models.downloadButton)
    until(shown, lambda: message(shown))
    assert server.requests
    assert ends_in_next_step(message(shown).removesuffix("Show details").strip())
    assert not Path(models.models_folder() / EARLY / "liver_early.pt").exists()


def test_a_download_can_be_cancelled(shown, server, yes):
    server.content = bytes(50_000_000)
    shown.panels.models.choose(EARLY)
    shown.press(shown.models.downloadButton)
    assert shown.models.downloadButton.text == "Cancel"
    assert shown.models.modelsProgressBar.visible
    shown.panels.models.download_or_cancel()
    until(shown, lambda: "ancel" in message(shown))
    assert shown.models.downloadButton.text == "Download"


def test_an_import_names_the_chosen_model_where_the_file_does_not_tell(
    shown, tmp_path, monkeypatch
):
    import qt

    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights " * 100)
    monkeypatch.setattr(
        qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_: str(path)), raising=False
    )
    shown.panels.models.choose(EARLY)
    shown.press(shown.models.importButton)
    task, parameters, _, _ = shown.bridge.requests[1]
    assert (task, parameters) == ("identify_model", {"path": str(path)})
    from difftumor.worker.protocol import ResultEvent

    shown.bridge.results[1] = {}
    found = {"kind": "difftumor_diffusion", "sentence": "an early model", "facts": {"T": 4}}
    shown.bridge.events.append(ResultEvent(1, found, [], 0.1))
    until(shown, lambda: "installed" in message(shown))
    assert models.find_model(EARLY)


def test_an_import_asks_for_what_is_missing_first(shown, tmp_path, monkeypatch):
    import qt

    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    monkeypatch.setattr(
        qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_: str(path)), raising=False
    )
    shown.requirements.lack = "PyTorch is not installed yet. Press the button again to install it."
    shown.press(shown.models.importButton)
    assert message(shown) == shown.requirements.lack
    assert not shown.bridge.requests


def test_buttons_without_a_chosen_model_say_what_to_do(shown):
    panel = shown.panels.models
    shown.models.modelsTree.clearSelection()
    for action in (panel.download_or_cancel, panel.verify, panel.remove):
        action()
        assert ends_in_next_step(message(shown))


def test_the_demonstration_model_is_not_removed(shown):
    row = next(row for row in models.list_models() if row["bundled"])
    shown.panels.models.choose(row["id"])
    shown.turn()
    assert not shown.models.removeButton.enabled


def test_the_folder_can_be_moved_and_is_remembered(shown, tmp_path, monkeypatch, settings):
    monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path / "old"))
    shown.panels.models._choose_folder(str(tmp_path))
    assert models.models_folder() == tmp_path
    assert settings.models_folder() == str(tmp_path)
    assert shown.models.folderButton.directory == str(tmp_path)


def test_the_device_is_remembered_and_travels_with_the_request(shown, settings):
    shown.choose(shown.models.deviceComboBox, "cpu")
    assert settings.device() == "cpu"
    shown.load_ct()
    shown.place()
    shown.press(shown.ui.synthesizeButton)
    assert shown.bridge.requests[1][1]["device"] == "cpu"


def test_examine_shows_the_doctors_line(shown):
    from difftumor.worker.protocol import ResultEvent

    assert "Press Examine" in plain(shown.models.machineLabel)
    shown.press(shown.models.examineButton)
    assert shown.bridge.requests[1][0] == "doctor"
    report = {
        "devices": [{"device": "cpu", "ok": True}],
        "versions": {"torch": "2.13.0"},
        "memory_gb": {"free": 12.5, "total": 16.0},
        "disk_free_gb": 100.0,
        "problems": ["No GPU was found; everything runs on the CPU."],
    }
    shown.bridge.results[1] = {}
    shown.bridge.events.append(ResultEvent(1, report, [], 0.1))
    shown.turn()
    line = plain(shown.models.machineLabel)
    assert "CPU computes, PyTorch 2.13.0, 12.5 of 16 GB memory free" in line
    assert "No GPU was found" in line


def test_what_is_missing_is_shown_with_a_button_to_get_it(shown):
    shown.requirements.lack = "PyTorch is not installed yet. Press the button to install it."
    shown.panels.exit()
    shown.panels.enter()
    shown.turn()
    assert plain(shown.models.remedyLabel) == shown.requirements.lack
    assert shown.models.installButton.visible
    shown.requirements.lack = ""
    shown.press(shown.models.installButton)
    assert plain(shown.models.remedyLabel) == ""
    assert not shown.models.installButton.visible


def test_another_python_is_used_from_the_next_job_on(shown, tmp_path, settings):
    python = tmp_path / "python3"
    python.write_text("")
    shown.requirements.python = lambda: settings.python() or None
    shown.models.pythonPath.currentPath = str(tmp_path / "pyth")  # still being typed
    assert settings.python() == ""
    shown.models.pythonPath.currentPath = str(python)
    shown.turn()
    assert settings.python() == str(python)
    assert shown.session.host.python == str(python)
    shown.models.pythonPath.currentPath = ""
    assert shown.session.host.python is None


def test_the_log_is_opened_when_there_is_one(shown, monkeypatch):
    import qt

    shown.panels.models.machine.open_log()
    assert "no log yet" in message(shown)
    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", staticmethod(opened.append), raising=False)
    shown.load_ct()
    shown.place()
    shown.synthesize()
    shown.panels.models.machine.open_log()
    assert opened[0].toLocalFile() == "/somewhere/worker.log"


def test_a_damaged_model_of_ones_own_is_told(shown, tmp_path):
    folder = models.models_folder() / "mine"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    shown.panels.models.read_models()
    shown.choose(shown.models.taskComboBox, "all")
    shown.panels.models.choose("mine")
    shown.turn()
    assert shown.models.modelsTree.selectedItems()[0].text(1) == "damaged"
    assert "Please note" in plain(shown.models.modelDetails)
