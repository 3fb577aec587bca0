"""Model folders of what was learned from labeled slices: the pixel classifiers, and which features they want.

The diffusion model is not copied; the card names it and the hash of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difftumor.learning.features_model import FeatureModel
from difftumor.learning.pixel_features import FeatureChoice
from difftumor.networks.pixel_classifiers import PixelClassifier, PixelEnsemble
from difftumor.weights.cards import ModelError
from difftumor.weights.checkpoints import read_checkpoint
from difftumor.weights.folders import write_model_folder

ARCHITECTURE = "pixel_classifiers"
KIND = "pixel_classifier_ensemble"
NOTICE = "Learned from a few labeled slices of one case: expect it to work on that case only."


@dataclass(frozen=True, eq=False)
class LearnedModel:
    """Pixel classifiers and what they were made for.

    Attributes:
        ensemble: on unscaled features.
        labels: label of each class but the background.
        names: label -> its name.
        choice: features of the diffusion model.
        fineness: fine pixels per pixel of the diffusion model, along a side.
        features_of: id and sha256 of the diffusion model.
        card: of the folder.
    """

    ensemble: PixelEnsemble
    labels: tuple[int, ...]
    names: dict[int, str]
    choice: FeatureChoice
    fineness: int
    features_of: dict[str, Any]
    card: dict[str, Any]

    def check(self, model: FeatureModel) -> None:
        """Raise ModelError unless this is the diffusion model that the classifiers were trained on."""
        wanted, given = self.features_of.get("sha256"), model.facts.get("sha256")
        if wanted != given:
            raise ModelError(
                f"{self.card['id']} was learned on features of {self.features_of.get('id')} (sha256 "
                f"{str(wanted)[:12]}…), but {model.facts.get('id')} has other weights ({str(given)[:12]}…). "
                "Install the diffusion model that it was learned with."
            )


def write_learned_model(
    folder: Path | str,
    learned: LearnedModel,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a model folder; see `weights.folders.write_model_folder`.

    Returns:
        the card as written.

    Raises:
        ModelError: the folder exists, or cannot be written.
    """
    tensors = {
        f"member_{number:02d}.{key}": tensor
        for number, member in enumerate(learned.ensemble.classifiers())
        for key, tensor in member.state_dict().items()
    }
    return write_model_folder(folder, tensors, learned.card, overwrite=overwrite)


def described(
    model_id: str,
    model: FeatureModel,
    ensemble: PixelEnsemble,
    labels: Mapping[int, str],
    choice: FeatureChoice,
    fineness: int,
    training: Mapping[str, Any],
) -> LearnedModel:
    """What was learned, with a card.

    Args:
        model_id: letters, digits, - and _.
        model: the diffusion model.
        ensemble: on unscaled features.
        labels: label -> its name, in the order of the classes.
        choice: features of the diffusion model.
        fineness: see `LearnedModel`.
        training: what was learned from; JSON-ready.
    """
    features_of = {"id": model.facts["id"], "sha256": model.facts["sha256"]}
    spacing = [size / fineness for size in model.slice_format.spacing_mm]
    kept = ("organs", "modality", "intensity_range", "channel_order", "window_hu", "preparation")
    card: dict[str, Any] = {
        "id": model_id,
        "title": f"Learned from labeled slices: {', '.join(labels.values())}"[:200],
        "description": NOTICE,
        "task": "segmentation",
        **{key: model.card[key] for key in kept if key in model.card},
        "spacing_mm": spacing,
        "label_names": {"0": "background", **{str(k): name for k, name in labels.items()}},
        "architecture": {
            "name": ARCHITECTURE,
            "arguments": {
                "members": ensemble.members,
                "features": ensemble.features,
                "hidden": list(ensemble.hidden),
                "labels": list(labels),
                "blocks": list(choice.blocks),
                "timesteps": list(choice.timesteps),
                "seed": choice.seed,
                "fineness": fineness,
                "features_of": features_of,
            },
        },
        "licence": model.card.get("licence", {"name": "that of its diffusion model"}),
        "training_data": "Labeled slices of one case.",
        "extra": {"learning": dict(training)},
    }
    return LearnedModel(ensemble, tuple(labels), dict(labels), choice, fineness, features_of, card)


def read_learned_model(folder: Path | str) -> LearnedModel:
    """Read a model folder of `write_learned_model`.

    Raises:
        ModelError: another kind of model, or damaged.
    """
    checkpoint = read_checkpoint(folder, expect=KIND)
    card = checkpoint.facts.get("card")
    try:
        if card is None or card["architecture"]["name"] != ARCHITECTURE:
            raise KeyError("architecture")
        told = card["architecture"]["arguments"]
        hidden = tuple(told["hidden"])
        labels = tuple(int(label) for label in told["labels"])
        names = {label: card["label_names"][str(label)] for label in labels}
        choice = FeatureChoice(tuple(told["blocks"]), tuple(told["timesteps"]), told["seed"])
        members = [
            _member(checkpoint.tensors, number, told["features"], len(labels) + 1, hidden)
            for number in range(told["members"])
        ]
        ensemble = PixelEnsemble.of(members).eval().requires_grad_(False)
        return LearnedModel(
            ensemble, labels, names, choice, int(told["fineness"]), dict(told["features_of"]), card
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder} does not hold what its card describes ({error!r}). Learn it again from the labeled slices."
        ) from error


def _member(
    tensors: Mapping[str, Tensor], number: int, features: int, classes: int, hidden: tuple[int, int]
) -> PixelClassifier:
    """One classifier of a folder.  Raises: RuntimeError: tensors are missing or of another size."""
    prefix = f"member_{number:02d}."
    with torch.device("meta"):
        member = PixelClassifier(features, classes, hidden)
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    member.load_state_dict(found, strict=True, assign=True)
    return member.eval()
