"""What an anomaly map is made with, once the model's recommendations have filled the gaps. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from difftumor.parameters import (
    ANOMALY_RECOMMENDED,
    AnomalyParameters,
    MapKind,
    Normalization,
)

# Lesions of the abdomen are dark in CT, those of the brain may be either.
DIRECTION = {"CT": "dark", "MR": "both"}


@dataclass(frozen=True, kw_only=True)
class AnomalySettings(AnomalyParameters):
    """`AnomalyParameters` without gaps, and what only the model's card says.

    Attributes:
        gate_probability: least classifier probability of a slice that is marked.
        floor: least maximum of the map of a slice that is marked, in units of the model's range.
        direction: what lesions look like: "dark", "bright" or "both", once or per channel, separated by commas.
        The others: see `AnomalyParameters`.
    """

    if TYPE_CHECKING:  # filled in, so never None
        noise_level: int
        guidance_scale: float
        steps: int
        map_kind: MapKind
        smoothing_mm: float
        normalisation: Normalization
    gate_probability: float
    floor: float
    direction: str

    @property
    def needs_unguided(self) -> bool:
        """Whether the map compares with the rewriting at S = 0."""
        return self.map_kind == "guided"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as side-cars have it: what the card says stands beside the gate, the model elsewhere."""
        values = asdict(self)
        of_card = {name: values.pop(name) for name in ("gate_probability", "floor", "direction")}
        del values["model"]
        told: dict[str, Any] = {}
        for name, value in values.items():
            told |= {name: value} | (of_card if name == "gate" else {})
        return told


def resolve_settings(
    parameters: AnomalyParameters, recommended: Mapping[str, Any], modality: str
) -> tuple[AnomalySettings, list[str]]:
    """Fill what was not asked for with what the model recommends.

    Args:
        parameters: the request.
        recommended: of the model's card.
        modality: "CT" or "MR".

    Returns:
        the settings, and sentences for the user.
    """
    wishes = {
        **ANOMALY_RECOMMENDED,
        **{key: value for key, value in recommended.items() if value is not None},
    }
    notes = []

    def either(name: str) -> Any:
        asked = getattr(parameters, name)
        return wishes[name] if asked is None else asked

    kind, smoothing = either("map_kind"), float(either("smoothing_mm"))
    floor = float(wishes["floor"])
    if floor and (kind, smoothing) != (wishes["map_kind"], float(wishes["smoothing_mm"])):
        floor = 0.0
        notes.append(
            "The model's floor for faint maps was measured on another kind of map or smoothing and is not used."
        )
    scale = float(either("guidance_scale"))
    if kind == "guided" and scale == 0:
        notes.append(
            "At S = 0 nothing pulls the image towards healthy, so the guided map is empty. Raise S, or choose "
            "another kind of map."
        )
    filled: dict[str, Any] = {
        item.name: getattr(parameters, item.name) for item in fields(AnomalyParameters)
    }
    filled |= {
        "noise_level": int(either("noise_level")),
        "guidance_scale": scale,
        "steps": int(either("steps")),
        "map_kind": kind,
        "smoothing_mm": smoothing,
        "normalisation": either("normalisation"),
    }
    settings = AnomalySettings(
        **filled,
        gate_probability=float(wishes["gate_probability"]),
        floor=floor,
        direction=str(wishes.get("direction", DIRECTION[modality])),
    )
    return settings, notes
