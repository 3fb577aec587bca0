"""Shared fixtures: where the development data lie, and a loud list of what was skipped."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A shell in the background hands an ignored Ctrl-C down to its children; tests that interrupt programs would
# wait for ever for them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def shared_folder() -> Path:
    """`../shared` of the checkout, or what DIFFTUMOR_SHARED names."""
    return Path(os.environ.get("DIFFTUMOR_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"development data not found at {folder} (set DIFFTUMOR_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def no_user_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Tests never read or write the models of the person who runs them."""
    monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path_factory.mktemp("home", numbered=True)))


def stretch() -> float:
    """How many times longer than on an idle machine something takes now: by the load, and as measured."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    while time.thread_time() - cpu_s < 0.02:
        pass
    measured = (time.perf_counter() - wall_s) / 0.02
    return max(1.0, measured, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture
def slack() -> float:
    """What limits of time are multiplied with on a machine that is busy with other things."""
    return stretch()


@pytest.fixture
def within() -> Callable[[float, Callable[[], float]], None]:
    """A function that asserts a limit of time: a busy machine may delay one try, and stretch all of them."""

    def check(limit_s: float, measure: Callable[[], float], tries: int = 6) -> None:
        durations_s = []
        for _ in range(tries):
            durations_s.append(measure())
            if durations_s[-1] < limit_s * stretch():
                return
        raise AssertionError(f"never within {limit_s} s: {durations_s}")

    return check


def pytest_collection_finish() -> None:
    """What is loaded by now stays: later garbage collections need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep soak campaigns and model evaluations out of `make test` unless they are asked for."""
    chosen = config.getoption("-m") or ""
    for item in items:
        for marker in ("soak", "evaluate"):
            if item.get_closest_marker(marker) and marker not in chosen:
                item.add_marker(pytest.mark.skip(reason=f"run by `make {marker}`"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once, plainly, how much was not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests did not run; the reasons are listed above (SKIPPED lines)."
        )
