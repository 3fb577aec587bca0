"""Anomaly models: folders, loading, and what encodings are good for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from difftumor.anomaly import model as anomaly_models
from difftumor.anomaly.files import write_anomaly_model
from difftumor.anomaly.guided_passes import Passes
from difftumor.anomaly.model import AnomalyModel, load_anomaly_model
from difftumor.diffusion.guided import class_gradient, decode, encode
from difftumor.networks.guided_norm import normalized
from difftumor.weights.cards import ModelError
from difftumor.weights.checkpoints import identify
from difftumor.worker.protocol import Cancelled
from Testing.tiny_anomaly import MR, tiny_card, tiny_networks, write_tiny_model


def silent(*_: object) -> None:
    pass


def load(folder: Path, cache: dict[str, Any] | None = None) -> AnomalyModel:
    return load_anomaly_model(str(folder), "cpu", {} if cache is None else cache, silent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> AnomalyModel:
    return load(folder)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand((3, 1, 32, 32), generator=torch.Generator().manual_seed(1))


def test_a_folder_gives_the_networks_that_were_written(folder, model):
    for network, again in zip(tiny_networks(), (model.unet, model.classifier), strict=True):
        state = again.state_dict()
        for key, tensor in network.state_dict().items():
            assert torch.equal(state[key], tensor), key
    assert model.facts["id"] == "tiny-anomaly"
    assert len(model.facts["sha256"]) == 64
    assert (model.channels, model.image_size, model.healthy_index) == (1, 32, 0)
    assert model.recommended["guidance_scale"] == 10
    assert model.recommended["map_kind"] == "guided"  # the card does not say
    assert model.slice_format.window_hu == (-50, 150)
    found = identify(folder)
    assert found.facts["content"] == "guided_diffusion_pair"
    assert "1 channels" in found.sentence


def test_a_folder_in_half_precision_is_half_as_large(tmp_path, folder, images):
    small = write_tiny_model(tmp_path / "half", half=True)
    sizes = [(each / "model.safetensors").stat().st_size for each in (small, folder)]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.05)
    probabilities = [load(each).probability_of_disease(images) for each in (small, folder)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-3)


def test_one_model_is_kept_between_requests(tmp_path, folder):
    cache: dict[str, Any] = {}
    assert load(folder, cache) is load(folder, cache)
    other = write_tiny_model(tmp_path / "mr", **MR)
    load(other, cache)
    assert len(cache) == 1


def test_preparation_is_read_from_the_card(tmp_path):
    preparation = {"centred": "field", "transposed": True, "percentiles": [2, 98]}
    wants = load(write_tiny_model(tmp_path / "x", **MR, preparation=preparation)).slice_format
    assert wants.channel_order == ("t1", "t1c", "t2", "flair")
    assert (wants.modality, wants.centred, wants.transposed) == ("MR", "field", True)
    assert wants.percentiles == (2, 98)
    assert wants.window_hu is None


def test_probability_follows_the_healthy_index(tmp_path, model, images):
    other = load(write_tiny_model(tmp_path / "other", healthy_index=1))
    probability = model.probability_of_disease(images)
    assert probability.shape == (3,)
    assert probability.tolist() == pytest.approx(
        (1 - other.probability_of_disease(images)).tolist()
    )
    zero = torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        expected = model.classifier(images, zero).softmax(-1)[:, 1]
    assert probability.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, 30.0])
def test_encoding_and_decoding_are_those_of_guided_sampling(model, images, scale):
    encoding = model.encode(images, 200, 20)
    levels = model.levels(20)
    assert encoding.level == 4
    passes = model._passes[torch.float32]
    denoise, guide = passes.denoise, passes.guide
    expected = encode(denoise, images, levels, 4)
    assert torch.equal(encoding.states[4], expected)
    got = model.decode(encoding, 200, scale)
    assert torch.equal(got, decode(denoise, guide, expected, levels, 4, scale))
    assert got.dtype == torch.float32


def test_an_encoding_serves_smaller_and_larger_noise_levels(model, images):
    steps = []
    model.encode(images, 250, 20, lambda done, total: steps.append((done, total)))
    assert steps == [(k, 5) for k in range(1, 6)]
    encoding = model.encode(images, 250, 20)
    for noise_level in (100, 400):
        direct = model.decode(model.encode(images, noise_level, 20), noise_level, 10.0)
        assert torch.equal(model.decode(encoding, noise_level, 10.0), direct)


def test_states_are_thinned_where_memory_is_short(model, images, monkeypatch):
    full = model.encode(images, 400, 20)
    monkeypatch.setattr(anomaly_models, "KEPT_BYTES", images.numel() * 4 * 4)
    thin = model.encode(images, 400, 20)
    assert sorted(full.states) == list(range(9))
    assert sorted(thin.states) == [0, 3, 6, 8]
    assert torch.equal(model.decode(thin, 250, 5.0), model.decode(full, 250, 5.0))


def test_batches_do_not_change_the_numbers(model, images, monkeypatch):
    together = model.decode(model.encode(images, 150, 20), 150, 20.0)
    monkeypatch.setattr(AnomalyModel, "batch_size", 2)
    calls: list[tuple[int, int]] = []
    parts = model.decode(
        model.encode(images, 150, 20), 150, 20.0, callback=lambda *step: calls.append(step)
    )
    assert (together - parts).abs().max() < 1e-4
    assert calls == [(k, 6) for k in range(1, 7)]


def test_guidance_can_stop_early_and_fade(model, images, monkeypatch):
    encoding = model.encode(images, 500, 20)
    calls = []
    guide = Passes.guide

    def counted(self, x, t):
        calls.append(t)
        return guide(self, x, t)

    monkeypatch.setattr(Passes, "guide", counted)
    full = model.decode(encoding, 500, 10.0)
    assert calls == list(range(500, 0, -50))
    calls.clear()
    half = model.decode(encoding, 500, 10.0, guidance_stop=0.4)
    assert calls == [500, 450, 400, 350, 300, 250]
    calls.clear()
    unguided = model.decode(encoding, 500, 10.0, guidance_stop=1.0)
    assert torch.equal(unguided, model.decode(encoding, 500, 0.0))
    assert calls == []
    fading = model.decode(encoding, 500, 10.0, guidance_weighting="noise")
    results = [full, half, unguided, fading]
    assert len({each.sum().item() for each in results}) == 4


def test_the_published_indexing_is_repeatable_and_different(model, images):
    first, again, other = (
        model.encode(images, 300, 20, reference_compat=True, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(first.states[6], again.states[6])
    assert not torch.equal(first.states[6], other.states[6])
    assert min(first.states) == 1
    assert not torch.allclose(
        model.decode(first, 300, 5.0), model.decode(model.encode(images, 300, 20), 300, 5.0)
    )


def test_cancelling_passes_through(model, images):
    def cancel(done: int, _total: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        model.encode(images, 300, 20, cancel)
    encoding = model.encode(images, 300, 20)
    with pytest.raises(Cancelled):
        model.decode(encoding, 300, 5.0, callback=cancel)


def test_impossible_requests_are_refused_with_the_range(model, images):
    with pytest.raises(ValueError, match="between 1 and 999"):
        model.encode(images, 1000, 20)
    with pytest.raises(ValueError, match="between 2 and the 1000"):
        model.encode(images, 100, 1001)
    with pytest.raises(ValueError, match=r"\(B, 1, 32, 32\); got \(3, 1, 16, 32\)"):
        model.encode(images[:, :, :16], 100, 20)
    encoding = model.encode(images, 100, 20)
    with pytest.raises(ValueError, match="at least 0"):
        model.decode(encoding, 100, -1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.decode(encoding, 100, 1.0, guidance_stop=1.5)
    with pytest.raises(ValueError, match='"constant" or "noise"'):
        model.decode(encoding, 100, 1.0, guidance_weighting="strong")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"healthy_index": 2}, "healthy_index is 2"),
        ({"channel_order": ["ct", "pet"]}, "channel_order names 2"),
        ({"healthy_index": None}, "healthy_index is None"),
        ({"intensity_range": [0, 255]}, "intensity_range"),
    ],
)
def test_a_card_that_contradicts_the_networks_is_not_written(tmp_path, fields, words):
    with pytest.raises(ModelError, match=words):
        write_anomaly_model(tmp_path / "m", *tiny_networks(), tiny_card(**fields))
    assert not (tmp_path / "m").exists()


def test_networks_of_other_images_are_no_pair(tmp_path):
    unet, _ = tiny_networks(size=64)
    _, classifier = tiny_networks(size=32)
    with pytest.raises(ModelError, match="of 64 pixels, the classifier"):
        write_anomaly_model(tmp_path / "m", unet, classifier, tiny_card())


def test_models_for_other_tasks_are_refused(tmp_path):
    from difftumor.weights.checkpoints import write_model_folder
    from Testing.engine.weights.test_model_folders import synthesis_card, synthesis_tensors

    folder = tmp_path / "synthesis"
    write_model_folder(folder, synthesis_tensors(), synthesis_card())
    with pytest.raises(ModelError, match="model for anomaly heat maps"):
        load(folder)


def test_an_unconditional_network_takes_no_label(tmp_path, images):
    unet, classifier = tiny_networks(classes=None)
    write_anomaly_model(tmp_path / "m", unet, classifier, tiny_card())
    model = load(tmp_path / "m")
    assert model.decode(model.encode(images, 100, 20), 100, 5.0).shape == images.shape


def test_precomputed_embeddings_change_nothing(model, images):
    passes = model._passes[torch.float32]
    for t in (40, 700, 40):
        times = torch.full((3,), t)
        with torch.no_grad():
            expected = model.unet(images, times, torch.zeros_like(times))[:, :1]
        assert torch.allclose(passes.denoise(images, t), expected, atol=1e-5)
        gradient = class_gradient(lambda x, times=times: model.classifier(x, times), images, 0)
        assert torch.allclose(passes.guide(images, t), gradient, rtol=1e-3, atol=1e-6)


def test_half_precision_is_near_and_leaves_what_must_be_exact(folder, model, images):
    half = load_anomaly_model(str(folder), "cpu", {}, silent, "half")
    assert (half.facts["precision"], model.facts["precision"]) == ("bfloat16", "float32")
    assert torch.equal(half.probability_of_disease(images), model.probability_of_disease(images))
    results = []
    for each in (half, model):
        exact = each.encode(images, 200, 20, reference_compat=True)
        results.append((each.decode(exact, 200, 5.0), each.encode(images, 200, 20).states[4]))
    assert torch.equal(results[0][0], results[1][0])
    difference = (results[0][1] - results[1][1]).norm() / results[1][1].norm()
    assert 0 < difference < 0.05


def test_the_norm_equals_the_one_of_torch():
    """Value and all gradients, for both layouts, with and without scale and shift."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    for layout in (torch.contiguous_format, torch.channels_last):
        norm = torch.nn.GroupNorm(8, 32).double()
        x = (2 * draw(3, 32, 6, 5) + 3).detach().contiguous(memory_format=layout).requires_grad_()
        scale, shift, weights = draw(3, 32), draw(3, 32), draw(3, 32, 6, 5).detach()
        for active in (True, False):
            got = normalized(norm, x, (scale, shift), activate=active)
            expected = norm(x) * (1 + scale[..., None, None]) + shift[..., None, None]
            expected = torch.nn.functional.silu(expected) if active else expected
            assert torch.allclose(got, expected)
            over = (x, scale, shift, *norm.parameters())
            pairs = zip(
                torch.autograd.grad(got, over, weights),
                torch.autograd.grad(expected, over, weights),
                strict=True,
            )
            assert all((a - b).norm() < 1e-6 * b.norm() for a, b in pairs)
        with torch.no_grad():
            assert torch.allclose(normalized(norm, x, (scale, shift), activate=active), expected)
