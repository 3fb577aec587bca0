"""The Models panel: downloads, imports, checks and removals, with progress, cancel and license."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

import pytest

from Testing.module.scene.scenes import FakeBridge, make_scene

from difftumor.weights import models  # isort: skip
from difftumor.weights.models import Identification, ModelError  # isort: skip
from difftumor.worker.protocol import ResultEvent  # isort: skip
from DiffTumorSlicerLib.jobs.host import Host  # isort: skip
from DiffTumorSlicerLib.session import Session, SessionError  # isort: skip

LIVER = "difftumor-liver-early"
CONTENT = b"no real checkpoint" * 1000


@pytest.fixture
def bridge():
    return FakeBridge()


@pytest.fixture
def session(bridge):
    made = Session(make_scene(), bridge=bridge, host=Host())
    yield made
    made.close()


def ended(session, number, timeout_s=120.0):
    state = session.wait(number, timeout_s=timeout_s)
    assert not session.busy
    return state


def imported(session, bridge, path, model_id=None, facts=None):
    """What a person does: choose a file; the worker says what it is, and the copy is made."""
    number = session.import_model(path, model_id)
    request = max(bridge.requests)
    assert bridge.requests[request][0] == "identify_model"
    assert bridge.requests[request][1] == {"path": str(path)}
    found = Identification("difftumor_diffusion", "a diffusion checkpoint", facts or {"T": 4})
    bridge.results[request] = {}
    bridge.events.append(ResultEvent(request, asdict(found), [], 0.1))
    return ended(session, number)


@pytest.fixture
def liver_file(tmp_path):
    path = tmp_path / "liver_early.pt"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_imported_verified_and_removed(session, bridge, liver_file):
    state = imported(session, bridge, liver_file)
    assert state.kind == "done", state.sentence
    assert state.sentence.endswith("is installed.")
    assert models.find_model(LIVER).path.read_bytes() == CONTENT
    state = ended(session, session.verify(LIVER))
    assert state.kind == "done"
    assert state.sentence.endswith("is unchanged.")
    models.find_model(LIVER).path.write_bytes(CONTENT[:-1])
    state = ended(session, session.verify(LIVER))
    assert state.kind == "failed"
    assert "Remove it in the Models panel and get it again there" in state.sentence
    assert "difftumor models" not in state.sentence
    state = ended(session, session.remove(LIVER))
    assert state.sentence.endswith("MB are free again.")
    with pytest.raises(ModelError):
        models.find_model(LIVER)


def test_a_file_that_is_another_model_says_so(session, bridge, liver_file):
    state = imported(session, bridge, liver_file, LIVER, {"T": 200})
    assert state.kind == "failed"
    assert "not what difftumor-liver-early is" in state.sentence


def test_the_worker_may_not_know_the_file_or_lack_torch(session, bridge, liver_file):
    number = session.import_model(liver_file)
    bridge.fail(1, "missing_package", "The Python has no package 'torch'.", "Install it there.")
    state = ended(session, number)
    assert state.kind == "failed"
    assert state.sentence == "The Python has no package 'torch'. Install it there."


def test_nothing_there_and_unknown_models_are_sentences(session, bridge, tmp_path):
    with pytest.raises(SessionError, match="Choose the file again"):
        session.import_model(tmp_path / "gone.pt")
    for call in (session.download, session.verify, session.remove):
        with pytest.raises(SessionError, match=r'no model "x".*of the list'):
            call("x")
    assert bridge.requests == {}


def test_the_licence_is_asked_before_the_first_download(session, monkeypatch):
    with pytest.raises(SessionError, match=r"is under the license .*Read it and accept it"):
        session.download(LIVER)
    asked = []

    def download(model_id, *, accept_licence, callback):
        asked.append((model_id, accept_licence))

    monkeypatch.setattr(models, "download", download)
    assert ended(session, session.download(LIVER, accept=True)).kind == "done"
    assert asked == [(LIVER, True)]


def test_a_download_tells_its_progress_and_can_be_cancelled(session, monkeypatch):
    reached = threading.Event()

    def download(model_id, *, accept_licence, callback):
        for done in range(0, 10**9, 1000):
            callback(done, 10**9)
            if done > 5000:
                reached.set()
            time.sleep(0.001)

    monkeypatch.setattr(models, "download", download)
    states = []
    session.add_listener(states.append)
    number = session.download(LIVER, accept=True)
    assert reached.wait(120)
    session.poll()
    state = session.states["models"]
    assert (state.kind, state.stage, state.total) == ("running", "downloading", 10**9)
    assert state.done > 0
    with pytest.raises(SessionError, match="Wait for it, or cancel"):
        session.verify(LIVER)
    assert session.cancel()
    assert session.states["models"].stage == "stopping"
    state = ended(session, number)
    assert state.kind == "cancelled"
    assert "goes on from here" in state.sentence
    assert session.states["synthesis"].kind == "idle"
    assert {s.panel for s in states} == {"models"}


def test_failures_in_the_thread_are_sentences(session, monkeypatch):
    for error, match in (
        (ModelError("The disk is full. Let DIFFTUMOR_HOME be."), "The disk is full"),
        (OSError("no disk"), "No disk"),
        (KeyError("x"), "fault of the program (KeyError)"),
    ):

        def download(*_args, error=error, **_kwargs):
            raise error

        monkeypatch.setattr(models, "download", download)
        state = ended(session, session.download(LIVER, accept=True))
        assert state.kind == "failed"
        assert match in state.sentence
        assert "Traceback" not in state.sentence


def test_models_and_synthesis_do_not_disturb_each_other(session, bridge, monkeypatch, parameters):
    from Testing.module.scene.scenes import add_ct

    go = threading.Event()
    monkeypatch.setattr(models, "download", lambda *_a, **_k: go.wait(120))
    number = session.download(LIVER, accept=True)
    session.synthesize(parameters, add_ct(session.scene))
    bridge.answer(1)
    session.poll()
    assert session.states["synthesis"].kind == "done"
    assert session.states["models"].kind == "running"
    session.scene.Clear(0)
    assert session.states["models"].kind == "running"
    go.set()
    assert ended(session, number).kind == "done"


def test_closing_does_not_wait_for_a_download(monkeypatch):
    session = Session(make_scene(), bridge=FakeBridge(), host=Host())
    go, ended = threading.Event(), threading.Event()

    def download(model_id, *, accept_licence, callback):
        go.wait(60)
        ended.set()

    monkeypatch.setattr(models, "download", download)
    session.download(LIVER, accept=True)
    session.close()
    assert not ended.is_set()
    go.set()
    assert ended.wait(60)
