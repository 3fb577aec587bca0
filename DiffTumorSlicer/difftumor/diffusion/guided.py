"""Rewriting an image as healthy: DDIM encoding to a noise level and classifier-guided decoding.

Wolleb et al., "Diffusion models for medical anomaly detection", MICCAI 2022, algorithm 1; used by Babaei et
al. for CT of the pancreas.  Pure functions of two callables:

denoise(x, t) -> eps     (B, C, H, W) -> (B, C, H, W): the U-Net with the label "healthy" bound
guide(x, t) -> gradient  (B, C, H, W) -> (B, C, H, W): of log p(healthy | x) with respect to x

t is the original timestep of all images, a plain number: a GPU need not be waited for to know it.

Levels are those of `schedules.Levels`: the image is level 0.  An encoding step evaluates the U-Net at level k
and moves to k + 1 (k = 0 ... L - 1); a decoding step evaluates both networks at k and moves to k - 1
(k = L ... 1).  All coefficients are taken in float64.

Differs from the published code, which encodes with k = 1 ... L - 1 from an image with a little random noise,
decodes with k = L - 2 ... 0, and, if respaced, tells the classifier the level instead of the timestep.
`reference_compat` does the same, to prove that the numbers are equal.

`callback(done, total)` is called after each step and may raise `Cancelled`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from difftumor.diffusion.schedules import Levels

Denoise = Callable[[Tensor, int], Tensor]
Guide = Callable[[Tensor, int], Tensor]
Callback = Callable[[int, int], None]
Weighting = Literal["constant", "noise"]


def class_gradient(classify: Callable[[Tensor], Tensor], x: Tensor, index: int) -> Tensor:
    """Gradient of log softmax(classify(x))[index] with respect to x, each image for itself.

    Args:
        classify: (B, C, H, W) -> logits (B, classes); its parameters should need no gradients.
        x: images (B, C, H, W).
        index: class to be followed.

    Returns:
        shape of x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        chosen = classify(x).float().log_softmax(dim=-1)[:, index]
        return torch.autograd.grad(chosen.sum(), x)[0]


def first_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal float32 (B, C, H, W) that the published code adds before it encodes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator)


def add_first_noise(x: Tensor, noise: Tensor, levels: Levels) -> Tensor:
    """Image at level 0: sqrt(alpha_bar_0) x + sqrt(1 - alpha_bar_0) noise (published code only)."""
    return _compose(x, noise.to(x), levels.alpha_bar[0].item())


def predict(denoise: Denoise, x: Tensor, level: int, levels: Levels) -> tuple[Tensor, Tensor]:
    """Clean image and noise in x, as one evaluation of the U-Net sees them.

    x_0 = clip((x - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), -1, 1), and eps such that both make up x:
    eps' = (x / sqrt(alpha_bar) - x_0) / sqrt(1 / alpha_bar - 1).

    Args:
        denoise: see the module.
        x: image at `level`, (B, C, H, W).
        level: 0 ... K - 1.
        levels: of the sampler.

    Returns:
        x_0 and eps', shape of x.
    """
    eps = denoise(x, levels.timesteps[level])
    alpha_bar = levels.alpha_bar[level].item()
    x_0 = ((x - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5).clamp(-1, 1)
    return x_0, (x / alpha_bar**0.5 - x_0) / (1 / alpha_bar - 1) ** 0.5


def encode(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    level: int,
    *,
    start: int = 0,
    observe: Callable[[int, Tensor], None] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Carry images to a noise level with the DDIM equation run backwards (Wolleb et al., eq. 6).

    x_{k+1} = sqrt(alpha_bar_{k+1}) x_0 + sqrt(1 - alpha_bar_{k+1}) eps'

    Args:
        denoise: see the module.
        x: images (B, C, H, W) in the range of the model, or what an earlier call made of them.
        levels: of the sampler.
        level: L, at most K - 1 (published code: K).
        start: level of x, 0 for images.  The published code takes images, to which it has added
            `first_noise`, for level 1.
        observe: called as observe(k, x_k) for each level k = start + 1 ... L.
        callback: called as callback(done, total) after each evaluation.

    Returns:
        the images at level L; x itself for L = start.

    Raises:
        ValueError: the levels are out of range.
        Cancelled: from the callback.
    """
    check_level(level, levels, least=start, beyond=start == 1)
    with torch.no_grad():
        for k in range(start, level):
            x_0, eps = predict(denoise, x, k, levels)
            x = _compose(x_0, eps, _alpha_bar(levels, k + 1))
            if observe is not None:
                observe(k + 1, x)
            if callback is not None:
                callback(k + 1 - start, level - start)
    return x


def decode(
    denoise: Denoise,
    guide: Guide | None,
    x: Tensor,
    levels: Levels,
    level: int,
    scale: float,
    *,
    guidance_stop: float = 0.0,
    guidance_weighting: Weighting = "constant",
    reference_compat: bool = False,
    guide_timesteps: Sequence[int] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Denoise images and pull them towards "healthy" on the way (Wolleb et al., algorithm 1).

    eps'' = eps' - S sqrt(1 - alpha_bar_k) gradient;   x_0'' = (x - sqrt(1 - alpha_bar_k) eps'') / sqrt(alpha_bar_k)
    x_{k-1} = sqrt(alpha_bar_{k-1}) x_0'' + sqrt(1 - alpha_bar_{k-1}) eps''      (x_0'' is not clipped)

    Args:
        denoise: see the module; without guidance (S = 0) `guide` is never called and may be None.
        guide: likewise.
        x: images at level L (B, C, H, W).
        levels: of the sampler.
        level: L, 0 <= L < K.
        scale: guidance scale S, at least 0.
        guidance_stop: share of the last steps without guidance, 0 to 1. Some found that the gradient does not
            fade there and only adds noise.
        guidance_weighting: "noise" multiplies S by sqrt(1 - alpha_bar_k), the noise that is still in the image;
            "constant" is published.
        reference_compat: see the module.
        guide_timesteps: the timestep that the classifier is told at each level; default: that of the U-Net.
        callback: called as callback(done, total) after each step.

    Returns:
        images at level 0, shape of x.

    Raises:
        ValueError: something is out of range.
        Cancelled: from the callback.
    """
    check_level(level, levels, least=2 if reference_compat else 0, beyond=reference_compat)
    if scale < 0 or not 0 <= guidance_stop <= 1:
        raise ValueError(
            "The guidance scale is at least 0 and the unguided share lies between 0 and 1; "
            f"got {scale:g} and {guidance_stop:g}."
        )
    if guidance_weighting not in ("constant", "noise"):
        raise ValueError(f'Guidance is weighted "constant" or "noise"; got {guidance_weighting!r}.')
    if guide_timesteps is None:
        guide_timesteps = range(levels.count) if reference_compat else levels.timesteps
    order = range(level - 2, -1, -1) if reference_compat else range(level, 0, -1)
    guided = len(order) - round(guidance_stop * len(order)) if scale > 0 else 0
    if guided and guide is None:
        raise ValueError("Guidance with S > 0 needs a classifier.")
    with torch.no_grad():
        for step, k in enumerate(order):
            _, eps = predict(denoise, x, k, levels)
            alpha_bar = levels.alpha_bar[k].item()
            sigma = (1 - alpha_bar) ** 0.5
            if step < guided and guide is not None:
                weight = scale * (sigma if guidance_weighting == "noise" else 1.0)
                eps = eps - sigma * weight * guide(x, guide_timesteps[k])
            x_0 = (x - sigma * eps) / alpha_bar**0.5
            x = _compose(x_0, eps, _alpha_bar(levels, k - 1))
            if callback is not None:
                callback(step + 1, len(order))
    return x


def check_level(level: int, levels: Levels, *, least: int = 0, beyond: bool = False) -> None:
    """Raise ValueError unless least <= level <= K - 1 (K if `beyond`, where no signal is left)."""
    greatest = levels.count if beyond else levels.count - 1
    if not least <= level <= greatest:
        raise ValueError(
            f"Of {levels.count} levels, the noise level must be one from {least} to {greatest}; "
            f"got {level}. Choose a noise level N below {levels.length}, or other steps."
        )


def _alpha_bar(levels: Levels, k: int) -> float:
    """alpha_bar of a level; before the first is no noise, after the last no signal."""
    if k < 0:
        return 1.0
    return levels.alpha_bar[k].item() if k < levels.count else 0.0


def _compose(x_0: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."""
    signal: float = alpha_bar**0.5
    noise: float = (1 - alpha_bar) ** 0.5
    return signal * x_0 + noise * eps
