"""`difftumor study audit`: does anything but the lesion give the truth away?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from difftumor.commands.console import Reporter, say
from difftumor.commands.study_packages import need_packages
from difftumor.images.outputs import staged
from difftumor.options import UsageError
from difftumor.provenance import write_json
from difftumor.reader_study.key import READERS, read_study


@dataclass(kw_only=True)
class Audit:
    """Look in a study, before it is released, for anything but the lesion that gives the truth away.

    Headers, sizes, times, orders, rounding, histogram, noise, the seam around lesions, and a classifier on all of it.
    Exit code 1 if something was found.
    """

    study: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="STUDY")]]
    """Folder of the study, with its key and packages."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="REPORT")] = None
    """Folder for audit.html and audit.json, which tell the truth: not within a package; default: STUDY."""
    seed: int = 0
    """Of permutations and cross-validation."""
    quiet: bool = False
    """Print results and errors only."""
    overwrite: bool = False
    """Replace an earlier report."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        need_packages()
        study = read_study(self.study)
        out = self.out or self.study
        if out.resolve().is_relative_to((self.study / READERS).resolve()):
            raise UsageError(f"{out} lies where readers' packages are. Choose another --out.")
        outputs = [out / "audit.html", out / "audit.json"]
        if not self.overwrite and (there := [path for path in outputs if path.exists()]):
            raise FileExistsError(
                f"{there[0]} exists already. Choose another --out, or add --overwrite."
            )
        # Late, because they take seconds to import.
        from difftumor.reader_study.audit.auditing import audit_study
        from difftumor.reader_study.audit.page import (
            audit_content,
            audit_page,
            classifier_line,
            verdict,
        )

        with Reporter(self.quiet) as reporter:
            report = audit_study(study, callback=reporter, seed=self.seed)
        out.mkdir(parents=True, exist_ok=True)
        with staged(outputs, overwrite=self.overwrite) as (as_page, as_json):
            as_page.write_text(audit_page(report), encoding="utf-8")
            write_json(audit_content(report), as_json)
        for finding in report.findings:
            say(
                f"{finding.severity.upper():5} {finding.kind}: {finding.what}\n      {finding.remedy}"
            )
        say(classifier_line(report))
        for note in report.notes:
            say(f"Note: {note}.")
        say(f"{verdict(report)} Report: {outputs[0].resolve()}")
        return 0 if report.clean else 1
