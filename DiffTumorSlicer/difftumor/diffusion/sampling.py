"""Samplers of latent diffusion models: pure functions of one denoiser `denoise(x_t, t) -> eps`.

`denoise` takes x_t (B, C, ...) and t int64 (B,); the conditioning is bound in it (see
`networks.fast_unet.denoiser`).  `callback(done, total)` is called after each step and may raise
`Cancelled`, which passes through.  Samplers give no gradients.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from difftumor.diffusion.schedules import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, int], None]
Noise = Sequence[Tensor] | Callable[[int], Tensor]


def normalize_latent(z: Tensor, low: float, high: float) -> Tensor:
    """Map the range [low, high] of the codebook to [-1, 1].  Latents may lie outside of it."""
    return 2 * (z - low) / (high - low) - 1


def denormalize_latent(z: Tensor, low: float, high: float) -> Tensor:
    """Inverse of `normalize_latent`."""
    return (z + 1) / 2 * (high - low) + low


def predict_x_0(x_t: Tensor, eps: Tensor, t: int, schedule: Schedule) -> Tensor:
    """x_0 = x_t / sqrt(alpha_bar_t) - sqrt(1 / alpha_bar_t - 1) eps (Ho et al. 2020, eq. 15)."""
    return (
        schedule.sqrt_recip_alphas_cumprod[t].item() * x_t
        - schedule.sqrt_recipm1_alphas_cumprod[t].item() * eps
    )


@torch.no_grad()
def sample_ddpm(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling through all steps (Ho et al. 2020, algorithm 2), x_0 clamped to [-1, 1].

    x_{t-1} = coef1 clamp(x_0) + coef2 x_t + sqrt(posterior variance) noise   (eqs. 7 and 15)

    Args:
        denoise: (x_t, t) -> eps.
        x_T: standard normal (B, C, ...).
        schedule: its length is the number of steps.
        noise: noise[i] or noise(i) is the standard normal tensor, shape of x_T, added in step i =
            0...T-2 (t = T-1...1).  None is added in the last step; further entries are ignored.
        callback: called as callback(done, total) after each step.

    Returns:
        x_0, shape and dtype of x_T.

    Raises:
        ValueError: if there is too little noise.
        Cancelled: from the callback.
    """
    length = schedule.length
    if not callable(noise) and len(noise) < length - 1:
        raise ValueError(
            f"Ancestral sampling in {length} steps needs {length - 1} noise tensors; "
            f"got {len(noise)}."
        )
    draw = noise if callable(noise) else noise.__getitem__
    x_t = x_T
    for step, t in enumerate(range(length - 1, -1, -1)):
        eps = denoise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        x_0 = predict_x_0(x_t, eps, t, schedule).clamp(-1, 1)
        x_t = (
            schedule.posterior_mean_coef1[t].item() * x_0
            + schedule.posterior_mean_coef2[t].item() * x_t
        )
        if t > 0:
            deviation = (0.5 * schedule.posterior_log_variance_clipped[t]).exp().item()
            x_t = x_t + deviation * draw(step).to(x_t)
        if callback is not None:
            callback(step + 1, length)
    return x_t


def ddim_timesteps(length: int, steps: int) -> list[int]:
    """Timesteps of `sample_ddim`, ascending.

    Where `steps` divides `length` these are the reference's: 1 + {0, c, 2c, ...} with
    c = length / steps, and simply 0...length-1 for c = 1.
    Differs from the reference code: it takes c = length // steps and hence more steps than it was
    asked for whenever there is a remainder (60 of 200 become 67), or fails for steps > length.  Here
    the number is exact and the distances differ by at most 1.

    Args:
        length: of the schedule.
        steps: number of network evaluations, 1 <= steps <= length.

    Raises:
        ValueError: if steps is out of range.
    """
    if not 1 <= steps <= length:
        raise ValueError(
            f"The number of sampling steps lies between 1 and the {length} steps that the model "
            f"was trained with; got {steps}."
        )
    # The last one is below length: floor((steps-1) length / steps) <= length - 2 if steps < length.
    offset = 1 if steps < length else 0
    return [i * length // steps + offset for i in range(steps)]


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sampling on a subset of the timesteps (Song et al., "DDIM", ICLR 2021, eq. 12).

    Differs from `sample_ddpm` in that x_0 is not clamped, as in the reference.

    Args:
        denoise: (x_t, t) -> eps.
        x_T: standard normal (B, C, ...).
        schedule: of the training.
        steps: number of network evaluations; see `ddim_timesteps`.
        eta: 0 is deterministic, 1 has the variance of ancestral sampling.
        noise: as in `sample_ddpm`, one tensor for each step; only used if eta > 0.
        callback: called as callback(done, total) after each step.

    Returns:
        the sample, shape and dtype of x_T.  It belongs to alpha_bar_0, not to 1: the noise of the very first
        diffusion step remains, as in the reference.

    Raises:
        ValueError: if steps or eta is out of range or noise is missing.
        Cancelled: from the callback.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta lies between 0 and 1; got {eta}.")
    if eta > 0 and noise is None:
        raise ValueError("Sampling with eta > 0 is random: give one noise tensor for each step.")
    timesteps = ddim_timesteps(schedule.length, steps)
    x_t = x_T
    for step, t in enumerate(reversed(timesteps)):
        index = len(timesteps) - 1 - step
        # Below the lowest timestep comes t = 0, whatever that timestep is.
        t_previous = timesteps[index - 1] if index > 0 else 0
        eps = denoise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        x_0, direction, sigma = ddim_step(x_t, eps, t, t_previous, schedule, eta=eta)
        x_t = schedule.sqrt_alphas_cumprod[t_previous].item() * x_0 + direction
        if eta > 0 and noise is not None:
            x_t = x_t + sigma * (noise(step) if callable(noise) else noise[step]).to(x_t)
        if callback is not None:
            callback(step + 1, len(timesteps))
    return x_t


def ddim_step(
    x_t: Tensor, eps: Tensor, t: int, t_previous: int, schedule: Schedule, *, eta: float = 0.0
) -> tuple[Tensor, Tensor, float]:
    """The three terms of one DDIM step (Song et al. 2021, eqs. 12 and 16).

    x_{t_previous} = sqrt(alpha_bar_previous) x_0 + direction + sigma noise

    Returns:
        x_0 and direction, both of the shape of x_t, and sigma.
    """
    alpha_bar = schedule.alphas_cumprod[t].double()
    alpha_bar_previous = schedule.alphas_cumprod[t_previous].double()
    variance = (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous)
    sigma = eta * variance.clamp(min=0).sqrt().item()
    direction = (1 - alpha_bar_previous - sigma**2).clamp(min=0).sqrt().item() * eps
    return predict_x_0(x_t, eps, t, schedule), direction, sigma
