"""Output files: all of a command's results appear together, or none does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from difftumor.volumes import VolumeError, check_output

OTHER_SUFFIXES = (".json", ".png", ".csv")


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse bad output paths before any work (`volumes.check_output` says why, for images).

    Args:
        outputs: images, and files of OTHER_SUFFIXES.
        inputs: never replaced, whatever `overwrite` says.

    Raises: VolumeError, FileExistsError, FileNotFoundError: the path cannot be written at the end.
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
                raise FileExistsError(
                    f"{path} exists already. Choose another name, or add --overwrite."
                )
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


@contextmanager
def staged(outputs: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Yield a stand-in path for each output; on success all take their places, on an error none does.

    The stand-ins lie in hidden folders beside the outputs, so that the last step renames on one disk.
    What was there before is set aside first and comes back if a later output cannot be placed.

    Raises: FileExistsError: another program made an output meanwhile, and `overwrite` is not set.
    """
    folders: list[Path] = []
    aside: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        stand_ins = []
        for path in outputs:
            folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=".difftumor-"))
            folders.append(folder)
            stand_ins.append(folder / path.name)
        yield stand_ins
        for stand_in, path in zip(stand_ins, outputs, strict=True):
            if path.exists():
                if not overwrite:
                    raise FileExistsError(
                        f"{path} was written by another program meanwhile. Choose another name."
                    )
                kept = stand_in.with_name(f"before-{path.name}")
                path.replace(kept)
                aside.append((kept, path))
            stand_in.replace(path)
            placed.append(path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        for kept, path in aside:
            kept.replace(path)
        raise
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
