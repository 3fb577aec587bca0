"""Files that appear together, or not at all. Standard library only, as panels use it as well."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def _prefix(path: Path) -> str:
    """Of the names of hidden folders that hold a stand-in of an output."""
    return f".difftumor-{path.name[:100]}-"


@contextmanager
def staged(outputs: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Yield a stand-in path for each output; on success all take their places, on an error none does.

    The stand-ins lie in hidden folders beside the outputs, so that the last step renames on one disk.
    What was there before is set aside first, the last output before the others, and comes back if an output cannot
    be placed. So a last output that is there stands for a whole set, even after the process was killed.

    Args:
        outputs: files or folders.
        overwrite: replace what is there.

    Raises:
        FileExistsError: another program made an output meanwhile, and `overwrite` is not set.
    """
    folders: list[Path] = []
    aside: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        stand_ins = []
        for path in outputs:
            folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
            folders.append(folder)
            stand_ins.append(folder / path.name)
        yield stand_ins
        for stand_in, path in reversed(list(zip(stand_ins, outputs, strict=True))):
            if path.exists():
                if not overwrite:
                    raise FileExistsError(
                        f"{path} was written by another program meanwhile. Choose another name."
                    )
                kept = stand_in.with_name(f"before-{path.name}")
                path.replace(kept)
                aside.append((kept, path))
        for stand_in, path in zip(stand_ins, outputs, strict=True):
            stand_in.replace(path)
            placed.append(path)
    except BaseException:
        for path in placed:
            remove(path)
        for kept, path in aside:
            kept.replace(path)
        raise
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def clear_remains(outputs: Sequence[Path]) -> None:
    """Tidy up after a process that was killed while these outputs took their places together.

    If the last of them is not there yet, but a stand-in of it is, the others are part of a set that will never be
    whole, and go. Nobody else may be writing them.
    """
    hidden = {path: list(_hidden(path)) for path in outputs}
    last = outputs[-1]
    if not last.exists() and any((folder / last.name).exists() for folder in hidden[last]):
        for path in outputs:
            remove(path)
    for folders in hidden.values():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _hidden(path: Path) -> Iterator[Path]:
    """Folders that `staged` made for an output."""
    if path.parent.is_dir():
        prefix = _prefix(path)
        for folder in path.parent.iterdir():
            # Behind the prefix comes what the system made up, which has no such mark.
            if folder.name.startswith(prefix) and "-" not in folder.name[len(prefix) :]:
                yield folder


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
