"""The real worker with fake tasks: results, streams, memory, failures in tasks."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from difftumor.worker.bridge import Bridge, WorkerError
from difftumor.worker.protocol import (
    CancelledEvent,
    ErrorEvent,
    ExitedEvent,
    ProgressEvent,
    ProtocolError,
    ReadyEvent,
    ResultEvent,
    SupersededEvent,
)

CT = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def test_arrays_go_there_and_results_come_back(bridge, tmp_path):
    end = bridge.do("double", {"organ": "Leber ä 漢", "radii_mm": [8, 10.5]}, {"ct": CT})
    assert isinstance(end, ResultEvent)
    assert end.metadata["parameters"] == {"organ": "Leber ä 漢", "radii_mm": [8, 10.5]}
    assert end.metadata["mean"] == CT.mean()
    assert end.arrays == ["out"]
    arrays = bridge.take(end.id)
    assert list(arrays) == ["out"]
    assert np.array_equal(arrays["out"], CT * 2)
    assert not list(tmp_path.glob("difftumor-session-*/1"))


def test_an_array_that_a_task_writes_over_is_a_result_too(bridge):
    end = bridge.do("overwrite", {}, {"ct": CT, "other": CT})
    assert end.arrays == ["ct"]
    assert np.array_equal(bridge.take(end.id)["ct"], CT + 1)


def test_a_result_is_taken_once(bridge):
    end = bridge.do("echo", {}, {"ct": CT})
    bridge.take(end.id)
    for number in (end.id, 99):
        with pytest.raises(WorkerError, match="again"):
            bridge.take(number)


def test_a_result_whose_files_vanished_says_so(bridge, tmp_path):
    end = bridge.do("echo", {}, {"ct": CT})
    next(tmp_path.glob("difftumor-session-*/1/out.npy")).unlink()
    with pytest.raises(WorkerError, match="temporary files"):
        bridge.take(end.id)


def test_the_temporary_folder_is_private_and_removed_at_the_end(bridge, tmp_path):
    bridge.do("echo", {}, {"ct": CT})
    (session,) = tmp_path.glob("difftumor-session-*")
    assert session.stat().st_mode & 0o777 == 0o700
    assert (session / "1").stat().st_mode & 0o777 == 0o700
    bridge.close()
    assert not session.exists()
    bridge.close()
    assert bridge.poll() == []
    with pytest.raises(WorkerError, match="closed"):
        bridge.request("echo", {})


def test_nothing_starts_before_the_first_request(bridge, tmp_path):
    assert bridge.poll() == []
    assert bridge.log_path is None
    assert list(tmp_path.iterdir()) == []


def test_a_long_path_with_blanks_and_foreign_letters_works(make_bridge, tmp_path):
    folder = tmp_path / ("Müller & Söhne 漢字 " * 8).strip()
    folder.mkdir()
    bridge = make_bridge(temporary_folder=folder, log_folder=folder / "logs")
    assert isinstance(bridge.do("echo", {}, {"ct": CT}), ResultEvent)
    bridge.close()
    assert [path.name for path in folder.iterdir()] == ["logs"]


def test_the_worker_keeps_its_memory_between_requests(bridge):
    ends = [bridge.do("count") for _ in range(3)]
    assert [end.metadata["count"] for end in ends] == [1, 2, 3]
    assert sum(isinstance(event, ReadyEvent) for event in bridge.seen) == 1


def test_requests_are_done_in_order(bridge):
    numbers = [bridge.request("count", {}) for _ in range(5)]
    ends = [bridge.end_of(number) for number in numbers]
    assert [end.metadata["count"] for end in ends] == [1, 2, 3, 4, 5]
    assert not bridge.busy


def test_a_request_may_be_changed_after_it_was_made(bridge):
    array, parameters = CT.copy(), {"list": [1]}
    bridge.request("steps", {"steps": 5})
    number = bridge.request("double", parameters, {"ct": array})
    array[:] = 0
    assert np.array_equal(bridge.take(bridge.end_of(number).id)["out"], CT * 2)


def test_progress_tells_steps_and_times_at_most_ten_times_a_second(bridge):
    number = bridge.request("steps", {"steps": 100_000, "stages": ["a", "b", "c", "d"]})
    told = []

    def enough(event):
        if isinstance(event, ProgressEvent):
            told.append(event)
        return len(told) >= 3 and told[-1].elapsed_s > 1.0

    bridge.wait_until(enough)
    bridge.cancel(number)
    assert len(told) <= 10 * (int(told[-1].elapsed_s) + 1)
    assert all(0 <= event.done <= event.total == 100_000 for event in told)
    assert [event.elapsed_s for event in told] == sorted(event.elapsed_s for event in told)


def test_remaining_time_comes_from_the_pace_of_the_stage(bridge, tmp_path):
    go = tmp_path / "go"
    number = bridge.request("steps", {"steps": 50, "pause_s": 0.02, "file": str(go)})
    first = bridge.wait_for(ProgressEvent)
    assert (first.done, first.remaining_s) == (0, None)
    go.touch()
    bridge.end_of(number)
    last = [event for event in bridge.seen if isinstance(event, ProgressEvent)][-1]
    pace_s = (last.elapsed_s - first.elapsed_s) / last.done
    assert last.remaining_s == pytest.approx(pace_s * (50 - last.done), rel=0.02, abs=0.002)


def test_what_a_library_or_its_child_prints_does_not_reach_the_channel(bridge):
    end = bridge.do("chatter")
    assert isinstance(end, ResultEvent)
    assert end.elapsed_s > 0
    number = bridge.request("children", {"sleep_s": 0})
    assert isinstance(bridge.end_of(number), ResultEvent)
    assert not any(isinstance(event, ErrorEvent) for event in bridge.seen)
    words = {b"print {", b"write", b"raw \xff\xfe bytes", b"a child's word"}
    limit = time.monotonic() + 60  # the log has a thread of its own
    while words and time.monotonic() < limit:
        log = bridge.log_path.read_bytes()
        words = {text for text in words if text not in log}
        time.sleep(0.01)
    assert not words


def test_the_log_is_bounded_private_and_without_patient_data(bridge):
    bridge.do("echo", {"patient": "Jane Doe"}, {"ct": CT})
    bridge.do("fail", {"type": "FileNotFoundError", "text": "/data/Jane Doe/ct.nii.gz"})
    end = bridge.do("chatter", {"lines": 5000})
    assert isinstance(end, ResultEvent)
    bridge.close()
    logs = list(bridge.log_path.parent.iterdir())
    assert sum(path.stat().st_size for path in logs) < 2.2 * 2**20
    for path in logs:
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"Jane" not in path.read_bytes()


@pytest.mark.parametrize(
    ("parameters", "kind", "words"),
    [
        ({"type": "ValueError"}, "refused", "what, why and what next"),
        ({"type": "FileNotFoundError"}, "refused", "what, why and what next"),
        ({"type": "ModelError"}, "refused", "what, why and what next"),
        ({"type": "KeyError"}, "internal", "KeyError"),
        ({"type": "SystemExit"}, "internal", "SystemExit"),
        ({"type": "KeyboardInterrupt"}, "internal", "KeyboardInterrupt"),
        ({"type": "RecursionError"}, "internal", "RecursionError"),
        ({"type": "28"}, "disk_full", "No space left"),
        ({"type": "122"}, "disk_full", "quota"),
        ({"type": "5"}, "internal", "Input/output error"),
        ({"type": "RuntimeError", "text": "shape mismatch"}, "internal", "shape mismatch"),
    ],
)
def test_an_exception_becomes_an_error_and_the_worker_goes_on(
    lasting_bridge, parameters, kind, words
):
    bridge = lasting_bridge
    end = bridge.do("fail", parameters, {"ct": CT})
    assert isinstance(end, ErrorEvent)
    assert end.kind == kind
    assert words in end.message
    assert "Traceback" in end.details
    assert Path(end.log).is_file()
    assert end.hint or kind == "refused"
    assert bridge.do("count").metadata["pid"] == bridge.first_pid


def test_an_error_brings_its_remedy_as_data_and_in_words(lasting_bridge):
    remedy = {"kind": "verify", "model": "mine"}
    end = lasting_bridge.do("fail", {"type": "ModelError", "text": "Bad.", "remedy": remedy})
    assert (end.message, end.hint) == ("Bad.", "Run: difftumor models verify mine")
    assert end.remedy == remedy


@pytest.mark.parametrize(
    ("parameters", "kind", "words"),
    [
        ({"type": "MemoryError"}, "out_of_memory", "smaller region"),
        ({"type": "OutOfMemoryError"}, "out_of_memory", "smaller region"),
        (
            {"type": "RuntimeError", "text": "DefaultCPUAllocator: can't allocate memory"},
            "out_of_memory",
            "smaller region",
        ),
        ({"type": "RuntimeError", "text": "CUDA out of memory"}, "out_of_memory", "smaller"),
        ({"type": "AcceleratorError", "text": "CUDA error: illegal"}, "device_failed", "doctor"),
    ],
)
def test_after_a_damage_the_next_request_has_a_fresh_worker(bridge, parameters, kind, words):
    first = bridge.do("count").metadata["pid"]
    end = bridge.do("fail", parameters)
    assert (end.kind, end.exception) == (kind, parameters["type"])
    assert words in end.hint
    after = bridge.do("count").metadata
    assert after["count"] == 1
    assert after["pid"] != first
    assert not any(isinstance(event, ExitedEvent) for event in bridge.seen)


def test_memory_that_is_not_there_is_an_error_with_the_remedy(bridge):
    end = bridge.do("allocate")
    assert end.kind == "out_of_memory"
    assert "allocate" in end.message
    assert isinstance(bridge.do("count"), ResultEvent)


def test_a_missing_package_names_the_interpreter_and_the_remedy(bridge):
    end = bridge.do("import_missing")
    assert end.kind == "missing_package"
    assert "torch_that_is_not_there" in end.message
    assert sys.executable in end.message
    assert "pip install torch_that_is_not_there" in end.hint


def test_an_unknown_task_lists_the_known_ones(lasting_bridge):
    end = lasting_bridge.do("fly")
    assert end.kind == "refused"
    assert "double" in end.message


def test_a_missing_tasks_module_is_reported(make_bridge):
    end = make_bridge(tasks="no_such_tasks").do("x")
    assert end.kind == "missing_package"


@pytest.mark.parametrize("what", ["list", "none", "set", "nan", "big"])
def test_an_answer_that_cannot_travel_is_an_error_of_ours(lasting_bridge, what):
    task = "answer" if what in ("list", "none") else "returns"
    end = lasting_bridge.do(task, {"what": what})
    assert isinstance(end, ErrorEvent)
    assert end.kind == "internal"
    assert lasting_bridge.do("count").metadata["pid"] == lasting_bridge.first_pid


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": object()}, {"x": "y" * 100_000}])
def test_parameters_that_cannot_travel_are_refused_at_once(bridge, bad):
    with pytest.raises(ProtocolError):
        bridge.request("echo", bad)
    assert not bridge.busy


def test_arrays_that_cannot_travel_are_refused_and_leave_nothing(bridge, tmp_path):
    for arrays in ({"ct": CT, "../x": CT}, {"ct": CT, "text": np.array(["a"])}):
        with pytest.raises(ProtocolError):
            bridge.request("echo", {}, arrays)
    assert not bridge.busy
    assert not list(tmp_path.glob("difftumor-session-*/[0-9]*"))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM])
def test_a_crash_is_told_and_the_next_request_works(bridge, number, tmp_path):
    waiting = (
        bridge.request("die", {"signal": int(number)}, {"ct": CT}),
        bridge.request("count", {}),
    )
    end = bridge.end_of(waiting[0])
    assert isinstance(end, ErrorEvent)
    assert end.kind == ("killed" if number == signal.SIGKILL else "crashed")
    assert number.name in end.message
    assert Path(end.log).is_file()
    exited = bridge.wait_for(ExitedEvent)
    assert (exited.code, exited.signal) == (-number, number.name)
    assert isinstance(bridge.end_of(waiting[1]), ResultEvent)
    assert not list(tmp_path.glob("difftumor-session-*/1"))
    if number == signal.SIGSEGV:
        assert "fake_tasks.py" in end.details, "the log's end tells where it crashed"


@pytest.mark.parametrize("code", [0, 1, 7])
def test_a_worker_that_leaves_is_told_with_its_code(bridge, code):
    end = bridge.do("die", {"code": code})
    assert end.kind == "crashed"
    assert bridge.wait_for(ExitedEvent).code == code


def test_a_kill_by_the_system_for_lack_of_memory_is_told_as_such(bridge, monkeypatch):
    counts = iter([3, 4, 4, 4])
    monkeypatch.setattr("difftumor.worker.process._count_oom_kills", lambda: next(counts))
    end = bridge.do("die", {"signal": int(signal.SIGKILL)})
    assert end.kind == "out_of_memory"
    assert "memory was used up" in end.message
    assert "smaller region" in end.hint


def test_an_idle_worker_that_is_killed_is_told_and_replaced(bridge):
    pid = bridge.do("count").metadata["pid"]
    os.kill(pid, signal.SIGKILL)
    assert bridge.wait_for(ExitedEvent).signal == "SIGKILL"
    after = bridge.do("count").metadata
    assert (after["count"], after["pid"] != pid) == (1, True)


def test_children_of_a_crashed_worker_do_not_stay(bridge, ends):
    number = bridge.request("children", {"crash": True})
    child = int(bridge.wait_for(ProgressEvent).stage.removeprefix("child "))
    assert bridge.end_of(number).kind == "crashed"
    assert ends(child)


def test_a_full_disk_at_the_request_is_an_error_and_leaves_nothing(make_bridge, small_disk):
    bridge = make_bridge(temporary_folder=small_disk)
    end = bridge.do("echo", {}, {"ct": CT, "large": np.zeros(10**7, np.uint8)})
    assert end.kind == "disk_full"
    assert "No space left" in end.message
    assert "MB free" in end.message
    assert "TMPDIR" in end.hint
    assert not list(small_disk.glob("*/[0-9]*"))
    assert isinstance(bridge.do("echo", {}, {"ct": CT}), ResultEvent)
    bridge.close()


def test_a_full_disk_in_the_task_is_an_error_and_leaves_nothing(make_bridge, small_disk):
    bridge = make_bridge(temporary_folder=small_disk)
    end = bridge.do("fill_disk")
    assert end.kind == "disk_full"
    assert not list(small_disk.glob("*/[0-9]*"))
    assert isinstance(bridge.do("echo", {}, {"ct": CT}), ResultEvent)
    bridge.close()


def test_a_full_disk_for_the_log_stops_nothing(make_bridge, small_disk):
    (small_disk / "filler").write_bytes(bytes(2**21 - 8192))
    bridge = make_bridge(log_folder=small_disk)
    assert isinstance(bridge.do("chatter", {"lines": 3000}), ResultEvent)
    assert isinstance(bridge.do("count"), ResultEvent)
    bridge.close()


def test_a_temporary_folder_that_is_not_there_is_an_error(make_bridge, tmp_path):
    bridge = make_bridge(temporary_folder=tmp_path / "missing")
    end = bridge.do("echo", {}, {"ct": CT})
    assert isinstance(end, ErrorEvent)
    assert "No such file" in end.message


def test_a_cleaner_of_temporary_files_does_no_harm(bridge, tmp_path):
    bridge.do("count")
    shutil.rmtree(next(tmp_path.glob("difftumor-session-*")))
    end = bridge.do("echo", {}, {"ct": CT})
    assert isinstance(end, ResultEvent)


def test_a_newer_request_of_a_panel_supersedes_the_older_ones(bridge):
    running = bridge.request("steps", {"steps": 10_000}, panel="synthesis")
    bridge.wait_for(ProgressEvent)
    other = bridge.request("count", {}, panel="anomaly")
    dropped = bridge.request("count", {}, {"ct": CT}, panel="synthesis")
    newest = bridge.request("count", {}, panel="synthesis")
    assert bridge.end_of(running) == CancelledEvent(running, False, newest)
    assert bridge.end_of(dropped) == SupersededEvent(dropped, newest)
    assert bridge.end_of(other).metadata["count"] == 1
    assert bridge.end_of(newest).metadata["count"] == 2


def test_a_slider_does_not_kill_a_worker_that_is_slow_to_listen(make_bridge, tmp_path):
    bridge = make_bridge(cancel_grace_s=0.1)
    deaf, numbers = {"file": str(tmp_path / "go"), "sleep_s": 0.1}, []
    for _ in range(5):
        numbers.append(bridge.request("stubborn", deaf, panel="anomaly"))
        bridge.wait_for(ReadyEvent)
        time.sleep(0.15)
        bridge.seen += bridge.poll()
    (tmp_path / "go").touch()
    ends = [bridge.end_of(number) for number in numbers]
    assert isinstance(ends[-1], ResultEvent)
    assert all(isinstance(end, CancelledEvent | SupersededEvent) for end in ends[:-1])
    assert sum(isinstance(event, ReadyEvent) for event in bridge.seen) == 1


def test_every_request_ends_exactly_once(bridge):
    kinds = [("count", {}), ("fail", {"type": "ValueError"}), ("die", {"code": 1})]
    numbers = [bridge.request(*kinds[i % 3]) for i in range(9)]
    for number in numbers:
        bridge.end_of(number)
    bridge.do("count")
    ids = [e.id for e in bridge.seen if isinstance(e, ResultEvent | ErrorEvent) and e.id]
    assert ids == [*numbers, 10]


def test_the_bridge_needs_no_options(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Bridge() as bridge:
        assert bridge.poll() == []
        assert not bridge.busy
