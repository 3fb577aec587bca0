"""The encoder and decoder of vqgan_layers.py for inference on a CPU: same numbers, less time and memory.

Volumes are walked through in slabs of a few planes that stay in the cache, in the layout (Z, X, Y, C).
Measured on two Zen 4 cores, CPU seconds for decoding one 96^3 crop (modules 6.0 to 6.5, here 2.4 to 2.7):
  slabs, and two volumes instead of a new one for each layer, whose pages the system must clear   -1.9
  Winograd along Z: 6 instead of 12 two-dimensional convolutions for 4 planes                     -1.0
  channels-last weights of the transposed convolutions                                            -0.2
  last convolution (32 -> 1 channels) as one matrix product and 27 shifted sums                   -0.16
Nothing is kept between calls, so weights may change at any time.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difftumor.networks.vqgan_layers import Callback, Decoder, Encoder, ResBlock, SameConv

Tick = Callable[[], None]

TILE = 4  # planes that one Winograd tile yields
SLAB = 8  # planes of a slab elsewhere

# Minimal filtering F(4, 3) of Winograd with the points 0, 1, -1, 2, -2, infinity (Lavin and Gray,
# "Fast algorithms for convolutional neural networks", CVPR 2016): input, weights, and in `inverse` output.
INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
WEIGHT_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def usable(x: Tensor) -> bool:
    """Whether this path may replace the modules: no gradient, CPU, float32 throughout."""
    return (
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    )


class Moments:
    """Mean and variance of each channel, gathered slab by slab and combined in float64.

    The native group norm sums channels-last data in float32, which costs two digits.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, Tensor, Tensor]] = []

    def add(self, slab: Tensor) -> None:
        """Take note of values (..., C)."""
        rows = slab.reshape(-1, slab.shape[-1])
        mean = rows.mean(0)
        self.parts.append((len(rows), mean.double(), (rows - mean).square_().sum(0).double()))

    def affine(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) that `norm` amounts to for these values."""
        counts = torch.tensor([n for n, _, _ in self.parts], dtype=torch.float64)[:, None]
        means = torch.stack([mean for _, mean, _ in self.parts])
        mean = (counts * means).sum(0) / counts.sum()
        squares = sum(square for _, _, square in self.parts)
        variance = (squares + (counts * (means - mean).square()).sum(0)) / counts.sum()

        grouped = mean.view(norm.num_groups, -1)
        center = grouped.mean(1, keepdim=True)
        spread = variance.view_as(grouped) + (grouped - center).square()
        inverse = (spread.mean(1, keepdim=True) + norm.eps).rsqrt()
        scale = norm.weight * inverse.expand_as(grouped).flatten()
        return scale.float(), (norm.bias - center.expand_as(grouped).flatten() * scale).float()


def slabs(size: int, step: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of `step` planes that cover `size` planes."""
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def replicate_borders(planes: Tensor) -> None:
    """Fill the outermost rows and columns of (n, X+2, Y+2, C) with their neighbors."""
    planes[:, 0] = planes[:, 1]
    planes[:, -1] = planes[:, -2]
    planes[:, :, 0] = planes[:, :, 1]
    planes[:, :, -1] = planes[:, :, -2]


def padded(x: Tensor, start: int, stop: int) -> Tensor:
    """Planes start-1...stop of x (Z, X, Y, C) with replicated borders: (stop-start+2, X+2, Y+2, C)."""
    z, h, w, c = x.shape
    planes = x.new_empty(stop - start + 2, h + 2, w + 2, c)
    low, high = max(start - 1, 0), min(stop + 1, z)
    first = low - (start - 1)
    planes[first : first + high - low, 1:-1, 1:-1] = x[low:high]
    planes[:first] = planes[first]
    planes[first + high - low :] = planes[first + high - low - 1]
    replicate_borders(planes)
    return planes


def norm_silu_conv(
    x: Tensor, affine: tuple[Tensor, Tensor], conv: nn.Conv3d, out: Tensor, tick: Tick, *, add: bool
) -> Moments:
    """Write out = [out +] conv(silu(scale x + shift)) for a 3x3x3 convolution with replicated borders.

    Args:
        x: (Z, X, Y, C).
        affine: scale and shift (C,).
        out: (Z, X, Y, C); may not be x.
        tick: called after each tile.

    Returns:
        moments of `out`.
    """
    z, h, w, c = x.shape
    transform = torch.tensor(WEIGHT_TRANSFORM, dtype=torch.float64)
    weights = torch.einsum("ft,oitxy->foxyi", transform, conv.weight.double()).float()
    input_transform = torch.tensor(INPUT_TRANSFORM, dtype=torch.float32)
    planes = x.new_empty(6, h + 2, w + 2, c)  # slot s holds plane start - 1 + s, clamped to 0...z-1
    spectrum = torch.empty_like(planes)
    moments = Moments()
    for start, stop in slabs(z, TILE):
        first = 1
        if start > 0:
            planes[:2] = planes[TILE:]
            first = 2
        last = (
            min(start + TILE + 1, z) - start + 1
        )  # one past the last slot with a plane of its own
        if last > first:
            fresh = planes[first:last, 1:-1, 1:-1]
            torch.addcmul(affine[1], x[start - 1 + first : start - 1 + last], affine[0], out=fresh)
            F.silu(fresh, inplace=True)
            replicate_borders(planes[first:last])
        if start == 0:
            planes[0] = planes[1]
        planes[last:] = planes[last - 1]

        torch.mm(input_transform, planes.view(6, -1), out=spectrum.view(6, -1))
        products = [
            # All four outputs contain product 1 exactly once: the place for the bias.
            F.conv2d(
                plane[None].permute(0, 3, 1, 2),
                weight.permute(0, 3, 1, 2),
                conv.bias if f == 1 else None,
            )[0].permute(1, 2, 0)
            for f, (plane, weight) in enumerate(zip(spectrum, weights, strict=True))
        ]
        for plane, result in zip(out[start:stop], inverse(products), strict=False):
            if add:
                plane += result
            else:
                plane.copy_(result)
        moments.add(out[start:stop])
        tick()
    return moments


def inverse(m: list[Tensor]) -> Iterator[Tensor]:
    """The four outputs of a Winograd tile from its six products, which are overwritten."""
    even_1, odd_1 = m[1] + m[2], m[1].sub_(m[2])
    even_2, odd_2 = m[3] + m[4], m[3].sub_(m[4])
    yield m[0].add_(even_1).add_(even_2)
    yield m[2].copy_(odd_1).add_(odd_2, alpha=2)
    yield even_1.add_(even_2, alpha=4)
    yield odd_1.add_(odd_2, alpha=8).add_(m[5])


def res_block(x: Tensor, moments: Moments, block: ResBlock, hidden: Tensor, tick: Tick) -> Moments:
    """ResBlock in place on x (Z, X, Y, C), whose moments are given; returns the new ones.

    `hidden` is room for the inner result: new pages cost as much time as a convolution.
    """
    moments = norm_silu_conv(
        x, moments.affine(block.norm1), block.conv1.conv, hidden, tick, add=False
    )
    return norm_silu_conv(hidden, moments.affine(block.norm2), block.conv2.conv, x, tick, add=True)


def down_conv(x: Tensor, conv: nn.Conv3d, first: nn.Conv3d | None = None) -> tuple[Tensor, Moments]:
    """Convolution with stride 2: (Z, X, Y, C) -> (Z/2, X/2, Y/2, C') and its moments.

    `first`, a convolution of a single channel, is applied before, slab by slab.
    """
    z, h, w, _ = x.shape
    out = x.new_empty(z // 2, h // 2, w // 2, conv.out_channels)
    weight = conv.weight.contiguous(memory_format=torch.channels_last_3d)
    moments = Moments()
    for start, stop in slabs(z // 2, SLAB):
        if first is None:
            slab = padded(x, 2 * start, 2 * stop)
        else:
            low, high = max(2 * start - 1, 0), min(2 * stop + 1, z)
            slab = padded(first_conv(x, first, low, high), 2 * start - low, 2 * stop - low)
        result = F.conv3d(slab.permute(3, 0, 1, 2)[None], weight, conv.bias, stride=2)
        out[start:stop] = result[0].permute(1, 2, 3, 0)
        moments.add(out[start:stop])
    return out, moments


def first_conv(x: Tensor, conv: nn.Conv3d, start: int, stop: int) -> Tensor:
    """Planes [start, stop) of a 3x3x3 convolution of x (Z, X, Y, 1): (stop-start, X, Y, C)."""
    # Three neighboring planes become the channels of one image: oneDNN likes that, not one channel.
    neighbors = padded(x, start, stop).squeeze(3).unfold(0, 3, 1).contiguous()
    return F.conv2d(neighbors.permute(0, 3, 1, 2), conv.weight[:, 0], conv.bias).permute(0, 2, 3, 1)


def encode(encoder: Encoder, pre_vq_conv: SameConv, x: Tensor) -> Tensor:
    """pre_vq_conv(encoder(x)): (B, 1, Z, X, Y) -> (B, 8, Z/4, X/4, Y/4)."""
    latents = []
    blocks: Any = encoder.conv_blocks
    norm: Any = encoder.final_block[0]
    for volume in x:
        features = volume.permute(1, 2, 3, 0)
        first: nn.Conv3d | None = encoder.conv_first.conv
        for block in blocks:
            features, moments = down_conv(features, block.down.conv, first)
            hidden = torch.empty_like(features)
            moments = res_block(features, moments, block.res, hidden, lambda: None)
            first = None
        scale, shift = moments.affine(norm)
        features = F.silu(torch.addcmul(shift, features, scale), inplace=True)
        last = pre_vq_conv.conv
        latents.append(F.linear(features, last.weight.flatten(1), last.bias))
    return torch.stack(latents).permute(0, 4, 1, 2, 3)


def up_conv(x: Tensor, conv: nn.ConvTranspose3d, tick: Tick) -> tuple[Tensor, Moments]:
    """Transposed convolution: (Z, X, Y, C) -> (2Z, 2X, 2Y, C') and its moments."""
    z, h, w, _ = x.shape
    out = x.new_empty(2 * z, 2 * h, 2 * w, conv.out_channels)
    weight = conv.weight.contiguous(memory_format=torch.channels_last_3d)
    padding: Any = conv.padding  # never a word here
    moments = Moments()
    for start, stop in slabs(z, SLAB // 2):
        slab = padded(x, start, stop).permute(3, 0, 1, 2)[None]
        result = F.conv_transpose3d(slab, weight, conv.bias, conv.stride, padding)
        out[2 * start : 2 * stop] = result[0].permute(1, 2, 3, 0)
        moments.add(out[2 * start : 2 * stop])
        tick()
    return out, moments


def last_conv(x: Tensor, conv: nn.Conv3d, tick: Tick) -> Tensor:
    """3x3x3 convolution to a single channel: (Z, X, Y, C) -> (Z, X, Y)."""
    z, h, w, c = x.shape
    out = x.new_empty(z, h, w)
    bias: Any = conv.bias
    taps = conv.weight.permute(2, 3, 4, 0, 1).reshape(27, c)
    for start, stop in slabs(z, SLAB):
        slab = padded(x, start, stop)
        parts = (taps @ slab.view(-1, c).t()).view(27, *slab.shape[:3])
        total = out[start:stop].copy_(bias.expand(stop - start, h, w))
        for part, (i, j, k) in zip(parts, product(range(3), repeat=3), strict=True):
            total += part[i : i + stop - start, j : j + h, k : k + w]
        tick()
    return out


def decode(
    decoder: Decoder, post_vq_conv: SameConv, z: Tensor, callback: Callback | None = None
) -> Tensor:
    """decoder(post_vq_conv(z)): (B, 8, Z, X, Y) -> (B, 1, 4Z, 4X, 4Y)."""
    depth = z.shape[2]
    per_volume = len(slabs(depth, SLAB // 2)) + 4 * len(slabs(2 * depth, TILE))
    per_volume += len(slabs(2 * depth, SLAB // 2)) + 4 * len(slabs(4 * depth, TILE))
    per_volume += len(slabs(4 * depth, SLAB))
    done, total = 0, len(z) * per_volume

    def tick() -> None:
        nonlocal done
        done += 1
        if callback is not None:
            callback(done, total)

    features = decoder.final_block(post_vq_conv(z))
    blocks: Any = decoder.conv_blocks
    volumes = []
    for volume in features:
        x = volume.permute(1, 2, 3, 0).contiguous()
        for block in blocks:
            x, moments = up_conv(x, block.up.convt, tick)
            hidden = torch.empty_like(x)
            moments = res_block(x, moments, block.res1, hidden, tick)
            res_block(x, moments, block.res2, hidden, tick)
        volumes.append(last_conv(x, decoder.conv_last.conv, tick))
    return torch.stack(volumes)[:, None]
