"""`difftumor replay`: make a result again from its side-car."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from difftumor.commands.anomaly import Anomaly
from difftumor.commands.common import CommonOptions
from difftumor.commands.console import Reporter, say
from difftumor.commands.inputs import CaseFiles, assign_channels
from difftumor.commands.learn import Learn
from difftumor.commands.run import CaseCommand, Done, Request, run_request
from difftumor.commands.segment import Segment
from difftumor.commands.stopping import Stopping
from difftumor.commands.synthesize import Synthesize
from difftumor.images.outputs import check_outputs
from difftumor.options import UsageError
from difftumor.parameters import from_dict
from difftumor.provenance import SidecarError, read_sidecar
from difftumor.synthesis.synthesize import shapes_of

COMMANDS: dict[str, type[CaseCommand]] = {
    command.task_name: command for command in (Synthesize, Anomaly, Segment, Learn)
}
MASKS = ("organ", "labels", "learned")  # inputs that are no image


@dataclass(kw_only=True)
class Replay(CommonOptions):
    """Make a result again from its side-car; the exit code is 1 if a voxel differs from the original."""

    sidecar: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RESULT.json")]]
    """The JSON file beside a result."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Where to write the result made again."""
    scan: Annotated[Path | None, tyro.conf.arg(metavar="CT")] = None
    """The input, if it is no longer where the side-car says, or if the side-car is one of Slicer's."""
    organ: Annotated[str | None, tyro.conf.arg(metavar="MASK[:label]")] = None
    """The organ mask, if it is no longer where the side-car says, or if the side-car is one of Slicer's."""
    labels: Annotated[Path | None, tyro.conf.arg(metavar="MASK")] = None
    """The labels that were learned from, likewise."""
    model: str | None = None
    """The model, if it is no longer where the side-car says."""
    images: Annotated[tuple[str, ...], tyro.conf.arg(metavar="t1=PATH...")] = ()
    """Several input images, if they are no longer where the side-car says."""
    mask_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Tumor mask, or what an anomaly map marks, 0/1."""
    raw_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Anomaly map before scaling."""
    counterfactual_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Image rewritten as healthy."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        content = read_sidecar(self.sidecar)
        request = self.request(content)
        request.check(overwrite=self.overwrite)
        check_outputs(list(request.outputs.values()), [self.sidecar], overwrite=True)
        with Reporter(self.quiet) as reporter, Stopping(reporter) as stopping:
            request.command.tell_device(reporter)
            done = run_request(
                request,
                {},
                stopping,
                overwrite=self.overwrite,
                accept=lambda done: expect_the_same(done, content),
            )
        made, before = done.content["result"], content["result"]
        if made["output_sha256"] == before["output_sha256"]:
            say(f"{self.out} is the same as the original, voxel for voxel")
            return 0
        say(
            f"{self.out} was made by the same request but differs from the original in some voxels: it was "
            f"made on {content.get('device')} with {content.get('versions')}, this one on {done.content['device']}"
        )
        return 1

    def request(self, content: dict[str, Any]) -> Request:
        """What the side-car tells to make again.

        Raises:
            SidecarError: it is damaged, or names no file. UsageError. ModelError.
        """
        if content["task"] not in COMMANDS:
            raise SidecarError(f"results of the task '{content['task']}' cannot be made again")
        kind = COMMANDS[content["task"]]
        command = kind(out=self.out, device=self.device, quiet=self.quiet)
        for option in ("mask_out", "raw_out", "counterfactual_out"):
            path = getattr(self, option)
            if path is not None:
                if not hasattr(command, option):
                    raise UsageError(f"--{option.replace('_', '-')} is of other tasks")
                setattr(command, option, path)
        inputs = content["inputs"]
        try:
            parameters: Any = from_dict(kind.packs[-1], content["parameters"])
            if content["task"] == "synthesis":
                shapes_of(content["result"]["lesions"])
            channels = [role for role in inputs if role not in MASKS]
            series = inputs[channels[0]].get("series")
        except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise SidecarError(f"the side-car's request is damaged ({error!r})") from None
        several = "models" in content["parameters"]
        if self.model is not None:
            parameters = replace(
                parameters, **({"models": (self.model,)} if several else {"model": self.model})
            )
        names = list(parameters.models) if several else [parameters.model]
        setattr(command, "models" if several else "model", tuple(names) if several else names[0])
        if "learned" in inputs:
            command.learned = Path(path_of("learned", inputs["learned"]))  # type: ignore[attr-defined]
        organs, modality = command.model_facts()  # before any file is read
        files = CaseFiles(
            self._images(channels, inputs),
            modality=modality,
            organs=organs,
            series=series,
            single_slice=isinstance(command, Segment),
        )
        if "labels" in inputs:
            files = replace(files, labels=self.labels or Path(path_of("labels", inputs["labels"])))
        if "organ" in inputs:
            files = self._with_organ(files, inputs["organ"])
        outputs = command.outputs()
        return Request(command, parameters, files, outputs, content)

    def _images(self, channels: list[str], inputs: dict[str, Any]) -> dict[str, Path]:
        """Where the images are."""
        if self.images:
            if self.scan is not None:
                raise UsageError("give --scan or --images, not both")
            return assign_channels(self.images, channels)
        if self.scan is None:
            return {channel: Path(path_of(channel, inputs[channel])) for channel in channels}
        if len(channels) > 1:
            raise UsageError(
                f"the result was made from {len(channels)} images: give them all with --images, as "
                + " ".join(f"{channel}=PATH" for channel in channels)
            )
        return {channels[0]: self.scan}

    def _with_organ(self, files: CaseFiles, recorded: dict[str, Any]) -> CaseFiles:
        """The organ mask, with the labels that were taken of it unless others are given."""
        labels = recorded.get("labels") or recorded.get("label")
        given = self.organ or path_of("organ", recorded)
        labels = (labels,) if isinstance(labels, int) else tuple(labels or ())
        by_model = recorded.get("chosen_by") == "model"
        return replace(files, organ=given, organ_labels=labels or None, by_model=by_model)


def expect_the_same(done: Done, content: dict[str, Any]) -> None:
    """Compare inputs and model with those that a side-car describes.  Raises: SidecarError: they differ."""
    words = {"scan": "the scan", "organ": "the organ mask", "labels": "the labels"}
    for role, entry in done.content["inputs"].items():
        if entry["sha256"] != content["inputs"].get(role, {}).get("sha256"):
            raise _another(words.get(role, f"the image {role}"))
    if done.content["model"].get("sha256") != content["model"].get("sha256"):
        raise _another("the model")


def _another(what: str) -> SidecarError:
    return SidecarError(
        f"{what} is not the one that the side-car describes (its contents differ). Give the original, "
        "or make a new result instead of a replay."
    )


def path_of(role: str, recorded: dict[str, Any]) -> str:
    """Path of an input as the side-car names it.

    Raises:
        SidecarError: it names none, as those of volumes and segments that Slicer held in memory.
    """
    if recorded["path"]:
        return str(recorded["path"])
    name = recorded.get("segment") or recorded.get("name") or role
    options = {"organ": "--organ MASK:label", "labels": "--labels MASK", "scan": "--scan FILE"}
    what = {"organ": "the organ mask", "labels": "the labels", "scan": "the scan"}
    raise SidecarError(
        f"the side-car names no file for {what.get(role, f'the image {role}')} ({name}): it was in Slicer's memory. "
        f"Save it from Slicer, and give it with {options.get(role, f'--images {role}=FILE')}."
    )
