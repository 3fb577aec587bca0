"""Building blocks of the VQGAN: convolutions that keep the size, residual blocks, encoder, decoder.

Names follow the published files, so that state dicts fit. Volumes are (B, C, Z, X, Y).
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

Callback = Callable[[int, int], None]

GROUP_NORM_EPS = 1e-6


class SameConv(nn.Module):
    """Convolution that keeps the size (divided by the stride), with replicated borders."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        # All published kernels have an even total padding, so both sides get the same.
        padding = (kernel - stride) // 2
        self.conv = nn.Conv3d(
            channels_in,
            channels_out,
            kernel,
            stride,
            padding,
            padding_mode="replicate" if padding else "zeros",
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, Z, X, Y) -> (B, C_out, Z/s, X/s, Y/s)."""
        return self.conv(x)


class UpConv(nn.Module):
    """Transposed convolution (kernel 4, stride 2), replicated borders: exactly twice the size."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convt = nn.ConvTranspose3d(channels_in, channels_out, 4, stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, Z, X, Y) -> (B, C_out, 2Z, 2X, 2Y)."""
        return self.convt(F.pad(x, (1,) * 6, mode="replicate"))


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=GROUP_NORM_EPS)
        self.conv1 = SameConv(channels, channels, 3)
        self.norm2 = nn.GroupNorm(groups, channels, eps=GROUP_NORM_EPS)
        self.conv2 = SameConv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, X, Y) -> the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class EncoderBlock(nn.Module):
    """Halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.down = SameConv(channels_in, channels_out, 4, stride=2)
        self.res = ResBlock(channels_out, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, Z, X, Y) -> (B, C_out, Z/2, X/2, Y/2)."""
        return self.res(self.down(x))


class DecoderBlock(nn.Module):
    """Doubles the resolution."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.up = UpConv(channels_in, channels_out)
        self.res1 = ResBlock(channels_out, groups)
        self.res2 = ResBlock(channels_out, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, Z, X, Y) -> (B, C_out, 2Z, 2X, 2Y)."""
        return self.res2(self.res1(self.up(x)))


class Encoder(nn.Module):
    """(B, 1, Z, X, Y) -> (B, 4 hidden, Z/4, X/4, Y/4)."""

    def __init__(self, hidden: int, groups: int) -> None:
        super().__init__()
        self.conv_blocks = nn.ModuleList(
            [EncoderBlock(hidden, 2 * hidden, groups), EncoderBlock(2 * hidden, 4 * hidden, groups)]
        )
        self.conv_first = SameConv(1, hidden, 3)
        self.final_block = nn.Sequential(
            nn.GroupNorm(groups, 4 * hidden, eps=GROUP_NORM_EPS), nn.SiLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.conv_first(x)
        for block in self.conv_blocks:
            x = block(x)
        return self.final_block(x)


class Decoder(nn.Module):
    """(B, 4 hidden, Z/4, X/4, Y/4) -> (B, 1, Z, X, Y)."""

    def __init__(self, hidden: int, groups: int) -> None:
        super().__init__()
        # The published name says "final", but this norm comes first.
        self.final_block = nn.Sequential(
            nn.GroupNorm(groups, 4 * hidden, eps=GROUP_NORM_EPS), nn.SiLU()
        )
        self.conv_blocks = nn.ModuleList(
            [
                DecoderBlock(4 * hidden, 4 * hidden, groups),
                DecoderBlock(4 * hidden, 2 * hidden, groups),
            ]
        )
        self.conv_last = SameConv(2 * hidden, 1, 3)

    def stages(self) -> list[nn.Module]:
        """The modules in the order in which they are applied."""
        stages: list[nn.Module] = [self.final_block]
        blocks: Any = self.conv_blocks
        for block in blocks:
            stages += [block.up, block.res1, block.res2]
        return [*stages, self.conv_last]

    def forward(self, x: Tensor, callback: Callback | None = None) -> Tensor:
        """See the class; `callback(done, total)` is called after each of the 8 stages."""
        stages = self.stages()
        for done, stage in enumerate(stages, start=1):
            x = stage(x)
            if callback is not None:
                callback(done, len(stages))
        return x
