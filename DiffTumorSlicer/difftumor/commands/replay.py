"""`difftumor replay`: make a result again from its side-car."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from difftumor.commands.common import CommonOptions, read_scan, tell_device
from difftumor.commands.synthesize import volume_with_tumors
from difftumor.console import Reporter, say
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import parse_mask_argument, read_mask, write_volume
from difftumor.options import UsageError
from difftumor.parameters import SynthesisParameters, from_dict
from difftumor.provenance import (
    SYNTHETIC_NOTICE,
    SidecarError,
    describe,
    image_hash,
    read_sidecar,
    sidecar_path,
    write_json,
)
from difftumor.synthesis.shapes import TumorShape
from difftumor.synthesis.synthesize import shapes_of
from difftumor.synthesis.task import SYNTHESIS
from difftumor.task import SCAN, Case, run_task


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
    model: str | None = None
    """The model, if it is no longer where the side-car says."""
    images: Annotated[tuple[str, ...], tyro.conf.arg(metavar="t1=PATH...")] = ()
    """Several input images of an anomaly map, if they are no longer where the side-car says."""
    mask_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Tumor mask, or what an anomaly map marks, 0/1."""
    raw_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Anomaly map before scaling."""
    counterfactual_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Image rewritten as healthy."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        content = read_sidecar(self.sidecar)
        if content["task"] == "anomaly":
            from difftumor.commands.anomaly_replay import replay_anomaly

            return replay_anomaly(self, content)
        if self.images or self.raw_out or self.counterfactual_out:
            raise UsageError("--images, --raw-out and --counterfactual-out belong to anomaly maps")
        if content["task"] != "synthesis":
            raise SidecarError(f"results of the task '{content['task']}' cannot be made again yet")
        outputs = [self.out, *([self.mask_out] if self.mask_out else []), sidecar_path(self.out)]
        inputs = content["inputs"]
        scan_path = self.scan or Path(path_of("scan", inputs["scan"]))
        check_outputs(outputs, [scan_path, self.sidecar], overwrite=self.overwrite)
        with Reporter(self.quiet) as reporter:
            volume = read_scan(scan_path, inputs["scan"].get("series"), reporter)
            expect("the scan", image_hash(volume.array, volume.affine), inputs["scan"])
            organ = None
            if "organ" in inputs:
                if self.organ is None:
                    organ_path, label = Path(path_of("organ", inputs["organ"])), None
                else:
                    organ_path, label = parse_mask_argument(self.organ)
                if label is None:
                    label = inputs["organ"].get("label")
                organ = read_mask(organ_path, label, reference=volume.grid, warn=reporter.note)
                expect("the organ mask", image_hash(organ, volume.affine), inputs["organ"])
            parameters = from_dict(SynthesisParameters, content["parameters"])
            if self.model is not None:
                parameters = replace(parameters, model=self.model)
            tell_device(self.device, parameters.model, reporter)
            stored_shapes(content)
            case = Case({SCAN: volume.array}, volume.grid, organ, before=content["result"])
            outcome = run_task(SYNTHESIS, case, parameters, self.device, {}, reporter)
        result, model, device = outcome.result, outcome.model, outcome.device
        expect("the model", model["sha256"], content["model"])
        again = volume_with_tumors(volume, result)
        made = image_hash(again.array, again.affine)
        same = made == content["result"]["output_sha256"]
        facts = {"output_sha256": made, "lesions": result.lesions, "notes": result.notes}
        renewed = describe("synthesis", content["parameters"], inputs, model, facts, device)
        with staged(outputs, overwrite=self.overwrite) as paths:
            write_volume(again, paths[0], metadata={"description": SYNTHETIC_NOTICE})
            if self.mask_out:
                mask = volume.with_array(result.full_mask(volume.grid.shape))
                write_volume(mask, paths[1], metadata={"description": SYNTHETIC_NOTICE})
            write_json(renewed, paths[-1])
        if same:
            say(f"{self.out} is the same as the original, voxel for voxel")
            return 0
        say(
            f"{self.out} was made by the same request but differs from the original in some voxels: it was "
            f"made on {content.get('device')} with {content.get('versions')}, this one on {device}"
        )
        return 1


def path_of(role: str, recorded: dict[str, Any]) -> str:
    """Path of an input as the side-car names it.

    Raises: SidecarError: it names none, as those of volumes and segments that Slicer held in memory.
    """
    if recorded["path"]:
        return str(recorded["path"])
    name = recorded.get("segment") or recorded.get("name") or role
    what, option = (
        ("the scan", "--scan FILE") if role == "scan" else ("the organ mask", "--organ MASK:label")
    )
    raise SidecarError(
        f"the side-car names no file for {what} ({name}): it was in Slicer's memory. Save it from Slicer, "
        f"and give it with {option}."
    )


def stored_shapes(content: dict[str, Any]) -> dict[int, TumorShape] | None:
    """Random shapes of a side-car, as they were drawn.

    Raises: SidecarError: they are damaged.
    """
    try:
        return shapes_of(content["result"]["lesions"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SidecarError(f"the side-car's tumors are damaged ({error!r})") from None


def expect(what: str, found: str | None, recorded: dict[str, Any]) -> None:
    """Compare a hash with the recorded one.

    Raises: SidecarError: if they differ.
    """
    if found != recorded.get("sha256"):
        raise SidecarError(
            f"{what} is not the one that the side-car describes (its contents differ). Give the original, "
            "or make a new result instead of a replay."
        )
