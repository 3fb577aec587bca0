"""Diffusion models as sources of pixel features: which models serve, and what is taken from them.

An anomaly model serves with its U-Net, told that all slices are healthy; a representation model is a U-Net alone,
as Alshenoudy et al. train it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difftumor.anomaly.files import fill
from difftumor.anomaly.guided_passes import ready
from difftumor.anomaly.layout import SliceFormat
from difftumor.diffusion.schedules import Schedule, guided_betas
from difftumor.learning.pixel_features import FeatureChoice, block_features
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.cards import ModelError
from difftumor.weights.checkpoints import read_checkpoint
from difftumor.weights.folders import write_model_folder
from difftumor.weights.loading import cached, facts_of
from difftumor.weights.models import InstalledModel

Callback = Callable[[str, int, int], None]

ARCHITECTURE = "guided_diffusion_unet"
KINDS = ("guided_diffusion_pair", "brain_ddpm", "guided_diffusion_unet")
STAGE = "looking at the slices"
ACTIVATION_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32, "mps": 1 << 30}  # of a batch

# Where nothing else is known: shares of T, and all levels but the coarsest, where a pixel is as large as a lobe.
TIME_SHARES = (0.05, 0.25)


class FeatureModel:
    """A diffusion model whose decoder tells pixels apart.

    Args:
        unet: the network.
        card: of its model folder.
        facts: id, title, sha256, license, T; JSON-ready.
        device: where it computes.
    """

    def __init__(
        self,
        unet: GuidedUNet,
        card: Mapping[str, Any],
        facts: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.unet = ready(unet, device)
        self.card, self.facts = dict(card), dict(facts)
        self.device, self.device_name = device, str(device)
        self.schedule = Schedule.from_betas(
            guided_betas(card.get("schedule", "linear"), card["T"])
        ).to(device=device)
        self.slice_format = SliceFormat.of_card(card, unet.arguments.image_size)

    @property
    def recommended(self) -> FeatureChoice:
        """Features that the card recommends, else a choice that suits most networks."""
        told = self.card.get("extra", {}).get("features")
        if told is not None:
            return FeatureChoice(tuple(told["blocks"]), tuple(told["timesteps"]))
        return default_choice(self.unet.arguments, self.schedule.length)

    @property
    def batch_size(self) -> int:
        """Slices that are computed at a time, by the memory that their features need."""
        arguments = self.unet.arguments
        one = 40 * arguments.base_channels * arguments.image_size**2
        return max(1, ACTIVATION_BYTES.get(self.device.type, 1 << 28) // one)

    def label(self, count: int) -> Tensor | None:
        """Class labels of slices: healthy, for a class-conditional model."""
        if self.unet.arguments.classes is None:
            return None
        return torch.full((count,), self.card.get("healthy_index", 0), device=self.device)

    def maps(
        self,
        images: Tensor,
        choice: FeatureChoice,
        callback: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> list[Tensor]:
        """Outputs of decoder blocks, at their own sizes.

        Args:
            images: float32 (n, C, H, W) in the model's range.
            choice: which blocks and timesteps.
            callback: called as callback(done, total) in slices; may raise Cancelled.

        Returns:
            for each timestep, for each block, float32 (n, channels, h, w) on the CPU.

        Raises:
            ValueError: the choice or the images do not fit the network.
        """
        found: list[list[Tensor]] = []
        done = 0
        for part in images.split(self.batch_size):
            callback(done, len(images))
            x_0 = part.to(self.device, torch.float32)
            parts = block_features(self.unet, x_0, self.schedule, choice, y=self.label(len(part)))
            found.append([each.cpu().contiguous() for each in parts])
            done += len(part)
        callback(done, len(images))
        return [torch.cat(each) for each in zip(*found, strict=True)]


def default_choice(arguments: GuidedUNetArguments, length: int) -> FeatureChoice:
    """Middle block of each level of the decoder but the deepest, at two timesteps.

    Args:
        arguments: of the U-Net.
        length: T of its schedule.
    """
    each = arguments.res_blocks + 1
    levels = len(arguments.channel_mult)
    blocks = tuple(level * each + each // 2 for level in range(min(1, levels - 1), levels))
    return FeatureChoice(blocks, tuple(int(share * length) for share in TIME_SHARES))


def load_feature_model(
    model: str, device: str, cache: MutableMapping[str, Any], callback: Callback
) -> FeatureModel:
    """Open a diffusion model for its features, or take it from the cache.

    Args:
        model: id of the registry, or model folder.
        device: see `devices.resolve_device`.
        cache: kept between requests; holds one feature model at a time.
        callback: called as callback(stage, done, total).

    Raises:
        ModelError: not installed, of another task, damaged.
        DeviceError: no such device.
    """
    return cached("features", [model], device, cache, callback, open_feature_model)[0]


def open_feature_model(installed: InstalledModel, device: torch.device) -> FeatureModel:
    """Read the weights of a model and build its U-Net.  Raises: ModelError: of another task, damaged."""
    task = installed.card.get("task")
    if task not in ("anomaly", "representation"):
        raise with_remedy(
            ModelError(
                f"{installed.id} is a model for {task or 'something else'}; features of pixels come from "
                "a diffusion model of slices."
            ),
            Remedy("choose_model", {"task": "anomaly or representation"}),
        )
    unet, card = read_unet(installed.path)
    return FeatureModel(unet, card, facts_of(installed, card) | {"T": card["T"]}, device)


def read_unet(folder: Path) -> tuple[GuidedUNet, dict[str, Any]]:
    """The U-Net of an anomaly or representation model folder, and its card.

    Raises:
        ModelError: another model, damaged, or a card that does not fit.
    """
    checkpoint = read_checkpoint(folder, expect=KINDS)
    card = checkpoint.facts.get("card")
    if card is None:
        raise with_remedy(
            ModelError(
                f"{folder} is a bare weight file; nothing says how slices are prepared for it."
            ),
            Remedy("import_first", {"file": str(folder)}),
        )
    arguments = card["architecture"].get("arguments", {})
    pair = checkpoint.kind == "guided_diffusion_pair"
    try:
        with torch.device("meta"):
            unet = GuidedUNet(GuidedUNetArguments(**(arguments["unet"] if pair else arguments)))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"The card of {folder} describes a network that cannot be built: {error} Export the model again."
        ) from error
    prefix = "unet." if pair else ""
    weights = {k: v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}
    fill(unet, weights, prefix, str(folder))
    check_card(card, unet.arguments, str(folder))
    return unet, card


def write_representation_model(
    folder: Path | str,
    unet: GuidedUNet,
    card: Mapping[str, Any],
    *,
    half: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a diffusion model without a classifier; see `weights.folders.write_model_folder`.

    Args:
        folder: of the model.
        unet: the network, averaged weights.
        card: fields of `model.schema.json`; task, architecture and crop_voxels are filled in.
        half: store float16, which costs half of the space.

    Returns:
        the card as written.

    Raises:
        ModelError: the card is not valid or does not fit the network.
    """
    arguments = {
        k: list(v) if isinstance(v, tuple) else v for k, v in asdict(unet.arguments).items()
    }
    size = unet.arguments.image_size
    completed = {
        "crop_voxels": [size, size],
        **card,
        "task": "representation",
        "architecture": {"name": ARCHITECTURE, "arguments": arguments},
    }
    check_card(completed, unet.arguments, str(folder))
    tensors = {k: v.half() if half else v for k, v in unet.state_dict().items()}
    return write_model_folder(folder, tensors, completed, overwrite=overwrite)


def check_card(card: Mapping[str, Any], unet: GuidedUNetArguments, source: str) -> None:
    """Raise ModelError unless the card tells all that slices need, and means this network."""
    needed = ("T", "spacing_mm", "intensity_range", "channel_order", "modality")
    missing = [name for name in needed if name not in card]
    if missing:
        raise ModelError(
            f"The card of {source} does not say {', '.join(missing)}, which slices are prepared by. Export the "
            "model again."
        )
    if len(card["channel_order"]) != unet.in_channels:
        raise ModelError(
            f"{source} is no usable model: channel_order names {len(card['channel_order'])} images, the network "
            f"takes {unet.in_channels}. Export it again."
        )
