"""Which models segment: trained segmenters, what was learned from slices, and diffusion models to learn with."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftumor.weights import models
from difftumor.weights.cards import CARD_NAME, read_card
from difftumor.weights.models import ModelError
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.translation import tr as _

TASK = "segmentation"
LEARNING = (
    "anomaly",
    "representation",
)  # tasks of diffusion models whose features tell pixels apart
LEARNED = "pixel_classifiers"  # architecture of what was learned from slices
DEFAULTS: dict[str, Any] = {"min_diameter_mm": 6.0, "tumor_threshold": None}

Row = dict[str, Any]


def segmenter_rows(rows: list[Row]) -> list[Row]:
    """Models that segment, installed ones first."""
    return _installed_first(row for row in rows if row["task"] == TASK)


def learning_rows(rows: list[Row]) -> list[Row]:
    """Diffusion models whose features can be learned from, installed ones first."""
    return _installed_first(row for row in rows if row["task"] in LEARNING)


def partners(rows: list[Row], model: str) -> list[Row]:
    """Installed segmenters that could work together with a model: those of the same organs."""
    chosen = next((row for row in rows if row["id"] == model), None)
    if chosen is None or is_learned(model):
        return []
    return [
        row
        for row in segmenter_rows(rows)
        if row["installed"]
        and row["id"] != model
        and (row["organs"] == chosen["organs"] or not row["organs"] or not chosen["organs"])
        and not is_learned(row["id"])
    ]


def is_learned(model: str) -> bool:
    """Whether a model was learned from labeled slices; it is applied in another way."""
    return _card(model).get("architecture", {}).get("name") == LEARNED


def task_of(model: str) -> str:
    """The task that a model was made for; "" for an unknown one."""
    return str(_card(model).get("task") or "")


def recommended(model: str) -> dict[str, Any]:
    """Threshold and smallest piece that a segmenter recommends."""
    told = _card(model).get("recommended") or {}
    return {**DEFAULTS, **{key: told[key] for key in DEFAULTS if key in told}}


def save_learned(folder: Path, title: str) -> str:
    """Keep what was learned as a model of the user's own.

    Args:
        folder: model folder that the worker has written.
        title: for people; the id is made of it.

    Returns:
        the id.

    Raises:
        SessionError: no name, one that is taken, or the models folder cannot be written.
    """
    plain = "".join(c if c.isalnum() and c.isascii() else "-" for c in title.lower())
    model_id = "-".join(filter(None, plain.split("-")))[:80]
    if not model_id:
        raise SessionError(_("The model needs a name. Write one with letters or digits."))
    home = models.models_folder()
    if model_id in models.registry() or (home / model_id).exists():
        raise SessionError(
            _('There is a model "{name}" already. Choose another name.').format(name=model_id)
        )
    part = home / f".{model_id}.part"
    try:
        home.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        card = {**read_card(part), "id": model_id, "title": title.strip()[:200]}
        (part / CARD_NAME).write_text(json.dumps(card, indent=1), encoding="utf-8")
        part.rename(home / model_id)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise SessionError(
            _(
                "The model could not be written to {folder} ({why}). Choose another models folder in the "
                "section Models, with enough free space."
            ).format(folder=home, why=error.strerror or error)
        ) from error
    return model_id


def _installed_first(rows: Any) -> list[Row]:
    return sorted(rows, key=lambda row: not row["installed"])


def _card(model: str) -> Mapping[str, Any]:
    """The card of an installed model, else what the registry says of it, else nothing."""
    card: Mapping[str, Any] = models.registry().get(model) or {}
    # Starting says why a model cannot be used.
    with contextlib.suppress(ModelError):
        card = {**card, **models.find_model(model).card}
    return card
