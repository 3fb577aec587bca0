"""`difftumor anomaly`: where an image departs from "healthy", as a heat map on its own grid."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from difftumor import task
from difftumor.anomaly.result import hottest
from difftumor.commands.common import model_of_slices, resolved_model, tell_device
from difftumor.commands.console import Reporter
from difftumor.commands.loop import run_cases
from difftumor.commands.run import SIDECAR, CaseCommand, Done, report
from difftumor.commands.stopping import Stopping
from difftumor.fields import help_of
from difftumor.images.volumes import write_volume
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import AnomalyParameters, to_dict
from difftumor.provenance import sidecar_path, write_json

AnomalyOptions: Any = options_of(AnomalyParameters, without=("threshold",))
(_THRESHOLD,) = (item for item in fields(AnomalyParameters) if item.name == "threshold")
Threshold = Annotated[float | Literal["otsu"], tyro.conf.arg(help=help_of(_THRESHOLD))]
MAP_NOTICE = "Anomaly map by DiffTumorSlicer. Research use only: never for diagnosis."
HEALTHY_NOTICE = (
    "SYNTHETIC image by DiffTumorSlicer: rewritten as healthy by a model. Never for diagnosis."
)
HEALTHY = "healthy "  # before the name of an image, in roles


@dataclass(kw_only=True)
class Anomaly(AnomalyOptions, CaseCommand):
    """Make an anomaly heat map of a CT, or of the sequences of an MR examination; the input is never changed.

    The map is what changes when a diffusion model rewrites the image as if it were healthy. N and S rule it:
    the noise level, and how strongly a classifier pulls towards healthy. Options that are not given are as the
    model recommends. Beside the map a JSON side-car tells how it was made; `difftumor replay` makes it again.
    """

    task_name = "anomaly"
    ending = "anomaly"
    table = "anomaly.csv"
    columns = (
        *("probability", "slices", "marked_slices", "gated_slices", "marked_ml"),
        *("parts", "largest_area_mm2", "hottest_slice", "hottest_at_mm", "marked_mean"),
        *("rest_mean", "noise_level", "guidance_scale", "steps", "model", "map"),
    )
    packs = (AnomalyParameters,)
    beside: ClassVar = {"mask_out": "-mask"}
    single = ("mask_out", "raw_out", "counterfactual_out", "report", "sheet")

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Heat map, 0 to 1, on the grid of the input: what --threshold is compared with."""
    threshold: Threshold = _THRESHOLD.default
    mask_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """What is marked, 0/1."""
    raw_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Map before scaling, in units of the model's range: for comparing slices and cases."""
    counterfactual_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The image rewritten as healthy; of several sequences each gets its name added."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Confidence of the classifier, areas and statistics of each slice and of the volume."""
    sweep_noise: Annotated[str | None, tyro.conf.arg(metavar="N,N,...")] = None
    """Noise levels of --sheet."""
    sweep_scale: Annotated[str | None, tyro.conf.arg(metavar="S,S,...")] = None
    """Guidance scales of --sheet."""
    sheet: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Contact sheet of one slice: every N with every S."""
    sheet_slice: int | None = None
    """Slice of the sheet; default: the most suspicious one."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        return run_cases(self)

    def parameters(self) -> AnomalyParameters:
        """The engine's parameter pack of these options.  Raises: UsageError: out of range."""
        changed: dict[str, Any] = {"model": resolved_model(self.model)}
        if self.threshold == "otsu":
            changed |= {"threshold_rule": "otsu", "threshold": _THRESHOLD.default}
        return parameters_of(AnomalyParameters, self, **changed)

    def record(self, parameters: Any) -> tuple[task.Task, Any]:
        """See `CaseCommand`."""
        from difftumor.anomaly.task import ANOMALY

        return ANOMALY, parameters

    def channels(self) -> tuple[str, ...]:
        """See `CaseCommand`."""
        return model_of_slices(self.model, ("anomaly", None))

    def outputs(self) -> dict[str, Path]:
        """See `CaseCommand`."""
        if self.out is None and any((self.mask_out, self.raw_out, self.counterfactual_out)):
            raise UsageError("give --out FILE too: its side-car tells how all the files were made")
        if self.out is None and self.sheet is None and self.report is None:
            raise UsageError("nothing would be written: give --out, --report or --sheet")
        if self.out is not None and self.report == sidecar_path(self.out):
            raise UsageError(
                f"{self.report} is the side-car that lies beside {self.out}: give the report another name"
            )
        self.sweep_wishes()
        healthy = self.counterfactual_out
        named = {"scaled": self.out, "raw": self.raw_out, "mask": self.mask_out}
        if healthy is not None:
            stem = sidecar_path(healthy).stem
            channels = self.channels()
            for name in channels:
                ending = f"-{name}" if len(channels) > 1 else ""
                path = healthy.with_name(f"{stem}{ending}{healthy.name[len(stem) :]}")
                named[HEALTHY + name] = path
        named |= {"report": self.report, "sheet": self.sheet}
        named[SIDECAR] = None if self.out is None else sidecar_path(self.out)
        return {role: path for role, path in named.items() if path is not None}

    def write(self, role: str, done: Done, path: Path) -> None:
        """See `CaseCommand`."""
        if role == "sheet":
            from difftumor.anomaly.sheet import write_sheet

            write_sheet(path, **done.more[1])
            return
        assert done.outcome is not None
        result = done.outcome.result
        if role == "report":
            told = report(done.content, "difftumor-anomaly-report")
            write_json(told | ({"sweep": done.more[0]} if done.more else {}), path)
        elif role.startswith(HEALTHY):
            volume = done.images.volumes[role.removeprefix(HEALTHY)]
            array = result.counterfactuals[role.removeprefix(HEALTHY)]
            array = volume.quantized(array) if volume.storage.is_scaled else array
            write_volume(volume.with_array(array), path, metadata={"description": HEALTHY_NOTICE})
        else:
            arrays = {"scaled": "scaled_map", "raw": "map", "mask": "mask"}
            array = getattr(result, arrays[role])
            done.write_volume(array.astype(np.uint8) if role == "mask" else array, path, MAP_NOTICE)

    def values(self, parameters: Any, result: Any) -> dict[str, Any]:
        """See `CaseCommand`; of a cancelled request only the finished slices."""
        values = to_dict(parameters)
        values |= {name: value for name, value in result.settings.items() if name in values}
        if result.unfinished and result.slices:
            indices = [row["index"] for row in result.slices]
            values["slices"] = (min(indices), max(indices) + 1)
        return values

    def wants_result(self) -> bool:
        """See `CaseCommand`; else only a sheet is."""
        return self.out is not None or self.report is not None

    def more(self, done: Done, cache: MutableMapping[str, Any], stopping: Stopping) -> Any:
        """The sweep: rows for the report, and what the sheet shows."""
        wishes = self.sweep_wishes()
        if wishes is None:
            return None
        from difftumor.commands.anomaly_sweep import swept

        return swept(done, wishes, self.sheet_slice, self.device, cache, stopping)

    def sweep_wishes(self) -> tuple[list[int], list[float]] | None:
        """N and S of the sheet.

        Raises:
            UsageError: incomplete, or out of range.
        """
        if self.sheet is None:
            if self.sweep_noise or self.sweep_scale or self.sheet_slice is not None:
                raise UsageError("a sweep is shown on a sheet: give --sheet FILE.png too")
            return None
        if self.sheet.suffix.lower() != ".png":
            raise UsageError(
                f"--sheet is a picture: give a name that ends in .png, not {self.sheet}"
            )
        if not self.sweep_noise or not self.sweep_scale:
            raise UsageError(
                "--sheet shows a sweep: give --sweep-noise N,N,... and --sweep-scale S,S,..."
            )
        levels = parsed_numbers(self.sweep_noise, int, "--sweep-noise")
        scales = parsed_numbers(self.sweep_scale, float, "--sweep-scale")
        try:
            for level in levels:
                AnomalyParameters(noise_level=level)
            for scale in scales:
                AnomalyParameters(guidance_scale=scale)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return levels, scales

    def rows(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """See `CaseCommand`: one for the case."""
        result = content["result"]
        slices, settings = result["slices"], result["settings"]
        hot = hottest(slices)
        first = next(name for name in content["inputs"] if name != "organ")
        values = result["lesions"]["values"].get(first, {})
        row = {
            "probability": result["probability"],
            "slices": len(slices),
            "marked_slices": sum(row["area_mm2"] > 0 for row in slices),
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
            "map": self.out.name if self.out else "",
        }
        return [row]

    def in_a_line(self, content: dict[str, Any] | None) -> str:
        """See `CaseCommand`."""
        if content is None:
            return "sweep over N and S"
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

    def sentence(self, content: dict[str, Any] | None) -> str:
        """See `CaseCommand`."""
        written = [str(path) for path in (self.out, self.report, self.sheet) if path is not None]
        if self.out is not None:
            written.append(f"side-car {sidecar_path(self.out)}")
        return f"{self.in_a_line(content)}: {', '.join(written)}"

    def tell_device(self, reporter: Reporter) -> None:
        """See `CaseCommand`."""
        tell_device(self.device, self.model, reporter, "the time is told before the start")


def parsed_numbers(text: str, kind: type, option: str) -> list[Any]:
    """`250,500` -> [250, 500], ascending, each once.

    Raises:
        UsageError: not a list of numbers.
    """
    try:
        numbers = sorted({kind(word) for word in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers:
        what = "whole numbers" if kind is int else "numbers"
        raise UsageError(f"{option} takes {what} separated by commas, as in 100,250; got {text!r}")
    return numbers
