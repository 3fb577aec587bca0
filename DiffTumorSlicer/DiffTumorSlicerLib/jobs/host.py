"""What a session needs of the program around it: desktop Slicer, a web server, or a test."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from difftumor.worker.bridge import Bridge


def free_memory_bytes() -> int | None:
    """Memory that programs can still take, or None where nothing tells it."""
    try:
        # Late, because Slicer gets this package only with the requirements of the module.
        import psutil
    except ImportError:
        return _free_memory_of_linux()
    return int(psutil.virtual_memory().available)


def _free_memory_of_linux() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None


def free_disk_bytes(folder: Path) -> int:
    """Room on the disk of a folder."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Host:
    """Settings and measurements.

    Attributes:
        python: interpreter of the worker; None is the running one (in Slicer: PythonSlicer).
        environment: variables for the worker; None is this process's.
        log_folder: for the worker's log; None is `~/.difftumor/logs`.
        temporary_folder: for the arrays on their way; None is the system's.
        free_memory: bytes that programs can still take, None if unknown.
        free_disk: bytes free on the disk of a folder.
        clock: seconds that only grow.
    """

    python: str | None = None
    environment: Mapping[str, str] | None = None
    log_folder: Path | None = None
    temporary_folder: Path | None = None
    free_memory: Callable[[], int | None] = free_memory_bytes
    free_disk: Callable[[Path], int] = free_disk_bytes
    clock: Callable[[], float] = time.monotonic

    def make_bridge(self) -> Bridge:
        """A bridge to a worker of this host; nothing is started yet."""
        return Bridge(
            self.python,
            environment=self.environment,
            log_folder=self.log_folder,
            temporary_folder=self.temporary_folder,
        )

    @property
    def arrays_folder(self) -> Path:
        """Where arrays travel."""
        return self.temporary_folder or Path(tempfile.gettempdir())
