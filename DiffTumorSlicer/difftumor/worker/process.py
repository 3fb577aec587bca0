"""One worker process as the bridge sees it: its start, its lines, and its certain end.

Two threads serve it. One turns lines into events and does nothing else; the other carries stderr into
the log. Whoever starts the process may be a launcher (PythonSlicer is one) whose child does the work,
so the process gets a group of its own and always ends as a group.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from difftumor.worker.log import WorkerLog
from difftumor.worker.protocol import (
    MAX_EVENT_BYTES,
    Command,
    Event,
    ProgressEvent,
    ProtocolError,
    ReadyEvent,
    decode_event,
    encode,
)

# Helpers of a worker that crashed may hold its pipes open; its last lines are given this long.
_LAST_WORDS_S = 0.5
# And so many looks at the end: after a pause of this whole process the time is over before the readers go on.
_LAST_LOOKS = 20

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_PYTHON_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONEXECUTABLE")
_LIBRARY_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH")


@dataclass(frozen=True)
class WorkerEnd:
    """How a worker ended: exit code (negative for a signal), and the same in words."""

    code: int
    signal: str
    text: str
    out_of_memory: bool


class WorkerProcess:
    """A started worker."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: WorkerLog
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            environment: all of its environment variables.
            folder: its working folder; an empty one, since Python imports from there first.
            log: takes what it writes to stderr.

        Raises:
            OSError: if the program cannot be started.
        """
        if shutil.which(command[0], path=environment.get("PATH")) is None:
            # Otherwise a missing folder and a missing program would look alike.
            raise FileNotFoundError(f"there is no program {command[0]}")
        self.started_at = time.monotonic()
        self.ready = False
        self._pids: set[int] = set()
        self._killed = False
        self._ended_at: float | None = None
        self._looks = 0
        self._oom_kills = _count_oom_kills()
        self._events: deque[Event | ProtocolError] = deque()
        self._events_lock = threading.Lock()
        windows = sys.platform == "win32"
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=dict(environment),
            start_new_session=not windows,
            # CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
            creationflags=0x08000000 | 0x00000200 if windows else 0,
        )
        self._pids.add(self._process.pid)
        self._log = log
        self._threads = [
            threading.Thread(target=target, name=f"difftumor {name}", daemon=True)
            for name, target in (("events", self._read_events), ("log", self._read_log))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, command: Command) -> None:
        """Write a command line. A broken pipe is no error here: the end is noticed by `end`."""
        stdin = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(OSError, ValueError):
            stdin.write(encode(command))
            stdin.flush()

    def take_events(self) -> list[Event | ProtocolError]:
        """What came since the last call, in order; a ProtocolError stands for a garbage line."""
        with self._events_lock:
            events = list(self._events)
            self._events.clear()
        return events

    def kill(self) -> None:
        """End the process and all that it started. Returns at once; `end` tells when it is done."""
        if self._killed:  # by now the number may be another process's
            return
        self._killed = True
        for pid in self._pids:
            _kill_tree(pid)
        with contextlib.suppress(OSError):
            self._process.kill()
        # What escaped every kill, such as a child in a session of its own, still sees the end of stdin.
        with contextlib.suppress(OSError, ValueError):
            cast(IO[bytes], self._process.stdin).close()

    def is_running(self) -> bool:
        """Whether the process exists; asking also clears its entry in the process table."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of a killed process, but not for ever."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def end(self) -> WorkerEnd | None:
        """How the process ended, once it has and its last lines are read; None before."""
        code = self._process.poll()
        if code is None:
            return None
        if self._ended_at is None:
            self._ended_at = time.monotonic()
            self.kill()  # its helpers, which also hold its pipes open
        self._looks += 1
        over = time.monotonic() - self._ended_at >= _LAST_WORDS_S and self._looks >= _LAST_LOOKS
        if not over and any(thread.is_alive() for thread in self._threads):
            return None
        more_oom_kills = None
        if self._oom_kills is not None:
            more_oom_kills = (_count_oom_kills() or 0) > self._oom_kills
        return describe_end(code, more_oom_kills)

    def _read_events(self) -> None:
        """Thread: turn lines into events."""
        with cast(IO[bytes], self._process.stdout) as stream:
            while line := stream.readline(MAX_EVENT_BYTES):
                if line == b"\n":
                    continue
                complete = line.endswith(b"\n")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_EVENT_BYTES)  # the rest of a line without measure
                try:
                    if not complete:
                        raise ProtocolError("too long, or cut off by the end of the worker")
                    self._keep(decode_event(line))
                except ProtocolError as error:
                    self._keep(error)

    def _keep(self, event: Event | ProtocolError) -> None:
        """Queue an event; of progress and of garbage in a row only the last, so nothing grows."""
        if isinstance(event, ReadyEvent):
            self._pids.add(event.pid)
        with self._events_lock:
            last = self._events[-1] if self._events else None
            if type(last) is type(event) and isinstance(event, ProgressEvent | ProtocolError):
                self._events.pop()
            self._events.append(event)

    def _read_log(self) -> None:
        """Thread: carry stderr into the log."""
        with cast(IO[bytes], self._process.stderr) as stream:
            while chunk := os.read(stream.fileno(), 65536):
                self._log.write(chunk)


def worker_environment(python: str, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables for a worker under `python`.

    Args:
        python: the interpreter. Another one than ours must not meet the libraries that Slicer's launcher
            put into the environment for its own.
        base: to start from; this process's environment if None.

    Returns:
        a new dictionary.
    """
    environment = dict(os.environ if base is None else base)
    # Not the same file, links resolved: every virtual environment links to one and the same Python.
    if Path(python).absolute() != Path(sys.executable).absolute():
        for name in _PYTHON_VARIABLES:
            environment.pop(name, None)
        for name in _LIBRARY_VARIABLES:
            _drop_entries_below(environment, name, environment.get("SLICER_HOME"))
    # From site-packages it would bring the packages of our Python to another one.
    if _PACKAGE_PARENT.name not in ("site-packages", "dist-packages"):
        paths = [str(_PACKAGE_PARENT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment["PYTHONUTF8"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    # Idle threads of a resident process must sleep, not spin.
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    return environment


def describe_end(code: int, more_oom_kills: bool | None = None) -> WorkerEnd:
    """Put an exit code into words.

    Args:
        code: of `Popen.returncode`: negative for a signal on POSIX; 128 + signal from a launcher; an
            NTSTATUS on Windows.
        more_oom_kills: whether the system ended a process for lack of memory meanwhile; None if unknown.

    Returns:
        the description.
    """
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    try:
        name = signal.Signals(number).name if number else ""
    except ValueError:
        name = ""
    # STATUS_NO_MEMORY, STATUS_COMMITMENT_LIMIT
    if code in (0xC0000017, 0xC000012D):
        return WorkerEnd(code, name, "the system had no memory left for it", True)
    if name == "SIGKILL":
        if more_oom_kills:
            return WorkerEnd(code, name, "the system ended it because the memory was used up", True)
        if more_oom_kills is None:
            text = "the system ended it (SIGKILL), most likely because the memory was used up"
            return WorkerEnd(code, name, text, True)
        return WorkerEnd(code, name, "it was killed from outside (SIGKILL)", False)
    if name:
        return WorkerEnd(code, name, f"it crashed ({name})", False)
    text = f"{code:#x}" if code > 0xFFFF else str(code)
    return WorkerEnd(code, name, f"it ended by itself with exit code {text}", False)


def _kill_tree(pid: int) -> None:
    """Kill a process and its descendants; no error if there are none."""
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(pid)],
                check=False,
                capture_output=True,
                creationflags=0x08000000,
            )
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _drop_entries_below(environment: dict[str, str], name: str, folder: str | None) -> None:
    """Remove from a search path what lies in a folder."""
    if not folder or name not in environment:
        return
    entries = environment[name].split(os.pathsep)
    kept = [entry for entry in entries if not Path(entry).is_relative_to(folder)]
    environment[name] = os.pathsep.join(kept)


def _count_oom_kills() -> int | None:
    """How many processes Linux has ended for lack of memory since it started; None elsewhere."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
