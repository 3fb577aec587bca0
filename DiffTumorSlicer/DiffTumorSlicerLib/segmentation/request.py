"""Segmenting with trained models, or with what was learned before: the questions, the nodes and the sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from difftumor.parameters import SegmentationParameters
from DiffTumorSlicerLib.jobs.case_models import model_facts
from DiffTumorSlicerLib.jobs.cases import read_case
from DiffTumorSlicerLib.jobs.inputs import as_parameters
from DiffTumorSlicerLib.jobs.jobs import Answer, Outcome, SessionError
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.request import Request, box_of_answer
from DiffTumorSlicerLib.jobs.states import SEGMENTATION
from DiffTumorSlicerLib.segmentation.learning import apply_request
from DiffTumorSlicerLib.segmentation.models import is_learned
from DiffTumorSlicerLib.segmentation.outcome import STATED, needs, show_segmented
from DiffTumorSlicerLib.segmentation.results import ORGAN_COLOR, Part, Segmented
from DiffTumorSlicerLib.translation import tr as _


def segment_request(
    scene: Any,
    parameters: Mapping[str, Any],
    images: Any,
    *,
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    probability: bool = True,
    device: str = "auto",
) -> Request:
    """A request to segment the tumors of a case with one or several models, or with what was learned before.

    Args:
        scene: of the nodes.
        parameters: fields of `SegmentationParameters`; "plane" counts for what was learned.
        images: a CT volume node, or sequence ('t1', 't1c', 't2', 'flair') -> volume node; never changed.
        segmentation_node: with the organ, optional.
        segment_id: of the organ; the only segment if None.
        probability: whether the probability is kept as a volume.
        device: 'auto', 'cpu', 'cuda', 'mps'.

    Raises:
        SceneError: what is wrong, and the next step.
        SessionError: likewise.
    """
    plain = dict(parameters)
    plane = plain.pop("plane", "axial")
    pack = as_parameters(SegmentationParameters, plain)
    for model_id in pack.models:
        check_model(model_id, SEGMENTATION, _("segmentation"))
    organ = {"segmentation_node": segmentation_node, "segment_id": segment_id}
    learned = [model_id for model_id in pack.models if is_learned(model_id)]
    if learned and len(pack.models) > 1:
        raise SessionError(
            _(
                '"{title}" was learned from slices and cannot be combined with other models. Choose it alone.'
            ).format(title=model_facts(learned[0]).title)
        )
    if learned:
        return apply_request(scene, learned[0], images, plane=plane, device=device, **organ)
    model = model_facts(pack.models[0])
    case = read_case(model, images, **organ)

    def show(request: Request, answers: list[Answer]) -> Outcome:
        made = _trained(request, answers[0], probability)
        return show_segmented(scene, case, made, answers[0])

    return Request(
        task=SEGMENTATION,
        panel=SEGMENTATION,
        button=_("Segment"),
        packs=[pack],
        case=case,
        show=show,
        **needs(case),
        models=pack.models,
        stated=STATED,
        facts={"organs": list(model.organs)},
        alone="scan",
        device=device,
    )


def _trained(request: Request, answer: Answer, probability: bool) -> Segmented:
    """The answer of trained models: a segment for each lesion."""
    facts, arrays = answer.metadata, answer.arrays
    numbers, labels = arrays["numbers"], arrays["labels"]
    parts = [
        Part(row["name"][:1].upper() + row["name"][1:], numbers == row["number"], None, row)
        for row in facts["lesions"]
    ]
    organs = request.facts["organs"]
    organ = organs[0] if len(organs) == 1 else ""
    if request.case.organ is None and (labels > 0).any():
        name = _("{organ}, as the model sees it").format(organ=(organ or _("organ")).capitalize())
        parts.append(Part(name, labels > 0, ORGAN_COLOR, around=True))
    overlays = {}
    if probability:
        overlays["probability"] = arrays["probability"]
    if "agreement" in arrays:
        # Where all models see no tumor there is nothing to look at; left empty, it hides nothing.
        agreement = arrays["agreement"]
        overlays["agreement"] = np.where((numbers > 0) | (agreement < 1), agreement, 0)
    title = str(facts["model"].get("title") or facts["model"].get("id"))
    return Segmented(
        box_of_answer(answer),
        parts,
        overlays,
        request.sidecar(answer),
        "trained",
        organ,
        None,
        title,
    )
