"""Stage 1: the autoencoder, `python -m training.synthesis.autoencoder paper|demo|tiny`.

G = l1 L1 + commitment + perceptual LPIPS on three slices + d (adversarial + features), D = hinge of the two
discriminators (Chen et al. 2024, section 3.1; the weights are those of the published code).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.networks.vqgan import VQGAN
from difftumor.networks.vqgan_layers import ResBlock
from training.data.scans import Case, cases_of, draw_reconstruction_crop, random_generator
from training.loop.config import Stage, read_command_line
from training.loop.loop import run_program
from training.loop.steps import shares, update
from training.synthesis import codebook
from training.synthesis.config import AutoencoderConfig
from training.synthesis.discriminators import Discriminators
from training.synthesis.perceptual import PerceptualLoss, load_perceptual_loss
from training.synthesis.presets import AUTOENCODER_PRESETS

CROPS, NOISE, SLICES, RESTARTS, PICTURE = range(5)
# Latents from which the first codes are drawn: this many per code, if that takes no more than MOST_CROPS.
VECTORS_PER_CODE = 2
MOST_CROPS = 256

logger = logging.getLogger(__name__)


class Reconstruction(nn.Module):
    """One pass of the autoencoder, as a module so that gradients are averaged over processes."""

    def __init__(self, vqgan: VQGAN) -> None:
        super().__init__()
        self.vqgan = vqgan

    def forward(
        self, x: Tensor, noise: Tensor | None, full_depth: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct crops.

        Args:
            x: (B, 1, Z, X, Y) in [-1, 1].
            noise: added to the latent instead of quantising it; None quantizes.
            full_depth: whether the decoder's residual blocks at full resolution take part.

        Returns:
            reconstruction (B, 1, Z, X, Y); latent (B, dim, Z/4, X/4, Y/4); indices of the codes, int64 (B, Z/4,
            X/4, Y/4), empty without quantizer.
        """
        z = self.vqgan.encode(x)
        if noise is not None:
            return self._decode(z + noise, full_depth), z, torch.empty(0, dtype=torch.int64)
        # Distances in bfloat16 would choose wrong codes.
        with torch.autocast(x.device.type, enabled=False):
            z = z.float()
            indices, codes = self.vqgan.quantize(z)
        return self._decode(z + (codes - z).detach(), full_depth), z, indices

    def _decode(self, z: Tensor, full_depth: bool) -> Tensor:
        """The decoder, all of it or without `late_blocks`."""
        if full_depth:
            return self.vqgan.decode(z, quantize=False)
        x = self.vqgan.post_vq_conv(z)
        left_out = late_blocks(self.vqgan)
        for stage in self.vqgan.decoder.stages():
            x = x if stage in left_out else stage(x)
        return x


def late_blocks(vqgan: VQGAN) -> list[ResBlock]:
    """The decoder's residual blocks at full resolution."""
    last: Any = vqgan.decoder.conv_blocks[-1]
    return [last.res1, last.res2]


class AutoencoderTraining:
    """The Program of stage 1 (see training.loop.loop)."""

    averaged = "vqgan"

    def __init__(self, fabric: Fabric, config: AutoencoderConfig, cases: list[Case]) -> None:
        self.fabric, self.config, self.cases = fabric, config, cases
        size, adam = config.network, config.optimizer
        self.vqgan = VQGAN(size.hidden, size.embedding_dim, size.codes, size.groups)
        # Counts of zero mean "not set yet"; they are saved, so a resumed run keeps its codes.
        self.vqgan.codebook.N.zero_()
        if config.full_depth_from:
            for block in late_blocks(self.vqgan):
                for parameter in block.conv2.conv.parameters():  # weight and bias
                    nn.init.zeros_(parameter)
        parameters = list(self.vqgan.parameters())
        betas = (adam.beta1, adam.beta2)
        generator = torch.optim.Adam(parameters, adam.lr, betas=betas)
        self.reconstruct, self.optimizer = fabric.setup(Reconstruction(self.vqgan), generator)
        self.modules: dict[str, nn.Module] = {"vqgan": self.vqgan}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"vqgan": self.optimizer}
        self.discriminators: Discriminators | None = None
        if config.losses.adversarial or config.losses.features:
            self.discriminators = Discriminators()
            judge = torch.optim.Adam(self.discriminators.parameters(), adam.lr, betas=betas)
            self.judge, self.judge_optimizer = fabric.setup(self.discriminators, judge)
            self.modules["discriminators"] = self.discriminators
            self.optimizers["discriminators"] = self.judge_optimizer
        self.perceptual = self._perceptual()

    def _perceptual(self) -> PerceptualLoss | None:
        """The perceptual loss, if it is wanted and the user has given its weights."""
        losses = self.config.losses
        if not losses.perceptual:
            return None
        if losses.perceptual_weights is None:
            logger.warning(
                "This run trains WITHOUT the perceptual term: no --losses.perceptual-weights was given."
            )
            return None
        return load_perceptual_loss(losses.perceptual_weights).to(self.fabric.device)

    def crops(self, step: int, count: int, edge: int, purpose: int = CROPS) -> Tensor:
        """Draw this process's crops (count, 1, Z, X, Y) of a step."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, purpose)
        crops = [
            draw_reconstruction_crop(rng, self.cases, edge, self.config.data) for _ in range(count)
        ]
        return torch.from_numpy(np.stack(crops)[:, None]).to(self.fabric.device)

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:
        """One step of the autoencoder, its codebook and the discriminators."""
        config = self.config
        quantized = seen >= config.codebook.start
        self.vqgan.train()
        if quantized and not bool(self.vqgan.codebook.N.any()):
            self._initialize_codebook(step, stage)
        full_depth = seen >= config.full_depth_from
        judged = self.discriminators is not None and seen >= config.losses.discriminator_start
        rng = random_generator(config.seed, self.fabric.global_rank, step, NOISE)
        rounds = shares(self.fabric, stage.batch, config.hardware.microbatch)
        everything = self.crops(step, sum(rounds), stage.edge)
        facts: dict[str, Tensor | float] = {}
        latents, codes, outputs = [], [], []
        for number, x in enumerate(everything.split(rounds)):
            noise = None if quantized else self._latent_noise(rng, x)
            with self.fabric.no_backward_sync(self.reconstruct, enabled=number < len(rounds) - 1):
                output, z, indices = self.reconstruct(x, noise, full_depth)
                loss, parts = self._loss(x, output, z, indices, judged, step)
                share = len(x) / sum(rounds)
                self.fabric.backward(loss * share)
            for name, value in (parts | {"loss": loss.detach()}).items():
                facts[name] = facts.get(name, 0.0) + value * share
            latents.append(z.detach())
            codes.append(indices)
            outputs.append(output.detach())
        facts["gradient"] = 0.0
        facts |= update(self.fabric, self.reconstruct, self.optimizer, config.optimizer.clip)
        if quantized:
            z, indices = torch.cat(latents), torch.cat(codes)
            facts["perplexity"] = codebook.perplexity(indices, config.network.codes)
            facts["restarted"] = self._update_codebook(z, indices, step)
        if judged:
            facts["hinge"] = self._discriminator_step(everything, torch.cat(outputs), step)
        return facts

    def _loss(
        self, x: Tensor, output: Tensor, z: Tensor, indices: Tensor, judged: bool, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Everything the autoencoder minimizes, and the terms for the report."""
        weights, settings = self.config.losses, self.config.codebook
        parts = {
            "l1": (output - x).abs().mean(),
            "mse": (output - x).square().mean(),
            "latent": z.float().square().mean(),
        }
        loss = weights.l1 * parts["l1"] + weights.mse * parts["mse"]
        if len(indices):
            parts["commitment"] = codebook.commitment_loss(z, self.vqgan.codebook.lookup(indices))
            loss = loss + settings.commitment * parts["commitment"]
        else:
            loss = loss + settings.shrink * parts["latent"]
        if self.perceptual is not None:
            parts["perceptual"] = self._perceptual_term(x, output, step)
            loss = loss + weights.perceptual * parts["perceptual"]
        if judged and self.discriminators is not None:
            self.discriminators.requires_grad_(False)
            with self.fabric.autocast():
                adversarial, features = self.discriminators.generator_terms(
                    x, output, self._slices(x, step)[0]
                )
            self.discriminators.requires_grad_(True)
            parts |= {"adversarial": adversarial, "features": features}
            loss = loss + weights.adversarial * adversarial + weights.features * features
        return loss, {name: value.detach() for name, value in parts.items()}

    def _slices(self, x: Tensor, step: int) -> list[Tensor]:
        """Random slice numbers along Z, X and Y, one per crop: three int64 (B,)."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, SLICES)
        return [
            torch.from_numpy(rng.integers(size, size=len(x))).to(x.device) for size in x.shape[2:]
        ]

    def _perceptual_term(self, x: Tensor, output: Tensor, step: int) -> Tensor:
        """LPIPS on one slice along each axis, added up."""
        total = x.new_zeros(())
        batch = torch.arange(len(x), device=x.device)
        with self.fabric.autocast():
            for axis, numbers in enumerate(self._slices(x, step), start=2):
                pair = [volume.movedim(axis, 1)[batch, numbers] for volume in (x, output)]
                total = total + self.perceptual(*pair)  # type: ignore[misc]
        return total

    def _latent_noise(self, rng: np.random.Generator, x: Tensor) -> Tensor:
        """Noise in the latent's shape that stands in for the quantizer before it starts."""
        shape = (len(x), self.config.network.embedding_dim, *(size // 4 for size in x.shape[2:]))
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(
            self.config.codebook.noise
        )
        return torch.from_numpy(noise).to(x.device)

    def _no_noise(self, x: Tensor) -> Tensor | None:
        """What `Reconstruction` takes to do what inference does; before the codes exist, no quantizer."""
        if bool(self.vqgan.codebook.N.any()):
            return None
        return x.new_zeros(
            (len(x), self.config.network.embedding_dim, *(size // 4 for size in x.shape[2:]))
        )

    def _discriminator_step(self, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """Hinge loss of both discriminators and one step of their optimizer."""
        hinge = self.judge(real, fake, self._slices(real, step)[0])
        self.fabric.backward(hinge)
        update(self.fabric, self.judge, self.judge_optimizer, self.config.optimizer.clip)
        return hinge.detach()

    @torch.no_grad()
    def _initialize_codebook(self, step: int, stage: Stage) -> None:
        """Draw the first codes from latents of further crops; every process ends with the same."""
        wanted = VECTORS_PER_CODE * self.config.network.codes
        vectors: list[Tensor] = []
        for number in range(MOST_CROPS):
            if sum(map(len, vectors)) >= wanted:
                break
            x = self.crops(step, 1, stage.edge, purpose=100 + number)
            with self.fabric.autocast():
                z = self.vqgan.encode(x)
            vectors.append(z.float().movedim(1, -1).reshape(-1, z.shape[1]))
        rng = random_generator(self.config.seed, 0, step, RESTARTS)
        codebook.initialize(self.vqgan.codebook, torch.cat(vectors), rng)
        for buffer in self.vqgan.codebook.buffers():
            buffer.copy_(self.fabric.broadcast(buffer))
        logger.info("codebook set from %d latents", sum(map(len, vectors)))

    def _update_codebook(self, z: Tensor, indices: Tensor, step: int) -> float:
        """Moving averages over all processes; returns how many codes were restarted."""
        settings = self.config.codebook
        return float(
            codebook.update(
                self.vqgan.codebook,
                z,
                indices,
                decay=settings.decay,
                restart_below=settings.restart_below,
                limit=settings.limit,
                rng=random_generator(self.config.seed, 0, step, RESTARTS),
                reduce=self._sum_of_processes,
                broadcast=self.fabric.broadcast,
            )
        )

    def _sum_of_processes(self, tensor: Tensor) -> Tensor:
        summed: Any = self.fabric.all_reduce(tensor, reduce_op="sum")
        return summed

    @torch.no_grad()
    def picture(self) -> NDArray[np.float32]:
        """Two fixed crops: above the input, below its reconstruction; axial, then coronal."""
        edge = self.config.stages[-1][1]
        x = self.crops(0, 2, edge, PICTURE)
        output = self.reconstruct(x, self._no_noise(x))[0]
        rows = []
        for volume in (x, output.float()):
            views = [
                view
                for crop in volume[:, 0].cpu().numpy()
                for view in (crop[edge // 2].T, crop[::-1, :, edge // 2])
            ]
            rows.append(np.concatenate(views, axis=1))
        return np.asarray((np.concatenate(rows) + 1) / 2, np.float32)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        AUTOENCODER_PRESETS, "python -m training.synthesis.autoencoder", args
    )
    return run_program(config, AutoencoderTraining, cases_of)


if __name__ == "__main__":
    raise SystemExit(main())
