"""LPIPS (Zhang et al. 2018) on VGG16 features; the weights come from the user.

Keys are those of the published autoencoder file, `perceptual_model.net.slice1.0.weight` and so on, so that the file
itself can be given; or a dictionary made of torchvision's VGG16 (`features.N.*`) and the LPIPS linear layers
(`lin0.model.1.weight` ...).  Neither is distributed here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from difftumor.weights.checkpoints import read_checkpoint

# Convolutions of VGG16 by their position in torchvision's list, grouped by the pooling between them.
SLICES = (
    ((0, 1, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
# Mean and spread of ImageNet in the range [-1, 1], from the LPIPS paper's code.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
UNIT_EPS = 1e-10


class ScalingLayer(nn.Module):
    """Gray image in [-1, 1] -> three channels as VGG16 expects them."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 3, H, W)."""
        return (x - self.shift) / self.scale


class PerceptualLoss(nn.Module):
    """LPIPS of pairs of gray images; frozen, always in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net = nn.Module()
        for number, layers in enumerate(SLICES, start=1):
            block = nn.Module()
            for position, channels_in, channels_out in layers:
                channels = 3 if position == 0 else channels_in
                block.add_module(str(position), nn.Conv2d(channels, channels_out, 3, padding=1))
            self.net.add_module(f"slice{number}", block)
            linear = nn.Module()
            linear.model = nn.Sequential(
                nn.Identity(), nn.Conv2d(layers[-1][2], 1, 1, bias=False)
            )  # position 0 is a dropout layer in the published file
            self.add_module(f"lin{number - 1}", linear)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PerceptualLoss:  # noqa: ARG002
        """Stay in evaluation mode whatever the caller asks."""
        return super().train(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps after ReLU 1_2, 2_2, 3_3, 4_3 and 5_3 of images (B, 1, H, W)."""
        x = self.scaling_layer(x)
        maps = []
        for number, layers in enumerate(SLICES, start=1):
            if number > 1:
                x = functional.max_pool2d(x, 2)
            block = self.net.get_submodule(f"slice{number}")
            for position, _, _ in layers:
                x = torch.relu(block.get_submodule(str(position))(x))
            maps.append(x)
        return maps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean LPIPS distance of images (B, 1, H, W) with values in [-1, 1]; H, W at least 16."""
        total = x.new_zeros(())
        for level, (a, b) in enumerate(zip(self.features(x), self.features(y), strict=True)):
            linear = self.get_submodule(f"lin{level}.model.1")
            total = total + linear((unit(a) - unit(b)).square()).mean()
        return total


def unit(features: Tensor) -> Tensor:
    """Features (B, C, H, W) with length 1 at each place."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + UNIT_EPS)


def load_perceptual_loss(path: Path) -> PerceptualLoss:
    """Read the user's weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it lacks some of the tensors; the message names the first.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path} with LPIPS weights. Give the right path, or leave "
            "--losses.perceptual-weights out to train without the perceptual term."
        )
    if path.suffix == ".ckpt":
        tensors = read_checkpoint(path, everything=True).tensors
    else:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    model = PerceptualLoss()
    state = {key: _found(tensors, key, path) for key in model.state_dict() if "scaling" not in key}
    model.load_state_dict(state, strict=False)
    return model


def _found(tensors: dict[str, Tensor], key: str, path: Path) -> Tensor:
    """A tensor by its published name, its name without the prefix, or torchvision's name."""
    parts = key.split(".")
    torchvision = f"features.{parts[2]}.{parts[3]}" if parts[0] == "net" else key
    for name in (f"perceptual_model.{key}", key, torchvision):
        if name in tensors:
            return tensors[name]
    raise ValueError(
        f"{path} has no tensor {key} (nor {torchvision}). It must hold VGG16's convolutions and the "
        "LPIPS linear layers, as the published AutoencoderModel.ckpt does."
    )
