"""What a worker finds in its environment, and how its end is put into words."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from difftumor.worker import process as worker_process
from difftumor.worker.process import describe_end, worker_environment

ENGINE = str(Path(worker_process.__file__).parents[2])


def test_the_worker_finds_difftumor_and_the_settings_for_speed(bridge):
    found = bridge.do("environment").metadata
    environment = found["environment"]
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["PYTHONUTF8"] == "1"
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert ENGINE in found["path"]
    assert "difftumor-session-" in found["folder"], "no file of the user's folder is imported"


def test_the_system_would_rather_end_the_worker_than_slicer(bridge):
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(bridge.do("environment").metadata["oom_score"]) > min(ours, 999)


def test_also_where_everything_starts_with_a_high_score():
    """As in a container without guaranteed memory."""
    program = """
from pathlib import Path
from difftumor.worker.main import _offer_ourselves_to_the_oom_killer as offer
score = Path("/proc/self/oom_score_adj")
score.write_text("700")
offer()
print(score.read_text())
offer()
print(score.read_text())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ENGINE, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["1000", "1000"], done.stderr


def test_our_own_python_keeps_what_its_launcher_set():
    base = {"PYTHONHOME": "/slicer", "PYTHONPATH": "/slicer/lib", "LD_LIBRARY_PATH": "/slicer/lib"}
    environment = worker_environment(sys.executable, base)
    assert environment["PYTHONHOME"] == "/slicer"
    assert environment["PYTHONPATH"] == os.pathsep.join([ENGINE, "/slicer/lib"])
    assert environment["LD_LIBRARY_PATH"] == "/slicer/lib"
    assert base == {
        "PYTHONHOME": "/slicer",
        "PYTHONPATH": "/slicer/lib",
        "LD_LIBRARY_PATH": "/slicer/lib",
    }


def test_another_python_meets_nothing_of_slicers():
    base = {
        "SLICER_HOME": "/opt/slicer",
        "PYTHONHOME": "/opt/slicer/lib/Python",
        "PYTHONPATH": "/opt/slicer/lib/Python/site-packages",
        "PYTHONNOUSERSITE": "1",
        "LD_LIBRARY_PATH": os.pathsep.join(["/opt/slicer/lib", "/opt/slicer2/lib", "/usr/lib"]),
        "PATH": os.pathsep.join(["/opt/slicer/bin", "/usr/bin"]),
    }
    environment = worker_environment("/usr/bin/python3", base)
    assert environment["PYTHONPATH"] == ENGINE
    assert "PYTHONHOME" not in environment
    assert "PYTHONNOUSERSITE" not in environment
    assert environment["LD_LIBRARY_PATH"] == os.pathsep.join(["/opt/slicer2/lib", "/usr/lib"])
    assert environment["PATH"] == "/usr/bin"


def test_another_python_does_not_get_our_site_packages(monkeypatch):
    monkeypatch.setattr(worker_process, "_PACKAGE_PARENT", Path("/venv/lib/site-packages"))
    assert "PYTHONPATH" not in worker_environment("/usr/bin/python3", {})


@pytest.mark.parametrize(
    ("code", "more_oom_kills", "name", "words", "out_of_memory"),
    [
        (0, False, "", "exit code 0", False),
        (1, None, "", "exit code 1", False),
        (-signal.SIGSEGV, False, "SIGSEGV", "crashed", False),
        (128 + signal.SIGSEGV, False, "SIGSEGV", "crashed", False),  # from a launcher
        (-signal.SIGKILL, False, "SIGKILL", "from outside", False),
        (-signal.SIGKILL, True, "SIGKILL", "memory was used up", True),
        (-signal.SIGKILL, None, "SIGKILL", "most likely", True),  # no count on this system
        (128 + signal.SIGKILL, True, "SIGKILL", "memory was used up", True),
        (0xC0000005, None, "", "0xc0000005", False),  # Windows: access violation
        (0xC0000017, None, "", "no memory", True),
        (-250, False, "", "exit code -250", False),
    ],
)
def test_an_end_is_put_into_words(code, more_oom_kills, name, words, out_of_memory):
    end = describe_end(code, more_oom_kills)
    assert end.signal == name
    assert words in end.text
    assert end.out_of_memory == out_of_memory
