"""Figures of learning from three labeled slices (`make evaluate`).

    PYTHONPATH=. python Testing/evaluate/evaluate_learning.py [--heads 10] [--kidneys 8] [--real ../shared/data]

Phantoms of the test seeds, which nothing was trained or chosen on.  Three slices of the tumor, at 20, 50 and 80 % of
its extent, get their true labels; Dice is that of all other slices.  What the program does is compared with the same
classifiers without a diffusion model, and with a supervised U-Net on the same three slices and the same pixels.  Then
a fourth slice is labeled: the one that the program suggests, or one of the tumor's slices drawn at random.

Each case is kept in a file, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_cases import Case, heads, kidneys, real_brains
from learning_methods import by_learning, by_supervised_unet, clocked, dices
from learning_time import waiting_times

from difftumor.commands.console import say
from difftumor.learning.result import LearnedResult

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LEARNED, ALL, PIXELS, PIXELS_ALL, UNET, UNET_ALL = (
    "learn from slices",
    "learn from slices, all parts kept",
    "the same without the diffusion model",
    "without the diffusion model, all parts kept",
    "supervised U-Net",
    "supervised U-Net, all parts kept",
)
# Asked: at least `ABOVE` more than the supervised U-Net, or at least `ENOUGH`; and these seconds.
ABOVE, ENOUGH = 0.15, 0.90
FIRST_S, FOURTH_S = 60.0, 20.0


def of_case(case: Case, steps: int) -> dict[str, Any]:
    """All figures of a case."""
    slices = case.chosen()
    cache: dict[str, Any] = {}
    result, seconds = clocked(lambda: by_learning(case, slices, cache))
    found = {
        LEARNED: result,
        ALL: by_learning(case, slices, cache, keep="all"),
        PIXELS: by_learning(case, slices, cache, features=False),
        PIXELS_ALL: by_learning(case, slices, cache, features=False, keep="all"),
    }
    nets, unet_seconds = clocked(lambda: by_supervised_unet(case, slices, cache, steps))
    found |= {UNET: nets["painted"], UNET_ALL: nets["all"]}
    methods = {name: dices(case, each.segmentation, slices) for name, each in found.items()}
    return {
        "case": case.name,
        "note": case.note,
        "shape": list(case.grid.shape),
        "labelled": slices,
        "with_tumor": len(case.with_tumor),
        "seconds": {"learn": round(seconds, 1), "unet": round(unet_seconds, 1)},
        "dice": methods,
        "fourth": fourth_slices(case, slices, result, cache),
    }


def fourth_slices(
    case: Case, slices: list[int], three: LearnedResult, cache: dict[str, Any]
) -> dict[str, Any] | None:
    """Dice of the first region outside the first three slices, after one more slice.

    Returns: "three", "suggested" and "random", which count the new slice as it was painted; the same with "_elsewhere"
        without both slices that were tried as the fourth. None: nothing is suggested.
    """
    rng = np.random.default_rng([4400, *case.name.encode()])
    suggested = three.next_slice
    drawn = int(rng.choice([index for index in case.with_tumor if index not in slices]))
    if suggested is None:
        return None
    made = {"three": three}
    for name, index in (("suggested", suggested), ("random", drawn)):
        made[name] = by_learning(case, [*slices, index], cache)
    region = next(iter(case.regions))
    figures = {"slice": suggested, "random_slice": drawn}
    for end, left in (("", slices), ("_elsewhere", [*slices, suggested, drawn])):
        for name, result in made.items():
            figures[name + end] = dices(case, result.segmentation, left)[region]
    return figures


def evaluate(title: str, cases: Iterable[Case], out: Path, steps: int) -> list[dict[str, Any]]:
    """Figures of some cases, from their files where these are there."""
    rows = []
    for case in cases:
        path = out / f"{case.name}.json"
        if not path.is_file():
            row = of_case(case, steps)
            path.write_text(json.dumps(row, indent=1) + "\n")
        rows.append(json.loads(path.read_text()))
        best = rows[-1]["dice"]
        say(
            f"  {case.name}: "
            + ", ".join(f"{region} {spread([value])}" for region, value in best[LEARNED].items())
            + f"; U-Net {next(iter(best[UNET].values())):.3f}"
        )
    if rows:
        say(f"\n{title}, {len(rows)} cases: mean ± standard deviation (smallest)\n")
        say(table(rows))
        say(told_of_fourth(rows))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Dice of each method and region, as Markdown."""
    regions = list(rows[0]["dice"][LEARNED])
    lines = ["| way | " + " | ".join(regions) + " |", "|---" * (len(regions) + 1) + "|"]
    for name in rows[0]["dice"]:
        cells = [spread([row["dice"][name][region] for row in rows]) for region in regions]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float | None]) -> str:
    """Mean ± standard deviation (smallest), of the cases that have the region."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:.3f}" if known else "-"
    return f"{statistics.fmean(known):.3f} ± {statistics.stdev(known):.3f} ({min(known):.3f}; n = {len(known)})"


def told_of_fourth(rows: list[dict[str, Any]]) -> str:
    """What a fourth slice brings, in sentences."""
    known = [row["fourth"] for row in rows if row["fourth"]]
    if not known:
        return "no fourth slice was suggested"
    texts = []
    for end, where in (("", "the new slice as painted"), ("_elsewhere", "other slices only")):
        three, best, drawn = (
            [each[name + end] for each in known] for name in ("three", "suggested", "random")
        )
        ahead = sum(a > b for a, b in zip(best, drawn, strict=True))
        texts.append(
            f"fourth slice ({where}): {statistics.fmean(three):.3f} -> suggested {statistics.fmean(best):.3f}, "
            f"at random {statistics.fmean(drawn):.3f}; suggested better in {ahead} of {len(known)}"
        )
    return "\n" + "\n".join(texts)


def measured_times(cases: Iterable[Case]) -> dict[str, dict[str, float]]:
    """Waiting times of some cases."""
    found = {}
    for case in cases:
        found[case.name] = waited = waiting_times(case)
        say(
            f"  {case.name} {'x'.join(map(str, case.grid.shape))}: first result after {waited['first']:.1f} s "
            f"({waited['first_cpu']:.1f} of the processors), one more slice {waited['fourth']:.1f} s "
            f"({waited['fourth_cpu']:.1f})"
        )
    return found


def judged(rows: list[dict[str, Any]], times: dict[str, dict[str, float]]) -> bool:
    """Say whether what is asked is met."""
    ours, theirs = (
        statistics.fmean(row["dice"][name]["WT"] for row in rows) for name in (LEARNED, UNET)
    )
    met = ours >= ENOUGH or ours - theirs >= ABOVE
    say(
        f"\nWT Dice {ours:.3f}, {ours - theirs:+.3f} against the supervised U-Net (asked: {ENOUGH:g}, or "
        f"{ABOVE:+g}): {'met' if met else 'MISSED'}"
    )
    for name, limit in (("first", FIRST_S), ("fourth", FOURTH_S)):
        if times:
            slowest = max(each[name] for each in times.values())
            good = slowest <= limit
            met = met and good
            say(
                f"{name} result after {slowest:.1f} s at most (asked: {limit:g}): {'met' if good else 'MISSED'}"
            )
    return met


def main() -> int:
    """Measure, print, write; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation/learning"))
    parser.add_argument("--heads", type=int, default=10, help="head phantoms")
    parser.add_argument("--kidneys", type=int, default=8, help="abdomen phantoms")
    parser.add_argument("--real", type=Path, default=DATA, help="folder of real images, if there")
    parser.add_argument("--steps", type=int, default=250, help="of the supervised U-Net")
    parser.add_argument("--validation", action="store_true", help="validation seeds, for choices")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-times", action="store_true", help="leave the waiting times out")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    split = "validation" if chosen.validation else "test"
    out = chosen.out / split
    out.mkdir(parents=True, exist_ok=True)
    times = {}
    if not chosen.no_times:
        say("from the press to the result, the worker starts with it")
        first = (itertools.islice(each(1, split), 1) for each in (heads, kidneys))
        times = measured_times(
            itertools.chain(*first, itertools.islice(real_brains(chosen.real), 1))
        )
    head_rows = evaluate(
        f"Head phantoms ({split} seeds)", heads(chosen.heads, split), out, chosen.steps
    )
    kidney_rows = evaluate(
        f"Kidney tumors in CT ({split} seeds)", kidneys(chosen.kidneys, split), out, chosen.steps
    )
    real_rows = []
    for case in real_brains(chosen.real):
        say(f"\n{case.name}: {case.note}")
        real_rows += evaluate(case.name, [case], out, chosen.steps)
    content = {"heads": head_rows, "kidneys": kidney_rows, "real": real_rows, "times": times}
    (chosen.out / f"learning-{split}.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0 if judged(head_rows, times) else 1


if __name__ == "__main__":
    raise SystemExit(main())
