"""`difftumor synthesize`: tumors in a scan, or in every scan of a datalist."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from difftumor.commands.common import (
    CommonOptions,
    organ_of_label,
    read_organ,
    read_scan,
    resolved_model,
    tell_device,
)
from difftumor.console import Reporter, complain, say
from difftumor.devices import DeviceError
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import Volume, parse_mask_argument, write_volume
from difftumor.options import UsageError, further_names, options_of, parameters_of
from difftumor.parameters import MODELLED, Ellipsoid, Organ, SynthesisParameters, to_dict
from difftumor.provenance import (
    SYNTHETIC_NOTICE,
    describe,
    image_hash,
    sidecar_path,
    write_json,
)
from difftumor.synthesis.synthesize import SynthesisResult
from difftumor.synthesis.task import SYNTHESIS
from difftumor.task import SCAN, Case, run_task
from difftumor.weights.models import ModelError, find_model
from difftumor.worker.protocol import is_disk_full

DEFAULT_MODEL = "demo-abdomen-early"
PlaceOptions: Any = options_of(Ellipsoid, defaults={"center_ras": None, "radii_mm": None})
SynthesisOptions: Any = options_of(
    SynthesisParameters, without=("ellipsoid", "organ"), defaults={"model": DEFAULT_MODEL}
)


@dataclass(kw_only=True)
class Synthesize(SynthesisOptions, PlaceOptions, CommonOptions):
    """Put a synthetic tumor into a CT; the input is never changed.

    Place it with --center and --radii (RAS millimetres), or let --random SIZE place it in --organ.
    Beside the output a JSON side-car tells how it was made; `difftumor replay` makes it again.
    """

    ct: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="CT")]] = None
    """NIfTI, NRRD or MHA file, or a DICOM folder."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Result, for example tumor-synthetic.nii.gz; with --datalist a folder."""
    organ: Annotated[str | None, tyro.conf.arg(metavar="MASK[:label]")] = None
    """Organ mask; the tumor is cut at its border and random tumors are placed in it."""
    anatomy: Organ | None = None
    """Organ at the place; default: from the label (5 liver, 7 pancreas, 2 and 3 kidneys), else the model's."""
    mask_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Tumor mask, 0/1."""
    series: str | None = None
    """Series of a DICOM folder that holds several."""
    datalist: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Many cases: {"cases": [{"image": PATH, "organ": "MASK:5", ...options...}, ...]}."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        if (self.ct is None) == (self.datalist is None):
            raise UsageError("give either a CT or --datalist FILE.json, and not both")
        cache: dict[str, Any] = {}
        with Reporter(self.quiet) as reporter:
            tell_device(self.device, self.model, reporter)
            if self.datalist is None:
                self.one_case(cache, reporter)
                return 0
            return self.many_cases(cache, reporter)

    def many_cases(self, cache: dict[str, Any], reporter: Reporter) -> int:
        """Every case of the datalist; a failed case is reported and the others go on."""
        cases = read_cases(self.datalist, self)
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"with --datalist, --out is a folder, but {self.out} is a file")
        self.out.mkdir(parents=True, exist_ok=True)
        failed = 0
        for index, case in enumerate(cases):
            try:
                case.one_case(cache, reporter)
            except (ValueError, OSError, ModelError, DeviceError) as error:
                if isinstance(error, OSError) and is_disk_full(error):
                    raise
                failed += 1
                complain(f"case {index + 1} of {len(cases)} ({case.ct}) failed: {error}")
        say(f"{len(cases) - failed} of {len(cases)} cases are done, in {self.out}")
        return 1 if failed else 0

    def one_case(self, cache: dict[str, Any], reporter: Reporter) -> None:
        """Read, synthesize, write."""
        parameters = self.parameters()
        sidecar = sidecar_path(self.out)
        outputs = [self.out, *([self.mask_out] if self.mask_out else []), sidecar]
        masks = [parse_mask_argument(self.organ)[0]] if self.organ else []
        check_outputs(outputs, [self.ct, *masks], overwrite=self.overwrite)
        volume = read_scan(self.ct, self.series, reporter)
        organ, organ_path, label = read_organ(self.organ, volume, reporter)
        inputs_read = Case({SCAN: volume.array}, volume.grid, organ)
        outcome = run_task(SYNTHESIS, inputs_read, parameters, self.device, cache, reporter)
        result, model, device = outcome.result, outcome.model, outcome.device
        for note in result.notes:
            reporter.note(f"Note: {note}")
        synthetic = volume_with_tumors(volume, result)
        inputs = {"scan": describe_input(self.ct, volume, series=self.series)}
        if organ is not None:
            hashed = image_hash(organ, volume.affine)
            inputs["organ"] = {
                "path": str(organ_path.resolve()),
                "label": label,
                "sha256": hashed,
            }
        facts = {
            "output_sha256": image_hash(synthetic.array, synthetic.affine),
            "lesions": result.lesions,
            "notes": result.notes,
        }
        content = describe("synthesis", to_dict(parameters), inputs, model, facts, device)
        metadata = {"description": SYNTHETIC_NOTICE}
        with staged(outputs, overwrite=self.overwrite) as paths:
            write_volume(synthetic, paths[0], metadata=metadata)
            if self.mask_out:
                mask = volume.with_array(result.full_mask(volume.grid.shape))
                write_volume(mask, paths[1], metadata=metadata)
            write_json(content, paths[-1])
        total = sum(lesion["volume_mm3"] for lesion in result.lesions)
        many = "tumors" if len(result.lesions) > 1 else "tumor"
        say(
            f"{len(result.lesions)} synthetic {many} ({total / 1000:.2f} ml) in {self.out}, side-car {sidecar}"
        )

    def parameters(self) -> SynthesisParameters:
        """The engine's parameter pack of these options."""
        ellipsoid = None
        if self.size is None:
            if self.center_ras is None or self.radii_mm is None:
                raise UsageError(
                    "give --center R A S and --radii A B C, or --random SIZE with --organ"
                )
            if self.count is not None:
                raise UsageError("--count is the number of random tumors: give --random SIZE too")
        elif self.center_ras is not None or self.radii_mm is not None or any(self.rotation_deg):
            raise UsageError(
                "--random draws place and shape: leave --center, --radii and --rotation out"
            )
        elif self.organ is None:
            raise UsageError("--random places tumors in an organ: give --organ MASK:label")
        label = parse_mask_argument(self.organ)[1] if self.organ else None
        organ = self.anatomy or organ_of_label(label) or organ_of_model(self.model)
        try:
            if self.size is None:
                ellipsoid = Ellipsoid(self.center_ras, self.radii_mm, self.rotation_deg)
        except ValueError as error:
            raise UsageError(str(error)) from None
        model = resolved_model(self.model)
        return parameters_of(
            SynthesisParameters, self, model=model, ellipsoid=ellipsoid, organ=organ
        )


def volume_with_tumors(volume: Volume, result: SynthesisResult) -> Volume:
    """The scan with the tumors, in numbers that its file can hold."""
    array = result.applied_to(volume.array)
    if volume.storage.is_scaled:
        array[result.box] = volume.quantized(array[result.box])
    return volume.with_array(array)


def organ_of_model(model: str) -> str:
    """The organ that a model is for, if it is for one; else the liver."""
    if model == MODELLED:
        return "liver"
    organs = find_model(model).card.get("organs") or []
    return organs[0] if len(organs) == 1 else "liver"


def describe_input(path: Path, volume: Volume, **selection: str | None) -> dict[str, Any]:
    """What a side-car says of an image: where it was, what was taken of it, and its hash."""
    chosen = {name: value for name, value in selection.items() if value is not None}
    return {
        "path": str(path.resolve()),
        **chosen,
        "sha256": image_hash(volume.array, volume.affine),
        "shape": list(volume.grid.shape),
        "spacing_mm": np.round(volume.grid.spacing, 4).tolist(),
    }


def read_cases(datalist: Path, defaults: Synthesize) -> list[Synthesize]:
    """Cases of a datalist as commands of their own; paths are relative to the datalist.

    Without "out" a result is named after the image and its folder, since many data sets call every image
    `ct.nii.gz`.

    Raises: UsageError: not a datalist, or an unknown option in it.
    """
    try:
        content = json.loads(datalist.read_text(encoding="utf-8"))
        cases = content["cases"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(
            f'{datalist} is no datalist ({error!r}). It should read {{"cases": [{{"image": "ct.nii.gz", '
            '"center": [0, 0, 0], "radii": [8, 8, 8]}]}.'
        ) from None
    known = {item.name for item in fields(Synthesize)} - {"datalist", "ct"} | {"image"}
    further = further_names(Ellipsoid, SynthesisParameters)
    if not isinstance(cases, list):
        raise UsageError(f'"cases" of {datalist} must be a list')
    commands: list[Synthesize] = []
    for index, case in enumerate(cases):
        if not isinstance(case, Mapping) or "image" not in case:
            raise UsageError(f"case {index + 1} of {datalist} names no image")
        case = {further.get(name, name): value for name, value in case.items()}
        if unknown := sorted(set(case) - known):
            raise UsageError(
                f"case {index + 1} of {datalist} has unknown options: {', '.join(unknown)}"
            )
        for name, wanted in (("image", str), ("organ", str), ("out", str), ("mask_out", str),
                             ("series", str), ("device", str), ("overwrite", bool), ("quiet", bool)):  # fmt: skip
            if name in case and not isinstance(case[name], wanted):
                kind = "a text" if wanted is str else "true or false"
                raise UsageError(
                    f"case {index + 1} of {datalist}: {name} must be {kind}, got {case[name]!r}"
                )
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in case.items()}
        image = datalist.parent / values.pop("image")
        stem = f"{image.parent.name}-{sidecar_path(image).stem}".lstrip("-")
        out = defaults.out / values.pop("out", f"{stem}-synthetic.nii.gz")
        mask = out.with_name(
            out.name.replace(sidecar_path(out).stem, sidecar_path(out).stem + "-mask")
        )
        mask_out = defaults.out / values.pop("mask_out", mask.name)
        if values.get("organ"):
            values["organ"] = str(datalist.parent / values["organ"])
        commands.append(
            replace(defaults, datalist=None, ct=image, out=out, mask_out=mask_out, **values)
        )
    if not commands:
        raise UsageError(f"{datalist} lists no case")
    paths = [p.resolve() for c in commands for p in (c.out, c.mask_out, sidecar_path(c.out))]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise UsageError(
            f'several cases of {datalist} would write {twice[0]}. Give each its own "out".'
        )
    if outside := [path for path in paths if path.parent != defaults.out.resolve()]:
        raise UsageError(f"{datalist} names an output outside {defaults.out}: {outside[0]}")
    return commands
