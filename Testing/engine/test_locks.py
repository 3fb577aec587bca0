"""The lock of an open file: one owner at a time, free when the owner's process ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from difftumor import locks
from difftumor.locks import try_lock


@pytest.fixture
def descriptor(tmp_path: Path):
    opened = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    yield opened
    os.close(opened)


def test_a_second_owner_waits_until_the_first_closes_its_file(tmp_path: Path, descriptor: int):
    first = os.open(tmp_path / "lock", os.O_RDWR)
    assert try_lock(first) is True
    assert try_lock(descriptor) is False
    os.close(first)
    assert try_lock(descriptor) is True


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path, descriptor: int):
    program = (
        "import os, sys; from difftumor.locks import try_lock\n"
        f"print(try_lock(os.open({str(tmp_path / 'lock')!r}, os.O_RDWR)), flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(locks.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as owner:
        assert owner.stdout.readline().strip() == b"True"
        assert try_lock(descriptor) is False
        owner.kill()
    assert try_lock(descriptor) is True


@pytest.mark.skipif(sys.platform == "win32", reason="replaces the call of POSIX")
@pytest.mark.parametrize(("number", "answer"), [(errno.EAGAIN, False), (errno.ENOLCK, None)])
def test_a_disk_without_locks_is_told_from_a_lock_of_another(
    monkeypatch, descriptor: int, number: int, answer: bool | None
):
    def refuse(_descriptor, _how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert try_lock(descriptor) is answer
