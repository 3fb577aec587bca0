"""Noise schedules of discrete diffusion models.

Notation of Ho et al., "Denoising diffusion probabilistic models", NeurIPS 2020, with t = 0...T-1:
x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, alpha_bar_t = prod_{s <= t} (1 - beta_s).
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

COSINE_OFFSET = 0.008
MAX_BETA = 0.9999  # DiffTumor's
GUIDED_MAX_BETA = 0.999  # guided diffusion's, as in the paper
LINEAR_BETAS = (1e-4, 2e-2)  # first and last beta of 1000 steps


def cosine_betas(length: int, max_beta: float = MAX_BETA) -> Tensor:
    """Cosine schedule (Nichol and Dhariwal, "Improved DDPM", ICML 2021, eq. 17).

    Args:
        length: number of diffusion steps T, at least 1.
        max_beta: largest beta.

    Returns:
        betas, float64 (T,), increasing, at most `max_beta`.

    Raises:
        ValueError: if length < 1.

    Examples:
        >>> [round(beta, 4) for beta in cosine_betas(4).tolist()]  # T = 4 of DiffTumor's early models
        [0.153, 0.417, 0.7079, 0.9999]
    """
    if length < 1:
        raise ValueError(f"A schedule has at least 1 step; got length={length}.")
    # NumPy, not torch: the published buffers are bit for bit those of its cosine.
    i = np.linspace(0, length, length + 1, dtype=np.float64)
    alpha_bar = np.cos(((i / length) + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi * 0.5) ** 2
    alpha_bar = alpha_bar / alpha_bar[0]
    return torch.from_numpy(np.clip(1 - alpha_bar[1:] / alpha_bar[:-1], 0, max_beta))


def linear_betas(length: int) -> Tensor:
    """Linear schedule (Ho et al. 2020, section 4), scaled so that any length ends at the same noise.

    Args:
        length: number of diffusion steps T, at least 21 (each beta must stay below 1).

    Returns:
        betas, float64 (T,), from 1e-4 to 2e-2 for T = 1000.

    Raises:
        ValueError: if length is too small.

    Examples:
        >>> [round(beta, 6) for beta in linear_betas(1000)[[0, -1]].tolist()]
        [0.0001, 0.02]
        >>> [round(beta, 6) for beta in linear_betas(100)[[0, -1]].tolist()]
        [0.001, 0.2]
    """
    if length < 21:
        raise ValueError(f"A linear schedule has at least 21 steps; got length={length}.")
    first, last = (beta * 1000 / length for beta in LINEAR_BETAS)
    # NumPy, not torch, whose linspace differs in the last bit from the published tables.
    return torch.from_numpy(np.linspace(first, last, length, dtype=np.float64))


def guided_betas(name: str, length: int) -> Tensor:
    """Schedule of a guided-diffusion network, by the name on its card: "linear" or "cosine".

    Returns:
        betas, float64 (T,).

    Raises:
        ValueError: another name, or a length that the schedule cannot have.
    """
    if name == "cosine":
        return cosine_betas(length, GUIDED_MAX_BETA)
    if name == "linear":
        return linear_betas(length)
    raise ValueError(f"A noise schedule is linear or cosine; got {name!r}.")


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels that a sampler visits: 0 is the image itself, K - 1 the most noise.

    Attributes:
        timesteps: the original timestep of each level, ascending from 0; networks are called with these.
        alpha_bar: of each level, float64 (K,).
        length: T of the whole schedule.
    """

    timesteps: tuple[int, ...]
    alpha_bar: Tensor
    length: int

    @property
    def count(self) -> int:
        """Number of levels K."""
        return len(self.timesteps)

    def level_of(self, noise_level: int) -> int:
        """Level L nearest to a noise level N in original steps: L = N K / T, 1 <= L <= K - 1.

        Raises:
            ValueError: N is below 1 or not below T.

        Examples:
            >>> levels = respace(linear_betas(1000), 100)
            >>> levels.level_of(250), levels.level_of(1), levels.level_of(999)
            (25, 1, 99)
        """
        if not 1 <= noise_level < self.length:
            raise ValueError(
                f"The noise level lies between 1 and {self.length - 1} diffusion steps; "
                f"got {noise_level}."
            )
        return min(max(round(noise_level * self.count / self.length), 1), self.count - 1)


def respace(betas: Tensor, steps: int) -> Levels:
    """Keep `steps` levels of a schedule, evenly spaced from timestep 0 on.

    Differs from the published code, which only knows spacings by a whole stride (50 of 1000, but not 300):
    where steps divides T the levels are the same, elsewhere their distances differ by at most 1.

    Args:
        betas: float64 (T,).
        steps: number of levels K, 2 <= K <= T.

    Raises:
        ValueError: steps is out of range.

    Examples:
        >>> respace(linear_betas(1000), 4).timesteps
        (0, 250, 500, 750)
        >>> respace(linear_betas(1000), 3).timesteps
        (0, 333, 666)
    """
    length = len(betas)
    if not 2 <= steps <= length:
        raise ValueError(
            f"The number of levels lies between 2 and the {length} steps that the model was trained "
            f"with; got {steps}."
        )
    timesteps = tuple(i * length // steps for i in range(steps))
    alpha_bar = torch.from_numpy(np.cumprod(1 - betas.double().numpy()))
    return Levels(timesteps, alpha_bar[list(timesteps)], length)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Coefficients of a schedule: float32 tensors (T,), computed in float64 and rounded once.

    They are named as the buffers of the published files.
    """

    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    log_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor

    @classmethod
    def from_betas(cls, betas: Tensor) -> "Schedule":
        """Schedule of given betas.

        Published files keep the betas in float32, where 1 - 0.9999 has lost three digits.  Betas
        that are the rounded cosine schedule are therefore replaced by the exact ones.

        Args:
            betas: float32 or float64 (T,), each in [0, 1).

        Raises:
            ValueError: if betas is empty, not one-dimensional, or out of range.
        """
        if betas.ndim != 1 or len(betas) == 0:
            raise ValueError(f"Betas are a vector of at least 1 number; got {tuple(betas.shape)}.")
        if not bool(((betas >= 0) & (betas < 1)).all()):
            raise ValueError(
                "Each beta lies in [0, 1); got values from "
                f"{betas.min().item():.6g} to {betas.max().item():.6g}. Is this a noise schedule?"
            )
        exact = cosine_betas(len(betas))
        is_cosine = torch.equal(exact.float(), betas.detach().cpu().float())
        beta = exact if is_cosine else betas.detach().cpu().double()
        alpha_bar = torch.from_numpy(np.cumprod(1 - beta.numpy()))
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        variance = beta * (1 - previous) / (1 - alpha_bar)
        float64 = cls(
            betas=beta,
            alphas_cumprod=alpha_bar,
            alphas_cumprod_prev=previous,
            sqrt_alphas_cumprod=alpha_bar.sqrt(),
            sqrt_one_minus_alphas_cumprod=(1 - alpha_bar).sqrt(),
            log_one_minus_alphas_cumprod=(1 - alpha_bar).log(),
            sqrt_recip_alphas_cumprod=(1 / alpha_bar).sqrt(),
            sqrt_recipm1_alphas_cumprod=(1 / alpha_bar - 1).sqrt(),
            posterior_variance=variance,
            # The variance of the last step back, t = 0, is 0: its logarithm is never used.
            posterior_log_variance_clipped=variance.clamp(min=1e-20).log(),
            posterior_mean_coef1=beta * previous.sqrt() / (1 - alpha_bar),
            posterior_mean_coef2=(1 - previous) * (1 - beta).sqrt() / (1 - alpha_bar),
        )
        return float64.to(dtype=torch.float32)

    @property
    def length(self) -> int:
        """Number of diffusion steps T."""
        return len(self.betas)

    def to(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Schedule":
        """The same schedule on another device or in another precision."""
        return Schedule(
            *(getattr(self, field.name).to(device=device, dtype=dtype) for field in fields(self))
        )

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noised image x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise.

        Args:
            x_0: (B, ...).
            t: int64 (B,), 0 <= t < length.
            noise: standard normal, shape of x_0.

        Returns:
            x_t, shape and dtype of x_0.

        Example: alpha_bar = 0.64 keeps 0.8 of the image and adds 0.6 of the noise.
            >>> schedule = Schedule.from_betas(torch.tensor([0.36, 0.5], dtype=torch.float64))
            >>> image, noise = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
            >>> [round(x, 4) for x in schedule.q_sample(image, torch.tensor([0]), noise)[0].tolist()]
            [0.8, 0.6]
        """
        shape = (-1,) + (1,) * (x_0.ndim - 1)
        signal, sigma = (
            table.to(x_0)[t].view(shape)
            for table in (self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod)
        )
        return signal * x_0 + sigma * noise
