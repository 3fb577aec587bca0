"""Files that `difftumor anomaly` writes: map, marks, healthy images, side-car, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.compute import AnomalyResult
from difftumor.commands.anomaly_inputs import CaseImages
from difftumor.images.outputs import staged
from difftumor.images.volumes import Volume, write_volume
from difftumor.parameters import AnomalyParameters, to_dict
from difftumor.provenance import describe, image_hash, sidecar_path, write_json

MAP_NOTICE = "Anomaly map by DiffTumorSlicer. Research use only: never for diagnosis."
HEALTHY_NOTICE = (
    "SYNTHETIC image by DiffTumorSlicer: rewritten as healthy by a model. Never for diagnosis."
)


@dataclass(frozen=True)
class Outputs:
    """Where the results of a case go; None: not wanted.

    Attributes:
        scaled: map in [0, 1], which thresholds are compared with; its side-car lies beside it.
        raw: the map before scaling, in units of the model's range.
        mask: marked voxels, 0/1.
        healthy: the image rewritten as healthy; for several sequences their names are added.
        report: JSON.
        sheet: PNG.
    """

    scaled: Path | None = None
    raw: Path | None = None
    mask: Path | None = None
    healthy: Path | None = None
    report: Path | None = None
    sheet: Path | None = None

    def paths(self, channels: tuple[str, ...]) -> list[Path]:
        """All files, the side-car included."""
        found = [p for p in (self.scaled, self.raw, self.mask, self.report, self.sheet) if p]
        if self.scaled is not None:
            found.append(sidecar_path(self.scaled))
        return found + list(self.healthy_paths(channels).values())

    def healthy_paths(self, channels: tuple[str, ...]) -> dict[str, Path]:
        """Healthy image of each channel."""
        if self.healthy is None:
            return {}
        if len(channels) == 1:
            return {channels[0]: self.healthy}
        stem = sidecar_path(self.healthy).stem
        suffix = self.healthy.name[len(stem) :]
        return {name: self.healthy.with_name(f"{stem}-{name}{suffix}") for name in channels}


@dataclass(frozen=True, eq=False)
class Done:
    """A computed case.

    Attributes:
        images: what it was computed from.
        parameters: as they were asked.
        result: of the engine.
        model: its facts.
        device: what computed.
        sweep: rows of the sweep over N and S.
    """

    images: CaseImages
    parameters: AnomalyParameters
    result: AnomalyResult
    model: dict[str, Any]
    device: str
    sweep: list[dict[str, Any]] | None = None


def write_case(
    done: Done,
    outputs: Outputs,
    *,
    overwrite: bool,
    sheet: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write all files of a case, or none.

    Args:
        sheet: keyword arguments of `anomaly.sheet.write_sheet`, if a sheet is wanted.
    Returns: the contents of the side-car.
    """
    first, result = done.images.first, done.result
    channels = tuple(done.images.volumes)
    scaled = result.scaled_map
    content = sidecar(done, scaled)
    paths = outputs.paths(channels)
    with staged(paths, overwrite=overwrite) as stand_ins:
        place = dict(zip(paths, stand_ins, strict=True))

        def volume(path: Path | None, array: NDArray[Any], notice: str) -> None:
            if path is not None:
                write_volume(plain(first, array), place[path], metadata={"description": notice})

        volume(outputs.scaled, scaled, MAP_NOTICE)
        volume(outputs.raw, result.map if outputs.raw else scaled, MAP_NOTICE)
        volume(outputs.mask, result.mask.astype(np.uint8), MAP_NOTICE)
        healthy_paths = outputs.healthy_paths(channels)
        for name, array in (result.counterfactuals if healthy_paths else {}).items():
            path = healthy_paths[name]
            metadata = {"description": HEALTHY_NOTICE}
            write_volume(
                _like_input(done.images.volumes[name], array), place[path], metadata=metadata
            )
        if outputs.scaled is not None:
            write_json(content, place[sidecar_path(outputs.scaled)])
        if outputs.report is not None:
            told = report(content, "difftumor-anomaly-report")
            if done.sweep is not None:
                told["sweep"] = done.sweep
            write_json(told, place[outputs.report])
        if outputs.sheet is not None and sheet is not None:
            _draw(place[outputs.sheet], sheet)
    return content


def write_picture(path: Path, sheet: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write a contact sheet alone."""
    with staged([path], overwrite=overwrite) as stand_ins:
        _draw(stand_ins[0], sheet)


def _draw(path: Path, sheet: Mapping[str, Any]) -> None:
    from difftumor.anomaly.sheet import write_sheet  # matplotlib, which most requests do not need

    write_sheet(path, **sheet)


def sidecar(done: Done, scaled: NDArray[np.float32]) -> dict[str, Any]:
    """How the result was made, so that it can be made again."""
    result = done.result
    facts = {"output_sha256": image_hash(scaled, done.images.first.affine), **result.facts()}
    return describe(
        "anomaly",
        resolved(done.parameters, result),
        done.images.described,
        done.model,
        facts,
        done.device,
    )


def resolved(parameters: AnomalyParameters, result: AnomalyResult) -> dict[str, Any]:
    """The parameter pack without gaps; of a cancelled request only the finished slices."""
    values = to_dict(parameters)
    known = {item.name for item in fields(AnomalyParameters)}
    values |= {name: value for name, value in result.settings.items() if name in known}
    if result.unfinished and result.slices:
        indices = [row["index"] for row in result.slices]
        values["slices"] = (min(indices), max(indices) + 1)
    return values


def report(content: dict[str, Any], schema: str) -> dict[str, Any]:
    """What a person or a spreadsheet wants to know of a case, from its side-car."""
    result = content["result"]
    return {
        "schema": schema,
        "schema_version": 1,
        "notice": "Research use only: never for diagnosis.",
        "images": {role: entry["path"] for role, entry in content["inputs"].items()},
        "model": content["model"],
        "device": content["device"],
        "versions": content["versions"],
        **{key: value for key, value in result.items() if key != "output_sha256"},
    }


def plain(first: Volume, array: NDArray[Any]) -> Volume:
    """Numbers of our own on the input's grid; the input's scaling of stored values does not apply."""
    storage = replace(first.storage, dtype=array.dtype, slope=1.0, intercept=0.0)
    return replace(first, array=array, storage=storage)


def _like_input(volume: Volume, array: NDArray[Any]) -> Volume:
    """An image of the input's kind, in numbers that its file can hold."""
    return volume.with_array(volume.quantized(array) if volume.storage.is_scaled else array)


def hottest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The slice with the highest map, of those that are not gated if there are any."""
    return max(rows, key=lambda row: (not row["gated"], row["map_max"]))


def in_a_line(content: dict[str, Any]) -> str:
    """The result in words, for the terminal."""
    result = content["result"]
    rows = result["slices"]
    marked = [row for row in rows if row["area_mm2"] > 0]
    words = f"probability of disease {result['probability']:.2f}, {len(rows)} slices, "
    if not marked:
        return words + "nothing marked"
    volume = result["lesions"]["volume_mm3"] / 1000
    return words + (
        f"{len(marked)} of them marked ({volume:.2f} ml), hottest in slice {hottest(rows)['index']}"
    )
