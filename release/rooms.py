"""Print how the house is built: files at the top, lines of each room (all, and code), and which room imports which.

python release/rooms.py [CHECKOUT]      for another checkout, to compare
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "difftumor": "DiffTumorSlicer/difftumor",
    "DiffTumorSlicerLib": "DiffTumorSlicer/DiffTumorSlicerLib",
    "training": "training",
}
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def room_of(path: Path, folder: Path) -> str:
    """The folder at the top, or the file itself if it lies there."""
    return path.relative_to(folder).parts[0].removesuffix(".py")


def arrows(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Which room imports which, with the files that do."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    rooms = set(lines_of(folder))
    for path in sorted(folder.rglob("*.py")):
        here = room_of(path, folder)
        for module in _imported(path):
            package, _, rest = module.partition(".")
            there = rest.split(".")[0]
            if package == folder.name and there in rooms and there != here:
                found[here, there].append(path.relative_to(folder).as_posix())
    return dict(found)


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floors(folder: Path) -> dict[str, int]:
    """How high each room stands: one floor above the highest room that it imports.

    Raises:
        ValueError: rooms that import each other in a circle have no floor.
    """
    below: dict[str, set[str]] = defaultdict(set)
    for here, there in arrows(folder):
        below[here].add(there)
    done: dict[str, int] = {}

    def floor(room: str, trail: tuple[str, ...]) -> int:
        if room in trail:
            raise ValueError(" -> ".join((*trail[trail.index(room) :], room)))
        if room not in done:
            done[room] = max((1 + floor(b, (*trail, room)) for b in sorted(below[room])), default=0)
        return done[room]

    for path in sorted(folder.rglob("*.py")):
        floor(room_of(path, folder), ())
    return done


def lines_of(folder: Path) -> dict[str, int]:
    """Lines of Python by room, blank ones and comments too."""
    return _counted(folder, lambda text: len(text.splitlines()))


def code_of(folder: Path) -> dict[str, int]:
    """Lines of code by room: without blank lines, comments and docstrings."""
    return _counted(folder, _lines_of_code)


def _counted(folder: Path, count: Callable[[str], int]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for path in sorted(folder.rglob("*.py")):
        found[room_of(path, folder)] += count(path.read_text(encoding="utf-8"))
    return dict(found)


def _lines_of_code(text: str) -> int:
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


def main(root: Path) -> None:
    """Print the figures of a checkout."""
    for name, place in PACKAGES.items():
        folder = root / place
        lines, code, between = lines_of(folder), code_of(folder), arrows(folder)
        top = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        print(  # noqa: T201
            f"{name}: {top} files at the top, {sum(lines.values())} lines, {sum(code.values())} of code, "
            f"{len(between)} arrows between rooms"
        )
        try:
            high = floors(folder)
        except ValueError as circle:
            print(f"  circle: {circle}")  # noqa: T201
            high = dict.fromkeys(lines, 0)
        for room in sorted(lines, key=lambda room: (-high[room], room)):
            to = " ".join(sorted(there for here, there in between if here == room))
            print(f"  floor {high[room]:2} {lines[room]:6} {code[room]:6}  {room:14} -> {to}")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
