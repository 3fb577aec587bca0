"""The operating system's lock on an open file: taken without waiting, and gone with the process that held it.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import sys

# Windows locks bytes against reading too, so the locked one lies far behind any text in the file.
_FAR = 2**30
_HELD_ELSEWHERE = frozenset({errno.EACCES, errno.EPERM, errno.EAGAIN, errno.EDEADLK})


def try_lock(descriptor: int) -> bool | None:
    """Take the lock of an open file.

    Args:
        descriptor: of a file opened for writing; its position does not matter, and Windows moves it.

    Returns:
        True if the lock is ours until the file is closed, False if another one holds it, None if the
        disk has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD_ELSEWHERE else None
    return True
