"""No command and no option of a terminal reaches a panel."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="needs slicer-core (pip install slicer-core)")

from difftumor.worker import protocol
from DiffTumorSlicerLib.jobs.wording import doctor_line, in_panel_words, sentence_of

ENGINE = Path(protocol.__file__).parents[1]
# What the panels never call: files of the command line, readers of image files, files for training.
ELSEWHERE = ("commands/", "cli.py", "__main__.py", "console.py", "weights/kinds.py", "images/",
             "worker/main.py", "worker/__main__.py", "worker/bridge.py", "provenance.py", "phantom/")  # fmt: skip
TERMINAL = re.compile(r"\bdifftumor (?:models|doctor|synthesize|replay|demo|phantom)\b|--\w|\bpip install|"
                      r"DIFFTUMOR_HOME|TMPDIR|python -m|`")  # fmt: skip


def messages():
    """Every sentence of the engine that speaks of a terminal, with X for what is filled in."""
    for path in sorted(ENGINE.rglob("*.py")):
        if path.relative_to(ENGINE).as_posix().startswith(ELSEWHERE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        parts = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = "" if id(node) in documentation or id(node) in parts else node.value
            else:
                continue
            if TERMINAL.search(text) and " " in text:
                yield pytest.param(text, id=f"{path.stem}-{node.lineno}")


@pytest.mark.parametrize("text", list(messages()))
def test_sentences_of_the_engine_lose_their_commands(text):
    words = in_panel_words(text)
    assert not TERMINAL.search(words), words
    assert words.strip()


def test_there_are_such_sentences():
    assert len(list(messages())) > 15


def test_some_sentences_as_the_person_reads_them():
    assert in_panel_words("the ellipsoid's centre lies outside. Move it.") == (
        "The ellipsoid's centre lies outside. Move it."
    )
    assert in_panel_words("difftumor-liver-early is not here.").startswith("difftumor-liver")
    assert in_panel_words(
        "liver is not installed. Get it with: difftumor models download liver (about 800 MB, licence X)."
    ).endswith("Press Download in the Models panel (about 800 MB, licence X).")
    assert in_panel_words(
        "a.pt is a file. Say it: difftumor models import /some path/a.pt --id ID, with one or two."
    ).endswith("Choose when you import it: one or two.")


def test_an_error_event_becomes_what_happened_and_what_to_do():
    event = protocol.ErrorEvent(1, "crashed", "it ended.", "Try again.")
    assert sentence_of(event) == "It ended. Try again."


def test_the_doctors_line():
    report = {
        "versions": {"torch": "2.13.0"},
        "devices": [
            {"device": "cuda:0", "ok": False, "reason": "no kernels"},
            {"device": "cpu", "ok": True},
        ],
        "memory_gb": {"free": 12.5, "total": 16.0},
        "disk_free_gb": 99.0,
        "problems": ["Only 1 GB is free. Free some, or set DIFFTUMOR_HOME to another disk."],
    }
    assert doctor_line(report) == (
        "CPU computes, PyTorch 2.13.0, 12.5 of 16 GB memory free, 99 GB disk free. Only 1 GB is free. "
        "Free some, or choose a models folder on another disk."
    )
    report["devices"][0] |= {"ok": True, "name": "H200"}
    assert doctor_line({**report, "problems": []}).startswith("H200 computes, PyTorch 2.13.0")
