"""What stays with the coordinator: the study's facts, and the sealed key with the truth.

study.json holds a hash of key.json. The key holds 256 random bits, so nobody can try out truths against the hash,
and nobody can change the key later without being seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from difftumor.parameters import from_dict
from difftumor.reader_study.study import (
    NOTICE,
    SCHEMA_VERSION,
    STUDY_FILE,
    STUDY_SCHEMA,
    StudyError,
    StudyFacts,
    facts_from,
    read_versioned,
)

KEY_SCHEMA = "difftumor-study-key"
KEY_FILE = "key.json"
READERS = "readers"


@dataclass(frozen=True)
class KeyCase:
    """The truth of a case.

    Attributes:
        id: case-001, ... in the order of the images' hashes.
        kind: real, synthetic or healthy.
        organ: liver, pancreas or kidney.
        size_mm: equivalent diameter of the largest lesion; None if healthy.
        truth: the right choice.
        source: path, SHA-256 of voxels and geometry.
        center_ras: place in the scan that is the center of the copy, mm.
        lesions: in the copy (`neutral.packed_mask`); None.
        sidecar: how a synthetic case was made; None. Here are the marks that the copy has lost.
    """

    id: str
    kind: str
    organ: str
    size_mm: float | None
    truth: str
    source: dict[str, Any]
    center_ras: tuple[float, float, float]
    lesions: dict[str, Any] | None
    sidecar: dict[str, Any] | None


@dataclass(frozen=True)
class KeyShowing:
    """One place in a reader's order: which case a token is, and the token of its first showing."""

    token: str
    case_id: str
    practice: bool
    repeat_of: str | None


@dataclass(frozen=True)
class Key:
    """Content of key.json.

    Attributes:
        salt: 64 random hexadecimal digits; tokens come from it too.
        seed: of choice and orders.
        cases: by id.
        readers: orders by code.
        notes: what was said when the study was made.
    """

    study_id: str
    salt: str
    seed: int
    cases: dict[str, KeyCase]
    readers: dict[str, tuple[KeyShowing, ...]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        content = asdict(self)
        content["cases"] = list(content["cases"].values())
        return {"schema": KEY_SCHEMA, "schema_version": SCHEMA_VERSION, **content}


@dataclass(frozen=True)
class Study:
    """Content of study.json.

    Attributes:
        folder: where it lies.
        facts: what everybody may know.
        key_sha256: of key.json.
        frame: shape, spacing_mm and exact of all cases.
        packages: SHA-256 of each reader's package.json, by code.
    """

    folder: Path
    facts: StudyFacts
    key_sha256: str
    frame: dict[str, Any]
    packages: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": STUDY_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "notice": NOTICE,
            "key_sha256": self.key_sha256,
            "study": self.facts.to_dict(),
            "frame": self.frame,
            "packages": self.packages,
        }


def read_study(folder: Path) -> Study:
    """Read study.json.  Raises: StudyError: missing, damaged or of another version."""
    path = Path(folder) / STUDY_FILE
    content = read_versioned(path, STUDY_SCHEMA, "a study")
    try:
        return Study(
            Path(folder),
            facts_from(content["study"]),
            str(content["key_sha256"]),
            dict(content["frame"]),
            dict(content["packages"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path} is damaged ({error!r}). Take it from a backup.") from None


def read_key(study: Study) -> Key:
    """Read the key of a study and compare it with its hash.

    Raises:
        StudyError: missing, not the one that was sealed, or of another version.
    """
    path = study.folder / KEY_FILE
    content = read_versioned(path, KEY_SCHEMA, "a study's coordinator")
    if hashlib.sha256(path.read_bytes()).hexdigest() != study.key_sha256:
        raise StudyError(
            f"{path} is not the key that was sealed when the study was made: its hash differs. Take it from a backup."
        )
    try:
        return Key(
            content["study_id"],
            content["salt"],
            content["seed"],
            {case["id"]: from_dict(KeyCase, case) for case in content["cases"]},
            {
                code: tuple(from_dict(KeyShowing, showing) for showing in order)
                for code, order in content["readers"].items()
            },
            tuple(content["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{path} is damaged ({error!r}). Take it from a backup.") from None
