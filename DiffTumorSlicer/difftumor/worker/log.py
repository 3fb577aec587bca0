"""The log of a worker's stderr: bounded, private, and never in the way.

One file per session. Full, it becomes `<name>.1` and a new one begins, so that a library that prints
without end costs two megabytes and no more. A log that cannot be written is given up silently: the
computation matters more, and the end of the output stays in memory for error messages.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

_MAX_BYTES = 2**20
_TAIL_BYTES = 4096
_KEPT_SESSIONS = 10


class WorkerLog:
    """An append-only log with a memory of its last lines. Thread-safe."""

    def __init__(self, folder: Path | None = None, max_bytes: int = _MAX_BYTES) -> None:
        """Open a new file.

        Args:
            folder: where; `~/.difftumor/logs` if None, or the temporary folder if that cannot be used.
            max_bytes: size at which the file is turned over.
        """
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._tail = b""
        self._size = 0
        self._file: BinaryIO | None = None
        self.path: Path | None = None
        name = f"worker-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        places = [folder or Path.home() / ".difftumor" / "logs"]
        places.append(Path(tempfile.gettempdir()) / f"difftumor-logs-{_user()}")
        for place in places:
            with contextlib.suppress(OSError):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path = _free_name(place, name)
                self._file = _open_private(self.path)
                _remove_old(place)
                return

    def write(self, data: bytes) -> None:
        """Append bytes. Never raises."""
        with self._lock:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            if self._file is None:
                return
            try:
                if self._size + len(data) > self._max_bytes:
                    self._turn_over()
                self._size += self._file.write(data)
            except OSError:
                # Disk full: go on without. What is in the file stays.
                pass

    def begin(self, text: str) -> None:
        """Note that something starts; from here on `tail` is about that alone."""
        with self._lock:
            self._tail = b""
        self.note(text)

    def note(self, text: str) -> None:
        """Append a line of our own."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self.write(f"{stamp} -- {text}\n".encode())

    def tail(self) -> str:
        """The last few kilobytes, for the details of an error."""
        with self._lock:
            return self._tail.decode("utf-8", errors="replace")

    def close(self) -> None:
        """Close the file. Later writes only reach the memory."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _turn_over(self) -> None:
        """Make the file the old one and begin a new one."""
        if self._file is None or self.path is None:
            return
        self._file.close()
        self._file = None  # stays so if the next lines fail
        self.path.replace(self.path.with_suffix(".log.1"))
        self._file = _open_private(self.path)
        self._size = 0


def _open_private(path: Path) -> BinaryIO:
    """Open a file for appending that only its owner can read, unbuffered."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(fd, "ab", buffering=0)


def _free_name(folder: Path, name: str) -> Path:
    """A log path that does not exist yet: two sessions of one program may start in one second."""
    path = folder / f"{name}.log"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.log"
    return path


def _remove_old(folder: Path) -> None:
    """Keep the newest logs only."""
    logs = sorted(folder.glob("worker-*.log"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-_KEPT_SESSIONS]:
        path.unlink(missing_ok=True)
        path.with_suffix(".log.1").unlink(missing_ok=True)


def _user() -> str:
    """Something that tells users of one machine apart."""
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
