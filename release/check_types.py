"""Check the types: mypy is strict everywhere, and files that do not pass yet may only become better.

    python release/check_types.py             # exit code 1 if a file has more or fewer errors than types.json says
    python release/check_types.py --record    # write smaller counts down; larger ones are never written

The rooms of `STRICT` have no error and never get an entry. Who moves a file moves its entry by hand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "release" / "types.json"
ENGINE = "DiffTumorSlicer/difftumor/"
STRICT = (
    "DiffTumorSlicer/DiffTumorSlicerLib/",
    "training/",
    "release/",
    *(
        ENGINE + name
        for name in (
            *("anomaly/", "diffusion/", "images/", "learning/", "measuring/", "networks/"),
            *("phantom/", "reader_study/", "segmentation/", "synthesis/", "weights/", "worker/"),
            *(
                "commands/console.py",
                "devices.py",
                "doctor.py",
                "ellipsoids.py",
                "fields.py",
                "grids.py",
            ),
            *("locks.py", "parameters.py", "provenance.py", "remedies.py", "task.py"),
        )
    ),
)

Counts = dict[str, int]


def run_mypy() -> tuple[str, Counts]:
    """What mypy says, and how many errors it found in each file.

    Raises:
        RuntimeError: it could not do its work.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mypy failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout, count_errors(done.stdout)


def count_errors(said: str) -> Counts:
    """Number of errors by file."""
    return dict(
        Counter(
            found.group(1).replace("\\", "/")
            for found in re.finditer(r"^(\S+\.py):\d+: error: ", said, re.MULTILINE)
        )
    )


def problems(found: Mapping[str, int], recorded: Mapping[str, int]) -> Iterator[str]:
    """Sentences on what is not as it is recorded."""
    for path in sorted({*found, *recorded}):
        now, before = found.get(path, 0), recorded.get(path, 0)
        if now > before:
            yield f"{path}: {now} type errors, {before} are recorded. Correct the new ones."
        elif now < before:
            yield f"{path}: {now} type errors, {before} are recorded. Record that: --record."
    for path in recorded:
        if path.startswith(STRICT):
            yield f"{path}: its room is strict and has no place in {RECORD.name}."


def recorded_counts() -> Counts:
    """What types.json holds; nothing before the first time."""
    return dict(json.loads(RECORD.read_text(encoding="utf-8"))) if RECORD.is_file() else {}


def smaller(found: Mapping[str, int], recorded: Mapping[str, int]) -> Counts:
    """The counts to be recorded: none grows, and files without an error leave."""
    kept = {path: min(count, found.get(path, 0)) for path, count in recorded.items()}
    return {path: count for path, count in sorted(kept.items()) if count}


def main(arguments: list[str]) -> int:
    """Check, or record."""
    said, found = run_mypy()
    recorded = recorded_counts()
    if "--record" in arguments:
        recorded = smaller(found, recorded) if RECORD.is_file() else dict(sorted(found.items()))
        text = json.dumps(recorded, indent=2) + "\n"
        RECORD.write_text(text, encoding="utf-8", newline="\n")
    told = list(problems(found, recorded))
    grown = {path for path in found if found[path] > recorded.get(path, 0)}
    lines = [line for line in said.splitlines() if line.partition(":")[0] in grown]
    print("\n".join([*lines, *told]) or f"Types: {sum(recorded.values())} known errors, none new.")  # noqa: T201
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
