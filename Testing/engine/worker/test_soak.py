"""A long campaign of faults in random order: nothing lost, nothing left, and always ready again."""

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from difftumor.worker.protocol import (
    CancelledEvent,
    ErrorEvent,
    ProgressEvent,
    ReadyEvent,
    ResultEvent,
    SupersededEvent,
)

pytestmark = pytest.mark.soak

CT = np.arange(32**3, dtype=np.int16).reshape(32, 32, 32)


def a_result(bridge, rng):
    end = bridge.do("double", {}, {"ct": CT})
    assert np.array_equal(bridge.take(end.id)["out"], CT * 2)


def an_exception(bridge, rng):
    name = rng.choice(["ValueError", "KeyError", "MemoryError", "SystemExit", "28", "ModelError"])
    assert isinstance(bridge.do("fail", {"type": str(name)}, {"ct": CT}), ErrorEvent)


def a_death(bridge, rng):
    number = rng.choice([signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
    end = bridge.do("die", {"signal": int(number)}, {"ct": CT})
    assert end.kind in ("crashed", "killed", "out_of_memory")


def a_leave(bridge, rng):
    assert bridge.do("die", {"code": int(rng.integers(0, 4))}).kind == "crashed"


def a_kill_from_outside(bridge, rng):
    number = bridge.request("steps", {"steps": 10_000}, {"ct": CT})
    pid = next(iter(bridge.pids() or [bridge.wait_for(ReadyEvent).pid]))
    time.sleep(rng.uniform(0, 0.3))
    os.kill(pid, signal.SIGKILL)
    assert bridge.end_of(number).kind in ("killed", "not_started", "out_of_memory")


def a_cancel_at_any_time(bridge, rng):
    number = bridge.request("steps", {"steps": 10_000}, {"ct": CT})
    limit = time.monotonic() + rng.uniform(0, 0.5)
    while time.monotonic() < limit:
        bridge.seen += bridge.poll()
    started = time.monotonic()
    assert bridge.cancel(number)
    assert isinstance(bridge.end_of(number), CancelledEvent)
    assert time.monotonic() - started < 5.0


def a_deaf_task(bridge, rng):
    task = str(rng.choice(["stubborn", "busy", "children"]))
    number = bridge.request(task, {}, {"ct": CT})
    bridge.wait_until(lambda event: isinstance(event, ProgressEvent) and event.id == number)
    bridge.cancel(number)
    assert bridge.end_of(number) == CancelledEvent(number, killed=True)


def a_slider(bridge, rng):
    numbers = []
    for _ in range(8):
        numbers.append(bridge.request("steps", {"steps": 20}, {"ct": CT}, panel="anomaly"))
        time.sleep(rng.uniform(0, 0.05))
        bridge.seen += bridge.poll()
    assert isinstance(bridge.end_of(numbers[-1]), ResultEvent)
    for number in numbers[:-1]:
        bridge.end_of(number)


def garbage(bridge, rng):
    assert isinstance(bridge.do("write_into_the_channel"), ResultEvent)


def noise(bridge, rng):
    assert isinstance(bridge.do("chatter", {"lines": 500}), ResultEvent)


def a_queue_with_a_death_in_it(bridge, rng):
    tasks = [("count", {}), ("die", {"code": 1}), ("count", {}), ("fail", {"type": "ValueError"})]
    order = [tasks[i] for i in rng.permutation(len(tasks))]
    numbers = [bridge.request(task, parameters, {"ct": CT}) for task, parameters in order]
    for number, (task, _) in zip(numbers, order, strict=True):
        kind = ResultEvent if task == "count" else ErrorEvent
        assert isinstance(bridge.end_of(number), kind)


ENDS = (CancelledEvent, ErrorEvent, ResultEvent, SupersededEvent)
FAULTS = (
    a_result,
    an_exception,
    a_death,
    a_leave,
    a_kill_from_outside,
    a_cancel_at_any_time,
    a_deaf_task,
    a_slider,
    garbage,
    noise,
    a_queue_with_a_death_in_it,
)


def settle(bridge, fault):
    """Each request of a fault ended exactly once; take what results it left."""
    ends = [e for e in bridge.seen if isinstance(e, ENDS) and e.id is not None]
    numbers = [event.id for event in ends]
    assert len(numbers) == len(set(numbers)), fault.__name__
    assert not bridge.busy
    for event in ends:
        if isinstance(event, ResultEvent) and fault is not a_result:
            bridge.take(event.id)
    bridge.seen.clear()


def test_two_hundred_random_faults_leave_the_bridge_as_it_was(make_bridge, tmp_path):
    bridge = make_bridge()
    me = psutil.Process()
    bridge.pids = lambda: [child.pid for child in me.children()]
    rng = np.random.default_rng(20260101)
    a_result(bridge, rng)
    bridge.seen.clear()
    before = me.num_fds(), threading.active_count()
    for i in range(200):
        fault = FAULTS[rng.integers(len(FAULTS))]
        try:
            fault(bridge, rng)
        except AssertionError as error:
            raise AssertionError(f"fault {i}, {fault.__name__}: {error}") from error
        settle(bridge, fault)
    a_result(bridge, rng)
    limit = time.monotonic() + 5
    while len(me.children(recursive=True)) > 1 and time.monotonic() < limit:
        bridge.poll()
        time.sleep(0.05)
    assert len(me.children(recursive=True)) == 1, "one worker, and nothing that is left of others"
    assert me.num_fds() <= before[0] + 1
    assert threading.active_count() <= before[1]
    (session,) = tmp_path.glob("difftumor-session-*")
    assert [path.name for path in session.iterdir()] == ["owner.lock"]
    logs = list((tmp_path / "logs").iterdir())
    assert sum(path.stat().st_size for path in logs) < 2.2 * 2**20
    bridge.close()
    assert not me.children()


@pytest.mark.parametrize("seed", range(20))
def test_a_parent_killed_at_any_time_leaves_nothing(start_parent, ends, tmp_path, seed):
    rng = np.random.default_rng(seed)
    parent, worker = start_parent(str(rng.choice(["steps", "stubborn", "busy"])))
    time.sleep(rng.uniform(0, 0.5))
    os.kill(parent.pid, signal.SIGKILL)
    assert ends(worker)
    assert not list(tmp_path.glob("difftumor-session-*"))
