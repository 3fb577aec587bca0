"""How long Slicer's window stands still while a tumor is made, and how fast a cancel is: real panels and worker.

python Testing/benchmarks/benchmark_window.py [--slices 89 534] [--cancels 10]
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "DiffTumorSlicer")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from Testing import slicer_stand_in  # noqa: E402

APP = slicer_stand_in.start()

from DiffTumorSlicerLib.jobs.host import Host  # noqa: E402
from Testing.module.panels.bench import Bench  # noqa: E402

MODELS = ("modelled", "demo-abdomen-early")
WAIT_S = 600.0


def turn(bench: Bench, until: Callable[[], bool]) -> tuple[float, float]:
    """Let the event loop turn; longest turn on the wall and of our own thread, seconds."""
    wall = own = 0.0
    end = time.monotonic() + WAIT_S
    while not until() and time.monotonic() < end:
        clock, spent = time.perf_counter(), time.thread_time()
        bench.app.processEvents()
        wall = max(wall, time.perf_counter() - clock)
        own = max(own, time.thread_time() - spent)
        time.sleep(0.004)
    return wall, own


def load_large_ct(bench: Bench, slices: int) -> None:
    """Soft tissue with noise, 512 x 512 voxels of 0.7 mm."""
    from Testing.module.scene.scenes import add_volume

    noise = np.random.default_rng(0).integers(60, 140, (512, 512, 1), np.int16)
    array = np.ascontiguousarray(np.broadcast_to(noise, (512, 512, slices)))
    node = add_volume(bench.scene, f"CT {slices}", array, np.diag([0.7, 0.7, 1.0, 1.0]))
    bench.volumes.volumeSelector.setCurrentNode(node)
    bench.turn()
    bench.place((179.0, 179.0, slices / 2))


def running(bench: Bench) -> bool:
    """Whether a job has not ended."""
    return bool(bench.panels.synthesis.run_button.running)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[89, 534])
    parser.add_argument("--cancels", type=int, default=10)
    options = parser.parse_args()
    print("slices, model, time s: press s, longest gap on the wall s, of our own thread s")
    import slicer

    for slices in options.slices:
        bench = Bench(APP, slicer.mrmlScene, Host().make_bridge())
        load_large_ct(bench, slices)
        for model in (*MODELS, *MODELS):  # the second time with a worker that is warm
            bench.parameters.synthesis.model = model
            bench.turn()
            began = time.perf_counter()
            bench.ui.synthesizeButton.click()
            press = time.perf_counter() - began
            wall, own = turn(bench, lambda bench=bench: not running(bench))
            took = time.perf_counter() - began
            print(
                f"{slices:4d} {model:20s} {took:6.1f}: {press:.3f} {wall:.3f} {own:.3f}", flush=True
            )
        if slices == options.slices[0]:
            cancel_often(bench, options.cancels)
        bench.close()
        slicer.mrmlScene.Clear(0)


def cancel_often(bench: Bench, times: int) -> None:
    """Cancel the demonstration model at different moments."""
    bench.parameters.synthesis.model = MODELS[1]
    bench.turn()
    found = []
    for index in range(times):
        bench.ui.synthesizeButton.click()
        turn(bench, lambda: bench.ui.progressBar.value > 0 or not running(bench))
        wait = time.monotonic() + 0.4 * index
        turn(bench, lambda wait=wait: time.monotonic() > wait or not running(bench))
        if not running(bench):
            break  # it was done before the cancel
        began = time.perf_counter()
        bench.ui.synthesizeButton.click()
        turn(bench, lambda: not running(bench))
        found.append(time.perf_counter() - began)
    print("cancels of the demonstration model, s:", " ".join(f"{s:.2f}" for s in found), flush=True)


if __name__ == "__main__":
    main()
