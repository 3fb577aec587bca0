"""A session's temporary folder: readable by its owner only, and gone at the end, whatever the end is.

It holds a patient's voxels for as long as they travel, so nothing may be left behind. The session that
owns the folder keeps a lock on a file in it; the system drops the lock with the process. Whoever can
take the lock therefore knows that the owner is gone: the worker when its input ends, and the next
session when it starts. (A process number alone would not do: numbers are used again, and two
containers may share a temporary folder without seeing each other's processes.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from difftumor.locks import try_lock

_PREFIX = "difftumor-session-"
_LOCK_NAME = "owner.lock"
# Between making a folder and locking it a session looks abandoned; nobody is that slow.
_YOUNG_S = 60.0


class PrivateFolder:
    """A locked folder for one session. `path` is its place; call `remove` at the end."""

    def __init__(self, parent: Path | None = None) -> None:
        """Make the folder, with mode 0700.

        Args:
            parent: where; the system's temporary folder if None.

        Raises:
            OSError: if it cannot be made.
        """
        prefix = f"{_PREFIX}{os.getpid()}-"
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
        try:
            self._lock_fd = os.open(self.path / _LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            self.path.rmdir()
            raise
        try_lock(self._lock_fd)

    def make_subfolder(self, name: str) -> Path:
        """Make and return a folder inside. Raises OSError."""
        folder = self.path / name
        folder.mkdir(mode=0o700)
        return folder

    def remove(self) -> None:
        """Remove the folder and all that is in it; a second call does nothing."""
        if self._lock_fd >= 0:
            # Windows cannot remove an open file, and the lock guards nothing any more.
            os.close(self._lock_fd)
            self._lock_fd = -1
        shutil.rmtree(self.path, ignore_errors=True)


def remove_abandoned_folders(parent: Path | None = None) -> int:
    """Remove what sessions left in `parent` that were killed together with their worker.

    Args:
        parent: as given to `PrivateFolder`.

    Returns:
        the number of folders removed. Never raises: cleaning up is no reason to fail.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for folder in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.lstat().st_mtime > _YOUNG_S:
                    removed += remove_if_abandoned(folder)
    return removed


def remove_if_abandoned(folder: Path) -> bool:
    """Remove a session's folder if its owner is gone.

    Args:
        folder: made by `PrivateFolder`; anything else, also a link or another user's, is left alone.

    Returns:
        whether it was removed. Raises: OSError: if it cannot be examined.
    """
    status = folder.lstat()
    is_ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    if not folder.name.startswith(_PREFIX) or not stat.S_ISDIR(status.st_mode) or not is_ours:
        return False
    # Without a lock file its owner died right after making it: there is nothing to hold.
    if (folder / _LOCK_NAME).exists():
        lock_fd = os.open(folder / _LOCK_NAME, os.O_RDWR)
        try:
            # On a disk without locks no folder ever looks abandoned.
            if not try_lock(lock_fd):
                return False
        finally:
            os.close(lock_fd)
    shutil.rmtree(folder, ignore_errors=True)
    return True
