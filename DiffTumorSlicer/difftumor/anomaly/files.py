"""Folders of anomaly models: two networks in one safetensors file, and the card that tells their shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difftumor.networks.guided_classifier import GuidedClassifier, GuidedClassifierArguments
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from difftumor.weights.cards import ModelError
from difftumor.weights.checkpoints import read_checkpoint
from difftumor.weights.folders import write_model_folder
from difftumor.weights.installation import installing
from difftumor.weights.registry import (
    InstalledModel,
    card_of,
    find_model,
    model_path,
    models_folder,
    registered,
    registry,
)

ARCHITECTURE = "guided_diffusion"
PARTS = ("guided_diffusion_unet", "guided_diffusion_classifier")


def write_anomaly_model(
    folder: Path | str,
    unet: GuidedUNet,
    classifier: GuidedClassifier,
    card: Mapping[str, Any],
    *,
    half: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a model; see `weights.folders.write_model_folder`.

    Args:
        folder: of the model.
        unet: trained with the same labels on images of the same size and channels.
        classifier: likewise.
        card: fields of `model.schema.json`; task, architecture and crop_voxels are filled in.
        half: store float16, which costs half of the space.

    Returns:
        the card as written.

    Raises:
        ModelError: the networks do not belong together, or the card is not valid.
    """
    check_pair(unet.arguments, classifier.arguments, card, str(folder))
    tensors = {
        f"{name}.{key}": tensor.half() if half else tensor
        for name, network in (("unet", unet), ("classifier", classifier))
        for key, tensor in network.state_dict().items()
    }
    size = classifier.arguments.image_size
    arguments = {"unet": asdict(unet.arguments), "classifier": asdict(classifier.arguments)}
    completed = {
        "crop_voxels": [size, size],
        "schedule": "linear",
        **card,
        "task": "anomaly",
        "architecture": {"name": ARCHITECTURE, "arguments": _listed(arguments)},
    }
    return write_model_folder(folder, tensors, completed, overwrite=overwrite)


def import_pair(
    first: Path | str,
    second: Path | str,
    model_id: str | None = None,
    *,
    callback: Callable[[int, int], None] | None = None,
) -> InstalledModel:
    """Install a model that is published as two files: they become one model folder.

    Args:
        first: the U-Net and the classifier, in either order.
        second: likewise.
        model_id: id of the registry; needed where several models have the same architecture.
        callback: callback(done, total) in files; may raise, which cancels and leaves nothing behind.

    Raises:
        ModelError: not such a pair, not that model, or it is installed already.
    """
    found = {}
    for number, path in enumerate((first, second)):
        checkpoint = read_checkpoint(path, expect=PARTS)
        found[checkpoint.kind] = checkpoint.tensors
        if callback:
            callback(number + 1, 3)
    names = f"{Path(first).name} and {Path(second).name}"
    if len(found) < 2:
        raise ModelError(
            f"{names} are the same half of a model. Give one file of a U-Net and one of a classifier."
        )
    tensors = {
        f"{prefix}.{key}": tensor
        for prefix, kind in zip(("unet", "classifier"), PARTS, strict=True)
        for key, tensor in found[kind].items()
    }
    entries = [registered(model_id)] if model_id else list(registry().values())
    problem: ModelError | None = None
    for entry in entries:
        if not entry.get("pair"):
            continue
        try:
            networks = networks_from(tensors, entry, names)
        except ModelError as error:
            problem = error
            continue
        with installing(models_folder()):
            write_anomaly_model(model_path(entry), *networks, card_of(entry))
        if callback:
            callback(3, 3)
        return find_model(entry["id"])
    ids = ", ".join(each["id"] for each in registry().values() if each.get("pair"))
    raise problem or ModelError(f"{model_id} is not published as two files; these are: {ids}.")


def networks_from(
    tensors: Mapping[str, Tensor], card: Mapping[str, Any], source: str
) -> tuple[GuidedUNet, GuidedClassifier]:
    """Build both networks from tensors named `unet.*` and `classifier.*`.

    Returns:
        networks in float32, on the CPU.

    Raises:
        ModelError: the card tells no usable shape, or a tensor is missing, too much, or of another size.
    """
    architecture = card.get("architecture", {})
    arguments = architecture.get("arguments", {})
    if architecture.get("name") != ARCHITECTURE or not {"unet", "classifier"} <= arguments.keys():
        raise ModelError(
            f"{source} is no anomaly model: its card describes the architecture "
            f"{architecture.get('name')!r}. Choose another model, or export this one again."
        )
    try:
        of_unet = GuidedUNetArguments(**arguments["unet"])
        of_classifier = GuidedClassifierArguments(**arguments["classifier"])
        check_pair(of_unet, of_classifier, card, source)
        with torch.device("meta"):
            unet, classifier = GuidedUNet(of_unet), GuidedClassifier(of_classifier)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"The card of {source} describes networks that cannot be built: {error} "
            "Export the model again."
        ) from error
    fill(unet, tensors, "unet.", source)
    fill(classifier, tensors, "classifier.", source)
    return unet, classifier


def fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], prefix: str, source: str) -> None:
    """Give a network all its weights, which are all that there are.  Raises: ModelError."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    wanted = network.state_dict()
    wrong = [k for k, v in wanted.items() if k not in found or found[k].shape != v.shape]
    wrong += [k for k in found if k not in wanted]
    if wrong:
        raise ModelError(
            f"{source} does not fit its architecture: {len(wrong)} tensors are missing, too many, or of "
            f"another size, for example {prefix}{wrong[0]}. The file may be cut off or of another model."
        )
    network.load_state_dict({k: v.float() for k, v in found.items()}, strict=True, assign=True)


def check_pair(
    unet: GuidedUNetArguments,
    classifier: GuidedClassifierArguments,
    card: Mapping[str, Any],
    source: str,
) -> None:
    """Raise ModelError unless both networks and the card mean the same images and labels."""
    problem = ""
    healthy = card.get("healthy_index")
    if (unet.image_size, unet.in_channels) != (classifier.image_size, classifier.in_channels):
        problem = (
            f"the U-Net takes {unet.in_channels} channels of {unet.image_size} pixels, the classifier "
            f"{classifier.in_channels} of {classifier.image_size}"
        )
    elif unet.classes not in (None, classifier.classes):
        problem = f"the U-Net knows {unet.classes} labels, the classifier {classifier.classes}"
    elif not isinstance(healthy, int) or not 0 <= healthy < classifier.classes:
        problem = (
            f"healthy_index is {healthy!r}, but must name one of the {classifier.classes} labels "
            f"(0 to {classifier.classes - 1})"
        )
    elif len(card.get("channel_order", ())) != unet.in_channels:
        problem = (
            f"channel_order names {len(card.get('channel_order', ()))} images, the networks take "
            f"{unet.in_channels}"
        )
    if problem:
        raise ModelError(f"{source} is no usable anomaly model: {problem}. Export it again.")


def _listed(value: Any) -> Any:
    """The value with lists for tuples, as JSON reads it back."""
    if isinstance(value, dict):
        return {key: _listed(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
