"""`difftumor anomaly`: where an image departs from "healthy", as a heat map on its own grid."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from difftumor import task
from difftumor.commands.anomaly_batch import TABLE, run_batch
from difftumor.commands.anomaly_inputs import Case, CaseImages, assign_channels, read_case
from difftumor.commands.anomaly_outputs import (
    Done,
    Outputs,
    in_a_line,
    write_case,
    write_picture,
)
from difftumor.commands.common import CommonOptions, resolved_model, tell_device
from difftumor.commands.stopping import Stopping
from difftumor.console import Reporter, complain, say
from difftumor.fields import help_of
from difftumor.images.outputs import check_outputs
from difftumor.images.volumes import parse_mask_argument
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import AnomalyParameters
from difftumor.provenance import sidecar_path
from difftumor.weights.models import ModelError, find_model
from difftumor.worker.protocol import Cancelled

AnomalyOptions: Any = options_of(AnomalyParameters, without=("threshold",))
(_THRESHOLD,) = (item for item in fields(AnomalyParameters) if item.name == "threshold")
Threshold = Annotated[float | Literal["otsu"], tyro.conf.arg(help=help_of(_THRESHOLD))]
UNFINISHED = "cancelled: what is finished was written, {missing} slices are missing"


@dataclass(kw_only=True)
class Anomaly(AnomalyOptions, CommonOptions):
    """Make an anomaly heat map of a CT, or of the sequences of an MR examination; the input is never changed.

    The map is what changes when a diffusion model rewrites the image as if it were healthy. N and S rule it:
    the noise level, and how strongly a classifier pulls towards healthy. Options that are not given are as the
    model recommends. Beside the map a JSON side-car tells how it was made; `difftumor replay` makes it again.
    """

    images: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGE...")]] = ()
    """One CT, or the sequences of an MR examination: NIfTI, NRRD, MHA, or a DICOM folder. Sequences are told by the
    names of the files (t1, t1c, t2, flair); where they are not, write t1=PATH."""
    batch: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """All cases of a folder instead; --out is then a folder too, with one table for all cases."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Heat map, 0 to 1, on the grid of the input: what --threshold is compared with."""
    organ: Annotated[str | None, tyro.conf.arg(metavar="MASK[:label]")] = None
    """Organ mask (of a head: brain mask); nothing outside is looked at. In a batch write {case} in its name."""
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
    series: str | None = None
    """Series of a DICOM folder that holds several."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        parameters = self.parameters()
        if bool(self.images) == (self.batch is not None):
            raise UsageError("give either images or --batch FOLDER, and not both")
        channels, modality = channels_of_model(self.model)
        cache: dict[str, Any] = {}
        if self.batch is not None:
            self.check_batch()
            return run_batch(self, parameters, channels, modality, cache)
        if self.out is None and any((self.mask_out, self.raw_out, self.counterfactual_out)):
            raise UsageError("give --out FILE too: its side-car tells how all the files were made")
        if self.out is None and self.sheet is None and self.report is None:
            raise UsageError("nothing would be written: give --out, --report or --sheet")
        if self.out is not None and self.report == sidecar_path(self.out):
            raise UsageError(
                f"{self.report} is the side-car that lies beside {self.out}: give the report another name"
            )
        wishes = self.sweep_wishes()
        files = assign_channels(self.images, channels)
        case = Case(Path(next(iter(files.values()))).name, files, self.organ)
        outputs = Outputs(
            self.out, self.raw_out, self.mask_out, self.counterfactual_out, self.report, self.sheet
        )
        masks = [parse_mask_argument(self.organ)[0]] if self.organ else []
        check_outputs(
            outputs.paths(tuple(channels)), [*files.values(), *masks], overwrite=self.overwrite
        )
        with Reporter(self.quiet) as reporter:
            tell_device(
                self.device, parameters.model, reporter, "the time is told before the start"
            )
            content, cancelled = self.one_case(
                case, parameters, outputs, wishes, modality, cache, reporter
            )
        say(self.sentence(content))
        if cancelled and content is not None:
            missing = content["result"]["unfinished"]
            complain("difftumor: " + UNFINISHED.format(missing=missing))
        return 1 if cancelled else 0

    def one_case(
        self,
        case: Case,
        parameters: AnomalyParameters,
        outputs: Outputs,
        wishes: tuple[list[int], list[float]] | None,
        modality: str,
        cache: MutableMapping[str, Any],
        reporter: Reporter,
    ) -> tuple[dict[str, Any] | None, bool]:
        """Read, compute and write a case.

        Returns: the side-car's contents (None if only a sheet was wanted), and whether it was cancelled with some
            slices finished.
        Raises: Cancelled: before any slice was finished.
        """
        images = read_case(case, modality, self.series, reporter)
        done, cancelled, sheet = None, False, None
        if outputs.scaled is not None or outputs.report is not None:
            done, cancelled = compute(images, parameters, self.device, cache, reporter)
            for note in done.result.notes:
                reporter.note(f"Note: {note}")
        if cancelled:
            outputs = replace(outputs, sheet=None)
        elif wishes is not None:
            done, sheet = self.swept(case, images, parameters, done, wishes, cache, reporter)
        if done is not None:
            return write_case(done, outputs, overwrite=self.overwrite, sheet=sheet), cancelled
        if outputs.sheet is not None and sheet is not None:
            write_picture(outputs.sheet, sheet, overwrite=self.overwrite)
        return None, False

    def swept(
        self,
        case: Case,
        images: CaseImages,
        parameters: AnomalyParameters,
        done: Done | None,
        wishes: tuple[list[int], list[float]],
        cache: MutableMapping[str, Any],
        reporter: Reporter,
    ) -> tuple[Done | None, dict[str, Any]]:
        """Compute the sweep: its rows join the report, and what the sheet shows."""
        from difftumor.anomaly.model import load_anomaly_model
        from difftumor.commands import anomaly_sweep as sweeping

        with Stopping(reporter) as stopping:
            model = load_anomaly_model(parameters.model, self.device, cache, stopping.callback)
            index = self.sheet_slice
            if index is None:
                result = done.result if done is not None else None
                index = sweeping.slice_to_show(result, images, parameters, model)
            cells, rows = sweeping.sweep(
                images, parameters, model, *wishes, index, cache, stopping.callback
            )
        sheet = sweeping.sheet_of(
            images, parameters, model, cells, index, rows[0]["probability"], case.name
        )
        return (replace(done, sweep=rows) if done is not None else None), sheet

    def check_batch(self) -> None:
        """Refuse options of a single case.  Raises: UsageError."""
        single = {
            "--mask-out": self.mask_out,
            "--raw-out": self.raw_out,
            "--counterfactual-out": self.counterfactual_out,
            "--report": self.report,
            "--sheet": self.sheet,
        }
        if given := [option for option, path in single.items() if path is not None]:
            raise UsageError(
                f"{given[0]} is for a single case; a batch writes the map, the marks and the side-car of each "
                f"case, and the table {TABLE}. `difftumor replay` makes the other images from a side-car"
            )

    def sweep_wishes(self) -> tuple[list[int], list[float]] | None:
        """N and S of the sheet.

        Raises: UsageError: incomplete, or out of range.
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
        from difftumor.commands.anomaly_sweep import parsed_numbers

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

    def parameters(self) -> AnomalyParameters:
        """The engine's parameter pack of these options.  Raises: UsageError: out of range."""
        changed: dict[str, Any] = {"model": resolved_model(self.model)}
        if self.threshold == "otsu":
            changed |= {"threshold_rule": "otsu", "threshold": _THRESHOLD.default}
        return parameters_of(AnomalyParameters, self, **changed)

    def sentence(self, content: dict[str, Any] | None) -> str:
        """The result in a line."""
        written = [str(path) for path in (self.out, self.report, self.sheet) if path is not None]
        if self.out is not None:
            written.append(f"side-car {sidecar_path(self.out)}")
        words = in_a_line(content) if content is not None else "sweep over N and S"
        return f"{words}: {', '.join(written)}"


def compute(
    images: CaseImages,
    parameters: AnomalyParameters,
    device: str,
    cache: MutableMapping[str, Any],
    reporter: Reporter,
) -> tuple[Done, bool]:
    """Compute a case; a cancel keeps the slices that are finished.

    Returns: the case, and whether it was cancelled.
    Raises: Cancelled: before any slice was finished.
    """
    from difftumor.anomaly.task import ANOMALY

    kept: list[task.Outcome] = []
    case = task.Case(images.arrays, images.grid, images.organ)
    with Stopping(reporter) as stopping:
        try:
            found = task.run_task(
                ANOMALY,
                case,
                parameters,
                device,
                cache,
                stopping.callback,
                lambda partial: kept.__setitem__(slice(None), [partial]),
            )
            cancelled = False
        except Cancelled:
            if not kept:
                raise
            found, cancelled = kept[0], True
    return Done(images, parameters, found.result, found.model, found.device), cancelled


def channels_of_model(model: str) -> tuple[tuple[str, ...], str]:
    """Images that a model takes, and its modality.

    Raises: ModelError: not installed, or no anomaly model.
    """
    card = find_model(model).card
    if card.get("task") not in ("anomaly", None) or not card.get("channel_order"):
        raise ModelError(
            f"{model} is no anomaly model but one for {card.get('task') or 'something else'}. "
            "`difftumor models list` shows which are."
        )
    return tuple(card["channel_order"]), str(card.get("modality", "CT"))
