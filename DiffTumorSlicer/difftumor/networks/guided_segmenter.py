"""The noise predictor fine-tuned into a segmenter: `out` becomes SiLU and a new convolution.

Alshenoudy et al., "Semi-supervised brain tumor segmentation using diffusion models": the group norm of the last
layer is dropped, all other weights come from the diffusion model.  Keys are the published ones (`out.1.*`).
"""

import torch
from torch import Tensor, nn

from difftumor.networks.guided_layers import check_image, zeroed
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments


class GuidedSegmenter(GuidedUNet):
    """Class scores of each pixel of a noised image.

    Args:
        arguments: those of the diffusion model.
        classes: number of labels, background included.
        freeze_encoder: input and middle blocks are not trained (published default).
    """

    def __init__(
        self, arguments: GuidedUNetArguments, classes: int = 4, *, freeze_encoder: bool = True
    ) -> None:
        super().__init__(arguments)
        self.freeze_encoder = freeze_encoder
        channels = arguments.base_channels * arguments.channel_mult[0]
        self.out = nn.Sequential(nn.SiLU(), zeroed(nn.Conv2d(channels, classes, 3, padding=1)))

    def begin_with(self, unet: GuidedUNet) -> None:
        """Take over all weights of a diffusion model but those of its last layers."""
        weights = {k: v for k, v in unet.state_dict().items() if not k.startswith("out.")}
        self.load_state_dict(weights | {f"out.{k}": v for k, v in self.out.state_dict().items()})

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: noised image x_t (B, C, H, W).
            t: its original timesteps (B,).
            y: class labels (B,) of a class-conditional diffusion model; else None.

        Returns:
            (B, classes, H, W).
        """
        check_image(x.shape, self.arguments.in_channels, self.factor)
        embedding = self.embed(t, y)
        # Not by requires_grad: the time embedding, too, learns from the output blocks only.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            h, skips = self.encoder(x, embedding)
        for last in self.decoder(h, skips, embedding):
            h = last
        return self.out(h)
