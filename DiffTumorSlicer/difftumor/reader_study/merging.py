"""Collect what readers did: verified journals, the state of each package, and the answers beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftumor.reader_study.answers import ANSWERS_JSON, AnswerRow, Answers, read_answers
from difftumor.reader_study.journal import JournalError, read_journal
from difftumor.reader_study.key import READERS, Key, KeyCase, KeyShowing, Study, read_key
from difftumor.reader_study.neutral import distance_to_lesion
from difftumor.reader_study.reading import Given, ReadingState
from difftumor.reader_study.study import (
    JOURNAL_FILE,
    PACKAGE_FILE,
    StudyError,
    case_sha256,
    read_package,
)


@dataclass(frozen=True)
class ReaderStatus:
    """How far a reader is; no answers here.

    Attributes:
        reader: code.
        folder: of the package.
        answered, total: counted cases.
        practiced: practice cases with an answer.
        sessions: how often the package was opened.
        ended: the last session was closed in an orderly way.
        minutes: on the screen, pauses left out.
        last: UTC time of the last record; "" before the first.
        clock_jumps_s: by how much the computer's clock was moved, each time.
        problem: why the package cannot be used; "".
    """

    reader: str
    folder: Path
    answered: int = 0
    total: int = 0
    practiced: int = 0
    sessions: int = 0
    ended: bool = True
    minutes: float = 0.0
    last: str = ""
    clock_jumps_s: tuple[float, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class _Read:
    """A verified journal."""

    state: ReadingState
    records: tuple[dict[str, Any], ...]


def package_folders(study: Study) -> list[Path]:
    """The packages in the study's own folder, by reader."""
    return [study.folder / READERS / reader for reader in study.packages]


def status(study: Study, folders: Sequence[Path], *, images: bool = False) -> list[ReaderStatus]:
    """How far readers are; a package that cannot be used is told, not raised.

    Args:
        study: whose packages these are.
        folders: of packages.
        images: compare every image with its hash, too.
    """
    rows = []
    for folder in folders:
        reader = Path(folder).name
        try:
            read = _read(study, folder)
            package = read.state.package
            reader = package.reader
            if images:
                _check_images(folder)
        except (StudyError, OSError) as error:
            rows.append(ReaderStatus(reader, Path(folder), problem=str(error)))
            continue
        state = read.state
        counted = [case.token for case in package.cases if not case.practice]
        rows.append(
            ReaderStatus(
                reader,
                Path(folder),
                sum(token in state.given for token in counted),
                len(counted),
                len(set(state.given) - set(counted)),
                state.runs,
                state.ended,
                round(sum(state.seconds(case.token) for case in package.cases) / 60, 1),
                str(read.records[-1]["utc"]) if read.records else "",
                tuple(state.clock_jumps_s),
            )
        )
    return rows


def merge(study: Study, folders: Sequence[Path]) -> tuple[Answers, tuple[str, ...]]:
    """Put the answers of all readers beside the truth.

    Args:
        study: with its key.
        folders: packages as they came back; package.json and journal.jsonl are enough.

    Returns:
        the answers, and sentences about what is missing or strange.

    Raises:
        StudyError: a package of another study, one that was changed, two of one reader, a journal that was cut
            since the last merge.
        JournalError: a journal that was changed.
    """
    key = read_key(study)
    before = _merged_before(study)
    rows: list[AnswerRow] = []
    journals: dict[str, dict[str, Any]] = {}
    seen: dict[str, Path] = {}
    notes = []
    for folder in folders:
        read = _read(study, folder)
        package, state = read.state.package, read.state
        if package.reader in seen:
            raise StudyError(
                f"{folder} and {seen[package.reader]} are both of reader {package.reader}. Give the one that was read "
                "last."
            )
        seen[package.reader] = Path(folder)
        _check_not_cut(folder, read.records, before.get(package.reader))
        order = key.readers.get(package.reader, ())
        if [showing.token for showing in order] != [case.token for case in package.cases]:
            raise StudyError(f"{folder} lists other cases than the key. Take it from a backup.")
        if read.records:
            journals[package.reader] = _journal_facts(read)
        missing = len(package.cases) - len(state.given)
        if missing:
            notes.append(
                f"{package.reader} has not answered {missing} of {len(package.cases)} cases yet"
            )
        if state.clock_jumps_s:
            moved = ", ".join(f"{v:+g} s" for v in state.clock_jumps_s)
            notes.append(
                f"the clock of {package.reader}'s computer was moved ({moved}); reading times are not affected"
            )
        rows += _rows(package.reader, order, state, key, study)
    if not rows:
        raise StudyError("There is no answer yet. Merge when readers have begun.")
    if left_out := set(study.packages) - set(seen):
        notes.append(f"no package was given of {', '.join(sorted(left_out))}")
    return Answers(study.facts, journals, tuple(rows)), tuple(notes)


def _read(study: Study, folder: Path) -> _Read:
    """A package that belongs to the study, and its verified journal."""
    package = read_package(folder, images=False)
    if package.facts.study_id != study.facts.study_id:
        raise StudyError(
            f"{folder} belongs to another study ({package.facts.title!r}, {package.facts.study_id}). Leave it out."
        )
    if study.packages.get(package.reader) != package.digest:
        raise StudyError(
            f"{Path(folder) / PACKAGE_FILE} is not as it was given to the reader {package.reader}. Put the issued one "
            "back; the journal only fits to that."
        )
    reading = read_journal(Path(folder) / JOURNAL_FILE, package.digest)
    return _Read(ReadingState.replay(package, reading.records), reading.records)


def _check_images(folder: Path) -> None:
    package = read_package(folder)
    for case in package.cases:
        if case_sha256(case.token, package.folder / case.file) != case.sha256:
            raise StudyError(f"{package.folder / case.file} is damaged. Copy the package again.")


def _merged_before(study: Study) -> dict[str, dict[str, Any]]:
    path = study.folder / ANSWERS_JSON
    return read_answers(path).journals if path.exists() else {}


def _check_not_cut(
    folder: Path, records: Sequence[dict[str, Any]], before: dict[str, Any] | None
) -> None:
    """The chain shows every change but a cut at its end; an earlier merge knows how long it was."""
    if before is None:
        return
    count = int(before["records"])
    if len(records) < count or records[count - 1]["hash"] != before["last_hash"]:
        raise JournalError(
            f"{Path(folder) / JOURNAL_FILE} is not a continuation of the journal that was merged before ({count} "
            "records). Give the latest copy of this reader's package."
        )


def _journal_facts(read: _Read) -> dict[str, Any]:
    return {
        "records": len(read.records),
        "last_hash": read.records[-1]["hash"],
        "answered": len(read.state.given),
        "total": len(read.state.package.cases),
        "sessions": read.state.runs,
        "clock_jumps_s": read.state.clock_jumps_s,
    }


def _rows(
    reader: str, order: Sequence[KeyShowing], state: ReadingState, key: Key, study: Study
) -> list[AnswerRow]:
    practice = sum(showing.practice for showing in order)
    rows = []
    for index, showing in enumerate(order):
        given = state.given.get(showing.token)
        if given is None:
            continue
        case = key.cases[showing.case_id]
        distance = None
        if given.answer.mark_ras is not None and case.lesions is not None:
            distance = round(distance_to_lesion(case.lesions, given.answer.mark_ras), 2)
        rows.append(
            AnswerRow(
                reader=reader,
                token=showing.token,
                case_id=case.id,
                organ=case.organ,
                kind=case.kind,
                size_mm=case.size_mm,
                truth=case.truth,
                choice=given.answer.choice,
                confidence=given.answer.confidence,
                seconds=given.seconds,
                position=index + 1 if showing.practice else index + 1 - practice,
                practice=showing.practice,
                repeat_of=showing.repeat_of,
                changed=given.changes,
                late=given.late,
                at=given.at,
                mark_ras=given.answer.mark_ras,
                mark_mm_from_lesion=distance,
                found=_found(case, given, distance, study),
                comment=given.answer.comment,
            )
        )
    return rows


def _found(case: KeyCase, given: Given, distance: float | None, study: Study) -> bool | None:
    """Whether a lesion was found in a detection study; None without a lesion, or in other studies."""
    if study.facts.type != "detection" or case.truth != "lesion":
        return None
    said = given.answer.choice == "lesion"
    return said and distance is not None and distance <= study.facts.mark_tolerance_mm
