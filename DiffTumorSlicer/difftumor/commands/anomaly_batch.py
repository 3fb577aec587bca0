"""`difftumor anomaly --batch FOLDER`: every case of a folder, and one table for all of them."""

from __future__ import annotations

import csv
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from difftumor.anomaly.settings import resolve_settings
from difftumor.commands.anomaly_inputs import Case, cases_in
from difftumor.commands.anomaly_outputs import Outputs, hottest, in_a_line
from difftumor.commands.common import tell_device
from difftumor.console import Reporter, complain, say
from difftumor.devices import DeviceError
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import parse_mask_argument
from difftumor.options import UsageError
from difftumor.parameters import AnomalyParameters
from difftumor.provenance import SidecarError, read_sidecar, sidecar_path
from difftumor.weights.models import ModelError, find_model
from difftumor.worker.protocol import Cancelled, is_disk_full

TABLE = "anomaly.csv"
COLUMNS = (
    *("case", "status", "probability", "slices", "marked_slices", "gated_slices", "marked_ml"),
    *("parts", "largest_area_mm2", "hottest_slice", "hottest_at_mm", "marked_mean", "rest_mean"),
    *("noise_level", "guidance_scale", "steps", "model", "map", "error"),
)


class BatchCommand(Protocol):
    """What is needed of `commands.anomaly.Anomaly`, a dataclass."""

    batch: Path | None
    out: Path | None
    organ: str | None
    model: str
    device: str
    quiet: bool
    overwrite: bool

    def one_case(
        self,
        case: Case,
        parameters: AnomalyParameters,
        outputs: Outputs,
        wishes: None,
        modality: str,
        cache: MutableMapping[str, Any],
        reporter: Reporter,
    ) -> tuple[dict[str, Any] | None, bool]:
        """Read, compute and write a case."""
        ...


def run_batch(
    command: BatchCommand,
    parameters: AnomalyParameters,
    channels: Sequence[str],
    modality: str,
    cache: MutableMapping[str, Any],
) -> int:
    """Compute all cases; one that fails is reported and the others go on.

    Each case gets its map, its marks and its side-car; the table is written anew after each case. Cases that were
    finished before by the same request are taken over, so that the same command continues a batch.

    Returns: the exit code, 1 if any case failed or the batch was cancelled.
    """
    if command.out is None:
        raise UsageError("with --batch, --out is the folder for the results: give it")
    folder = command.batch
    assert folder is not None
    cases = cases_in(folder, channels, command.organ)
    if command.out.exists() and not command.out.is_dir():
        raise UsageError(f"with --batch, --out is a folder, but {command.out} is a file")
    if command.out.resolve() == folder.resolve():
        raise UsageError("--out is the folder of the images itself; give another one")
    command.out.mkdir(parents=True, exist_ok=True)
    table = command.out / TABLE
    if table.is_dir():
        raise UsageError(f"{table} is a folder, where the table should go")
    settings = resolve_settings(parameters, find_model(command.model).card.get("recommended", {}),
                                modality)[0].to_dict()  # fmt: skip
    rows: list[dict[str, Any]] = []
    stopped = False
    with Reporter(command.quiet) as reporter:
        tell_device(
            command.device,
            parameters.model,
            reporter,
            "the time is told before the start of each case",
        )
        for number, case in enumerate(cases):
            reporter.note(f"case {number + 1} of {len(cases)}: {case.name}")
            try:
                row, stopped = _one(command, case, parameters, settings, modality, cache, reporter)
                rows.append(row)
            except (ValueError, OSError, ModelError, DeviceError) as error:
                if isinstance(error, OSError) and is_disk_full(error):
                    raise
                complain(f"case {case.name} failed: {error}")
                rows.append({"case": case.name, "status": "failed", "error": str(error)})
            except Cancelled:
                stopped = True
            write_table(rows, table)
            if stopped:
                break
    failed = sum(row["status"] == "failed" for row in rows)
    say(f"{len(rows) - failed} of {len(cases)} cases are done, in {command.out}; table {table}")
    if stopped:
        complain("difftumor: cancelled; the same command continues with the cases that are missing")
    return 1 if failed or stopped else 0


def _one(
    command: BatchCommand,
    case: Case,
    parameters: AnomalyParameters,
    settings: dict[str, Any],
    modality: str,
    cache: MutableMapping[str, Any],
    reporter: Reporter,
) -> tuple[dict[str, Any], bool]:
    """One case: its row, and whether it was cancelled in the middle."""
    assert command.out is not None
    out = command.out / f"{case.name}-anomaly.nii.gz"
    outputs = Outputs(scaled=out, mask=out.with_name(f"{case.name}-anomaly-mask.nii.gz"))
    paths = outputs.paths(tuple(case.files))
    if not command.overwrite and all(path.is_file() for path in paths):
        before = _before(out, case, settings, command.model)
        if before is not None and before["result"].get("unfinished") == 0:
            reporter.note(f"{out} is there already and was made by the same request; kept")
            return _row(case, before, out, "kept"), False
        if before is not None:
            command = replace(command, overwrite=True)  # type: ignore[type-var]  # what a cancel left of this very case
    masks = [parse_mask_argument(case.organ)[0]] if case.organ else []
    check_outputs(paths, [*case.files.values(), *masks], overwrite=command.overwrite)
    content, cancelled = command.one_case(
        case, parameters, outputs, None, modality, cache, reporter
    )
    assert content is not None
    say(f"{case.name}: {in_a_line(content)}")
    return _row(case, content, out, "cancelled" if cancelled else "done"), cancelled


def _before(out: Path, case: Case, settings: dict[str, Any], model: str) -> dict[str, Any] | None:
    """The side-car of a result of the very same request, finished or cancelled; else None."""
    try:
        content = read_sidecar(sidecar_path(out))
    except (SidecarError, OSError):
        return None
    inputs = content["inputs"]
    channel, first = next(iter(case.files.items()))
    organ = str(parse_mask_argument(case.organ)[0].resolve()) if case.organ else None
    same = (
        content["task"] == "anomaly"
        and content["result"].get("settings") == _as_json(settings)
        and content["model"].get("id") == find_model(model).id
        and inputs.get(channel, {}).get("path") == str(first.resolve())
        and inputs.get("organ", {}).get("path") == organ
    )
    return content if same else None


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def _row(case: Case, content: dict[str, Any], out: Path, status: str) -> dict[str, Any]:
    """What the table says of a case."""
    result = content["result"]
    slices, settings = result["slices"], result["settings"]
    hot = hottest(slices)
    marked = [row for row in slices if row["area_mm2"] > 0]
    values = result["lesions"]["values"].get(next(iter(case.files)), {})
    return {
        "case": case.name,
        "status": status,
        "probability": result["probability"],
        "slices": len(slices),
        "marked_slices": len(marked),
        "gated_slices": sum(row["gated"] for row in slices),
        "marked_ml": round(result["lesions"]["volume_mm3"] / 1000, 4),
        "parts": result["lesions"]["parts"],
        "largest_area_mm2": max(row["area_mm2"] for row in slices),
        "hottest_slice": hot["index"],
        "hottest_at_mm": hot["position_mm"],
        "marked_mean": values.get("marked", {}).get("mean"),
        "rest_mean": values.get("rest", {}).get("mean"),
        **{name: settings[name] for name in ("noise_level", "guidance_scale", "steps")},
        "model": content["model"].get("id", ""),
        "map": out.name,
        "error": "",
    }


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Replace the table as a whole."""
    with (
        staged([path], overwrite=True) as stand_ins,
        stand_ins[0].open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
