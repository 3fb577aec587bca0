"""Packages of a Python, its own or another one: which versions it has, and whether they are enough.

Versions are read from metadata. Importing torch takes seconds and belongs into the worker.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from difftumor.worker.process import worker_environment

logger = logging.getLogger(__name__)

REQUIREMENTS = Path(__file__).resolve().parents[2] / "Resources" / "requirements.txt"
_PROBE_TIMEOUT_S = 20.0  # the window stands still meanwhile
_PROBE = """
import importlib.metadata, json, sys
every = [(d.metadata["Name"], d.version) for d in importlib.metadata.distributions()]
found = {name.lower().replace("_", "-"): version for name, version in every if name}
print(json.dumps({"python": sys.version_info[:2], "packages": found}))
"""


def requirements() -> list[str]:
    """What the worker needs besides torch and what Slicer has, such as "nibabel>=5.3"."""
    lines = (line.strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def name_of(requirement: str) -> str:
    """Package of a requirement: "nibabel>=5.3" is "nibabel"."""
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def meets(requirement: str, found: Mapping[str, str]) -> bool:
    """Whether a package is there, new enough for a "name>=version" requirement."""
    version = found.get(_canonical(name_of(requirement)))
    if version is None:
        return False
    _, _, least = requirement.partition(">=")
    return _numbers(version) >= _numbers(least)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.13.0+cpu" is (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def own_packages(names: list[str]) -> dict[str, str]:
    """Versions of those of the named packages that this Python has."""
    found = {}
    for name in names:
        try:
            found[_canonical(name)] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def packages_of(python: str) -> tuple[tuple[int, ...], dict[str, str]] | None:
    """What another Python is and has.

    Args:
        python: path of an interpreter, which is asked in a process of its own.

    Returns:
        its version and {package: version}; None if it does not answer as a Python does.
    """
    done = run_python(python, _PROBE)
    try:
        report = json.loads(done.stdout.splitlines()[-1]) if done is not None else {}
        return tuple(report["python"]), dict(report["packages"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def run_python(python: str, program: str) -> subprocess.CompletedProcess[str] | None:
    """Run a line of Python in a process of its own; None if that could not be done."""
    try:
        return subprocess.run(
            [python, "-c", program],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            env=worker_environment(python),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("%s could not be run: %s", python, error)
        return None
