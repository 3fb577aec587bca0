"""Write a diffusion model as a model folder for `difftumor learn`: `python -m training.learning.export -h`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from difftumor.learning.features_model import write_representation_model
from training.anomaly.export import described, origin, read_run
from training.data.slice_sets import read_slice_set
from training.learning.diffusion_sources import open_diffusion
from training.loop.export_program import run_export


@dataclass(frozen=True)
class Export:
    """Model folder from a run of training.learning.representation."""

    out: Path
    """Folder to write: model.safetensors and model.json."""
    card: Path
    """JSON with what the run does not know: id, title, organs, license ...; extra.features {"blocks", "timesteps"} are
    the features that `difftumor learn` takes unless told otherwise."""
    run: Path = Path("runs/representation")
    """Run folder."""
    precision: Literal["float32", "float16"] = "float32"
    """Numbers in the file; float16 halves its size."""
    overwrite: bool = False
    """Replace a model folder that is there."""


def export(settings: Export) -> dict[str, Any]:
    """Write a representation model with averaged weights.

    Returns:
        its card as written.

    Raises:
        FileNotFoundError: the run or its slice set is missing or damaged.
        RunError: likewise.
        SliceSetError: likewise.
        ModelError: the card is not valid or the folder exists.
    """
    run = read_run(settings.run)
    slices = read_slice_set(run.data / "train")
    source = open_diffusion(settings.run, slices.format)
    card = json.loads(settings.card.read_text(encoding="utf-8"))
    card |= {k: v for k, v in described(slices.format).items() if k != "healthy_index"}
    card |= {"T": run.config["timesteps"], "schedule": run.config["schedule"]}
    card.setdefault("extra", {})["training"] = {
        "samples": run.samples,
        "seed": run.config["seed"],
        "learn_from": run.config["learn_from"],
        "slices": len(slices),
        "patients": len(slices.patients),
        "slice_set": origin(slices),
    }
    half = settings.precision == "float16"
    return write_representation_model(
        settings.out, source.unet, card, half=half, overwrite=settings.overwrite
    )


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return run_export(Export, export, "training.learning.export", args)


if __name__ == "__main__":
    raise SystemExit(main())
