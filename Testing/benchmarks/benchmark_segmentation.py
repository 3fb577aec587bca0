"""What sliding windows cost: only where the liver is, against MONAI's plain call over the whole CT.

    python Testing/benchmarks/benchmark_segmentation.py [--edge 300] [--device cpu|cuda] [--model ID]

A phantom of 300 x 300 x 300 mm at 1 mm, windows of 96 voxels at overlap 0.75 and 0.5.  Each measurement is a fresh
process.  Three ways:
  plain     monai.inferers.sliding_window_inference over the whole volume
  ours      every window, with sums of one row of windows
  organ     the windows that hold voxels of the liver
The table says windows, seconds, peak memory above the loaded network, the greatest difference of the logits in the
liver, and how the ratio of times compares with the ratio of windows (at most 1.1 is the aim).  With a trained model
(--model) also the Dice of the tumors at both overlaps; without one a U-Net of published size with filled weights runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("plain", "ours", "organ")
SEED = 10_300  # of no set that models are trained, chosen or reported on
FILLED = "filled U-Net"


def make_case(edge: int, folder: Path) -> None:
    """Write the phantom: CT, liver and tumors of the liver."""
    from difftumor.phantom.abdomen import make_abdomen

    made = make_abdomen(
        SEED, tumors=4, shape=(edge,) * 3, tumor_organs=("liver",), tumor_radius_mm=(5, 15)
    )
    liver = made.organs == 5
    np.savez(folder / "case.npz", ct=made.ct, liver=liver, tumors=(made.tumors > 0) & liver)


def open_network(name: str, device: str) -> Any:
    """A segmentation model."""
    import torch

    from difftumor.networks.segmenters import build_segmenter
    from difftumor.segmentation.model import SegmentationModel, load_segmentation_models
    from Testing.tiny_segmenter import tiny_card
    from Testing.weight_filler import fill

    if name != FILLED:
        return load_segmentation_models([name], device, {}, lambda *_: None)[0]
    card = tiny_card(crop_voxels=[96] * 3, architecture={"name": "segmentation_unet"})
    network = fill(build_segmenter("segmentation_unet"))
    return SegmentationModel(network, "segmentation_unet", card, {}, torch.device(device))


def measure(way: str, overlap: float, name: str, device: str, folder: Path) -> dict[str, Any]:
    """One process: windows, seconds, memory; the logits in the liver go to a file."""
    import torch
    from monai.inferers import sliding_window_inference

    from difftumor.segmentation.windows import plan_windows, predict_windows

    with np.load(folder / "case.npz") as case:
        ct, liver = case["ct"], case["liver"]
    model = open_network(name, device)
    scaled = model.scaled(ct)[None]
    batch = 1 if device == "cpu" else 4
    plan = plan_windows(ct.shape, model.window, overlap, liver if way == "organ" else None)
    with torch.inference_mode():
        model.logits(torch.zeros(1, 1, *model.window))  # what only the first call costs
    before = peak_mb(device)
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    if way == "plain":
        with torch.inference_mode():
            whole = sliding_window_inference(
                torch.from_numpy(scaled)[None].to(device),
                model.window,
                batch,
                model.logits,
                overlap,
                mode="gaussian",
            )[0]
        synchronize(device)
    else:
        whole = torch.zeros(model.classes, *plan.box_shape)
        image = np.ascontiguousarray(scaled[(slice(None), *plan.field)])
        for rows, logits in predict_windows(image, plan, model.logits, model.device, batch):
            first = plan.box[0].start
            whole[:, rows.start - first : rows.stop - first] = logits.cpu()
    seconds = [time.process_time() - cpu, time.perf_counter() - wall]
    used = peak_mb(device) - before
    logits = whole.cpu().numpy()
    inside = logits[:, liver if way != "organ" else liver[plan.box]]
    np.save(folder / f"{way}-{overlap}.npy", inside)
    threads = torch.get_num_threads()
    return {"windows": len(plan), "seconds": seconds, "peak_mb": used, "threads": threads}


def synchronize(device: str) -> None:
    """Wait for the GPU."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def peak_mb(device: str) -> float:
    """Highest memory of this process so far: on the device, or resident."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def in_a_process(*words: object) -> dict[str, Any]:
    """Run one measurement."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "DiffTumorSlicer")])
    run = subprocess.run(
        [sys.executable, __file__, "--child", *map(str, words)],
        env={**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


def dice_of_tumors(folder: Path, way: str, overlap: float) -> float:
    """Dice of the tumors in the liver by the most probable class."""
    with np.load(folder / "case.npz") as case:
        truth = case["tumors"][case["liver"]]
    found = np.load(folder / f"{way}-{overlap}.npy").argmax(0) == 2
    return 2 * float((found & truth).sum()) / max(float(found.sum() + truth.sum()), 1)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=FILLED)
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the first one is compared with"
    )
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, overlap, name, device, folder = arguments.child
        print(json.dumps(measure(way, float(overlap), name, device, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_case(arguments.edge, folder)
        print(f"{arguments.model}, {arguments.edge} mm edge, {arguments.device}")
        print("overlap  way    windows   CPU s   wall s  peak MB  max |diff|  time/windows ratio")
        for overlap in arguments.overlaps:
            plain: dict[str, Any] = {}
            for way in arguments.ways:
                found = in_a_process(way, overlap, arguments.model, arguments.device, folder)
                plain = plain or found
                which = 0 if arguments.device == "cpu" else 1
                times = found["seconds"][which] / plain["seconds"][which]
                ratio = times / (found["windows"] / plain["windows"])
                expected = np.load(folder / f"{arguments.ways[0]}-{overlap}.npy")
                apart = np.abs(np.load(folder / f"{way}-{overlap}.npy") - expected).max()
                print(
                    f"{overlap:7g}  {way:6s} {found['windows']:6d} {found['seconds'][0]:8.1f} "
                    f"{found['seconds'][1]:8.1f} {found['peak_mb']:8.0f} {apart:11.2g} {ratio:10.3f}",
                    flush=True,
                )
        if arguments.model != FILLED:
            figures = [
                f"{o:g}: {dice_of_tumors(folder, arguments.ways[-1], o):.4f}"
                for o in arguments.overlaps
            ]
            print(f"Dice of the tumors by overlap: {', '.join(figures)}")


if __name__ == "__main__":
    main()
