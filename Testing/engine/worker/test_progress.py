"""Progress: never more than ten events in a second, no new stage hidden, honest times."""

import threading

import pytest

from difftumor.worker.main import Context
from difftumor.worker.protocol import Cancelled


@pytest.fixture
def clock(monkeypatch):
    """The seconds that `time.monotonic` says, to be set."""
    now = [100.0]
    monkeypatch.setattr("difftumor.worker.main.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def told():
    return []


@pytest.fixture
def context(clock, told):
    return Context(1, lambda event: told.append((clock[0], event)), {}, threading.Event())


@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.03, 0.1, 0.124, 0.2, 1.0])
@pytest.mark.parametrize("stages", [1, 2, 7])
def test_no_second_holds_more_than_ten_events(context, clock, told, pause_s, stages):
    for i in range(500):
        context.progress(f"stage {i % stages}", i, 500)
        clock[0] += pause_s
    times = [time for time, _ in told]
    assert all(later - earlier >= 1.0 for earlier, later in zip(times, times[10:], strict=False))


def test_slow_steps_are_all_told(context, clock, told):
    for i in range(20):
        context.progress("denoising", i, 20)
        clock[0] += 0.2
    assert [event.done for _, event in told] == list(range(20))


def test_a_new_stage_is_told_at_once(context, clock, told):
    for i in range(100):
        context.progress("denoising", i, 100)
        clock[0] += 0.01
    context.progress("decoding", 0, 0)
    assert told[-1][1].stage == "decoding"
    assert told[-1][1].remaining_s is None


def test_times_are_of_the_request_and_of_the_stage(context, clock, told):
    clock[0] += 5.0
    context.progress("denoising", 0, 4)
    clock[0] += 2.0
    context.progress("denoising", 1, 4)
    event = told[-1][1]
    assert event.elapsed_s == 7.0
    assert event.remaining_s == 6.0


def test_a_cancelled_request_stops_at_its_next_word(context, told):
    context._stop.set()
    assert context.cancelled
    with pytest.raises(Cancelled):
        context.check()
    with pytest.raises(Cancelled):
        context.progress("denoising", 1, 4)
    assert not told
