"""The job of a wish for a synthetic tumor, and how its answers become nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np

from difftumor.parameters import SynthesisParameters, to_dict
from DiffTumorSlicerLib.jobs.inputs import image_facts, segment_facts, sidecar, watch
from DiffTumorSlicerLib.jobs.jobs import Answer, Job, Outcome
from DiffTumorSlicerLib.jobs.wording import capitalized
from DiffTumorSlicerLib.scene.results import segmentation_of
from DiffTumorSlicerLib.scene.volume_nodes import volume_array
from DiffTumorSlicerLib.synthesis.request import PANEL, TASK, Wish
from DiffTumorSlicerLib.synthesis.results import (
    VARIANT_NAME,
    VARIANTS,
    Tumor,
    add_tumor,
    copy_result,
    remove_result,
)
from DiffTumorSlicerLib.translation import tr as _


def synthesis_job(scene: Any, asked: Wish, seeds: Sequence[int] = ()) -> Job:
    """The job of a wish.

    Args:
        scene: of the nodes.
        asked: checked.
        seeds: of variants to choose from, whose results appear together at the end; none for one result.
    """
    packs = [replace(asked.parameters, seed=seed) for seed in seeds] or [asked.parameters]
    many = len(packs) > 1
    requests = [
        (
            _("variant {index} of {count}").format(index=index, count=len(packs)) if many else "",
            {
                "parameters": to_dict(pack),
                "affine": asked.grid.affine.tolist(),
                "device": asked.device,
            },
        )
        for index, pack in enumerate(packs, start=1)
    ]
    arrays = {"scan": volume_array(asked.source)}
    if asked.organ is not None:
        arrays["organ"] = asked.organ.astype(np.uint8)

    def finish(answers: list[Answer]) -> Outcome:
        tumors = [_tumor(asked, pack, answer) for pack, answer in zip(packs, answers, strict=True)]
        if seeds:
            return _show_variants(scene, asked, tumors)
        node = add_tumor(scene, asked.source, tumors[0], into=asked.into)
        return _outcome(scene, [node], tumors)

    gone = watch(scene, [asked.source], _("Synthesize"))
    return Job(PANEL, TASK, requests, finish, lambda: arrays, gone, of_scene=True)


def _tumor(asked: Wish, parameters: SynthesisParameters, answer: Answer) -> Tumor:
    """The answer of the worker as a tumor with its side-car."""
    facts = answer.metadata
    hashes = facts.get("sha256", {})
    inputs = {"scan": image_facts(asked.source, asked.grid, hashes.get("scan"))}
    if asked.segmentation is not None:
        inputs["organ"] = segment_facts(asked.segmentation, asked.segment_id, hashes.get("organ"))
    result = {
        "output_sha256": hashes.get("output"),
        "lesions": facts["lesions"],
        "notes": facts["notes"],
    }
    i, j, k = (slice(start, stop) for start, stop in facts["box"])
    return Tumor(
        (i, j, k),
        answer.arrays["patch"],
        answer.arrays["mask"].astype(bool),
        len(facts["lesions"]),
        parameters.organ,
        sidecar(TASK, to_dict(parameters), inputs, result, facts),
    )


def _show_variants(scene: Any, asked: Wish, tumors: list[Tumor]) -> Outcome:
    """All variants as results of their own, or none if one fails."""
    group = uuid4().hex
    nodes: list[Any] = []
    try:
        for index, tumor in enumerate(tumors, start=1):
            name = VARIANT_NAME.replace("{variant}", str(index))
            copy = None
            if asked.into is not None:
                copy = copy_result(scene, asked.into, name)
                nodes.append(copy)
            node = add_tumor(scene, asked.source, tumor, into=copy, name=name)
            node.SetAttribute(VARIANTS, group)
            if copy is None:
                nodes.append(node)
    except Exception:
        for node in nodes:
            remove_result(scene, node)
        raise
    outcome = _outcome(scene, nodes, tumors)
    sentence = _("{count} variants are ready. Choose the one to keep.").format(count=len(nodes))
    return replace(outcome, sentence=sentence)


def _outcome(scene: Any, nodes: list[Any], tumors: list[Tumor]) -> Outcome:
    lesions = [lesion for tumor in tumors for lesion in tumor.sidecar["result"]["lesions"]]
    volume = sum(lesion.get("volume_mm3", 0.0) for lesion in lesions) / 1000
    if len(lesions) == 1:
        said = _('A synthetic tumor of {volume:.2f} ml is in "{name}".')
    else:
        said = _('{count} synthetic tumors of {volume:.2f} ml are in "{name}".')
    sentence = said.format(count=len(lesions), volume=volume, name=nodes[0].GetName())
    notes = [capitalized(n) for tumor in tumors for n in tumor.sidecar["result"]["notes"]]

    def show_in_3d() -> None:
        for node in nodes:
            segmentation = segmentation_of(node) if scene.IsNodePresent(node) else None
            if segmentation is not None:
                segmentation.CreateClosedSurfaceRepresentation()

    return Outcome(
        sentence,
        tuple(node.GetID() for node in nodes),
        tuple(dict.fromkeys(notes)),
        later=show_in_3d,
    )
