"""A worker that misbehaves on the wire, or does not come up at all."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from difftumor.worker.bridge import WorkerError
from difftumor.worker.process import WorkerProcess
from difftumor.worker.protocol import (
    CancelledEvent,
    ErrorEvent,
    ExitedEvent,
    ProgressEvent,
    ReadyEvent,
    ResultEvent,
)

CT = np.zeros((4, 4, 4), np.int16)


def garbage_events(bridge):
    return [e for e in bridge.seen if isinstance(e, ErrorEvent) and e.kind == "protocol"]


@pytest.mark.parametrize("manner", ["garbage", "garbage flood", "huge line", "bomb"])
def test_lines_that_are_no_events_are_told_a_few_times_and_harm_nothing(make_fake, manner):
    bridge = make_fake(manner)
    assert isinstance(bridge.do("x"), ResultEvent)
    assert 1 <= len(garbage_events(bridge)) <= 3
    assert all(event.id is None and event.hint for event in garbage_events(bridge))


def test_what_a_launcher_prints_before_the_worker_is_no_matter(make_fake):
    worker = [sys.executable, "-m", "difftumor.worker", "--tasks", "fake_tasks"]
    bridge = make_fake("noisy launcher", *worker)
    assert isinstance(bridge.do("count"), ResultEvent)
    assert not garbage_events(bridge)


def test_a_flood_of_progress_neither_grows_nor_delays(make_fake):
    bridge = make_fake("progress flood")
    assert isinstance(bridge.do("x"), ResultEvent)
    assert any(isinstance(event, ProgressEvent) for event in bridge.seen)


def test_a_flood_on_stderr_fills_a_bounded_log_and_blocks_nothing(make_fake):
    bridge = make_fake("stderr flood")
    assert isinstance(bridge.do("x"), ResultEvent)
    bridge.close()
    sizes = [path.stat().st_size for path in bridge.log_path.parent.iterdir()]
    assert 2**20 < sum(sizes) < 2.1 * 2**20


@pytest.mark.parametrize("manner", ["half line", "whole line without end"])
def test_a_line_cut_off_by_the_end_is_no_result(make_fake, manner):
    bridge = make_fake(manner)
    end = bridge.do("x", {}, {"ct": CT})
    assert isinstance(end, ErrorEvent)
    assert end.kind == "crashed"
    assert bridge.wait_for(ExitedEvent).code == 0


def test_a_result_before_the_end_counts(make_fake):
    bridge = make_fake("result and gone")
    assert isinstance(bridge.do("x"), ResultEvent)
    assert bridge.wait_for(ExitedEvent).code == 3
    assert isinstance(bridge.do("x"), ResultEvent)


def test_a_result_before_the_end_counts_also_after_a_pause_of_our_own(make_fake, monkeypatch):
    """As when the machine sleeps, or the window's thread draws, before the last line is read."""
    go, keep = threading.Event(), WorkerProcess._keep
    monkeypatch.setattr("difftumor.worker.process._LAST_WORDS_S", 0.0)
    monkeypatch.setattr(
        WorkerProcess,
        "_keep",
        lambda worker, event: (isinstance(event, ReadyEvent) or go.wait(60), keep(worker, event)),
    )
    bridge = make_fake("result and gone")
    number = bridge.request("x", {})
    bridge.wait_for(ReadyEvent)
    worker = bridge._worker
    worker._process.wait(60)
    for _ in range(3):
        bridge.seen += bridge.poll()
    go.set()
    for thread in worker._threads:
        thread.join(60)
    assert isinstance(bridge.end_of(number), ResultEvent)


def test_a_result_that_points_out_of_its_folder_is_refused(make_fake):
    bridge = make_fake("leads outside")
    end = bridge.do("x")
    with pytest.raises(WorkerError, match="array name"):
        bridge.take(end.id)


def test_a_worker_that_never_listens_is_ended_and_told(make_fake, ends):
    bridge = make_fake("never ready", start_timeout_s=0.3)
    numbers = [bridge.request("x", {}), bridge.request("y", {})]
    for number in numbers:
        end = bridge.end_of(number)
        assert end.kind == "not_started"
        assert "not ready after" in end.message
        assert Path(end.log).is_file()
    assert not bridge.busy


def test_a_worker_that_dies_at_its_start_tells_its_last_words(make_fake):
    end = make_fake("dies at once").do("x")
    assert end.kind == "not_started"
    assert "no module 'numpy'" in end.message
    assert "3.11" in end.hint


def test_a_worker_of_another_version_is_refused(make_fake):
    end = make_fake("other version").do("x")
    assert end.kind == "not_started"
    assert "protocol 99" in end.message
    assert "Update" in end.hint


def test_a_worker_that_says_ready_and_goes_is_not_started_for_ever(make_fake):
    bridge = make_fake("ready and gone")
    for _ in range(2):
        assert bridge.do("x").kind == "crashed"
    assert sum(isinstance(event, ReadyEvent) for event in bridge.seen) == 2


@pytest.mark.parametrize("make", ["missing", "folder", "not executable", "no program", "broken"])
def test_an_interpreter_that_cannot_be_started_is_told(make_bridge, tmp_path, make):
    python = tmp_path / "python"
    if make == "folder":
        python.mkdir()
    elif make == "not executable":
        python.write_text("#!/bin/sh\n")
    elif make == "no program":
        python.write_bytes(b"\x7fELF nonsense")
        python.chmod(0o755)
    elif make == "broken":
        python.write_text("#!/no/such/shell\n")
        python.chmod(0o755)
    bridge = make_bridge(python)
    numbers = [bridge.request("x", {}, {"ct": CT}), bridge.request("y", {})]
    for number in numbers:
        end = bridge.end_of(number)
        assert end.kind == "not_started"
        assert "settings" in end.hint
    assert not bridge.busy


def test_an_interpreter_without_numpy_is_told(make_bridge, tmp_path):
    # -S leaves out site-packages, as a bare Python has none.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    end = make_bridge(python).do("x")
    assert end.kind == "not_started"
    assert "no module 'numpy'" in end.message
    assert "torch" in end.hint


def test_a_process_that_survives_its_kill_is_not_waited_for(make_bridge, monkeypatch, ends):
    # As one that waits inside a driver: the signal reaches it much later.
    monkeypatch.setattr("difftumor.worker.bridge._KILL_TIMEOUT_S", 0.3)
    bridge = make_bridge()
    number = bridge.request("stubborn", {})
    pid = bridge.wait_for(ReadyEvent).pid
    bridge.wait_for(ProgressEvent)
    worker = bridge._worker
    kill, worker.kill = worker.kill, lambda: None
    bridge.cancel(number)
    assert bridge.end_of(number) == CancelledEvent(number, killed=True)
    assert isinstance(bridge.do("count"), ResultEvent)
    kill()
    assert ends(pid)


def test_the_old_log_files_do_not_pile_up(make_bridge, tmp_path):
    logs = tmp_path / "logs"
    for _ in range(15):
        bridge = make_bridge(tmp_path / "no python")
        bridge.do("x")
        bridge.close()
    assert 1 <= len(list(logs.iterdir())) <= 10


def test_a_log_folder_that_cannot_be_written_is_replaced(make_bridge, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bridge = make_bridge(log_folder=tmp_path / "file" / "logs")
    assert isinstance(bridge.do("count"), ResultEvent)
    assert bridge.log_path.is_file()
