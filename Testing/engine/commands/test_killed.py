"""Killed at a random moment, a command is continued by itself: nothing twice, nothing half written."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from Testing.engine.commands import killing as program
from Testing.engine.commands.four_tasks import COMMANDS, NAMES, Command, Place, make_place

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


class Server:
    """Runs commands in children that can be killed (`killing.py`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, program.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, words: list[str], kill_at: int | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "kill_at": kill_at}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def whole(server, place, tmp_path_factory) -> dict[str, tuple[dict[str, bytes], list[str]]]:
    """Of each command what it writes if nobody kills it, and its moments."""
    found = {}
    for command in COMMANDS.values():
        out = tmp_path_factory.mktemp(command.name)
        told = server.run(place.many(command, out))
        assert told["code"] == 0
        assert len(told["started"]) == len(NAMES)
        found[command.name] = contents(out), told["moments"]
    return found


def contents(out: Path) -> dict[str, bytes]:
    """All files but the table, which tells how it came about."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.suffix != ".csv"
    }


def moment_of(moments: list[str], draw: random.Random) -> int:
    """A moment: as often one where files take their places as one of a computation."""
    kind = draw.choice(sorted(set(moments)))
    return draw.choice([number for number, found in enumerate(moments) if found == kind])


def kill_and_continue(
    server: Server, place: Place, command: Command, whole: Any, out: Path, draw: random.Random
) -> None:
    expected, moments = whole[command.name]
    words = place.many(command, out)
    kills = 0
    while True:
        at = moment_of(moments, draw) if kills < 1 + draw.randrange(2) else None
        finished = {path.name for path in out.glob("*.json")} if out.is_dir() else set()
        told = server.run(words, at)
        assert not finished & set(told["started"]), "a finished case was computed again"
        if told["code"] == 0:
            break
        assert told["code"] == -9
        kills += 1
        there = {name: text for name, text in contents(out).items() if not name.startswith(".")}
        assert all(expected[name] == text for name, text in there.items()), "half written"
        for name in (name for name in there if name.endswith(".json")):
            stem = name.removesuffix(".json")
            assert {other for other in expected if other.startswith(stem)} <= set(there)
    assert contents(out) == expected
    with (out / command.table).open(newline="", encoding="utf-8") as file:
        statuses = {row["case"]: row["status"] for row in csv.DictReader(file)}
    assert set(statuses) == set(NAMES)
    assert set(statuses.values()) <= {"done", "kept"}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_command_is_continued_by_the_same_command(
    server, place, command, seed, whole, tmp_path
):
    kill_and_continue(server, place, command, whole, tmp_path / "out", random.Random(seed))


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("seed", range(100, 120))
def test_a_command_that_is_killed_often(server, place, command, seed, whole, tmp_path):
    kill_and_continue(server, place, command, whole, tmp_path / "out", random.Random(seed))
