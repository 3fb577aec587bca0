"""Choose what a model recommends, on validation slices: N, S, kind of map, smoothing, gate and floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from anomaly_figures import Gate, Slices, dices_35, organ_rule
from anomaly_methods import Rewritings, Settings

KINDS = ("guided", "one-sided", "absolute")
# What lesions may look like, by number of channels (T1, T1c, T2, FLAIR).
DIRECTIONS = {1: ("dark",), 4: ("both", "dark,both,bright,bright", "dark,bright,bright,bright")}
# Channels of the rule without a network: 1 where lesions are dark, -1 where they are bright, 0 not read.
RULES = {1: ((1.0,),), 4: ((0.0, 0.0, 0.0, -1.0), (0.0, 0.0, -1.0, -1.0))}
SMOOTHINGS_MM = (0.0, 1.5, 3.0, 4.5, 6.0)
HEALTHY_MARKED = 0.06  # allowed on validation, so that 0.10 holds on other seeds
FAINT_SHARE = 0.01  # of the diseased maps may lie below the floor


def choose(
    made: Rewritings,
    start: Settings,
    noise_levels: Sequence[int],
    scales: Sequence[float],
    say: Callable[[str], None],
    most: int = 48,
) -> Settings:
    """Settings of the highest Dice at 35 %, and a gate that leaves healthy slices unmarked.

    Args:
        made: validation slices; N, S, kind, direction and smoothing are tried on some of the diseased ones.
        start: its steps are kept.
        noise_levels, scales: N and S that are tried; S = 0 marks nothing and is left out.
        say: prints a line.
        most: diseased slices of the trial.
    """
    ill = np.flatnonzero(made.slices.diseased)
    rows = ill[np.linspace(0, len(ill) - 1, min(most, len(ill))).astype(int)]
    part = Rewritings(made.model, made.slices.some(rows))
    never = np.zeros(len(rows), bool)
    part.rewritten(max(noise_levels), start.steps, 0.0)
    tried: list[tuple[float, Settings]] = []
    directions = DIRECTIONS.get(made.slices.images.shape[1], (start.direction,))
    for n in noise_levels:
        for s in filter(None, scales):
            here = []
            for kind, sigma, direction in product(KINDS, SMOOTHINGS_MM, directions):
                settings = replace(
                    start,
                    noise_level=n,
                    guidance_scale=s,
                    map_kind=kind,
                    smoothing_mm=sigma,
                    direction=direction,
                )
                score = np.mean(dices_35(part.maps(settings), part.slices, never))
                here.append((float(score), settings))
            tried += here
            best = {
                kind: max((d, t.smoothing_mm, t.direction) for d, t in here if t.map_kind == kind)
                for kind in KINDS
            }
            say(f"N {n:3d} S {s:5g}  " + "   ".join(
                f"{kind} {d:.3f} ({mm:g} mm, {words})" for kind, (d, mm, words) in best.items()
            ))  # fmt: skip
    _, settings = max(tried, key=lambda item: item[0])
    return replace(settings, gate=choose_gate(made, settings))


def choose_gate(made: Rewritings, settings: Settings) -> Gate:
    """A floor that few diseased maps lie below, and the probability that then parts the slices best.

    Best: the largest difference between the shares of diseased and of healthy slices that stay, of those
    probabilities that leave few healthy ones; of equal ones the nearest to one half.
    """
    highest, ill = made.maps(settings).max((1, 2)), made.slices.diseased
    floor = float(np.quantile(highest[ill], FAINT_SHARE))
    found = []
    for probability in np.arange(0.04, 0.97, 0.02):
        kept = (made.probabilities >= probability) & (highest >= floor)
        sick, well = float(kept[ill].mean()), float(kept[~ill].mean())
        if well <= HEALTHY_MARKED:
            found.append((round(sick - well, 6), -abs(probability - 0.5), probability))
    _, _, probability = max(found)
    return Gate(round(float(probability), 2), round(floor, 4))


@dataclass(frozen=True)
class Rule:
    """The rule without a network: its channels, smoothing in mm, and the least maximum of a marked slice."""

    signs: tuple[float, ...]
    smoothing_mm: float
    floor: float


def choose_rule(slices: Slices) -> Rule:
    """Channels and smoothing with which the rule does best, and a floor that leaves healthy slices unmarked."""
    never = np.zeros(len(slices), bool)
    scores = {
        (signs, sigma): float(np.mean(dices_35(organ_rule(slices, signs, sigma), slices, never)))
        for signs in RULES[slices.images.shape[1]]
        for sigma in (1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
    }
    signs, sigma = max(scores, key=lambda tried: scores[tried])
    healthy = organ_rule(slices, signs, sigma).max((1, 2))[~slices.diseased]
    return Rule(signs, sigma, round(float(np.quantile(healthy, 1 - HEALTHY_MARKED)), 4))
