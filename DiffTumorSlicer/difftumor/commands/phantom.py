"""`difftumor phantom`: a synthetic case with exact labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from difftumor.commands.common import UsageError
from difftumor.console import Reporter, say
from difftumor.outputs import check_outputs, staged
from difftumor.phantom import PHANTOM_VERSION, Phantom, make_abdomen
from difftumor.provenance import sidecar_path
from difftumor.volumes import Volume, write_volume


@dataclass(kw_only=True)
class MakePhantom:
    """Write a phantom: case.nii.gz, case-organs.nii.gz and case-tumors.nii.gz."""

    case: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CASE.nii.gz")]]
    """Image to write; the label files get its name with -organs and -tumors."""
    kind: Literal["abdomen"] = "abdomen"
    """What to make."""
    tumors: int = 0
    """Number of lesions in liver, pancreas and kidneys."""
    seed: int = 0
    """The same seed gives the same patient (training seeds: 0 to 9999)."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Voxel size, mm."""
    quiet: bool = False
    """Print results and errors only."""
    overwrite: bool = False
    """Replace existing outputs."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        outputs = phantom_paths(self.case)
        check_outputs(outputs, [], overwrite=self.overwrite)
        with Reporter(self.quiet) as reporter:
            reporter("making the phantom", 0, 1)
            try:
                phantom = make_abdomen(
                    self.seed, tumors=self.tumors, spacing_mm=self.spacing, orientation="LPS"
                )
            except ValueError as error:
                raise UsageError(str(error)) from None
        write_phantom(phantom, outputs, overwrite=self.overwrite)
        say(f"phantom {self.seed} (version {PHANTOM_VERSION}): " + ", ".join(map(str, outputs)))
        return 0


def phantom_paths(case: Path) -> list[Path]:
    """Image, organs and tumors beside each other."""
    stem = sidecar_path(case).stem
    suffix = case.name.removeprefix(stem)
    return [case, *(case.with_name(f"{stem}-{part}{suffix}") for part in ("organs", "tumors"))]


def write_phantom(phantom: Phantom, outputs: list[Path], *, overwrite: bool) -> None:
    """Write the three volumes, all or none."""
    arrays: tuple[np.ndarray, ...] = (phantom.ct, phantom.organs, phantom.tumors)
    text = f"PHANTOM seed {phantom.seed} v{phantom.version}, not a patient"
    with staged(outputs, overwrite=overwrite) as paths:
        for array, path in zip(arrays, paths, strict=True):
            volume = Volume(array=array, affine=phantom.grid.affine)
            write_volume(volume, path, metadata={"description": text})
