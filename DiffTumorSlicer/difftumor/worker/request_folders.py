"""Where the arrays of requests lie: one folder per request, inside the session's private folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from difftumor.worker.private_folder import PrivateFolder, remove_abandoned_folders
from difftumor.worker.protocol import (
    CancelledEvent,
    Event,
    ProtocolError,
    ResultEvent,
    read_array,
    read_partial,
    write_array,
)


class RequestFolders:
    """Makes, reads and removes the folders of requests. Nothing exists before the first of them."""

    def __init__(self, parent: Path | None = None) -> None:
        """Remember the place: `parent`, or the system's temporary folder if None."""
        self.parent = parent
        self._session: PrivateFolder | None = None
        self._folders: dict[int, Path] = {}

    def session(self) -> Path:
        """The folder of the whole session, made when first needed. Raises OSError."""
        if self._session is None:
            remove_abandoned_folders(self.parent)
        elif self._session.path.is_dir():
            return self._session.path
        else:
            # A cleaner of old temporary files took it while Slicer stood idle.
            self._session.remove()
        self._session = PrivateFolder(self.parent)
        return self._session.path

    def write(self, number: int, arrays: Mapping[str, npt.NDArray[Any]]) -> Path:
        """Make the folder of a request and write its input.

        Args:
            number: of the request; each only once.
            arrays: by name, see `protocol.write_array`.

        Returns:
            the folder.

        Raises:
            OSError: if the disk does not take it.
            ProtocolError: if an array cannot travel. Nothing is left of the request in both cases.
        """
        folder = self.session() / str(number)
        self._folders[number] = folder
        try:
            folder.mkdir(mode=0o700)
            for name, array in arrays.items():
                write_array(folder, name, array)
        except (OSError, ProtocolError):
            self.remove(number)
            raise
        return folder

    def read(self, number: int, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
        """Load arrays of a request. Raises OSError, ProtocolError."""
        return {name: read_array(self._folders[number], name) for name in names}

    def what_remains(self, event: Event) -> tuple[Event, list[str] | None]:
        """Names of the arrays that stay to be taken once a request has ended; None if there are none.

        A cancelled event comes back with what the request had finished; what a newer request does again
        is not kept.
        """
        if isinstance(event, ResultEvent):
            return event, event.arrays
        if isinstance(event, CancelledEvent) and event.superseded_by is None:
            folder = self._folders.get(event.id)
            found = read_partial(folder) if folder is not None else None
            if found:
                return replace(event, partial=found[0]), found[1]
        return event, None

    def remove(self, number: int) -> None:
        """Remove the folder of a request; no error if there is none."""
        if number in self._folders:
            shutil.rmtree(self._folders.pop(number), ignore_errors=True)

    def close(self) -> None:
        """Remove all of it."""
        if self._session is not None:
            self._session.remove()
