"""Cancelling: soon, always, and with a worker ready for the next request."""

import os
import signal
import sys
import time

import numpy as np
import pytest

from difftumor.worker.protocol import (
    CancelledEvent,
    ErrorEvent,
    ProgressEvent,
    ReadyEvent,
    ResultEvent,
)

CT = np.zeros((4, 4, 4), np.int16)


def cancel_and_time(bridge, number):
    """Cancel a running request; its end and the seconds it took."""
    bridge.wait_until(lambda event: isinstance(event, ProgressEvent) and event.id == number)
    started = time.monotonic()
    assert bridge.cancel(number)
    end = bridge.end_of(number)
    return end, time.monotonic() - started


@pytest.fixture
def patient(make_bridge):
    """A bridge that waits for a worker on a busy machine, and does not kill it meanwhile."""
    return make_bridge(cancel_grace_s=60.0)


def test_a_task_that_asks_stops_at_once_and_the_worker_stays(patient, tmp_path, within):
    bridge, counts = patient, []

    def cancelled():
        counts.append(bridge.do("count").metadata["count"])
        number = bridge.request("steps", {"steps": 10_000}, {"ct": CT})
        end, duration_s = cancel_and_time(bridge, number)
        assert end == CancelledEvent(number, killed=False)
        assert not list(tmp_path.glob(f"difftumor-session-*/{number}"))
        return duration_s

    within(0.3, cancelled)
    assert bridge.do("count").metadata["count"] == len(counts) + 1


@pytest.mark.parametrize("task", ["stubborn", "busy"])
def test_a_task_that_never_asks_is_killed_within_half_a_second(bridge, task, tmp_path, within):
    def killed():
        number = bridge.request(task, {}, {"ct": CT})
        end, duration_s = cancel_and_time(bridge, number)
        assert end == CancelledEvent(number, killed=True)
        assert not list(tmp_path.glob("difftumor-session-*/[0-9]*"))
        assert isinstance(bridge.do("count"), ResultEvent)
        assert duration_s >= 0.3
        return duration_s

    within(0.5, killed)


def test_a_killed_worker_takes_its_children_along(bridge, ends):
    number = bridge.request("children", {})
    end, _ = cancel_and_time(bridge, number)
    assert end.killed
    child = int(bridge.wait_for(ProgressEvent).stage.removeprefix("child "))
    assert ends(child)


def test_a_killed_worker_behind_a_launcher_is_gone(make_fake, ends, within):
    worker = [sys.executable, "-m", "difftumor.worker", "--tasks", "fake_tasks"]
    bridge = make_fake("launcher", *worker)

    def killed():
        bridge.seen.clear()
        number = bridge.request("stubborn", {})
        end, duration_s = cancel_and_time(bridge, number)
        assert end.killed
        assert ends(bridge.wait_for(ReadyEvent).pid)
        return duration_s

    within(1.0, killed)
    assert isinstance(bridge.do("count"), ResultEvent)


def test_a_stopped_process_can_be_cancelled(bridge):
    number = bridge.request("stubborn", {})
    bridge.wait_for(ProgressEvent)
    os.kill(bridge.wait_for(ReadyEvent).pid, signal.SIGSTOP)
    assert bridge.cancel(number)
    assert bridge.end_of(number).killed


def test_cancelling_while_the_worker_starts_costs_nothing(bridge):
    number = bridge.request("count", {})
    assert bridge.cancel(number)
    assert bridge.end_of(number) == CancelledEvent(number)
    assert bridge.do("count").metadata["count"] == 1
    assert sum(isinstance(event, ReadyEvent) for event in bridge.seen) == 1


def test_cancelling_what_waits_leaves_the_rest(bridge):
    numbers = [bridge.request("count", {}) for _ in range(3)]
    assert bridge.cancel(numbers[1])
    assert isinstance(bridge.end_of(numbers[1]), CancelledEvent)
    assert [bridge.end_of(n).metadata["count"] for n in (numbers[0], numbers[2])] == [1, 2]


def test_cancelling_what_has_ended_is_no_error(bridge):
    end = bridge.do("count")
    assert not bridge.cancel(end.id)
    assert not bridge.cancel(99)
    bridge.seen.clear()
    assert bridge.do("count").metadata["count"] == 2


def test_a_result_that_crosses_the_cancel_is_not_told(patient, tmp_path):
    bridge = patient
    number = bridge.request("ignore_cancel", {})
    end, _ = cancel_and_time(bridge, number)
    assert end == CancelledEvent(number, killed=False)
    assert not list(tmp_path.glob("difftumor-session-*/1"))
    assert isinstance(bridge.do("count"), ResultEvent)


def test_an_exception_of_the_library_around_the_cancel_is_no_error(patient):
    bridge = patient
    number = bridge.request("wrap_cancel", {})
    end, _ = cancel_and_time(bridge, number)
    assert end == CancelledEvent(number, killed=False)


def test_cancelling_twice_gives_one_event(bridge):
    number = bridge.request("steps", {"steps": 10_000})
    bridge.wait_for(ProgressEvent)
    assert bridge.cancel(number)
    bridge.cancel(number)
    bridge.end_of(number)
    bridge.do("count")
    assert sum(isinstance(event, CancelledEvent) for event in bridge.seen) == 1


def test_no_progress_is_told_after_the_cancel(make_bridge):
    bridge = make_bridge(cancel_grace_s=5.0)
    number = bridge.request("steps", {"steps": 10_000})
    bridge.wait_for(ProgressEvent)
    bridge.cancel(number)
    position = len(bridge.seen)
    bridge.end_of(number)
    assert not any(isinstance(event, ProgressEvent) for event in bridge.seen[position:])


def test_a_cancel_of_the_superseded_request_is_not_slower_than_any_other(bridge, within):
    def cancelled():
        bridge.seen.clear()
        number = bridge.request("stubborn", {}, panel="anomaly")
        bridge.wait_for(ProgressEvent)
        newer = bridge.request("count", {}, panel="anomaly")
        started = time.monotonic()
        bridge.cancel(number)
        assert bridge.end_of(number) == CancelledEvent(number, True, newer)
        duration_s = time.monotonic() - started
        assert isinstance(bridge.end_of(newer), ResultEvent)
        return duration_s

    within(1.0, cancelled)


def test_a_worker_that_dies_while_it_is_cancelled_counts_as_cancelled(make_bridge):
    bridge = make_bridge(cancel_grace_s=30.0)
    number = bridge.request("stubborn", {})
    bridge.wait_for(ProgressEvent)
    bridge.cancel(number)
    os.kill(bridge.wait_for(ReadyEvent).pid, signal.SIGKILL)
    assert bridge.end_of(number) == CancelledEvent(number, killed=False)
    assert not any(isinstance(event, ErrorEvent) for event in bridge.seen)


@pytest.mark.parametrize("deaf", [False, True])
def test_what_was_finished_before_the_cancel_is_kept_until_it_is_taken(make_bridge, tmp_path, deaf):
    bridge = make_bridge(cancel_grace_s=0.3 if deaf else 60.0)
    number = bridge.request("slices", {"deaf": deaf}, {"ct": CT})
    bridge.wait_until(lambda event: isinstance(event, ProgressEvent) and event.done == 3)
    assert bridge.cancel(number)
    end = bridge.end_of(number)
    assert end == CancelledEvent(number, killed=deaf, partial={"slices": 3})
    assert bridge.take(number)["out"].tolist() == [1, 2, 3, *[0] * 7]
    assert not list(tmp_path.glob(f"difftumor-session-*/{number}"))
    assert isinstance(bridge.do("count"), ResultEvent)


def test_what_a_newer_request_does_again_is_not_kept(make_bridge, tmp_path):
    bridge = make_bridge(supersede_grace_s=60.0)
    number = bridge.request("slices", {}, panel="anomaly")
    bridge.wait_until(lambda event: isinstance(event, ProgressEvent) and event.done == 3)
    newer = bridge.request("count", {}, panel="anomaly")
    assert bridge.end_of(number) == CancelledEvent(number, False, newer)
    assert not list(tmp_path.glob(f"difftumor-session-*/{number}"))
