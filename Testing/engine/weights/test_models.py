"""The registry, and the life of a model on this computer: download, find, verify, remove."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftumor.weights import cards as model_cards
from difftumor.weights import downloads, foreign_files, models
from difftumor.weights import installation as model_installation
from difftumor.weights.checkpoints import write_model_folder
from difftumor.weights.models import ModelError
from Testing.engine.weights.model_server import ModelServer, serving
from Testing.engine.weights.test_model_folders import synthesis_card, synthesis_tensors

LIVER = "difftumor-liver-early"
CONTENT = b"PK\x03\x04 no real checkpoint, but nobody looks inside before it is opened" * 100
ENGINE = str(Path(models.__file__).parents[2])


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in downloads.OFFLINE_VARIABLES:
            monkeypatch.delenv(name)
    # The content of these tests is no real checkpoint.
    monkeypatch.setattr(model_installation, "describe_foreign", lambda path: None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    with serving(ModelServer(CONTENT)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url + "/")
        yield running


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Resources with a demonstration model in them."""
    resources = tmp_path / "resources"
    (resources / "Models").mkdir(parents=True)
    for name in ("models.json", "model.schema.json"):
        (resources / name).write_bytes((models.resources_folder() / name).read_bytes())
    for module in (model_cards, models, sys.modules["difftumor.weights.registry"]):
        monkeypatch.setattr(module, "resources_folder", lambda: resources)
    folder = resources / "Models" / "demo-abdomen-early"
    write_model_folder(folder, synthesis_tensors(), synthesis_card(id="demo-abdomen-early"))
    return folder


def row(model_id: str) -> dict:
    return next(each for each in models.list_models() if each["id"] == model_id)


def get(model_id: str = LIVER, **options):
    return models.download(model_id, **{"accept_licence": True} | options)


# The registry


def test_the_registry_is_valid_and_holds_the_sixteen_published_files():
    content = json.loads((models.resources_folder() / "models.json").read_text())
    model_cards.validate(content, "models.schema.json", "models.json")
    published = [each for each in models.registry().values() if "url" in each]
    assert len(published) == 16
    assert len({each["url"] for each in published}) == 16
    base = "https://huggingface.co/MrGiovanni/DiffTumor/resolve/main/"
    expected = {base + "AutoencoderModel/AutoencoderModel.ckpt"}
    for organ in ("liver", "pancreas", "kidney"):
        expected |= {f"{base}DiffusionModel/{organ}_{kind}.pt" for kind in ("early", "noearly")}
        expected |= {
            f"{base}SegmentationModel/{net}_synt_{organ}_tumors.pt"
            for net in ("unet", "nnunet", "swinunetr")
        }
    assert {each["url"] for each in published} == expected
    assert all(each["licence"]["name"] == "CC BY-NC-ND 4.0" for each in published)


def test_entries_agree_with_their_names():
    for model_id, entry in models.registry().items():
        assert {"task", "kind", "modality", "licence", "citation", "expected"} <= entry.keys()
        if entry["task"] == "synthesis":
            assert entry["T"] == (200 if model_id.endswith("noearly") else 4)
        if "url" in entry and entry["organs"]:
            assert entry["organs"][0] in model_id
            assert entry["organs"][0] in entry["url"]


def test_registry_entries_make_valid_cards():
    for entry in models.registry().values():
        card = {
            k: entry[k] for k in sys.modules["difftumor.weights.registry"].CARD_FIELDS if k in entry
        }
        card |= {"schema_version": 1, "sha256": "0" * 64}
        model_cards.validate(card, "model.schema.json", entry["id"])


def test_rows_are_json_with_the_promised_keys(server, demo):
    get()
    rows = json.loads(json.dumps(models.list_models()))
    assert len(rows) == len(models.registry())
    wanted = {"id", "task", "organ", "modality", "installed", "bytes", "licence", "verified"}
    assert all(wanted <= each.keys() for each in rows)
    assert {each["id"] for each in rows if each["installed"]} == {LIVER, "demo-abdomen-early"}
    assert row(LIVER)["bytes"] == len(CONTENT)
    assert row("difftumor-kidney-early")["verified"] is None
    assert row("demo-abdomen-early")["organ"] == "liver, pancreas, kidney"


def test_models_are_listed_without_torch_or_jsonschema():
    program = (
        "import sys; sys.modules.update(torch=None, jsonschema=None, safetensors=None, numpy=None)\n"
        "from difftumor.weights import models\n"
        "assert len(models.list_models()) > 16\n"
        "try: models.find_model('difftumor-liver-early')\n"
        "except models.ModelError: print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": ENGINE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr


# Finding


def test_an_unknown_id_is_answered_with_the_nearest():
    with pytest.raises(ModelError, match=r"Did you mean difftumor-liver-early"):
        models.find_model("difftumor-livr-early")
    with pytest.raises(ModelError, match="difftumor models list"):
        models.find_model("zzzz")


def test_a_missing_model_is_answered_with_the_command():
    with pytest.raises(ModelError, match="difftumor models download difftumor-liver-early"):
        models.find_model(LIVER)


def test_a_missing_path_is_called_a_path(tmp_path: Path):
    for name in (tmp_path / "x" / "model", "liver_early.pt", "folder/model"):
        with pytest.raises(ModelError, match="no model file or folder"):
            models.find_model(name)


def test_a_missing_demonstration_model_is_not_offered_for_download(demo: Path):
    (demo / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="missing from this installation"):
        models.find_model("demo-abdomen-early")
    with pytest.raises(ModelError, match="missing from this installation"):
        get("demo-abdomen-early")
    assert row("demo-abdomen-early")["installed"] is False


def test_the_demonstration_model_is_used_where_it_lies(demo: Path):
    found = get("demo-abdomen-early")
    assert found.path == demo
    assert found.card["sha256"] == models.file_sha256(demo / "model.safetensors")
    assert not list(models.models_folder().glob("*"))
    with pytest.raises(ModelError, match="part of the program"):
        models.remove("demo-abdomen-early")


def test_a_published_file_anywhere_is_found_with_the_facts_of_the_registry(tmp_path: Path):
    path = tmp_path / "liver_early.pt"
    path.write_bytes(b"x")
    found = models.find_model(path)
    assert (found.id, found.path) == ("liver_early", path)
    assert (found.card["T"], found.card["organs"]) == (4, ["liver"])
    other = tmp_path / "mine.pt"
    other.write_bytes(b"x")
    assert models.find_model(str(other)).card == {"id": "mine", "title": "mine.pt"}


def test_a_model_folder_is_found_by_path_name_and_file(tmp_path: Path):
    folder = tmp_path / "run" / "export"
    write_model_folder(folder, synthesis_tensors(), synthesis_card())
    assert models.find_model(folder).id == "my-model"
    assert models.find_model(folder / "model.safetensors").path == folder
    own = models.models_folder() / "mine"
    write_model_folder(own, synthesis_tensors(), synthesis_card())
    assert models.find_model("mine").path == own
    assert models.find_model(own).id == "mine"
    assert row("mine")["installed"] is True


def test_a_faulty_folder_is_listed_with_its_problem():
    own = models.models_folder() / "mine"
    write_model_folder(own, synthesis_tensors(), synthesis_card())
    (own / "model.json").write_text("{}")
    assert row("mine")["installed"] is False
    assert "schema_version" in row("mine")["problem"]
    with pytest.raises(ModelError, match="schema_version"):
        models.find_model("mine")


# Download


def test_a_download_needs_the_licence_to_be_accepted_once(server: ModelServer):
    with pytest.raises(ModelError, match=r"CC BY-NC-ND 4\.0 .*--accept-licence"):
        models.download(LIVER)
    assert not server.requests
    assert row(LIVER)["licence_accepted"] is False
    get()
    assert row(LIVER)["licence_accepted"] is True
    models.download("difftumor-kidney-early")
    accepted = json.loads((models.models_folder() / "accepted-licences.json").read_text())
    assert list(accepted) == ["CC BY-NC-ND 4.0"]


def test_a_download_is_installed_verified_and_removed(server: ModelServer):
    server.announce()
    server.redirect = True
    steps = []
    found = get(callback=lambda *step: steps.append(step))
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert found.path == models.models_folder() / LIVER / "liver_early.pt"
    assert found.path.read_bytes() == CONTENT
    assert found.card["sha256"] == digest
    assert found.card["licence"]["name"] == "CC BY-NC-ND 4.0"
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert (
        server.requests[0][0] == "/MrGiovanni/DiffTumor/resolve/main/DiffusionModel/liver_early.pt"
    )
    assert models.verify(LIVER) == digest
    assert row(LIVER)["verified"] is True
    names = sorted(path.name for path in found.path.parent.iterdir())
    assert names == [".lock", "installed.json", "liver_early.pt"]
    assert models.find_model(found.path).id == LIVER
    assert models.remove(LIVER) == len(CONTENT)
    assert row(LIVER)["installed"] is False
    assert models.remove(LIVER) == 0


def test_an_installed_model_is_not_fetched_again(server: ModelServer):
    get()
    get()
    assert len(server.requests) == 1


def test_a_file_that_is_not_the_announced_one_is_not_installed(server: ModelServer):
    server.redirect = True
    server.announced = "a" * 64
    with pytest.raises(ModelError, match=r"the server announces aaaaaaaaaaaaaaaa…. Nothing was"):
        get()
    assert sorted(p.name for p in (models.models_folder() / LIVER).iterdir()) == [".lock"]


def test_a_file_that_differs_from_the_first_copy_is_refused_until_that_is_forgotten(server):
    get()
    models.remove(LIVER)
    server.content = CONTENT[::-1]
    with pytest.raises(ModelError, match=r"was pinned the first time.*--forget"):
        get()
    assert row(LIVER)["installed"] is False
    models.remove(LIVER, forget=True)
    assert get().path.read_bytes() == CONTENT[::-1]


def test_a_cancelled_download_can_be_gone_on_with(server: ModelServer):
    class Stop(Exception):
        pass

    def cancel(done: int, _total: int) -> None:
        if done:
            raise Stop

    server.breaks = [1000]
    with pytest.raises(Stop):
        get(callback=cancel)
    part = models.models_folder() / LIVER / "liver_early.pt.part"
    assert part.stat().st_size == 1000
    assert row(LIVER)["installed"] is False
    assert get().path.read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000-"


def test_what_is_no_model_is_not_installed(server: ModelServer, monkeypatch):
    monkeypatch.setattr(model_installation, "describe_foreign", foreign_files.describe_foreign)
    server.content = b"<!DOCTYPE html><html>Please log in</html>"
    home = models.models_folder()
    with pytest.raises(ModelError, match=r"liver_early\.pt is a web page"):
        get()
    assert not list((home / LIVER).glob("*.p*"))


def test_offline_names_the_way_around(server: ModelServer, monkeypatch):
    for options in ({"offline": True}, {}):
        with pytest.raises(ModelError, match=f"difftumor models import FILE --id {LIVER}"):
            get(**options)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not server.requests


def test_two_programs_that_download_the_same_model_do_not_hurt_each_other(server: ModelServer):
    server.content = CONTENT * 200
    program = (
        "from difftumor.weights import models\n"
        f"try: models.download({LIVER!r}, accept_licence=True)\n"
        "except models.ModelError as error: assert 'Another program' in str(error), error"
    )
    # The suite's stand-in content would be refused outside of this process.
    program = (
        "from difftumor.weights import installation as m; m.describe_foreign = print\n" + program
    )
    environment = {**os.environ, "PYTHONPATH": ENGINE}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [each.wait(300) for each in running] == [0, 0, 0]
    assert models.verify(LIVER) == hashlib.sha256(server.content).hexdigest()


def test_a_folder_that_cannot_be_written_is_said(server: ModelServer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelError, match="DIFFTUMOR_HOME"):
        get()


# Verify and remove


def test_a_changed_file_is_noticed_in_the_list_and_when_verified(server: ModelServer):
    path = get().path
    path.write_bytes(CONTENT[:-1] + b"!")
    later = (
        path.stat().st_mtime_ns + 10**9
    )  # a clock of files may tick a hundred times a second only
    os.utime(path, ns=(later, later))
    assert row(LIVER)["verified"] is False
    assert f"difftumor models verify {LIVER}" in row(LIVER)["problem"]
    with pytest.raises(ModelError, match="is damaged or was changed"):
        models.verify(LIVER)
    path.write_bytes(CONTENT)  # touched only: verifying settles it
    models.verify(LIVER)
    assert row(LIVER)["verified"] is True


def test_verifying_what_is_not_installed_says_so():
    with pytest.raises(ModelError, match="is not installed"):
        models.verify(LIVER)


def test_a_damaged_record_is_a_problem_of_that_model_only(server: ModelServer):
    get()
    (models.models_folder() / LIVER / "installed.json").write_text("{")
    assert row(LIVER)["installed"] is False
    assert "cannot be read as JSON" in row(LIVER)["problem"]
    models.remove(LIVER, forget=True)
    assert row(LIVER)["problem"] is None


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/", "nothing", "demo/../x"])
def test_only_models_can_be_removed(name: str):
    (models.models_folder() / "holiday").mkdir()
    (models.models_folder() / "holiday" / "picture.png").write_text("x")
    for each in (name, "holiday"):
        with pytest.raises(ModelError):
            models.remove(each)
    assert (models.models_folder() / "holiday" / "picture.png").exists()


def test_other_files_beside_a_model_stay(server: ModelServer):
    (get().path.parent / "notes.txt").write_text("mine")
    models.remove(LIVER, forget=True)
    names = sorted(path.name for path in (models.models_folder() / LIVER).iterdir())
    assert names == [".lock", "notes.txt"]
