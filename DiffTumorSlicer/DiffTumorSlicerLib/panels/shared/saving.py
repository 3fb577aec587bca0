"""Ask where files shall go, write them, and say what was written or why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.volume_files import ExportError


def save_as(
    button: Any,
    title: str,
    name: str,
    suffix: str,
    write: Callable[[Path], list[Path]],
    say: Callable[[str], None],
) -> None:
    """Write files beside each other where the person wants them.

    Args:
        button: that was pressed; the dialog belongs to it.
        title: of the dialog.
        name: proposed, without the suffix.
        suffix: that the file gets.
        write: takes the chosen path and returns the files; may raise ExportError or SceneError.
        say: shows a sentence to the person.
    """
    proposed = str(Path(settings.last_folder()) / (name + suffix))
    chosen = qt.QFileDialog.getSaveFileName(button, title, proposed, f"*{suffix}")
    if not chosen:
        return
    path = Path(chosen if chosen.lower().endswith(suffix) else chosen + suffix)
    settings.set_last_folder(str(path.parent))
    try:
        with slicer.util.WaitCursor():
            written = write(path)
    except (ExportError, SceneError) as error:
        say(str(error))
        return
    names = ", ".join(file.name for file in written)
    say(_("Saved in {folder}: {names}.").format(folder=path.parent, names=names))
