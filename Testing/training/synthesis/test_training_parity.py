"""Losses and codebook against the published code (parity/difftumor/train_aux.npz; filled weights)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from difftumor.diffusion.schedules import Schedule, cosine_betas
from difftumor.networks.latent_unet import LatentUNet
from difftumor.networks.vqgan import Codebook
from Testing.weight_filler import fill
from training.synthesis import codebook
from training.synthesis.discriminators import (
    Discriminators,
    axial_slices,
    feature_distances,
    hinge_loss,
)
from training.synthesis.latent_diffusion import diffusion_loss
from training.synthesis.perceptual import PerceptualLoss, load_perceptual_loss

FOLDER = Path(__file__).parents[2] / "parity" / "difftumor"
TOLERANCE = 1e-4


def load(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / name) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load("train_aux.npz")


@pytest.fixture(scope="module")
def discriminators() -> Discriminators:
    return fill(Discriminators()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Real and reconstructed volume (1, 1, Z, X, Y)."""
    arrays = load("vqgan_cube32.npz")
    return 2 * arrays["ct"].permute(0, 1, 4, 2, 3) - 1, arrays["healthy_recon"]


def assert_near(actual: Tensor, wanted: Tensor) -> None:
    scale = wanted.std() if wanted.numel() > 1 else wanted.abs()
    assert (actual - wanted).abs().max() / scale < TOLERANCE


@pytest.mark.parametrize("dimensions", [2, 3])
def test_discriminators(discriminators, pair, expected, dimensions):
    judge = discriminators.image_discriminator
    real, fake = (axial_slices(volume, torch.tensor([10])) for volume in pair)
    if dimensions == 3:
        judge, (real, fake) = discriminators.video_discriminator, pair
    name = f"disc{dimensions}d"
    (real_logits, real_maps), (fake_logits, fake_maps) = judge(real), judge(fake)
    assert_near(real_logits, expected[f"{name}_logits_real"])
    assert_near(fake_logits, expected[f"{name}_logits_fake"])
    assert_near(hinge_loss(real_logits, fake_logits), expected[f"{name}_hinge"])
    matching = torch.stack(feature_distances(fake_maps, real_maps))
    assert_near(matching, expected[f"{name}_feat_l1"])


def test_key_names_are_the_published_ones():
    import json

    rows = json.loads((FOLDER / "vqgan.keys.json").read_text())
    published = {key: tuple(shape) for key, shape, _ in rows}
    for module, prefix in (
        (Discriminators(), ""),
        (PerceptualLoss(), "perceptual_model."),
    ):
        ours = {prefix + key: tuple(value.shape) for key, value in module.state_dict().items()}
        assert ours == {
            key: shape
            for key, shape in published.items()
            if key in ours or key.startswith(prefix or "image_disc")
        }


@pytest.mark.parametrize("t", range(4))
def test_diffusion_loss(expected, t):
    arrays = load("ddpm_cube32.npz")
    unet = fill(LatentUNet(), "denoise_fn.").eval()
    schedule = Schedule.from_betas(cosine_betas(4))
    times = torch.tensor([t])
    x_t = schedule.q_sample(arrays["z0_norm"], times, arrays["q_noise"])
    with torch.inference_mode():
        eps = unet(torch.cat([x_t, arrays["cond"]], dim=1), times)
    assert_near(diffusion_loss(eps, arrays["q_noise"]), expected[f"p_loss_l1_t{t}"])


def test_mask_weight_counts_tumor_voxels_more_and_keeps_the_scale():
    noise, eps = torch.zeros(1, 2, 2, 2, 2), torch.ones(1, 2, 2, 2, 2)
    mask = -torch.ones(1, 1, 2, 2, 2)
    mask[0, 0, 0, 0, 0] = 1
    assert diffusion_loss(eps, noise, mask, 4.0) == pytest.approx(1.0)
    eps[:, :, 0, 0, 0] = 3
    # weights: one voxel 5, seven 1; (5 * 3 + 7) / 12
    assert diffusion_loss(eps, noise, mask, 4.0) == pytest.approx(22 / 12)


def test_codebook_step(expected):
    book = Codebook(64, 8)
    start = expected["ema_emb0"]
    book.embeddings.copy_(start)
    book.z_avg.copy_(start)
    book.N.fill_(1)
    z = expected["ema_z"]
    indices = book.nearest(z.movedim(1, -1).reshape(-1, 8)).view(2, 3, 4, 5)
    assert torch.equal(indices.int(), expected["ema_idx"])
    codes = book.lookup(indices)
    assert_near(codes, expected["ema_out"])
    assert_near(0.25 * codebook.commitment_loss(z, codes), expected["ema_commit"])
    assert_near(codebook.perplexity(indices, 64), expected["ema_perplexity"])
    assert codebook.update(book, z, indices) == 0
    assert_near(book.N, expected["ema_N"])
    assert_near(book.z_avg, expected["ema_z_avg"])
    assert_near(book.embeddings, expected["ema_emb1"])


def test_unused_codes_restart_from_the_batch_and_used_ones_stay():
    book = Codebook(4, 2)
    codebook.initialize(
        book, torch.tensor([[0.0, 0], [1, 1], [2, 2], [9, 9]]), np.random.default_rng(0)
    )
    z = torch.zeros(1, 2, 1, 1, 50)
    indices = book.nearest(z.movedim(1, -1).reshape(-1, 2)).view(1, 1, 1, 50)
    restarted = codebook.update(book, z, indices, restart_below=1.0, rng=np.random.default_rng(1))
    assert restarted == 3
    assert book.embeddings.abs().max() < 0.1  # only tiles of the batch's zero vector are left


def test_too_few_vectors_are_tiled_with_a_little_noise():
    book = Codebook(8, 2)
    codebook.initialize(book, torch.tensor([[0.0, 0], [5, 5]]), np.random.default_rng(0))
    assert len(book.embeddings.unique(dim=0)) == 8
    assert ((book.embeddings.abs() < 0.1) | ((book.embeddings - 5).abs() < 0.1)).all()


def test_perceptual_loss_is_zero_for_equal_images_and_stays_frozen():
    loss = PerceptualLoss().train()
    image = torch.rand(2, 1, 32, 32)
    assert loss(image, image) == 0
    assert not loss.training
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_perceptual_weights_are_taken_from_a_published_layout_or_torchvisions(tmp_path: Path):
    wanted = fill(PerceptualLoss()).state_dict()
    by_torchvision = {
        f"features.{key.split('.')[2]}.{key.split('.')[3]}"
        if key.startswith("net.")
        else key: value
        for key, value in wanted.items()
        if "scaling" not in key
    }
    torch.save(by_torchvision, tmp_path / "vgg.pth")
    torch.save(
        {f"perceptual_model.{key}": value for key, value in wanted.items()}, tmp_path / "ours.pth"
    )
    for name in ("vgg.pth", "ours.pth"):
        loaded = load_perceptual_loss(tmp_path / name).state_dict()
        assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)
    del by_torchvision["lin2.model.1.weight"]
    torch.save(by_torchvision, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"no tensor lin2\.model\.1\.weight"):
        load_perceptual_loss(tmp_path / "vgg.pth")
    with pytest.raises(FileNotFoundError, match="leave --losses"):
        load_perceptual_loss(tmp_path / "none.pth")
