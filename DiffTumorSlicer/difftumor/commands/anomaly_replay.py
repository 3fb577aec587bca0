"""`difftumor replay` of a heat map: the same request on the same images, compared voxel by voxel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from difftumor.commands.anomaly import compute
from difftumor.commands.anomaly_inputs import Case, assign_channels, read_case
from difftumor.commands.anomaly_outputs import Outputs, write_case
from difftumor.commands.common import tell_device
from difftumor.console import Reporter, say
from difftumor.images.outputs import check_outputs
from difftumor.options import UsageError
from difftumor.parameters import AnomalyParameters, from_dict
from difftumor.provenance import SidecarError
from difftumor.weights.registry import find_model
from difftumor.worker.protocol import Cancelled


class ReplayCommand(Protocol):
    """What is needed of `commands.replay.Replay`."""

    sidecar: Path
    out: Path
    scan: Path | None
    organ: Path | None
    model: str | None
    images: tuple[str, ...]
    mask_out: Path | None
    raw_out: Path | None
    counterfactual_out: Path | None
    device: str
    quiet: bool
    overwrite: bool


def replay_anomaly(command: ReplayCommand, content: dict[str, Any]) -> int:
    """Make a heat map again; the exit code is 1 if a voxel differs.

    Raises: SidecarError: damaged, or images or model are others than those it describes.
    """
    inputs = content["inputs"]
    try:
        parameters = from_dict(AnomalyParameters, content["parameters"])
        stored = {role: Path(e["path"]) for role, e in inputs.items() if role != "organ"}
        channels = list(stored)
        series = inputs[channels[0]].get("series")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise SidecarError(f"the side-car's request is damaged ({error!r})") from None
    if command.model is not None:
        parameters = replace(parameters, model=command.model)
    card = find_model(parameters.model).card  # before any file is read
    files = stored
    if command.images:
        if command.scan is not None:
            raise UsageError("give --scan or --images, not both")
        files = assign_channels(command.images, channels)
    elif command.scan is not None:
        if len(channels) > 1:
            raise UsageError(
                f"the result was made from {len(channels)} images: give them all with --images, as "
                + " ".join(f"{channel}=PATH" for channel in channels)
            )
        files = {channels[0]: command.scan}
    organ = None
    if "organ" in inputs:
        label = inputs["organ"].get("label")
        organ = str(command.organ or inputs["organ"]["path"])
        organ += f":{label}" if label is not None else ""
    outputs = Outputs(command.out, command.raw_out, command.mask_out, command.counterfactual_out)
    sources = [*files.values(), command.sidecar]
    check_outputs(outputs.paths(tuple(channels)), sources, overwrite=command.overwrite)
    with Reporter(command.quiet) as reporter:
        tell_device(command.device, parameters.model, reporter, "the time is told before the start")
        modality = str(card.get("modality", "CT"))
        case = Case(command.sidecar.stem, files, organ)
        images = read_case(case, modality, series, reporter)
        for role, entry in inputs.items():
            if images.described[role]["sha256"] != entry["sha256"]:
                what = "the organ mask" if role == "organ" else f"the image {role}"
                raise SidecarError(
                    f"{what} is not the one that the side-car describes (its contents differ). Give the original, "
                    "or make a new result instead of a replay."
                )
        done, cancelled = compute(images, parameters, command.device, {}, reporter)
    if cancelled:
        raise Cancelled
    if done.model.get("sha256") != content["model"].get("sha256"):
        raise SidecarError(
            "the model is not the one that the side-car describes (its contents differ). Give the original, or "
            "make a new result instead of a replay."
        )
    renewed = write_case(done, outputs, overwrite=command.overwrite)
    if renewed["result"]["output_sha256"] == content["result"]["output_sha256"]:
        say(f"{command.out} is the same as the original, voxel for voxel")
        return 0
    say(
        f"{command.out} was made by the same request but differs from the original in some voxels: it was made on "
        f"{content.get('device')} with {content.get('versions')}, this one on {done.device}"
    )
    return 1
