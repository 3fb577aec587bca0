"""Rewritings of a set of slices by a model, computed once, and every kind of map that is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from anomaly_figures import Gate, Planes, Slices
from numpy.typing import NDArray

from difftumor.anomaly.maps import difference, direction_signs, gated, smooth
from difftumor.anomaly.model import AnomalyModel, Encoding
from difftumor.parameters import MapKind


@dataclass(frozen=True)
class Settings:
    """What a model's card recommends, or what is tried instead."""

    noise_level: int
    guidance_scale: float
    steps: int
    map_kind: MapKind
    smoothing_mm: float
    direction: str
    gate: Gate

    @classmethod
    def recommended(cls, model: AnomalyModel) -> Settings:
        """Those of a model's card."""
        said: dict[str, Any] = model.recommended
        return cls(
            said["noise_level"],
            said["guidance_scale"],
            said["steps"],
            said["map_kind"],
            said["smoothing_mm"],
            said.get("direction", "both"),
            Gate(said["gate_probability"], said["floor"]),
        )


@dataclass(eq=False)
class Rewritings:
    """Slices and what a model makes of them; every rewriting is kept.

    Args:
        model: opened.
        slices: of its format.
    """

    model: AnomalyModel
    slices: Slices
    _encodings: dict[int, Encoding] = field(default_factory=dict)
    _decoded: dict[tuple[int, int, float], NDArray[np.float32]] = field(default_factory=dict)
    _probabilities: NDArray[np.float64] | None = None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The classifier's probability of disease of each slice, at t = 0."""
        if self._probabilities is None:
            found = self.model.probability_of_disease(torch.from_numpy(self.slices.images))
            self._probabilities = found.double().numpy()
        return self._probabilities

    def rewritten(self, noise_level: int, steps: int, scale: float) -> NDArray[np.float32]:
        """x_hat at N, K and S, float32 (n, C, H, W)."""
        key = (noise_level, steps, float(scale))
        if key not in self._decoded:
            if steps not in self._encodings:
                images = torch.from_numpy(self.slices.images)
                self._encodings[steps] = self.model.encode(images, noise_level, steps)
            made = self.model.decode(self._encodings[steps], noise_level, scale)
            self._decoded[key] = made.float().numpy()
        return self._decoded[key]

    def maps(self, settings: Settings) -> Planes:
        """Smoothed maps (n, H, W) inside the organ, not scaled."""
        n, k, s = settings.noise_level, settings.steps, settings.guidance_scale
        signs = direction_signs(settings.direction, self.slices.images.shape[1])
        unguided = self.rewritten(n, k, 0.0) if settings.map_kind == "guided" else None
        planes = difference(
            settings.map_kind, self.slices.images, self.rewritten(n, k, s), unguided, signs
        )
        return smooth(planes, self.slices.organ, settings.smoothing_mm, self.slices.spacing_mm)

    def empty(self, maps: Planes, gate: Gate) -> NDArray[np.bool_]:
        """Slices (n,) that come out unmarked."""
        return gated(self.probabilities, maps, gate.probability, gate.floor)
