"""Model folders: `model.safetensors` and `model.json`, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from difftumor.weights.cards import (
    CARD_NAME,
    SCHEMA_VERSION,
    WEIGHTS_NAME,
    ModelError,
    check_target,
    file_sha256,
    read_card,
    validate,
    write_json,
)

CODEBOOK = "codebook.embeddings"


def write_model_folder(
    folder: Path | str,
    tensors: dict[str, Tensor],
    card: dict[str, Any],
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a model.

    Args:
        folder: appears complete under this name, or not at all.
        tensors: any device and layout; the data type is kept.
        card: fields of `model.schema.json`. schema_version, sha256, and what the tensors tell (T from
            `betas`, code_minimum and code_maximum from the codebook) are filled in.
        overwrite: replace a model folder that is there; anything else is never replaced.

    Returns:
        the card as written.

    Raises:
        ModelError: the card is not valid or contradicts the tensors, a tensor is not finite, the folder exists,
            or the disk is full.
    """
    folder = Path(folder)
    check_target(folder, overwrite)
    if not tensors:
        raise ModelError(f"{folder} was not written: there are no tensors to save.")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"{folder} was not written: {name} holds numbers that are not finite. The training "
                "diverged; take an earlier checkpoint."
            )
    # A probe of the card before any work; the real hash comes with the file.
    card = _completed(card, tensors, sha256="0" * 64, source=str(folder))
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        weights = temporary / WEIGHTS_NAME
        # Copies, because safetensors refuses tensors that share memory (DynUNet's aliases).
        copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        safetensors.torch.save_file(copies, str(weights), metadata={"format": "pt"})
        with weights.open("rb+") as file:
            os.fsync(file.fileno())
        card["sha256"] = file_sha256(weights)
        write_json(temporary / CARD_NAME, card)
        for path in (weights, temporary / CARD_NAME):
            path.chmod(0o644)
        _move_into_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        why = "the disk is full" if full else str(error)
        raise ModelError(
            f"{folder} was not written: {why}. Free some space or choose another folder; "
            "nothing was left behind."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def read_model_folder(folder: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder after checking its card and the hash of its weights.

    Returns:
        tensors (data type as stored, CPU) and the card, migrated to the current schema version.

    Raises:
        ModelError: incomplete, invalid, of another version, or weights that are not the card's.
    """
    folder = Path(folder)
    card = read_card(folder)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ModelError(
            f"{folder} holds {CARD_NAME} but no {WEIGHTS_NAME}: the copy is incomplete. Get it again."
        )
    # Read once: what is hashed is what is used, and no open mapping blocks a removal on Windows.
    data = weights.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != card["sha256"]:
        raise ModelError(
            f"The weights in {folder} are not those that {CARD_NAME} describes (sha256 {found[:12]}… "
            f"instead of {card['sha256'][:12]}…): the file was changed or damaged. Get the model again."
        )
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ModelError(f"{weights} cannot be read ({error}). Get the model again.") from error
    _told_by(tensors, card, str(folder))
    return tensors, card


def _completed(
    card: dict[str, Any], tensors: dict[str, Tensor], sha256: str, source: str
) -> dict[str, Any]:
    """The card with everything that follows from the tensors, valid."""
    given = card.get("schema_version", SCHEMA_VERSION)
    if given != SCHEMA_VERSION:
        raise ModelError(
            f"{source} was not written: its card has schema version {given}, this program writes "
            f"{SCHEMA_VERSION}."
        )
    completed = {"schema_version": SCHEMA_VERSION, **card, **_told_by(tensors, card, source)}
    completed["sha256"] = sha256
    validate(completed, "model.schema.json", f"The card of {source}")
    return completed


def _told_by(tensors: dict[str, Tensor], card: dict[str, Any], source: str) -> dict[str, Any]:
    """Facts that tensors and card both state.  Raises: ModelError: if they contradict each other."""
    told: dict[str, Any] = {}
    if "betas" in tensors:
        told["T"] = len(tensors["betas"])
    for name, tensor in tensors.items():
        if name.endswith(CODEBOOK):
            told["code_minimum"] = float(tensor.min())
            told["code_maximum"] = float(tensor.max())
    for key, value in told.items():
        said = card.get(key, value)
        # A codebook in half precision moves its extremes by up to 2^-11 of their size.
        if not isinstance(said, (int, float)) or abs(said - value) > 1e-3 * max(1.0, abs(value)):
            raise ModelError(
                f"{source}: the card says {key} = {said}, the tensors say {value}. One of them belongs "
                "to another model; export the model again."
            )
    return told


def _move_into_place(temporary: Path, folder: Path) -> None:
    """Rename; an older model steps aside first and comes back if that fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    older = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(older)
    try:
        temporary.rename(folder)
    except OSError:
        older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)
