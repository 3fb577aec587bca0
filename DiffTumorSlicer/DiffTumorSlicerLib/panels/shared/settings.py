"""What belongs to the user and not to the scene: QSettings under `DiffTumorSlicer/`.

Read by the panels and by `environment`; nothing else writes these keys.
"""

from __future__ import annotations

import os
from pathlib import Path

import qt

GROUP = "DiffTumorSlicer/"
DEVICES = ("auto", "cuda", "mps", "cpu")
MODELS_VARIABLE = "DIFFTUMOR_HOME"


def device() -> str:
    """Where to compute, one of `DEVICES`."""
    value = _read("device")
    return value if value in DEVICES else "auto"


def set_device(value: str) -> None:
    """Remember where to compute."""
    _write("device", value)


def python() -> str:
    """Interpreter of the worker; empty: Slicer's own."""
    return _read("python")


def set_python(path: str) -> None:
    """Remember the interpreter of the worker; empty for Slicer's own."""
    _write("python", path)


def models_folder() -> str:
    """Folder of the models that the user chose; empty: the engine's default."""
    return _read("modelsFolder")


def set_models_folder(path: str) -> None:
    """Remember the folder of the models, and let this process and its workers use it."""
    _write("modelsFolder", path)
    apply_models_folder()


def apply_models_folder() -> None:
    """Tell the engine about the chosen folder; a variable set outside Slicer wins until one is chosen."""
    if models_folder():
        os.environ[MODELS_VARIABLE] = models_folder()


def last_folder() -> str:
    """Folder that the user saved to or imported from last; their home before the first time."""
    folder = _read("lastFolder")
    return folder if folder and Path(folder).is_dir() else str(Path.home())


def set_last_folder(path: str) -> None:
    """Remember the folder that was used."""
    _write("lastFolder", path)


def study() -> tuple[str, str, str]:
    """Folder, reader code and title of the study that was read last; empty ones: none, or finished."""
    return _read("studyFolder"), _read("studyReader"), _read("studyTitle")


def set_study(folder: str, reader: str, title: str) -> None:
    """Remember a study to continue, or three times "" for none."""
    for key, value in (("Folder", folder), ("Reader", reader), ("Title", title)):
        _write(f"study{key}", value)


def _read(key: str) -> str:
    value = qt.QSettings().value(GROUP + key)
    return str(value) if value else ""


def _write(key: str, value: str) -> None:
    qt.QSettings().setValue(GROUP + key, value)
