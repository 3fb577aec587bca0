"""Stage 2: the latent diffusion model, `python -m training.synthesis.latent_diffusion paper|paper200|demo|tiny`.

The denoiser learns eps of x_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, given the latent of the scan without the
tumor's voxels and the tumor mask; the loss is L1 (Chen et al. 2024, section 3.2 and eq. 6; Ho et al. 2020).
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.diffusion.sampling import denormalize_latent, sample_ddim, sample_ddpm
from difftumor.diffusion.schedules import Schedule, cosine_betas
from difftumor.networks.latent_unet import LatentUNet
from difftumor.networks.vqgan import VQGAN
from training.data.scans import Case, cases_of, draw_tumor_crop, random_generator
from training.loop.config import Stage, read_command_line
from training.loop.loop import run_program
from training.loop.steps import passes, shares, update
from training.synthesis.config import DiffusionConfig
from training.synthesis.latents import LatentPool, Pair, encode_pair, load_autoencoder
from training.synthesis.presets import DIFFUSION_PRESETS

CROPS, NOISE, PICTURE = range(3)
# Schedules of at most this many steps are sampled one by one for the picture, longer ones with DDIM.
ANCESTRAL_UP_TO = 10
PICTURE_DDIM_STEPS = 20

logger = logging.getLogger(__name__)


def diffusion_loss(
    eps: Tensor, noise: Tensor, mask: Tensor | None = None, mask_weight: float = 0.0
) -> Tensor:
    """Mean absolute difference between true and predicted noise.

    Args:
        eps: predicted noise (B, C, Z, X, Y).
        noise: true noise, same shape.
        mask: (B, 1, Z, X, Y), -1 outside and 1 inside the tumor.
        mask_weight: extra weight inside; the weights are normalized to mean 1.
    """
    difference = (eps - noise).abs()
    if not mask_weight or mask is None:
        return difference.mean()
    weight = 1 + mask_weight * (mask > 0).to(difference)
    return (difference * weight).mean() / weight.mean()


class DiffusionTraining:
    """The Program of stage 2 (see training.loop.loop)."""

    averaged = "denoise_fn"

    def __init__(self, fabric: Fabric, config: DiffusionConfig, cases: list[Case]) -> None:
        self.fabric, self.config, self.cases = fabric, config, cases
        self.vqgan: VQGAN = load_autoencoder(config.autoencoder).to(fabric.device)
        self.schedule = Schedule.from_betas(cosine_betas(config.network.steps)).to(
            device=fabric.device
        )
        channels = self.vqgan.codebook.embeddings.shape[1]
        size, adam = config.network, config.optimizer
        self.denoiser = LatentUNet(size.dim, size.dim_mults, 2 * channels + 1, channels)
        optimizer = torch.optim.Adam(
            self.denoiser.parameters(), adam.lr, betas=(adam.beta1, adam.beta2)
        )
        self.denoise, self.optimizer = fabric.setup(self.denoiser, optimizer)
        self.modules: dict[str, nn.Module] = {"denoise_fn": self.denoiser}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"denoise_fn": self.optimizer}
        self.pool: LatentPool | None = None
        if config.pool:
            self.pool = LatentPool.prepare(config, fabric, self.vqgan, cases)

    def pairs(self, step: int, count: int, edge: int, purpose: int = CROPS) -> Pair:
        """Draw this process's latents of a step: target, condition with the mask channel."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, purpose)
        if self.pool is not None:
            drawn = [self.pool.draw(rng, edge // 4) for _ in range(count)]
            return Pair(
                *(torch.stack(parts).to(self.fabric.device) for parts in zip(*drawn, strict=True))
            )
        crops = [draw_tumor_crop(rng, self.cases, edge, self.config.data) for _ in range(count)]
        ct, mask = (
            torch.from_numpy(np.stack(arrays)[:, None]).to(self.fabric.device)
            for arrays in zip(*crops, strict=True)
        )
        return encode_pair(self.vqgan, ct, mask)

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:
        """One step of the denoiser."""
        self.denoiser.train()
        rounds = shares(self.fabric, stage.batch, self.config.hardware.microbatch)
        target, condition = self.pairs(step, sum(rounds), stage.edge)
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, NOISE)
        times = torch.from_numpy(rng.integers(self.schedule.length, size=len(target)))
        noise = torch.from_numpy(rng.standard_normal(tuple(target.shape), dtype=np.float32))
        share_own = self.config.own_states if seen >= self.config.own_states_from else 0.0
        facts: dict[str, Tensor | float] = {}
        for part, share, more in passes(rounds):
            t, eps = times[part].to(target.device), noise[part].to(target.device)
            x_t = self.schedule.q_sample(target[part], t, eps)
            if share_own:
                x_t, eps = self._own_states(
                    rng, target[part], condition[part], t, x_t, eps, share_own
                )
            with self.fabric.no_backward_sync(self.denoise, enabled=more):
                predicted = self.denoise(torch.cat([x_t, condition[part]], dim=1), t)
                mask = condition[part, -1:]
                loss = diffusion_loss(predicted, eps, mask, self.config.mask_weight)
                self.fabric.backward(loss * share)
            facts["loss"] = facts.get("loss", 0.0) + loss.detach() * share
        return facts | update(self.fabric, self.denoise, self.optimizer, self.config.optimizer.clip)

    @torch.no_grad()
    def _own_states(
        self,
        rng: np.random.Generator,
        target: Tensor,
        condition: Tensor,
        t: Tensor,
        x_t: Tensor,
        eps: Tensor,
        share: float,
    ) -> tuple[Tensor, Tensor]:
        """Replace a share of (x_t, eps) by what the sampler's step from t + 1 gives.

        x_t = coef1 clamp(x_0_hat) + coef2 x_{t+1} + sigma noise, and the eps that leads from it to the true
        z_0.  Below, `before` is t + 1; the last t has none before it.
        """
        schedule, shape = self.schedule, tuple(target.shape)
        chosen = torch.from_numpy(rng.random(len(t)) < share).to(t.device)
        chosen &= t < schedule.length - 1
        drawn = [
            torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(target.device)
            for _ in range(2)
        ]
        if not bool(chosen.any()):
            return x_t, eps
        z, cond, before = target[chosen], condition[chosen], t[chosen] + 1
        x_before = schedule.q_sample(z, before, drawn[0][chosen])
        predicted = self.denoiser(torch.cat([x_before, cond], dim=1), before).float()

        def at(table: Tensor, times: Tensor) -> Tensor:
            return table[times].view(-1, 1, 1, 1, 1)

        x_0 = at(schedule.sqrt_recip_alphas_cumprod, before) * x_before
        x_0 = x_0 - at(schedule.sqrt_recipm1_alphas_cumprod, before) * predicted
        deviation = (0.5 * at(schedule.posterior_log_variance_clipped, before)).exp()
        own = at(schedule.posterior_mean_coef1, before) * x_0.clamp(-1, 1)
        own = own + at(schedule.posterior_mean_coef2, before) * x_before
        own = own + deviation * drawn[1][chosen]
        signal = at(schedule.sqrt_alphas_cumprod, t[chosen])
        sigma = at(schedule.sqrt_one_minus_alphas_cumprod, t[chosen])
        x_t, eps = x_t.clone(), eps.clone()
        x_t[chosen], eps[chosen] = own, (own - signal * z) / sigma
        return x_t, eps

    @torch.no_grad()
    def picture(self) -> NDArray[np.float32]:
        """Two fixed crops, axial and coronal: the scan, what the denoiser sees, what it makes."""
        edge = self.config.stages[-1][1]
        target, condition = self.pairs(0, 2, edge, PICTURE)
        rng = random_generator(self.config.seed, 0, 0, PICTURE)

        def draw(_step: int = 0) -> Tensor:
            noise = rng.standard_normal(tuple(target.shape), dtype=np.float32)
            return torch.from_numpy(noise).to(target.device)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return self.denoise(torch.cat([x_t, condition], dim=1), t)

        self.denoiser.eval()
        if self.schedule.length <= ANCESTRAL_UP_TO:
            made = sample_ddpm(denoise, draw(), self.schedule, noise=draw)
        else:
            made = sample_ddim(denoise, draw(), self.schedule, PICTURE_DDIM_STEPS)
        rows = []
        for latent in (target, condition[:, :-1], made):
            volume = self.vqgan.decode(denormalize_latent(latent, *self.vqgan.code_range()))
            views = [
                view
                for crop in volume[:, 0].float().cpu().numpy()
                for view in (crop[edge // 2].T, crop[::-1, :, edge // 2])
            ]
            rows.append(np.concatenate(views, axis=1))
        return np.asarray((np.concatenate(rows) + 1) / 2, np.float32)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        DIFFUSION_PRESETS, "python -m training.synthesis.latent_diffusion", args
    )
    return run_program(config, DiffusionTraining, cases_of)


if __name__ == "__main__":
    raise SystemExit(main())
