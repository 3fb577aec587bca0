"""Two readers in Slicer's window, one with keys and one with the mouse (issue 6, point 1)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from Testing.engine.reader_study.tiny_package import tiny_package
from Testing.module.panels.session_script import ROOT
from Testing.module.panels.test_session_script import _can_draw


def test_two_readers_read_a_study_with_keys_and_mouse(tmp_path):
    pytest.importorskip("trame_slicer", reason="needs trame-slicer for the views")
    if not _can_draw():
        pytest.skip("no off-screen OpenGL here (install libegl1 and libgl1-mesa-dri)")
    asked = {"type": "detection", "ask_mark": True}
    for reader in ("R1", "R2"):
        tiny_package(
            tmp_path / reader, reader=reader, practice=1, cases=2, shape=(48, 40, 32), **asked
        )
    done = subprocess.run(
        [sys.executable, "-m", "Testing.module.panels.study_session", "pictures", "R1", "R2"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "DiffTumorSlicer"), str(ROOT))),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((tmp_path / "pictures" / "report.json").read_text())
    assert [(r["reader"], r["answers"]) for r in report["readers"]] == [("R1", 3), ("R2", 3)]
    for reader in ("R1", "R2"):
        lines = (tmp_path / reader / "journal.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        given = [r for r in records if r["event"] == "answered"]
        assert all((r["mark_ras"] is not None) == (r["choice"] == "lesion") for r in given)
        looked = [r for r in records if r["event"] == "viewed"]
        assert any(r["highest_mm"] > r["lowest_mm"] for r in looked)
        # Only the mouse changes the window here.
        assert any(r["window"] != 400.0 for r in looked) == (reader == "R2")
