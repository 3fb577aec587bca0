"""What a model says about itself (`model.json`), and the small file habits around it.  No torch here.

A card is a plain dict, valid under `Resources/model.schema.json`.  Its `schema_version` is migrated or
refused with a sentence: a card is never guessed at.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difftumor.remedies import Remedy, with_remedy

CARD_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"
SCHEMA_VERSION = 1
# From version n to n + 1; empty as long as there is one version.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

Callback = Callable[[int, int], None]


class ModelError(Exception):
    """A model or a weight file cannot be used: what happened, why, and what to do next."""


@dataclass(frozen=True)
class Identification:
    """What a file is.

    Attributes:
        kind: one word of `checkpoints.KINDS`, "model_folder", or "unknown".
        sentence: the same for a person, e.g. "a DiffTumor diffusion checkpoint for early tumors (T = 4)".
        facts: JSON-ready details (T, channels, classes, ...).
    """

    kind: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)


def resources_folder() -> Path:
    """Registry, schemas and demonstration models: beside the package in Slicer, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "resources"
    return inside if (inside / "models.json").is_file() else package.parent / "Resources"


def read_json(path: Path) -> Any:
    """Parse a JSON file strictly (no NaN, UTF-8).  Raises: ModelError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as JSON ({error}). The file is damaged: remove the model and "
            "install it again."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path, callback: Callback | None = None) -> str:
    """SHA-256 of a file, 64 lower-case hex digits.  `callback(done, total)` in bytes may raise."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            done += len(block)
            if callback:
                callback(done, total)
    return digest.hexdigest()


def validate(value: Any, schema_name: str, source: str) -> None:
    """Check a JSON value against a schema of `Resources`.

    Args:
        schema_name: "model.schema.json" or "models.schema.json".
        source: what is checked, for the message.

    Raises:
        ModelError: names the field, what stands there and the rule.
    """
    try:
        # Late, because Slicer's own Python lists models before the requirements are installed.
        import jsonschema
    except ImportError as error:
        raise with_remedy(
            ModelError(f"{source} cannot be checked: the Python package jsonschema is missing."),
            Remedy("install_package", {"package": "jsonschema"}),
        ) from error
    validator = jsonschema.Draft202012Validator(read_json(resources_folder() / schema_name))
    problem = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if problem is not None:
        where = ".".join(str(part) for part in problem.absolute_path) or "the top level"
        raise ModelError(
            f"{source} is not valid: at {where}, {_shortened(problem.message)}. Correct the field "
            f"(the rules are in {schema_name}) or export the model again."
        )


def current_version(value: Any, source: str) -> dict[str, Any]:
    """Bring a card to `SCHEMA_VERSION`.  Raises: ModelError: a version nobody here can read."""
    if not isinstance(value, dict):
        raise ModelError(f"{source} is not a model card: a JSON object was expected.")
    card: dict[str, Any] = value
    version = card.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise ModelError(
            f"{source} does not say its schema_version (a whole number; now {SCHEMA_VERSION}). "
            "It was not written by this program: export the model again."
        )
    if version > SCHEMA_VERSION:
        raise ModelError(
            f"{source} has schema version {version}, this program knows up to {SCHEMA_VERSION}. "
            "Update the program, or export the model with the older one."
        )
    while version < SCHEMA_VERSION and version in MIGRATIONS:
        card = {**MIGRATIONS[version](dict(card)), "schema_version": version + 1}
        version += 1
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"{source} has schema version {version}, which this program cannot migrate to "
            f"{SCHEMA_VERSION}. Export the model again."
        )
    return card


def read_card(folder: Path) -> dict[str, Any]:
    """Card of a model folder, migrated and valid.

    Args:
        folder: with `model.json` and `model.safetensors`.

    Raises:
        ModelError: no folder, no card, an unknown version, or an invalid field.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model folder at {folder}.")
    path = folder / CARD_NAME
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a model folder: it holds no {CARD_NAME}. A model folder has "
            f"{CARD_NAME} and {WEIGHTS_NAME}, as the training programs export them."
        )
    card = current_version(read_json(path), str(path))
    validate(card, "model.schema.json", str(path))
    return card


def _shortened(text: str, longest: int = 200) -> str:
    """Keep a message readable when a value in it is huge."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def check_target(folder: Path, overwrite: bool) -> None:
    """Never write over anything but a model folder that may be replaced.  Raises: ModelError."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not overwrite:
        raise ModelError(
            f"{folder} exists. Choose another folder, or say that it may be overwritten."
        )
    strange = (
        sorted(path.name for path in folder.iterdir() if path.name not in (CARD_NAME, WEIGHTS_NAME))
        if folder.is_dir() and not folder.is_symlink()
        else [folder.name]
    )
    if strange:
        raise ModelError(
            f"{folder} holds more than a model ({', '.join(strange[:3])}) and is not replaced. "
            "Choose another folder."
        )
