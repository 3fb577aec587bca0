"""What a study is and what a reader gets of it: facts, and the package of one reader. No truth here.

Standard library only: Slicer reads this.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from difftumor.fields import check_ranges, number, option
from difftumor.parameters import from_dict

StudyType = Literal["visual_turing_test", "organ_recognition", "detection"]

STUDY_SCHEMA = "difftumor-study"
PACKAGE_SCHEMA = "difftumor-reader-package"
SCHEMA_VERSION = 1
STUDY_FILE = "study.json"
PACKAGE_FILE = "package.json"
JOURNAL_FILE = "journal.jsonl"
LOCK_FILE = "lock"

CHOICES: dict[str, tuple[str, ...]] = {
    "visual_turing_test": ("real", "synthetic"),
    "organ_recognition": ("liver", "pancreas", "kidney"),
    "detection": ("lesion", "none"),
}
QUESTIONS = {
    "visual_turing_test": "Is the tumor in this scan real or synthetic?",
    "organ_recognition": "In which organ does this tumor lie?",
    "detection": "Is there a lesion in this scan? If so, mark it.",
}
NOTICE = (
    "This package is part of a reader study and contains SYNTHETIC images among real ones. "
    "Research use only: never for diagnosis."
)


class StudyError(ValueError):
    """A study, package or journal that cannot be used, or a step that is not possible now."""


@dataclass(frozen=True)
class StudyFacts:
    """What everybody may know of a study.

    Attributes:
        schema_version: of the files of this study.
        study_id: random, 12 hexadecimal digits.
        title: shown to the readers.
        type: what is asked; decides `question` and `choices` where they are left empty.
        created: day, as 2026-11-20.
    """

    study_id: str
    title: str
    type: StudyType
    created: str
    question: str = option("", "Shown above the image; default: by the type of the study.")
    choices: tuple[str, ...] = option(
        (), "What can be answered; default: by the type of the study."
    )
    window_hu: tuple[float, float] = number(
        (-160.0, 240.0), -2000.0, 4000.0, "HU", "Lowest and highest value of the first display."
    )
    allow_back: bool = option(False, "Let readers go back and change answers (each is logged).")
    time_limit_s: float | None = number(None, 1.0, 3600.0, "s", "Time for each case.")
    ask_confidence: bool = option(True, "Ask for a confidence of 1 to 5 with each answer.")
    ask_mark: bool = option(False, "Let readers mark a place in the image.")
    mark_tolerance_mm: float = number(
        10.0, 0.0, 100.0, "mm", "A mark this near to a lesion counts as found."
    )
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "question", self.question or QUESTIONS.get(self.type, ""))
        object.__setattr__(self, "choices", tuple(self.choices or CHOICES.get(self.type, ())))
        object.__setattr__(self, "window_hu", tuple(self.window_hu))
        check_ranges(self)
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version must be {SCHEMA_VERSION}, got {self.schema_version!r}"
            )
        if len(self.window_hu) != 2 or not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"window_hu must be lowest and highest HU, got {self.window_hu!r}")
        if len(self.choices) < 2 or not all(isinstance(c, str) and c for c in self.choices):
            raise ValueError(f"choices must be two or more words, got {self.choices!r}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class CaseFile:
    """One case of a package.

    Attributes:
        token: opaque name, different for each reader and each showing.
        practice: does not count.
        start_ras: where to begin to look, RAS mm from the center of the image; found by the same rule in all cases.
        sha256: of the token and the file (see `case_sha256`), to tell a damaged copy.
    """

    token: str
    practice: bool
    start_ras: tuple[float, float, float]
    sha256: str

    @property
    def file(self) -> str:
        """Path within the package."""
        return f"cases/{self.token}.nii"


@dataclass(frozen=True)
class Package:
    """What one reader gets: facts, and the cases in the order in which they are shown.

    Attributes:
        folder: where it lies.
        reader: the reader's code, never a name.
        key_sha256: salted hash of the sealed key; shows later that the truth was not changed.
        case_bytes: size of every case file.
        digest: SHA-256 of package.json; the journal's chain starts with it.
    """

    folder: Path
    facts: StudyFacts
    reader: str
    key_sha256: str
    case_bytes: int
    cases: tuple[CaseFile, ...]
    digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Content of package.json."""
        return {
            "schema": PACKAGE_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "notice": NOTICE,
            "reader": self.reader,
            "key_sha256": self.key_sha256,
            "case_bytes": self.case_bytes,
            "study": self.facts.to_dict(),
            "cases": [asdict(case) for case in self.cases],
        }


def case_sha256(token: str, path: Path) -> str:
    """SHA-256 of the token and the bytes of a case; the token hides which cases are shown twice."""
    digest = hashlib.sha256(token.encode())
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read_package(folder: Path, *, images: bool = True) -> Package:
    """Read and check a reader's package.

    Args:
        folder: where it lies.
        images: they must be there, and of the right size.

    Raises:
        StudyError: no package, damaged, incomplete, or of a newer version.
    """
    path = Path(folder) / PACKAGE_FILE
    content = read_versioned(path, PACKAGE_SCHEMA, "a reader's package")
    try:
        facts = facts_from(content["study"])
        cases = tuple(from_dict(CaseFile, case) for case in content["cases"])
        package = Package(
            Path(folder),
            facts,
            content["reader"],
            content["key_sha256"],
            content["case_bytes"],
            cases,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        _check_package(package, images=images)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StudyError(
            f"{path} is damaged ({_reason(error)}). Ask the coordinator for a new copy; keep the journal."
        ) from None
    return package


def facts_from(content: Mapping[str, Any]) -> StudyFacts:
    """Facts as they stand in JSON.  Raises: ValueError: unknown, missing or impossible."""
    return from_dict(StudyFacts, content)


def read_versioned(path: Path, schema: str, what: str) -> dict[str, Any]:
    """Read one of the study's JSON files.

    Args:
        path: the file.
        schema: its `schema`; its `schema_version` is SCHEMA_VERSION.
        what: for messages, such as "a reader's package".

    Raises:
        StudyError: missing, not JSON, of another kind, or of another version.
    """
    if not path.is_file():
        raise StudyError(
            f"{path.parent} is no folder of {what}: {path.name} is not there. Choose the folder that "
            f"holds {path.name}."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StudyError(
            f"{path} cannot be read ({_reason(error)}). Copy it again from where it came."
        ) from None
    if not isinstance(content, dict) or content.get("schema") != schema:
        raise StudyError(f"{path} is not the file of {what}. Choose another folder.")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise StudyError(
            f"{path} has version {content.get('schema_version')!r}; this program reads version "
            f"{SCHEMA_VERSION}. Use the program version with which the study was made."
        )
    return content


def check_code(code: Any) -> str:
    """A reader's code: 1 to 32 letters, digits, - and _.  Raises: StudyError."""
    if not isinstance(code, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", code):
        raise StudyError(
            f"{code!r} is no reader code: use 1 to 32 letters, digits, - and _, and no names of people."
        )
    return code


def _check_package(package: Package, *, images: bool) -> None:
    """Raise StudyError or ValueError if something is impossible or missing."""
    check_code(package.reader)
    if not package.cases:
        raise ValueError("it lists no case")
    if not re.fullmatch(r"[0-9a-f]{64}", package.key_sha256):
        raise ValueError("key_sha256 is no SHA-256")
    tokens = [case.token for case in package.cases]
    for case in package.cases:
        # Tokens become file names.
        if not isinstance(case.token, str) or not re.fullmatch(r"[0-9a-z]{4,32}", case.token):
            raise ValueError(f"the case name {case.token!r} is impossible")
        if not isinstance(case.practice, bool):
            raise ValueError(f"practice of {case.token} is neither true nor false")
        if len(case.start_ras) != 3 or not all(math.isfinite(v) for v in case.start_ras):
            raise ValueError(f"the start of {case.token} is no place")
        if not images:
            continue
        path = package.folder / case.file
        if not path.is_file():
            raise ValueError(f"the image {case.file} is missing")
        if path.stat().st_size != package.case_bytes:
            raise ValueError(f"the image {case.file} is incomplete")
    if len(set(tokens)) < len(tokens):
        raise ValueError("a case is listed twice")
    if [case.practice for case in package.cases] != sorted(
        (case.practice for case in package.cases), reverse=True
    ):
        raise ValueError("practice cases do not come first")


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error).rstrip(".") or type(error).__name__
