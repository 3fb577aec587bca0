"""The task `segmentation` as a record.

In: one CT and, optionally, an organ. Out: of a box `labels`, `numbers`, `probability` and, of several models,
`agreement`, as `SegmentationResult` describes them.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from difftumor.parameters import SegmentationParameters
from difftumor.segmentation.model import SegmentationModel, load_segmentation_models
from difftumor.segmentation.segment import SegmentationResult, segment
from difftumor.task import Case, Progress, Task


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One or several models, and what a side-car says of them."""

    models: Sequence[SegmentationModel]

    @property
    def facts(self) -> dict[str, Any]:
        """Of one model its facts; of several a name for all, and `members`."""
        members = [model.facts for model in self.models]
        if len(members) == 1:
            return members[0]
        return {
            "id": "+".join(one["id"] for one in members),
            "title": "Ensemble: " + "; ".join(one["title"] for one in members),
            "sha256": None,
            "members": members,
        }

    @property
    def device_name(self) -> str:
        """Where they compute."""
        return self.models[0].device_name


def load(
    parameters: SegmentationParameters,
    device: str,
    cache: MutableMapping[str, Any],
    progress: Progress,
) -> Ensemble:
    """The networks; see `load_segmentation_models`."""
    return Ensemble(load_segmentation_models(parameters.models, device, cache, progress))


def run(
    case: Case,
    parameters: SegmentationParameters,
    model: Ensemble,
    progress: Progress,
    cache: MutableMapping[str, Any],
    _on_partial: object,
) -> SegmentationResult:
    """Arguments as of `segment`."""
    return segment(case.scan, case.grid, case.organ, parameters, model.models, progress, cache)


def arrays(result: SegmentationResult) -> dict[str, NDArray[Any]]:
    """Of `result.box`."""
    found: dict[str, NDArray[Any]] = {
        "labels": result.labels,
        "numbers": result.numbers,
        "probability": result.probability,
    }
    return found if result.agreement is None else found | {"agreement": result.agreement}


SEGMENTATION = Task(
    "segmentation",
    SegmentationParameters,
    load,
    run,
    arrays,
    output=lambda result, _case: result.whole(result.labels),
    facts=SegmentationResult.facts,
)
