"""Which Python runs the worker, what it lacks, and how to get that. Never imports torch.

Asked at the first press that needs the worker, not before: opening the module installs nothing.
PyTorch comes through Slicer's PyTorch extension, the other packages through `slicer.packaging`, and
another Python, such as one that a hospital's administrator set up, is told about and never changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from DiffTumorSlicerLib.jobs.python_packages import (
    REQUIREMENTS,
    meets,
    name_of,
    own_packages,
    packages_of,
    requirements,
)
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.translation import tr as _

logger = logging.getLogger(__name__)

EXTENSION = "PyTorch"
TORCH = "torch>=2.6"
# What Slicer brings along, and another Python therefore has to have.
IN_SLICER = ("numpy>=1.26", "scipy>=1.13", "SimpleITK>=2.4")
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Lack:
    """One thing that keeps the worker from running.

    Attributes:
        kind: "python_missing", "python_old", "slicer_old", "extension_missing", "restart_pending",
            "torch_missing" or "packages_missing". (A torch that does not load is told by the worker.)
        sentence: what, why, and the next step.
        action: what `obtain` can do: "install_extension", "restart", "install_torch",
            "install_packages", or "" if the person has to act.
    """

    kind: str
    sentence: str
    action: str = ""


class NotReady(SceneError):
    """The worker cannot run yet; `lack` says why, and the message is its sentence."""

    def __init__(self, lack: Lack) -> None:
        super().__init__(lack.sentence)
        self.lack = lack


def worker_python(chosen: str = "") -> str | None:
    """Interpreter for the worker.

    Args:
        chosen: path that the user set; empty for Slicer's own.

    Returns:
        a path; None for the interpreter that runs this.
    """
    if chosen:
        return chosen
    # Inside Slicer sys.executable may be the program itself; its Python is on the PATH.
    return None if "python" in Path(sys.executable).name.lower() else shutil.which("PythonSlicer")


def find_lack(chosen: str = "") -> Lack | None:
    """The first thing that is missing, in the order in which they are got; None if all is there.

    Args:
        chosen: path of another Python; empty for Slicer's own.
    """
    return _lack_of_other_python(chosen) if chosen else _lack_of_slicer()


def prepare(chosen: str = "") -> None:
    """Make the worker able to run, asking the person before anything is installed.

    Args:
        chosen: path of another Python; empty for Slicer's own.

    Raises:
        NotReady: something is still missing, or the person declined.
    """
    tried: set[str] = set()
    while (lack := find_lack(chosen)) is not None:
        if not lack.action or lack.action in tried:
            raise NotReady(lack)
        tried.add(lack.action)
        obtain(lack)


def obtain(lack: Lack) -> None:
    """Do what `lack.action` says.

    Raises:
        NotReady: the person declined, it failed, or Slicer has to be restarted first.
    """
    actions = {
        "install_extension": _install_extension,
        "install_torch": _install_torch,
        "install_packages": _install_packages,
        "restart": _restart,
    }
    try:
        actions[lack.action](lack)
    except (RuntimeError, subprocess.CalledProcessError, OSError, ImportError) as error:
        logger.info("%s: %s", lack.action, error)
        declined = isinstance(error, RuntimeError) and not isinstance(error, SceneError)
        why = _("It could not be installed; the Python console has the reason.")
        sentence = lack.sentence if declined else f"{lack.sentence} {why}"
        raise NotReady(Lack(lack.kind, sentence, lack.action)) from error
    importlib.invalidate_caches()


class WorkerPython:
    """The worker's Python as the panels ask for it; which one it is, is the user's choice."""

    def __init__(self, chosen: Callable[[], str]) -> None:
        """Ask `chosen` each time: path of another Python, or empty for Slicer's own."""
        self._chosen = chosen
        self._known: dict[str, str] = {}  # of other Pythons, which only a process can tell

    def python(self) -> str | None:
        """Interpreter for the worker; None for the one that runs this."""
        return worker_python(self._chosen())

    def problem(self) -> str:
        """What is missing, with the next step; "" if nothing is known to be. Starts no process."""
        chosen = self._chosen()
        if chosen:
            return self._known.get(chosen, "")
        lack = find_lack()
        return lack.sentence if lack is not None else ""

    def ensure(self) -> None:
        """Make the worker able to run, asking before anything is installed.

        Raises:
            NotReady: something stays missing; the message is a sentence with the next step.
        """
        chosen = self._chosen()
        if chosen and self._known.get(chosen) == "":
            return  # it was asked before; should it have changed, the worker's start tells
        try:
            prepare(chosen)
        except NotReady as error:
            self._known[chosen] = str(error)
            raise
        self._known[chosen] = ""


# ------------------------------------------------------------------------------------ Slicer's Python


def _lack_of_slicer() -> Lack | None:
    if importlib.util.find_spec("slicer.packaging") is None:  # new in Slicer 5.12
        return Lack(
            "slicer_old",
            _(
                "This module needs Slicer 5.12 or newer. Download it from https://download.slicer.org."
            ),
        )
    if not meets(TORCH, own_packages(["torch"])):
        return _lack_of_torch()
    missing = [one for one in requirements() if not meets(one, own_packages([name_of(one)]))]
    if missing:
        names = ", ".join(name_of(one) for one in missing)
        return Lack(
            "packages_missing",
            _(
                "Python packages are missing: {names}. Press the button again and agree to their "
                "installation (some megabytes, once), or choose another Python in the Models panel."
            ).format(names=names),
            "install_packages",
        )
    return None


def _lack_of_torch() -> Lack:
    if hasattr(slicer.modules, "pytorchutils"):
        return Lack(
            "torch_missing",
            _(
                "PyTorch is not installed yet. Press the button again and agree to its installation (up to some "
                "gigabytes, once), or install it in the module PyTorch Utils."
            ),
            "install_torch",
        )
    manager = _extensions_manager()
    if manager is not None and manager.isExtensionInstalled(EXTENSION):
        return Lack(
            "restart_pending",
            _(
                "The PyTorch extension is installed but not loaded yet. Restart Slicer, then press again."
            ),
            "restart",
        )
    return Lack(
        "extension_missing",
        _(
            "The models need Slicer's PyTorch extension. Install it in the Extensions Manager (search for "
            "PyTorch), restart Slicer, then press again; or choose another Python in the Models panel."
        ),
        "install_extension" if manager is not None else "",
    )


def _extensions_manager() -> Any:
    """Slicer's extensions manager; None where Slicer was built without."""
    find = getattr(slicer.app, "extensionsManagerModel", None)
    return find() if find is not None else None


def _install_extension(lack: Lack) -> None:
    if not slicer.util.confirmOkCancelDisplay(
        _(
            "The models need Slicer's PyTorch extension. Install it now? Slicer has to be restarted afterwards."
        )
    ):
        raise RuntimeError("declined")
    manager = _extensions_manager()
    manager.interactive = False  # it would ask a second time
    if not manager.installExtensionFromServer(EXTENSION, False):
        raise OSError("the extensions server did not deliver the extension")
    _restart(lack)


def _restart(_lack: Lack) -> None:
    """Only the person restarts: the scene may not be saved."""
    raise NotReady(
        Lack(
            "restart_pending",
            _(
                "The PyTorch extension is installed. Save your work, restart Slicer, then press again."
            ),
        )
    ) from None


def _install_torch(_lack: Lack) -> None:
    import PyTorchUtils  # of the PyTorch extension, which need not be there

    logic = PyTorchUtils.PyTorchUtilsLogic()
    requirement = TORCH.removeprefix("torch")
    if logic.installTorch(askConfirmation=True, torchVersionRequirement=requirement) is None:
        raise RuntimeError("declined")


def _install_packages(_lack: Lack) -> None:
    from slicer import packaging  # of Slicer 5.12

    packaging.pip_ensure(packaging.load_requirements(REQUIREMENTS), requester="DiffTumorSlicer")


# ----------------------------------------------------------------------------------- another Python


def _lack_of_other_python(python: str) -> Lack | None:
    if shutil.which(python) is None:
        return Lack(
            "python_missing",
            _(
                "The chosen Python, {python}, is not there. Choose another one in the Models panel, or clear "
                "the choice to use Slicer's own."
            ).format(python=python),
        )
    answer = packages_of(python)
    if answer is None:
        return Lack(
            "python_missing",
            _(
                "{python} does not answer as a Python does. Choose another one in the Models panel."
            ).format(python=python),
        )
    version, found = answer
    if version < OLDEST_PYTHON:
        wanted, got = (".".join(map(str, v)) for v in (OLDEST_PYTHON, version))
        return Lack(
            "python_old",
            _(
                "The chosen Python is {got}; the models need {wanted} or newer. Choose another one in the "
                "Models panel."
            ).format(got=got, wanted=wanted),
        )
    missing = [one for one in (TORCH, *IN_SLICER, *requirements()) if not meets(one, found)]
    if not missing:
        return None
    kind = "torch_missing" if TORCH in missing else "packages_missing"
    return Lack(
        kind,
        _(
            "The chosen Python, {python}, lacks {packages}. Ask whoever set it up to "
            "install them, or clear the choice in the Models panel to use Slicer's own."
        ).format(python=python, packages=", ".join(map(name_of, missing))),
    )
