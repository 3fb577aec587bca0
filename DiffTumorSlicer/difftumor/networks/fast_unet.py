"""The denoiser of latent_unet.py for sampling on a CPU: same numbers, less than half of the time.

Features are (Z, X, Y, C), so that convolutions are oneDNN's in its native layout and all else is matrix
products of tokens.  Measured on two Zen 4 cores, CPU seconds of one evaluation at 24^3 (modules 0.67):
  channels last; rotary turn and scale folded into the weights, v into linear attention's output  -0.27
  attention in blocks of slices and columns that stay in the cache                                -0.13
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difftumor.networks import latent_unet as plain
from difftumor.networks.fast_vqgan import Moments

Denoise = Callable[[Tensor, Tensor], Tensor]

COLUMNS = 48  # of an axial attention at a time: what it needs stays in the cache
SLICES = 4  # of an attention within slices at a time


def denoiser(unet: plain.LatentUNet, condition: Tensor) -> Denoise:
    """The function (x_t, t) -> eps that samplers take, on whatever device the network is.

    Make it anew for each sampling: it may hold copies of the weights.  It gives no gradients.

    Args:
        unet: the network.
        condition: (B, c, Z, X, Y): the input channels that follow those of x_t.

    Returns:
        function of x_t (B, in_channels - c, Z, X, Y) and t int64 (B,).
    """
    if condition.device.type == "cpu" and condition.dtype == torch.float32:
        return FastDenoiser(unet, condition)

    @torch.no_grad()
    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        return unet(torch.cat([x_t, condition], dim=1), t)

    return denoise


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, **options: int) -> Tensor:
    """Convolution of each slice: (Z, X, Y, C) -> (Z, X', Y', C')."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, **options).permute(0, 2, 3, 1)


def slice_weight(weight: Tensor) -> Tensor:
    """Weight (O, I, 1, k, k) of a convolution within slices -> (O, I, k, k), channels last."""
    return weight.squeeze(2).contiguous(memory_format=torch.channels_last)


class FastBlock:
    """Block: convolution, group norm, scale and shift, SiLU."""

    def __init__(self, block: plain.Block) -> None:
        self.weight, self.bias = slice_weight(block.proj.weight), block.proj.bias
        self.norm = block.norm

    def __call__(self, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
        """(Z, X, Y, C) -> (Z, X, Y, C'); scale_shift is (2 C',)."""
        x = conv(x, self.weight, self.bias, padding=1)
        moments = Moments()
        moments.add(x)
        scale, shift = moments.affine(self.norm)
        if scale_shift is not None:
            factor, offset = scale_shift.chunk(2)
            scale, shift = scale * (factor + 1), shift * (factor + 1) + offset
        return F.silu(torch.addcmul(shift, x, scale), inplace=True)


class FastResnetBlock:
    """ResnetBlock."""

    def __init__(self, block: plain.ResnetBlock) -> None:
        self.mlp = block.mlp
        self.block1, self.block2 = FastBlock(block.block1), FastBlock(block.block2)
        shortcut = block.res_conv
        self.shortcut = None
        if isinstance(shortcut, nn.Conv3d):
            self.shortcut = (shortcut.weight.flatten(1), shortcut.bias)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        """(Z, X, Y, C), time (time_dim,) -> (Z, X, Y, C')."""
        scale_shift = None if self.mlp is None else self.mlp(time)
        hidden = self.block2(self.block1(x, scale_shift))
        return hidden.add_(x if self.shortcut is None else F.linear(x, *self.shortcut))


class FastSliceAttention:
    """x + linear attention within each slice.

    out = to_out(q (k^T v)) = q ((k^T x) Wv) Wo: neither v nor its context is ever computed per pixel.
    """

    def __init__(self, module: plain.Residual) -> None:
        inner: Any = module.fn  # PreNorm around SliceLinearAttention
        norm, attention = inner.norm, inner.fn
        dim = norm.gamma.numel()
        self.gamma = norm.gamma.flatten()
        q, k, v = attention.to_qkv.weight.flatten(1).chunk(3)
        self.q, self.k = q.contiguous(), k.contiguous()
        self.v = v.view(plain.HEADS, plain.HEAD_DIM, dim).transpose(1, 2) * plain.HEAD_DIM**-0.5
        self.out = attention.to_out.weight.view(dim, plain.HEADS, plain.HEAD_DIM).permute(1, 2, 0)
        self.bias: Tensor = attention.to_out.bias

    def __call__(self, x: Tensor) -> Tensor:
        """(Z, X, Y, C) -> the same shape."""
        dim = x.shape[-1]
        out = torch.empty_like(x)
        for part, target in zip(x.split(SLICES), out.split(SLICES), strict=True):
            tokens = part.flatten(1, 2)
            normed = F.layer_norm(tokens, (dim,), self.gamma)
            q = F.linear(normed, self.q)
            q = q.view(-1, plain.HEAD_DIM).softmax(-1).view_as(q)
            k = F.linear(normed, self.k).softmax(1)
            context = torch.bmm(k.transpose(1, 2), normed)
            context = context.view(-1, plain.HEADS, plain.HEAD_DIM, dim).transpose(0, 1)
            context = (context.flatten(1, 2) @ self.v @ self.out).view(context.shape)
            attended = torch.baddbmm(tokens, q, context.transpose(0, 1).flatten(1, 2))
            torch.add(attended.view_as(part), self.bias, out=target)
        return out


class FastAxialAttention:
    """x + attention along Z, with the rotary turn and the scale folded into one weight for each Z."""

    def __init__(self, module: plain.Residual, depth: int) -> None:
        inner: Any = module.fn  # PreNorm around AlongZ around SoftmaxAttention
        norm, attention = inner.norm, inner.fn.fn
        self.gamma = norm.gamma.flatten()
        q, k, v = attention.to_qkv.weight.chunk(3)
        self.q = self.turned(q * plain.HEAD_DIM**-0.5, attention.rotary_emb, depth)
        self.k = self.turned(k, attention.rotary_emb, depth)
        self.v = v.contiguous()
        self.out: Tensor = attention.to_out.weight

    @staticmethod
    def turned(weight: Tensor, rotary: plain.Rotary, depth: int) -> Tensor:
        """Weight (256, C) -> (depth, C, 256), turned as the rotary embedding turns its outputs."""
        columns = weight.view(plain.HEADS, plain.HEAD_DIM, -1).permute(0, 2, 1)  # heads, C, 32
        turned = rotary(columns[:, :, None].expand(-1, -1, depth, -1))  # heads, C, depth, 32
        return turned.permute(2, 1, 0, 3).flatten(2).contiguous()

    def __call__(self, x: Tensor, bias: Tensor) -> Tensor:
        """(Z, X, Y, C), bias (heads, Z, Z) -> (Z, X, Y, C)."""
        depth, dim = len(x), x.shape[-1]
        tokens = x.flatten(1, 2)
        out = torch.empty_like(tokens)
        for part, target in zip(tokens.split(COLUMNS, 1), out.split(COLUMNS, 1), strict=True):
            columns = part.shape[1]
            normed = F.layer_norm(part, (dim,), self.gamma)
            # (Z, columns, 256) seen as one matrix (Z, 32) for each column and head
            q, k, v = (
                rows.view(depth, -1, plain.HEAD_DIM).transpose(0, 1)
                for rows in (
                    torch.bmm(normed, self.q),
                    torch.bmm(normed, self.k),
                    F.linear(normed, self.v),
                )
            )
            logits = torch.baddbmm(bias.repeat(columns, 1, 1), q, k.transpose(1, 2))
            attended = torch.bmm(logits.softmax(-1), v).transpose(0, 1)
            attended = attended.reshape(depth, columns, plain.HIDDEN)
            torch.add(part, F.linear(attended, self.out), out=target)
        return out.view(x.shape)


class FastLevel:
    """One level of the U-Net."""

    def __init__(self, modules: Any, depth: int) -> None:
        block1, block2, in_slice, along_z, resample = modules
        self.block1, self.block2 = FastResnetBlock(block1), FastResnetBlock(block2)
        self.in_slice = FastSliceAttention(in_slice)
        self.along_z = FastAxialAttention(along_z, depth)
        self.resample = resample

    def __call__(self, x: Tensor, time: Tensor, bias: Tensor) -> Tensor:
        """All but the change of resolution."""
        x = self.block2(self.block1(x, time), time)
        return self.along_z(self.in_slice(x), bias)


def through(module: nn.Module, x: Tensor, *args: Tensor) -> Tensor:
    """A module of (1, C, Z, X, Y) applied to (Z, X, Y, C)."""
    return module(x.permute(3, 0, 1, 2)[None], *args)[0].permute(1, 2, 3, 0).contiguous()


class FastDenoiser:
    """LatentUNet with its condition bound; see `denoiser`."""

    @torch.no_grad()
    def __init__(self, unet: plain.LatentUNet, condition: Tensor) -> None:
        depth = condition.shape[2]
        self.unet = unet
        self.condition_shape = tuple(condition.shape)
        noisy, fixed = (
            weight.contiguous(memory_format=torch.channels_last)
            for weight in unet.init_conv.weight.squeeze(2).split(
                [unet.in_channels - condition.shape[1], condition.shape[1]], dim=1
            )
        )
        # The convolution is linear: the part of the condition is the same in all steps.
        self.init_weight = noisy
        self.conditions = [
            conv(item.permute(1, 2, 3, 0).contiguous(), fixed, unet.init_conv.bias, padding=3)
            for item in condition
        ]
        self.init_attention = FastAxialAttention(unet.init_temporal_attn, depth)
        self.downs = [FastLevel(modules, depth) for modules in unet.downs]
        self.ups = [FastLevel(modules, depth) for modules in unet.ups]
        self.mid_block1 = FastResnetBlock(unet.mid_block1)
        self.mid_block2 = FastResnetBlock(unet.mid_block2)
        self.mid_axial = FastAxialAttention(unet.mid_temporal_attn, depth)
        final: Any = unet.final_conv
        self.final_block, self.last = FastResnetBlock(final[0]), final[1]
        self.bias = unet.time_rel_pos_bias(depth).contiguous()

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Noise in x_t (B, C, Z, X, Y) at t int64 (B,), the shape of x_t."""
        batch, channels, *size = self.condition_shape
        if x_t.shape[:1] != (batch,) or x_t.shape[2:] != tuple(size):
            raise ValueError(
                f"x_t {tuple(x_t.shape)} does not fit its condition {self.condition_shape}: "
                "batch and size must be equal."
            )
        self.unet.check_shape((batch, x_t.shape[1] + channels, *size))
        times = self.unet.time_mlp(t)
        items = [
            self.denoise(item.permute(1, 2, 3, 0).contiguous(), time, condition)
            for item, time, condition in zip(x_t, times, self.conditions, strict=True)
        ]
        return torch.stack(items).permute(0, 4, 1, 2, 3)

    def denoise(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """One volume (Z, X, Y, C), time (96,)."""
        first = conv(x, self.init_weight, None, padding=3).add_(condition)
        x = self.init_attention(first, self.bias)
        skips = []
        for level in self.downs:
            x = level(x, time, self.bias)
            skips.append(x)
            x = through(level.resample, x)
        x = through(self.unet.mid_spatial_attn, self.mid_block1(x, time))
        x = self.mid_block2(self.mid_axial(x, self.bias), time)
        for level in self.ups:
            x = level(torch.cat([x, skips.pop()], dim=-1), time, self.bias)
            x = through(level.resample, x)
        x = self.final_block(torch.cat([x, first], dim=-1), time)
        return F.linear(x, self.last.weight.flatten(1), self.last.bias)
