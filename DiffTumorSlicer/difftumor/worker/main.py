"""The resident process that computes for Slicer: `python -m difftumor.worker`.

It is started by `bridge.Bridge`, says `ready` before anything heavy is imported, and then answers one
request after the other on its main thread (cuDNN keeps its plans per thread). A second thread reads
stdin, so that a cancel is seen during a computation, and so that the end of stdin, which is the end
of the parent, ends this process in the middle of one.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import logging
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from difftumor.worker.failures import explain_failure
from difftumor.worker.private_folder import remove_if_abandoned
from difftumor.worker.protocol import (
    MAX_COMMAND_BYTES,
    PROTOCOL_VERSION,
    Cancel,
    Cancelled,
    CancelledEvent,
    Event,
    ProgressEvent,
    ProtocolError,
    ReadyEvent,
    Request,
    ResultEvent,
    decode_command,
    encode,
)

# How long a computation may go on after the parent has gone, to leave its files in order.
END_GRACE_S = 0.5
# How long the system may take to drop the lock of a session that was killed. A session that lives and has
# only closed our input keeps its folder, and this process for so long.
_LOCK_GRACE_S = 10.0

_EVENTS_PER_SECOND = 10
# Steps are told a little more rarely, which leaves room within the limit for new stages.
_STEP_INTERVAL_S = 0.125

logger = logging.getLogger(__name__)


class Context:
    """What a task may ask of the worker: progress, the wish to cancel, and a memory between requests.

    `cache` is a dictionary that lives as long as the worker: loaded models, the noise of an image.
    """

    def __init__(
        self,
        request_id: int,
        send: Callable[[Event], None],
        cache: dict[str, Any],
        stop: threading.Event,
    ) -> None:
        self.cache = cache
        self._id = request_id
        self._send = send
        self._stop = stop
        self._started = self._stage_started = time.monotonic()
        self._stage = ""
        self._told_stage = ""
        self._told_at: deque[float] = deque(maxlen=_EVENTS_PER_SECOND)

    @property
    def cancelled(self) -> bool:
        """Whether the person wants this request to stop."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise Cancelled if the person wants this request to stop. Costs nothing: call it often."""
        if self._stop.is_set():
            raise Cancelled

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far the computation is, and stop it if that is wanted.

        Args:
            stage: what is being done, in a few words for the person.
            done: steps of this stage that are finished, 0 <= done <= total.
            total: steps of this stage; 0 if unknown.

        Raises:
            Cancelled: if the request is to stop.
        """
        self.check()
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_started = stage, now
        if not self._may_tell(now):
            return
        self._told_at.append(now)
        self._told_stage = stage
        pace_s = (now - self._stage_started) / done if done > 0 else None
        self._send(
            ProgressEvent(
                id=self._id,
                stage=stage,
                done=int(done),
                total=int(total),
                elapsed_s=round(now - self._started, 3),
                remaining_s=round(pace_s * (total - done), 3) if pace_s and total else None,
            )
        )

    def _may_tell(self, now: float) -> bool:
        """Whether one more event keeps to ten per second."""
        if not self._told_at:
            return True
        if len(self._told_at) == _EVENTS_PER_SECOND and now - self._told_at[0] < 1.0:
            return False
        return self._stage != self._told_stage or now - self._told_at[-1] >= _STEP_INTERVAL_S


class Worker:
    """Reads commands, computes, writes events."""

    def __init__(
        self, commands: BinaryIO, events: BinaryIO, tasks: str, session: Path | None
    ) -> None:
        """Take the two streams of the protocol.

        Args:
            commands: lines of the bridge.
            events: lines to the bridge.
            tasks: name of the module whose TASKS maps task names to functions; imported on first use.
            session: the session's folder, removed at the end if the session itself is gone by then.
        """
        self._commands = commands
        self._events = events
        self._tasks = tasks
        self._session = session
        self._cache: dict[str, Any] = {}
        self._requests: queue.Queue[Request | None] = queue.Queue()
        self._stops: dict[int, threading.Event] = {}
        self._stops_lock = threading.Lock()
        self._events_lock = threading.Lock()
        self._idle = threading.Event()

    def run(self) -> None:
        """Answer requests until the commands end; does not return."""
        # What a launcher or a start-up file printed before us may lack its end of line.
        self._events.write(b"\n")
        self._send(ReadyEvent(PROTOCOL_VERSION, os.getpid(), platform.python_version()))
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        while (request := self._requests.get()) is not None:
            event = self._answer(request)
            with self._stops_lock:
                del self._stops[request.id]
            self._send(event)
        self._idle.set()
        threading.Event().wait()  # the other thread ends the process

    # ------------------------------------------------------------------------------ commands thread

    def _read_commands(self) -> None:
        """Take commands until their end, then end the process."""
        while line := self._commands.readline(MAX_COMMAND_BYTES):
            try:
                command = decode_command(line)
            except ProtocolError as error:
                logger.warning("left out a line of the bridge: %s", error)
                continue
            with self._stops_lock:
                if isinstance(command, Request):
                    self._stops[command.id] = threading.Event()
                    self._requests.put(command)
                elif isinstance(command, Cancel) and command.id in self._stops:
                    self._stops[command.id].set()
        with self._stops_lock:
            for stop in self._stops.values():
                stop.set()
        self._requests.put(None)
        self._end()

    def _end(self) -> None:
        """End the process, in good order if the computation stops soon, and in any case."""
        if not self._idle.wait(END_GRACE_S):
            logger.warning("the parent has gone during a computation")
        # The lock of a killed session can outlive its pipes, on a busy machine by more than a moment.
        until = time.monotonic() + _LOCK_GRACE_S
        while self._session and time.monotonic() < until:
            try:
                remove_if_abandoned(self._session)
            except FileNotFoundError:  # it is gone, by us or by the session itself
                break
            except OSError as error:
                logger.warning("the session's folder cannot be examined: %s", type(error).__name__)
                break
            time.sleep(0.02)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        # Not sys.exit: that would wait for the computation, and for the threads of libraries.
        os._exit(0)

    # ---------------------------------------------------------------------------------- main thread

    def _send(self, event: Event) -> None:
        """Write one event line."""
        line = encode(event)
        try:
            with self._events_lock:
                self._events.write(line)
                self._events.flush()
        except OSError:
            # Nobody listens; the commands thread sees the same and ends the process.
            logger.warning("an event could not be sent")

    def _answer(self, request: Request) -> Event:
        """Do one request; whatever happens becomes an event."""
        context = Context(request.id, self._send, self._cache, self._stops[request.id])
        folder = Path(request.folder)
        started = time.monotonic()
        logger.info("request %d (%s)", request.id, request.task)
        try:
            before = _marks_of_arrays(folder)
            metadata = self._find_task(request.task)(request.parameters, folder, context)
            context.check()
            after = _marks_of_arrays(folder)
            arrays = sorted(name for name, mark in after.items() if before.get(name) != mark)
            elapsed_s = round(time.monotonic() - started, 3)
            event = ResultEvent(request.id, metadata, arrays, elapsed_s)
            encode(event)  # what a task returned may be no JSON: find out here
        except BaseException as error:  # noqa: BLE001 -- the worker outlives every task
            # A library may have wrapped Cancelled in an exception of its own.
            if context.cancelled or isinstance(error, Cancelled):
                logger.info("request %d cancelled", request.id)
                return CancelledEvent(request.id)
            # Places in the code, not the message: that may hold a path, which may name a patient.
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.warning("request %d: %s\n%s", request.id, type(error).__name__, frames)
            return explain_failure(error, request.id)
        logger.info("request %d done in %.1f s", request.id, elapsed_s)
        return event

    def _find_task(self, name: str) -> Callable[[dict[str, Any], Path, Context], dict[str, Any]]:
        """Look up a task; the first call imports torch."""
        tasks = importlib.import_module(self._tasks).TASKS
        if name not in tasks:
            raise ValueError(f"task: got {name!r}, allowed {', '.join(sorted(tasks))}")
        return tasks[name]  # type: ignore[no-any-return]


def _marks_of_arrays(folder: Path) -> dict[str, tuple[int, int]]:
    """Name of each array in a folder, with what changes when it is written anew."""
    marks = {}
    for path in folder.glob("*.npy"):
        status = path.stat()
        marks[path.stem] = (status.st_ino, status.st_mtime_ns)
    return marks


def _take_over_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol; everybody else, children too, gets null and stderr."""
    commands = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return commands, events


def _offer_ourselves_to_the_oom_killer() -> None:
    """If Linux has to end a process for lack of memory, let it be this one and not Slicer."""
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        of_slicer = int(score.read_text(encoding="ascii"))  # containers start with one of their own
        score.write_text(str(min(1000, of_slicer + 500)), encoding="ascii")


def main() -> None:
    """Run the worker until its stdin ends."""
    parser = argparse.ArgumentParser(prog="difftumor.worker", description=main.__doc__)
    parser.add_argument("--tasks", default="difftumor.worker.tasks", help="module that holds TASKS")
    parser.add_argument("--session", type=Path, help="folder to remove if the parent is killed")
    arguments = parser.parse_args()
    commands, events = _take_over_standard_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _offer_ourselves_to_the_oom_killer()
    faulthandler.enable()  # a crash in native code names its place in the log
    Worker(commands, events, arguments.tasks, arguments.session).run()
