"""Options and steps that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from difftumor.commands.console import Reporter
from difftumor.devices import resolve_device
from difftumor.images.volumes import Volume, check_ct, read_volume
from difftumor.parameters import MODELLED
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.models import ModelError, find_model


@dataclass(kw_only=True)
class CommonOptions:
    """Options of every computing command."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    quiet: bool = False
    """Print results and errors only."""
    overwrite: bool = False
    """Replace existing outputs; without it they are refused."""


def read_scan(path: Path, series: str | None, reporter: Reporter) -> Volume:
    """Read a CT and pass on what its reader thinks of it."""
    volume = read_volume(path, series=series)
    for sentence in check_ct(volume):
        reporter.note(f"Note: {sentence}")
    return volume


def resolved_model(model: str) -> str:
    """An id as it is, and a path in full, as side-cars keep it."""
    return str(Path(model).resolve()) if Path(model).exists() else model


SYNTHESIS_TIME = (
    "two cores: about 5 s for an early tumor, half a minute with a T = 200 model and 50 steps"
)


def tell_device(
    device: str, model: str, reporter: Reporter, expected: str = SYNTHESIS_TIME
) -> None:
    """Check the device, and say so where we chose the CPU: it is never a silent fallback.

    Args:
        expected: what is known of the time on a CPU.

    Raises:
        DeviceError: there is no such device, or it cannot compute.
    """
    if model == MODELLED and device == "auto":
        return
    chosen = resolve_device(device, note=reporter.note)
    if device == "auto" and chosen.type == "cpu":
        reporter.note(f"No GPU was found; computing on the CPU ({expected}).")


def model_of_slices(model: str, tasks: Sequence[str | None]) -> tuple[str, ...]:
    """Images that a diffusion model of slices takes.

    Args:
        tasks: that its card may name.

    Raises:
        ModelError: not installed, or a model for something else.
    """
    card = find_model(model).card
    if card.get("task") not in tasks or not card.get("channel_order"):
        named = " or ".join(name for name in tasks if name)
        raise with_remedy(
            ModelError(
                f"{model} is no {named} model but one for {card.get('task') or 'something else'}."
            ),
            Remedy("choose_model", {"task": named}),
        )
    return tuple(card["channel_order"])
