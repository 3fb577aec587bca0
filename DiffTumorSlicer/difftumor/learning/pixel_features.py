"""Features of pixels from a diffusion model: what its decoder blocks say of a noised image.

Baranchuk et al., "Label-efficient semantic segmentation with diffusion models", ICLR 2022, as used for brain tumors
by Alshenoudy et al.  Each image is noised to one or more timesteps, the network is run once for each, the outputs of
the chosen decoder blocks are enlarged to the image's size and stacked: all blocks of the first timestep, then those
of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from difftumor.diffusion.schedules import Schedule
from difftumor.networks.guided_layers import check_image
from difftumor.networks.guided_unet import GuidedUNet


@dataclass(frozen=True)
class FeatureChoice:
    """Which features are taken.

    Attributes:
        blocks: indices of `output_blocks`, ascending.
        timesteps: original timesteps t of the noised images, in the order of the features.
        seed: of the noise, which is the same for all images and timesteps.
    """

    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("blocks", "timesteps"):
            value = tuple(getattr(self, name))  # JSON gives lists
            if not value or any(isinstance(v, bool) or not isinstance(v, int) for v in value):
                raise ValueError(f"{name} must be one or more whole numbers, got {value!r}")
            if len(set(value)) < len(value) or min(value) < 0:
                raise ValueError(f"{name} must be different numbers of 0 or more, got {value!r}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "blocks", tuple(sorted(self.blocks)))

    def check(self, unet: GuidedUNet, length: int) -> None:
        """Raise ValueError if the network has no such block, or the schedule no such timestep."""
        if max(self.blocks) >= len(unet.output_blocks):
            raise ValueError(
                f"blocks must be 0 to {len(unet.output_blocks) - 1} for this network, got {self.blocks}"
            )
        if max(self.timesteps) >= length:
            raise ValueError(
                f"timesteps must be 0 to {length - 1} for this network, got {self.timesteps}"
            )


def fixed_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 noise that depends on seed and shape only.

    Differs from the published code, which draws fresh noise in each call, so that its predictions change from call
    to call.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(rng.standard_normal(size=tuple(shape), dtype=np.float32))


def block_channels(unet: GuidedUNet, blocks: Sequence[int]) -> list[int]:
    """Channels of the outputs of decoder blocks."""
    outputs: Any = unet.output_blocks
    return [outputs[block][0].out_channels for block in blocks]


@torch.no_grad()
def block_features(
    unet: GuidedUNet,
    x_0: Tensor,
    schedule: Schedule,
    choice: FeatureChoice,
    *,
    noise: Tensor | None = None,
    y: Tensor | None = None,
) -> list[Tensor]:
    """Outputs of decoder blocks for noised images.

    Args:
        unet: the diffusion model; in evaluation mode.
        x_0: images (B, C, H, W) in its intensity range.
        schedule: of the diffusion model, on the images' device.
        choice: blocks and timesteps.
        noise: (C, H, W) for all images, or of the shape of x_0; default: `fixed_noise` of the choice's seed.
        y: class labels (B,) of a class-conditional model; else None.

    Returns:
        for each timestep, for each block, (B, channels, h, w) at the block's own size.

    Raises:
        ValueError: shape, blocks, timesteps or labels do not fit the network.
    """
    choice.check(unet, schedule.length)
    check_image(x_0.shape, unet.arguments.in_channels, unet.factor)
    if noise is None:
        noise = fixed_noise(choice.seed, x_0.shape[1:])
    noise = noise.to(x_0).expand_as(x_0)
    last = max(choice.blocks)
    found = []
    for step in choice.timesteps:
        t = torch.full((len(x_0),), step, device=x_0.device)
        embedding = unet.embed(t, y)
        x_t = schedule.q_sample(x_0, t, noise)
        for index, h in enumerate(unet.decoder(*unet.encoder(x_t, embedding), embedding)):
            if index in choice.blocks:
                found.append(h)
            if index == last:
                break
    return found


def enlarged(features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Features of pixels: each map bilinearly enlarged to (H, W), stacked on channels; (B, F, H, W)."""
    return torch.cat(
        [F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in features], dim=1
    )


def pixel_features(
    unet: GuidedUNet,
    x_0: Tensor,
    schedule: Schedule,
    choice: FeatureChoice,
    *,
    noise: Tensor | None = None,
    y: Tensor | None = None,
) -> Tensor:
    """Features of each pixel, as the published code makes them; (B, F, H, W).

    Args and errors: as of `block_features`.
    """
    height, width = x_0.shape[-2:]
    maps = block_features(unet, x_0, schedule, choice, noise=noise, y=y)
    return enlarged(maps, (height, width))
