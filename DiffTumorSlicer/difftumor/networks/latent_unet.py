"""Denoiser of the latent diffusion model: a 3-D U-Net factorised into slices and their axis.

Chen et al., CVPR 2024, section 3.2; the network is the video U-Net of
lucidrains/video-diffusion-pytorch (MIT license), where Z plays the part of time: convolutions and linear
attention see one slice (X, Y), and an axial attention with rotary and relative positions sees one column
along Z.  All features are (B, C, Z, X, Y).

Samplers take `fast_unet.denoiser(unet, condition)`, which on a CPU is twice as fast as the module.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
HEAD_DIM = 32
HIDDEN = HEADS * HEAD_DIM
NORM_GROUPS = 8
BUCKETS = 32  # of the relative position bias
MAX_DISTANCE = 32


class TimeEmbedding(nn.Module):
    """Integer timestep (B,) -> sinusoids (B, dim): dim/2 sines, then dim/2 cosines."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        """See the class.  Computed in float32 whatever the precision of the network."""
        half = self.dim // 2
        frequencies = torch.exp(
            torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1))
        )
        angles = t[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class RelativePositionBias(nn.Module):
    """Learned bias of the axial attention by distance along Z (the buckets of T5)."""

    def __init__(self) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BUCKETS, HEADS)

    def forward(self, length: int) -> Tensor:
        """Bias (heads, length, length), rows are queries."""
        positions = torch.arange(length, device=self.relative_attention_bias.weight.device)
        return self.relative_attention_bias(relative_buckets(positions)).permute(2, 0, 1)


def relative_buckets(positions: Tensor) -> Tensor:
    """Bucket of query minus key: int64 (n,) -> int64 (n, n).

    Half of the buckets serve keys after the query.  Of each half, the first 8 are single distances
    and the others grow logarithmically up to MAX_DISTANCE.
    """
    half = BUCKETS // 2
    exact = half // 2
    distance = positions[:, None] - positions[None, :]
    size = distance.abs()
    # clamp: the logarithm of the distances below `exact` is not used, but must be finite.
    growth = torch.log(size.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < 0, half, 0) + torch.where(size < exact, size, far)


class Rotary(nn.Module):
    """Rotary position embedding; its frequencies are a buffer as the published files hold them."""

    freqs: Tensor

    def __init__(self) -> None:
        super().__init__()
        exponents = torch.arange(0, HEAD_DIM, 2)[: HEAD_DIM // 2].float() / HEAD_DIM
        self.register_buffer("freqs", 1.0 / (10000**exponents))

    def forward(self, x: Tensor) -> Tensor:
        """Turn each pair of channels of x (..., n, HEAD_DIM) by position times frequency."""
        positions = torch.arange(x.shape[-2], device=x.device, dtype=self.freqs.dtype)
        angles = torch.outer(positions, self.freqs).to(x.dtype)
        cos, sin = angles.cos(), angles.sin()
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


class ChannelNorm(nn.Module):
    """Layer norm over the channels, with a gain and no bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, dim, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape."""
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.gamma


class SliceLinearAttention(nn.Module):
    """Linear attention among the pixels of each slice."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(dim, 3 * HIDDEN, 1, bias=False)
        self.to_out = nn.Conv2d(HIDDEN, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape."""
        b, c, z, h, w = x.shape
        slices = x.transpose(1, 2).reshape(b * z, c, h, w)
        q, k, v = self.to_qkv(slices).view(b * z, 3, HEADS, HEAD_DIM, h * w).unbind(1)
        q = q.softmax(dim=-2) * HEAD_DIM**-0.5
        context = k.softmax(dim=-1) @ v.transpose(-1, -2)
        out = (context.transpose(-1, -2) @ q).reshape(b * z, HIDDEN, h, w)
        return self.to_out(out).view(b, z, c, h, w).transpose(1, 2)


class SoftmaxAttention(nn.Module):
    """Softmax attention along the last but one dimension, as used inside a slice and along Z."""

    def __init__(self, dim: int, *, rotary: bool) -> None:
        super().__init__()
        if rotary:
            self.rotary_emb = Rotary()
        self.rotary = rotary
        self.to_qkv = nn.Linear(dim, 3 * HIDDEN, bias=False)
        self.to_out = nn.Linear(HIDDEN, dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (..., n, C) -> (..., n, C); `bias` (heads, n, n) is added to the logits."""
        qkv = self.to_qkv(x).unflatten(-1, (3, HEADS, HEAD_DIM))
        q, k, v = (part.transpose(-2, -3) for part in qkv.unbind(-3))  # (..., heads, n, HEAD_DIM)
        q = q * HEAD_DIM**-0.5
        if self.rotary:
            q, k = self.rotary_emb(q), self.rotary_emb(k)
        logits = q @ k.transpose(-1, -2)
        if bias is not None:
            logits = logits + bias
        return self.to_out((logits.softmax(-1) @ v).transpose(-2, -3).flatten(-2))


class InSlice(nn.Module):
    """Applies an attention over tokens to the pixels of each slice."""

    def __init__(self, attention: SoftmaxAttention) -> None:
        super().__init__()
        self.fn = attention

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape."""
        tokens = x.permute(0, 2, 3, 4, 1)
        return self.fn(tokens.flatten(2, 3)).view(tokens.shape).permute(0, 4, 1, 2, 3)


class AlongZ(nn.Module):
    """Applies an attention over tokens to each column along Z."""

    def __init__(self, attention: SoftmaxAttention) -> None:
        super().__init__()
        self.fn = attention

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape; bias (heads, Z, Z)."""
        return self.fn(x.permute(0, 3, 4, 2, 1), bias).permute(0, 4, 3, 1, 2)


class PreNorm(nn.Module):
    """fn(norm(x))."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = ChannelNorm(dim)

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape."""
        return self.fn(self.norm(x), *args)


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape."""
        return x + self.fn(x, *args)


def slice_linear_attention(dim: int) -> Residual:
    """Add linear attention within each slice; the nesting gives the published key names."""
    return Residual(PreNorm(dim, SliceLinearAttention(dim)))


def axial_attention(dim: int) -> Residual:
    """Add attention along Z."""
    return Residual(PreNorm(dim, AlongZ(SoftmaxAttention(dim, rotary=True))))


def slice_attention(dim: int) -> Residual:
    """Add softmax attention within each slice (at the coarsest resolution only)."""
    return Residual(PreNorm(dim, InSlice(SoftmaxAttention(dim, rotary=False))))


class Block(nn.Module):
    """Convolution within the slice, group norm over the whole volume, scale and shift, SiLU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(dim_in, dim_out, (1, 3, 3), padding=(0, 1, 1))
        self.norm = nn.GroupNorm(NORM_GROUPS, dim_out)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, C_in, Z, X, Y) -> (B, C_out, Z, X, Y); scale and shift are (B, C_out, 1, 1, 1)."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return F.silu(x)


class ResnetBlock(nn.Module):
    """Two Blocks and a shortcut; the time embedding scales and shifts the first."""

    def __init__(self, dim_in: int, dim_out: int, time_dim: int | None = None) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * dim_out)) if time_dim else None
        self.block1 = Block(dim_in, dim_out)
        self.block2 = Block(dim_out, dim_out)
        self.res_conv = nn.Conv3d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(B, C_in, Z, X, Y), time (B, time_dim) -> (B, C_out, Z, X, Y)."""
        scale_shift = None
        if self.mlp is not None:
            scale, shift = self.mlp(time)[..., None, None, None].chunk(2, dim=1)
            scale_shift = (scale, shift)
        return self.block2(self.block1(x, scale_shift)) + self.res_conv(x)


def level(dim_in: int, dim_out: int, time_dim: int, resample: nn.Module) -> nn.ModuleList:
    """Two residual blocks, attention within slices, attention along Z, change of resolution."""
    return nn.ModuleList(
        [
            ResnetBlock(dim_in, dim_out, time_dim),
            ResnetBlock(dim_out, dim_out, time_dim),
            slice_linear_attention(dim_out),
            axial_attention(dim_out),
            resample,
        ]
    )


class LatentUNet(nn.Module):
    """Predicts the noise in a normalized latent.

    Args:
        dim: channels at full resolution.
        dim_mults: channels of each level as multiples of `dim`; X and Y are halved between levels.
        in_channels: noisy latent (8), latent of the masked volume (8), mask (1).
        out_channels: of the latent.
    """

    def __init__(
        self,
        dim: int = 24,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        in_channels: int = 17,
        out_channels: int = 8,
    ) -> None:
        super().__init__()
        dims = [dim, *(dim * m for m in dim_mults)]
        pairs = list(pairwise(dims))
        time_dim = 4 * dim
        self.in_channels = in_channels
        self.factor = 2 ** (len(pairs) - 1)

        self.time_rel_pos_bias = RelativePositionBias()
        self.init_conv = nn.Conv3d(in_channels, dim, (1, 7, 7), padding=(0, 3, 3))
        self.init_temporal_attn = axial_attention(dim)
        self.time_mlp = nn.Sequential(
            TimeEmbedding(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        kernel, stride, padding = (1, 4, 4), (1, 2, 2), (0, 1, 1)
        for i, (fine, coarse) in enumerate(pairs):
            last = i == len(pairs) - 1
            down = nn.Identity() if last else nn.Conv3d(coarse, coarse, kernel, stride, padding)
            self.downs.append(level(fine, coarse, time_dim, down))
        for i, (fine, coarse) in enumerate(reversed(pairs)):
            last = i == len(pairs) - 1
            up = nn.Identity() if last else nn.ConvTranspose3d(fine, fine, kernel, stride, padding)
            self.ups.append(level(2 * coarse, fine, time_dim, up))

        self.mid_block1 = ResnetBlock(dims[-1], dims[-1], time_dim)
        self.mid_spatial_attn = slice_attention(dims[-1])
        self.mid_temporal_attn = axial_attention(dims[-1])
        self.mid_block2 = ResnetBlock(dims[-1], dims[-1], time_dim)
        self.final_conv = nn.Sequential(ResnetBlock(2 * dim, dim), nn.Conv3d(dim, out_channels, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Noise estimate.

        Args:
            x: (B, in_channels, Z, X, Y): noisy latent, conditioning latent, mask channel in this
                order.  X and Y are multiples of `factor` (8 for the published network).
            t: timesteps, int64 (B,).

        Returns:
            (B, out_channels, Z, X, Y).

        Raises:
            ValueError: if the shape of x is not as above.
        """
        self.check_shape(x.shape)
        bias = self.time_rel_pos_bias(x.shape[2])
        # The sinusoid is float32 by definition; the layers after it may be of another precision.
        sinusoid, *layers = self.time_mlp
        time = sinusoid(t).to(x.dtype)
        for layer in layers:
            time = layer(time)

        x = self.init_conv(x)
        # Later versions of the upstream network take this copy after the attention: other numbers.
        first = x
        x = self.init_temporal_attn(x, bias)
        skips = []
        downs: Any = self.downs
        ups: Any = self.ups
        for block1, block2, in_slice, along_z, down in downs:
            x = along_z(in_slice(block2(block1(x, time), time)), bias)
            skips.append(x)
            x = down(x)
        x = self.mid_block1(x, time)
        x = self.mid_temporal_attn(self.mid_spatial_attn(x), bias)
        x = self.mid_block2(x, time)
        for block1, block2, in_slice, along_z, up in ups:
            x = torch.cat([x, skips.pop()], dim=1)
            x = up(along_z(in_slice(block2(block1(x, time), time)), bias))
        return self.final_conv(torch.cat([x, first], dim=1))

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise ValueError if this is not the shape of an input."""
        if (
            len(shape) != 5
            or shape[1] != self.in_channels
            or any(n == 0 for n in shape)
            or any(n % self.factor for n in shape[3:])
        ):
            raise ValueError(
                f"The denoiser takes (B, {self.in_channels}, Z, X, Y) with X and Y multiples of "
                f"{self.factor}; got {tuple(shape)}. The crop must be a multiple of "
                f"{4 * self.factor} voxels along X and Y and of 4 along Z."
            )
