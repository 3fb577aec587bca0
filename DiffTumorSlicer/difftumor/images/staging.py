"""Files that appear together, or not at all. Standard library only, as panels use it as well."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


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
