"""What went wrong, why, and what to do next: every failure of the worker's side as an `ErrorEvent`.

The worker explains exceptions of tasks, the bridge explains what happens to the worker. torch is not
imported here; its errors are known by their names and texts.
"""

from __future__ import annotations

import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftumor.remedies import Remedy, advice_of
from difftumor.worker.protocol import (
    PROTOCOL_VERSION,
    ErrorEvent,
    ProtocolError,
    describe_disk,
    is_disk_full,
)

if TYPE_CHECKING:
    from difftumor.worker.log import WorkerLog
    from difftumor.worker.process import WorkerEnd

# A whole traceback of a deep network fits; a runaway message does not.
_MAX_TEXT = 20_000

# Raised on purpose, with a text for the person. The rest of the ValueErrors are ours by definition of
# the interfaces, and so is every exception class that difftumor itself defines.
_MEANT_FOR_THE_PERSON = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)


def explain_failure(error: BaseException, request_id: int | None = None) -> ErrorEvent:
    """Describe an exception for the person in front of the screen.

    Args:
        error: what a task raised.
        request_id: the request it belongs to.

    Returns:
        the event, with a kind of `protocol.ERROR_KINDS`, the traceback in `details`, and no log path.
    """
    kind, message, remedy = _classify(error)
    return ErrorEvent(
        id=request_id,
        kind=kind,
        message=message[:_MAX_TEXT],
        details="".join(traceback.format_exception(error))[-_MAX_TEXT:],
        exception=type(error).__name__,
        **_told(remedy),
    )


def _told(remedy: Remedy | None) -> dict[str, Any]:
    """A remedy as fields of an event: data for a face of this version, words for any other."""
    if remedy is None:
        return {}
    return {"hint": str(remedy), "remedy": remedy.to_json()}


def _classify(error: BaseException) -> tuple[str, str, Remedy | None]:
    """Kind, message and remedy of an exception."""
    text = str(error) or type(error).__name__
    if _is_out_of_memory(error):
        return (
            "out_of_memory",
            f"The memory was not enough: {_first_line(text)}",
            Remedy("need_less_memory"),
        )
    if isinstance(error, ImportError) and not (error.name or "").startswith("difftumor"):
        if isinstance(error, ModuleNotFoundError):
            what = f"has no package '{error.name}'"
        else:
            what = f"cannot load a package: {_first_line(text)}"
        package = (error.name or "NAME").partition(".")[0]
        remedy = Remedy("worker_package", {"package": package})
        return "missing_package", f"The Python of the worker, {sys.executable}, {what}.", remedy
    if isinstance(error, OSError) and is_disk_full(error):
        return "disk_full", f"The disk is full: {text}", Remedy("temporary_disk")
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in text:
        what = f"The graphics card reported an error: {text}"
        return "device_failed", what, Remedy("fresh_device")
    meant = isinstance(error, _MEANT_FOR_THE_PERSON) or type(error).__module__.startswith(
        "difftumor."
    )
    if meant and not isinstance(error, ProtocolError | UnicodeError):
        advice = advice_of(error)
        return "refused", advice.message or text, advice.remedy
    return "internal", f"{type(error).__name__}: {_first_line(text)}", Remedy("report")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is about memory of the computer or of the graphics card."""
    if isinstance(error, MemoryError):
        return True
    if any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text
        or "not enough memory" in text
        or "out of memory" in text.lower()
    )


def _first_line(text: str) -> str:
    """The first line of a message that goes on about allocators."""
    return text.strip().partition("\n")[0]


def explain_start(reason: str, log: WorkerLog | None) -> ErrorEvent:
    """A worker did not start, or did not become ready; the end of its output often tells why."""
    tail = log.tail() if log else ""
    missing = re.findall(r"No module named '?([\w.]+)", tail)
    if missing:
        reason = f"its Python has no module '{missing[-1]}'"
    return ErrorEvent(
        None,
        "not_started",
        f"The worker did not start: {reason}.",
        details=tail,
        log=_name(log),
        **_told(Remedy("worker_python")),
    )


def explain_version(version: int, log: WorkerLog | None) -> ErrorEvent:
    """A worker of another DiffTumorSlicer answered."""
    return ErrorEvent(
        None,
        "not_started",
        f"The worker belongs to another version of DiffTumorSlicer: it speaks protocol {version}, "
        f"this one speaks {PROTOCOL_VERSION}.",
        log=_name(log),
        **_told(Remedy("update_worker")),
    )


def explain_garbage(log: WorkerLog | None) -> ErrorEvent:
    """A line that was no event; the request goes on."""
    return ErrorEvent(
        None,
        "protocol",
        "The worker sent a line that is no event; it was left out.",
        log=_name(log),
        **_told(Remedy("wait")),
    )


def explain_crash(request_id: int, end: WorkerEnd, log: WorkerLog | None) -> ErrorEvent:
    """The worker ended in the middle of a request."""
    if end.out_of_memory:
        kind, remedy = "out_of_memory", Remedy("need_less_memory")
    else:
        kind, remedy = ("killed" if end.signal == "SIGKILL" else "crashed"), Remedy("new_worker")
    return ErrorEvent(
        request_id,
        kind,
        f"The worker ended during the computation: {end.text}.",
        details=log.tail() if log else "",
        log=_name(log),
        **_told(remedy),
    )


def explain_unwritten(request_id: int, error: OSError, folder: Path | None) -> ErrorEvent:
    """The input of a request could not be written."""
    reason = f"{error.strerror or error} ({describe_disk(folder or Path(tempfile.gettempdir()))})"
    return ErrorEvent(
        request_id,
        "disk_full" if is_disk_full(error) else "internal",
        f"The images for the worker could not be written: {reason}.",
        exception=type(error).__name__,
        **_told(Remedy("temporary_disk")),
    )


def _name(log: WorkerLog | None) -> str:
    """Path of a log, for messages."""
    return str(log.path or "") if log else ""
