"""Errors of types become fewer, file by file; `make lint` runs the check itself."""

from __future__ import annotations

import importlib.util
import json

from Testing.contracts.slicer_sources import ROOT

spec = importlib.util.spec_from_file_location("check_types", ROOT / "release" / "check_types.py")
check_types = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_types)


def test_what_mypy_says_is_counted_by_file():
    said = (
        "a/b.py:3: error: No.  [misc]\n"
        "a/b.py:3: note: Look there.\n"
        "a/b.py:9: error: No.  [misc]\n"
        "c.py:1: error: No.  [misc]\n"
    )
    assert check_types.count_errors(said) == {"a/b.py": 2, "c.py": 1}


def test_a_count_may_neither_grow_nor_shrink_unnoticed():
    recorded = {"a.py": 2, "b.py": 1}
    assert list(check_types.problems(recorded, recorded)) == []
    grown = list(check_types.problems({"a.py": 3, "b.py": 1, "c.py": 1}, recorded))
    assert [line.split(":")[0] for line in grown] == ["a.py", "c.py"]
    (shrunk,) = check_types.problems({"a.py": 2}, recorded)
    assert shrunk.startswith("b.py: 0 type errors, 1 are recorded.")
    assert "--record" in shrunk


def test_recording_never_makes_a_count_larger():
    assert check_types.smaller({"a.py": 3, "c.py": 1}, {"a.py": 2, "b.py": 1}) == {"a.py": 2}


def test_strict_rooms_exist_and_have_no_entry():
    assert all((ROOT / room).exists() for room in check_types.STRICT)
    recorded = json.loads(check_types.RECORD.read_text(encoding="utf-8"))
    assert not [path for path in recorded if path.startswith(check_types.STRICT)]
    assert list(check_types.problems({check_types.STRICT[0] + "x.py": 1}, {}))


def test_every_entry_names_a_file():
    recorded = json.loads(check_types.RECORD.read_text(encoding="utf-8"))
    assert [path for path in recorded if not (ROOT / path).is_file()] == []
