"""Anomaly models: a guided-diffusion U-Net and the classifier that steers it, ready for use.

A model folder holds both networks (`unet.<published key>`, `classifier.<published key>`); see
`anomaly.files` for how the published pairs of files become one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from difftumor.anomaly.files import networks_from
from difftumor.anomaly.guided_passes import Passes, is_half_faster, ready
from difftumor.anomaly.layout import SliceFormat
from difftumor.diffusion.guided import (
    Callback,
    Weighting,
    add_first_noise,
    decode,
    encode,
    first_noise,
)
from difftumor.diffusion.schedules import Levels, guided_betas, respace
from difftumor.networks.guided_classifier import GuidedClassifier
from difftumor.networks.guided_unet import GuidedUNet
from difftumor.parameters import ANOMALY_RECOMMENDED
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.checkpoints import read_checkpoint
from difftumor.weights.loading import cached, facts_of
from difftumor.weights.models import InstalledModel, ModelError

Precision = Literal["auto", "full", "half"]

KEPT_BYTES = 1 << 30  # of the states of one encoding; beyond it only every n-th is kept
ACTIVATION_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32, "mps": 1 << 30}  # of a batch


@dataclass(eq=False)
class Encoding:
    """Images carried to a noise level, with the states on the way.

    Attributes:
        levels: of the sampler.
        states: level -> images (B, C, H, W); level 0 (published code: 1) are the images themselves.
        reference_compat: indexed as the published code does.
    """

    levels: Levels
    states: dict[int, Tensor]
    reference_compat: bool = False
    stride: int = field(default=1, repr=False)

    @property
    def level(self) -> int:
        """The highest level that is there."""
        return max(self.states)

    @property
    def images(self) -> Tensor:
        """The images that were encoded (published code: with their first noise)."""
        return self.states[min(self.states)]

    def nearest(self, level: int) -> int:
        """The highest kept level that is at most `level`."""
        return max(k for k in self.states if k <= level)


class AnomalyModel:
    """Two networks, their noise schedule, and how they want to be used.

    Attributes:
        facts: id, title, sha256, license; JSON-ready.
        card: the model's card.
        device, device_name: where it computes.
        dtype: of the two networks on the way; probabilities are always computed in float32.
        healthy_index: the label of healthy images, of both networks.
        recommended: noise_level (N, in steps of the schedule), guidance_scale (S), steps (levels of the sampler),
            floor (least maximum of a map), map_kind, smoothing_mm, normalization, gate_probability.
    """

    def __init__(
        self,
        unet: GuidedUNet,
        classifier: GuidedClassifier,
        card: Mapping[str, Any],
        facts: Mapping[str, Any],
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        self.unet, self.classifier = ready(unet, device), ready(classifier, device)
        self.dtype = torch.float32
        if precision == "half" or (precision == "auto" and is_half_faster(unet, device)):
            self.dtype = torch.bfloat16
        self._passes = {torch.float32: Passes(self.unet, self.classifier, card["healthy_index"])}
        if self.dtype != torch.float32:
            half_unet = copy.deepcopy(self.unet).to(self.dtype)
            half_classifier = copy.deepcopy(self.classifier).to(self.dtype)
            self._passes[self.dtype] = Passes(half_unet, half_classifier, card["healthy_index"])
        self.card = dict(card)
        self.facts = {**facts, "precision": str(self.dtype).removeprefix("torch.")}
        self.device, self.device_name = device, str(device)
        self.healthy_index: int = card["healthy_index"]
        self.betas = guided_betas(card.get("schedule", "linear"), card["T"])
        self.recommended = {**ANOMALY_RECOMMENDED, **card.get("recommended", {})}

    @property
    def channels(self) -> int:
        """Channels C of an image."""
        return self.unet.arguments.in_channels

    @property
    def image_size(self) -> int:
        """Pixels of each side of an image."""
        return self.classifier.arguments.image_size

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Size of a pixel."""
        first, second, *_ = self.card["spacing_mm"]
        return first, second

    @property
    def window_hu(self) -> tuple[float, float] | None:
        """HU that become the ends of the range; None: not a CT model."""
        window = self.card.get("window_hu")
        return None if window is None else (window[0], window[1])

    @property
    def intensity_range(self) -> tuple[float, float]:
        """Least and greatest value of an image."""
        low, high = self.card["intensity_range"]
        return low, high

    @property
    def channel_order(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(self.card["channel_order"])

    @property
    def slice_format(self) -> SliceFormat:
        """How slices are prepared for this model."""
        return SliceFormat.of_card(self.card, self.image_size)

    @property
    def batch_size(self) -> int:
        """How many slices are computed at a time, by the memory that their features need."""
        one = 40 * self.unet.arguments.base_channels * self.image_size**2
        return max(1, ACTIVATION_BYTES.get(self.device.type, 1 << 28) // one)

    def levels(self, steps: int | None = None) -> Levels:
        """Levels of the sampler; default: as many as recommended."""
        return respace(self.betas, self.recommended["steps"] if steps is None else steps)

    @torch.no_grad()
    def probability_of_disease(self, x: Tensor) -> Tensor:
        """How sure the classifier is that images are not healthy (t = 0, without noise).

        Args:
            x: (B, C, H, W) in `intensity_range`.

        Returns:
            (B,), 0 to 1, on the CPU.
        """
        found = []
        for part in x.split(self.batch_size):
            images = self._on_device(part)
            logits = self.classifier(images, torch.zeros(len(part), device=self.device))
            healthy = logits.float().softmax(dim=-1)[:, self.healthy_index]
            found.append(1 - healthy.cpu())
        return torch.cat(found)

    def encode(
        self,
        x: Tensor,
        noise_level: int,
        steps: int | None = None,
        callback: Callback | None = None,
        *,
        reference_compat: bool = False,
        seed: int = 0,
    ) -> Encoding:
        """Carry images to a noise level; see `diffusion.guided.encode`.

        Args:
            x: (B, C, H, W) in `intensity_range`.
            noise_level: N, in diffusion steps of the training, 1 to T - 1.
            steps: K, levels of the whole schedule; default: as recommended.
            callback: called as callback(done, total) after each evaluation of each batch.
            reference_compat: index as the published code, which also adds a little noise.
            seed: of that noise.

        Raises:
            ValueError: N, K or the shape is out of range.
            Cancelled: from the callback.
        """
        levels = self.levels(steps)
        start = 0
        if reference_compat:
            start = 1
            x = add_first_noise(x, first_noise(x.shape, seed), levels)
        level = self._level(levels, noise_level, reference_compat)
        encoding = Encoding(levels, {start: self._on_device(x)}, reference_compat)
        encoding.stride = 1 + (level - start) * x.numel() * 4 // KEPT_BYTES
        self._extend(encoding, level, callback)
        return encoding

    def decode(
        self,
        encoding: Encoding,
        noise_level: int,
        guidance_scale: float,
        *,
        guidance_stop: float = 0.0,
        guidance_weighting: Weighting = "constant",
        callback: Callback | None = None,
    ) -> Tensor:
        """Rewrite encoded images as healthy; see `diffusion.guided.decode`.

        Args:
            encoding: of at least this noise level; what is missing is computed and kept in it.
            noise_level: N, in diffusion steps of the training.
            guidance_scale: S, at least 0; 0 is the round trip without a classifier.
            guidance_stop: see `diffusion.guided.decode`.
            guidance_weighting: likewise.
            callback: called as callback(done, total) after each step of each batch.

        Returns:
            x_hat, float32 (B, C, H, W), on the CPU.

        Raises:
            ValueError: something is out of range.
            Cancelled: from the callback.
        """
        levels, compat = encoding.levels, encoding.reference_compat
        level = self._level(levels, noise_level, compat)
        self._extend(encoding, level, None)
        passes = self._passes_of(encoding)
        parts = encoding.states[level].split(self.batch_size)
        found = [
            decode(
                passes.denoise,
                passes.guide,
                part,
                levels,
                level,
                guidance_scale,
                guidance_stop=guidance_stop,
                guidance_weighting=guidance_weighting,
                reference_compat=compat,
                callback=_part_of(callback, index, len(parts)),
            ).cpu()
            for index, part in enumerate(parts)
        ]
        return torch.cat(found)

    def extend(
        self, encoding: Encoding, noise_level: int, callback: Callback | None = None
    ) -> Encoding:
        """Carry an encoding on to a noise level that it may not have yet; arguments as of `encode`."""
        self._extend(
            encoding,
            self._level(encoding.levels, noise_level, encoding.reference_compat),
            callback,
        )
        return encoding

    def _passes_of(self, encoding: Encoding) -> Passes:
        """Comparison with the published code wants its precision."""
        return self._passes[torch.float32 if encoding.reference_compat else self.dtype]

    def _level(self, levels: Levels, noise_level: int, compat: bool) -> int:
        level = levels.level_of(noise_level)
        return max(level, 2) if compat else level

    def _extend(self, encoding: Encoding, level: int, callback: Callback | None) -> None:
        """Make sure that a level is there."""
        start = encoding.nearest(level)
        if start == level:
            return
        passes = self._passes_of(encoding)
        parts = encoding.states[start].split(self.batch_size)
        kept: dict[int, list[Tensor]] = {}

        def keep(k: int, x: Tensor) -> None:
            if k == level or k % encoding.stride == 0:
                kept.setdefault(k, []).append(x)

        for index, part in enumerate(parts):
            report = _part_of(callback, index, len(parts))
            encode(
                passes.denoise,
                part,
                encoding.levels,
                level,
                start=start,
                observe=keep,
                callback=report,
            )
        encoding.states |= {k: torch.cat(states) for k, states in kept.items()}

    def _on_device(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[1:]) != (self.channels, self.image_size, self.image_size):
            raise ValueError(
                f"{self.facts['title']} takes images (B, {self.channels}, {self.image_size}, "
                f"{self.image_size}); got {tuple(x.shape)}."
            )
        return x.to(self.device, torch.float32)


def load_anomaly_model(
    model: str,
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callable[[str, int, int], None],
    precision: Precision = "auto",
) -> AnomalyModel:
    """Open an anomaly model, or take it from the cache.

    Args:
        model: id of the registry, or model folder.
        device: see `devices.resolve_device`.
        cache: kept between requests; holds one anomaly model at a time.
        callback: called as callback(stage, done, total).
        precision: "half" computes the way there and back in bfloat16; "auto" does where it is faster.

    Raises:
        ModelError: not installed, not an anomaly model, damaged.
        DeviceError: no such device.
    """
    opened = partial(open_model, precision=precision)
    return cached(f"anomaly {precision}", [model], device, cache, callback, opened)[0]


def open_model(
    installed: InstalledModel, device: torch.device, precision: Precision = "auto"
) -> AnomalyModel:
    """Read the weights of a model and build its networks.  Raises: ModelError: not an anomaly model, damaged."""
    checkpoint = read_checkpoint(installed.path, expect="guided_diffusion_pair")
    card = checkpoint.facts.get("card")
    if card is None or card["task"] != "anomaly":
        raise with_remedy(
            ModelError(f"{installed.path} is no anomaly model: its card does not say so."),
            Remedy("choose_model", {"task": "anomaly"}),
        )
    unet, classifier = networks_from(checkpoint.tensors, card, str(installed.path))
    facts = facts_of(installed, card) | {"T": card["T"]}
    return AnomalyModel(unet, classifier, card, facts, device, precision)


def _part_of(callback: Callback | None, index: int, parts: int) -> Callback | None:
    """The callback of one of several equally long parts."""
    if callback is None:
        return None
    return lambda done, total: callback(index * total + done, parts * total)
