"""VQGAN and latent U-Net beyond parity: any size, any batch, gradients, cancelling, the quantizer."""

import pytest
import torch

from difftumor.networks import fast_vqgan
from difftumor.networks.fast_unet import FastDenoiser, denoiser
from difftumor.networks.latent_unet import LatentUNet, relative_buckets
from difftumor.networks.vqgan import VQGAN
from difftumor.worker.protocol import Cancelled
from Testing.weight_filler import fill


@pytest.fixture(scope="module")
def small() -> VQGAN:
    """Not the published widths, and a codebook that does not fill its last block."""
    torch.manual_seed(0)
    return fill(VQGAN(hidden=4, embedding_dim=3, codes=300, groups=4))


@pytest.fixture(scope="module")
def unet() -> LatentUNet:
    return fill(LatentUNet(dim=8, dim_mults=(1, 2), in_channels=7, out_channels=3), "denoise_fn.")


def volume(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    "shape", [(1, 1, 4, 4, 4), (2, 1, 12, 8, 16), (1, 1, 36, 20, 12), (3, 1, 20, 4, 8)]
)
def test_fast_autoencoder_equals_the_modules_at_any_size(small, shape):
    x = volume(*shape)
    plain_latent = small.encode(x).detach()
    plain_volume = small.decode(plain_latent).detach()
    with torch.no_grad():
        latent = small.encode(x)
        decoded = small.decode(plain_latent)
    assert torch.allclose(latent, plain_latent, atol=2e-5)
    assert decoded.shape == shape
    assert torch.allclose(decoded, plain_volume, atol=1e-4 * float(plain_volume.std()))


def test_fast_statistics_survive_a_large_mean(small):
    values = volume(10, 6, 6, 8) + 1000
    norm = torch.nn.GroupNorm(4, 8, eps=1e-6)
    moments = fast_vqgan.Moments()
    for slab in values.split(4):
        moments.add(slab)
    with torch.no_grad():
        scale, shift = moments.affine(norm)
        exact = norm.double()(values.double().permute(3, 0, 1, 2)[None])[0].permute(1, 2, 3, 0)
    assert torch.allclose(values.double() * scale + shift, exact, atol=1e-2)
    # To within the rounding of 1000 in float32, not of its square.
    assert float((values * scale + shift - exact).abs().max()) < 1e-3


@pytest.mark.parametrize("size", [(1, 4, 4), (5, 8, 2), (24, 6, 10)])
def test_fast_denoiser_equals_the_module_at_any_size(unet, size):
    x_t, condition = volume(2, 3, *size), volume(2, 4, *size)
    t = torch.tensor([0, 3])
    expected = unet(torch.cat([x_t, condition], dim=1), t).detach()
    function = denoiser(unet, condition)
    assert isinstance(function, FastDenoiser)
    assert torch.allclose(function(x_t, t), expected, atol=1e-5)


def test_denoiser_of_another_precision_is_the_module(unet):
    x_t, condition = volume(1, 3, 2, 4, 4).double(), volume(1, 4, 2, 4, 4).double()
    t = torch.tensor([1])
    precise = fill(LatentUNet(8, (1, 2), 7, 3), "denoise_fn.").double()
    expected = precise(torch.cat([x_t, condition], dim=1), t)
    assert torch.equal(denoiser(precise, condition)(x_t, t), expected)


def test_batched_items_do_not_see_each_other(unet):
    x = volume(3, 7, 4, 4, 4)
    t = torch.tensor([0, 2, 3])
    together = unet(x, t)
    for i in range(3):
        assert torch.allclose(unet(x[i : i + 1], t[i : i + 1]), together[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7, 4, 3, 4), (1, 6, 4, 4, 4), (7, 4, 4, 4), (1, 7, 0, 4, 4)])
def test_denoiser_refuses_shapes_it_cannot_halve(unet, shape):
    with pytest.raises(ValueError, match="multiples of 2"):
        unet(torch.zeros(shape), torch.tensor([0]))


def test_condition_of_another_size_is_refused(unet):
    with pytest.raises(ValueError, match="does not fit"):
        denoiser(unet, torch.zeros(1, 4, 2, 4, 4))(torch.zeros(1, 3, 4, 4, 4), torch.tensor([0]))


@pytest.mark.parametrize("shape", [(1, 1, 6, 4, 4), (1, 2, 4, 4, 4), (1, 4, 4, 4), (1, 1, 4, 0, 4)])
def test_encoder_refuses_sizes_that_are_no_multiple_of_four(small, shape):
    with pytest.raises(ValueError, match="multiples of 4"):
        small.encode(torch.zeros(shape))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_quantiser_finds_the_nearest_code(small, count):
    z = 2 * volume(1, 3, count, 1, 1)
    indices, codes = small.quantize(z)
    vectors = z.movedim(1, -1).reshape(count, 3).double()
    distances = torch.cdist(vectors, small.codebook.embeddings.double())
    assert torch.equal(indices.flatten(), distances.argmin(1))
    assert torch.equal(
        codes.movedim(1, -1).reshape(count, 3), small.codebook.embeddings[indices.flatten()]
    )


def test_quantiser_keeps_float32_under_autocast(small):
    z = 2 * volume(1, 3, 1000, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = small.quantize(z)[0]
    assert torch.equal(lowered, small.quantize(z)[0])


def test_codes_are_their_own_nearest(small):
    z = small.codebook.embeddings.t().reshape(1, 3, 300, 1, 1)
    assert small.quantize(z)[0].flatten().tolist() == list(range(300))


def test_code_range_is_that_of_the_whole_codebook(small):
    low, high = small.code_range()
    assert low == small.codebook.embeddings.min().item()
    assert high == small.codebook.embeddings.max().item()


def test_everything_can_be_trained(small, unet):
    small(volume(1, 1, 8, 8, 8)).abs().mean().backward()
    unet(volume(2, 7, 4, 4, 4), torch.tensor([0, 3])).abs().mean().backward()
    for module in (small, unet):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        module.zero_grad()


def test_changed_weights_are_seen_at_once(small):
    x = volume(1, 1, 8, 8, 8)
    with torch.no_grad():
        before = small.encode(x)
        small.encoder.conv_first.conv.weight.mul_(2)
        after = small.encode(x)
        small.encoder.conv_first.conv.weight.div_(2)
        assert torch.equal(small.encode(x), before)
    assert not torch.allclose(after, before)


@pytest.mark.parametrize("gradients", [False, True], ids=["fast", "modules"])
def test_decoding_tells_its_progress_and_can_be_cancelled(small, gradients):
    z = volume(2, 3, 4, 3, 2)
    with torch.set_grad_enabled(gradients):
        told = []
        small.decode(z, callback=lambda done, total: told.append((done, total)))
        total = told[0][1]
        assert told == [(i, total) for i in range(1, total + 1)]

        def cancel(done: int, total: int) -> None:
            if done == 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            small.decode(z, callback=cancel)


def test_relative_buckets_by_hand():
    buckets = relative_buckets(torch.arange(40))
    # rows are queries: keys before the query count 0...15, keys after it 16...31
    assert buckets[10, :11].tolist() == [9, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert buckets[0, 1:9].tolist() == [17, 18, 19, 20, 21, 22, 23, 24]
    assert buckets[39, 0] == 15
    assert buckets[0, 39] == 31
