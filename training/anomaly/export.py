"""Write the two networks of anomaly detection as a model folder: `python -m training.anomaly.export --help`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor

from difftumor.anomaly.files import write_anomaly_model
from difftumor.anomaly.slices import SliceFormat
from difftumor.networks.guided_classifier import GuidedClassifier
from difftumor.networks.guided_unet import GuidedUNet
from training.anomaly.classifier import network_arguments as classifier_arguments
from training.anomaly.config import GuidedClassifierSize, GuidedUNetSize
from training.anomaly.diffusion import network_arguments as unet_arguments
from training.data.slice_batches import HEALTHY
from training.data.slice_sets import SliceSet, read_slice_set
from training.loop.export_program import run_export
from training.loop.runs import CHECKPOINT_NAME, read_checkpoint_file

SizeT = TypeVar("SizeT", GuidedUNetSize, GuidedClassifierSize)


@dataclass(frozen=True)
class Export:
    """Model folder from a diffusion network and its classifier."""

    out: Path
    """Folder to write: model.safetensors and model.json."""
    card: Path
    """JSON with what the runs do not know: id, title, organs, modality, recommended, license ..."""
    diffusion: Path = Path("runs/anomaly_diffusion")
    """Run folder of the diffusion network."""
    classifier: Path = Path("runs/anomaly_classifier")
    """Run folder of the classifier."""
    precision: Literal["float32", "float16"] = "float32"
    """Numbers in the file; float16 halves its size."""
    overwrite: bool = False
    """Replace a model folder that is there."""


def export(settings: Export) -> dict[str, Any]:
    """Write an anomaly model with averaged weights.

    Returns:
        its card as written.

    Raises:
        FileNotFoundError, RunError, SliceSetError: if a run or its slice set is missing or damaged.
        ValueError: if the runs do not belong together.
        ModelError: if the card is not valid or the folder exists.
    """
    runs = {
        name: read_run(folder)
        for name, folder in (("unet", settings.diffusion), ("classifier", settings.classifier))
    }
    sets = {name: read_slice_set(run.data / "train") for name, run in runs.items()}
    made_for = sets["unet"].format
    if made_for != sets["classifier"].format:
        raise ValueError(
            f"{settings.diffusion} and {settings.classifier} were trained on slices of different formats. "
            "Train both on one slice set."
        )
    if runs["unet"].config["timesteps"] != runs["classifier"].config["timesteps"]:
        raise ValueError(
            f"{settings.diffusion} and {settings.classifier} have different --timesteps. Train both with the same."
        )
    channels = len(made_for.channel_order)
    unet = GuidedUNet(
        unet_arguments(_size(GuidedUNetSize, runs["unet"]), made_for.image_size, channels)
    )
    classifier = GuidedClassifier(
        classifier_arguments(
            _size(GuidedClassifierSize, runs["classifier"]), made_for.image_size, channels
        )
    )
    unet.load_state_dict(runs["unet"].weights)
    classifier.load_state_dict(runs["classifier"].weights)
    card = json.loads(settings.card.read_text(encoding="utf-8"))
    card |= described(made_for) | {"T": runs["unet"].config["timesteps"]}
    card.setdefault("extra", {})["training"] = {
        name: {
            "samples": run.samples,
            "seed": run.config["seed"],
            "slices": len(sets[name]),
            "patients": len(sets[name].patients),
            "slice_set": origin(sets[name]),
        }
        for name, run in runs.items()
    }
    half = settings.precision == "float16"
    return write_anomaly_model(
        settings.out, unet, classifier, card, half=half, overwrite=settings.overwrite
    )


def described(made_for: SliceFormat) -> dict[str, Any]:
    """What a card says of the slices that a model was trained on."""
    facts: dict[str, Any] = {
        "schedule": "linear",
        "modality": made_for.modality,
        "spacing_mm": list(made_for.spacing_mm),
        "intensity_range": list(made_for.intensity_range),
        "channel_order": list(made_for.channel_order),
        "healthy_index": HEALTHY,
    }
    if made_for.window_hu is not None:
        facts["window_hu"] = list(made_for.window_hu)
    usual = {field.name: field.default for field in dataclasses.fields(SliceFormat)}
    unusual = {
        name: list(value) if isinstance(value, tuple) else value
        for name in ("centred", "transposed", "percentiles", "scaled_by")
        if (value := getattr(made_for, name)) != usual[name]
    }
    return facts | ({"preparation": unusual} if unusual else {})


@dataclass(frozen=True, eq=False)
class Run:
    """What an export takes from a run folder."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    samples: int

    @property
    def data(self) -> Path:
        """Folder of its slice sets."""
        return Path(self.config["data"]["folder"])


def _size(kind: type[SizeT], run: Run) -> SizeT:
    """Shape of a network as its run's config.json says it."""
    stored: dict[str, Any] = run.config["network"]
    told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return kind(**told)


def read_run(folder: Path) -> Run:
    """Configuration and averaged weights of a run."""
    stored = read_checkpoint_file(folder / CHECKPOINT_NAME)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Run(config, stored["ema"], int(stored["samples"]))


def origin(slices: SliceSet) -> dict[str, Any]:
    """Where a slice set comes from, without what the card says elsewhere."""
    return {key: value for key, value in slices.settings.items() if key != "format"}


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return run_export(Export, export, "training.anomaly.export", args)


if __name__ == "__main__":
    raise SystemExit(main())
