"""A process that runs `difftumor` in children and kills each of them at a chosen moment, for tests.

It imports torch once and computes nothing itself, so that a child is a fork and starts at once. Lines of JSON:
{"words": [...], "kill_at": number or null} in, {"code": exit code, "moments": [...], "started": [...]} out. Moments
are steps of the progress ("step") and files that take their places ("place"), in their order; the child dies before
the one that is named.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from difftumor.cli import main
from difftumor.commands import loop
from difftumor.commands.run import SIDECAR
from difftumor.commands.stopping import Stopping
from difftumor.worker import tasks

assert tasks.TASKS  # what a task needs is imported


def child(words: list[str], kill_at: int | None, log: int) -> int:
    """Run a command; what happens is told on a pipe, as nothing else survives."""
    count = 0

    def moment(kind: str) -> None:
        nonlocal count
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(log, (json.dumps({"moment": kind}) + "\n").encode())
        count += 1

    def step(_self: Stopping, _stage: str, _done: int, _total: int) -> None:
        moment("step")

    place = Path.replace

    def placed(self: Path, target: Any) -> Path:
        moment("place")
        return place(self, target)

    compute = loop.run_request

    def started(request: Any, *rest: Any, **more: Any) -> Any:
        name = request.outputs[SIDECAR].name
        os.write(log, (json.dumps({"started": name}) + "\n").encode())
        return compute(request, *rest, **more)

    Stopping.__call__ = step  # type: ignore[method-assign]
    Path.replace = placed  # type: ignore[method-assign]
    loop.run_request = started
    return main(words)


def run(words: list[str], kill_at: int | None) -> dict[str, Any]:
    """Run a command in a child of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.dup2(2, 1)
        os._exit(child(words, kill_at, writing))
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as file:
        told = [json.loads(line) for line in file]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {
        "code": code,
        "moments": [line["moment"] for line in told if "moment" in line],
        "started": [line["started"] for line in told if "started" in line],
    }


if __name__ == "__main__":
    for request in sys.stdin:
        print(json.dumps(run(**json.loads(request))), flush=True)
