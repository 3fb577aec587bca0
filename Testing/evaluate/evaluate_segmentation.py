"""Figures of liver-tumor segmenters on phantoms of unseen seeds, with healthy look-alikes (`make evaluate`).

Each phantom has 1 to 4 lesions of 3 to 20 mm radius in the liver, beside cysts, ducts, clefts, focal fat and dark
veins; as many healthy ones as asked are added for the false positives.  The liver's mask is given, as in the paper.
`--compare NAME=MODEL` measures other models on the same phantoms; with --validation the phantoms are those of the
validation seeds, and --choose tries thresholds and smallest pieces on them.

Writes segmentation.json, a table and pictures.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray

from difftumor import phantom
from difftumor.commands.console import say
from difftumor.grids import Grid
from difftumor.measuring.evaluation import aligned
from difftumor.measuring.lesions import equivalent_diameter_mm, label_components
from difftumor.measuring.metrics import CaseFigures, Interval, evaluate_case, interval, summarize
from difftumor.parameters import ORGAN_LABELS, SegmentationParameters
from difftumor.phantom.lookalikes import LookAlike
from difftumor.segmentation.model import SegmentationModel, load_segmentation_models
from difftumor.segmentation.segment import SegmentationResult, segment

DEMO_MODEL = "demo-liver-segmenter"
MOST_TUMORS = 4
LEAST_MM = 10.0  # lesions from here on are to be found
TARGETS = {"DSC": (0.75, 1), "sensitivity, 10 mm and more": (0.90, 1), "false positives": (0.5, -1)}
SHOWN = (
    *("DSC", "NSD", "sensitivity, 10 mm and more", "tumor-wise sensitivity"),
    *("tumor-wise sensitivity, <= 10 mm", "tumor-wise sensitivity, 10-20 mm"),
    *("tumor-wise sensitivity, > 20 mm", "false positives", "false positives, healthy phantoms"),
)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
LEAST_DIAMETERS = (5.0, 6.0, 7.0, 8.0)
PICTURES = 12
VIEW = 112


@dataclass(frozen=True, eq=False)
class Subject:
    """A phantom as the evaluation needs it; arrays of one shape (I, J, K)."""

    seed: int
    ct: NDArray[np.int16]
    liver: NDArray[np.bool_]
    tumors: NDArray[np.uint8]
    look_alikes: NDArray[np.uint8]
    grid: Grid


def subject(seed: int, tumors: int, kept: Path | None) -> Subject:
    """Make a phantom, or read it where an earlier evaluation has kept it."""
    path = kept / f"liver-{phantom.PHANTOM_VERSION}-{seed}-{tumors}.npz" if kept else None
    if path is not None and path.is_file():
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        grid = Grid(arrays["ct"].shape, arrays.pop("affine"))
        return Subject(seed, grid=grid, **arrays)
    made = phantom.make_abdomen(seed, tumors=tumors, tumor_organs=("liver",))
    found = Subject(
        seed,
        made.ct,
        np.isin(made.organs, ORGAN_LABELS["liver"]),
        made.tumors,
        made.look_alikes,
        made.grid,
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(found, name) for name in ("ct", "liver", "tumors", "look_alikes")}
        np.savez(path, affine=found.grid.affine, **arrays)
    return found


def subjects(seeds: Sequence[int], healthy: int, kept: Path | None) -> list[Subject]:
    """Phantoms with lesions, then healthy ones of the seeds that follow."""
    ill, well = seeds[: len(seeds) - healthy], seeds[len(seeds) - healthy :]
    found = [subject(seed, 1 + seed % MOST_TUMORS, kept) for seed in ill]
    return found + [subject(seed, 0, kept) for seed in well]


def run(
    models: list[SegmentationModel], one: Subject, parameters: SegmentationParameters, cache: dict
) -> SegmentationResult:
    """Segment a phantom inside its liver."""
    return segment(one.ct, one.grid, one.liver, parameters, models, cache=cache)


def figures(found: NDArray[np.bool_], one: Subject) -> CaseFigures:
    """Figures of one phantom."""
    return evaluate_case(found, one.tumors > 0, one.grid.spacing.tolist())


def table(cases: list[CaseFigures]) -> dict[str, Interval]:
    """Figures of the phantoms with lesions and, for false positives, of the healthy ones."""
    ill = [case for case in cases if case.has_tumor]
    well = [case for case in cases if not case.has_tumor]
    rows = summarize(ill)
    large = [[t for t in case.tumors if t.diameter_mm >= LEAST_MM] for case in ill]
    rows["sensitivity, 10 mm and more"] = interval(
        [sum(t.found for t in each) for each in large],
        [len(each) for each in large],
        proportion=True,
    )
    rows["false positives"] = rows["false positives per scan"]
    rows["false positives, healthy phantoms"] = interval([c.false_positives for c in well])
    return rows


def alarms(found: NDArray[np.bool_], one: Subject) -> list[str]:
    """What lies under each false positive: the commonest look-alike, "border" of the liver, or "liver"."""
    pieces, count = label_components(found, 26)
    true_ones = set(np.unique(pieces[one.tumors > 0]).tolist())
    names = []
    for number in range(1, count + 1):
        if number not in true_ones:
            marks = np.bincount(one.look_alikes[pieces == number], minlength=6)
            best = int(marks[1:].argmax()) + 1
            names.append(LookAlike(best).name.lower() if marks[best] else "liver")
    return names


def measure(
    models: list[SegmentationModel],
    people: list[Subject],
    parameters: SegmentationParameters,
    out: Path,
) -> tuple[dict[str, Interval], list[dict[str, Any]]]:
    """All figures of one model, and a row per phantom; draws pictures."""
    cases, rows, views = [], [], []
    for one in people:
        result = run(models, one, parameters, {})
        found = result.whole((result.labels == 2).astype(np.uint8)) > 0
        case = figures(found, one)
        cases.append(case)
        rows.append({"seed": one.seed, **case.to_dict(), "alarms": alarms(found, one)})
        views.append(view(one, found))
        missed = [f"{t.diameter_mm:.0f}" for t in case.tumors if not t.found]
        say(
            f"  seed {one.seed}: DSC {case.dice:.3f}, {len(case.tumors)} lesions"
            + (f", missed {' '.join(missed)} mm" if missed else "")
            + (f", false positives: {', '.join(rows[-1]['alarms'])}" if rows[-1]["alarms"] else "")
        )
    picture(views[:PICTURES], out)
    return table(cases), rows


def view(one: Subject, found: NDArray[np.bool_]) -> tuple[str, NDArray, NDArray, NDArray]:
    """Title, axial slice with most lesion or alarm, reference and prediction in it; anterior above."""
    shown = (one.tumors > 0) if one.tumors.any() else found
    shown = shown if shown.any() else one.liver
    k = int(shown.sum((0, 1)).argmax())
    i, j = (int(np.flatnonzero(shown[:, :, k].any(axis)).mean()) for axis in (1, 0))
    first = [
        int(np.clip(c - VIEW // 2, 0, n - VIEW)) for c, n in zip((i, j), one.ct.shape, strict=False)
    ]
    box = (slice(first[0], first[0] + VIEW), slice(first[1], first[1] + VIEW), k)
    parts = (one.ct[box], one.tumors[box] > 0, found[box])
    # Columns from the patient's right to the left, as radiologists look at them.
    return (f"seed {one.seed}", *(part[::-1, ::-1].T for part in parts))


def picture(views: list[tuple[str, NDArray, NDArray, NDArray]], path: Path) -> None:
    """Reference green, prediction red."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = math.ceil(len(views) / 4)
    figure, axes = plt.subplots(
        rows, 4, figsize=(10, 2.7 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, ct, truth, found) in zip(axes.flat, views, strict=False):
        axis.imshow(ct, cmap="gray", vmin=-20, vmax=200)
        for mask, color in ((truth, "lime"), (found, "red")):
            if mask.any():
                axis.contour(mask, [0.5], colors=color, linewidths=0.8)
        axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def choose(models: list[SegmentationModel], people: list[Subject], overlap: float) -> None:
    """Figures for each threshold and smallest piece."""
    found: dict[tuple[float | None, float], list[CaseFigures]] = {}
    for one in people:
        cache: dict = {}
        for threshold in THRESHOLDS:
            parameters = SegmentationParameters(
                overlap=overlap, tumor_threshold=threshold, min_diameter_mm=0.0
            )
            result = run(models, one, parameters, cache)
            volumes = [row.volume_mm3 for row in result.lesions]
            part = replace(one, tumors=one.tumors[result.box], grid=one.grid.cropped(result.box))
            for least in LEAST_DIAMETERS:
                kept = [0.0, *(equivalent_diameter_mm(v) >= least for v in volumes)]
                mask = np.asarray(kept, bool)[result.numbers]
                found.setdefault((threshold, least), []).append(figures(mask, part))
        say(f"  seed {one.seed}")
    rows = [["threshold", "smallest mm", "DSC", "sensitivity >= 10 mm", "all", "false positives"]]
    for (threshold, least), cases in found.items():
        made = table(cases)
        rows.append([str(threshold), f"{least:g}", f"{made['DSC'].value:.3f}"])
        rows[-1] += [f"{made[name].value:.3f}" for name in SHOWN[2:4]]
        rows[-1].append(f"{made['false positives'].value:.2f}")
    say(aligned(rows))


def report(measured: dict[str, dict[str, Interval]]) -> None:
    """The table: a column per model."""
    rows = [["figure", *measured, "target"]]
    for name in SHOWN:
        cells = [
            f"{made[name].value:.3f} ({made[name].low:.3f} to {made[name].high:.3f}; {made[name].count:g})"
            for made in measured.values()
        ]
        target = TARGETS.get(name)
        rows.append(
            [name, *cells, f"{'>=' if target[1] > 0 else '<='} {target[0]}" if target else ""]
        )
    say(aligned(rows))


def main() -> int:
    """Measure, print, write; 1 if the first model misses a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEMO_MODEL, help="model id or folder")
    parser.add_argument("--compare", action="append", default=[], help="NAME=MODEL, also measured")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation/segmentation"))
    parser.add_argument("--phantoms", type=int, default=30, help="phantoms with lesions")
    parser.add_argument("--healthy", type=int, default=0, help="phantoms without lesions")
    parser.add_argument("--overlap", type=float, default=0.5, help="of neighboring windows")
    parser.add_argument(
        "--keep", type=Path, help="folder where phantoms are kept for the next time"
    )
    parser.add_argument("--validation", action="store_true", help="validation seeds")
    parser.add_argument("--choose", action="store_true", help="try thresholds (with --validation)")
    chosen = parser.parse_args()
    seeds = phantom.VALIDATION_SEEDS if chosen.validation else phantom.TEST_SEEDS
    people = subjects(seeds[: chosen.phantoms + chosen.healthy], chosen.healthy, chosen.keep)
    parameters = SegmentationParameters(overlap=chosen.overlap)
    names = {"demonstration": chosen.model} | dict(text.split("=", 1) for text in chosen.compare)
    loaded = {
        name: load_segmentation_models([model], "cpu", {}, lambda *_: None)
        for name, model in names.items()
    }
    for models in loaded.values():  # the same numbers in half of the time on a processor
        models[0].network.to(memory_format=torch.channels_last_3d)
    if chosen.choose:
        if not chosen.validation:
            parser.error("--choose is for --validation: nothing is chosen on test seeds")
        choose(loaded["demonstration"], people, chosen.overlap)
        return 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    measured, rows = {}, {}
    for name, models in loaded.items():
        say(f"{name}: {models[0].facts['title']}")
        measured[name], rows[name] = measure(
            models, people, parameters, chosen.out / f"{name.replace(' ', '-')}.png"
        )
    report(measured)
    content = {
        name: {
            "model": loaded[name][0].facts,
            "recommended": loaded[name][0].recommended,
            "figures": {key: value.to_dict() for key, value in measured[name].items()},
            "phantoms": rows[name],
        }
        for name in loaded
    }
    (chosen.out / "segmentation.json").write_text(json.dumps(content, indent=1) + "\n")
    say(f"\nwritten: {chosen.out}")
    first = measured["demonstration"]
    met = [sign * first[name].value >= sign * target for name, (target, sign) in TARGETS.items()]
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
