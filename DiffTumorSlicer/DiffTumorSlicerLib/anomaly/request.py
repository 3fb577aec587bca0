"""Heat maps and sheets of them over N and S: the questions about them, their nodes, and the sentence at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.layout import slice_axis
from difftumor.parameters import AnomalyParameters, to_dict
from DiffTumorSlicerLib.anomaly.results import HeatMap, add_map, live_map_of
from DiffTumorSlicerLib.jobs.case_models import model_facts
from DiffTumorSlicerLib.jobs.cases import Case, read_case
from DiffTumorSlicerLib.jobs.inputs import as_parameters
from DiffTumorSlicerLib.jobs.jobs import Answer, Outcome, SessionError
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.request import Request, box_of_answer, notes_of
from DiffTumorSlicerLib.jobs.states import ANOMALY
from DiffTumorSlicerLib.scene.slice_ranges import normal_axis, organ_slices
from DiffTumorSlicerLib.translation import tr as _

HEALTHY = "healthy_"  # and the name of the image: an array of the answer
STATED = ("box", "slices", "settings", "probability", "lesions", "notes", "unfinished")
SWEEP_LIMIT = 25  # pictures of a sheet


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


def map_request(
    scene: Any,
    parameters: AnomalyParameters | Mapping[str, Any],
    images: Any,
    *,
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    live: bool = False,
    into: Any | None = None,
    device: str = "auto",
) -> Request:
    """A request for one map.

    Args:
        scene: of the nodes.
        parameters: the pack, or its fields.
        images: a CT volume node, or sequence ('t1', 't1c', 't2', 'flair') -> volume node.
        segmentation_node: with the organ or the brain, optional.
        segment_id: of the organ; the only segment if None.
        live: whether the result is the one map of the scan that follows the sliders.
        into: map that the result replaces.
        device: 'auto', 'cpu', 'cuda', 'mps'.

    Raises:
        SceneError: what is wrong, and the next step.
        SessionError: likewise.
    """
    pack, case = _checked(parameters, images, segmentation_node, segment_id)
    target = live_map_of(scene, case.source) if live else into

    def show(request: Request, answers: list[Answer]) -> Outcome:
        heat = _heat(request, pack, answers[0])
        # By identity: it may have left the scene meanwhile.
        present = target if target is not None and scene.IsNodePresent(target) else None
        node = add_map(scene, case.source, heat, into=present, live=live)
        return _outcome(node, heat, answers, live)

    def keep(request: Request, answers: list[Answer]) -> Outcome | None:
        worth_it = answers[0].metadata.get("slices") and not live
        return show(request, answers) if worth_it else None

    return _request([pack], case, show, keep, device)


def sweep_request(
    scene: Any,
    parameters: AnomalyParameters | Mapping[str, Any],
    images: Any,
    noise_levels: list[int],
    guidance_scales: list[float],
    *,
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    device: str = "auto",
) -> Request:
    """A request for a sheet: the first slice that is asked for with every pair of N and S.

    Its cells are in the state's report. Arguments, Raises: as `map_request`.
    """
    del scene  # nothing is added to it
    pack, case = _checked(parameters, images, segmentation_node, segment_id)
    index = slices_of(pack, case)[0]
    packs = _pairs(pack, index, noise_levels, guidance_scales)

    def collect(request: Request, answers: list[Answer]) -> Outcome:
        cells = [
            Cell(
                int(each.noise_level or 0),
                float(each.guidance_scale or 0.0),
                index,
                _heat(request, each, answer),
                case.source,
            )
            for each, answer in zip(packs, answers, strict=False)
        ]
        if len(cells) < len(packs):
            sentence = _("{count} of {total} pictures are ready; the rest was cancelled.")
        else:
            sentence = _("{count} pictures are ready. Press one to take its N and S.")
        sentence = sentence.format(count=len(cells), total=len(packs))
        report = {"kind": "sweep", "cells": cells, "plane": pack.plane}
        return Outcome(sentence, (), notes_of(answers), report)

    def keep(request: Request, answers: list[Answer]) -> Outcome | None:
        whole = [answer for answer in answers if not answer.metadata.get("unfinished")]
        return collect(request, whole) if whole else None

    titles = [
        f"N {each.noise_level}, S {each.guidance_scale:g} ({number} of {len(packs)})"
        for number, each in enumerate(packs, start=1)
    ]
    return _request(packs, case, collect, keep, device, titles)


def slices_of(pack: AnomalyParameters, case: Case) -> list[int]:
    """The slices that will be computed, as far as it can be known before."""
    first, end = pack.slices or organ_slices(case.organ, case.grid, pack.plane)
    if case.organ is None:
        return list(range(first, end))
    axis = slice_axis(case.grid, pack.plane)
    held: NDArray[np.bool_] = np.asarray(
        case.organ.any(axis=tuple(d for d in range(3) if d != axis))
    )
    return [index for index in range(first, end) if held[index]]


def show_cell(scene: Any, cell: Cell) -> Any:
    """Show the map of a cell in the views, as the map that follows the sliders."""
    into = live_map_of(scene, cell.source)
    return add_map(scene, cell.source, cell.heat, into=into, live=True)


def _request(
    packs: Sequence[AnomalyParameters],
    case: Case,
    show: Callable[[Request, list[Answer]], Outcome],
    keep: Callable[[Request, list[Answer]], Outcome | None],
    device: str,
    titles: Sequence[str] = (),
) -> Request:
    model = packs[0].model
    return Request(
        task=ANOMALY,
        panel=ANOMALY,
        button=_("Make the map"),
        packs=packs,
        titles=titles,
        case=case,
        show=show,
        keep=keep,
        # The worker copies the images; map (float32), mask and healthy version are there and here.
        memory=2 * case.nbytes + 12 * case.voxels,
        disk=2 * case.nbytes + 6 * case.voxels,
        models=(model,),
        stated=STATED,
        facts={"organs": list(model_facts(model).organs)},
        device=device,
    )


def _checked(
    parameters: AnomalyParameters | Mapping[str, Any],
    images: Any,
    segmentation_node: Any | None,
    segment_id: str | None,
) -> tuple[AnomalyParameters, Case]:
    """Parameters and case, once all is checked that the worker would only answer later."""
    plain = parameters if isinstance(parameters, Mapping) else to_dict(parameters)
    pack = as_parameters(AnomalyParameters, plain)
    check_model(pack.model, ANOMALY, _("anomaly maps"))
    case = read_case(model_facts(pack.model), images, segmentation_node, segment_id)
    _check_slices(pack, case)
    return pack, case


def _pairs(
    pack: AnomalyParameters, index: int, noise_levels: list[int], guidance_scales: list[float]
) -> list[AnomalyParameters]:
    """One pack for each pair of N and S; the largest N comes first, as its encoding serves all the others.

    Raises:
        SessionError: nothing to try, too much of it, or a value out of range.
    """
    count = len(noise_levels) * len(guidance_scales)
    if not count:
        raise SessionError(
            _("Nothing is to be tried. Write one noise level and one scale or more.")
        )
    if count > SWEEP_LIMIT:
        raise SessionError(
            _(
                "{count} pairs of N and S are too many for one sheet. Write at most {most} pairs."
            ).format(count=count, most=SWEEP_LIMIT)
        )
    base = {**to_dict(pack), "slices": (index, index + 1)}
    return [
        as_parameters(AnomalyParameters, {**base, "noise_level": noise, "guidance_scale": scale})
        for noise in sorted(set(noise_levels), reverse=True)
        for scale in sorted(set(guidance_scales))
    ]


def _check_slices(pack: AnomalyParameters, case: Case) -> None:
    """The questions about organ and slices that the worker would only answer later."""
    plane, slices = pack.plane, pack.slices
    last = case.grid.shape[slice_axis(case.grid, plane)]
    if slices is not None and slices[1] > last:
        raise SessionError(
            _(
                "Slices {first} to {last} are not all in the image, whose {plane} slices are 0 to {end}. "
                "Choose slices of the image."
            ).format(first=slices[0], last=slices[1] - 1, plane=plane, end=last - 1)
        )
    if not slices_of(pack, case):
        first, end = organ_slices(case.organ, case.grid, plane)
        raise SessionError(
            _(
                "There is nothing of the chosen segment in these slices: it lies in the {plane} slices "
                "{first} to {last}. Move to one of them, or let all slices of the organ count."
            ).format(plane=plane, first=first, last=end - 1)
        )


def _heat(request: Request, pack: AnomalyParameters, answer: Answer) -> HeatMap:
    """The answer of the worker as a map with its side-car."""
    facts, arrays = answer.metadata, answer.arrays
    settings = facts["settings"]
    healthy = {
        name.removeprefix(HEALTHY): array
        for name, array in arrays.items()
        if name.startswith(HEALTHY)
    }
    return HeatMap(
        box_of_answer(answer),
        arrays["scaled"],
        healthy,
        list(facts["slices"]),
        request.sidecar(answer, pack),
        normal_axis(pack.plane),
        float(settings["gate_probability"]) if settings.get("gate") else None,
        request.case.images,
    )


def _outcome(node: Any, heat: HeatMap, answers: list[Answer], live: bool) -> Outcome:
    marked = [one for one in heat.slices if not one["gated"]]
    best = max((one["probability"] for one in heat.slices), default=0.0)
    left = int(answers[0].metadata.get("unfinished") or 0)
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
    report = {"kind": "live" if live else "map", "slices": count}
    return Outcome(sentence, (node.GetID(),), notes_of(answers), report)
