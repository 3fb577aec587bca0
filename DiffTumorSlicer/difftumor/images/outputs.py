"""Output files of the commands: refused before any work, or written together (`staged`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from difftumor.images.staging import staged
from difftumor.images.volumes import VolumeError, check_output
from difftumor.remedies import Remedy, with_remedy

__all__ = ["check_outputs", "staged"]

OTHER_SUFFIXES = (".json", ".png", ".csv")


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse bad output paths before any work (`volumes.check_output` says why, for images).

    Args:
        outputs: images, and files of OTHER_SUFFIXES.
        inputs: never replaced, whatever `overwrite` says.

    Raises:
        VolumeError: the path cannot be written at the end.
        FileExistsError: likewise.
        FileNotFoundError: likewise.
    """
    for path in outputs:
        if path.suffix.lower() in OTHER_SUFFIXES:
            if path.is_dir():
                raise VolumeError(
                    f"{path} is a folder, where a {path.suffix} file should go. Choose another name."
                )
            if not path.parent.is_dir():
                raise FileNotFoundError(
                    f"The folder {path.parent} for the output {path.name} does not exist. Create it "
                    "or choose another."
                )
            if path.exists() and not overwrite:
                raise with_remedy(FileExistsError(f"{path} exists already."), Remedy("overwrite"))
        else:
            check_output(path, overwrite, None)
        if any(
            other.is_dir() and path.resolve().is_relative_to(other.resolve()) for other in inputs
        ):
            raise VolumeError(
                f"{path} lies in the folder of an input, which is never changed. Choose another."
            )
        if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
            raise VolumeError(
                f"{path} is also an input, and inputs are never changed. Choose another name."
            )
        if not os.access(path.parent, os.W_OK):
            raise VolumeError(f"the folder of {path} is write-protected. Choose another folder.")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise VolumeError("two outputs have the same name. Give each its own.")
