"""Which models can do what is asked for, and which of them is offered first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from difftumor.parameters import MODELLED
from difftumor.remedies import Advice
from difftumor.weights import models
from difftumor.weights.models import ModelError
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.translation import tr as _

ONE_BY_ONE_UP_TO = 10  # models with so few steps take them all; `steps` means nothing to them

Row = dict[str, Any]


def fitting_models(rows: list[Row], organ: str, size: str) -> list[Row]:
    """Synthesis models for tumors of this size in this organ.

    Args:
        rows: of `difftumor.weights.models.list_models`.
        organ: 'liver', 'pancreas' or 'kidney'.
        size: 'tiny', 'small', 'medium' or 'large'.

    Returns:
        rows, installed ones first; a model that names no organs or sizes fits all.
    """
    fitting = [row for row in rows if row["task"] == "synthesis" and _fits(row, organ, size)]
    return sorted(fitting, key=lambda row: not row["installed"])


def best_model(rows: list[Row], organ: str, size: str) -> str:
    """Id of the model to offer: an installed published or own one, the demonstration, or the modeled."""
    installed = [row for row in fitting_models(rows, organ, size) if row["installed"]]
    chosen = sorted(installed, key=lambda row: bool(row["bundled"]))
    return str(chosen[0]["id"]) if chosen else MODELLED


def takes_steps(model: str) -> bool:
    """Whether the number of steps changes what a model does."""
    return _length(model) > ONE_BY_ONE_UP_TO


def is_modelled(model: str) -> bool:
    """Whether it is the baseline without a network, which has a rim of its own and no other settings."""
    return model == MODELLED


def check_model(model: str, task: str, purpose: str) -> None:
    """Look before a job starts whether its model can be used.

    Args:
        model: id, or the path of a file or folder.
        task: what it has to be made for, as the registry names it.
        purpose: the same in words.

    Raises:
        SessionError: unknown, not installed, damaged, or made for another task.
    """
    row = next((row for row in models.list_models() if row["id"] == model), None)
    if row is None:
        if not model or not Path(model).expanduser().exists():
            raise SessionError(
                _('There is no model "{model}". Choose one in the Models panel.').format(
                    model=model
                )
            )
        return  # a file or folder by its path: the worker looks into it
    if row["task"] != task:
        raise SessionError(
            _('"{title}" is a model for {task}, not for {purpose}. Choose another model.').format(
                title=row["title"], task=row["task"] or _("another task"), purpose=purpose
            )
        )
    if row["advice"]:
        raise SessionError(sentence_of(Advice.from_json(row["advice"])))
    if not row["installed"]:
        raise SessionError(
            _(
                '"{title}" is not installed. Press Download or Import in the Models panel, or choose '
                "another model."
            ).format(title=row["title"])
        )


def _fits(row: Row, organ: str, size: str) -> bool:
    organs, sizes = row.get("organs"), row.get("tumor_types")
    return (not organs or organ in organs) and (not sizes or size in sizes)


def _length(model: str) -> int:
    """Diffusion steps of a model's schedule; 0 if nothing is known of it."""
    if model == MODELLED:
        return 0
    entry = models.registry().get(model)
    if entry is None:
        try:
            entry = models.find_model(model).card
        except ModelError:
            return 0
    return int(entry.get("T") or 0)
