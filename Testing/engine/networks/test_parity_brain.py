"""The networks of brain tumor segmentation give the numbers of the published code (filled weights).

All fixtures but the key lists are read from ../shared and skipped without it.  Tolerance: 1e-4 of the largest value,
as their README proposes (a few 1e-6 are reached).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from difftumor.diffusion.schedules import Schedule, guided_betas
from difftumor.learning.pixel_features import (
    FeatureChoice,
    block_channels,
    block_features,
    fixed_noise,
    pixel_features,
)
from difftumor.networks.guided_segmenter import GuidedSegmenter
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from difftumor.networks.pixel_classifiers import PixelClassifier, PixelEnsemble
from Testing.weight_filler import fill

TOLERANCE = 1e-5
BRAIN = GuidedUNetArguments(
    image_size=128,
    in_channels=4,
    base_channels=64,
    channel_mult=(1, 1, 2, 2, 4, 4),
    res_blocks=3,
    attention_sizes=(32,),
    heads=4,
    classes=None,
    learned_variance=False,
)
NOTEBOOK = FeatureChoice((16, 17, 18), (200,), seed=1234)
SEVERAL = FeatureChoice((14, 16, 18), (250, 1000), seed=1234)


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "parity" / "brain"


def load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


@pytest.fixture(scope="module")
def unet() -> GuidedUNet:
    return fill(GuidedUNet(BRAIN)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def x(folder: Path) -> Tensor:
    return load(folder / "unet128_eps.npz")["x"]


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.from_betas(guided_betas("cosine", 4000))


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def deviation(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / expected.abs().max()).item()


def keys_of(network: nn.Module, prefix: str = "") -> list[list]:
    return [
        [key.removeprefix(prefix), list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for key, tensor in network.state_dict().items()
    ]


@pytest.mark.parametrize(
    ("name", "network", "prefix"),
    [
        ("unet_brats128", lambda: GuidedUNet(BRAIN), ""),
        ("denoise_seg", lambda: GuidedSegmenter(BRAIN), ""),
        ("mlp_nb_16_17_18_t200", lambda: PixelClassifier(192), "feature_classifier."),
        ("mlp_multi_14_16_18_t250_1000", lambda: PixelClassifier(512), "feature_classifier."),
    ],
)
def test_state_dict_is_that_of_the_published_code(name, network, prefix, folder):
    with torch.device("meta"):
        got = keys_of(network(), prefix)
    assert got == json.loads((folder / f"{name}.keys.json").read_text())


def test_the_schedule_is_the_published_one(folder):
    expected = load(folder / "cosine4000_schedule.npz")
    betas = guided_betas("cosine", 4000)
    assert betas.dtype == torch.float64
    assert deviation(betas, expected["betas"]) < 1e-12
    assert betas[-1] == 0.999
    alpha_bar = torch.cumprod(1 - betas, 0)
    assert (
        (alpha_bar - expected["alphas_cumprod"]).abs() / expected["alphas_cumprod"]
    ).max() < 1e-9
    # Schedule keeps the exact betas: 0.999 is not taken for DiffTumor's 0.9999.
    assert Schedule.from_betas(betas).betas[-1].item() == pytest.approx(0.999, rel=1e-6)


@pytest.mark.parametrize("t", [200, 2000])
def test_noise_estimate(t, unet, x, schedule, folder):
    expected = load(folder / "unet128_eps.npz")
    times = torch.tensor([t])
    x_t = schedule.q_sample(x, times, fixed_noise(1234, x.shape))
    assert schedule.sqrt_alphas_cumprod[t] == pytest.approx(
        expected[f"t{t}_sqrt_acp"].item(), rel=1e-6
    )
    assert schedule.sqrt_one_minus_alphas_cumprod[t] == pytest.approx(
        expected[f"t{t}_sqrt_1macp"].item(), rel=1e-6
    )
    assert deviation(x_t[..., ::2, ::2], expected[f"t{t}_xt_s2"]) < 1e-6
    eps = unet(x_t, times)
    assert deviation(eps[..., ::2, ::2], expected[f"t{t}_eps_s2"]) < TOLERANCE


def test_outputs_of_all_decoder_blocks(unet, x, schedule, folder):
    expected = load(folder / "block_features_t200.npz")
    shapes = json.loads((folder / "output_block_shapes.json").read_text())
    choice = FeatureChoice(tuple(range(24)), (200,), seed=1234)
    maps = block_features(unet, x, schedule, choice)
    assert {str(b): list(m.shape[1:]) for b, m in enumerate(maps)} == shapes
    assert block_channels(unet, choice.blocks) == [shape[0] for shape in shapes.values()]
    for block, found in enumerate(maps):
        mean = found[0].mean((1, 2))
        assert deviation(mean, expected[f"b{block}_chan_mean"]) < TOLERANCE, block
        if f"b{block}" in expected:
            step = 2 if found.shape[-1] == 128 else 1
            assert deviation(found[0, :4, ::step, ::step], expected[f"b{block}"]) < TOLERANCE, block


@pytest.mark.parametrize(
    ("name", "choice"),
    [("nb_16_17_18_t200", NOTEBOOK), ("multi_14_16_18_t250_1000", SEVERAL)],
)
def test_features_and_labels_of_pixels(name, choice, unet, x, schedule, folder):
    expected = load(folder / f"pixel_{name}.npz")
    features = pixel_features(unet, x, schedule, choice)
    channels = expected["channels"]
    assert deviation(features[0, channels, ::2, ::2], expected["feats_s2"]) < TOLERANCE
    assert deviation(features[0].mean((1, 2)), expected["feat_chan_mean"]) < TOLERANCE
    classifier = fill(PixelClassifier(features.shape[1])).eval()
    with torch.no_grad():
        logits = classifier.classify(features)
    assert deviation(logits, expected["logits"]) < TOLERANCE
    labels = logits.argmax(1)
    flipped = (labels != expected["labels"]).sum()
    assert flipped <= 3  # near-ties
    assert (
        torch.bincount(labels.flatten(), minlength=4).sub(expected["class_counts"]).abs().max() <= 3
    )
    # An ensemble of one classifier says the same.
    pixels = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
    verdict = PixelEnsemble.of([classifier]).eval().judge(pixels)
    assert ((verdict.labels.reshape(labels.shape) != labels).sum()) <= 3


def test_fine_tuned_noise_predictor(x, schedule, folder):
    expected = load(folder / "denoise_seg_t100.npz")
    network = fill(GuidedSegmenter(BRAIN)).eval()
    times = torch.tensor([100])
    x_t = schedule.q_sample(x, times, fixed_noise(1234, x.shape))
    with torch.no_grad():
        logits = network(x_t, times)
    assert deviation(logits[..., ::2, ::2], expected["logits_s2"]) < TOLERANCE
    counts = torch.bincount(logits.argmax(1).flatten(), minlength=4)
    assert counts.sub(expected["class_counts"]).abs().max() <= 3
