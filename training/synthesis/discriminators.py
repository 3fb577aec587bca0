"""PatchGAN discriminators of slices and volumes (Isola et al. 2017, as in VQGAN and TATS).

Key names are those of the published file: `image_discriminator.model0.0.weight` and so on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 5
SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Five convolutions (kernel 4, padding 2), the first three with stride 2; each logit judges one patch.

    Args:
        dimensions: 2 for slices (B, 1, X, Y), 3 for volumes (B, 1, Z, X, Y).
        width: channels after the first convolution (published: 64).
    """

    def __init__(self, dimensions: int, width: int = 64) -> None:
        super().__init__()
        conv, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dimensions]
        channels = [1, width, 2 * width, 4 * width, 8 * width]
        self.model0 = nn.Sequential(conv(1, width, 4, 2, 2), nn.LeakyReLU(SLOPE))
        for level in (1, 2, 3):
            stride = 2 if level < 3 else 1
            block = nn.Sequential(
                conv(channels[level], channels[level + 1], 4, stride, 2),
                norm(channels[level + 1]),
                nn.LeakyReLU(SLOPE),
            )
            self.add_module(f"model{level}", block)
        self.model4 = nn.Sequential(conv(channels[4], 1, 4, 1, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge images.

        Args:
            x: (B, 1, X, Y) or (B, 1, Z, X, Y), values in [-1, 1].

        Returns:
            logits, large where a patch looks real; the four feature maps before them.
        """
        features = []
        for level in range(LEVELS):
            x = getattr(self, f"model{level}")(x)
            features.append(x)
        return features[-1], features[:-1]


class Discriminators(nn.Module):
    """The two discriminators: of one axial slice per volume, and of the volume."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.image_discriminator = PatchDiscriminator(2, width)
        self.video_discriminator = PatchDiscriminator(3, width)

    def forward(self, real: Tensor, fake: Tensor, slices: Tensor) -> Tensor:
        """Hinge loss of both, for their own training step.

        Args:
            real: (B, 1, Z, X, Y).
            fake: reconstruction of `real`, detached.
            slices: int64 (B,), the axial slice of each volume.
        """
        pairs = (
            (self.image_discriminator, axial_slices(real, slices), axial_slices(fake, slices)),
            (self.video_discriminator, real, fake),
        )
        losses = [hinge_loss(judge(a)[0], judge(b)[0]) for judge, a, b in pairs]
        return losses[0] + losses[1]

    def generator_terms(self, real: Tensor, fake: Tensor, slices: Tensor) -> tuple[Tensor, Tensor]:
        """What the autoencoder minimizes: minus the mean logits, and the distance of the features."""
        adversarial, matching = fake.new_zeros(()), fake.new_zeros(())
        pairs = (
            (self.image_discriminator, axial_slices(real, slices), axial_slices(fake, slices)),
            (self.video_discriminator, real, fake),
        )
        for judge, a, b in pairs:
            with torch.no_grad():
                _, wanted = judge(a)
            logits, features = judge(b)
            adversarial = adversarial - logits.float().mean()
            matching = matching + sum(feature_distances(features, wanted))
        return adversarial, matching


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half of mean relu(1 - D(real)) + mean relu(1 + D(fake))."""
    return 0.5 * (torch.relu(1 - real.float()).mean() + torch.relu(1 + fake.float()).mean())


def feature_distances(features: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
    """Mean absolute difference of each pair of feature maps; no gradient reaches `wanted`."""
    return [(a - b.detach()).float().abs().mean() for a, b in zip(features, wanted, strict=True)]


def axial_slices(volumes: Tensor, slices: Tensor) -> Tensor:
    """One axial slice of each volume: (B, 1, Z, X, Y), int64 (B,) -> (B, 1, X, Y)."""
    return volumes[torch.arange(len(volumes), device=volumes.device), :, slices]
