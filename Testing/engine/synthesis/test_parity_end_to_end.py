"""The published synthesis functions on a crop: encode, sample, decode, blend, with filled weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from difftumor.diffusion.schedules import Schedule, cosine_betas
from difftumor.networks.latent_unet import LatentUNet
from difftumor.networks.vqgan import VQGAN
from difftumor.synthesis.blending import blend_as_published
from difftumor.synthesis.generators import SynthesisNetworks, from_network, to_network
from Testing.weight_filler import fill

FIXTURE = Path(__file__).parents[2] / "parity" / "e2e_cube32.npz"


@pytest.fixture(scope="module")
def published():
    return np.load(FIXTURE)


@pytest.fixture(scope="module")
def networks():
    vqgan, denoiser = fill(VQGAN()).eval(), fill(LatentUNet(), "denoise_fn.").eval()
    return vqgan, denoiser


def synthesized(networks, published, length: int, noise: list[np.ndarray]) -> np.ndarray:
    """Decoded crop in [0, 1], not clipped, (X, Y, Z)."""
    vqgan, denoiser = networks
    schedule = Schedule.from_betas(cosine_betas(length))
    model = SynthesisNetworks(vqgan, denoiser, schedule, vqgan.code_range())
    cpu = torch.device("cpu")
    ct = to_network(2 * published["ct"][0, 0] - 1, cpu)
    condition = model.condition(ct, to_network(published["tumor"].astype(np.float32), cpu))
    supply = iter(noise)
    latent = model.sample(condition, 50, lambda: torch.from_numpy(next(supply)))
    hu = from_network(model.decode(latent))
    return (hu + 175) / 425


@pytest.mark.parametrize("organ", ["liver", "pancreas", "kidney"])
def test_early_tumors_equal_the_published_function(networks, published, organ):
    generated = synthesized(networks, published, 4, list(published["early_noise"]))
    mask = published["tumor"] > 0
    ours = blend_as_published(
        published["ct"][0, 0], generated, mask, organ, float(published["blend_sigma"])
    )
    theirs = published[f"early_{organ}_volume"][0, 0]
    assert np.abs(ours - theirs).max() <= 1e-4 * theirs.std()
    # The label is organ + tumor, from the hard mask.
    assert np.array_equal(published[f"early_{organ}_label"][0, 0], 1 + mask)


def test_medium_tumors_equal_the_published_function(networks, published):
    generated = synthesized(networks, published, 200, [published["medium_x_T"]])
    mask = published["tumor"] > 0
    ours = blend_as_published(published["ct"][0, 0], generated, mask, "liver", 1.5)
    theirs = published["medium_liver_volume"][0, 0]
    assert np.abs(ours - theirs).max() <= 1e-4 * theirs.std()
