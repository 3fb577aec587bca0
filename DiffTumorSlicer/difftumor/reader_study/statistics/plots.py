"""Plots of a study: intervals, ROC curves, confusion, times. Colors keep apart for color-blind readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from difftumor.reader_study.answers import AnswerRow
from difftumor.reader_study.statistics.estimates import Estimate, percent
from difftumor.reader_study.statistics.roc import roc_points, signed_scores
from difftumor.reader_study.statistics.study_figures import (
    ALL_READERS,
    EVERYTHING,
    StudyFigures,
    groups_of,
)
from difftumor.reader_study.statistics.tables import SHARES

# Okabe and Ito; markers tell readers apart in print, too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^vPX*"
WINDOW = 20  # cases of a running median or share


def plot_all(
    figures: StudyFigures,
    rows: Sequence[AnswerRow],
    paths: dict[str, Path],
    choices: tuple[str, ...],
) -> None:
    """Write the PNGs.

    Args:
        rows: the answers that count.
        paths: by name: "intervals", "roc" (of studies with two choices), "confusion", "times".
        choices: of the study.
    """
    if "intervals" in paths:
        _save(_intervals(figures), paths["intervals"])
    if "roc" in paths:
        _save(_roc(figures, rows), paths["roc"])
    _save(_confusion(figures.readers, rows, choices), paths["confusion"])
    _save(_times(figures.readers, rows, 100 / len(choices)), paths["times"])


def plot_names(figures: StudyFigures) -> tuple[str, ...]:
    """Which plots a study has."""
    return (("intervals", "roc") if figures.positive else ()) + ("confusion", "times")


def _intervals(figures: StudyFigures) -> Figure:
    """Forest plot: a row per reader and group, a column per share."""
    groups = list(dict.fromkeys(group.group for group in figures.groups))
    lines: list[tuple[str, str]] = [(g, r) for g in groups for r in (ALL_READERS, *figures.readers)]
    found = {(one.group, one.reader): one for one in figures.groups}
    figure = Figure(figsize=(10.5, 1.5 + 0.34 * (len(lines) + len(groups))), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    at = {}
    y = 0.0
    for group in groups:
        for reader in (ALL_READERS, *figures.readers):
            at[group, reader] = y
            y += 1
        y += 0.7
    for axis, name in zip(axes, SHARES, strict=True):
        for key in lines:
            pooled = found[key].pooled.get(name)
            own: Estimate = getattr(found[key].accuracy, name)
            shown = pooled if pooled is not None and not math.isnan(pooled.low) else own
            number = figures.readers.index(key[1]) if key[1] in figures.readers else None
            _interval(axis, at[key], own.value, shown, number)
        if name == "accuracy":
            axis.axvline(50, color="#777777", linestyle="--", linewidth=1)
        axis.set(xlim=(-2, 102), xlabel="per cent", title=name)
        axis.grid(axis="x", color="#e3e3e3")
        axis.set_axisbelow(True)
    axes[0].set_yticks(
        [at[key] for key in lines],
        [f"{'all organs' if g == EVERYTHING else g}, {r}" for g, r in lines],
    )
    axes[0].set_ylim(y - 0.7, -0.8)
    figure.suptitle(
        "95 % intervals: Wilson; of all readers the bootstrap over readers and cases. Dashed: guessing",
        fontsize=9,
    )
    return figure


def _interval(axis: Axes, y: float, value: float, shown: Estimate, reader: int | None) -> None:
    if math.isnan(value):
        return
    color = "#000000" if reader is None else COLORS[reader % len(COLORS)]
    marker = "D" if reader is None else MARKERS[reader % len(MARKERS)]
    if not math.isnan(shown.low):
        axis.plot([100 * shown.low, 100 * shown.high], [y, y], color=color, linewidth=2)
    axis.plot(100 * value, y, marker, color=color, markersize=7 if reader is None else 6)


def _roc(figures: StudyFigures, rows: Sequence[AnswerRow]) -> Figure:
    """A panel per group, a curve per reader."""
    groups = groups_of(rows)
    figure = Figure(figsize=(max(4.2 * len(groups), 5.0), 4.6), layout="constrained")
    areas = {(one.group, one.reader): one.auc for one in figures.groups}
    for axis, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        axis.plot([0, 1], [0, 1], color="#777777", linestyle="--", linewidth=1)
        for number, reader in enumerate(figures.readers):
            own = [r for r in rows if r.reader == reader and group in (EVERYTHING, r.organ)]
            area = areas[group, reader]
            if math.isnan(area.value):
                continue
            scores = signed_scores(
                [r.choice for r in own], [r.confidence for r in own], str(figures.positive)
            )
            false, true = roc_points(scores, [row.truth == figures.positive for row in own])
            axis.plot(
                false,
                true,
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                label=f"{reader}: {area.value:.2f}",
            )
        axis.set(
            xlabel=f"called {figures.positive} though not",
            ylabel=f"called {figures.positive} rightly",
            title="all organs" if group == EVERYTHING else group,
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        if axis.get_legend_handles_labels()[0]:
            axis.legend(title="area", loc="lower right", fontsize=9)
    return figure


def _confusion(
    readers: Sequence[str], rows: Sequence[AnswerRow], choices: tuple[str, ...]
) -> Figure:
    """Counts of truth against answer, of all readers and of each."""
    names = [ALL_READERS, *readers] if len(readers) > 1 else list(readers)
    names = names or [ALL_READERS]
    across = min(len(names), 5)
    down = math.ceil(len(names) / across)
    size = 1.5 + 0.75 * len(choices)
    figure = Figure(figsize=(size * across, (size + 0.2) * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    for axis, reader in zip(panels, names, strict=False):
        own = [row for row in rows if reader in (ALL_READERS, row.reader)]
        counts = (
            confusion_matrix([r.truth for r in own], [r.choice for r in own], labels=list(choices))
            if own
            else np.zeros((len(choices),) * 2, int)
        )
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            axis.text(
                j,
                i,
                f"{count}\n{percent(Fraction(int(count), max(1, int(counts[i].sum()))), 0)} %",
                ha="center",
                va="center",
                color="white" if share[i, j] > 0.55 else "black",
            )
        places = range(len(choices))
        axis.set_xticks(places, choices, fontsize=8)
        axis.set_yticks(places, choices, fontsize=8, rotation=90, va="center")
        axis.set(xlabel="answer", ylabel="truth", title=reader)
    return figure


def _times(readers: Sequence[str], rows: Sequence[AnswerRow], guessing: float) -> Figure:
    """Seconds of each case and the running share of right answers, over the order of reading.

    Args:
        guessing: per cent of right answers by chance.
    """
    figure = Figure(figsize=(10.5, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for number, reader in enumerate(readers):
        own = sorted((r for r in rows if r.reader == reader), key=lambda r: r.position)
        if not own:
            continue
        place = np.array([row.position for row in own])
        seconds = np.array([row.seconds for row in own])
        right = np.array([row.correct for row in own], float)
        color = COLORS[number % len(COLORS)]
        marker = MARKERS[number % len(MARKERS)]
        above.plot(place, seconds, marker, color=color, markersize=3, alpha=0.5)
        middles, medians = _running(place, seconds, np.median)
        above.plot(middles, medians, color=color, linewidth=2, label=reader)
        middles, shares = _running(place, right, np.mean)
        below.plot(middles, 100 * shares, color=color, linewidth=2, label=reader)
    above.set(
        ylabel="seconds per case", title=f"Time per case; lines: running median of {WINDOW} cases"
    )
    above.set_ylim(bottom=0)
    below.axhline(guessing, color="#777777", linestyle="--", linewidth=1)
    below.set(
        xlabel="case in the reader's order",
        ylabel="right, per cent",
        ylim=(-3, 103),
        title=f"Right answers, running mean of {WINDOW} cases; dashed: guessing",
    )
    for axis in (above, below):
        axis.grid(color="#e3e3e3")
        axis.set_axisbelow(True)
    if above.get_legend_handles_labels()[0]:
        above.legend(loc="upper right", ncols=4)
    return figure


def _running(
    place: NDArray[np.int64], values: NDArray[np.float64], figure: object
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A figure of each window of neighboring cases, and the windows' middles."""
    window = min(WINDOW, values.size)
    starts = range(values.size - window + 1)
    middles = np.array([place[n : n + window].mean() for n in starts])
    return middles, np.array([figure(values[n : n + window]) for n in starts])  # type: ignore[operator]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
