"""Segmentation models: published files and model folders, ready for use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.networks.segmenters import CHANNELS, SegmenterArguments, segmenter_from, size_factor
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.checkpoints import Checkpoint, read_checkpoint
from difftumor.weights.loading import cached, facts_of
from difftumor.weights.models import InstalledModel, ModelError, registry

# Fields of a card that tell how a network wants its input; a file of unknown origin has none.
PREPARATION = (
    *("task", "organs", "modality", "spacing_mm", "crop_voxels", "window_hu", "intensity_range"),
    *("channel_order", "label_names"),
)
RECOMMENDED: dict[str, Any] = {
    # DiffTumor's extra script drops pieces of less than 3 mm equivalent radius.
    "min_diameter_mm": 6.0,
    "tumor_threshold": None,  # the most probable class, as published
}


class SegmentationModel:
    """A network of crops and what its input and output mean.

    Attributes:
        network: (B, C, X, Y, Z) -> logits (B, K, X, Y, Z).
        kind: which architecture, a key of `checkpoints.KINDS`.
        card: the model's card.
        facts: id, title, sha256, license, organs, notes; JSON-ready.
        device, device_name: where it computes.
        window: voxels of a crop.
        tumor_label, organ_label: classes; None: the network has no class for the organ.
        recommended: `RECOMMENDED`, and what the card says otherwise.
    """

    def __init__(
        self,
        network: nn.Module,
        kind: str,
        card: Mapping[str, Any],
        facts: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.kind, self.card, self.facts = kind, dict(card), dict(facts)
        self.device, self.device_name = device, str(device)
        names = {int(label): name for label, name in card["label_names"].items()}
        self.label_names = [names[label] for label in sorted(names)]
        self.tumor_label, self.organ_label = _labels(names, card.get("organs", []))
        x, y, z = card.get("crop_voxels", (96, 96, 96))
        self.window: tuple[int, int, int] = (x, y, z)
        self.recommended = {**RECOMMENDED, **card.get("recommended", {})}

    @property
    def classes(self) -> int:
        """Number of classes K, background included."""
        return len(self.label_names)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size that the network was trained with."""
        x, y, z = self.card["spacing_mm"]
        return x, y, z

    @property
    def organs(self) -> list[str]:
        """Organs that it segments tumors of; empty: the card does not say."""
        return list(self.card.get("organs", []))

    def scaled(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """HU to the range of the network's input, clipped at the ends of its window; any shape."""
        (low, high), (start, end) = self.card["window_hu"], self.card["intensity_range"]
        unit = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
        scaled: NDArray[np.float32] = unit * np.float32(end - start) + np.float32(start)
        return scaled

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Run the network.

        Args:
            x: (B, C, X, Y, Z) of `scaled` values, sizes as `window` or other multiples of its factor.

        Returns:
            (B, K, X, Y, Z), float32 on the model's device.
        """
        found: Tensor = self.network(x.to(self.device, torch.float32))
        return found


def load_segmentation_models(
    models: Sequence[str],
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callable[[str, int, int], None],
) -> list[SegmentationModel]:
    """Open segmentation models, or take them from the cache.

    Args:
        models: ids of the registry, published files, or model folders.
        device: see `devices.resolve_device`.
        cache: kept between requests; holds the models of the last one.
        callback: called as callback(stage, done, total).

    Raises:
        ModelError: not installed, no segmentation model, damaged, or models that cannot work together.
        DeviceError: no such device.
    """
    loaded = cached("segmentation", models, device, cache, callback, open_model)
    _check_ensemble(loaded)
    return loaded


def open_model(installed: InstalledModel, device: torch.device) -> SegmentationModel:
    """Read the weights of one model and build its network.

    Raises:
        ModelError: not a segmentation model, damaged, or of another architecture.
    """
    path = installed.path
    checkpoint = read_checkpoint(path, expect=tuple(CHANNELS))
    card, notes = _complete_card(installed, checkpoint)
    if card["task"] != "segmentation":
        raise with_remedy(
            ModelError(f'{path} is for the task "{card["task"]}", by its card.'),
            Remedy("choose_model", {"task": "segmentation"}),
        )
    channels, classes = checkpoint.facts["channels"], checkpoint.facts["classes"]
    arguments = {
        "in_channels": channels,
        "classes": classes,
        **card["architecture"].get("arguments", {}),
    }
    if card["modality"] != "CT" or channels != 1:
        raise ModelError(
            f"{path} takes {channels} images ({', '.join(card['channel_order'])}); only models of one CT "
            "are used here. Choose another model."
        )
    if classes != len(card["label_names"]):
        raise ModelError(
            f"{path} has {classes} classes, its card names {len(card['label_names'])}. Export the "
            "model again."
        )
    try:
        network = segmenter_from(checkpoint.kind, checkpoint.tensors, arguments)
        factor = size_factor(checkpoint.kind, SegmenterArguments(**arguments))
    except ValueError as error:
        raise ModelError(
            f"{path} does not fit the architecture {checkpoint.kind}: {error}. The file may be cut off "
            "or of another model."
        ) from None
    if any(size % factor for size in card.get("crop_voxels", ())):
        raise ModelError(
            f"{path}: crops of {card['crop_voxels']} voxels are no multiples of {factor}, which this "
            "network needs. Correct crop_voxels in its model.json."
        )
    facts = facts_of(installed, card) | {
        "architecture": checkpoint.kind,
        "organs": card["organs"],
        "notes": notes,
    }
    return SegmentationModel(network, checkpoint.kind, card, facts, device)


def _complete_card(
    installed: InstalledModel, checkpoint: Checkpoint
) -> tuple[dict[str, Any], list[str]]:
    """The card; a file of unknown origin is taken to be prepared as the published ones are."""
    card = dict(checkpoint.facts.get("card") or installed.card)
    if "label_names" in card:
        return card, []
    like = next(
        entry
        for entry in registry().values()
        if entry["kind"] == checkpoint.kind and entry["source"] == "difftumor"
    )
    known = {key: like[key] for key in PREPARATION if key in like} | {"organs": []}
    note = (
        f"{installed.path.name} does not say how it wants its input; it was given what the published "
        "DiffTumor models want (1 mm, -175 to 250 HU; 0 background, 1 organ, 2 tumor)."
    )
    return {**known, "architecture": {"name": checkpoint.kind}, **card}, [note]


def _labels(names: Mapping[int, str], organs: Sequence[str]) -> tuple[int, int | None]:
    """Classes of tumor and organ by their names.  Raises: ModelError: no tumor."""
    tumor = [k for k, name in names.items() if _words(name) & {"tumor", "tumour", "lesion"}]
    if len(tumor) != 1 or sorted(names) != list(range(len(names))):
        raise ModelError(
            f"the model's labels are {dict(names)}; 0, 1, ... are needed, one of them called tumor. "
            "Correct label_names in its model.json."
        )
    organ = [k for k, name in names.items() if name in ("organ", *organs) and k != tumor[0]]
    return tumor[0], organ[0] if organ else None


def _words(name: str) -> set[str]:
    """Words of a label's name, in lower case."""
    return set(name.lower().replace("_", " ").replace("-", " ").split())


def _check_ensemble(models: Sequence[SegmentationModel]) -> None:
    """Refuse models of one request that differ in what they see or say (ModelError)."""
    first = models[0]
    for other in models[1:]:
        for what, ours, theirs in (
            ("voxel size", first.spacing_mm, other.spacing_mm),
            ("labels", first.label_names, other.label_names),
            ("organs", first.organs or other.organs, other.organs or first.organs),
        ):
            if ours != theirs:
                raise ModelError(
                    f"{first.facts['title']} and {other.facts['title']} cannot work together: their "
                    f"{what} differ ({ours} and {theirs}). Choose models of one organ."
                )
