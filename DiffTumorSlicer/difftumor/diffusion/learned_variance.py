"""The variational bound by which guided diffusion learns its variance.

Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021, section 3.1; the network
gives 2 C channels: the noise eps, then v in about [-1, 1], which interpolates the logarithm of the variance.
"""

import math

import torch
from torch import Tensor

from difftumor.diffusion.schedules import Schedule

HALF_BIN = 1 / 255  # of a gray value, if 256 of them fill [-1, 1]
OPEN_END = 0.999  # gray values beyond it own all of the tail
LEAST_PROBABILITY = 1e-12


def log_variances(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Least and greatest log variance of a step back, float32 (T,) each.

    The posterior variance, whose entry at t = 0 would be 0 and is taken from t = 1, and beta (eq. 15).
    """
    # Not from alphas_cumprod: 1 - alpha_bar has lost four digits to float32 at low noise.
    posterior = torch.cat([schedule.posterior_variance[1:2], schedule.posterior_variance[1:]])
    return posterior.log(), schedule.betas.log()


def log_variance(v: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Learned log variance, between that of the posterior (v = -1) and log beta (v = 1) (eq. 15).

    Args:
        v: second half of the network's output, (B, C, H, W).
        t: int64 (B,).

    Returns:
        shape of v.
    """
    least, greatest = (_at(table, t, v) for table in log_variances(schedule))
    fraction = (v + 1) / 2
    return fraction * greatest + (1 - fraction) * least


def posterior_mean(x_0: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7)."""
    first, second = schedule.posterior_mean_coef1, schedule.posterior_mean_coef2
    return _at(first, t, x_t) * x_0 + _at(second, t, x_t) * x_t


def variational_bound(
    output: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule
) -> Tensor:
    """Term of the variational bound at timestep t; only the variance learns from it (L_hybrid, eq. 16).

    t > 0: KL(q(x_{t-1} | x_t, x_0) || N(mu, learned variance)), t = 0: -log p(x_0 | x_1), of a discretized
    Gaussian. mu follows from the predicted noise, unclipped and detached.

    Args:
        output: of the network, (B, 2 C, H, W): eps, v.
        x_0: clean images (B, C, H, W).
        x_t: noised images, same shape.
        t: int64 (B,).
        schedule: of the training.

    Returns:
        (B,), bits per pixel and channel.
    """
    eps, v = output.float().chunk(2, dim=1)
    eps = eps.detach()
    x_0, x_t = x_0.float(), x_t.float()
    predicted = (
        _at(schedule.sqrt_recip_alphas_cumprod, t, x_t) * x_t
        - _at(schedule.sqrt_recipm1_alphas_cumprod, t, x_t) * eps
    )
    mean = posterior_mean(predicted, x_t, t, schedule)
    learned = log_variance(v, t, schedule)
    true_mean = posterior_mean(x_0, x_t, t, schedule)
    true = _at(log_variances(schedule)[0], t, x_t)
    divergence = 0.5 * (
        -1 + learned - true + (true - learned).exp() + (true_mean - mean) ** 2 * (-learned).exp()
    )
    first = t.view(-1, *(1,) * (x_0.ndim - 1)) == 0
    bound = torch.where(first, -log_likelihood(x_0, mean, 0.5 * learned), divergence)
    return bound.flatten(1).mean(dim=1) / math.log(2)


def log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of gray values x in [-1, 1] under a Gaussian cut into 256 bins.

    The normal distribution function is approximated by a tanh, as published.
    """
    centered, inverse = x - mean, (-log_scale).exp()
    above = _normal_cdf(inverse * (centered + HALF_BIN))
    below = _normal_cdf(inverse * (centered - HALF_BIN))
    probability = torch.where(
        x < -OPEN_END, above, torch.where(x > OPEN_END, 1 - below, above - below)
    )
    return probability.clamp(min=LEAST_PROBABILITY).log()


def _normal_cdf(z: Tensor) -> Tensor:
    """Approximate distribution function of the standard normal distribution."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """table[t] as (B, 1, ...) that broadcasts over `like`."""
    return table.to(like.device)[t].view(-1, *(1,) * (like.ndim - 1))
