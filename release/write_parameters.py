"""Write docs/parameters.md from the fields of the parameter packs.

python release/write_parameters.py            # after a change of difftumor/parameters.py
python release/write_parameters.py --check    # exit code 1 if the file is out of date
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_type_hints

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "DiffTumorSlicer"))

from difftumor.fields import choices_of, range_of  # noqa: E402
from difftumor.parameters import (  # noqa: E402
    AnomalyParameters,
    Ellipsoid,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
)

PAGE = ROOT / "docs" / "parameters.md"
TASKS = (
    ("Synthesis", "synthesize", (SynthesisParameters, Ellipsoid)),
    ("Anomaly map", "anomaly", (AnomalyParameters,)),
    ("Segmentation", "segment", (SegmentationParameters,)),
    ("Learning from a few slices", "learn", (LearningParameters,)),
)
# Fields that are no option of their own: the command line asks for them in another way.
ASKED_ELSEWHERE: dict[tuple[type, str], str] = {
    (SynthesisParameters, "ellipsoid"): "`--center`, `--radii`, `--rotation`",
    (SynthesisParameters, "organ"): "`--anatomy`, or the label of `--organ`",
}
HEAD = """# Parameters

What can be asked of each task, as the command line, the tool tips of the panels, side-cars and data lists name it.
This page is made from the fields in `difftumor/parameters.py`: change them there, then run
`python release/write_parameters.py`. Where no default is given, the text says what counts, else what the model
recommends. Values out of range are refused everywhere with the same sentence. `difftumor synthesize` starts with the
demonstration model where no model is given.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(section(*task) for task in TASKS)


def section(title: str, command: str, kinds: tuple[type, ...]) -> str:
    """Heading and table of one task."""
    rows = "".join(row(kind, item) for kind in kinds for item in fields(kind))
    return (
        f"\n## {title}: `difftumor {command}`\n\n"
        "| field | option | default | range | unit | what it is |\n"
        "|---|---|---|---|---|---|\n"
        f"{rows}"
    )


def row(kind: type, item: Field[Any]) -> str:
    """Line of one field."""
    cells = (
        f"`{item.name}`",
        options(kind, item),
        default(item),
        allowed(item, get_type_hints(kind)[item.name]),
        item.metadata.get("unit", ""),
        item.metadata["help"].replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |\n"


def options(kind: type, item: Field[Any]) -> str:
    """Names on the command line."""
    elsewhere = ASKED_ELSEWHERE.get((kind, item.name))
    names = (item.name.replace("_", "-"), *item.metadata.get("aliases", ()))
    return elsewhere or ", ".join(f"`--{name}`" for name in names)


def default(item: Field[Any]) -> str:
    """The default as people write it."""
    if item.default is MISSING:
        return "required"
    if item.default is None:
        return ""
    if isinstance(item.default, bool):
        return "on" if item.default else "off"
    if isinstance(item.default, tuple):
        return " ".join(
            f"{value:g}" if isinstance(value, float) else str(value) for value in item.default
        )
    return f"{item.default:g}" if isinstance(item.default, float) else str(item.default)


def allowed(item: Field[Any], hint: Any) -> str:
    """The range without its unit, or the choices."""
    unit = item.metadata.get("unit", "")
    return range_of(item).removesuffix(f" {unit}") or ", ".join(choices_of(hint))


def main(args: list[str]) -> int:
    """Write the page, or compare it; returns the exit code."""
    stored = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if stored == page():
        return 0
    if "--check" in args:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run python release/write_parameters.py")  # noqa: T201
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
