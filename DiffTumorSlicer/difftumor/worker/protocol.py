"""What travels between Slicer and the worker: JSON lines, with arrays as `.npy` files beside them.

Commands go to the worker's stdin, events come from its stdout, one JSON object per line. Both ends
use the dataclasses below; a line that does not fit them raises `ProtocolError` at the border and
nothing further in has to check types again. Lines are pure ASCII (JSON escapes), so no code page
can harm them, and non-finite numbers are refused because JSON has none.

Importable without torch, Qt and Slicer: bridge, worker and the sampling functions share it.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

PROTOCOL_VERSION = 1

# A command never blocks the sender: it fits into an empty pipe (64 KiB on Linux), whatever the
# worker is doing.
MAX_COMMAND_BYTES = 60_000
# An event may carry a report, yet a runaway line must not fill the memory of Slicer.
MAX_EVENT_BYTES = 4 * 2**20

ERROR_KINDS = (
    "refused",  # the request cannot be done as asked; the message is meant for the person
    "internal",  # a fault of ours; the details are meant for a bug report
    "out_of_memory",
    "disk_full",
    "missing_package",
    "device_failed",
    "protocol",  # a line that was no event; id is None and the request goes on
    "not_started",
    "crashed",
    "killed",
)

_PARTIAL_NAME = "partial.json"
_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")  # upper case would collide on Windows and macOS


class Cancelled(Exception):
    """Raised inside a computation that was asked to stop, by the progress callback."""


class ProtocolError(ValueError):
    """A line or an array name that does not fit the protocol."""


# ----------------------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class Request:
    """Compute `task` with `parameters`; input arrays lie in `folder`, results are written there."""

    type: ClassVar[str] = "request"
    id: int
    task: str
    parameters: dict[str, Any]
    folder: str


@dataclass(frozen=True)
class Cancel:
    """Stop request `id` at the next occasion."""

    type: ClassVar[str] = "cancel"
    id: int


# ------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class ReadyEvent:
    """The worker listens. `protocol` must equal ours; `python` is a version such as "3.12.10"."""

    type: ClassVar[str] = "ready"
    protocol: int
    pid: int
    python: str


@dataclass(frozen=True)
class ProgressEvent:
    """`done` of `total` steps of `stage`; `remaining_s` is of this stage, None while unknown."""

    type: ClassVar[str] = "progress"
    id: int
    stage: str
    done: int
    total: int
    elapsed_s: float
    remaining_s: float | None = None


@dataclass(frozen=True)
class ResultEvent:
    """The request is done: what the task returned, and the names of the arrays it wrote."""

    type: ClassVar[str] = "result"
    id: int
    metadata: dict[str, Any]
    arrays: list[str]
    elapsed_s: float


@dataclass(frozen=True)
class ErrorEvent:
    """The request failed, or (id None) the worker did something odd that ends no request.

    `message` says what happened and why, `remedy` what to do next as `Remedy.to_json` writes it, `hint`
    the same in the words of the command line, `details` holds a traceback or the end of the worker's
    log, `log` the path of that log, `exception` the type name if there was one.
    """

    type: ClassVar[str] = "error"
    id: int | None
    kind: str
    message: str
    hint: str = ""
    details: str = ""
    log: str = ""
    exception: str = ""
    remedy: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ERROR_KINDS:
            raise ProtocolError(f"error kind: got {self.kind!r}, allowed {', '.join(ERROR_KINDS)}")


@dataclass(frozen=True)
class CancelledEvent:
    """The request was stopped; `killed` if the worker did not stop by itself and was ended.

    `superseded_by` names the newer request of the same panel that was the reason, if there was one.
    `partial` is what the task had finished by then, as it gave it to `write_partial`, or None; its arrays
    are taken like those of a result. Filled in by the bridge.
    """

    type: ClassVar[str] = "cancelled"
    id: int
    killed: bool = False
    superseded_by: int | None = None
    partial: dict[str, Any] | None = None


@dataclass(frozen=True)
class SupersededEvent:
    """The request was dropped before it began: request `by` of the same panel replaces it."""

    type: ClassVar[str] = "superseded"
    id: int
    by: int


@dataclass(frozen=True)
class ExitedEvent:
    """The worker ended although nobody asked it to; the next request starts a new one.

    `code` is the exit code (negative: killed by that signal, named in `signal`).
    """

    type: ClassVar[str] = "exited"
    code: int
    message: str
    signal: str = ""
    log: str = ""


Command = Request | Cancel
Event = (
    ReadyEvent
    | ProgressEvent
    | ResultEvent
    | ErrorEvent
    | CancelledEvent
    | SupersededEvent
    | ExitedEvent
)

COMMANDS: Mapping[str, type[Command]] = {c.type: c for c in (Request, Cancel)}
# `superseded` and `exited` are made by the bridge and never come from a worker.
EVENTS: Mapping[str, type[Event]] = {
    e.type: e for e in (ReadyEvent, ProgressEvent, ResultEvent, ErrorEvent, CancelledEvent)
}


# -------------------------------------------------------------------------------------------- lines


def encode(message: Command | Event) -> bytes:
    r"""Write a message as one line of ASCII, ending in "\n".

    Args:
        message: a command or an event. Paths and numpy scalars in it become strings and numbers.

    Returns:
        the line.

    Raises:
        ProtocolError: if it holds something that JSON cannot carry, or is too long for a line.
    """
    # The other end would leave such a line out, and the request would never end.
    for field in fields(message):
        if not _FITS[str(field.type)](getattr(message, field.name)):
            raise ProtocolError(f"{message.type}: field '{field.name}' is not of type {field.type}")
    try:
        text = json.dumps({"type": message.type, **vars(message)}, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(
            f"a {message.type} message cannot be written as JSON: {error}. Pass text, finite "
            "numbers, lists and dictionaries; larger data travel as arrays."
        ) from error
    limit = MAX_COMMAND_BYTES if isinstance(message, Request | Cancel) else MAX_EVENT_BYTES
    if len(text) >= limit:
        raise ProtocolError(
            f"a {message.type} message of {len(text)} bytes is too long (limit {limit}). "
            "Pass large data as arrays."
        )
    return text.encode("ascii") + b"\n"


def decode_command(line: bytes) -> Command:
    """Read one line of the bridge. Raises ProtocolError with the reason if it is none."""
    return _decode(line, COMMANDS)


def decode_event(line: bytes) -> Event:
    """Read one line of the worker. Raises ProtocolError with the reason if it is none."""
    return _decode(line, EVENTS)


_Message = TypeVar("_Message")

_FITS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "int | None": lambda value: value is None or type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "float | None": lambda value: value is None or type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "str": lambda value: isinstance(value, str),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, Any] | None": lambda value: value is None or isinstance(value, dict),
    "list[str]": lambda value: (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    ),
}


def _decode(line: bytes, types: Mapping[str, type[_Message]]) -> _Message:
    """Turn a line into the dataclass that its "type" names; unknown fields are left out."""
    # Messages name types and fields, never values: logs keep them, and values may be a patient's.
    try:
        content = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a JSON line ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise ProtocolError("not a JSON object")
    kind = content.get("type")
    message_type = types.get(kind) if isinstance(kind, str) else None
    if message_type is None:
        raise ProtocolError(f"unknown message type (known: {', '.join(types)})")
    values = {}
    for field in fields(message_type):  # type: ignore[arg-type]
        if field.name in content:
            if not _FITS[str(field.type)](content[field.name]):
                raise ProtocolError(f"{kind}: field '{field.name}' is not of type {field.type}")
            values[field.name] = content[field.name]
        elif field.default is MISSING:
            raise ProtocolError(f"{kind}: field '{field.name}' is missing")
    return message_type(**values)


def _refuse_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python reads although JSON has none."""
    raise ValueError(name)


def _plain(value: object) -> object:
    """Make JSON of the few foreign types that tasks return."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# ------------------------------------------------------------------------------------------- arrays


def write_array(folder: Path, name: str, array: npt.ArrayLike) -> Path:
    """Write an array as `<name>.npy`, complete or not at all.

    Args:
        folder: an existing folder, private to this request.
        name: a lower-case letter, then those, digits and underscores; at most 64 in all.
        array: any shape; numbers or booleans; C or Fortran order (transposed views of Slicer).

    Returns:
        the path of the file.

    Raises:
        ProtocolError: on a bad name or voxel type.
        OSError: if it cannot be written, with `errno.ENOSPC` when the disk is full; nothing is left behind
            then.
    """
    path = _array_path(folder, name)
    array = np.asanyarray(array)
    if array.dtype.kind not in "biufc":
        raise ProtocolError(f"array '{name}': type {array.dtype} cannot travel, only numbers can")
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    body = array.T if fortran else np.ascontiguousarray(array)
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, header)
            # Not numpy's own writer: its tofile() reports a full disk as OSError without errno.
            file.write(body.reshape(-1).view(np.uint8).data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def read_array(folder: Path, name: str, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Read `<name>.npy`.

    Args:
        folder: the request's folder.
        name: as given to `write_array`.
        mapped: map the file read-only instead of loading it, when only a part of it is wanted.

    Returns:
        the array, in the shape, type and order that was written.

    Raises:
        ProtocolError: on a bad name or a damaged file.
        FileNotFoundError: if there is none.
    """
    path = _array_path(folder, name)
    if not path.is_file():
        raise FileNotFoundError(f"The request has no array '{name}'.")
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError) as error:
        raise ProtocolError(f"The file of array '{name}' is damaged: {error}") from error


def write_partial(
    folder: Path, metadata: Mapping[str, Any], arrays: Mapping[str, npt.ArrayLike]
) -> None:
    """Leave what is finished so far, for the case that the request is cancelled or killed.

    Each call replaces the one before. A kill between two files leaves newer arrays with older metadata, so
    the arrays keep their shapes and metadata say which part of them counts.

    Args:
        folder: the request's folder.
        metadata: JSON values, as a task returns them.
        arrays: by name, as for `write_array`.

    Raises:
        ProtocolError: as `write_array`.
        OSError: likewise.
    """
    for name, array in arrays.items():
        write_array(folder, name, array)
    content = {"metadata": dict(metadata), "arrays": sorted(arrays)}
    try:
        text = json.dumps(content, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"a partial result cannot be written as JSON: {error}") from error
    temporary = folder / f"{_PARTIAL_NAME}.part"
    temporary.write_text(text, encoding="ascii")
    temporary.replace(folder / _PARTIAL_NAME)


def read_partial(folder: Path) -> tuple[dict[str, Any], list[str]] | None:
    """Read what `write_partial` left: metadata and names of arrays; None if there is nothing sound."""
    try:
        content = json.loads((folder / _PARTIAL_NAME).read_text(encoding="ascii"))
        metadata, arrays = content["metadata"], content["arrays"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = _FITS["dict[str, Any]"](metadata) and _FITS["list[str]"](arrays)
    return (metadata, arrays) if sound else None


def _array_path(folder: Path, name: str) -> Path:
    """Path of an array's file; the name comes from outside and must not lead out of the folder."""
    if not _ARRAY_NAME.match(name):
        raise ProtocolError(
            f"array name: got {name!r}, allowed are lower-case letters, digits and underscores"
        )
    return folder / f"{name}.npy"


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that a disk or a quota is used up."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def describe_disk(folder: Path) -> str:
    """One clause on how much room a folder's disk has left."""
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MB free in {folder}"
    except OSError:
        return f"the folder is {folder}"
