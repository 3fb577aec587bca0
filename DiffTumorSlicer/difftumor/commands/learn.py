"""`difftumor learn`: a few labelled slices of a case become a segmentation of all of it, and a model folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from difftumor import task
from difftumor.commands.anomaly_inputs import Case, CaseImages, assign_channels, read_case
from difftumor.commands.anomaly_outputs import plain, report
from difftumor.commands.common import CommonOptions, resolved_model, tell_device
from difftumor.commands.stopping import Stopping
from difftumor.console import Reporter, say
from difftumor.grids import Grid
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import VolumeError, parse_mask_argument, read_volume, write_volume
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import AppliedParameters, LearningParameters, to_dict
from difftumor.provenance import describe, image_hash, sidecar_path, write_json
from difftumor.weights.models import ModelError, find_model

if TYPE_CHECKING:
    from difftumor.learning.learned import LearnedModel
    from difftumor.learning.result import LearnedResult

LearningOptions: Any = options_of(LearningParameters, defaults={"model": None})
MODELS = {1: "demo-abdomen-anomaly"}  # by number of images; several sequences are a head
NOTICE = "Segmentation by DiffTumorSlicer, learned from labelled slices. Never for diagnosis."
DOUBT_NOTICE = "Disagreement of pixel classifiers by DiffTumorSlicer, 0 to 1. Never for diagnosis."


@dataclass(kw_only=True)
class Learn(LearningOptions, CommonOptions):
    """Segment a CT, or the sequences of an MR examination, after a few labelled slices of the same case.

    Label the tumor on two or three slices, completely: what is not painted on them counts as background. Classifiers
    train in seconds on the features that a diffusion model sees in these slices; then the other slices are segmented.
    The output tells which slice to label next. With one more labelled slice run the same command again.
    """

    images: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGE...")]]
    """One CT, or the sequences of an MR examination: NIfTI, NRRD, MHA, or a DICOM folder. Sequences are told by the
    names of the files (t1, t1c, t2, flair); where they are not, write t1=PATH."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="MASK")] = None
    """Labels on a few slices, on the grid of the images (brain: 1 edema, 2 necrotic core, 3 enhancing tumor)."""
    learned: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Instead of labels: what was learned before (--model-out). It suits the case that it was learned from."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Segmentation of all slices, with the values of the labels."""
    organ: Annotated[str | None, tyro.conf.arg(metavar="MASK[:label]")] = None
    """Organ mask (of a head: brain mask); nothing outside is looked at."""
    uncertainty_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the classifiers disagree, 0 to 1."""
    model_out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Model folder of what was learned."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Volumes, areas and disagreement of each slice."""
    series: str | None = None
    """Series of a DICOM folder that holds several."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        if (self.labels is None) == (self.learned is None):
            raise UsageError(
                "give either the labels of a few slices (--labels MASK) or what was learned before (--learned FOLDER)"
            )
        if self.learned is not None and self.model_out is not None:
            raise UsageError("--model-out needs --labels: with --learned nothing is learned")
        parameters = self.parameters()
        channels, modality = channels_of_model(parameters.model)
        files = assign_channels(self.images, channels)
        inputs = Case(Path(next(iter(files.values()))).name, files, self.organ)
        masks = [parse_mask_argument(self.organ)[0]] if self.organ else []
        masks += [self.labels] if self.labels else []
        check_outputs(self._outputs(), [*files.values(), *masks], overwrite=self.overwrite)
        if self.model_out is not None and self.model_out.exists() and not self.overwrite:
            raise FileExistsError(
                f"{self.model_out} exists already. Choose another folder, or add --overwrite."
            )
        with Reporter(self.quiet) as reporter:
            tell_device(self.device, parameters.model, reporter, "less than a minute on two cores")
            images = read_case(inputs, modality, self.series, reporter)
            labels = read_labels(self.labels, images.grid) if self.labels else None
            # Late, because torch takes seconds to import.
            from difftumor.learning.learned import write_learned_model
            from difftumor.learning.task import APPLY, LEARN

            case = task.Case(images.arrays, images.grid, images.organ, labels)
            asked = LEARN, case, parameters
            if labels is None:
                plane, slices = parameters.plane, parameters.slices
                values = str(self.learned), plane, slices, parameters.model
                asked = APPLY, case, AppliedParameters(*values)
            with Stopping(reporter) as stopping:
                outcome = task.run_task(*asked, self.device, {}, stopping.callback)
            result, device = outcome.result, outcome.device
            model = outcome.model.get("features_of", outcome.model)
            for note in result.notes:
                reporter.note(f"Note: {note}")
        self._write(images, labels, parameters, result, model, device)
        if self.model_out is not None:
            write_learned_model(
                self.model_out, renamed(result.learned, self.model_out), overwrite=self.overwrite
            )
        say(self.sentence(result))
        return 0

    def parameters(self) -> LearningParameters:
        """The engine's parameter pack of these options.  Raises: UsageError: out of range."""
        model = self.model or MODELS.get(len(self.images), LearningParameters.model)
        if self.learned is not None and not self.model:
            model = features_of(self.learned)
        return parameters_of(LearningParameters, self, model=resolved_model(model))

    def sentence(self, result: LearnedResult) -> str:
        """The result in a line."""
        volumes = ", ".join(
            f"{name} {volume / 1000:.2f} ml" for name, volume in result.volumes_mm3.items()
        )
        following = (
            f"; to improve it, label slice {result.next_slice} next"
            if result.next_slice is not None
            else ""
        )
        how = f"learned from {len(result.labelled)} slices"
        if self.learned is not None:
            how, following = f"segmented with {self.learned}", ""
        return f"{how}: {volumes}{following}: {self.out}, side-car {sidecar_path(self.out)}"

    def _outputs(self) -> list[Path]:
        """All files; the side-car comes last."""
        wanted = (self.out, self.uncertainty_out, self.report)
        return [*(path for path in wanted if path is not None), sidecar_path(self.out)]

    def _write(
        self,
        images: CaseImages,
        labels: NDArray[np.generic] | None,
        parameters: LearningParameters,
        result: LearnedResult,
        model: dict[str, Any],
        device: str,
    ) -> None:
        """Write all files, or none."""
        segmentation, first = result.segmentation, images.first
        inputs = dict(images.described)
        if self.labels is not None and labels is not None:
            sha256 = image_hash(labels, images.grid.affine)
            inputs["labels"] = {"path": str(self.labels.resolve()), "sha256": sha256}
        elif self.learned is not None:
            sha256 = find_model(self.learned).card["sha256"]
            inputs["learned"] = {"path": str(self.learned.resolve()), "sha256": sha256}
        facts = {"output_sha256": image_hash(segmentation, first.affine), **result.facts()}
        values = to_dict(parameters)
        values |= {name: value for name, value in result.settings.items() if name in values}
        content = describe("learn", values, inputs, model, facts, device)
        paths = self._outputs()
        with staged(paths, overwrite=self.overwrite) as stand_ins:
            place = dict(zip(paths, stand_ins, strict=True))
            write_volume(
                plain(first, segmentation), place[self.out], metadata={"description": NOTICE}
            )
            if self.uncertainty_out is not None:
                write_volume(
                    plain(first, result.uncertainty),
                    place[self.uncertainty_out],
                    metadata={"description": DOUBT_NOTICE},
                )
            if self.report is not None:
                write_json(report(content, "difftumor-learning-report"), place[self.report])
            write_json(content, place[sidecar_path(self.out)])


def read_labels(path: Path, grid: Grid) -> NDArray[np.generic]:
    """Labels on the grid of the images.

    Raises: VolumeError, FileNotFoundError: the file cannot be used. LearningError: it lies on another grid.
    """
    from difftumor.learning.labels import check_labels_grid

    volume = read_volume(path)
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise VolumeError(f"{path} is no label map: it has values that are not finite.")
    check_labels_grid(volume.grid, grid)
    return volume.array


def renamed(learned: LearnedModel, folder: Path) -> LearnedModel:
    """The same with the name of its folder as id."""
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in folder.name.lower()).lstrip(
        "._-"
    )
    return replace(learned, card={**learned.card, "id": name[:80] or "learned"})


def features_of(learned: Path) -> str:
    """The diffusion model that something was learned with.  Raises: ModelError: it is no such folder."""
    told = find_model(learned).card.get("architecture", {}).get("arguments", {})
    if not isinstance(told, dict) or "features_of" not in told:
        raise ModelError(
            f"{learned} is no folder of what was learned from labelled slices. Give a folder that was written with "
            "--model-out, or labels (--labels MASK)."
        )
    return str(told["features_of"]["id"])


def channels_of_model(model: str) -> tuple[tuple[str, ...], str]:
    """Images that a diffusion model takes, and its modality.

    Raises: ModelError: not installed, or of another task.
    """
    card = find_model(model).card
    if card.get("task") not in ("anomaly", "representation") or not card.get("channel_order"):
        raise ModelError(
            f"{model} is a model for {card.get('task') or 'something else'}; features of pixels come from a diffusion "
            "model of slices, of the task anomaly or representation. `difftumor models list` shows which are."
        )
    return tuple(card["channel_order"]), str(card.get("modality", "CT"))
