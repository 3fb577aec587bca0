"""The sweep of `difftumor anomaly`: one slice, every N with every S, as in figures 2 and 3 of Babaei et al."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from difftumor.anomaly.compute import compute_anomaly
from difftumor.anomaly.layout import shown_plane
from difftumor.anomaly.model import AnomalyModel, load_anomaly_model
from difftumor.anomaly.result import AnomalyResult, hottest
from difftumor.anomaly.sheet import Cell, shown_slice
from difftumor.anomaly.slices import prepare
from difftumor.commands.run import Done
from difftumor.commands.stopping import Stopping
from difftumor.parameters import AnomalyParameters
from difftumor.task import Case

Callback = Callable[[str, int, int], None]


def swept(
    done: Done,
    wishes: tuple[list[int], list[float]],
    index: int | None,
    device: str,
    cache: MutableMapping[str, Any],
    stopping: Stopping,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compute the sweep of a case: every N with every S of `wishes`, in one slice.

    Returns:
        rows for the report, and keyword arguments of `anomaly.sheet.write_sheet`.
    """
    images, parameters = done.images.case, done.request.parameters
    model = load_anomaly_model(parameters.model, device, cache, stopping)
    if index is None:
        result = None if done.outcome is None else done.outcome.result
        index = slice_to_show(result, images, parameters, model)
    cells, rows = sweep(images, parameters, model, *wishes, index, cache, stopping)
    name = Path(next(iter(done.request.files.images.values()))).name
    return rows, sheet_of(images, parameters, model, cells, index, rows[0]["probability"], name)


def slice_to_show(
    result: AnomalyResult | None,
    images: Case,
    parameters: AnomalyParameters,
    model: AnomalyModel,
) -> int:
    """Where the sweep looks: at the hottest slice of the map, else at the one that the classifier suspects most."""
    if result is not None and result.slices:
        return int(hottest(result.slices)["index"])
    stack = prepare(
        images.images,
        images.grid,
        images.organ,
        model.slice_format,
        parameters.plane,
        parameters.slices,
    )
    suspicion = model.probability_of_disease(torch.from_numpy(stack.images))
    return stack.indices[int(suspicion.argmax())]


def sweep(
    images: Case,
    parameters: AnomalyParameters,
    model: AnomalyModel,
    levels: list[int],
    scales: list[float],
    index: int,
    cache: MutableMapping[str, Any],
    callback: Callback,
) -> tuple[dict[tuple[int, float], Cell], list[dict[str, Any]]]:
    """Compute a slice for every pair of N and S.

    The largest N comes first, so that its encoding serves the smaller ones. The gate is off: the sheet is for
    looking at what N and S do, also where the classifier calls the slice healthy.

    Returns:
        cells of the sheet, and rows for the report.
    """
    cells: dict[tuple[int, float], Cell] = {}
    rows = []
    for level in sorted(levels, reverse=True):
        for scale in scales:

            def report(stage: str, done: int, total: int, at: int = len(cells)) -> None:
                if total:  # a pair among all pairs
                    pairs = len(levels) * len(scales)
                    callback("sweep over N and S", round(100 * (at + done / total) / pairs), 100)
                else:
                    callback(stage, done, total)

            asked = replace(
                parameters,
                noise_level=level,
                guidance_scale=scale,
                slices=(index, index + 1),
                gate=False,
            )
            result = compute_anomaly(
                images.images, images.grid, images.organ, asked, model, report, cache
            )
            cells[level, scale] = _cell(result, parameters, index)
            row = result.slices[0]
            rows.append(
                {
                    "noise_level": level,
                    "guidance_scale": scale,
                    "index": index,
                    "probability": row["probability"],
                    "map_max": row["map_max"],
                    "area_mm2": row["area_mm2"],
                    "threshold": row["threshold"],
                }
            )
    return cells, sorted(rows, key=lambda row: (row["noise_level"], row["guidance_scale"]))


def _cell(result: AnomalyResult, parameters: AnomalyParameters, index: int) -> Cell:
    grid, plane = result.grid, parameters.plane
    healthy = next(iter(result.counterfactuals.values()))
    return Cell(
        heat=shown_plane(result.scaled_map, grid, plane, index)[0],
        marked=shown_plane(result.mask, grid, plane, index)[0],
        healthy=shown_plane(healthy, grid, plane, index)[0],
        highest=float(result.slices[0]["map_max"]),
    )


def sheet_of(
    images: Case,
    parameters: AnomalyParameters,
    model: AnomalyModel,
    cells: dict[tuple[int, float], Cell],
    index: int,
    probability: float,
    name: str,
) -> dict[str, Any]:
    """Keyword arguments of `anomaly.sheet.write_sheet`."""
    first = next(iter(images.images.values()))
    window = model.window_hu
    shown = shown_slice(first, images.grid, parameters.plane, index, images.organ, window)
    rule = "Otsu's threshold of each map"
    if parameters.threshold_rule == "fixed":
        rule = f"above {100 * parameters.threshold:g} % of the scaled map"
    return {
        "shown": shown,
        "cells": cells,
        "title": f"{name}, {parameters.plane} slice {index}",
        "subtitle": f"{model.facts['title']}; classifier: probability of disease {probability:.2f}",
        "threshold": rule,
    }
