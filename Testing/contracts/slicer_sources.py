"""Reads the module's sources and .ui files for the contract tests: who uses what, without running it."""

from __future__ import annotations

import ast
import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DiffTumorSlicer"
LIBRARY = MODULE / "DiffTumorSlicerLib"
MODULE_FILE = MODULE / "DiffTumorSlicer.py"
SOURCES = [MODULE_FILE, *sorted(LIBRARY.rglob("*.py"))]
UI_FILES = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
WITH_QT = [MODULE_FILE, *sorted((LIBRARY / "panels").rglob("*.py"))]


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain that starts at a name; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def chains(path: Path) -> Iterator[tuple[str, ast.Attribute]]:
    """Each whole attribute chain of a file, such as "slicer.util.loadUI"."""
    tree = tree_of(path)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner and (name := dotted(node)):
            yield name, node


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each call of a file whose function is an attribute chain."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield name, node


@dataclass(frozen=True)
class Import:
    module: str
    names: tuple[str, ...]
    at_file_scope: bool


def imports(path: Path) -> Iterator[Import]:
    tree = tree_of(path)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), id(node) in top)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = tuple(alias.name for alias in node.names)
            yield Import(node.module or "", names, id(node) in top)


@dataclass(frozen=True)
class Widget:
    """A widget of a .ui file."""

    file: str
    kind: str
    name: str
    properties: dict[str, str]
    inside: tuple[str, ...]  # classes of the widgets around it


def widgets_of(path: Path) -> list[Widget]:
    found: list[Widget] = []

    def visit(element: ElementTree.Element, inside: tuple[str, ...]) -> None:
        if element.tag == "widget":
            properties = {
                p.get("name", ""): "".join(p.itertext()).strip()
                for p in element.findall("property")
            }
            kind = element.get("class", "")
            found.append(Widget(path.name, kind, element.get("name", ""), properties, inside))
            inside = (*inside, kind)
        for child in element:
            visit(child, inside)

    visit(ElementTree.parse(path).getroot(), ())
    return found


ALL_WIDGETS = [widget for path in UI_FILES for widget in widgets_of(path)]
WIDGET_KINDS = {widget.name: widget.kind for widget in ALL_WIDGETS}


def connections_of(path: Path) -> list[dict[str, str]]:
    return [
        {part.tag: (part.text or "").strip() for part in connection}
        for connection in ElementTree.parse(path).getroot().iter("connection")
    ]


def widget_of(chain: str) -> tuple[str, str] | None:
    """(widget, rest) of a chain that goes through an object of widgets: `self._ui.seedEdit.text`."""
    parts = chain.split(".")
    for position, part in enumerate(parts[:-1]):
        if part in ("ui", "_ui"):
            return parts[position + 1], ".".join(parts[position + 2 :])
    return None
