"""Layers that the guided-diffusion U-Net and its classifier share.

Dhariwal and Nichol, "Diffusion models beat GANs on image synthesis", NeurIPS 2021 (openai/guided-diffusion,
MIT license), as configured by Wolleb et al., MICCAI 2022.  Names of submodules give the published keys.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difftumor.networks.guided_norm import normalized

NORM_GROUPS = 32


Zeroed = TypeVar("Zeroed", bound=nn.Module)


class Normalization(nn.GroupNorm):
    """Group norm of 32 groups (torch accumulates in float32 whatever the precision of its input)."""

    def __init__(self, channels: int) -> None:
        if channels % NORM_GROUPS:
            raise ValueError(
                f"A layer of {channels} channels cannot be normalized in {NORM_GROUPS} groups; "
                f"choose base_channels as a multiple of {NORM_GROUPS}."
            )
        super().__init__(NORM_GROUPS, channels)


def zeroed(module: Zeroed) -> Zeroed:
    """The module with all parameters 0: at the start a residual branch adds nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of the timesteps: (B,) -> float32 (B, channels), cosines first.

    frequency_k = 10000^(-k / (channels / 2)), of the original timestep, unscaled.
    """
    half = channels // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * k / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def time_layers(channels: int) -> nn.Sequential:
    """`time_embed`: Linear, SiLU, Linear from `channels` to 4 `channels`."""
    return nn.Sequential(
        nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels)
    )


# The embedding (B, E), or what each residual block makes of it.
Embedding: TypeAlias = "Tensor | Mapping[nn.Module, Tensor]"


def precomputed(network: nn.Module, embedding: Tensor) -> dict[nn.Module, Tensor]:
    """What each residual block of a network makes of an embedding, (B, channels) each.

    A sampler meets the same few timesteps again and again.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResBlock)]
    return {block: block.emb_layers(embedding) for block in blocks}


class ResBlock(nn.Module):
    """skip(x) + two convolutions of x, which the embedding shifts (or scales and shifts) in between.

    Args:
        channels: of the input.
        embedding: width of the time embedding.
        out_channels: of the output.
        scale_shift: the embedding scales and shifts the second norm instead of being added before it.
        down: average-pool (2x2) both branches before the first convolution.
    """

    def __init__(
        self,
        channels: int,
        embedding: int,
        out_channels: int,
        *,
        scale_shift: bool = False,
        down: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.out_channels = channels, out_channels
        self.scale_shift, self.down = scale_shift, down
        self.in_layers = nn.Sequential(
            Normalization(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding, 2 * out_channels if scale_shift else out_channels)
        )
        self.out_layers = nn.Sequential(
            Normalization(out_channels),
            nn.SiLU(),
            nn.Dropout(0.0),  # holds its place in the numbers of the keys
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Embedding) -> Tensor:
        """(B, channels, H, W), (B, embedding) -> (B, out_channels, H, W), halved if `down`."""
        # Layers by their numbers, which torch types as any module.
        before: Any = self.in_layers
        after: Any = self.out_layers
        norm, _, conv = before
        h = normalized(norm, x)
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h = conv(h)
        change = self.emb_layers(embedding) if isinstance(embedding, Tensor) else embedding[self]
        norm, _, _, conv = after
        if self.scale_shift:
            scale, shift = change.chunk(2, dim=1)
            h = normalized(norm, h, (scale, shift))
        else:
            h = normalized(norm, h + change[..., None, None])
        return self.skip_connection(x) + conv(h)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, heads, tokens, channels)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # Torch's fused attention takes 1.4 to 2.2 times as long there, with its backward pass.
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class AttentionBlock(nn.Module):
    """x + softmax attention among all pixels.

    The rows of `qkv` are (q, k, v) of the first head, then of the second, ... ("legacy" order).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} attention heads.")
        self.heads = heads
        self.norm = Normalization(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        tokens = normalized(self.norm, x, activate=False).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.qkv.weight.squeeze(-1), self.qkv.bias)
        q, k, v = qkv.unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        out = attend(q, k, v).transpose(1, 2).flatten(2)
        out = F.linear(out, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + out.transpose(1, 2).reshape(x.shape)


class Downsample(nn.Module):
    """Convolution of stride 2: H and W are halved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Each pixel four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class TimedSequential(nn.Sequential):
    """A sequence that hands the time embedding to its residual blocks."""

    def forward(self, x: Tensor, embedding: Embedding) -> Tensor:  # type: ignore[override]
        """(B, C, H, W), (B, E) -> (B, C', H', W')."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class AttentionPool(nn.Module):
    """Pixels -> logits by attention of their mean to all of them (as in CLIP).

    Here the rows of `qkv_proj` are all q, all k, all v, unlike in `AttentionBlock`.

    Args:
        size: of the feature map, which is square; the positions are learned.
        channels: of the feature map.
        head_channels: of each attention head.
        classes: number of logits.
    """

    def __init__(self, size: int, channels: int, head_channels: int, classes: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.positional_embedding = nn.Parameter(
            torch.randn(channels, size * size + 1) / channels**0.5
        )
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, size, size) -> (B, classes)."""
        pixels = x.flatten(2)
        tokens = torch.cat([pixels.mean(dim=-1, keepdim=True), pixels], dim=-1)
        tokens = (tokens + self.positional_embedding.to(tokens.dtype)).transpose(1, 2)
        qkv = F.linear(tokens, self.qkv_proj.weight.squeeze(-1), self.qkv_proj.bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Only the first token, the mean, is read.
        out = F.scaled_dot_product_attention(q[:, :, :1], k, v).flatten(1)
        return F.linear(out, self.c_proj.weight.squeeze(-1), self.c_proj.bias)


def check_image(shape: torch.Size, channels: int, factor: int, size: int | None = None) -> None:
    """Raise ValueError unless this is (B, channels, H, W), H and W multiples of `factor` (or `size`)."""
    fits = len(shape) == 4 and shape[1] == channels and all(shape)
    if fits and size is None:
        fits = all(n % factor == 0 for n in shape[2:])
    if not fits or (size is not None and tuple(shape[2:]) != (size, size)):
        wanted = f"H = W = {size}" if size is not None else f"H and W multiples of {factor}"
        raise ValueError(
            f"The network takes images (B, {channels}, H, W) with {wanted}; got {tuple(shape)}. "
            "Prepare the slices with the channels and the size that the model's card names."
        )
