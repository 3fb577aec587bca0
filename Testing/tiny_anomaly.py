"""A model folder of two very small anomaly networks with filled weights, for tests that need some model."""

from pathlib import Path
from typing import Any

from difftumor.anomaly.files import write_anomaly_model
from difftumor.networks.guided_classifier import GuidedClassifier, GuidedClassifierArguments
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from Testing.weight_filler import fill

CT: dict[str, Any] = {
    "modality": "CT",
    "organs": ["pancreas"],
    "window_hu": [-50, 150],
    "channel_order": ["ct"],
}
MR: dict[str, Any] = {
    "modality": "MR",
    "organs": ["brain"],
    "channel_order": ["t1", "t1c", "t2", "flair"],
}


def tiny_networks(
    channels: int = 1, size: int = 32, classes: int | None = 2
) -> tuple[GuidedUNet, GuidedClassifier]:
    """U-Net and classifier of 32 channels, two levels, one block each."""
    unet = GuidedUNetArguments(size, channels, 32, (1, 2), 1, (size // 2,), classes=classes)
    classifier = GuidedClassifierArguments(
        size, channels, 32, (1, 2), 1, (size // 2,), head_channels=32
    )
    return fill(GuidedUNet(unet)), fill(GuidedClassifier(classifier))


def tiny_card(**fields: Any) -> dict[str, Any]:
    """A valid card; `fields` replace what stands there."""
    card = {
        "id": "tiny-anomaly",
        "title": "A tiny anomaly model",
        "T": 1000,
        "spacing_mm": [2.0, 2.0],
        "intensity_range": [0, 1],
        "healthy_index": 0,
        "licence": {"name": "Apache-2.0"},
        "recommended": {"noise_level": 200, "guidance_scale": 10.0, "steps": 20},
        **CT,
        **fields,
    }
    if card["modality"] != "CT":
        del card["window_hu"]
    return card


def write_tiny_model(folder: Path, *, size: int = 32, half: bool = False, **fields: Any) -> Path:
    """Write the model folder; `fields` replace those of `tiny_card` (`**MR` makes a model of the head)."""
    card = tiny_card(**fields)
    write_anomaly_model(folder, *tiny_networks(len(card["channel_order"]), size), card, half=half)
    return folder
