"""Requests for segmentations: with trained models, with what was learned before, and learning from painted slices.

Everything that can be refused is refused before a job starts. All three end in a segmentation beside the scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.parameters import LearningParameters, SegmentationParameters, to_dict
from DiffTumorSlicerLib.jobs.case_models import model_facts
from DiffTumorSlicerLib.jobs.cases import Case, read_case
from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.inputs import as_parameters, sidecar, watch
from DiffTumorSlicerLib.jobs.jobs import Answer, Job, Outcome, SessionError
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.room import check_free
from DiffTumorSlicerLib.jobs.wording import capitalized
from DiffTumorSlicerLib.scene.segments import box_of
from DiffTumorSlicerLib.scene.volume_nodes import volume_array
from DiffTumorSlicerLib.segmentation.measuring import rows_of
from DiffTumorSlicerLib.segmentation.models import LEARNING, TASK, is_learned, task_of
from DiffTumorSlicerLib.segmentation.painting import (
    BRAIN,
    OUTERMOST,
    Painted,
    check_painted,
    read_painted,
)
from DiffTumorSlicerLib.segmentation.results import (
    ORGAN_COLOR,
    Part,
    Segmented,
    add_segmented,
)
from DiffTumorSlicerLib.translation import tr as _

PANEL = "segmentation"
LEARN, APPLY = "learn", "apply_learned"
# A worker with its networks at their peak; and what it keeps per voxel of the organ's box.
MODEL_MEMORY = 2_500_000_000
BYTES_PER_VOXEL = 40
SPARE_DISK = 64_000_000
Request = dict[str, Any]


def segment(
    session: Any,
    parameters: Mapping[str, Any],
    images: Any,
    *,
    area_node: Any | None = None,
    segment_id: str | None = None,
    probability: bool = True,
    device: str = "auto",
) -> int:
    """Segment the tumors of a case with one or several models, or with what was learned before.

    Args:
        session: starts the job; its scene gets the result.
        parameters: fields of `SegmentationParameters`; "plane" counts for what was learned.
        images: a CT volume node, or sequence ('t1', 't1c', 't2', 'flair') -> volume node; never changed.
        area_node: segmentation with the organ, optional.
        segment_id: of the organ; the only segment if None.
        probability: whether the probability is kept as a volume.
        device: 'auto', 'cpu', 'cuda', 'mps'.

    Returns: the number of the job. Its result is in the state's `result_node_id` at the end.
    Raises: SessionError: what is wrong, and the next step; nothing has been started then.
    """
    plain = dict(parameters)
    plane = plain.pop("plane", "axial")
    asked = as_parameters(SegmentationParameters, plain)
    for model in asked.models:
        check_model(model, TASK, _("segmentation"))
    learned = [model for model in asked.models if is_learned(model)]
    if learned and len(asked.models) > 1:
        raise SessionError(
            _(
                '"{title}" was learned from slices and cannot be combined with other models. Choose it alone.'
            ).format(title=model_facts(learned[0]).title)
        )
    model = model_facts(asked.models[0])
    case = read_case(model, images, area_node, segment_id)
    _check_room(case, session.host)
    scene = session.scene
    if learned:
        values = {"model": learned[0], "plane": plane}

        def show(answers: list[Answer]) -> Outcome:
            made = _learned(case, APPLY, values, answers[0], None, model.organs)
            return _shown(scene, case, made, answers[0])

        return session.start(_job(scene, APPLY, case, {"parameters": values}, show, device))

    def finish(answers: list[Answer]) -> Outcome:
        made = _segmented(case, asked, answers[0], model.organs, probability)
        return _shown(scene, case, made, answers[0])

    request = {"parameters": to_dict(asked)}
    return session.start(_job(scene, TASK, case, request, finish, device, alone="scan"))


def learn(
    session: Any,
    parameters: Mapping[str, Any],
    images: Any,
    labels: Any,
    *,
    area_node: Any | None = None,
    segment_id: str | None = None,
    model_folder: Path | None = None,
    device: str = "auto",
) -> int:
    """Learn from the painted slices of a case, and segment its other slices.

    Args:
        session, images, area_node, segment_id, device: as of `segment`.
        parameters: fields of `LearningParameters`, without the labelled slices.
        labels: segmentation that was painted on the images (`painting`); never changed.
        model_folder: where the worker writes what it has learned.

    Returns, Raises: as `segment`.
    """
    plain = dict(parameters)
    task = task_of(plain.get("model", ""))
    check_model(
        plain.get("model", ""), task if task in LEARNING else LEARNING[0], _("learning from slices")
    )
    model = model_facts(plain["model"])
    case = read_case(model, images, area_node, segment_id)
    if case.organ is None and model.organs and not model.of_brain:
        raise SessionError(
            _(
                "The model knows the inside of one organ only: {organs}. Choose the segment of the organ, or segment "
                "it first, for instance with TotalSegmentator."
            ).format(organs=", ".join(model.organs))
        )
    painted = read_painted(labels, case.source, plain.get("plane", "axial"))
    check_painted(painted)
    asked = as_parameters(LearningParameters, {**plain, "labelled": painted.labelled})
    _check_room(case, session.host)

    def finish(answers: list[Answer]) -> Outcome:
        values = to_dict(asked)
        made = _learned(case, LEARN, values, answers[0], painted, model.organs, labels)
        return _shown(session.scene, case, made, answers[0])

    request: Request = {"parameters": to_dict(asked)}
    if model_folder is not None:
        request["model_folder"] = str(model_folder)
    job = _job(session.scene, LEARN, case, request, finish, device, labels=painted.labels)
    return session.start(job)


def _job(
    scene: Any,
    task: str,
    case: Case,
    request: Request,
    finish: Callable[[list[Answer]], Outcome],
    device: str,
    *,
    alone: str = "",
    labels: NDArray[np.uint8] | None = None,
) -> Job:
    arrays = case.arrays(alone=alone)
    if labels is not None:
        arrays["labels"] = labels
    content = {**request, "affine": case.grid.affine.tolist(), "device": device}
    button = _("Learn from my slices") if task == LEARN else _("Segment")
    gone = watch(scene, case.images.values(), button)
    return Job(PANEL, task, [("", content)], finish, lambda: arrays, gone, of_scene=True)


def _check_room(case: Case, host: Host) -> None:
    """Compare what is needed with the memory and the disk that are free.  Raises: SessionError: too little."""
    arrays = [volume_array(node) for node in case.images.values()]
    scans, size = sum(array.nbytes for array in arrays), arrays[0].size
    box = None if case.organ is None else box_of(case.organ)
    inside = size if box is None else math.prod(part.stop - part.start for part in box)
    needed = 2 * scans + BYTES_PER_VOXEL * inside + MODEL_MEMORY
    check_free(host, needed, 2 * scans + 16 * inside + SPARE_DISK)


def _box(facts: Mapping[str, Any]) -> tuple[slice, slice, slice]:
    i, j, k = (slice(start, stop) for start, stop in facts["box"])
    return i, j, k


def _segmented(
    case: Case,
    asked: SegmentationParameters,
    answer: Answer,
    organs: tuple[str, ...],
    probability: bool,
) -> Segmented:
    """The answer of trained models: a segment for each lesion."""
    facts, arrays = answer.metadata, answer.arrays
    numbers, labels = arrays["numbers"], arrays["labels"]
    parts = [
        Part(row["name"][:1].upper() + row["name"][1:], numbers == row["number"], None, row)
        for row in facts["lesions"]
    ]
    organ = organs[0] if len(organs) == 1 else ""
    if case.organ is None and (labels > 0).any():
        name = _("{organ}, as the model sees it").format(organ=(organ or _("organ")).capitalize())
        parts.append(Part(name, labels > 0, ORGAN_COLOR, around=True))
    overlays = {}
    if probability:
        overlays["probability"] = arrays["probability"]
    if "agreement" in arrays:
        # Where all models see no tumor there is nothing to look at; left empty, it hides nothing.
        agreement = arrays["agreement"]
        overlays["agreement"] = np.where((numbers > 0) | (agreement < 1), agreement, 0)
    made = _sidecar(TASK, to_dict(asked), case, facts, organs)
    title = str(facts["model"].get("title") or facts["model"].get("id"))
    return Segmented(_box(facts), parts, overlays, made, "trained", organ, None, title)


def _learned(
    case: Case,
    task: str,
    values: Mapping[str, Any],
    answer: Answer,
    painted: Painted | None,
    organs: tuple[str, ...],
    labels: Any | None = None,
) -> Segmented:
    """The answer of pixel classifiers: a segment for each label, named and colored as it was painted."""
    facts, box = answer.metadata, _box(answer.metadata)
    found = answer.arrays["segmentation"]
    names = {int(label): name for label, name in facts["label_names"].items()}
    colors = painted.colors if painted is not None else {}
    if painted is not None:
        names |= painted.names
    titles = _titles(names)
    masks = {titles[label]: found == label for label in sorted(names)}
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
    made = _sidecar(task, values, case, facts, organs)
    count = len(facts["labelled"])
    title = (
        _("learned from 1 slice")
        if count == 1
        else _("learned from {count} slices").format(count=count)
    )
    if painted is None:
        title = str(facts["model"].get("title"))
    organ = organs[0] if len(organs) == 1 else ""
    overlays = {"uncertainty": answer.arrays["uncertainty"]}
    return Segmented(box, parts, overlays, made, "learned", organ, labels, title)


def _titles(names: Mapping[int, str]) -> dict[int, str]:
    """Names of labels as segments show them, each a different one."""
    given = list(names.values())
    return {
        label: name[:1].upper() + name[1:] + (f" ({label})" if given.count(name) > 1 else "")
        for label, name in names.items()
    }


def _sidecar(
    task: str,
    values: Mapping[str, Any],
    case: Case,
    facts: Mapping[str, Any],
    organs: tuple[str, ...],
) -> dict[str, Any]:
    hashes = facts.get("sha256", {})
    told = ("box", "lesions", "settings", "windows", "label_names", "labelled", "next_slice", "slices", "volumes_mm3",
            "left_out", "training", "notes")  # fmt: skip
    result = {name: facts[name] for name in told if name in facts}
    result |= {"output_sha256": hashes.get("output"), "organs": list(organs)}
    if "next_slice" in facts:
        result["next_slice_mm"] = _position(facts)
    return sidecar(task, values, case.inputs(hashes), result, facts)


def _position(facts: Mapping[str, Any]) -> float | None:
    """Where the slice is that would help most, along its plane's normal; positions outlive indices."""
    wanted = facts["next_slice"]
    return next((one["position_mm"] for one in facts["slices"] if one["index"] == wanted), None)


def _shown(scene: Any, case: Case, made: Segmented, answer: Answer) -> Outcome:
    """Add the result to the scene, and say what it is."""
    facts = answer.metadata
    node = add_segmented(scene, case.source, made)
    lesions = [part for part in made.parts if part.row is not None and part.mask.any()]
    volume = sum(float(part.row["volume_mm3"]) for part in lesions if part.row) / 1000
    if not lesions:
        sentence = _(
            'No tumor was found in "{name}". Choose another model or a lower threshold, or paint it and learn from '
            "your slices."
        ).format(name=case.source.GetName())
    elif made.kind == "trained":
        sentence = _("{count} found, {volume} ml in all.").format(
            count=_("1 lesion") if len(lesions) == 1 else _("{n} lesions").format(n=len(lesions)),
            volume=f"{volume:.1f}",
        )
    else:
        sentence = _("The other slices are segmented: {volume} ml in all.").format(
            volume=f"{volume:.1f}"
        )
    notes = tuple(dict.fromkeys(capitalized(note) for note in facts.get("notes", [])))
    windows = (facts.get("windows") or {}).get("computed", 0)
    report = {"kind": made.kind, "windows": windows, "learned": facts.get("learned") is not None}
    return Outcome(sentence, (node.GetID(),), notes, report)
