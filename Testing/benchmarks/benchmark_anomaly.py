"""What an anomaly heat map costs: network passes against plain PyTorch, and what changed sliders cost.

    python Testing/benchmarks/benchmark_anomaly.py [--runs 5] [--device cpu|cuda] [--networks ct128 brats256 demo]

Networks of the published sizes with filled weights, and the bundled demonstration model.  `plain` is the same network
with torch's own group norm and attention, float32, contiguous; `engine` is what inference uses.  Both take turns, so
that a busy machine disturbs them alike; what is told is the median, on a CPU in CPU seconds (OpenMP waits passively),
on CUDA in seconds.

  requests   of one slice, all steps: first (encoding, decoding at S; "guided" maps also decode at S = 0), then the
             same with only S changed, then with N halved
  batches    seconds of an encoding step per slice
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("ct128", "brats256", "demo")
DEMO = "demo-abdomen-anomaly"
LEVELS = {"ct128": (50, 120), "brats256": (50, 80), "demo": (100, 100)}  # K and N of the requests


@contextmanager
def plain_layers() -> Iterator[None]:
    """The networks as anybody would write them."""
    import torch.nn.functional as F
    from torch import Tensor, nn

    from difftumor.networks import guided_classifier, guided_layers, guided_unet

    def normalized(
        norm: nn.GroupNorm,
        x: Tensor,
        scale_shift: tuple[Tensor, Tensor] | None = None,
        *,
        activate: bool = True,
    ) -> Tensor:
        x = norm(x)
        if scale_shift is not None:
            scale, shift = (each[..., None, None] for each in scale_shift)
            x = x * (1 + scale) + shift
        return F.silu(x) if activate else x

    modules = (guided_layers, guided_unet, guided_classifier)
    kept = [(module, module.normalized) for module in modules]
    attend = guided_layers.attend
    for module in modules:
        module.normalized = normalized
    guided_layers.attend = F.scaled_dot_product_attention
    try:
        yield
    finally:
        for module, function in kept:
            module.normalized = function
        guided_layers.attend = attend


class Stopwatch:
    """Seconds of a piece of work: of the CPU, or on a graphics card of the wall clock."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def now(self) -> float:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def __call__(self, work: Callable[[], Any]) -> float:
        start = self.now()
        work()
        return self.now() - start

    def medians(self, works: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
        """Of several works that take turns, after one unmeasured turn."""
        taken: dict[str, list[float]] = {name: [] for name in works}
        for run in range(runs + 1):
            for name, work in works.items():
                seconds = self(work)
                if run:
                    taken[name].append(seconds)
        return {name: statistics.median(each) for name, each in taken.items()}


def networks_of(name: str) -> tuple[Any, Any]:
    """Networks of a published size with filled weights."""
    from difftumor.networks.guided_classifier import GuidedClassifier, GuidedClassifierArguments
    from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
    from Testing.weight_filler import fill

    if name == "ct128":
        unet = GuidedUNetArguments(128, 1, channel_mult=(1, 1, 2, 3, 4))
        classifier = GuidedClassifierArguments(128, 1, 64, (1, 1, 2, 3, 4))
    else:
        unet, classifier = GuidedUNetArguments(256, 4), GuidedClassifierArguments(256, 4)
    return fill(GuidedUNet(unet)), fill(GuidedClassifier(classifier))


def model_of(name: str, device: str) -> Any:
    """An anomaly model of the engine."""
    import torch

    from difftumor.anomaly.model import AnomalyModel, load_anomaly_model
    from Testing.tiny_anomaly import MR, tiny_card

    if name == "demo":
        return load_anomaly_model(DEMO, device, {}, lambda *_: None)
    card = tiny_card(**(MR if name == "brats256" else {}))
    facts = {"title": name}
    return AnomalyModel(*networks_of(name), card, facts, torch.device(device))


def measure(name: str, device: str, runs: int) -> dict[str, Any]:
    """All figures of one network, in a process of its own."""
    import copy
    import resource

    import torch

    from difftumor.diffusion.guided import class_gradient

    watch = Stopwatch(device)
    model = model_of(name, device)
    size, channels = model.image_size, model.channels
    images = torch.rand((16, channels, size, size), generator=torch.Generator().manual_seed(0))
    x = images[:1].to(device)
    plain_unet, plain_classifier = (
        copy.deepcopy(each).to(memory_format=torch.contiguous_format)
        for each in (model.unet, model.classifier)
    )
    t, y = torch.tensor([300], device=device), torch.tensor([0], device=device)
    passes = model._passes[model.dtype]

    def plain(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with plain_layers(), torch.no_grad():
                return work()

        return run

    def classify(x: torch.Tensor) -> torch.Tensor:
        return plain_classifier(x, t)

    def denoise() -> None:
        with torch.no_grad():
            passes.denoise(x, 300)

    found = watch.medians(
        {
            "unet plain": plain(lambda: plain_unet(x, t, y)),
            "unet engine": denoise,
            "guide plain": plain(lambda: class_gradient(classify, x, 0)),
            "guide engine": lambda: passes.guide(x, 300),
        },
        runs,
    )
    steps, noise_level = LEVELS[name]
    kept: dict[str, Any] = {}

    def first() -> None:
        kept["encoding"] = model.encode(x, noise_level, steps)
        model.decode(kept["encoding"], noise_level, 10.0)

    requests = {
        "first": first,
        "unguided": lambda: model.decode(kept["encoding"], noise_level, 0.0),
        "S changed": lambda: model.decode(kept["encoding"], noise_level, 20.0),
        "N halved": lambda: model.decode(kept["encoding"], noise_level // 2, 10.0),
        "N halved, S = 0": lambda: model.decode(kept["encoding"], noise_level // 2, 0.0),
    }
    found |= watch.medians(requests, max(1, runs // 2))
    batches = (1, 4, 16) if name == "demo" or device == "cuda" else (1, 2)
    one = min(1000 // steps + 1, 999)
    works = {f"batch {n}": lambda n=n: model.encode(images[:n], one, steps) for n in batches}
    for key, seconds in watch.medians(works, max(1, runs // 2)).items():
        found[key] = seconds / int(key.split()[1])
    # Unix tells kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    found["dtype"] = model.facts["precision"]
    return found


def table(name: str, found: dict[str, Any]) -> str:
    """The figures of one network as text."""
    u, g = found["unet plain"], found["guide plain"]
    fast_u, fast_g = found["unet engine"], found["guide engine"]
    lines = [f"{name} ({found['dtype']}, peak {found['peak_gb']:.1f} GB)"]

    def line(what: str, slow: float, fast: float) -> None:
        lines.append(
            f"  {what:38} plain {slow:8.3f}   engine {fast:8.3f}   ratio {fast / slow:.2f}"
        )

    line("U-Net pass", u, fast_u)
    line("classifier gradient", g, fast_g)
    line("guided step", u + g, fast_u + fast_g)
    line("there and back (2 passes, 1 gradient)", 2 * u + g, 2 * fast_u + fast_g)
    first, unguided = found["first"], found["unguided"]
    changed, halved = found["S changed"], found["N halved"]
    lines.append(f"  request, papers' map: first {first:.3f}")
    lines.append(f"    only S changed {changed:.3f}, of the first {changed / first:.2f}")
    lines.append(f"    N halved       {halved:.3f}, of the first {halved / first:.2f}")
    lines.append(f'  request, "guided" map: first {first + unguided:.3f}')
    lines.append(
        f"    only S changed {changed:.3f}, of the first {changed / (first + unguided):.2f}"
    )
    both = halved + found["N halved, S = 0"]
    lines.append(f"    N halved       {both:.3f}, of the first {both / (first + unguided):.2f}")
    batches = {key: each for key, each in found.items() if key.startswith("batch ")}
    per_slice = ", ".join(f"{key[6:]}: {each:.3f}" for key, each in batches.items())
    lines.append(f"  encoding step per slice in batches of {per_slice}")
    return "\n".join(lines)


def main() -> int:
    """Measure each network in a process of its own and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--child", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.device, options.runs)))
        return 0
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device; run without --device cuda.")
        return 1
    # A thread that waits must not burn the CPU seconds that are measured.
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "DiffTumorSlicer"))),
    }
    unit = "seconds" if options.device == "cuda" else "CPU seconds"
    print(f"torch {torch.__version__}, {platform.machine()}, {options.device}; medians, {unit}\n")
    everything = {}
    for name in options.networks:
        command = [sys.executable, __file__, "--child", name, "--runs", str(options.runs)]
        done = subprocess.run(
            [*command, "--device", options.device],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stderr[-2000:])
            return 1
        everything[name] = json.loads(done.stdout.splitlines()[-1])
        print(table(name, everything[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
