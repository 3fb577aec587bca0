"""`slicer.i18n`, `slicer.packaging`, `slicer.testing`, and what newer `slicer.util` has."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from packaging.requirements import Requirement

# What pip_ensure would have installed; a test looks here, nothing is ever installed.
asked_to_install: list[str] = []


def tr(text: str) -> str:
    """`slicer.i18n.tr`: English."""
    return text


def translate(context: str, text: str) -> str:
    return text


def getContext(sourceFile: str) -> str:
    return Path(sourceFile).stem


def load_requirements(path: str | Path) -> list[Requirement]:
    lines = (line.strip() for line in Path(path).read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pip_check(req: str | Requirement | list[str | Requirement]) -> bool:
    """Whether all requirements are met."""
    if isinstance(req, list):
        return all(pip_check(one) for one in req)
    req = Requirement(req) if isinstance(req, str) else req
    try:
        return req.specifier.contains(importlib.metadata.version(req.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def pip_ensure(
    requirements: str | Requirement | list[str | Requirement],
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Ask for, and note, what is missing.

    Raises: RuntimeError: if the person declines, as in Slicer.
    """
    every = requirements if isinstance(requirements, list) else [requirements]
    missing = [str(one) for one in every if not pip_check(one)]
    if not missing or (skip_in_testing and slicer.app.testingEnabled()):
        return None
    text = f"{requester} needs: {', '.join(missing)}. Install?"
    if prompt_install and not slicer.util.confirmOkCancelDisplay(text):
        raise RuntimeError("User declined package installation")
    asked_to_install.extend(missing)
    return None


def runUnitTest(path: Any, testname: str) -> None:
    raise NotImplementedError("slicer.testing runs inside Slicer only")


def _module(name: str, functions: dict[str, Callable[..., Any]]) -> types.ModuleType:
    module = types.ModuleType(f"slicer.{name}")
    module.__spec__ = importlib.machinery.ModuleSpec(f"slicer.{name}", None)
    for key, function in functions.items():
        setattr(module, key, function)
    sys.modules[f"slicer.{name}"] = module
    setattr(slicer, name, module)
    return module


def install() -> None:
    """Put the modules into the namespace `slicer`."""
    _module("i18n", {"tr": tr, "translate": translate, "getContext": getContext})
    _module(
        "packaging",
        {"load_requirements": load_requirements, "pip_check": pip_check, "pip_ensure": pip_ensure},
    )
    _module("testing", {"runUnitTest": runUnitTest})
