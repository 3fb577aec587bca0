"""U-Net of guided diffusion: predicts the noise in an image, and its variance.

Dhariwal and Nichol 2021, as configured by Wolleb et al., MICCAI 2022 (256 pixels, class-conditional, learned
variance) and by Alshenoudy et al. (128 pixels, four heads, neither).  Keys are the published ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from difftumor.networks.guided_layers import (
    AttentionBlock,
    Downsample,
    Embedding,
    Normalization,
    ResBlock,
    TimedSequential,
    Upsample,
    check_image,
    time_layers,
    timestep_embedding,
    zeroed,
)
from difftumor.networks.guided_norm import normalized


@dataclass(frozen=True)
class GuidedUNetArguments:
    """Shape of a U-Net; the defaults are those of Wolleb's published networks.

    Attributes:
        image_size: pixels along each side.  The network also takes other multiples of 2^(levels - 1).
        in_channels: of the image.
        base_channels: at full resolution, a multiple of 32.
        channel_mult: channels of each level as multiples of `base_channels`.
        res_blocks: residual blocks per level on the way down (one more on the way up).
        attention_sizes: sizes of the feature maps (in pixels, at `image_size`) that have attention.
        heads: attention heads.
        classes: number of class labels; None: unconditional.
        learned_variance: predict 2 in_channels: noise, then v of the variance.
    """

    image_size: int
    in_channels: int
    base_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    res_blocks: int = 2
    attention_sizes: tuple[int, ...] = (16,)
    heads: int = 1
    classes: int | None = 2
    learned_variance: bool = True

    def __post_init__(self) -> None:
        # JSON gives lists.
        for name in ("channel_mult", "attention_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_levels(self.image_size, self.channel_mult)


def check_levels(image_size: int, channel_mult: tuple[int, ...]) -> None:
    """Raise ValueError if the image cannot be halved once per level."""
    factor = 2 ** (len(channel_mult) - 1)
    if not channel_mult or image_size < factor or image_size % factor:
        raise ValueError(
            f"An image of {image_size} pixels cannot be halved {len(channel_mult) - 1} times; "
            f"choose a multiple of {factor}, or fewer levels (channel_mult)."
        )


class GuidedUNet(nn.Module):
    """Predicts the noise in x_t.

    Args:
        arguments: its shape.
    """

    def __init__(self, arguments: GuidedUNetArguments) -> None:
        super().__init__()
        self.arguments = a = arguments
        self.factor = 2 ** (len(a.channel_mult) - 1)
        width = a.base_channels
        embedding = 4 * width
        self.time_embed = time_layers(width)
        if a.classes is not None:
            self.label_emb = nn.Embedding(a.classes, embedding)

        def level_block(channels: int, out_channels: int, size: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResBlock(channels, embedding, out_channels)]
            if size in a.attention_sizes:
                layers.append(AttentionBlock(out_channels, a.heads))
            return layers

        channels, size = width * a.channel_mult[0], a.image_size
        self.input_blocks = nn.ModuleList(
            [TimedSequential(nn.Conv2d(a.in_channels, channels, 3, padding=1))]
        )
        skips = [channels]
        last = len(a.channel_mult) - 1
        for level, multiple in enumerate(a.channel_mult):
            for _ in range(a.res_blocks):
                out_channels = multiple * width
                self.input_blocks.append(
                    TimedSequential(*level_block(channels, out_channels, size))
                )
                channels = out_channels
                skips.append(channels)
            if level < last:
                self.input_blocks.append(TimedSequential(Downsample(channels)))
                skips.append(channels)
                size //= 2
        self.middle_block = TimedSequential(
            ResBlock(channels, embedding, channels),
            AttentionBlock(channels, a.heads),
            ResBlock(channels, embedding, channels),
        )
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(a.channel_mult))):
            for block in range(a.res_blocks + 1):
                layers = level_block(channels + skips.pop(), multiple * width, size)
                channels = multiple * width
                if level > 0 and block == a.res_blocks:
                    layers.append(Upsample(channels))
                    size *= 2
                self.output_blocks.append(TimedSequential(*layers))
        out_channels = a.in_channels * (2 if a.learned_variance else 1)
        self.out = nn.Sequential(
            Normalization(channels),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, out_channels, 3, padding=1)),
        )

    def embed(self, t: Tensor, y: Tensor | None) -> Tensor:
        """Embedding (B, 4 base_channels) of timesteps (B,) and class labels (B,).

        Raises:
            ValueError: labels are missing, or given to an unconditional network.
        """
        classes = self.arguments.classes
        if y is not None and classes is None:
            raise ValueError("This network was trained without class labels; call it with y=None.")
        if y is None and classes is not None:
            raise ValueError(f"This network needs class labels y (B,), 0 to {classes - 1}.")
        first: Any = self.time_embed[0]
        sinusoids = timestep_embedding(t, self.arguments.base_channels).to(first.weight.dtype)
        embedding = self.time_embed(sinusoids)
        return embedding if y is None else embedding + self.label_emb(y)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise estimate, followed by v of the learned variance.

        Args:
            x: noised image x_t (B, C, H, W); H and W are multiples of 2^(levels - 1).
            t: original timesteps, int64 or float (B,).
            y: class labels, int64 (B,); None for an unconditional network.

        Returns:
            (B, 2 C, H, W), or (B, C, H, W) without a learned variance.

        Raises:
            ValueError: the shape does not fit, or labels are missing or unwanted.
        """
        check_image(x.shape, self.arguments.in_channels, self.factor)
        return self.run(x, self.embed(t, y))

    def run(self, x: Tensor, embedding: Embedding) -> Tensor:
        """The forward pass for an embedding of `embed`, or what `precomputed` makes of it."""
        for last in self.decoder(*self.encoder(x, embedding), embedding):
            x = last
        layers: Any = self.out
        norm, _, conv = layers
        return conv(normalized(norm, x))

    def encoder(self, x: Tensor, embedding: Embedding) -> tuple[Tensor, list[Tensor]]:
        """What the middle block makes of x, and the skip connections (consumed by `decoder`)."""
        skips = []
        for block in self.input_blocks:
            x = block(x, embedding)
            skips.append(x)
        return self.middle_block(x, embedding), skips

    def decoder(self, x: Tensor, skips: list[Tensor], embedding: Embedding) -> Iterator[Tensor]:
        """Outputs of `output_blocks`, one after the other; nothing beyond what is asked for is computed."""
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
            yield x
