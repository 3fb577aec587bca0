"""Figures of the anomaly models on phantoms of unseen seeds (`make evaluate`).

Slices of the test seeds, half with a lesion of at least 80 mm2, at the settings that each model's card recommends, and
the same for S = 0, for the papers' map, and for a rule without any network.  A grid over N and S follows.  With
--validation the slices are those of the validation seeds, and --choose tries maps, smoothing, N, S and gates on them.

Writes anomaly.json, a table, and pictures into a folder per model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from anomaly_choice import RULES, Rule, choose, choose_rule
from anomaly_figures import Slices, dices_35, interval, marks, measure, organ_rule
from anomaly_methods import Rewritings, Settings
from anomaly_pictures import draw_examples, draw_grid

from difftumor.anomaly.model import AnomalyModel, load_anomaly_model
from difftumor.commands.console import say
from training.data import slices as slice_program
from training.data.slice_choice import LOOK_ALIKES_MM2
from training.data.slice_sets import read_slice_set
from training.loop.measures import auroc

DEMO_MODELS = ("demo-abdomen-anomaly", "demo-head-anomaly")
GRID_N = (50, 100, 200, 300, 500)
GRID_S = (0.0, 5.0, 20.0, 80.0, 320.0)
TARGETS = {
    "image_auroc": (0.95, 1),
    "pixel_auroc_organ": (0.93, 1),
    "dice_35": (0.55, 1),
    "healthy_marked": (0.10, -1),
}
COLUMNS = {
    "dice_35": "Dice at 35 %",
    "dice_otsu": "Otsu",
    "dice_best": "best",
    "pixel_auroc_organ": "pixel AUROC, organ",
    "pixel_auroc_crop": "whole crop",
    "lesions_found": "lesions found",
    "healthy_marked": "healthy marked",
}


def test_slices(
    model: AnomalyModel, folder: Path, split: str, patients: int, most: int, look_alikes: bool
) -> Slices:
    """Slices of phantoms as the model was trained on, from seeds set apart; as many healthy as diseased.

    Args:
        model: its card says which phantom, organ and rules.
        folder: where the set is kept, or drawn if it is not there.
        split: "test" or "validation".
        patients: phantoms to draw.
        most: slices taken of each label, spread over the patients.
        look_alikes: take only slices that show healthy look-alikes.
    """
    origin = model.card["extra"]["training"]["unet"]["slice_set"]
    made_for = model.slice_format
    rules = {key: value for key, value in origin["rules"].items() if key != "seed"}
    wishes = slice_program.Phantoms(
        out=folder,
        kind=origin["kind"],
        organ=origin["organ"],
        split=split,
        patients=patients,
        rules=slice_program.Rules(**rules),
        format=slice_program.Format(
            image_size=made_for.image_size,
            spacing_mm=made_for.spacing_mm[0],
            **({"window_hu": made_for.window_hu} if made_for.window_hu else {}),
        ),
    )
    slice_program.draw_slices(wishes)
    stored = read_slice_set(folder / split)
    truth = stored.truth()
    pixel = made_for.spacing_mm[0] * made_for.spacing_mm[1]
    usable = np.ones(len(stored), bool)
    if look_alikes:
        usable = (truth.look_alikes > 0).sum((1, 2)) * pixel >= LOOK_ALIKES_MM2
    rows = []
    for kind in (True, False):
        found = np.flatnonzero(usable & (stored.diseased == kind))
        rows.append(found[np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)])
    chosen = np.sort(np.concatenate(rows))
    return Slices(
        np.asarray(stored.images[chosen], np.float32),
        np.asarray(truth.organ[chosen]),
        np.asarray(truth.tumor[chosen]),
        np.asarray(truth.look_alikes[chosen]),
        stored.diseased[chosen],
        stored.patient[chosen],
        made_for.spacing_mm,
    )


def compare(made: Rewritings, settings: Settings, rule: Rule) -> dict[str, Any]:
    """The table: recommended settings, then what they are compared with.

    Maps of the networks are gated by the classifier's probability; the floor is in units of the recommended map. The
    rule has no classifier: once it marks every slice, once only those whose map exceeds a floor of its own.
    """
    slices = made.slices
    by_rule = organ_rule(slices, rule.signs, rule.smoothing_mm)
    maps = {
        "recommended": made.maps(settings),
        "S = 0": made.maps(replace(settings, guidance_scale=0.0, map_kind="one-sided")),
        "papers' map, sum of abs. differences": made.maps(
            replace(settings, map_kind="absolute", smoothing_mm=0.0)
        ),
        "no network: organ median - pixel": by_rule,
        "no network, with a floor": by_rule,
    }
    gate = replace(settings.gate, floor=0.0)
    empty = {name: made.empty(planes, gate) for name, planes in maps.items()}
    empty["recommended"] = made.empty(maps["recommended"], settings.gate)
    empty["no network: organ median - pixel"] = np.zeros(len(slices), bool)
    empty["no network, with a floor"] = by_rule.max((1, 2)) < rule.floor
    ill = slices.diseased
    kept = {name: dices_35(planes, slices, empty[name]) for name, planes in maps.items()}
    rows: dict[str, Any] = {
        name: measure(planes, slices, empty[name]) for name, planes in maps.items()
    }
    for name, values in kept.items():
        gain = kept["recommended"] - values
        low, high = interval(gain, slices.patient[ill])
        rows[name]["dice_gain"] = [float(gain.mean()), low, high]
    rows["recommended"]["image_auroc"] = auroc(ill, made.probabilities)
    return rows


def grid(
    made: Rewritings,
    settings: Settings,
    noise_levels: Sequence[int],
    scales: Sequence[float],
    most: int,
) -> dict[str, Any]:
    """Dice at 35 % and pixel AUROC over N and S on some diseased slices, without a gate."""
    ill = np.flatnonzero(made.slices.diseased)
    rows = ill[np.linspace(0, len(ill) - 1, min(most, len(ill))).astype(int)]
    part = Rewritings(made.model, made.slices.some(rows))
    never = np.zeros(len(rows), bool)
    part.rewritten(max(noise_levels), settings.steps, 0.0)  # one encoding serves all N
    dices, areas = [], []
    for n in noise_levels:
        found = []
        for s in scales:
            tried = replace(settings, noise_level=n, guidance_scale=s)
            if not s:
                tried = replace(tried, map_kind="one-sided")
            found.append(measure(part.maps(tried), part.slices, never))
        dices.append([row["dice_35"] for row in found])
        areas.append([row["pixel_auroc_organ"] for row in found])
        say(
            f"  N = {n:3d}   "
            + "  ".join(f"S {s:g}: {d:.2f}" for s, d in zip(scales, dices[-1], strict=True))
        )
    return {
        "N": list(noise_levels),
        "S": list(scales),
        "slices": len(rows),
        "dice_35": dices,
        "pixel_auroc": areas,
    }


def print_table(rows: dict[str, Any]) -> None:
    """The table as Markdown."""
    say("\n| map | " + " | ".join(COLUMNS.values()) + " |")
    say("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in rows.items():
        cells = [f"{row[key]:.3f}" for key in COLUMNS]
        say(f"| {name} | " + " | ".join(cells) + " |")


def evaluate(name: str, chosen: argparse.Namespace) -> bool:
    """One model; returns whether all targets are met."""
    model = load_anomaly_model(name, "cpu", {}, lambda *_: None)
    title = model.facts["id"]
    out = chosen.out / title
    out.mkdir(parents=True, exist_ok=True)
    split = "validation" if chosen.validation else "test"
    slices = test_slices(
        model, chosen.sets / title, split, chosen.patients, chosen.slices // 2, chosen.look_alikes
    )
    say(
        f"{title}: {int(slices.diseased.sum())} diseased and {int((~slices.diseased).sum())} healthy slices of "
        f"{len(np.unique(slices.patient))} {split} phantoms"
    )
    made = Rewritings(model, slices)
    settings = Settings.recommended(model)
    if chosen.choose:
        settings = choose(made, settings, chosen.noise_levels, chosen.scales, say, chosen.tried)
    usual = {"signs": RULES[model.channels][0], "smoothing_mm": 3.0, "floor": 0.0}
    rule = Rule(**model.card["extra"].get("rule", usual))
    if chosen.choose:
        rule = choose_rule(slices)
        say(f"recommended: {json.dumps(settings, default=vars)}")
        say(f"rule without a network: {json.dumps(vars(rule))}")
    rows = compare(made, settings, rule)
    print_table(rows)
    best = rows["recommended"]
    met = {key: (best[key] - goal) * sign >= 0 for key, (goal, sign) in TARGETS.items()}
    for key, (goal, sign) in TARGETS.items():
        say(
            f"  {key}: {best[key]:.3f} (target {'at least' if sign > 0 else 'at most'} {goal:g}) "
            + ("met" if met[key] else "MISSED")
        )
    content: dict[str, Any] = {
        "model": model.facts,
        "split": split,
        "settings": json.loads(json.dumps(settings, default=vars)),
        "rule": vars(rule),
        "slices": {"diseased": int(slices.diseased.sum()), "healthy": int((~slices.diseased).sum()),
                   "with look-alikes": int(slices.with_look_alikes.sum()),
                   "patients": len(np.unique(slices.patient))},
        "methods": rows,
        "met": met,
    }  # fmt: skip
    if chosen.grid:
        say(f"\nDice at 35 % over N and S, {chosen.grid} diseased slices, no gate")
        content["grid"] = grid(made, settings, chosen.noise_levels, chosen.scales, chosen.grid)
        draw_grid(content["grid"], out / "grid.png", title)
    maps = made.maps(settings)
    draw_examples(
        made,
        settings,
        maps,
        marks(maps, slices.organ, made.empty(maps, settings.gate)),
        out / "examples.png",
    )
    (out / "anomaly.json").write_text(json.dumps(content, indent=1) + "\n")
    say(f"written: {out}")
    return all(met.values())


def main() -> int:
    """Measure, print, write; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", action="append", help="model id or folder; default: the demonstration models"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"))
    parser.add_argument(
        "--sets",
        type=Path,
        default=Path("runs/evaluation/slices"),
        help="where slice sets are kept",
    )
    parser.add_argument("--patients", type=int, default=44, help="phantoms")
    parser.add_argument(
        "--slices", type=int, default=240, help="slices, half of them with a lesion"
    )
    parser.add_argument(
        "--grid", type=int, default=24, help="slices of the grid over N and S; 0 leaves it out"
    )
    parser.add_argument(
        "--noise-levels", type=int, nargs="+", default=GRID_N, help="N of grid and choice"
    )
    parser.add_argument(
        "--scales", type=float, nargs="+", default=GRID_S, help="S of grid and choice"
    )
    parser.add_argument(
        "--tried", type=int, default=48, help="diseased slices that the choice looks at"
    )
    parser.add_argument(
        "--look-alikes", action="store_true", help="only slices with healthy look-alikes"
    )
    parser.add_argument("--validation", action="store_true", help="validation seeds, for choices")
    parser.add_argument(
        "--choose", action="store_true", help="try settings (with --validation only)"
    )
    chosen = parser.parse_args()
    if chosen.choose and not chosen.validation:
        parser.error("--choose needs --validation: nothing is chosen on the test seeds")
    results = [evaluate(name, chosen) for name in chosen.model or DEMO_MODELS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
