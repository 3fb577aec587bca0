"""`difftumor learn`: a few labeled slices of a case become a segmentation of all of it, and a model folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from difftumor import task
from difftumor.commands.common import model_of_slices, resolved_model, tell_device
from difftumor.commands.console import Reporter
from difftumor.commands.inputs import CaseFiles, CaseImages
from difftumor.commands.loop import run_cases
from difftumor.commands.run import MODEL, SIDECAR, CaseCommand, Done, report
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import AppliedParameters, LearningParameters, to_dict
from difftumor.provenance import sidecar_path, write_json
from difftumor.weights.models import ModelError, find_model

LearningOptions: Any = options_of(LearningParameters, defaults={"model": None})
MODELS = {1: "demo-abdomen-anomaly"}  # by number of images; several sequences are a head
NOTICE = "Segmentation by DiffTumorSlicer, learned from labeled slices. Never for diagnosis."
DOUBT_NOTICE = "Disagreement of pixel classifiers by DiffTumorSlicer, 0 to 1. Never for diagnosis."


@dataclass(kw_only=True)
class Learn(LearningOptions, CaseCommand):
    """Segment a CT, or the sequences of an MR examination, after a few labeled slices of the same case.

    Label the tumor on two or three slices, completely: what is not painted on them counts as background. Classifiers
    train in seconds on the features that a diffusion model sees in these slices; then the other slices are segmented.
    The output tells which slice to label next. With one more labeled slice run the same command again.
    """

    task_name = "learn"
    ending = "learned"
    table = "learning.csv"
    columns = ("labelled", "next_slice", "label", "volume_mm3", "out")
    packs = (LearningParameters,)
    single = ("report", "uncertainty_out", "model_out")

    labels: Annotated[Path | None, tyro.conf.arg(metavar="MASK")] = None
    """Labels on a few slices, on the grid of the images (brain: 1 edema, 2 necrotic core, 3 enhancing tumor). With
    --batch write {case} in its name."""
    learned: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Instead of labels: what was learned before (--model-out). It suits the case that it was learned from."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Segmentation of all slices, with the values of the labels; of many cases a folder."""
    uncertainty_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the classifiers disagree, 0 to 1."""
    model_out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Model folder of what was learned."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Volumes, areas and disagreement of each slice."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        if self.datalist is None:
            self._check_source()
        return run_cases(self)

    def _check_source(self) -> None:
        if (self.labels is None) == (self.learned is None):
            raise UsageError(
                "give either the labels of a few slices (--labels MASK) or what was learned before (--learned FOLDER)"
            )
        if self.learned is not None and self.model_out is not None:
            raise UsageError("--model-out needs --labels: with --learned nothing is learned")

    def parameters(self) -> LearningParameters:
        """The engine's parameter pack of these options.  Raises: UsageError: out of range."""
        self._check_source()
        return parameters_of(LearningParameters, self, model=resolved_model(self._model()))

    def _model(self) -> str:
        """The diffusion model.  Raises: ModelError: it was learned with none that we know."""
        if self.learned is not None and not self.model:
            return features_of(self.learned)
        return self.model or MODELS.get(len(self.images) or 1, LearningParameters.model)

    def model_names(self) -> tuple[str, ...]:
        """See `CaseCommand`."""
        try:
            return (self._model(),)
        except ModelError:
            return (str(self.learned),)

    def record(self, parameters: Any) -> tuple[task.Task, Any]:
        """See `CaseCommand`."""
        from difftumor.learning.task import APPLY, LEARN

        if self.learned is None:
            return LEARN, parameters
        plane, slices, model = parameters.plane, parameters.slices, parameters.model
        return APPLY, AppliedParameters(str(self.learned), plane, slices, model)

    def channels(self) -> tuple[str, ...]:
        """See `CaseCommand`."""
        return model_of_slices(self._model(), ("anomaly", "representation"))

    def files(self) -> CaseFiles:
        """See `CaseCommand`."""
        return replace(super().files(), labels=self.labels)

    def inputs(self, images: CaseImages) -> dict[str, dict[str, Any]]:
        """See `CaseCommand`; what was learned before is one."""
        if self.learned is None:
            return images.described
        sha256 = find_model(self.learned).card["sha256"]
        return {
            **images.described,
            "learned": {"path": str(self.learned.resolve()), "sha256": sha256},
        }

    def outputs(self) -> dict[str, Path]:
        """See `CaseCommand`."""
        named = {
            "segmentation": self.out,
            "uncertainty": self.uncertainty_out,
            "report": self.report,
            MODEL: self.model_out,
            SIDECAR: sidecar_path(self.out),
        }
        return {role: path for role, path in named.items() if path is not None}

    def write(self, role: str, done: Done, path: Path) -> None:
        """See `CaseCommand`."""
        assert done.outcome is not None
        result = done.outcome.result
        if role == "segmentation":
            done.write_volume(result.segmentation, path, NOTICE)
        elif role == "uncertainty":
            done.write_volume(result.uncertainty, path, DOUBT_NOTICE)
        elif role == "report":
            write_json(report(done.content, "difftumor-learning-report"), path)
        else:
            from difftumor.learning.learned import write_learned_model

            card = {**result.learned.card, "id": id_of(path)}
            write_learned_model(path, replace(result.learned, card=card))

    def values(self, parameters: Any, result: Any) -> dict[str, Any]:
        """See `CaseCommand`."""
        values = to_dict(parameters)
        return values | {name: value for name, value in result.settings.items() if name in values}

    def rows(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """See `CaseCommand`: one for each label and region."""
        result = content["result"]
        told = {
            "labelled": " ".join(map(str, result["labelled"])),
            "next_slice": result["next_slice"],
            "out": self.out.name,
        }
        return [
            {**told, "label": name, "volume_mm3": volume}
            for name, volume in result["volumes_mm3"].items()
        ]

    def in_a_line(self, content: dict[str, Any] | None) -> str:
        """See `CaseCommand`."""
        result = (content or {})["result"]
        volumes = ", ".join(
            f"{name} {volume / 1000:.2f} ml" for name, volume in result["volumes_mm3"].items()
        )
        if self.learned is not None:
            return f"segmented with {self.learned}: {volumes}"
        following = (
            f"; to improve it, label slice {result['next_slice']} next"
            if result["next_slice"] is not None
            else ""
        )
        return f"learned from {len(result['labelled'])} slices: {volumes}{following}"

    def tell_device(self, reporter: Reporter) -> None:
        """See `CaseCommand`."""
        tell_device(self.device, self._model(), reporter, "less than a minute on two cores")


def id_of(folder: Path) -> str:
    """Id of a model by the name of its folder."""
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in folder.name.lower())
    return name.lstrip("._-")[:80] or "learned"


def features_of(learned: Path) -> str:
    """The diffusion model that something was learned with.  Raises: ModelError: it is no such folder."""
    told = find_model(learned).card.get("architecture", {}).get("arguments", {})
    if not isinstance(told, dict) or "features_of" not in told:
        raise ModelError(
            f"{learned} is no folder of what was learned from labeled slices. Give a folder that was written with "
            "--model-out, or labels (--labels MASK)."
        )
    return str(told["features_of"]["id"])
