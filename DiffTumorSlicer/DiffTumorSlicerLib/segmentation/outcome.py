"""What all requests for segmentations share: their memory, their side-car, and the sentence at the end."""

from __future__ import annotations

import math
from typing import Any

from DiffTumorSlicerLib.jobs.cases import Case
from DiffTumorSlicerLib.jobs.jobs import Answer, Outcome
from DiffTumorSlicerLib.jobs.request import notes_of
from DiffTumorSlicerLib.scene.segments import box_of
from DiffTumorSlicerLib.segmentation.results import Segmented, add_segmented
from DiffTumorSlicerLib.translation import tr as _

BYTES_PER_VOXEL = 40  # that the worker keeps of the organ's box
STATED = (
    "box", "lesions", "settings", "windows", "label_names", "labelled", "next_slice", "slices", "volumes_mm3",
    "left_out", "training", "notes",
)  # fmt: skip


def needs(case: Case) -> dict[str, Any]:
    """Memory and disk of a request."""
    box = None if case.organ is None else box_of(case.organ)
    inside = case.voxels if box is None else math.prod(part.stop - part.start for part in box)
    return {
        "memory": 2 * case.nbytes + BYTES_PER_VOXEL * inside,
        "disk": 2 * case.nbytes + 16 * inside,
    }


def show_segmented(scene: Any, case: Case, made: Segmented, answer: Answer) -> Outcome:
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
    windows = (facts.get("windows") or {}).get("computed", 0)
    report = {"kind": made.kind, "windows": windows, "learned": facts.get("learned") is not None}
    return Outcome(sentence, (node.GetID(),), notes_of([answer]), report)
