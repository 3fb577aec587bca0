"""Pixel classifiers, their ensemble, and the fine-tuned noise predictor, at hand-sized shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from difftumor.diffusion.schedules import Schedule, linear_betas
from difftumor.learning.pixel_features import (
    FeatureChoice,
    block_channels,
    block_features,
    fixed_noise,
    pixel_features,
)
from difftumor.networks.guided_segmenter import GuidedSegmenter
from difftumor.networks.guided_unet import GuidedUNet
from difftumor.networks.pixel_classifiers import PixelClassifier, PixelEnsemble, disagreement
from Testing.tiny_anomaly import tiny_networks
from Testing.weight_filler import fill


@pytest.fixture(scope="module")
def unet() -> GuidedUNet:
    return tiny_networks(2, 16, classes=None)[0].eval().requires_grad_(False)


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.from_betas(linear_betas(1000))


def members(count: int = 3) -> list[PixelClassifier]:
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(fill(PixelClassifier(5, 3, (8, 6)), prefix=f"{seed}."))
    return made


def test_the_ensemble_says_what_its_members_say():
    each = members()
    ensemble = PixelEnsemble.of(each).eval()
    pixels = torch.randn(40, 5)
    apart = torch.stack([member.eval()(pixels) for member in each])
    assert torch.allclose(ensemble(pixels), apart, atol=1e-5)
    again = ensemble.classifiers()
    assert all(
        torch.equal(a, b)
        for ours, theirs in zip(again, each, strict=True)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        if a.is_floating_point()
    )


def test_the_ensemble_trains_as_its_members_do():
    """Ten steps of Adam on the stacked weights are ten steps on each classifier."""
    each = members()
    ensemble = PixelEnsemble.of(each).train()
    pixels, labels = torch.randn(64, 5), torch.randint(3, (64,))
    together = torch.optim.Adam(ensemble.parameters(), 1e-2)
    apart = [torch.optim.Adam(member.train().parameters(), 1e-2) for member in each]
    for _ in range(10):
        logits = ensemble(pixels)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(3)) * 3
        together.zero_grad()
        loss.backward()
        together.step()
        for member, optimizer in zip(each, apart, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(member(pixels), labels).backward()
            optimizer.step()
    expected = torch.stack([member.eval()(pixels) for member in each])
    assert torch.allclose(ensemble.eval()(pixels), expected, atol=1e-3)


def test_votes_are_counted_by_hand():
    """Two of three members say 1 for the first pixel, all say 2 for the second."""

    class Said(PixelEnsemble):
        def forward(self, _pixels):
            says = torch.tensor([[1, 2], [1, 2], [0, 2]])
            return 50.0 * nn.functional.one_hot(says, 3)

    verdict = Said(3, 5, 3, (8, 6)).judge(torch.zeros(2, 5))
    assert torch.allclose(verdict.votes, torch.tensor([[1 / 3, 2 / 3, 0], [0, 0, 1]]))
    assert verdict.labels.tolist() == [1, 2]
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert verdict.disagreement.tolist() == pytest.approx([entropy / np.log(3), 0], abs=1e-5)


def test_disagreement_is_not_doubt():
    unsure = torch.full((4, 1, 2), 0.5)
    apart = torch.tensor([[[1.0, 0]], [[1.0, 0]], [[0.0, 1]], [[0.0, 1]]])
    assert disagreement(unsure).item() == pytest.approx(0, abs=1e-6)
    assert disagreement(apart).item() == pytest.approx(1)
    assert disagreement(apart[:1]).item() == 0


def test_first_weights_follow_the_generator():
    def weights(seed):
        generator = torch.Generator().manual_seed(seed)
        return PixelEnsemble(2, 5, 3, (8, 6), generator).weights[0]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert not torch.equal(*weights(1))  # members differ from each other


def test_classifiers_of_several_shapes_are_no_ensemble():
    with pytest.raises(ValueError, match="one shape"):
        PixelEnsemble.of([PixelClassifier(5), PixelClassifier(6)])


def test_features_are_those_that_hooks_would_catch(unet, schedule):
    """The oracle: forward hooks on the whole network, and interpolation, timestep by timestep."""
    x = torch.rand(2, 2, 16, 16)
    choice = FeatureChoice((3, 1), (40, 7), seed=5)
    assert choice.blocks == (1, 3)
    caught: list[torch.Tensor] = []
    handles = [
        unet.output_blocks[block].register_forward_hook(lambda *a: caught.append(a[2]))
        for block in choice.blocks
    ]
    noise = fixed_noise(5, (2, 16, 16))
    for step in (40, 7):
        t = torch.full((2,), step)
        unet(schedule.q_sample(x, t, noise.expand_as(x)), t)
    for handle in handles:
        handle.remove()
    expected = torch.cat(
        [nn.functional.interpolate(c, size=(16, 16), mode="bilinear") for c in caught], 1
    )
    found = pixel_features(unet, x, schedule, choice)
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.shape[1] == 2 * sum(block_channels(unet, choice.blocks))


def test_features_of_an_image_do_not_depend_on_its_company(unet, schedule):
    x = torch.rand(3, 2, 16, 16)
    choice = FeatureChoice((2,), (50,))
    alone = block_features(unet, x[1:2], schedule, choice)[0]
    together = block_features(unet, x, schedule, choice)[0][1:2]
    assert torch.allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (((9,), (5,)), "blocks must be 0 to 3"),
        (((1,), (1000,)), "timesteps must be 0 to 999"),
    ],
)
def test_blocks_and_timesteps_out_of_range_are_refused(choice, said, unet, schedule):
    with pytest.raises(ValueError, match=said):
        block_features(unet, torch.rand(1, 2, 16, 16), schedule, FeatureChoice(*choice))


@pytest.mark.parametrize("wrong", [(), (1, 1), (-1,), (1.5,)])
def test_a_choice_holds_different_whole_numbers(wrong):
    with pytest.raises(ValueError, match="blocks must be"):
        FeatureChoice(wrong, (5,))


@pytest.mark.parametrize("frozen", [True, False])
def test_fine_tuning_moves_what_the_published_code_moves(frozen, unet):
    network = GuidedSegmenter(unet.arguments, 4, freeze_encoder=frozen)
    network.begin_with(unet)
    nn.init.normal_(network.out[1].weight)
    network(torch.rand(1, 2, 16, 16), torch.tensor([100])).square().mean().backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None}
    every = {name for name, _ in network.named_parameters()}
    encoder = {name for name in every if name.startswith(("input_blocks.", "middle_block."))}
    assert moved == (every - encoder if frozen else every)
    kept = {k for k, v in network.state_dict().items() if k in unet.state_dict()}
    assert all(torch.equal(network.state_dict()[k], unet.state_dict()[k]) for k in kept)
    assert every - set(unet.state_dict()) == {"out.1.weight", "out.1.bias"}
