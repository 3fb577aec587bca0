"""Output files: all of a command's results appear together, or none does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from difftumor.volumes import VolumeError, check_output


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse bad output paths before any work (`volumes.check_output` says why, for images).

    Args:
        outputs: images and JSON files.
        inputs: never replaced, whatever `overwrite` says.

    Raises: VolumeError, FileExistsError, FileNotFoundError: the path cannot be written at the end.
    """
    for path in outputs:
        if path.suffix == ".json":
            # A side-car goes where its image goes, so folder and permissions are already known.
            if path.exists() and not overwrite:
                raise FileExistsError(
                    f"{path} exists already. Choose another name, or add --overwrite."
                )
        else:
            check_output(path, overwrite, None)
        if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
            raise VolumeError(
                f"{path} is also an input, and inputs are never changed. Choose another name."
            )
        if not os.access(path.parent, os.W_OK):
            raise VolumeError(f"the folder of {path} is write-protected. Choose another folder.")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise VolumeError("two outputs have the same name. Give each its own.")


@contextmanager
def staged(outputs: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a stand-in path for each output; on success all are renamed, on an error none appears.

    The stand-ins lie in hidden folders beside the outputs, so the final step is a rename on one disk.
    """
    folders: list[Path] = []
    try:
        stand_ins = []
        for path in outputs:
            folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=".difftumor-"))
            folders.append(folder)
            stand_ins.append(folder / path.name)
        yield stand_ins
        for stand_in, path in zip(stand_ins, outputs, strict=True):
            stand_in.replace(path)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
