"""Which models can make the tumor that is asked for, and which of them is offered first."""

from __future__ import annotations

from typing import Any

from difftumor import models
from difftumor.models import ModelError
from difftumor.parameters import MODELLED

ONE_BY_ONE_UP_TO = 10  # models with so few steps take them all; `steps` means nothing to them

Row = dict[str, Any]


def fitting_models(rows: list[Row], organ: str, size: str) -> list[Row]:
    """Synthesis models for tumors of this size in this organ.

    Args:
        rows: of `difftumor.models.list_models`.
        organ: 'liver', 'pancreas' or 'kidney'.
        size: 'tiny', 'small', 'medium' or 'large'.

    Returns: rows, installed ones first; a model that names no organs or sizes fits all.
    """
    fitting = [row for row in rows if row["task"] == "synthesis" and _fits(row, organ, size)]
    return sorted(fitting, key=lambda row: not row["installed"])


def best_model(rows: list[Row], organ: str, size: str) -> str:
    """Id of the model to offer: an installed published or own one, the demonstration, or the modelled."""
    installed = [row for row in fitting_models(rows, organ, size) if row["installed"]]
    chosen = sorted(installed, key=lambda row: bool(row["bundled"]))
    return str(chosen[0]["id"]) if chosen else MODELLED


def takes_steps(model: str) -> bool:
    """Whether the number of steps changes what a model does."""
    return _length(model) > ONE_BY_ONE_UP_TO


def is_modelled(model: str) -> bool:
    """Whether it is the baseline without a network, which has a rim of its own and no other settings."""
    return model == MODELLED


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
