"""A bridge under test, and the clock that polls it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from difftumor.worker.bridge import Bridge
from difftumor.worker.protocol import CancelledEvent, ErrorEvent, ResultEvent, SupersededEvent

HERE = Path(__file__).parent
ENGINE = HERE.parents[2] / "DiffTumorSlicer"
WAIT_S = 60.0  # before something is taken to hang
_ENDS = (CancelledEvent, ErrorEvent, ResultEvent, SupersededEvent)


class PolledBridge(Bridge):
    """A bridge that keeps all events and can wait, as a person before the panel does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def wait_until(self, condition, timeout_s=WAIT_S):
        """Poll until condition(event) holds for an event, and return that event."""
        limit = time.monotonic() + timeout_s
        looked_at = 0
        while time.monotonic() < limit:
            self.seen += self.poll()
            for event in self.seen[looked_at:]:
                if condition(event):
                    return event
            looked_at = len(self.seen)
            time.sleep(0.005)
        raise AssertionError(f"not seen within {timeout_s} s; seen: {self.seen}")

    def wait_for(self, kind, timeout_s=WAIT_S):
        return self.wait_until(lambda event: isinstance(event, kind), timeout_s)

    def end_of(self, number, timeout_s=WAIT_S):
        """The event that ends a request."""
        return self.wait_until(
            lambda event: isinstance(event, _ENDS) and event.id == number, timeout_s
        )

    def do(self, task, parameters=None, arrays=None, **kwargs):
        """Ask and wait for the end."""
        return self.end_of(self.request(task, parameters or {}, arrays, **kwargs))


def options_for(folder):
    """Options of a bridge to the fake tasks that keeps everything in one folder."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {
        "tasks": "fake_tasks",
        "environment": {**os.environ, "PYTHONPATH": path},
        "log_folder": folder / "logs",
        "temporary_folder": folder,
    }


@pytest.fixture
def make_bridge(tmp_path):
    """A function that makes bridges to a worker with the fake tasks."""
    bridges = []

    def make(*args, **kwargs):
        bridges.append(PolledBridge(*args, **{**options_for(tmp_path), **kwargs}))
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.close()
    assert not list(tmp_path.glob("difftumor-session-*")), "temporary files were left behind"


@pytest.fixture
def bridge(make_bridge):
    return make_bridge()


@pytest.fixture(scope="module")
def lasting_bridge(tmp_path_factory):
    """One bridge for many tests that a worker survives: starting one costs a third of a second."""
    with PolledBridge(**options_for(tmp_path_factory.mktemp("lasting"))) as bridge:
        bridge.first_pid = bridge.do("count").metadata["pid"]
        yield bridge


@pytest.fixture
def make_fake(make_bridge):
    """A function that makes bridges to the misbehaving script."""

    def make(manner, *arguments, **kwargs):
        command = [sys.executable, str(HERE / "fake_worker.py"), manner, *arguments]
        return make_bridge(command=command, **kwargs)

    return make


def is_alive(pid):
    """Whether a process exists and is no zombie (containers may lack an init that buries them)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def ends():
    """A function that waits until a process is gone; True if it is."""

    def wait(pid, timeout_s=WAIT_S):
        limit = time.monotonic() + timeout_s
        while is_alive(pid) and time.monotonic() < limit:
            time.sleep(0.01)
        return not is_alive(pid)

    return wait


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def start_parent(tmp_path):
    """A function that starts a parent with a running computation; the parent and its worker's number."""
    parents = []

    def start(task, *command):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ENGINE), str(HERE)])}
        script = [sys.executable, str(HERE / "parent.py"), str(tmp_path), task, *command]
        parent = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=environment)
        parents.append(parent)
        worker = int(parent.stdout.readline().removeprefix("worker "))
        parent.stdout.readline()
        return parent, worker

    yield start
    for parent in parents:
        parent.kill()
        parent.wait()
        parent.stdout.close()
