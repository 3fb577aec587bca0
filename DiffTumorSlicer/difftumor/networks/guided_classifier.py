"""Classifier of noised images: the encoder half of the guided-diffusion U-Net and an attention pool.

Dhariwal and Nichol 2021, as configured by Wolleb et al., MICCAI 2022.  Keys are the published ones.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from difftumor.networks.guided_layers import (
    AttentionBlock,
    AttentionPool,
    Embedding,
    Normalization,
    ResBlock,
    TimedSequential,
    check_image,
    time_layers,
    timestep_embedding,
)
from difftumor.networks.guided_norm import normalized
from difftumor.networks.guided_unet import check_levels


@dataclass(frozen=True)
class GuidedClassifierArguments:
    """Shape of a classifier; the defaults are those of Wolleb's published networks.

    Attributes:
        image_size: pixels along each side, fixed by the learned positions.
        in_channels: of the image.
        base_channels: at full resolution, a multiple of 32.
        channel_mult: channels of each level as multiples of `base_channels`.
        res_blocks: residual blocks per level.
        attention_sizes: sizes of the feature maps (in pixels) that have attention.
        head_channels: channels of each attention head.
        classes: number of logits.
    """

    image_size: int
    in_channels: int
    base_channels: int = 32
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    res_blocks: int = 4
    attention_sizes: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    classes: int = 2

    def __post_init__(self) -> None:
        # JSON gives lists.
        for name in ("channel_mult", "attention_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_levels(self.image_size, self.channel_mult)


class GuidedClassifier(nn.Module):
    """Logits of the classes of a noised image.

    Args:
        arguments: its shape.

    Raises:
        ValueError: the channels of a level with attention are no multiple of `head_channels`.
    """

    def __init__(self, arguments: GuidedClassifierArguments) -> None:
        super().__init__()
        self.arguments = a = arguments
        width = a.base_channels
        embedding = 4 * width
        self.time_embed = time_layers(width)
        channels, size = width * a.channel_mult[0], a.image_size
        self.input_blocks = nn.ModuleList(
            [TimedSequential(nn.Conv2d(a.in_channels, channels, 3, padding=1))]
        )
        for level, multiple in enumerate(a.channel_mult):
            for _ in range(a.res_blocks):
                out_channels = multiple * width
                layers: list[nn.Module] = [
                    ResBlock(channels, embedding, out_channels, scale_shift=True)
                ]
                if size in a.attention_sizes:
                    layers.append(AttentionBlock(out_channels, self.heads(out_channels)))
                self.input_blocks.append(TimedSequential(*layers))
                channels = out_channels
            if level < len(a.channel_mult) - 1:
                down = ResBlock(channels, embedding, channels, scale_shift=True, down=True)
                self.input_blocks.append(TimedSequential(down))
                size //= 2
        self.middle_block = TimedSequential(
            ResBlock(channels, embedding, channels, scale_shift=True),
            AttentionBlock(channels, self.heads(channels)),
            ResBlock(channels, embedding, channels, scale_shift=True),
        )
        self.out = nn.Sequential(
            Normalization(channels),
            nn.SiLU(),
            AttentionPool(size, channels, a.head_channels, a.classes),
        )

    def heads(self, channels: int) -> int:
        """Attention heads of a layer."""
        if channels % self.arguments.head_channels:
            raise ValueError(
                f"A level of {channels} channels cannot have attention heads of "
                f"{self.arguments.head_channels} channels; change base_channels, channel_mult, "
                "attention_sizes or head_channels."
            )
        return channels // self.arguments.head_channels

    def embed(self, t: Tensor) -> Tensor:
        """Embedding (B, 4 base_channels) of timesteps (B,)."""
        first: Any = self.time_embed[0]
        sinusoids = timestep_embedding(t, self.arguments.base_channels)
        return self.time_embed(sinusoids.to(first.weight.dtype))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits.

        Args:
            x: noised image x_t (B, C, image_size, image_size).
            t: original timesteps, int64 or float (B,).

        Returns:
            (B, classes).

        Raises:
            ValueError: the shape does not fit.
        """
        a = self.arguments
        check_image(x.shape, a.in_channels, 1, a.image_size)
        return self.run(x, self.embed(t))

    def run(self, x: Tensor, embedding: Embedding) -> Tensor:
        """The forward pass for an embedding of `embed`, or what `precomputed` makes of it."""
        for block in self.input_blocks:
            x = block(x, embedding)
        layers: Any = self.out
        norm, _, pool = layers
        return pool(normalized(norm, self.middle_block(x, embedding)))
