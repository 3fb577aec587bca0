"""Programs that no other test runs still find what they import, and the folders that they name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("Testing/benchmarks", "Testing/evaluate", "release")
PROGRAMS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
IMPORT_ALL = """
import runpy, sys
for path in sys.argv[1:]:
    sys.path.insert(0, path.rpartition("/")[0])
    runpy.run_path(path, run_name="imported")
    del sys.path[0]
"""


def test_every_program_imports():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *(path.as_posix() for path in PROGRAMS)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'DiffTumorSlicer'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_folder_that_a_program_names_is_there():
    missing = []
    for path in PROGRAMS:
        text = path.read_text(encoding="utf-8")
        joined = re.findall(r'ROOT((?: / "[\w.-]+")+)', text)
        places = {"/".join(re.findall(r'"([\w.-]+)"', words)) for words in joined}
        places |= {name.replace(".", "/") for name in re.findall(r"\bTesting(?:\.[a-z_]+)+", text)}
        for place in places:
            there = ROOT / place
            if not (there.exists() or there.with_suffix(".py").exists()):
                missing.append(f"{path.name}: {place}")
    assert missing == []
