"""Nothing stays behind when a parent is killed: no process, no file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from difftumor.worker.private_folder import PrivateFolder, remove_abandoned_folders

HERE = Path(__file__).parent
ENGINE = HERE.parents[2] / "DiffTumorSlicer"
WORKER = [sys.executable, "-m", "difftumor.worker", "--tasks", "fake_tasks"]
LAUNCHER = [sys.executable, str(HERE / "fake_worker.py"), "launcher"]


@pytest.mark.parametrize("task", ["steps", "stubborn", "busy"])
@pytest.mark.parametrize("between", [[], LAUNCHER], ids=["direct", "launcher"])
def test_a_killed_parent_leaves_no_orphan(start_parent, ends, tmp_path, task, between):
    command = [*between, *WORKER] if between else []
    parent, worker = start_parent(task, *command)
    os.kill(parent.pid, signal.SIGKILL)
    assert ends(worker)
    if not between:
        assert not list(tmp_path.glob("difftumor-session-*")), "the patient's voxels stay behind"


def test_a_lock_that_outlives_the_pipes_of_a_killed_parent_is_waited_for(tmp_path):
    """On a busy machine the system may end a process long between closing its pipes and its files."""
    folder = PrivateFolder(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ENGINE), str(HERE)])}
    command = [*WORKER, "--session", str(folder.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **pipes) as worker:
        assert worker.stdout.readline() == b"\n"
        assert b"ready" in worker.stdout.readline()
        worker.stdin.close()
        time.sleep(1.0)
        os.close(folder._lock_fd)
        folder._lock_fd = -1
        assert worker.wait(60) == 0
    assert not folder.path.exists(), "the patient's voxels stay behind"


def test_a_killed_launcher_leaves_no_orphan(make_fake, ends):
    bridge = make_fake("launcher", *WORKER)
    pid = bridge.do("count").metadata["pid"]
    os.kill(bridge._worker._process.pid, signal.SIGKILL)
    bridge.wait_until(lambda event: event.type == "exited")
    assert ends(pid)


def test_a_parent_that_ends_without_closing_leaves_nothing(start_parent, ends, tmp_path):
    parent, worker = start_parent("steps")
    parent.send_signal(signal.SIGINT)
    parent.wait(timeout=120)
    assert ends(worker)
    assert not list(tmp_path.glob("difftumor-session-*"))


def age(folder):
    """Make a folder look an hour old."""
    os.utime(folder, (time.time() - 3600,) * 2)


def test_the_next_session_removes_what_was_left(tmp_path):
    code = (
        "import os, sys, pathlib; from difftumor.worker.private_folder import PrivateFolder;"
        "folder = PrivateFolder(pathlib.Path(sys.argv[1]));"
        "(folder.make_subfolder('1') / 'ct.npy').write_bytes(b'x');"
        "print(folder.path); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ENGINE)
    left = Path(process.stdout.strip())
    assert (left / "1" / "ct.npy").exists()
    assert remove_abandoned_folders(tmp_path) == 0, "a young folder may still be in the making"
    age(left)
    assert remove_abandoned_folders(tmp_path) == 1
    assert not left.exists()


def test_the_folder_of_a_living_session_is_left_alone(tmp_path):
    mine = PrivateFolder(tmp_path)
    age(mine.path)
    assert remove_abandoned_folders(tmp_path) == 0
    assert mine.path.is_dir()
    mine.remove()
    mine.remove()
    assert not mine.path.exists()


def test_links_and_foreign_folders_are_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    link = tmp_path / "difftumor-session-1-link"
    link.symlink_to(precious)
    (tmp_path / "difftumor-session-2-file").write_text("")
    if os.getuid() == 0:
        foreign = tmp_path / "difftumor-session-3-foreign"
        foreign.mkdir()
        os.chown(foreign, 12345, -1)
        age(foreign)
    before = sorted(tmp_path.iterdir())
    assert remove_abandoned_folders(tmp_path) == 0
    assert remove_abandoned_folders(tmp_path / "missing") == 0
    assert sorted(tmp_path.iterdir()) == before
    for path in before:
        path.chmod(0o755) if path.is_dir() else path.unlink()
    link.unlink(missing_ok=True)


def test_closing_while_a_computation_runs_ends_it(make_bridge, ends, within):
    def closed():
        bridge = make_bridge()
        bridge.request("stubborn", {}, {"ct": np.zeros(10)})
        pid = bridge.wait_until(lambda event: event.type == "ready").pid
        bridge.wait_until(lambda event: event.type == "progress")
        started = time.monotonic()
        bridge.close()
        assert ends(pid)
        return time.monotonic() - started

    within(1.0, closed)
