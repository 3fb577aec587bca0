"""What paints a tumor into one crop: DiffTumor's latent diffusion, or the modeling-based baseline."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difftumor.diffusion.sampling import (
    denormalize_latent,
    normalize_latent,
    sample_ddim,
    sample_ddpm,
)
from difftumor.diffusion.schedules import Schedule
from difftumor.networks.fast_unet import denoiser
from difftumor.networks.latent_unet import LatentUNet
from difftumor.networks.vqgan import VQGAN
from difftumor.parameters import MODELLED, SynthesisParameters
from difftumor.synthesis.blending import from_unit, to_unit
from difftumor.synthesis.modelled import modelled_change, sample_modelled_tumor
from difftumor.synthesis.synthesize import Callback, Generated, Generator
from difftumor.weights.checkpoints import read_checkpoint
from difftumor.weights.loading import cached, facts_of
from difftumor.weights.models import InstalledModel, ModelError

ANCESTRAL_UP_TO = (
    10  # schedules of at most this many steps are sampled one by one (published: T = 4)
)


@dataclass(frozen=True, eq=False)
class SynthesisNetworks:
    """The two networks of DiffTumor, their schedule and the scale of the latent.

    Attributes:
        vqgan: autoencoder; its codebook's extremes scale the latent to [-1, 1].
        unet: (B, 17, Z, X, Y), t -> eps (B, 8, Z, X, Y).
        schedule: T = 4 (early tumors) or T = 200 (medium and large).
    """

    vqgan: VQGAN
    unet: LatentUNet
    schedule: Schedule
    code_range: tuple[float, float]

    def to(self, device: torch.device) -> SynthesisNetworks:
        """The same networks on a device (moved, not copied)."""
        return replace(self, vqgan=self.vqgan.to(device), unet=self.unet.to(device))

    @torch.inference_mode()
    def condition(self, ct: Tensor, mask: Tensor) -> Tensor:
        """Latent of the scan without the tumor's voxels, and the mask (spec section 2.2).

        Args:
            ct: (B, 1, Z, X, Y) in [-1, 1].
            mask: (B, 1, Z, X, Y), 0 or 1.

        Returns:
            (B, 9, Z/4, X/4, Y/4): eight normalized latent channels and the mask in {-1, 1}.
        """
        # Masked voxels become 0 (37.5 HU), not the lowest value: so the networks were trained.
        latent = normalize_latent(self.vqgan.encode(ct * (1 - mask)), *self.code_range)
        small = functional.interpolate(2 * mask - 1, size=latent.shape[-3:], mode="nearest")
        return torch.cat([latent, small], dim=1)

    @torch.inference_mode()
    def sample(
        self, condition: Tensor, steps: int, draw: Callable[[], Tensor], callback: Any = None
    ) -> Tensor:
        """Draw the latent of the scan with a tumor.

        Args:
            condition: (B, 9, Z/4, X/4, Y/4) from `condition`.
            steps: DDIM steps of long schedules; short ones (T = 4) are sampled step by step.
            draw: standard normal noise (B, 8, Z/4, X/4, Y/4), first x_T, then one for each step.
            callback: called with done, total.

        Returns:
            (B, 8, Z/4, X/4, Y/4), normalized.
        """
        denoise = denoiser(self.unet, condition)
        if self.schedule.length <= ANCESTRAL_UP_TO:
            return sample_ddpm(
                denoise, draw(), self.schedule, noise=lambda _: draw(), callback=callback
            )
        steps = min(steps, self.schedule.length)
        return sample_ddim(denoise, draw(), self.schedule, steps, callback=callback)

    @torch.inference_mode()
    def decode(self, latent: Tensor, callback: Any = None) -> Tensor:
        """(B, 8, ...) normalized latent to (B, 1, Z, X, Y), nominally [-1, 1]."""
        return self.vqgan.decode(denormalize_latent(latent, *self.code_range), callback=callback)


class DiffusionGenerator:
    """DiffTumor's latent diffusion (Chen et al., CVPR 2024) on one crop."""

    def __init__(self, networks: SynthesisNetworks, device: torch.device, facts: dict[str, Any]):
        self.networks = networks
        self.device = device
        self.device_name = str(device)
        self.facts = facts

    def generate(
        self,
        hu: NDArray[np.float32],
        mask: NDArray[np.bool_],
        parameters: SynthesisParameters,
        seed: int,
        callback: Callback,
    ) -> Generated:
        """Paint a tumor; see `Generator`."""
        # The networks see Z first, then X and Y (spec section 0).
        ct = to_network(2 * to_unit(hu) - 1, self.device)
        tumor = to_network(mask.astype(np.float32), self.device)
        callback("encoding", 0, 1)
        condition = self.networks.condition(ct, tumor)
        shape = (1, 8, *condition.shape[2:])
        noise = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            # On the CPU in float32, whatever the device: the same seed is the same noise everywhere.
            return torch.randn(shape, generator=noise).to(condition)

        def report(stage: str) -> Any:
            return lambda done, total: callback(stage, done, total)

        latent = self.networks.sample(condition, parameters.steps, draw, report("sampling"))
        painted = self.networks.decode(latent, report("decoding"))
        reference = None
        if self._keeps_grain(parameters):
            # What the autoencoder cannot carry (the scan's own noise) stays: the tumor enters as the
            # difference of two decoded crops. Differs from DiffTumor, which takes the decoded crop.
            healthy = normalize_latent(self.networks.vqgan.encode(ct), *self.networks.code_range)
            reference = from_network(self.networks.decode(healthy, report("decoding the scan")))
        return Generated(from_network(painted), reference)

    def _keeps_grain(self, parameters: SynthesisParameters) -> bool:
        if parameters.blend == "paper":
            return False  # the published rule blends the decoded crop itself
        if parameters.grain == "auto":
            return bool(self.facts.get("keeps_grain", False))
        return parameters.grain == "scan"


class ModelledGenerator:
    """The modeling-based baseline of Hu et al. (2023): needs no weights."""

    device_name = "cpu"

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {
            "id": MODELLED,
            "title": "Modeling-based tumors (Hu et al. 2023)",
            "sha256": None,
        }

    def generate(
        self,
        hu: NDArray[np.float32],
        mask: NDArray[np.bool_],  # noqa: ARG002 (the texture needs no mask: the blend weighs it)
        parameters: SynthesisParameters,  # noqa: ARG002 (Hu et al. have none of them)
        seed: int,
        callback: Callback,
    ) -> Generated:
        """Change of one crop by texture and contrast; see `Generator`.

        The rim is the method's own: CT' = CT - texture Gaussian(mask, sigma) contrast (spec, appendix A).
        """
        callback("modelling", 0, 1)
        tumor = sample_modelled_tumor(np.random.default_rng(seed))
        change = modelled_change(hu.shape, tumor)
        callback("modelling", 1, 1)
        return Generated(change, np.zeros_like(change), tumor.edge_sigma)


def load_generator(
    model: str, device: str, cache: MutableMapping[str, Any], callback: Callback
) -> Generator:
    """Open a synthesis model, or take it from the cache.

    Args:
        model: id of the registry, model folder, published file, or 'modelled'.
        device: see `devices.resolve_device`.
        cache: kept between requests; holds one synthesis model at a time.

    Raises:
        ModelError: not installed, not a synthesis model, damaged.
        DeviceError: no such device.
    """
    if model == MODELLED:
        return ModelledGenerator()
    return cached("synthesis", [model], device, cache, callback, open_generator)[0]


def open_generator(installed: InstalledModel, device: torch.device) -> DiffusionGenerator:
    """Read the weights of a model and build its networks.  Raises: ModelError: not a synthesis model, damaged."""
    checkpoint = read_checkpoint(installed.path, expect="difftumor_diffusion")
    networks = networks_from(checkpoint.tensors, str(installed.path))
    facts = facts_of(installed, installed.card) | {
        "steps_T": networks.schedule.length,
        "keeps_grain": bool(installed.card.get("recommended", {}).get("keep_grain", False)),
    }
    return DiffusionGenerator(networks.to(device), device, facts)


def networks_from(tensors: dict[str, Tensor], source: str) -> SynthesisNetworks:
    """Build the networks from tensors named `vqgan.*`, `denoise_fn.*` and `betas`.

    Raises:
        ModelError: if a needed tensor is missing or has another shape.
    """
    parts = {
        prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        for prefix in ("vqgan.", "denoise_fn.")
    }
    if "betas" not in tensors or not all(parts.values()):
        raise ModelError(
            f"{source} is no synthesis model: it holds no "
            + ("noise schedule" if "betas" not in tensors else "complete pair of networks")
            + ". Choose a DiffTumor diffusion file (for example liver_early.pt) or a model folder."
        )
    with torch.device("meta"):
        vqgan, unet = VQGAN(), LatentUNet()
    # Running counts of the codebook serve training only.
    codes = parts["vqgan."].get("codebook.embeddings", torch.zeros(0, 8))
    parts["vqgan."] |= {"codebook.N": torch.ones(len(codes)), "codebook.z_avg": codes}
    for name, network in (("vqgan.", vqgan), ("denoise_fn.", unet)):
        wanted = network.state_dict()
        wrong = [
            k for k, v in wanted.items() if k not in parts[name] or parts[name][k].shape != v.shape
        ]
        if wrong:
            raise ModelError(
                f"{source} does not fit the published architecture: {len(wrong)} tensors are missing or "
                f"have another size, for example {name}{wrong[0]}. The file may be cut off or of another model."
            )
        weights = {k: parts[name][k].float() for k in wanted}
        network.load_state_dict(weights, assign=True)
        network.eval().requires_grad_(False)
    schedule = Schedule.from_betas(tensors["betas"])
    return SynthesisNetworks(vqgan, unet, schedule, vqgan.code_range())


def to_network(values: NDArray[np.float32], device: torch.device) -> Tensor:
    """(X, Y, Z) to (1, 1, Z, X, Y) on the device."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None, None].to(device)


def from_network(values: Tensor) -> NDArray[np.float32]:
    """(1, 1, Z, X, Y) in [-1, 1] to (X, Y, Z) in HU, not clipped."""
    return from_unit((values[0, 0].float().cpu().numpy().transpose(1, 2, 0) + 1) / 2)
