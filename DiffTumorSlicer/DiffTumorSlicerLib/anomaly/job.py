"""The job of a wish for a heat map, and how its answers become nodes; also of a sheet over N and S."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from difftumor.parameters import AnomalyParameters, to_dict
from DiffTumorSlicerLib.anomaly.request import PANEL, TASK, AnomalyWish
from DiffTumorSlicerLib.anomaly.results import HeatMap, add_map, live_map_of
from DiffTumorSlicerLib.jobs.inputs import sidecar, watch
from DiffTumorSlicerLib.jobs.jobs import Answer, Arrays, Job, Outcome
from DiffTumorSlicerLib.jobs.wording import capitalized
from DiffTumorSlicerLib.scene.slice_ranges import normal_axis
from DiffTumorSlicerLib.translation import tr as _

HEALTHY = "healthy_"  # and the name of the image: an array of the answer


@dataclass(frozen=True, eq=False)
class Cell:
    """One pair of N and S of a sheet, with the map that it made of the slice."""

    noise_level: int
    guidance_scale: float
    index: int
    heat: HeatMap
    source: Any

    @property
    def probability(self) -> float:
        """Of disease, of the slice as it is."""
        return float(self.heat.slices[0]["probability"]) if self.heat.slices else 0.0

    @property
    def highest(self) -> float:
        """Largest value of the map before it was scaled, in the model's units."""
        return float(self.heat.slices[0]["map_max"]) if self.heat.slices else 0.0


def anomaly_job(scene: Any, asked: AnomalyWish, *, live: bool = False) -> Job:
    """The job of a wish for one map.

    Args:
        scene: of the nodes.
        asked: checked.
        live: whether the result is the map that follows the sliders.
    """
    into = live_map_of(scene, asked.case.source) if live else asked.into

    def show(answers: list[Answer]) -> Outcome:
        heat = _heat(asked, asked.parameters, answers[0])
        # By identity: it may have left the scene meanwhile.
        target = into if into is not None and scene.IsNodePresent(into) else None
        node = add_map(scene, asked.case.source, heat, into=target, live=live)
        return _outcome(node, heat, answers[0].metadata, live)

    def keep(answers: list[Answer]) -> Outcome | None:
        return show(answers) if answers[0].metadata.get("slices") and not live else None

    requests = [("", _request(asked, asked.parameters))]
    return Job(
        PANEL, TASK, requests, show, _arrays(asked), _gone(scene, asked), of_scene=True, keep=keep
    )


def sweep_job(scene: Any, asked: AnomalyWish, packs: Sequence[AnomalyParameters]) -> Job:
    """The job of a sheet: one slice with several N and S; its cells are in the state's report."""

    def collect(answers: list[Answer]) -> Outcome:
        cells = []
        for pack, answer in zip(packs, answers, strict=False):
            heat = _heat(asked, pack, answer)
            values = int(pack.noise_level or 0), float(pack.guidance_scale or 0.0)
            cells.append(Cell(*values, asked.indices[0], heat, asked.case.source))
        notes = [capitalized(n) for answer in answers for n in answer.metadata.get("notes", [])]
        left = len(packs) - len(cells)
        sentence = (
            _("{count} of {total} pictures are ready; the rest was cancelled.").format(
                count=len(cells), total=len(packs)
            )
            if left
            else _("{count} pictures are ready. Press one to take its N and S.").format(
                count=len(cells)
            )
        )
        report = {"kind": "sweep", "cells": cells, "plane": asked.parameters.plane}
        return Outcome(sentence, (), tuple(dict.fromkeys(notes)), report)

    def keep(answers: list[Answer]) -> Outcome | None:
        whole = [answer for answer in answers if not answer.metadata.get("unfinished")]
        return collect(whole) if whole else None

    requests = [
        (
            f"N {pack.noise_level}, S {pack.guidance_scale:g} ({number} of {len(packs)})",
            _request(asked, pack),
        )
        for number, pack in enumerate(packs, start=1)
    ]
    return Job(
        PANEL,
        TASK,
        requests,
        collect,
        _arrays(asked),
        _gone(scene, asked),
        of_scene=True,
        keep=keep,
    )


def show_cell(scene: Any, cell: Cell) -> Any:
    """Show the map of a cell in the views, as the map that follows the sliders."""
    into = live_map_of(scene, cell.source)
    return add_map(scene, cell.source, cell.heat, into=into, live=True)


def _request(asked: AnomalyWish, pack: AnomalyParameters) -> dict[str, Any]:
    return {
        "parameters": to_dict(pack),
        "affine": asked.case.grid.affine.tolist(),
        "device": asked.device,
    }


def _arrays(asked: AnomalyWish) -> Callable[[], Arrays]:
    arrays = asked.case.arrays()
    return lambda: arrays


def _gone(scene: Any, asked: AnomalyWish) -> Callable[[], str]:
    return watch(scene, asked.case.images.values(), _("Make the map"))


def _heat(asked: AnomalyWish, pack: AnomalyParameters, answer: Answer) -> HeatMap:
    """The answer of the worker as a map with its side-car."""
    facts = answer.metadata
    settings = dict(facts["settings"])
    i, j, k = (slice(start, stop) for start, stop in facts["box"])
    limit = float(settings["gate_probability"]) if settings.get("gate") else None
    return HeatMap(
        (i, j, k),
        answer.arrays["scaled"],
        {
            name.removeprefix(HEALTHY): array
            for name, array in answer.arrays.items()
            if name.startswith(HEALTHY)
        },
        list(facts["slices"]),
        _sidecar(asked, pack, facts),
        normal_axis(asked.parameters.plane),
        limit,
        asked.case.images,
    )


def _sidecar(asked: AnomalyWish, pack: AnomalyParameters, facts: dict[str, Any]) -> dict[str, Any]:
    """How a map was made."""
    hashes = facts.get("sha256", {})
    told = ("box", "slices", "settings", "probability", "lesions", "notes", "unfinished")
    result = {name: facts[name] for name in told if name in facts}
    result["output_sha256"] = hashes.get("output")
    result["organs"] = list(asked.model.organs)
    return sidecar(TASK, to_dict(pack), asked.case.inputs(hashes), result, facts)


def _outcome(node: Any, heat: HeatMap, facts: dict[str, Any], live: bool) -> Outcome:
    marked = [one for one in heat.slices if not one["gated"]]
    best = max((one["probability"] for one in heat.slices), default=0.0)
    left = int(facts.get("unfinished") or 0)
    count = len(heat.slices)
    if left:
        sentence = _(
            'Cancelled. The {count} finished of {total} slices are in "{name}"; press Make the map '
            "to compute them all."
        ).format(count=count, total=count + left, name=node.GetName())
    elif not marked:
        sentence = _(
            "Nothing is marked: the classifier calls all slices healthy (highest probability of disease "
            "{best:.2f}), or the model changed next to nothing. To look at the map nevertheless, "
            "switch off “Leave healthy slices empty” in More settings and press Make the map."
        ).format(best=best)
    else:
        sentence = _('{marked} of {count} slices are marked in "{name}".').format(
            marked=len(marked), count=count, name=node.GetName()
        )
    notes = tuple(dict.fromkeys(capitalized(note) for note in facts.get("notes", [])))
    report = {"kind": "live" if live else "map", "slices": count}
    return Outcome(sentence, (node.GetID(),), notes, report)


__all__ = ["Cell", "anomaly_job", "show_cell", "sweep_job"]
