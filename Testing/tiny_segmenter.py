"""Model folders of very small segmentation networks, for tests that need some model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difftumor.networks.segmenters import (
    SegmenterArguments,
    build_segmenter,
    published_tensors,
)
from difftumor.segmentation.model import SegmentationModel
from difftumor.weights.checkpoints import write_model_folder
from Testing.weight_filler import fill

CHANNELS = (4, 8, 8)
WINDOW = [32, 32, 32]


def tiny_card(**fields: Any) -> dict[str, Any]:
    """A valid card; `fields` replace what stands there."""
    return {
        "id": "tiny-segmenter",
        "title": "A tiny segmenter",
        "task": "segmentation",
        "organs": ["liver"],
        "modality": "CT",
        "architecture": {"name": "segmentation_unet", "arguments": {"channels": list(CHANNELS)}},
        "spacing_mm": [1.0, 1.0, 1.0],
        "crop_voxels": WINDOW,
        "window_hu": [-175, 250],
        "intensity_range": [0, 1],
        "channel_order": ["CT"],
        "label_names": {"0": "background", "1": "organ", "2": "tumor"},
        "licence": {"name": "Apache-2.0"},
        **fields,
    }


def tiny_unet() -> nn.Module:
    """U-Net of three levels with filled weights."""
    return fill(build_segmenter("segmentation_unet", SegmenterArguments(channels=CHANNELS)))


def write_tiny_segmenter(folder: Path, **fields: Any) -> Path:
    """Write the model folder; `fields` replace those of `tiny_card`."""
    write_model_folder(folder, published_tensors(tiny_unet()), tiny_card(**fields))
    return folder


class ByHU(nn.Module):
    """A 'network' that a person can predict: tumor below 80 HU, organ up to 160, background above."""

    def forward(self, x: Tensor) -> Tensor:
        hu = x * 425 - 175
        tumor, background = 80 - hu, hu - 160
        return torch.cat([background, torch.zeros_like(hu), tumor], dim=1) / 10


def model_by_hu(**fields: Any) -> SegmentationModel:
    """A segmentation model around `ByHU`."""
    facts = {"id": "by-hu", "title": "By HU", "sha256": "0" * 64, "organs": ["liver"], "notes": []}
    return SegmentationModel(
        ByHU(), "segmentation_unet", tiny_card(**fields), facts, torch.device("cpu")
    )
