"""The journal of a reading: one JSON record per line, appended, flushed to the disk, and chained by hash.

Each record holds the hash of the one before, the first one that of package.json, so that a change is seen. A line
that was torn by a crash was never acknowledged, and is dropped. Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftumor.reader_study.study import StudyError

JOURNAL_VERSION = 1


class JournalError(StudyError):
    """A record could not be stored, or the journal was changed."""


@dataclass(frozen=True)
class Reading:
    """What a journal holds.

    Attributes:
        records: in the order in which they were written.
        good_bytes: length of the part that they fill.
        torn_bytes: what a crash left behind it.
        ends_in_newline: of the good part; a record may be whole without.
    """

    records: tuple[dict[str, Any], ...]
    good_bytes: int
    torn_bytes: int
    ends_in_newline: bool


def chained(record: Mapping[str, Any], previous: str) -> dict[str, Any]:
    """The record with `previous`, and `hash` of all the rest."""
    body = {**record, "previous": previous}
    return {**body, "hash": _digest(body)}


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as it stands in the file, newline included."""
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_journal(path: Path, origin: str) -> Reading:
    """Read and verify a journal; it is not changed.

    Args:
        path: need not exist.
        origin: `Package.digest`.

    Raises:
        JournalError: unreadable, changed, of another package or version.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Reading((), 0, 0, True)
    except OSError as error:
        raise JournalError(
            f"{path} cannot be read: {error.strerror}. Check its permissions."
        ) from error
    # A computer that lost its power may leave a tail of zeros.
    lines = content.rstrip(b"\0").split(b"\n")
    records: list[dict[str, Any]] = []
    good = 0
    previous = origin
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line:
            break
        try:
            record = json.loads(line)
        except ValueError:
            if number >= len(lines) - 1 and not lines[-1]:
                break  # the last line is no JSON: torn
            if number == len(lines):
                break
            raise JournalError(_changed(path, number, "is no record")) from None
        if not isinstance(record, dict):
            raise JournalError(_changed(path, number, "is no record"))
        _check_link(path, number, record, previous)
        records.append(record)
        previous = record["hash"]
        good += len(line) + 1
    ends = good <= len(content) and content[good - 1 : good] in (b"\n", b"")
    if not ends:
        good -= 1
    return Reading(tuple(records), good, len(content) - good, ends)


class Journal:
    """The open journal of one session; made by `open_journal`, used by one thread.

    Attributes:
        path: the file.
        last_hash: of the last record.
        count: number of records.
    """

    def __init__(self, path: Path, last_hash: str, count: int, size: int) -> None:
        self.path = path
        self.last_hash = last_hash
        self.count = count
        self._size = size
        new = not path.exists()
        with _explained(path):
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o600)
        if new:
            _flush_folder(path.parent)

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Store one record; when this returns it is on the disk.

        Args:
            record: JSON-ready, without n, previous and hash.

        Returns:
            the whole record.

        Raises:
            JournalError: it was not stored, and the file is as it was before.
        """
        whole = chained({"n": self.count, **record}, self.last_hash)
        line = line_of(whole)
        self._check_unchanged()
        with _explained(self.path):
            try:
                _write_all(self._file, line)
                os.fsync(self._file)
            except BaseException:
                self._roll_back()
                raise
        self.last_hash = whole["hash"]
        self.count += 1
        self._size += len(line)
        return whole

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def trim(self, reading: Reading) -> None:
        """Cut a torn tail off, or end the last record with its newline."""
        with _explained(self.path):
            if reading.torn_bytes:
                os.ftruncate(self._file, reading.good_bytes)
                os.fsync(self._file)
            if not reading.ends_in_newline:
                _write_all(self._file, b"\n")
                os.fsync(self._file)
        self._size = reading.good_bytes + (not reading.ends_in_newline)

    def _roll_back(self) -> None:
        """Take back a half-written record; if that fails too, the next session drops it as torn."""
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError:
            self.close()

    def _check_unchanged(self) -> None:
        """Raise JournalError if the file is closed, or not as this session left it."""
        if self._file < 0:
            raise JournalError(
                f"{self.path} was closed after an error. Open the study again: it goes on at the same case."
            )
        own = os.fstat(self._file)
        try:
            there = self.path.stat()
        except OSError as error:
            raise JournalError(
                f"{self.path} is not there any more ({error.strerror}); the answer was not stored. Put "
                "the folder back where it was, and open the study again."
            ) from error
        # Windows lets nobody move or replace an open file, and may tell old facts about its name.
        replaced = os.name != "nt" and own.st_ino != there.st_ino
        if replaced or own.st_size != self._size:
            raise JournalError(
                f"{self.path} was changed by another program; the answer was not stored. Close other "
                "programs that use it, and open the study again."
            )


def open_journal(path: Path, origin: str) -> tuple[Journal, Reading]:
    """Open a journal to go on with it, without the torn tail of a crash; the caller holds the lock.

    Raises:
        JournalError: see `read_journal`; or it cannot be written.
    """
    reading = read_journal(path, origin)
    last = reading.records[-1]["hash"] if reading.records else origin
    journal = Journal(path, last, len(reading.records), reading.good_bytes)
    try:
        journal.trim(reading)
    except BaseException:
        journal.close()
        raise
    return journal, reading


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would turn newlines into two characters


class _explained:
    """Turn an error of the operating system into one that says what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise JournalError(
                f"{self.path} could not be written ({error.strerror or error}): this step was not "
                f"stored. {_REMEDIES.get(error.errno or 0, _REMEDY)}"
            ) from error


_REMEDY = "Check the disk, then try again; what was stored before is safe."
_FREE = "Free some space on the disk, then try again; what was stored before is safe."
_READ_ONLY = (
    "The folder is write-protected: copy the package to a folder of your own, and open that one."
)
_REMEDIES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
}


def _write_all(file: int, content: bytes) -> None:
    """Write all of it; a single call may take a part only."""
    while content:
        content = content[os.write(file, content) :]


def _flush_folder(folder: Path) -> None:
    """Make a new file's name survive a power loss; Windows has no such call and needs none."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(body: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its own hash."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_link(path: Path, number: int, record: Mapping[str, Any], previous: str) -> None:
    body = {name: value for name, value in record.items() if name != "hash"}
    if record.get("previous") != previous:
        reason = "belongs to another package" if number == 1 else "does not follow the line before"
    elif record.get("hash") != _digest(body):
        reason = "was changed after it was written"
    elif record.get("n") != number - 1:
        reason = "has another number"
    else:
        return
    raise JournalError(_changed(path, number, reason))


def _changed(path: Path, number: int, reason: str) -> str:
    return (
        f"Line {number} of {path} {reason}: the journal is not as the program wrote it. Nothing was changed "
        "now; ask the coordinator, and keep the file."
    )
