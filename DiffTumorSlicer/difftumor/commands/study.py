"""`difftumor study`: make a reader study, see how far readers are, and collect their answers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from difftumor.commands.console import Reporter, complain, say
from difftumor.commands.study_audit import Audit
from difftumor.commands.study_summarize import Power, Summarize
from difftumor.commands.study_synthesis import OnTheFly
from difftumor.images.outputs import check_outputs, staged
from difftumor.options import UsageError
from difftumor.parameters import Organ
from difftumor.provenance import write_json
from difftumor.reader_study.answers import ANSWERS_CSV, ANSWERS_JSON, write_answers_csv
from difftumor.reader_study.choosing import Plan
from difftumor.reader_study.key import READERS, read_study
from difftumor.reader_study.merging import ReaderStatus, merge, package_folders, status
from difftumor.reader_study.packages import create_study, new_study_id, today
from difftumor.reader_study.sources import Source, measure, sources_in, sources_of_table
from difftumor.reader_study.study import StudyFacts, StudyType

FACTS: dict[str, Any] = {item.name: item.default for item in fields(StudyFacts)}
PLAN: dict[str, Any] = {item.name: item.default for item in fields(Plan)}
StudyFolder = tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="STUDY")]]
Folders = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")]


@dataclass(kw_only=True)
class Create:
    """Make a study of folders of scans: a sealed key, and a blinded package for each reader.

    The lesions of `case.nii.gz` are looked for in `case-mask.nii.gz` (or -tumors, -lesions, -segmentation) beside it,
    its organ in the side-car, in `case-organs.nii.gz`, or in the folder's name (liver, pancreas, kidney).
    """

    out: Annotated[Path, tyro.conf.arg(metavar="STUDY")]
    """Folder to make."""
    readers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CODE...")]
    """Codes of the readers; no names."""
    real: Folders = ()
    """Scans with real tumors."""
    synthetic: Folders = ()
    """Scans with synthetic tumors (`difftumor synthesize --mask-out`)."""
    healthy: Folders = ()
    """Scans without a tumor (detection)."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """More cases: columns image, kind (real, synthetic, healthy), organ, lesions (MASK or MASK:label)."""
    on_the_fly: tyro.conf.OmitArgPrefixes[OnTheFly]
    organ: Organ | None = None
    """Organ of all cases."""
    lesion_label: int | None = None
    """Label of the lesions in the masks of real cases; default: all labels."""
    type: StudyType = "visual_turing_test"
    """What is asked: real or synthetic; which organ; where is a lesion."""
    title: str = "Reader study"
    """Shown to the readers."""
    question: str = FACTS["question"]
    """Shown with each case; default: by the type."""
    window: Annotated[tuple[float, float], tyro.conf.arg(metavar="LOW HIGH")] = FACTS["window_hu"]
    """First display of every case, HU."""
    allow_back: bool = FACTS["allow_back"]
    """Let readers go back and change answers; each change is logged."""
    time_limit: float | None = FACTS["time_limit_s"]
    """Seconds for each case; later answers are taken and marked."""
    ask_confidence: bool = FACTS["ask_confidence"]
    """Ask for a confidence of 1 to 5."""
    ask_mark: bool = FACTS["ask_mark"]
    """Let readers mark a place; always so in a detection."""
    mark_tolerance: float = FACTS["mark_tolerance_mm"]
    """A mark this near to a lesion counts as found, mm."""
    cases: int | None = PLAN["cases"]
    """Cases of each kind in each organ; default: as many as there are."""
    practice: int = PLAN["practice"]
    """Practice cases, which come first and do not count."""
    repeats: int = PLAN["repeats"]
    """Cases that are shown a second time."""
    balanced: bool = PLAN["balanced"]
    """Take as many of each kind in every organ and size class."""
    seed: int = PLAN["seed"]
    """The same seed gives the same choice and orders."""
    spacing: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="R A S")] = None
    """Voxel size of all cases, mm; default: the coarsest of the scans."""
    field: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="R A S")] = None
    """Size of all cases, mm; default: what every scan can fill."""
    quiet: bool = False
    """Print results and errors only."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        facts, plan = self.facts(), self.plan()
        if self.out.exists():
            raise FileExistsError(
                f"{self.out} exists already, and a study may hold answers. Choose another folder."
            )
        with Reporter(self.quiet) as reporter:
            sources = self.sources(reporter)
            if not sources:
                raise UsageError(
                    "give scans: --real FOLDER and --synthetic FOLDER, or --table FILE.csv"
                )
            candidates = []
            for done, source in enumerate(sources):
                reporter("measuring the scans", done, len(sources))
                candidates.append(measure(source, reporter.note))
            study, notes = create_study(
                self.out, facts, candidates, plan, callback=reporter, note=reporter.note
            )
            for sentence in notes:
                reporter.note(f"Note: {sentence}.")
        count = len(study.packages)
        say(
            f"{self.out}: study {facts.study_id} for {count} reader{'s' if count > 1 else ''}. Give each the folder "
            f"{self.out / READERS}/CODE and nothing else; key.json stays with you."
        )
        return 0

    def facts(self) -> StudyFacts:
        """Facts of the study.  Raises: UsageError: out of range."""
        try:
            return StudyFacts(
                study_id=new_study_id(),
                title=self.title,
                type=self.type,
                created=today(),
                question=self.question,
                window_hu=self.window,
                allow_back=self.allow_back,
                time_limit_s=self.time_limit,
                ask_confidence=self.ask_confidence,
                ask_mark=self.ask_mark or self.type == "detection",
                mark_tolerance_mm=self.mark_tolerance,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def plan(self) -> Plan:
        """How many, for whom, on which grid.  Raises: UsageError: out of range."""
        try:
            return Plan(
                readers=self.readers,
                cases=self.cases,
                practice=self.practice,
                repeats=self.repeats,
                balanced=self.balanced,
                seed=self.seed,
                spacing_mm=self.spacing,
                field_mm=self.field,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def sources(self, reporter: Reporter) -> list[Source]:
        """All scans, those that are synthesized now included."""
        organ = self.organ or ""
        found = sources_of_table(self.table) if self.table is not None else []
        for folder in self.real:
            found += sources_in(folder, "real", organ=organ, label=self.lesion_label)
        for folder in self.synthetic:
            found += sources_in(folder, "synthetic", organ=organ)
        for folder in self.healthy:
            found += sources_in(folder, "healthy", organ=organ)
        made = self.on_the_fly.run(self.seed, self.quiet, reporter)
        return found + (sources_in(made, "synthetic") if made is not None else [])


@dataclass(kw_only=True)
class Status:
    """How far each reader is; no answers are shown. Exit code 1 if a package cannot be used."""

    study: StudyFolder
    """Folder of the study."""
    packages: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PACKAGE")]
    ] = ()
    """Packages that came back; default: those in the study's folder."""
    verify: bool = False
    """Compare every image with its hash, too."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        study = read_study(self.study)
        rows = status(study, self.packages or package_folders(study), images=self.verify)
        say(f"{study.facts.title} ({study.facts.type}, {study.facts.study_id})")
        for row in rows:
            (complain if row.problem else say)(status_line(row))
        return 1 if any(row.problem for row in rows) else 0


@dataclass(kw_only=True)
class Merge:
    """Verify the journals of the readers and put their answers beside the truth: answers.csv and answers.json."""

    study: StudyFolder
    """Folder of the study, with its key."""
    packages: tyro.conf.Positional[
        Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PACKAGE")]
    ] = ()
    """Packages that came back (package.json and journal.jsonl are enough); default: those in the study's folder."""
    overwrite: bool = False
    """Replace the answers of an earlier merge."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        study = read_study(self.study)
        outputs = [self.study / ANSWERS_JSON, self.study / ANSWERS_CSV]
        check_outputs(outputs, [], overwrite=self.overwrite)
        answers, notes = merge(study, self.packages or package_folders(study))
        with staged(outputs, overwrite=self.overwrite) as (as_json, as_csv):
            write_json(answers.to_dict(), as_json)
            write_answers_csv(answers.rows, as_csv)
        for sentence in notes:
            complain(f"Note: {sentence}.")
        counted = sum(not row.practice for row in answers.rows)
        say(f"{counted} answers of {len(answers.journals)} readers: {outputs[1]}")
        return 0


def status_line(row: ReaderStatus) -> str:
    """A reader in a line."""
    if row.problem:
        return f"{row.reader:10} cannot be used: {row.problem}"
    if not row.sessions:
        return f"{row.reader:10} not begun, {row.total} cases"
    clock = f", clock moved {len(row.clock_jumps_s)} times" if row.clock_jumps_s else ""
    left = "" if row.ended else ", not closed"
    return (
        f"{row.reader:10} {row.answered} of {row.total} cases, {row.practiced} for practice, {row.minutes:.1f} min in "
        f"{row.sessions} session{'s' if row.sessions > 1 else ''}, last {row.last}{left}{clock}"
    )


StudyCommand = (
    Annotated[Create, tyro.conf.subcommand("create")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Merge, tyro.conf.subcommand("merge")]
    | Annotated[Summarize, tyro.conf.subcommand("summarize")]
    | Annotated[Power, tyro.conf.subcommand("power")]
)


@dataclass(kw_only=True)
class ReaderStudy:
    """Reader studies: blinded reading of real and synthetic tumors in Slicer."""

    action: StudyCommand

    def run(self) -> int:
        """Do it; returns the exit code."""
        return self.action.run()
