"""`difftumor phantom`: a synthetic case with exact labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from difftumor.commands.console import Reporter, say
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import Volume, write_volume
from difftumor.options import UsageError
from difftumor.phantom import (
    HEAD_VERSION,
    PHANTOM_VERSION,
    HeadPhantom,
    Phantom,
    make_abdomen,
    make_head,
)
from difftumor.provenance import sidecar_path

HEAD_PARTS = ("flair", "t1", "t1c", "t2", "brain", "tumors")
"""What is written of a head; each is a part of the file name."""


@dataclass(kw_only=True)
class MakePhantom:
    """Write a phantom: an abdomen in CT, or a head in four MR sequences, with the masks of its tumors.

    The abdomen is case.nii.gz, case-organs.nii.gz and case-tumors.nii.gz; the head is case-flair.nii.gz, -t1, -t1c and
    -t2, and the labels -brain and -tumors (1 edema, 2 necrotic core, 3 enhancing).
    """

    case: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CASE.nii.gz")]]
    """Image to write; the other files get its name with -organs, -tumors and so on."""
    kind: Literal["abdomen", "head"] = "abdomen"
    """What to make."""
    tumors: int = 0
    """Number of lesions: in liver, pancreas and kidneys, or gliomas in the cerebrum."""
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
        head = self.kind == "head"
        outputs = head_paths(self.case) if head else phantom_paths(self.case)
        check_outputs(outputs, [], overwrite=self.overwrite)
        with Reporter(self.quiet) as reporter:
            reporter("making the phantom", 0, 1)
            make = make_head if head else make_abdomen
            try:
                phantom = make(
                    self.seed, tumors=self.tumors, spacing_mm=self.spacing, orientation="LPS"
                )
            except ValueError as error:
                raise UsageError(str(error)) from None
        if isinstance(phantom, HeadPhantom):
            write_head(phantom, outputs, overwrite=self.overwrite)
        else:
            write_phantom(phantom, outputs, overwrite=self.overwrite)
        version = HEAD_VERSION if head else PHANTOM_VERSION
        say(f"phantom {self.seed} (version {version}): " + ", ".join(map(str, outputs)))
        return 0


def phantom_paths(case: Path) -> list[Path]:
    """Image, organs and tumors beside each other."""
    return [case, *_beside(case, ("organs", "tumors"))]


def head_paths(case: Path) -> list[Path]:
    """The four sequences, brain and tumors beside each other."""
    return _beside(case, HEAD_PARTS)


def _beside(case: Path, parts: tuple[str, ...]) -> list[Path]:
    stem = sidecar_path(case).stem
    suffix = case.name.removeprefix(stem)
    return [case.with_name(f"{stem}-{part}{suffix}") for part in parts]


def write_phantom(phantom: Phantom, outputs: list[Path], *, overwrite: bool) -> None:
    """Write the three volumes, all or none."""
    _write(phantom, (phantom.ct, phantom.organs, phantom.tumors), outputs, overwrite=overwrite)


def write_head(phantom: HeadPhantom, outputs: list[Path], *, overwrite: bool) -> None:
    """Write the six volumes of HEAD_PARTS, all or none."""
    arrays = (*phantom.images.values(), phantom.brain.astype(np.uint8), phantom.tumors)
    _write(phantom, arrays, outputs, overwrite=overwrite)


def _write(
    phantom: Phantom | HeadPhantom,
    arrays: tuple[np.ndarray, ...],
    outputs: list[Path],
    *,
    overwrite: bool,
) -> None:
    text = f"PHANTOM seed {phantom.seed} v{phantom.version}, not a patient"
    with staged(outputs, overwrite=overwrite) as paths:
        for array, path in zip(arrays, paths, strict=True):
            volume = Volume(array=array, affine=phantom.grid.affine)
            write_volume(volume, path, metadata={"description": text})
