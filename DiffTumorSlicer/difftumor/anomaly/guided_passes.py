"""What the samplers of `diffusion.guided` call: two networks, ready for inference, in one precision."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from difftumor.devices import computes_bfloat16
from difftumor.diffusion.guided import class_gradient
from difftumor.networks.guided_classifier import GuidedClassifier
from difftumor.networks.guided_layers import precomputed
from difftumor.networks.guided_unet import GuidedUNet

Network = TypeVar("Network", GuidedUNet, GuidedClassifier)

HALF_CHANNELS = 64  # base channels from which on bfloat16 pays


def ready(network: Network, device: torch.device) -> Network:
    """The network for inference on a device: frozen, because only images need gradients."""
    network.eval().requires_grad_(False)
    # The types of torch do not know that a module takes a memory format.
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def is_half_faster(unet: GuidedUNet, device: torch.device) -> bool:
    """Whether bfloat16 pays: with 32 channels it does not (measured on Zen 4)."""
    return unet.arguments.base_channels >= HALF_CHANNELS and computes_bfloat16(device)


class Passes:
    """The two callables of the samplers, in the precision of the networks.

    What timesteps and label do to each block is computed once: all images of a batch share them.
    """

    def __init__(self, unet: GuidedUNet, classifier: GuidedClassifier, healthy_index: int) -> None:
        self.unet, self.classifier, self.healthy_index = unet, classifier, healthy_index
        self.dtype = next(unet.parameters()).dtype
        self._of_unet: dict[int, dict[nn.Module, Tensor]] = {}
        self._of_classifier: dict[int, dict[nn.Module, Tensor]] = {}

    def denoise(self, x: Tensor, t: int) -> Tensor:
        """Noise in x (B, C, H, W), seen as healthy, float32."""
        if t not in self._of_unet:
            time = torch.tensor([t], device=x.device)
            label = None
            if self.unet.arguments.classes is not None:
                label = torch.full_like(time, self.healthy_index)
            self._of_unet[t] = precomputed(self.unet, self.unet.embed(time, label))
        x = x.to(self.dtype, memory_format=torch.channels_last)
        return self.unet.run(x, self._of_unet[t])[:, : x.shape[1]].float()

    def guide(self, x: Tensor, t: int) -> Tensor:
        """Gradient of log p(healthy), float32."""
        if t not in self._of_classifier:
            embedding = self.classifier.embed(torch.tensor([t], device=x.device))
            self._of_classifier[t] = precomputed(self.classifier, embedding)
        changes = self._of_classifier[t]

        def classify(x: Tensor) -> Tensor:
            x = x.to(self.dtype, memory_format=torch.channels_last)
            return self.classifier.run(x, changes)

        return class_gradient(classify, x, self.healthy_index)
