"""Write a segmenter as a model folder that the program opens: `python -m training.segmentation.export --help`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from difftumor.synthesis.blending import WINDOW_HU
from difftumor.weights.folders import write_model_folder
from training.loop.export_program import run_export
from training.loop.runs import read_checkpoint_file
from training.segmentation.segmenter import BEST_NAME

LABEL_NAMES = {"0": "background", "1": "organ", "2": "tumor"}


@dataclass(frozen=True)
class Export:
    """Model folder from a run of stage 3: the weights with the best validation Dice."""

    out: Path
    """Folder to write: model.safetensors and model.json."""
    card: Path
    """JSON with what the run does not know: id, title, license, citation, recommended, training_data ..."""
    run: Path = Path("runs/segmentation")
    """Run folder."""
    precision: Literal["float32", "float16"] = "float32"
    """Numbers in the file; float16 halves its size."""
    overwrite: bool = False
    """Replace a model folder that is there."""


def export(settings: Export) -> dict[str, Any]:
    """Write a segmentation model.

    Returns:
        its card as written.

    Raises:
        FileNotFoundError, RunError: if the run is missing, damaged or was never validated.
        ModelError: if the card is not valid or the folder exists.
    """
    config = json.loads((settings.run / "config.json").read_text(encoding="utf-8"))
    stored = read_checkpoint_file(settings.run / BEST_NAME)
    dtype = getattr(torch, settings.precision)
    tensors = {key: value.contiguous().to(dtype) for key, value in stored["model"].items()}
    card = json.loads(settings.card.read_text(encoding="utf-8"))
    card |= described(config)
    card.setdefault("extra", {})["training"] = {
        "samples": stored["samples"],
        "validation_dice": stored["dice"],
        **{
            name: config[name]
            for name in ("seed", "real_only", "synthetic_only", "synthesis", "batch_dice")
        },
        **{name: config["data"][name] for name in ("folds", "fold")},
    }
    return write_model_folder(settings.out, tensors, card, overwrite=settings.overwrite)


def described(config: dict[str, Any]) -> dict[str, Any]:
    """What a card says of how a network wants its input, from a run's config.json."""
    network, spacing = config["network"], config["spacing_mm"]
    architecture: dict[str, Any] = {"name": f"segmentation_{network['architecture']}"}
    if network["channels"]:
        architecture["arguments"] = {"channels": network["channels"]}
    return {
        "task": "segmentation",
        "organs": [config["data"]["organ"]],
        "modality": "CT",
        "architecture": architecture,
        "spacing_mm": [spacing] * 3,
        "crop_voxels": [int(config["stages"][-1][1] / spacing)] * 3,
        "window_hu": list(WINDOW_HU),
        "intensity_range": [0, 1],
        "channel_order": ["CT"],
        "label_names": LABEL_NAMES,
    }


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return run_export(Export, export, "training.segmentation.export", args)


if __name__ == "__main__":
    raise SystemExit(main())
