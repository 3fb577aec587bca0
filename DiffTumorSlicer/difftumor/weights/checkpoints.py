"""Checkpoints: which model a weight file holds, and the tensors that inference needs from it.

The published files, their training dicts, their prefixes and our model folders all end here as one
dictionary of tensors under our names.  Nothing in a file is executed (see `weights.inert_pickle`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from difftumor.weights.cards import WEIGHTS_NAME, Identification, ModelError, read_card
from difftumor.weights.files import StoredTensor, WeightFile
from difftumor.weights.folders import read_model_folder, write_model_folder
from difftumor.weights.kinds import KINDS, Shapes
from difftumor.weights.layouts import open_weights

__all__ = [
    "KINDS",
    "Checkpoint",
    "Identification",
    "identify",
    "read_checkpoint",
    "read_model_folder",
    "write_model_folder",
]

# Where training programs put the weights, best first: the moving average of a diffusion model makes
# its best samples, so `ema` goes before `model`.
WEIGHT_KEYS = (
    "ema",
    "state_dict",
    "model_state_dict",
    "network_state_dict",
    "model",
    "net",
    "network",
)
WRAPPER_PREFIXES = (
    "module.",
    "_orig_mod.",
    "backbone.",
)  # DDP, torch.compile, the published trainers


@dataclass(frozen=True)
class Checkpoint:
    """Weights ready for a network.

    Attributes:
        kind: a key of `KINDS` (for a model folder: of what lies in it).
        tensors: as stored (float32, or float16 in our demonstration models), on the CPU.
        facts: JSON-ready: container, weights ("ema", "state_dict", ...), T, channels, step; and `card`
            for a model folder.
    """

    kind: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(
    path: Path | str,
    expect: str | Collection[str] | None = None,
    *,
    everything: bool = False,
) -> Checkpoint:
    """Read the weights of any known file or model folder.

    Args:
        path: a published file, a safetensors file, or a model folder.
        expect: kind or kinds that are welcome; None welcomes all.
        everything: also the tensors that only training needs (discriminators, perceptual network).

    Returns:
        tensors under the names of our networks: for "difftumor_diffusion" `vqgan.*` (69), `denoise_fn.*` and
        `betas`; for "difftumor_autoencoder" `encoder.*` and so on.

    Raises:
        ModelError: no model, a damaged one, an unknown one, or not of the expected kind.
    """
    path = Path(path)
    if path.is_dir():
        tensors, card = read_model_folder(path)
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        name = _recognise(shapes, path)[0]
        _check_expected(path, name, shapes, expect)
        return Checkpoint(
            name, tensors, {"container": "model_folder", "card": card, **KINDS[name].facts(shapes)}
        )
    with open_weights(path) as opened:
        stored, facts = _find_weights(opened)
        name, stored = _recognise_stored(stored, path)
        shapes = {key: tensor.shape for key, tensor in stored.items()}
        _check_expected(path, name, shapes, expect)
        wanted = [key for key in stored if everything or KINDS[name].keep(key)]
        tensors = {key: stored[key].read() for key in wanted}
    return Checkpoint(name, tensors, {**facts, **KINDS[name].facts(shapes)})


def identify(path: Path | str) -> Identification:
    """Say what a file or folder is, without reading its weights.

    Returns:
        kind "unknown" for the weights of some other network; for a model folder kind "model_folder" with its
        card and the kind of what lies in it (`content`) among the facts.

    Raises:
        ModelError: it holds no weights at all; the message says what it is instead.
    """
    path = Path(path)
    if path.is_dir():
        return _identify_folder(path)
    with open_weights(path) as opened:
        stored, facts = _find_weights(opened)
    try:
        name, stored = _recognise_stored(stored, path)
    except ModelError:
        return Identification(
            "unknown", f"the weights of another network ({_glimpse(stored)})", facts
        )
    shapes = {key: tensor.shape for key, tensor in stored.items()}
    facts |= KINDS[name].facts(shapes)
    return Identification(name, KINDS[name].describe(shapes), facts)


def _identify_folder(path: Path) -> Identification:
    """A model folder, by its card."""
    card = read_card(path)
    content = identify(path / WEIGHTS_NAME)
    return Identification(
        "model_folder",
        f'the model folder of "{card["title"]}" ({content.sentence})',
        {**content.facts, "content": content.kind, "card": card},
    )


def _find_weights(opened: WeightFile) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The state dict inside a file, and plain facts beside it."""
    content = opened.content
    facts: dict[str, Any] = {"container": opened.container}
    if not isinstance(content, dict):
        name = getattr(content, "name", "") or type(content).__name__
        raise opened.problem(
            f"holds a whole Python object ({str(name)[:80]}) instead of a table of tensors; opening it "
            "would run code.",
            "Ask its maker for the state_dict.",
        )
    for key in ("step", "epoch", "global_step"):
        value = content.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            facts[key] = value
    for key in WEIGHT_KEYS:
        inner = content.get(key)
        stored = _tensors_of(opened, inner) if isinstance(inner, dict) else {}
        if stored:
            return stored, {**facts, "weights": key}
    stored = _tensors_of(opened, content)
    if not stored:
        raise opened.problem(
            f"holds no table of tensors (it has: {', '.join(map(str, list(content)[:6])) or 'nothing'}).",
            "Check that it is the right file.",
        )
    return stored, facts


def _tensors_of(opened: WeightFile, mapping: dict[Any, Any]) -> dict[str, StoredTensor]:
    """The tensors of a state dict, with the prefixes of wrappers taken off."""
    found: dict[str, StoredTensor] = {}
    for key, value in mapping.items():
        tensor = opened.stored_tensor(value) if isinstance(key, str) else None
        if tensor is None:
            continue
        name = key
        while name.startswith(WRAPPER_PREFIXES):
            name = name.partition(".")[2]
        if name in found:
            raise opened.problem(
                f"holds the tensor {name[:80]} twice.", "Save it again without wrappers."
            )
        found[name] = tensor
    return found


def _recognise_stored(
    stored: dict[str, StoredTensor], path: Path
) -> tuple[str, dict[str, StoredTensor]]:
    """Kind of a state dict, and its tensors without whatever stands before the known names."""
    shapes = {key: tensor.shape for key, tensor in stored.items()}
    name, prefix = _recognise(shapes, path)
    inside = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    return name, inside


def _recognise(shapes: Shapes, path: Path) -> tuple[str, str]:
    """Kind and prefix of the tensors' names.  Raises: ModelError: nothing that we know."""
    for name, kind in KINDS.items():
        first, *others = kind.signature
        for key in shapes:
            if not key.endswith(first):
                continue
            prefix = key.removesuffix(first)
            if prefix and not prefix.endswith("."):
                continue
            barred = tuple(prefix + beginning for beginning in kind.absent)
            if all(prefix + other in shapes for other in others) and not (
                barred and any(each.startswith(barred) for each in shapes)
            ):
                return name, prefix
    raise ModelError(
        f"{path.name} holds the weights of a network that this program does not know "
        f"({_glimpse(shapes)}). Check that it is the right file."
    )


def _check_expected(
    path: Path, name: str, shapes: Shapes, expect: str | Collection[str] | None
) -> None:
    """Say what the file is and where it belongs, if it is not what was asked for."""
    wanted = {expect} if isinstance(expect, str) else set(expect or ())
    if wanted and name not in wanted:
        uses = " or ".join(sorted({KINDS[each].use for each in wanted}))
        raise ModelError(
            f"{path.name} is {KINDS[name].describe(shapes)}, which is for {KINDS[name].use}. "
            f"Here a model for {uses} is needed."
        )


def _glimpse(names: Collection[str]) -> str:
    """A few of many names."""
    return f"{len(names)} tensors, the first is {next(iter(names))[:80]}"
