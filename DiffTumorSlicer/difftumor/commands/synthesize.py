"""`difftumor synthesize`: tumors in a scan, or in every scan of a folder or list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from difftumor import task
from difftumor.commands.common import resolved_model, tell_device
from difftumor.commands.console import Reporter
from difftumor.commands.inputs import CaseFiles, CaseImages, organ_of_label
from difftumor.commands.loop import run_cases
from difftumor.commands.run import SIDECAR, CaseCommand, Done
from difftumor.images.volumes import Volume, parse_mask_argument, write_volume
from difftumor.options import UsageError, options_of, parameters_of
from difftumor.parameters import MODELLED, Ellipsoid, Organ, SynthesisParameters
from difftumor.provenance import SYNTHETIC_NOTICE, image_hash, sidecar_path
from difftumor.synthesis.synthesize import SynthesisResult
from difftumor.weights.models import find_model

DEFAULT_MODEL = "demo-abdomen-early"
PlaceOptions: Any = options_of(Ellipsoid, defaults={"center_ras": None, "radii_mm": None})
SynthesisOptions: Any = options_of(
    SynthesisParameters, without=("ellipsoid", "organ"), defaults={"model": DEFAULT_MODEL}
)


@dataclass(kw_only=True)
class Synthesize(SynthesisOptions, PlaceOptions, CaseCommand):
    """Put a synthetic tumor into a CT; the input is never changed.

    Place it with --center and --radii (RAS millimeters), or let --random SIZE place it in --organ.
    Beside the output a JSON side-car tells how it was made; `difftumor replay` makes it again.
    """

    task_name = "synthesis"
    ending = "synthetic"
    table = "synthesis.csv"
    columns = (
        *("number", "volume_mm3", "equivalent_diameter_mm", "r_mm", "a_mm", "s_mm"),
        *("hu_before", "hu_after", "out"),
    )
    packs = (Ellipsoid, SynthesisParameters)
    beside: ClassVar = {"mask_out": "-mask"}
    single = ("mask_out",)

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Result, for example tumor-synthetic.nii.gz; of many cases a folder."""
    anatomy: Organ | None = None
    """Organ at the place; default: from the label (5 liver, 7 pancreas, 2 and 3 kidneys), else the model's."""
    mask_out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Tumor mask, 0/1."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        return run_cases(self)

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
        organs = self._organs()
        organ = (
            self.anatomy or organ_of_label(label) or (organs[0] if len(organs) == 1 else "liver")
        )
        try:
            if self.size is None:
                ellipsoid = Ellipsoid(self.center_ras, self.radii_mm, self.rotation_deg)
        except ValueError as error:
            raise UsageError(str(error)) from None
        model = resolved_model(self.model)
        return parameters_of(
            SynthesisParameters, self, model=model, ellipsoid=ellipsoid, organ=organ
        )

    def _organs(self) -> tuple[str, ...]:
        """Organs that the model is for; none if it is the baseline, which has no weights."""
        return (
            () if self.model == MODELLED else tuple(find_model(self.model).card.get("organs") or ())
        )

    def record(self, parameters: Any) -> tuple[task.Task, Any]:
        """See `CaseCommand`."""
        from difftumor.synthesis.task import SYNTHESIS

        return SYNTHESIS, parameters

    def model_names(self) -> tuple[str, ...]:
        """See `CaseCommand`."""
        return () if self.model == MODELLED else (self.model,)

    def files(self) -> CaseFiles:
        """See `CaseCommand`; the anatomy decides which organ of a map is taken."""
        return replace(super().files(), anatomy=self.anatomy)

    def tell_device(self, reporter: Reporter) -> None:
        """See `CaseCommand`."""
        tell_device(self.device, self.model, reporter)

    def outputs(self) -> dict[str, Path]:
        """See `CaseCommand`."""
        mask = {"mask": self.mask_out} if self.mask_out else {}
        return {"image": self.out, **mask, SIDECAR: sidecar_path(self.out)}

    def write(self, role: str, done: Done, path: Path) -> None:
        """See `CaseCommand`."""
        assert done.outcome is not None
        volume, result = done.images.first, done.outcome.result
        if role == "image":
            written = volume_with_tumors(volume, result)
        else:
            written = volume.with_array(result.full_mask(volume.grid.shape))
        write_volume(written, path, metadata={"description": SYNTHETIC_NOTICE})

    def facts(self, _record: task.Task, images: CaseImages, result: Any) -> dict[str, Any]:
        """See `CaseCommand`; the hash is of the numbers that the file can hold."""
        made = volume_with_tumors(images.first, result)
        sha256 = image_hash(made.array, made.affine)
        return {"output_sha256": sha256, "lesions": result.lesions, "notes": result.notes}

    def rows(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """See `CaseCommand`: one for each tumor."""
        rows = []
        for lesion in content["result"]["lesions"]:
            r, a, s = lesion.get("center_ras", (None, None, None))
            rows.append(
                {
                    "number": lesion["index"] + 1,
                    "volume_mm3": lesion["volume_mm3"],
                    "equivalent_diameter_mm": lesion["equivalent_diameter_mm"],
                    **{"r_mm": r, "a_mm": a, "s_mm": s},
                    "hu_before": lesion["hu_before"]["mean"],
                    "hu_after": lesion["hu_after"]["mean"],
                    "out": self.out.name,
                }
            )
        return rows

    def in_a_line(self, content: dict[str, Any] | None) -> str:
        """See `CaseCommand`."""
        lesions = (content or {})["result"]["lesions"]
        total = sum(lesion["volume_mm3"] for lesion in lesions)
        return f"{len(lesions)} synthetic {'tumors' if len(lesions) > 1 else 'tumor'} ({total / 1000:.2f} ml)"

    def sentence(self, content: dict[str, Any] | None) -> str:
        """See `CaseCommand`."""
        return f"{self.in_a_line(content)} in {self.out}, side-car {sidecar_path(self.out)}"


def volume_with_tumors(volume: Volume, result: SynthesisResult) -> Volume:
    """The scan with the tumors, in numbers that its file can hold."""
    array = result.applied_to(volume.array)
    if volume.storage.is_scaled:
        array[result.box] = volume.quantized(array[result.box])
    return volume.with_array(array)
