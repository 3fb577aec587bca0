"""What the way to the worker costs: start, round trips of arrays, cancelling. Medians of several runs.

python Testing/benchmarks/benchmark_worker.py [--runs 7] [--interval 0.005]
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "DiffTumorSlicer"))

from difftumor.worker.bridge import Bridge  # noqa: E402
from difftumor.worker.protocol import (  # noqa: E402
    CancelledEvent,
    ErrorEvent,
    Event,
    ProgressEvent,
    ReadyEvent,
    ResultEvent,
)

SMALL = np.random.default_rng(0).standard_normal((96, 96, 96), np.float32)
LARGE = np.random.default_rng(0).integers(-1024, 3000, (512, 512, 200), np.int16)


class Stopwatch:
    """A bridge that is polled at a fixed interval, and times between events."""

    def __init__(self, folder: Path, interval_s: float) -> None:
        path = os.pathsep.join(
            [str(ROOT / "Testing" / "engine" / "worker"), os.environ.get("PYTHONPATH", "")]
        )
        self.bridge = Bridge(
            tasks="fake_tasks",
            environment={**os.environ, "PYTHONPATH": path},
            log_folder=folder,
            temporary_folder=folder,
        )
        self._interval_s = interval_s

    def wait(self, kind: type[Event]) -> None:
        """Poll until an event of a kind comes."""
        while True:
            for event in self.bridge.poll():
                if isinstance(event, kind):
                    return
                if isinstance(event, ErrorEvent):
                    raise RuntimeError(event.message + event.details)
            time.sleep(self._interval_s)

    def start(self) -> float:
        """From the first request to `ready`, with a fresh worker; the request is done as well."""
        begin = time.perf_counter()
        self.bridge.request("count", {})
        self.wait(ReadyEvent)
        duration = time.perf_counter() - begin
        self.wait(ResultEvent)
        return duration

    def round_trip(self, arrays: dict[str, np.ndarray]) -> float:
        """From the request to the loaded result of a task that copies its input."""
        begin = time.perf_counter()
        number = self.bridge.request("echo" if arrays else "count", {}, arrays)
        self.wait(ResultEvent)
        self.bridge.take(number)
        return time.perf_counter() - begin

    def request_only(self, arrays: dict[str, np.ndarray]) -> float:
        """The part of a round trip during which Slicer's window stands still."""
        begin = time.perf_counter()
        number = self.bridge.request("echo", {}, arrays)
        duration = time.perf_counter() - begin
        self.wait(ResultEvent)
        self.bridge.take(number)
        return duration

    def cancel(self, task: str) -> float:
        """From the cancel of a running task to its `cancelled` event."""
        number = self.bridge.request(task, {"steps": 10**6, "pause_s": 0.01})
        self.wait(ProgressEvent)
        begin = time.perf_counter()
        self.bridge.cancel(number)
        self.wait(CancelledEvent)
        return time.perf_counter() - begin

    def idle_poll(self) -> float:
        """One poll with nothing to tell."""
        begin = time.perf_counter()
        for _ in range(1000):
            self.bridge.poll()
        return (time.perf_counter() - begin) / 1000


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--interval", type=float, default=0.005, help="between polls, in seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        starts = []
        for _ in range(arguments.runs):
            watch = Stopwatch(Path(name), arguments.interval)
            starts.append(watch.start())
            watch.bridge.close()
        watch = Stopwatch(Path(name), arguments.interval)
        watch.start()
        rows: list[tuple[str, Callable[[], float]]] = [
            ("round trip without arrays", lambda: watch.round_trip({})),
            ("round trip of 96 x 96 x 96 float32", lambda: watch.round_trip({"ct": SMALL})),
            ("round trip of 512 x 512 x 200 int16", lambda: watch.round_trip({"ct": LARGE})),
            ("  of it request(), Slicer waits", lambda: watch.request_only({"ct": LARGE})),
            ("the same, Fortran order (Slicer's view)", lambda: watch.round_trip({"ct": LARGE.T})),
            ("cancel, the task asks every 10 ms", lambda: watch.cancel("steps")),
            ("idle poll()", watch.idle_poll),
            ("cancel, the task never asks: killed", lambda: watch.cancel("stubborn")),
        ]
        print(
            f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
            f"Python {platform.python_version()}, polled every {arguments.interval * 1e3:.0f} ms, "
            f"{arguments.runs} runs\n"
        )
        print(f"{'':42}{'median':>10}{'min':>10}{'max':>10}   ms")
        for title, times in [("start of the worker until ready", starts)] + [
            (title, [measure() for _ in range(arguments.runs)]) for title, measure in rows
        ]:
            figures = (statistics.median(times), min(times), max(times))
            print(f"{title:42}" + "".join(f"{1e3 * figure:10.2f}" for figure in figures))
        watch.bridge.close()


if __name__ == "__main__":
    main()
