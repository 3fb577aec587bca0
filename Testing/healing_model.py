"""An anomaly model that works by arithmetic, so that tests know the right map; and counts what it computes."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from difftumor.anomaly.slices import SliceFormat
from difftumor.diffusion.schedules import linear_betas, respace

CT = SliceFormat(32, (2.0, 2.0), (0.0, 200.0))


class HealingModel:
    """Rewrites what is brighter than the middle of the range as the middle; a round trip makes an error."""

    def __init__(self, made_for=CT, error=0.05, batch_size=4, **recommended):
        self.slice_format, self.error, self.batch_size = made_for, error, batch_size
        self.facts = {"id": "healing", "title": "healing", "sha256": "0" * 64}
        self.card = {"organs": ["pancreas"] if made_for.modality == "CT" else ["brain"]}
        self.recommended = {"direction": "bright", "steps": 50, "noise_level": 200} | recommended
        self.device, self.device_name, self.healthy_index = torch.device("cpu"), "cpu", 0
        self.calls = []

    def levels(self, steps=None):
        return respace(linear_betas(1000), steps or 50)

    def probability_of_disease(self, x):
        self.calls.append(("probability", len(x)))
        return (x.amax(dim=(1, 2, 3)) > 0.8).float() * 0.9 + 0.05

    def encode(self, x, noise_level, steps=None, callback=None, **more):
        encoding = SimpleNamespace(x=x, level=0, nearest=lambda level: min(encoding.level, level))
        return self.extend(encoding, noise_level, callback, steps)

    def extend(self, encoding, noise_level, callback=None, steps=None):
        level = self.levels(steps).level_of(noise_level)
        for k in range(encoding.level, level):
            self.calls.append(("encode", len(encoding.x)))
            if callback:
                callback(k + 1, level)
        encoding.level = max(encoding.level, level)
        return encoding

    def decode(self, encoding, noise_level, guidance_scale, *, callback=None, **more):
        level = self.levels().level_of(noise_level)
        for k in range(level):
            self.calls.append(("guided" if guidance_scale else "unguided", len(encoding.x)))
            if callback:
                callback(k + 1, level)
        x = encoding.x - self.error * (encoding.x > 0)
        return x if guidance_scale == 0 else self.heal(x)

    def heal(self, x):
        return x.clamp(max=0.5 - self.error)

    def passes(self, kind):
        """Slices that went through networks, one by one."""
        return sum(count for name, count in self.calls if name == kind)
