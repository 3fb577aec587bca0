"""Small networks that tell the label of a pixel from its features, alone and as an ensemble.

One classifier is that of the published code of Alshenoudy et al. (keys `feature_classifier.*`).  The ensemble with
majority vote is that of Baranchuk et al., ICLR 2022; the published brain code has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

HIDDEN = (128, 64)
MOMENTUM, EPSILON = 0.1, 1e-5  # of the batch norms


class PixelClassifier(nn.Module):
    """Linear, ReLU, batch norm, twice, and a last linear layer.

    Args:
        features: F.
        classes: number of labels, background included.
        hidden: widths of the two hidden layers.
    """

    def __init__(self, features: int, classes: int = 4, hidden: tuple[int, int] = HIDDEN) -> None:
        super().__init__()
        first, second = hidden
        self.features, self.classes = features, classes
        self.feature_classifier = nn.Sequential(
            nn.Linear(features, first),
            nn.ReLU(),
            nn.BatchNorm1d(first),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.BatchNorm1d(second),
            nn.Linear(second, classes),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (N, F) -> logits (N, classes)."""
        return self.feature_classifier(pixels)

    def classify(self, maps: Tensor) -> Tensor:
        """Features of whole images (B, F, H, W) -> logits (B, classes, H, W)."""
        pixels = maps.permute(0, 2, 3, 1)
        logits = self(pixels.reshape(-1, maps.shape[1]))
        return logits.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the members of an ensemble say of pixels.

    Attributes:
        votes: share of the members that vote for each label, (N, classes); the largest is the majority's.
        probabilities: mean over the members, (N, classes).
        disagreement: (N,), 0 (all members say the same) to 1; see `disagreement`.
    """

    votes: Tensor
    probabilities: Tensor
    disagreement: Tensor

    @property
    def labels(self) -> Tensor:
        """The majority's label, int64 (N,); of equal votes the lower label."""
        return self.votes.argmax(dim=-1)


def disagreement(probabilities: Tensor) -> Tensor:
    """How much the members of an ensemble differ: Jensen-Shannon divergence over its greatest value.

    The entropy of the mean less the mean of the entropies.  A member that is unsure does not count, only that
    another says something else (Baranchuk et al. 2022, section 4).

    Args:
        probabilities: (members, N, classes).

    Returns:
        (N,) in [0, 1].
    """
    members, _, classes = probabilities.shape
    if members == 1:
        return torch.zeros_like(probabilities[0, :, 0])
    entropy = torch.special.entr(probabilities).sum(-1).mean(0)
    whole = torch.special.entr(probabilities.mean(0)).sum(-1)
    greatest = torch.tensor(float(min(members, classes))).log().item()
    return ((whole - entropy) / greatest).clamp(0, 1)


class PixelEnsemble(nn.Module):
    """Several pixel classifiers that are trained and asked together; their weights are stacked.

    Args:
        members: how many.
        features: of each, see `PixelClassifier`.
        classes: likewise.
        hidden: likewise.
        generator: of the first weights; each member gets its own.
    """

    def __init__(
        self,
        members: int,
        features: int,
        classes: int,
        hidden: tuple[int, int] = HIDDEN,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.members, self.features, self.classes, self.hidden = members, features, classes, hidden
        sizes = (features, *hidden, classes)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for rows, columns in pairwise(sizes):
            # As nn.Linear begins.
            bound = rows**-0.5
            for into, shape in ((self.weights, (rows, columns)), (self.biases, (1, columns))):
                first = torch.empty(members, *shape).uniform_(-bound, bound, generator=generator)
                into.append(nn.Parameter(first))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(members, 1, n)) for n in hidden)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, n)) for n in hidden)
        for layer, n in enumerate(hidden):
            self.register_buffer(f"mean_{layer}", torch.zeros(members, 1, n))
            self.register_buffer(f"variance_{layer}", torch.ones(members, 1, n))

    @classmethod
    def of(cls, members: Sequence[PixelClassifier]) -> PixelEnsemble:
        """The ensemble of given classifiers, which have one shape.

        Raises:
            ValueError: there are none, or their shapes differ.
        """
        shapes = {tuple(m.feature_classifier[i].weight.shape for i in (0, 3, 6)) for m in members}
        if len(shapes) != 1:
            raise ValueError(f"an ensemble has classifiers of one shape, got {sorted(shapes)}")
        first = members[0]
        layers: Any = first.feature_classifier
        hidden = (layers[0].out_features, layers[3].out_features)
        made = cls(len(members), first.features, first.classes, hidden)
        for number, member in enumerate(members):
            for ours, theirs in made._places(number, member):
                ours.copy_(theirs)
        return made.to(layers[0].weight.device)

    @torch.no_grad()
    def classifiers(self) -> list[PixelClassifier]:
        """The members, each with copies of its weights, in evaluation mode."""
        found = []
        for number in range(self.members):
            member = PixelClassifier(self.features, self.classes, self.hidden)
            for ours, theirs in self._places(number, member):
                theirs.copy_(ours)
            found.append(member.eval())
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (N, F) of pixels for all members, or (members, N, F) -> logits (members, N, classes)."""
        x = pixels.expand(self.members, *pixels.shape[-2:])
        for layer in range(len(self.hidden)):
            x = torch.baddbmm(self.biases[layer], x, self.weights[layer]).relu()
            x = self._normalised(layer, x)
        return torch.baddbmm(self.biases[-1], x, self.weights[-1])

    @torch.no_grad()
    def judge(self, pixels: Tensor) -> Verdict:
        """What the members say of pixels with features (N, F); in evaluation mode."""
        logits = self(pixels)
        probabilities = logits.softmax(dim=-1)
        chosen = nn.functional.one_hot(logits.argmax(dim=-1), self.classes)
        return Verdict(
            chosen.to(logits.dtype).mean(0), probabilities.mean(0), disagreement(probabilities)
        )

    def _normalised(self, layer: int, x: Tensor) -> Tensor:
        """Batch norm of each member, as nn.BatchNorm1d does it."""
        mean, variance = getattr(self, f"mean_{layer}"), getattr(self, f"variance_{layer}")
        if self.training:
            now = torch.var_mean(x, dim=1, keepdim=True, correction=0)
            with torch.no_grad():
                count = x.shape[1]
                mean.lerp_(now[1], MOMENTUM)
                variance.lerp_(now[0] * count / max(count - 1, 1), MOMENTUM)
            variance, mean = now
        scale = self.scales[layer] * (variance + EPSILON).rsqrt()
        return torch.addcmul(self.shifts[layer] - mean * scale, x, scale)

    @torch.no_grad()
    def _places(self, number: int, member: PixelClassifier) -> list[tuple[Tensor, Tensor]]:
        """Pairs of our part and the member's tensor."""
        layers: Any = member.feature_classifier
        pairs = []
        for k, at in enumerate((0, 3, 6)):
            pairs += [(self.weights[k][number].T, layers[at].weight)]
            pairs += [(self.biases[k][number, 0], layers[at].bias)]
        for k, at in enumerate((2, 5)):
            norm = layers[at]
            pairs += [
                (self.scales[k][number, 0], norm.weight),
                (self.shifts[k][number, 0], norm.bias),
                (getattr(self, f"mean_{k}")[number, 0], norm.running_mean),
                (getattr(self, f"variance_{k}")[number, 0], norm.running_var),
            ]
        return [(ours.detach(), theirs.detach()) for ours, theirs in pairs]
