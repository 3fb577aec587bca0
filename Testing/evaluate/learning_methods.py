"""Ways to get from a few labeled slices to a segmentation, laid on the volume by the same rules."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

import numpy as np
import torch
from learning_cases import Case
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from numpy.typing import NDArray
from torch import Tensor

from difftumor.anomaly.slices import prepare
from difftumor.learning.canvas import Canvas
from difftumor.learning.feature_slices import FeatureSlices, fineness_for
from difftumor.learning.features_model import FeatureModel, load_feature_model
from difftumor.learning.labels import labels_of_pixels
from difftumor.learning.learn import learn
from difftumor.learning.result import LearnedResult
from difftumor.parameters import LearningParameters
from training.learning.config import Variations
from training.learning.slice_variations import vary

VARIATIONS = Variations(flip=0.5, rotate=0.5, scale=0.5, gamma=0.3, contrast=0.3)
BATCH, RATE = 8, 2e-3
CHANNELS = (32, 64, 128, 256)


class NoFeatures(FeatureModel):
    """A diffusion model that says nothing: pixels are known by their own and their surroundings' values."""

    def __init__(self, model: FeatureModel) -> None:
        self.__dict__.update(model.__dict__)
        self.facts = {**model.facts, "id": "none", "sha256": "none"}

    def maps(self, images: Tensor, *_: Any) -> list[Tensor]:
        """One feature, which is zero everywhere."""
        return [torch.zeros(len(images), 1, 1, 1)]


def by_learning(
    case: Case,
    slices: list[int],
    cache: MutableMapping[str, Any],
    *,
    features: bool = True,
    **wishes: Any,
) -> LearnedResult:
    """What the program does, or the same without the diffusion model."""
    model = load_feature_model(case.model, "cpu", cache, lambda *_: None)
    parameters = LearningParameters(model=case.model, labelled=tuple(slices), **wishes)
    return learn(
        case.images,
        case.grid,
        case.organ,
        case.labels(slices),
        parameters,
        model if features else NoFeatures(model),
        cache=cache,
    )[0]


def by_supervised_unet(
    case: Case,
    slices: list[int],
    cache: MutableMapping[str, Any],
    steps: int,
    seed: int = 0,
) -> dict[str, LearnedResult]:
    """A U-Net that sees the labeled slices only, on the same pixels, with variations, Dice and cross-entropy.

    It is asked about each slice and its three mirrored versions, and its answers are laid on the volume as those of
    the pixel classifiers.

    Returns: the result for "painted" and for "all" of `LearningParameters.keep`.
    """
    model = load_feature_model(case.model, "cpu", cache, lambda *_: None)
    made_for = model.slice_format
    fineness = fineness_for(case.grid, "axial", made_for.spacing_mm[0])
    stack = prepare(case.images, case.grid, case.organ, made_for, "axial", None, fineness)
    positions = [stack.indices.index(index) for index in slices if index in stack.indices]
    painted = case.labels(slices)
    values = [int(value) for value in np.unique(painted) if value]
    truth = np.stack([labels_of_pixels(painted, values, stack, p) for p in positions])
    truth = np.where(stack.organ[positions], truth, 0).astype(np.uint8)
    # Square slices with sides that three halvings divide.
    wide = 8 * -(-max(stack.organ.shape[1:]) // 8)
    low, high = made_for.intensity_range
    images = _padded(stack.images, wide, low)
    network = trained_unet(
        images[positions], _padded(truth, wide, 0), len(values) + 1, steps, seed, (low, high)
    )
    shares = predicted(network, images)[..., : stack.organ.shape[1], : stack.organ.shape[2]]
    shares = np.where(stack.organ[:, None], shares, 0)[:, 1:].swapaxes(0, 1)
    seen = FeatureSlices(stack, made_for.spacing_mm[0] / fineness, [], [])
    canvas = Canvas(seen, painted, tuple(slices), values, stack.indices)
    names = {value: f"label {value}" for value in values}
    doubt = np.zeros(stack.organ.shape, np.float32)
    return {
        keep: canvas.result(np.ascontiguousarray(shares), doubt, names, keep, [])
        for keep in ("painted", "all")
    }


def trained_unet(
    images: NDArray[np.float32],
    labels: NDArray[np.uint8],
    classes: int,
    steps: int,
    seed: int,
    intensity_range: tuple[float, float],
) -> UNet:
    """A residual U-Net of MONAI (about 1.6 M weights), AdamW, a cosine learning rate."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = UNet(
        spatial_dims=2,
        in_channels=images.shape[1],
        out_channels=classes,
        channels=CHANNELS,
        strides=(2,) * (len(CHANNELS) - 1),
        num_res_units=2,
        norm="instance",
    )
    loss_of = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, RATE / 100)
    network.train()
    for _ in range(steps):
        # Every slice comes up about as often.
        rows = np.resize(rng.permutation(len(images)), BATCH)
        x, y = vary(images[rows], labels[rows], VARIATIONS, rng, intensity_range)
        loss = loss_of(network(x), y[:, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def predicted(network: UNet, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (n, classes, H, W), mean over the four mirrored versions."""
    parts = []
    for part in torch.from_numpy(images).split(16):
        whole = torch.zeros(())
        for axes in ((), (-1,), (-2,), (-1, -2)):
            whole = whole + network(part.flip(axes)).softmax(1).flip(axes) / 4
        parts.append(whole)
    return torch.cat(parts).numpy()


def dices(case: Case, found: NDArray[np.uint8], labelled: list[int]) -> dict[str, float | None]:
    """Dice of each region outside the labeled slices; None where neither has it."""
    rest = np.setdiff1d(np.arange(found.shape[2]), labelled)
    values: dict[str, float | None] = {}
    for region, labels in case.regions.items():
        a, b = np.isin(found[..., rest], labels), np.isin(case.truth[..., rest], labels)
        total = a.sum() + b.sum()
        values[region] = float(2 * (a & b).sum() / total) if total else None
    return values


def clocked(work: Any) -> tuple[Any, float]:
    """What a piece of work gives, and its seconds."""
    begin = time.perf_counter()
    made = work()
    return made, time.perf_counter() - begin


def _padded(planes: NDArray[Any], side: int, fill: float) -> NDArray[Any]:
    missing = [(0, 0)] * (planes.ndim - 2) + [(0, side - n) for n in planes.shape[-2:]]
    return np.ascontiguousarray(np.pad(planes, missing, constant_values=fill))
