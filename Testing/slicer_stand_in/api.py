"""The real interface, as read off a running Slicer (`api.json`), and what may be used of it."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

API_FILE = Path(__file__).with_name("api.json")
APPLICATION = "slicer.app"  # the running application object, a QObject that is no widget
# PythonQt finds a member also under its name with an underscore, for what is a word of Python.
_UNDERSCORED = frozenset({"raise_", "exec_", "del_", "print_"})
# PythonQt answers to `name` for `objectName`; Slicer's own files use it everywhere.
_EVERY_QOBJECT = frozenset({"name"}) | _UNDERSCORED


@cache
def read() -> dict[str, Any]:
    """The whole file: {"widgets": {class: ...}, "python": {module: ...}, ...}."""
    return json.loads(API_FILE.read_text(encoding="utf-8"))


def described(name: str) -> dict[str, Any] | None:
    """What the real class has, without what it inherits from QWidget or QObject; None if unknown."""
    return read()["widgets"].get(name)


def names_of(signatures: list[str]) -> set[str]:
    return {signature.split("(")[0] for signature in signatures}


@cache
def own_names(name: str) -> frozenset[str]:
    entry = described(name) or {}
    return frozenset(
        {*entry.get("python", ()), *entry.get("properties", {}), *entry.get("enums", {})}
        | names_of(entry.get("signals", []))
        | names_of(entry.get("slots", []))
    )


@cache
def allowed_names(name: str) -> frozenset[str] | None:
    """Every name that Python sees on an object of the class; None if the class is not described."""
    entry = described(name)
    if entry is None:
        return None
    base = "QWidget" if entry["is_widget"] else "QObject"
    return own_names(name) | own_names(base) | _EVERY_QOBJECT


@cache
def signal_signatures(name: str) -> tuple[str, ...]:
    """The signals that `connect` takes, with those of the base class, in their own order."""
    entry = described(name) or {"is_widget": True}
    base = described("QWidget" if entry["is_widget"] else "QObject") or {}
    return (*entry.get("signals", ()), *base.get("signals", ()))


@cache
def property_names(name: str) -> frozenset[str]:
    """Properties, which Python reads and sets as attributes."""
    entry = described(name) or {"is_widget": True}
    base = described("QWidget" if entry["is_widget"] else "QObject") or {}
    return frozenset({*entry.get("properties", {}), *base.get("properties", {})})


def part_of(specification: Path, widgets: list[str], modules: list[str]) -> dict[str, Any]:
    """What api.json holds: the named classes and Python modules of the whole reading."""
    all_widgets = json.loads((specification / "widgets.json").read_text(encoding="utf-8"))
    all_python = json.loads((specification / "python.json").read_text(encoding="utf-8"))
    return {
        "source": "Read off a running 3D Slicer 5.13.0 of 2026-08-21 (Qt 5.15) by introspection",
        "widgets": {name: all_widgets[name] for name in sorted(widgets)},
        "python": {name: all_python[name] for name in sorted(modules)},
    }


def main(specification: str, *more: str) -> None:
    """Write api.json anew, with what it has and the classes `more`: python api.py FOLDER [CLASS...]"""
    part = part_of(Path(specification), [*{*read()["widgets"], *more}], list(read()["python"]))
    lines = [f'{{"source": {json.dumps(part["source"])}']
    for group in ("widgets", "python"):
        entries = (
            f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True, separators=(',', ':'))}"
            for name, entry in part[group].items()
        )
        lines.append(f',"{group}": {{\n' + ",\n".join(entries) + "\n}")
    API_FILE.write_text("\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
