"""One reader at a time on a package: a lock that a crash leaves behind does not lock anybody out.

On one computer the operating system's lock on the file decides; it ends with the process, however that ends. The
file also says who holds it, because folders that computers share or that are carried between them do not always
share such locks: then a person decides to take over. Standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from pathlib import Path
from typing import Any

from difftumor.locks import try_lock
from difftumor.reader_study.study import StudyError

_BINARY = getattr(os, "O_BINARY", 0)


class LockedError(StudyError):
    """Somebody else has the package open.

    Attributes:
        holder: what the lock file says: computer, process, since.
        may_take_over: `take_over=True` would open it all the same.
    """

    def __init__(self, message: str, holder: dict[str, Any], *, may_take_over: bool) -> None:
        super().__init__(message)
        self.holder = holder
        self.may_take_over = may_take_over


class Lock:
    """A held lock; made by `take_lock`."""

    def __init__(self, path: Path, file: int, token: str) -> None:
        self.path = path
        self._file = file
        self._token = token

    def check(self) -> None:
        """Raise LockedError if another session took over."""
        holder = _holder(self._file)
        if self._file < 0 or holder.get("session") != self._token:
            raise LockedError(
                f"The study was opened elsewhere ({_who(holder)}); this answer was not stored. Close it "
                "here, or there and open it again here.",
                holder,
                may_take_over=False,
            )

    def release(self) -> None:
        """Give the package free."""
        if self._file < 0:
            return
        try:
            if _holder(self._file).get("session") == self._token:
                os.ftruncate(self._file, 0)
        except OSError:
            pass  # the lock of the operating system ends here anyway
        finally:
            os.close(self._file)
            self._file = -1


def take_lock(path: Path, since: str, *, take_over: bool = False) -> Lock:
    """Lock a package.

    Args:
        path: the lock file; made if it is not there.
        since: time of now, for those who find it locked.
        take_over: a person says that the session on the other computer has ended.

    Raises:
        LockedError: open elsewhere.
        StudyError: the folder cannot be written.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
    except OSError as error:
        raise StudyError(
            f"The folder {path.parent} cannot be written ({error.strerror}), so answers could not be stored. "
            "Copy the package to a folder of your own, and open that one."
        ) from error
    try:
        holder = _holder(file)
        held_here = try_lock(file)
        if held_here is False:
            raise LockedError(
                f"This study is open already ({_who(holder)}). Close it there; if that program hangs, end it.",
                holder,
                may_take_over=False,
            )
        # An own lock of the operating system proves that an earlier session of this computer has ended.
        ended = held_here and holder.get("computer") == platform.node()
        if holder and not ended and not take_over:
            raise LockedError(
                f"This study was open on another computer and not closed there ({_who(holder)}). If it "
                "is not in use there any more, take it over.",
                holder,
                may_take_over=True,
            )
        token = uuid.uuid4().hex
        content = {
            "session": token,
            "computer": platform.node(),
            "process": os.getpid(),
            "since": since,
        }
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, (json.dumps(content) + "\n").encode())
        os.fsync(file)
    except OSError as error:
        os.close(file)
        raise StudyError(
            f"{path} cannot be written ({error.strerror}), so answers could not be stored. Free some "
            "space or copy the package to another folder, then try again."
        ) from error
    except BaseException:
        os.close(file)
        raise
    return Lock(path, file, token)


def _holder(file: int) -> dict[str, Any]:
    """What a lock file says; empty if it is free or was torn by a crash."""
    if file < 0:
        return {}
    os.lseek(file, 0, os.SEEK_SET)
    try:
        content = json.loads(os.read(file, 4096))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _who(holder: dict[str, Any]) -> str:
    if not holder:
        return "it does not say where"
    return (
        f"on {holder.get('computer')}, process {holder.get('process')}, since {holder.get('since')}"
    )
