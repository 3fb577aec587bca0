"""What a model wants of a case and recommends, as a panel needs it, also of one that is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difftumor.images.sequences import canonical
from difftumor.parameters import ANOMALY_RECOMMENDED
from difftumor.weights import models
from difftumor.weights.models import ModelError

TASK = "anomaly"
MR = "MR"
LENGTH = 1000  # of the noise schedule, in steps of the training
# Cost of a step of decoding with its classifier gradient, in plain network passes (benchmark of issue 4).
DECODING = 2.2


@dataclass(frozen=True)
class CaseModel:
    """Facts of a model.

    Attributes:
        id: of the registry, a folder's name, or a path.
        title: for people.
        modality: 'CT' or 'MR'.
        channels: the images it looks at, as `sequences.SEQUENCES` names them; one for CT.
        organs: anatomies that it knows; 'brain' for MR.
        recommended: its card's, with `ANOMALY_RECOMMENDED` where the card says nothing.
        expected: seconds of a slice at the recommended settings, by 'cpu' and 'cuda'; may be empty.
        installed: whether it can be used at once.
        length: T of its schedule.
        description: what its makers say of it.
    """

    id: str
    title: str
    modality: str = "CT"
    channels: tuple[str, ...] = ("ct",)
    organs: tuple[str, ...] = ()
    recommended: Mapping[str, Any] = field(default_factory=lambda: dict(ANOMALY_RECOMMENDED))
    expected: Mapping[str, float] = field(default_factory=dict)
    installed: bool = False
    length: int = LENGTH
    description: str = ""

    @property
    def of_brain(self) -> bool:
        """Whether it looks at MR sequences of the head."""
        return self.modality == MR

    def passes(self, noise_level: int | None, steps: int | None) -> float:
        """Network passes that a slice costs, in plain ones; what the time is in proportion to."""
        levels = (noise_level or self.recommended["noise_level"]) / self.length
        return max(1.0, levels * (steps or self.recommended["steps"])) * (1 + DECODING)


def anomaly_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The anomaly models of `difftumor.weights.models.list_models`, installed ones first."""
    return sorted(
        (row for row in rows if row["task"] == TASK), key=lambda row: not row["installed"]
    )


def model_facts(model: str, rows: list[dict[str, Any]] | None = None) -> CaseModel:
    """Facts of a model by id or path; of an unknown one no more than its name.

    Args:
        model: id, folder or file.
        rows: of `list_models`, where they are at hand.
    """
    row = next((r for r in rows or [] if r["id"] == model), {})
    card: Mapping[str, Any] = models.registry().get(model) or {}
    # What the registry tells is enough to choose a model; starting says why it cannot be used.
    with contextlib.suppress(ModelError):
        card = {**card, **models.find_model(model).card}
    modality = str(card.get("modality") or row.get("modality") or "CT")
    channels = tuple(canonical(str(name)) for name in card.get("channel_order") or ("ct",))
    expected = card.get("expected") or row.get("expected") or {}
    return CaseModel(
        id=model,
        title=str(card.get("title") or row.get("title") or Path(model).name),
        modality=modality,
        channels=channels,
        organs=tuple(card.get("organs") or row.get("organs") or ()),
        recommended={**ANOMALY_RECOMMENDED, **_known(card.get("recommended") or {})},
        expected=_seconds(expected),
        installed=bool(row["installed"]) if row else bool(card.get("sha256")),
        length=int(card.get("T") or LENGTH),
        description=str(card.get("description") or ""),
    )


def _known(recommended: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recommended.items() if value is not None}


def _seconds(expected: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of one slice by kind of device, where the card counts by slices."""
    if "slice" not in str(expected.get("per", "")):
        return {}
    return {"cpu": float(expected["seconds_cpu"]), "cuda": float(expected["seconds_gpu"])}
