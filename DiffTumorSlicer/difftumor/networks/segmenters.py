"""The three segmentation networks of DiffTumor: U-Net, nnU-Net (DynUNet) and Swin UNETR, by MONAI.

Chen et al., CVPR 2024, stage 3.  Logits of background, organ and tumor for crops of 1 mm voxels.  Names of
tensors are those of the published files, which come from MONAI 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Published widths: of each level; of Swin UNETR that of the first, which the others follow.
CHANNELS: dict[str, tuple[int, ...]] = {
    "segmentation_unet": (16, 32, 64, 128, 256),
    "segmentation_nnunet": (32, 64, 128, 256, 320),
    "segmentation_swinunetr": (48,),
}
ALIASES = "skip_layers."  # DynUNet lists its layers a second time under this name
UNUSED = "swinViT.norm."  # in the published files, but no layer of the network
# Which of each 2 x 2 x 2 voxels are merged.  MONAI 0.9 took two of them twice and two never; weights
# that were trained so are wrong in any other order.
MERGED = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))


@dataclass(frozen=True)
class SegmenterArguments:
    """Shape of a network; the defaults are those of the published files.

    Attributes:
        in_channels: images, 1 for CT.
        classes: background, organ, tumor.
        channels: width of each level (Swin UNETR: of the first, a multiple of 12); None: as published.
    """

    in_channels: int = 1
    classes: int = 3
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.channels is not None:  # JSON gives lists
            object.__setattr__(self, "channels", tuple(self.channels))


class HistoricalPatchMerging(nn.Module):
    """Halves the resolution as MONAI 0.9 did: (B, D, H, W, C) to (B, D/2, H/2, W/2, 2C), see MERGED."""

    def __init__(
        self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, spatial_dims: int = 3
    ) -> None:
        super().__init__()
        if spatial_dims != 3:
            raise ValueError(f"this layer is for volumes, not for {spatial_dims} dimensions")
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Merge; odd axes are padded with zeros at their end."""
        d, h, w = x.shape[1:4]
        x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2, 0, d % 2))
        parts = [x[:, i::2, j::2, k::2] for i, j, k in MERGED]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


def build_segmenter(kind: str, arguments: SegmenterArguments | None = None) -> nn.Module:
    """Make a network with random weights.

    Args:
        kind: "segmentation_unet", "segmentation_nnunet" or "segmentation_swinunetr".
        arguments: its shape; None: as published.

    Returns:
        (B, in_channels, X, Y, Z) -> logits (B, classes, X, Y, Z), each size a multiple of `size_factor`.

    Raises:
        ValueError: no such network.
    """
    # Late, because MONAI takes seconds to import and only segmentation needs it.
    from monai.networks.nets.dynunet import DynUNet
    from monai.networks.nets.swin_unetr import SwinUNETR
    from monai.networks.nets.unet import UNet

    a = arguments or SegmenterArguments()
    channels = a.channels or CHANNELS.get(kind, ())
    halvings = len(channels) - 1
    if kind == "segmentation_unet":
        return UNet(
            spatial_dims=3,
            in_channels=a.in_channels,
            out_channels=a.classes,
            channels=channels,
            strides=(2,) * halvings,
            num_res_units=2,
        )
    if kind == "segmentation_nnunet":
        return DynUNet(
            spatial_dims=3,
            in_channels=a.in_channels,
            out_channels=a.classes,
            kernel_size=(3,) * len(channels),
            strides=(1, *(2,) * halvings),
            upsample_kernel_size=(2,) * halvings,
            filters=channels,
            norm_name="instance",
            res_block=False,
        )
    if kind == "segmentation_swinunetr":
        merging: Any = HistoricalPatchMerging  # MONAI takes a class, but types an instance
        return SwinUNETR(
            in_channels=a.in_channels,
            out_channels=a.classes,
            feature_size=channels[0],
            depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24),
            window_size=7,
            downsample=merging,
        )
    raise ValueError(f"there is no segmentation network {kind!r}; there are {', '.join(CHANNELS)}")


def size_factor(kind: str, arguments: SegmenterArguments | None = None) -> int:
    """What the sizes of a crop must be multiples of."""
    if kind == "segmentation_swinunetr":
        return 32
    channels = (arguments and arguments.channels) or CHANNELS[kind]
    return 1 << (len(channels) - 1)


def published_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Weights of a network under the published names, each once; what training programs export."""
    return {
        key.replace(".mlp.linear", ".mlp.fc"): tensor
        for key, tensor in network.state_dict().items()
        if not key.startswith(ALIASES)
    }


def segmenter_from(
    kind: str, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build a network with given weights, frozen and ready for use.

    Args:
        kind: see `build_segmenter`.
        tensors: under the published names; those of `ALIASES` and `UNUSED` may be there or not.
        arguments: of the model's card, as of `SegmenterArguments`.

    Raises:
        ValueError: the weights do not fit; names the first that does not.
    """
    if any(".mlp.linear1." in key for key in tensors):
        raise ValueError(
            "these weights come from a Swin UNETR of MONAI itself. Its versions merge voxels in "
            "different orders, and the file does not say which; with the wrong one the result is wrong"
        )
    try:
        shape = SegmenterArguments(**(arguments or {}))
        with torch.random.fork_rng(devices=[]):  # weights that are overwritten below
            network = build_segmenter(kind, shape)
    except TypeError as error:
        raise ValueError(f"the arguments of the architecture are wrong ({error})") from None
    wanted = published_tensors(network)
    wrong = [k for k, v in wanted.items() if k not in tensors or tensors[k].shape != v.shape]
    wrong += [k for k in tensors if k not in wanted and not k.startswith((ALIASES, UNUSED))]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors are missing, unknown or of another size, for example {wrong[0]}"
        )
    ours = {key.replace(".mlp.fc", ".mlp.linear"): tensors[key] for key in wanted}
    network.load_state_dict(ours, strict=False)  # what lacks are the aliases
    return network.eval().requires_grad_(False)
