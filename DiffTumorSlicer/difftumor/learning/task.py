"""The tasks `learn` and `apply_learned` as records.

In: the images of a diffusion model, labels to learn from and, optionally, an organ. Out: of a box `segmentation` and
`uncertainty`, as `LearnedResult` describes them.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from difftumor.learning.features_model import FeatureModel, load_feature_model
from difftumor.learning.labels import LearningError
from difftumor.learning.learn import apply_learned, learn
from difftumor.learning.learned import LearnedModel, read_learned_model, write_learned_model
from difftumor.learning.result import LearnedResult
from difftumor.parameters import AppliedParameters, LearningParameters
from difftumor.task import Case, Progress, Task
from difftumor.weights.models import InstalledModel, find_model


def load(
    parameters: LearningParameters,
    device: str,
    cache: MutableMapping[str, Any],
    progress: Progress,
) -> FeatureModel:
    """The diffusion model; see `load_feature_model`."""
    return load_feature_model(parameters.model, device, cache, progress)


def run(
    case: Case,
    parameters: LearningParameters,
    model: FeatureModel,
    progress: Progress,
    cache: MutableMapping[str, Any],
    _on_partial: object,
) -> LearnedResult:
    """Arguments as of `learn`; what was learned is kept in the result.

    Raises:
        LearningError: no labels, or as `learn`.
    """
    if case.labels is None:
        raise LearningError("the request has no labels. Paint the tumor on at least one slice.")
    result, learned = learn(
        *(case.images, case.grid, case.organ, case.labels, parameters, model, progress, cache)
    )
    return replace(result, learned=learned)


def arrays(result: LearnedResult) -> dict[str, NDArray[Any]]:
    """Of `result.box`."""
    return {"segmentation": result.labels_box, "uncertainty": result.uncertainty_box}


def answer(result: LearnedResult, request: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model folder of what was learned where the request names one ("model_folder"); tell its card."""
    if not request.get("model_folder"):
        return {"learned": None}
    return {"learned": write_learned_model(request["model_folder"], result.learned, overwrite=True)}


@dataclass(frozen=True, eq=False)
class Applied:
    """Something learned before, and the diffusion model that it sees with."""

    installed: InstalledModel
    learned: LearnedModel
    model: FeatureModel

    @property
    def facts(self) -> dict[str, Any]:
        """Of what was learned, and of the diffusion model as "features_of"."""
        card = self.learned.card
        facts = {"id": self.installed.id, "title": card["title"], "sha256": card.get("sha256")}
        return {**facts, "features_of": self.model.facts}

    @property
    def device_name(self) -> str:
        """Where it computes."""
        return self.model.device_name


def load_applied(
    parameters: AppliedParameters,
    device: str,
    cache: MutableMapping[str, Any],
    progress: Progress,
) -> Applied:
    """What was learned, and the diffusion model that it names unless another one is asked for."""
    installed = find_model(parameters.model)
    learned = read_learned_model(installed.path)
    source = parameters.features or str(learned.features_of["id"])
    return Applied(installed, learned, load_feature_model(source, device, cache, progress))


def run_applied(
    case: Case,
    parameters: AppliedParameters,
    model: Applied,
    progress: Progress,
    cache: MutableMapping[str, Any],
    _on_partial: object,
) -> LearnedResult:
    """Arguments as of `apply_learned`."""
    plane, slices = parameters.plane, parameters.slices
    images = case.images, case.grid, case.organ
    return apply_learned(*images, model.learned, model.model, plane, slices, progress, cache)


LEARN = Task(
    "learn",
    LearningParameters,
    load,
    run,
    arrays,
    output=lambda result, _case: result.segmentation,
    facts=LearnedResult.facts,
    answer=answer,
)
APPLY = Task(
    "apply_learned",
    AppliedParameters,
    load_applied,
    run_applied,
    arrays,
    output=lambda result, _case: result.segmentation,
    facts=LearnedResult.facts,
)
