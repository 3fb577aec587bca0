"""What one 96^3 crop costs: encode, T = 4 ancestral sampling, quantize, decode; published network sizes.

    python Testing/benchmarks/benchmark_synthesis_crop.py [--runs 5] [--device cpu|cuda]

Each run is a fresh process in which one crop is made with cold caches ("first") and two more ("next": the
better one).  The variants take turns, so that a busy machine disturbs all of them alike.
  modules     the networks as written for training, and a plain chunked quantizer: the baseline
  fast        what inference uses: networks/fast_vqgan.py, networks/fast_unet.py
  fast, huge  the same with huge pages (glibc 2.35 or newer, /sys/kernel/mm/transparent_hugepage/enabled
              not `never`), which whoever starts the process asks for in its environment
On CUDA the modules run in float32, with TF32, and with a bfloat16 decoder; times are wall times.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("encode", "sample", "quantise", "decode")
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
CPU_VARIANTS = {"modules": {}, "fast": {}, "fast, huge": HUGE_PAGES}
CUDA_VARIANTS = {"modules": {}, "tf32": {}, "bf16 decoder": {}}
EDGE = 96


def measure(variant: str, device: str) -> dict[str, Any]:
    """One process: seconds per stage of each crop, and peak memory."""
    import torch

    from difftumor.diffusion.sampling import denormalize_latent, normalize_latent, sample_ddpm
    from difftumor.diffusion.schedules import Schedule, cosine_betas
    from difftumor.networks import fast_unet, fast_vqgan
    from difftumor.networks.latent_unet import LatentUNet
    from difftumor.networks.vqgan import VQGAN, Codebook
    from Testing.weight_filler import fill, normal

    def plain_nearest(self: Codebook, vectors: torch.Tensor) -> torch.Tensor:
        norms = self.embeddings.square().sum(1)
        scores = (
            torch.addmm(norms, rows, self.embeddings.t(), alpha=-2) for rows in vectors.split(2048)
        )
        return torch.cat([score.argmin(1) for score in scores])

    if variant == "modules" and device == "cpu":
        fast_vqgan.usable = lambda x: False
        Codebook.nearest = plain_nearest
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = variant == "tf32"

    vqgan, unet = (
        fill(VQGAN()).eval().to(device),
        fill(LatentUNet(), "denoise_fn.").eval().to(device),
    )
    schedule, code_range = Schedule.from_betas(cosine_betas(4)), vqgan.code_range()
    volume = torch.from_numpy(normal("volume", (1, 1, EDGE, EDGE, EDGE))).clamp(-1, 1).to(device)
    latent_shape = (1, 8, *(EDGE // 4,) * 3)
    noise = [torch.from_numpy(normal(f"noise/{k}", latent_shape)).to(device) for k in range(4)]
    mask = torch.ones(1, 1, *latent_shape[2:], device=device)

    seconds: list[dict[str, list[float]]] = []

    def timed(stage: str, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        if device != "cpu":
            torch.cuda.synchronize()
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds[-1][stage] = [time.process_time() - cpu, time.perf_counter() - wall]
        return result

    def sample(condition: torch.Tensor) -> torch.Tensor:
        denoise = fast_unet.denoiser(unet, condition)
        if variant == "modules":
            denoise = lambda x, t: unet(torch.cat([x, condition], dim=1), t)  # noqa: E731
        return sample_ddpm(denoise, noise[0], schedule, noise=noise[1:])

    def decode(codes: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=variant == "bf16 decoder"):
            return vqgan.decode(codes, quantize=False).float()

    with torch.inference_mode():
        for _ in range(3):
            seconds.append({})
            z = timed("encode", lambda: vqgan.encode(volume))
            condition = torch.cat([normalize_latent(z, *code_range), mask], dim=1)
            x_0 = timed("sample", lambda: sample(condition))  # noqa: B023 (called at once)
            z = denormalize_latent(x_0, *code_range)
            codes = timed("quantise", lambda: vqgan.quantize(z)[1])  # noqa: B023
            timed("decode", lambda: decode(codes))  # noqa: B023
    return {"crops": seconds, "peak_gb": peak_gb(device), "threads": torch.get_num_threads()}


def peak_gb(device: str) -> float:
    """Highest memory of this process so far: on the device, or resident."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import psutil

    return psutil.Process().memory_info().rss / 1e9


def run_all(runs: int, device: str) -> dict[str, list[dict[str, Any]]]:
    """Results of `runs` processes for each variant."""
    variants = CPU_VARIANTS if device == "cpu" else CUDA_VARIANTS
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    for _ in range(runs):
        for name, extra in variants.items():
            # Waiting threads must sleep: CPU seconds of a spinning one measure nothing.
            env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **extra}
            env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "DiffTumorSlicer"), str(ROOT)])
            command = [sys.executable, __file__, "--device", device, "--measure", name]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def crop_seconds(crop: dict[str, list[float]], clock: int) -> list[float]:
    """Seconds of the stages and of all; clock 0 is CPU, 1 is wall."""
    stages = [crop[stage][clock] for stage in STAGES]
    return [*stages, sum(stages)]


def table(results: dict[str, list[dict[str, Any]]], device: str) -> str:
    """Medians over the processes, and the least total of any."""
    clock = 0 if device == "cpu" else 1
    unit = "CPU s" if clock == 0 else "wall s"
    head = f"{'variant':<13}{'crop':<7}" + "".join(f"{name:>10}" for name in (*STAGES, "total"))
    lines = [head + f"{'least':>8}{'ratio':>7}{'wall s':>8}{'peak GB':>9}   ({unit}, medians)"]
    baseline: dict[str, float] = {}
    for name, processes in results.items():
        for crop in ("first", "next"):
            chosen = [
                p["crops"][0]
                if crop == "first"
                else min(p["crops"][1:], key=lambda c: crop_seconds(c, clock)[-1])
                for p in processes
            ]
            rows = [crop_seconds(c, clock) for c in chosen]
            medians = [statistics.median(column) for column in zip(*rows, strict=True)]
            wall = statistics.median(crop_seconds(c, 1)[-1] for c in chosen)
            peak = statistics.median(p["peak_gb"] for p in processes)
            ratio = baseline.setdefault(crop, medians[-1]) / medians[-1]
            lines.append(
                f"{name:<13}{crop:<7}"
                + "".join(f"{value:10.3f}" for value in medians)
                + f"{min(row[-1] for row in rows):8.2f}{ratio:7.2f}{wall:8.2f}{peak:9.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    """Print the table, and what it was measured on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="processes for each variant")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.device)))
        return
    results = run_all(options.runs, options.device)
    threads = next(iter(results.values()))[0]["threads"]
    load = (
        ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
    )
    print(
        f"one {EDGE}^3 crop, T = 4, float32 unless named otherwise, medians of {options.runs} runs"
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, load averages {load}")
    print(table(results, options.device))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
