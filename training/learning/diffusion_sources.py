"""The diffusion model that the programs of paper B start from: a run of `representation`, or a model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difftumor.anomaly.layout import SliceFormat
from difftumor.diffusion.schedules import Schedule, guided_betas
from difftumor.learning.features_model import read_unet
from difftumor.networks.guided_unet import GuidedUNet
from training.anomaly.config import GuidedUNetSize
from training.learning.representation import network_arguments
from training.loop.runs import CHECKPOINT_NAME, RunError, read_checkpoint_file


@dataclass(frozen=True, eq=False)
class DiffusionSource:
    """A diffusion model.

    Attributes:
        unet: with its averaged weights, in evaluation mode.
        schedule: of its noise.
        label: that it is told (healthy), or None if it is told none.
    """

    unet: GuidedUNet
    schedule: Schedule
    label: int | None

    def labels(self, count: int, device: torch.device) -> Tensor | None:
        """Class labels of slices."""
        return None if self.label is None else torch.full((count,), self.label, device=device)


def open_diffusion(path: Path, made_for: SliceFormat) -> DiffusionSource:
    """Open a diffusion model for slices of a format.

    Raises:
        FileNotFoundError: there is none, or it is damaged.
        RunError: likewise.
        ModelError: likewise.
        ValueError: it was made for other slices.
    """
    if (path / CHECKPOINT_NAME).is_file():
        return _of_run(path, made_for)
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no diffusion model at {path}. Train one (python -m training.learning.representation), or name a "
            "model folder with --features."
        )
    unet, card = read_unet(path)
    theirs = SliceFormat.of_card(card, unet.arguments.image_size)
    for name in ("image_size", "spacing_mm", "intensity_range", "channel_order", "scaled_by"):
        ours, wanted = getattr(made_for, name), getattr(theirs, name)
        if ours != wanted:
            raise ValueError(
                f"{path} was made for slices with {name} {wanted}, the set has {ours}. Draw slices in its format "
                "(training.data.slices --format), or choose another model."
            )
    schedule = Schedule.from_betas(guided_betas(card.get("schedule", "linear"), card["T"]))
    label = None if unet.arguments.classes is None else card.get("healthy_index", 0)
    return DiffusionSource(unet.eval().requires_grad_(False), schedule, label)


def _of_run(path: Path, made_for: SliceFormat) -> DiffusionSource:
    told = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if "learn_from" not in told:
        raise RunError(
            f"{path} is a run of another program than training.learning.representation. Export it as a model folder "
            "first, or name another with --features."
        )
    network: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in told["network"].items()
    }
    size = GuidedUNetSize(**network)
    channels = len(made_for.channel_order)
    unet = GuidedUNet(network_arguments(size, made_for.image_size, channels))
    try:
        unet.load_state_dict(read_checkpoint_file(path / CHECKPOINT_NAME)["ema"])
    except RuntimeError as error:
        raise ValueError(
            f"{path} was trained on other slices than these ({len(made_for.channel_order)} channels of "
            f"{made_for.image_size} pixels). Name the slice set that it was trained on with --data.folder."
        ) from error
    schedule = Schedule.from_betas(guided_betas(told["schedule"], told["timesteps"]))
    return DiffusionSource(unet.eval().requires_grad_(False), schedule, None)


def saw_tests(path: Path) -> bool:
    """Whether a run of training.learning.representation has learned from the slices that are measured on, too."""
    config = path / "config.json"
    if not (path / CHECKPOINT_NAME).is_file() or not config.is_file():
        return False
    return bool(json.loads(config.read_text(encoding="utf-8")).get("learn_from") == "all")
