"""Learning from painted slices, and applying what was learned: the questions, the nodes and the sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftumor.parameters import AppliedParameters, LearningParameters
from DiffTumorSlicerLib.jobs.case_models import model_facts
from DiffTumorSlicerLib.jobs.cases import read_case
from DiffTumorSlicerLib.jobs.inputs import as_parameters
from DiffTumorSlicerLib.jobs.jobs import Answer, Outcome, SessionError
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.request import Request, box_of_answer
from DiffTumorSlicerLib.jobs.states import SEGMENTATION
from DiffTumorSlicerLib.scene.volume_nodes import volume_array
from DiffTumorSlicerLib.segmentation.measuring import rows_of
from DiffTumorSlicerLib.segmentation.models import LEARNING, task_of
from DiffTumorSlicerLib.segmentation.outcome import STATED, needs, show_segmented
from DiffTumorSlicerLib.segmentation.painting import (
    BRAIN,
    OUTERMOST,
    Painted,
    check_painted,
    read_painted,
)
from DiffTumorSlicerLib.segmentation.results import Part, Segmented
from DiffTumorSlicerLib.translation import tr as _


def learn_request(
    scene: Any,
    parameters: Mapping[str, Any],
    images: Any,
    labels_node: Any,
    *,
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    model_folder: Path | None = None,
    device: str = "auto",
) -> Request:
    """A request to learn from the painted slices of a case, and to segment its other slices.

    Args:
        parameters: fields of `LearningParameters`, without the labeled slices.
        labels_node: segmentation that was painted on the images (`painting`); never changed.
        model_folder: where the worker writes what it has learned.

    Further arguments, Raises: as `segmentation.request.segment_request`.
    """
    plain = dict(parameters)
    chosen = str(plain.get("model", LearningParameters.model))
    task = task_of(chosen)
    check_model(chosen, task if task in LEARNING else LEARNING[0], _("learning from slices"))
    model = model_facts(chosen)
    case = read_case(model, images, segmentation_node, segment_id)
    if case.organ is None and model.organs and not model.of_brain:
        raise SessionError(
            _(
                "The model knows the inside of one organ only: {organs}. Choose the segment of the organ, or segment "
                "it first, for instance with TotalSegmentator."
            ).format(organs=", ".join(model.organs))
        )
    if labels_node is None:
        raise SessionError(
            _("There are no labels yet. Paint the tumor on at least one slice, then learn from it.")
        )
    painted = read_painted(labels_node, case.source, plain.get("plane", "axial"))
    check_painted(painted)
    pack = as_parameters(LearningParameters, {**plain, "labelled": painted.labelled})

    def show(request: Request, answers: list[Answer]) -> Outcome:
        made = _learned(request, answers[0], painted)
        return show_segmented(scene, case, made, answers[0])

    return Request(
        task="learn",
        panel=SEGMENTATION,
        button=_("Learn from my slices"),
        packs=[pack],
        case=case,
        show=show,
        **needs(case),
        models=(chosen,),
        stated=STATED,
        facts={"organs": list(model.organs)},
        labels=painted.labels,
        labels_node=labels_node,
        more={} if model_folder is None else {"model_folder": str(model_folder)},
        device=device,
    )


def apply_request(
    scene: Any,
    model_id: str,
    images: Any,
    *,
    plane: str = "axial",
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    device: str = "auto",
) -> Request:
    """A request to segment a case with what was learned before.

    Args:
        model_id: of what was learned; checked.
        plane: of the slices.

    Further arguments, Raises: as `segmentation.request.segment_request`.
    """
    model = model_facts(model_id)
    case = read_case(model, images, segmentation_node, segment_id)

    def show(request: Request, answers: list[Answer]) -> Outcome:
        made = _learned(request, answers[0], None)
        return show_segmented(scene, case, made, answers[0])

    return Request(
        task="apply_learned",
        panel=SEGMENTATION,
        button=_("Segment"),
        packs=[as_parameters(AppliedParameters, {"model": model_id, "plane": plane})],
        case=case,
        show=show,
        **needs(case),
        models=(model_id,),
        stated=STATED,
        facts={"organs": list(model.organs)},
        device=device,
    )


def _learned(request: Request, answer: Answer, painted: Painted | None) -> Segmented:
    """The answer of pixel classifiers: a segment for each label, named and colored as it was painted."""
    facts, box, case = answer.metadata, box_of_answer(answer), request.case
    segmented = answer.arrays["segmentation"]
    names = {int(label): name for label, name in facts["label_names"].items()}
    colors = painted.colors if painted is not None else {}
    if painted is not None:
        names |= painted.names
    titles = _titles(names)
    masks = {titles[label]: segmented == label for label in sorted(names)}
    organ_box = None if case.organ is None else case.organ[box]
    rows = rows_of(masks, case.grid.cropped(box), volume_array(case.source)[box], organ_box,
                   origin=[part.start for part in box])  # fmt: skip
    row_of = {row["name"]: row for row in rows}
    parts = [
        Part(
            titles[label],
            masks[titles[label]],
            colors.get(label) or BRAIN.get(names[label].lower()),
            row_of.get(titles[label]),
            around=names[label].lower() == OUTERMOST,
        )
        for label in sorted(names)
    ]
    made = request.sidecar(answer)
    if "next_slice" in facts:
        made["result"]["next_slice_mm"] = _position(facts)
    count = len(facts["labelled"])
    title = (
        _("learned from 1 slice")
        if count == 1
        else _("learned from {count} slices").format(count=count)
    )
    if painted is None:
        title = str(facts["model"].get("title"))
    organs = request.facts["organs"]
    organ = organs[0] if len(organs) == 1 else ""
    overlays = {"uncertainty": answer.arrays["uncertainty"]}
    return Segmented(box, parts, overlays, made, "learned", organ, request.labels_node, title)


def _titles(names: Mapping[int, str]) -> dict[int, str]:
    """Names of labels as segments show them, each a different one."""
    given = list(names.values())
    return {
        label: name[:1].upper() + name[1:] + (f" ({label})" if given.count(name) > 1 else "")
        for label, name in names.items()
    }


def _position(facts: Mapping[str, Any]) -> float | None:
    """Where the slice is that would help most, along its plane's normal; positions outlive indices."""
    wanted = facts["next_slice"]
    return next((one["position_mm"] for one in facts["slices"] if one["index"] == wanted), None)
