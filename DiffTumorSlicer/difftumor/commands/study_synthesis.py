"""Synthetic cases of a study that are made while it is created."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from difftumor.commands.common import tell_device
from difftumor.commands.console import Reporter
from difftumor.commands.run import run_one
from difftumor.commands.synthesize import DEFAULT_MODEL, Synthesize
from difftumor.options import UsageError
from difftumor.parameters import ORGAN_LABELS, Organ, TumorSize
from difftumor.provenance import sidecar_path
from difftumor.reader_study.sources import beside, sources_in


@dataclass(kw_only=True)
class OnTheFly:
    """Options of tumors that are synthesized now."""

    synthesize_in: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Healthy scans with their organs (case.nii.gz, case-organs.nii.gz): a tumor is put into each."""
    synthesized: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where the scans with the new tumors go; what is there already is not made again."""
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID...")] = (DEFAULT_MODEL,)
    """Models, in turn."""
    organs: Annotated[tuple[Organ, ...], tyro.conf.arg(metavar="ORGAN...")] = get_args(Organ)
    """Organs, in turn."""
    sizes: Annotated[tuple[TumorSize, ...], tyro.conf.arg(metavar="SIZE...")] = ("tiny", "small")
    """Sizes of random shapes, in turn."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def run(self, seed: int, quiet: bool, reporter: Reporter) -> Path | None:
        """Synthesize one tumor in each healthy scan.

        Args:
            seed: of the first; each scan has its own.
            quiet: print results and errors only.
            reporter: progress.

        Returns:
            the folder with the results; None: nothing was asked for.

        Raises:
            UsageError: options that do not go together; errors of `difftumor synthesize`.
        """
        if self.synthesize_in is None:
            if self.synthesized is not None:
                raise UsageError("--synthesized is where the tumors of --synthesize-in go")
            return None
        if self.synthesized is None:
            raise UsageError("--synthesize-in needs --synthesized FOLDER for its results")
        if not (self.models and self.organs and self.sizes):
            raise UsageError("--models, --organs and --sizes need at least one value each")
        scans = [source.image for source in sources_in(self.synthesize_in, "healthy")]
        self.synthesized.mkdir(parents=True, exist_ok=True)
        tell_device(self.device, self.models[0], reporter)
        cache: dict[str, Any] = {}
        turns = len(self.organs)
        for number, scan in enumerate(scans):
            organ = self.organs[number % turns]
            size = self.sizes[number // turns % len(self.sizes)]
            model = self.models[number % len(self.models)]
            command = self._command(scan, organ, size, model, seed + number, quiet)
            # The side-car is renamed into place last, so it stands for a whole result.
            if not sidecar_path(command.out).exists():
                run_one(command, cache, reporter)
        return self.synthesized

    def _command(
        self, scan: Path, organ: Organ, size: TumorSize, model: str, seed: int, quiet: bool
    ) -> Synthesize:
        organs = beside(scan, ("-organs",))
        if organs is None:
            raise UsageError(
                f"a tumor is put into an organ, but the organs of {scan} are not there: give "
                f"{sidecar_path(scan).stem}-organs.nii.gz, as of TotalSegmentator, beside it"
            )
        out = (self.synthesized or Path()) / f"{sidecar_path(scan).stem}.nii.gz"
        return Synthesize(
            images=(str(scan),),
            out=out,
            mask_out=out.with_name(f"{sidecar_path(scan).stem}-mask.nii.gz"),
            model=model,
            organ=f"{organs}:{ORGAN_LABELS[organ][seed % len(ORGAN_LABELS[organ])]}",
            anatomy=organ,
            size=size,
            count=1,
            seed=seed,
            device=self.device,
            quiet=quiet,
        )
