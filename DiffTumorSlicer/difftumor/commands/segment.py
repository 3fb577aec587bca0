"""`difftumor segment`: tumors in a CT, or in all cases of a folder or list, with a table of lesions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from difftumor import task
from difftumor.commands.common import resolved_model
from difftumor.commands.console import Reporter
from difftumor.commands.inputs import CaseFiles
from difftumor.commands.loop import run_cases
from difftumor.commands.run import SIDECAR, CaseCommand, Done
from difftumor.devices import resolve_device
from difftumor.images.volumes import write_volume
from difftumor.measuring.tables import LesionRow, flat_row, table_columns, write_table
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import SegmentationParameters
from difftumor.provenance import sidecar_path
from difftumor.weights.models import find_model

SegmentationOptions: Any = options_of(SegmentationParameters)


@dataclass(kw_only=True)
class Segment(SegmentationOptions, CaseCommand):
    """Segment tumors in a CT; the input is never changed.

    The output holds 0 background, 1 organ, 2 tumor, on the grid of the input. With --organ only the surroundings of
    the organ are computed, and tumor is kept inside it. Beside the output a JSON side-car tells how it was made and
    measures each lesion.
    """

    task_name = "segmentation"
    ending = "segmentation"
    table = "lesions.csv"
    columns = tuple(table_columns())
    packs = (SegmentationParameters,)
    single = ("report", "probability_out", "agreement_out", "lesions_out")

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Labels, for example case-segmentation.nii.gz; of many cases a folder."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json|FILE.csv")] = None
    """The table of lesions."""
    probability_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Probability of tumor, 0 to 1."""
    agreement_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Share of the models that agree with the result (several models)."""
    lesions_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The lesions with their numbers of the table."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        return run_cases(self)

    def parameters(self) -> SegmentationParameters:
        """The engine's parameter pack of these options.  Raises: UsageError: out of range."""
        models = tuple(resolved_model(model) for model in self.models)
        return parameters_of(SegmentationParameters, self, models=models)

    def record(self, parameters: Any) -> tuple[task.Task, Any]:
        """See `CaseCommand`."""
        from difftumor.segmentation.task import SEGMENTATION

        return SEGMENTATION, parameters

    def model_names(self) -> tuple[str, ...]:
        """See `CaseCommand`."""
        return tuple(self.models)

    def files(self) -> CaseFiles:
        """See `CaseCommand`; a single slice is welcome here."""
        return replace(super().files(), single_slice=True, modality="CT")

    def outputs(self) -> dict[str, Path]:
        """See `CaseCommand`."""
        if self.agreement_out is not None and len(self.models) < 2:
            raise UsageError("--agreement-out is for several models: give --model A B")
        if self.report is not None and self.report.suffix.lower() not in (".json", ".csv"):
            raise UsageError(f"the report is JSON or CSV; {self.report} ends in neither")
        named = {
            "labels": self.out,
            "probability": self.probability_out,
            "agreement": self.agreement_out,
            "numbers": self.lesions_out,
            "report": self.report,
            SIDECAR: sidecar_path(self.out),
        }
        return {role: path for role, path in named.items() if path is not None}

    def write(self, role: str, done: Done, path: Path) -> None:
        """See `CaseCommand`."""
        assert done.outcome is not None
        result = done.outcome.result
        if role == "report":
            write_table(result.lesions, path)
            return
        part = getattr(result, role)
        if role == "numbers":
            part = part.astype("uint8" if len(result.lesions) < 256 else "int32")
        write_volume(done.images.first.with_array(result.whole(part)), path)

    def rows(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """See `CaseCommand`: one for each lesion."""
        return [flat_row(LesionRow(**lesion)) for lesion in content["result"]["lesions"]]

    def in_a_line(self, content: dict[str, Any] | None) -> str:
        """See `CaseCommand`."""
        lesions = (content or {})["result"]["lesions"]
        count = len(lesions)
        if not count:
            return "no tumor found"
        volume = sum(lesion["volume_mm3"] for lesion in lesions) / 1000
        early = sum(lesion["early"] for lesion in lesions)
        return (
            f"{count} tumor{'s' if count > 1 else ''} ({volume:.2f} ml, {early} of at most 20 mm)"
        )

    def tell_device(self, reporter: Reporter) -> None:
        """See `CaseCommand`; with the time that the model's card expects."""
        chosen = resolve_device(self.device, note=reporter.note)
        if self.device != "auto" or chosen.type != "cpu":
            return
        expected = find_model(self.models[0]).card.get("expected")
        time = f" {expected['seconds_cpu']:g} s for one {expected['per']}" if expected else ""
        reporter.note(
            f"No GPU was found; computing on the CPU{' (two cores: about' + time + ')' if time else ''}. An "
            "organ mask and --overlap 0.5 make it faster."
        )
