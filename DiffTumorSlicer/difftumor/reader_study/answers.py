"""The answers of all readers with the truth beside them: one row each, as CSV and JSON. Standard library only."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from difftumor.parameters import from_dict
from difftumor.reader_study.study import (
    SCHEMA_VERSION,
    StudyError,
    StudyFacts,
    facts_from,
    read_versioned,
)

ANSWERS_SCHEMA = "difftumor-answers"
ANSWERS_JSON = "answers.json"
ANSWERS_CSV = "answers.csv"


@dataclass(frozen=True)
class AnswerRow:
    """One answer.

    Attributes:
        reader: code.
        token: name of this showing in the reader's package.
        case_id: of the case; the same for all readers and for its repetition.
        organ: liver, pancreas or kidney.
        kind: what the image is: real, synthetic or healthy.
        size_mm: equivalent diameter of the lesion; None: none, or not known.
        truth: the right choice.
        choice: the given one.
        confidence: 1 to 5, or None.
        seconds: time on the screen until the answer, pauses left out.
        position: 1, 2, ... in the reader's order, practice and counted cases apart.
        practice: does not count.
        repeat_of: token of the first showing, if this is the second one; None.
        changed: how often the answer was changed after going back.
        late: after the time limit.
        at: UTC time.
        mark_ras: where the reader marked, in the neutral copy, mm; None.
        mark_mm_from_lesion: from the mark to the nearest voxel of a lesion, 0 inside; None.
        found: a lesion is there, was said to be there, and was marked within the tolerance; None: not a matter
            of finding.
        comment: the reader's words.
    """

    reader: str
    token: str
    case_id: str
    organ: str
    kind: str
    size_mm: float | None
    truth: str
    choice: str
    confidence: int | None
    seconds: float
    position: int
    practice: bool = False
    repeat_of: str | None = None
    changed: int = 0
    late: bool = False
    at: str = ""
    mark_ras: tuple[float, float, float] | None = None
    mark_mm_from_lesion: float | None = None
    found: bool | None = None
    comment: str = ""

    @property
    def correct(self) -> bool:
        """The choice is the truth."""
        return self.choice == self.truth


@dataclass(frozen=True)
class Answers:
    """Content of answers.json.

    Attributes:
        facts: of the study.
        journals: by reader: records, last_hash, answered, total, sessions, clock_jumps_s.
        rows: in the order of readers and of their cases.
    """

    facts: StudyFacts
    journals: dict[str, dict[str, Any]]
    rows: tuple[AnswerRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": ANSWERS_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "study": self.facts.to_dict(),
            "journals": self.journals,
            "answers": [asdict(row) for row in self.rows],
        }


def read_answers(path: Path) -> Answers:
    """Read answers.json, or that of a study's folder.

    Raises:
        StudyError: missing, damaged or of another version.
    """
    path = Path(path)
    path = path / ANSWERS_JSON if path.is_dir() else path
    content = read_versioned(path, ANSWERS_SCHEMA, "merged answers")
    try:
        rows = tuple(from_dict(AnswerRow, row) for row in content["answers"])
        return Answers(facts_from(content["study"]), dict(content["journals"]), rows)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path} is damaged ({error}). Merge the packages again.") from None


def write_answers_csv(rows: Sequence[AnswerRow], path: Path) -> None:
    """Write the rows as CSV; a mark is three columns, and `correct` is added."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, answer_columns())
        writer.writeheader()
        for row in rows:
            values = asdict(row)
            mark = values.pop("mark_ras") or ("", "", "")
            values |= dict(zip(MARK_COLUMNS, mark, strict=True), correct=row.correct)
            writer.writerow({name: _cell(value) for name, value in values.items()})


MARK_COLUMNS = ("mark_r_mm", "mark_a_mm", "mark_s_mm")


def answer_columns() -> list[str]:
    """Columns of answers.csv."""
    names: list[str] = []
    for item in fields(AnswerRow):
        names += MARK_COLUMNS if item.name == "mark_ras" else [item.name]
        if item.name == "choice":
            names.append("correct")
    return names


def _cell(value: Any) -> Any:
    """A value for a table: empty for None, true and false, and no text that a spreadsheet would compute."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value:
        return "'" + value
    return value
