"""Whether memory and disk are enough for a job, asked before it starts."""

from __future__ import annotations

from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.translation import tr as _


def check_free(host: Host, memory: float, disk: float) -> None:
    """Compare what is needed with what is free.

    Args:
        host: measures.
        memory: bytes needed.
        disk: bytes needed in the folder for temporary files.

    Raises: SessionError: too little of either, and what helps.
    """
    free = host.free_memory()
    if free is not None and free < memory:
        raise SessionError(
            _(
                "About {needed:.1f} GB of memory are needed and {free:.1f} GB are free. Close other "
                "programs or volumes, or crop the scan with the module Crop Volume, then try again."
            ).format(needed=memory / 1e9, free=free / 1e9)
        )
    folder = host.arrays_folder
    try:
        free_disk = host.free_disk(folder)
    except OSError as error:
        raise SessionError(
            _(
                "The folder for temporary files, {folder}, cannot be used ({why}). Choose "
                "another one in the application settings."
            ).format(folder=folder, why=error.strerror or error)
        ) from error
    if free_disk < disk:
        raise SessionError(
            _(
                "About {needed:.0f} MB are needed for temporary files and {free:.0f} MB are free in "
                "{folder}. Free some space on that disk, then try again."
            ).format(needed=disk / 1e6, free=free_disk / 1e6, folder=folder)
        )
