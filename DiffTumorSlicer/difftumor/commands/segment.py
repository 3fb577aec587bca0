"""`difftumor segment`: tumors in a CT, or in all cases of a folder or datalist, with a table of lesions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from difftumor import task
from difftumor.commands.anomaly_inputs import Case, cases_in
from difftumor.commands.common import CommonOptions, organ_of_label, read_organ, resolved_model
from difftumor.console import Reporter, complain, say
from difftumor.devices import DeviceError, resolve_device
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import (
    Volume,
    check_ct,
    parse_mask_argument,
    read_volume,
    write_volume,
)
from difftumor.measuring.tables import flat_row, table_columns, write_table
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import SegmentationParameters, to_dict
from difftumor.provenance import describe, image_hash, sidecar_path, write_json
from difftumor.weights.models import ModelError, find_model
from difftumor.worker.protocol import is_disk_full

if TYPE_CHECKING:
    from difftumor.segmentation.segment import SegmentationResult

TABLE = "lesions.csv"


SegmentationOptions: Any = options_of(SegmentationParameters)


@dataclass(kw_only=True)
class Segment(SegmentationOptions, CommonOptions):
    """Segment tumors in a CT; the input is never changed.

    The output holds 0 background, 1 organ, 2 tumor, on the grid of the input. With --organ only the surroundings of
    the organ are computed, and tumor is kept inside it. Beside the output a JSON side-car tells how it was made and
    measures each lesion.
    """

    images: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE")]] = ()
    """A CT: NIfTI, NRRD, MHA, or a DICOM folder."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Labels, for example case-segmentation.nii.gz; of many cases a folder."""
    organ: Annotated[str | None, tyro.conf.arg(metavar="MASK[:label]")] = None
    """Organ mask. With --batch write {case} where the case's name stands in its path."""
    batch: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """All images of a folder."""
    datalist: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Many cases: {"cases": [{"image": PATH, "organ": "MASK:5"}, ...]}."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json|FILE.csv")] = None
    """The table of lesions."""
    probability_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Probability of tumor, 0 to 1."""
    agreement_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Share of the models that agree with the result (several models)."""
    lesions_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The lesions with their numbers of the table."""
    series: str | None = None
    """Series of a DICOM folder that holds several."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        parameters = self.parameters()
        if sum([bool(self.images), self.batch is not None, self.datalist is not None]) != 1:
            raise UsageError("give an image, or --batch FOLDER, or --datalist FILE.json")
        if len(self.images) > 1:
            raise UsageError(
                f"these models take one CT, not {len(self.images)} images. Many cases: --batch FOLDER"
            )
        cache: dict[str, Any] = {}
        with Reporter(self.quiet) as reporter:
            if self.images:
                case = Case(self.images[0].name, {"CT": self.images[0]}, self.organ)
                outputs = self._outputs()
                self._tell_device(reporter)
                result = self._one_case(case, parameters, outputs, cache, reporter)
                say(f"{in_words(result)}: {self.out}, side-car {sidecar_path(self.out)}")
                return 0
            return self._many_cases(parameters, cache, reporter)

    def parameters(self) -> SegmentationParameters:
        """The engine's parameter pack of these options.  Raises: UsageError: out of range."""
        models = tuple(resolved_model(model) for model in self.models)
        return parameters_of(SegmentationParameters, self, models=models)

    def _outputs(self) -> dict[str, Path]:
        """Files of a single case by what they hold.  Raises: UsageError."""
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
            "sidecar": sidecar_path(self.out),
        }
        return {role: path for role, path in named.items() if path is not None}

    def _many_cases(
        self, parameters: SegmentationParameters, cache: dict[str, Any], reporter: Reporter
    ) -> int:
        """Every case; a failed one is reported and the others go on."""
        if self.report or self.probability_out or self.agreement_out or self.lesions_out:
            raise UsageError(
                f"--report and the other outputs are of a single case; of many there is {TABLE} in {self.out}, "
                "and a side-car for each"
            )
        cases = cases_in(self.batch, ["CT"], self.organ) if self.batch else self._listed()
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"of many cases --out is a folder, but {self.out} is a file")
        self.out.mkdir(parents=True, exist_ok=True)
        table = self.out / TABLE
        check_outputs([table], [], overwrite=self.overwrite)
        self._tell_device(reporter)
        rows: list[dict[str, Any]] = []
        failed = 0
        for number, case in enumerate(cases, start=1):
            labels = self.out / f"{case.name}-segmentation.nii.gz"
            outputs = {"labels": labels, "sidecar": sidecar_path(labels)}
            try:
                result = self._one_case(case, parameters, outputs, cache, reporter)
            except (ValueError, OSError, ModelError, DeviceError) as error:
                # What is wrong with the model or the disk is wrong for all cases.
                if isinstance(error, ModelError | DeviceError):
                    raise
                if isinstance(error, OSError) and is_disk_full(error):
                    raise
                failed += 1
                complain(f"case {number} of {len(cases)} ({case.name}) failed: {error}")
                continue
            rows += [{"case": case.name, **flat_row(row)} for row in result.lesions]
            reporter.note(f"{case.name}: {in_words(result)}")
            self._write_rows(table, rows)
        say(f"{len(cases) - failed} of {len(cases)} cases are done, in {self.out}")
        return 1 if failed else 0

    def _write_rows(self, table: Path, rows: list[dict[str, Any]]) -> None:
        """The table of all cases so far: what was finished is kept, whatever comes."""
        with (
            staged([table], overwrite=True) as (path,),
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, ["case", *table_columns()])
            writer.writeheader()
            writer.writerows(rows)

    def _one_case(
        self,
        case: Case,
        parameters: SegmentationParameters,
        outputs: Mapping[str, Path],
        cache: dict[str, Any],
        reporter: Reporter,
    ) -> SegmentationResult:
        """Read, segment, write."""
        # Late, because torch takes seconds to import.
        from difftumor.segmentation.task import SEGMENTATION

        path = case.files["CT"]
        masks = [parse_mask_argument(case.organ)[0]] if case.organ else []
        check_outputs(list(outputs.values()), [path, *masks], overwrite=self.overwrite)
        volume = self._read(path, reporter)
        organ, organ_path, label = read_organ(case.organ, volume, reporter)
        inputs_read = task.Case({task.SCAN: volume.array}, volume.grid, organ)
        outcome = task.run_task(SEGMENTATION, inputs_read, parameters, self.device, cache, reporter)
        result, model, device = outcome.result, outcome.model, outcome.device
        for note in [*result.notes, *organ_notes(label, model)]:
            reporter.note(f"Note: {note}")
        inputs: dict[str, dict[str, Any]] = {
            "scan": {
                "path": str(path.resolve()),
                **({"series": self.series} if self.series is not None else {}),
                "sha256": image_hash(volume.array, volume.affine),
            }
        }
        if organ is not None and organ_path is not None:
            inputs["organ"] = {
                "path": str(organ_path.resolve()),
                "label": label,
                "sha256": image_hash(organ, volume.affine),
            }
        whole = result.whole(result.labels)
        facts = {"output_sha256": image_hash(whole, volume.affine), **result.facts()}
        content = describe("segmentation", to_dict(parameters), inputs, model, facts, device)
        with staged(list(outputs.values()), overwrite=self.overwrite) as stand_ins:
            for role, stand_in in zip(outputs, stand_ins, strict=True):
                if role == "sidecar":
                    write_json(content, stand_in)
                elif role == "report":
                    write_table(result.lesions, stand_in)
                else:
                    write_volume(_volume(volume, result, role), stand_in)
        return result

    def _read(self, path: Path, reporter: Reporter) -> Volume:
        """The scan; a single slice is welcome here, all else that is no CT is refused."""
        volume = read_volume(path, series=self.series)
        checked = volume
        if 1 in volume.grid.shape:
            twice = np.repeat(volume.array, 2, axis=volume.grid.shape.index(1))
            checked = replace(volume, array=twice)
        for sentence in check_ct(checked):
            reporter.note(f"Note: {sentence}")
        return volume

    def _listed(self) -> list[Case]:
        """Cases of the datalist; paths are relative to it.  Raises: UsageError."""
        datalist = self.datalist or Path()
        try:
            entries = json.loads(datalist.read_text(encoding="utf-8"))["cases"]
            found = []
            for entry in entries:
                if unknown := set(entry) - {"image", "organ", "name"}:
                    raise UsageError(
                        f"{datalist} has unknown options: {', '.join(sorted(unknown))}"
                    )
                image = datalist.parent / entry["image"]
                organ = entry.get("organ")
                name = entry.get("name", sidecar_path(image).stem)
                mask = str(datalist.parent / organ) if organ else None
                found.append(Case(name, {"CT": image}, mask))
        except UsageError:
            raise
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f'{datalist} is no datalist ({error!r}). It should read {{"cases": [{{"image": "ct.nii.gz", '
                '"organ": "organs.nii.gz:5"}]}.'
            ) from None
        names = [case.name for case in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(
                f'several cases of {datalist} are called {twice[0]}. Give each a "name"'
            )
        if strange := [name for name in names if not name or Path(name).name != name]:
            raise UsageError(f"{datalist} has a case called {strange[0]!r}, which is no file name")
        if not found:
            raise UsageError(f"{datalist} lists no case")
        return found

    def _tell_device(self, reporter: Reporter) -> None:
        """Check the device; say it and the expected time where we chose the CPU."""
        chosen = resolve_device(self.device, note=reporter.note)
        if self.device != "auto" or chosen.type != "cpu":
            return
        expected = find_model(self.models[0]).card.get("expected")
        time = f" {expected['seconds_cpu']:g} s for one {expected['per']}" if expected else ""
        reporter.note(
            f"No GPU was found; computing on the CPU{' (two cores: about' + time + ')' if time else ''}. An "
            "organ mask and --overlap 0.5 make it faster."
        )


def organ_notes(label: int | None, model: Mapping[str, Any]) -> list[str]:
    """A word where the mask is of another organ than the model."""
    given = organ_of_label(label)
    organs = [organ for one in model.get("members", [model]) for organ in one.get("organs", [])]
    if given is None or not organs or given in organs:
        return []
    return [
        f"The mask is of the {given}, the model was made for the {' and '.join(sorted(set(organs)))}."
    ]


def in_words(result: SegmentationResult) -> str:
    """The result in a line."""
    count = len(result.lesions)
    if not count:
        return "no tumor found"
    volume = sum(row.volume_mm3 for row in result.lesions) / 1000
    early = sum(row.early for row in result.lesions)
    return f"{count} tumor{'s' if count > 1 else ''} ({volume:.2f} ml, {early} of at most 20 mm)"


def _volume(volume: Volume, result: SegmentationResult, role: str) -> Volume:
    """One of the arrays as an image like the input."""
    part = getattr(result, role)
    if role == "numbers":
        part = part.astype("uint8" if len(result.lesions) < 256 else "int32")
    return volume.with_array(result.whole(part))
