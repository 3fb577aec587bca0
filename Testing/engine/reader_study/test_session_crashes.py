"""Killed while reading: at every write boundary, and at random moments. Nothing is lost or doubled."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from difftumor.reader_study.journal import read_journal
from difftumor.reader_study.reading import ReadingState
from difftumor.reader_study.session import Answer, ReadingSession
from difftumor.reader_study.study import JOURNAL_FILE, read_package
from Testing.engine.reader_study.tiny_package import tiny_package

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

CALLS = ("write", "fsync", "ftruncate", "open")


def read_on(folder: Path, tell: int, many: int) -> None:
    """Read `many` cases; the token of each answer goes to `tell` once it is acknowledged."""
    write = REAL_CALLS["write"]
    session = ReadingSession.join(folder, "R1")
    for _ in range(many):
        if session.finished:
            break
        token = session.current.token
        session.shown()
        session.viewed(400, 40, -3, 3)
        session.answer(Answer("real", 1 + int(token, 16) % 5))
        write(tell, f"{token}\n".encode())
    session.close()


REAL_CALLS = {name: getattr(os, name) for name in CALLS} | {"fsync": lambda _file: None}


def die_at(boundary: int, part: float) -> None:
    """Let this process be killed at its n-th call of the operating system, in the middle of a write."""
    count = itertools.count()

    def killing(name: str):
        def call(*arguments, **options):
            if next(count) == boundary:
                if name == "write":
                    file, content = arguments
                    REAL_CALLS["write"](file, content[: round(len(content) * part)])
                elif part > 0.5:
                    REAL_CALLS[name](*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return REAL_CALLS[name](*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, killing(name))


def in_a_child(work) -> tuple[list[str], int]:
    """Run work(tell) in a process of its own; what it told, and the signal that ended it."""
    source, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(source)
            work(tell)
        except BaseException as error:  # noqa: BLE001 (the parent reports it)
            REAL_CALLS["write"](tell, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(tell)
    with os.fdopen(source) as pipe:
        told = pipe.read().split("\n")[:-1]
    status = os.waitpid(child, 0)[1]
    return told, os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def answered(folder: Path) -> list[str]:
    """Tokens with an answer, in the order of the journal; each must stand there once."""
    package = read_package(folder)
    records = read_journal(folder / JOURNAL_FILE, package.digest).records
    ReadingState.replay(package, records)
    tokens = [record["token"] for record in records if record["event"] == "answered"]
    assert len(set(tokens)) == len(tokens)
    return tokens


def check(folder: Path, acknowledged: list[str]) -> None:
    """Every acknowledged answer is there, at most one more, in order; the next session takes the right case."""
    order = [case.token for case in read_package(folder).cases]
    stored = answered(folder)
    assert stored == order[: len(stored)]
    assert acknowledged == stored[: len(acknowledged)]
    assert len(stored) - len(acknowledged) in (0, 1)


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["before", "half-way", "after"])
def test_killed_at_every_write_boundary(tmp_path, part):
    boundary, dead = 0, 9
    begun = 1  # cases that were answered in an earlier, orderly session
    while dead == 9:
        folder = tiny_package(
            tmp_path / f"at-{boundary}", practice=1, cases=3, shape=(2, 2, 2)
        ).folder
        read_on_quietly(folder, begun)

        def work(tell: int, folder: Path = folder, boundary: int = boundary) -> None:
            die_at(boundary, part)
            read_on(folder, tell, 2)

        told, dead = in_a_child(work)
        assert dead in (9, 0), told
        order = [case.token for case in read_package(folder).cases]
        check(folder, [order[0], *told])
        session = ReadingSession.join(folder, "R1")  # the lock of the dead does not matter
        assert session.current.token == order[len(answered(folder))]
        session.close()
        read_on_quietly(folder, 9)
        assert answered(folder) == order
        boundary += 1
    assert boundary > 20


def test_killed_before_the_first_record_was_whole(tmp_path):
    for boundary in range(12):
        folder = tiny_package(tmp_path / f"at-{boundary}", shape=(2, 2, 2)).folder

        def work(tell: int, folder: Path = folder, boundary: int = boundary) -> None:
            die_at(boundary, 0.5)
            read_on(folder, tell, 1)

        told, dead = in_a_child(work)
        assert dead == 9, told
        check(folder, told)
        read_on_quietly(folder, 9)
        assert len(answered(folder)) == 6


def read_on_quietly(folder: Path, many: int) -> None:
    with Path(os.devnull).open("wb") as file:
        read_on(folder, file.fileno(), many)


@pytest.mark.soak
def test_killed_at_a_thousand_random_moments(tmp_path):
    rng = random.Random(6)
    kills = packages = 0
    while kills < 1000:
        folder = tiny_package(
            tmp_path / f"{packages}", practice=3, cases=120, shape=(2, 2, 2)
        ).folder
        packages += 1
        acknowledged: list[str] = []
        while len(answered(folder)) < 123:

            def work(tell: int, folder: Path = folder) -> None:
                read_on(folder, tell, 1000)

            told, dead = killed_after(work, rng.expovariate(1 / 0.04))
            if dead == 9:
                kills += 1
            else:
                assert dead == 0, told
            acknowledged += told
            check(folder, acknowledged)
            # What was stored and never acknowledged counts, and is not asked again.
            acknowledged = answered(folder)
    print(f"{kills} kills, {packages} packages of 123 cases: every answer once, in order")


def killed_after(work, seconds: float) -> tuple[list[str], int]:
    """As `in_a_child`, with SIGKILL from outside after some time."""
    source, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        try:
            work(tell)
        except BaseException as error:  # noqa: BLE001 (the parent reports it)
            os.write(tell, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(tell)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    with os.fdopen(source) as pipe:
        told = pipe.read().split("\n")[:-1]
    status = os.waitpid(child, 0)[1]
    return told, os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
