"""Options and steps that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from difftumor.console import Reporter
from difftumor.devices import resolve_device
from difftumor.images.volumes import Volume, check_ct, parse_mask_argument, read_mask, read_volume
from difftumor.parameters import MODELLED, ORGAN_LABELS


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


def read_organ(
    argument: str | None, volume: Volume, reporter: Reporter
) -> tuple[NDArray[np.bool_] | None, Path | None, int | None]:
    """Read `MASK[:label]` on the scan's grid: mask, its path and its label."""
    if argument is None:
        return None, None, None
    path, label = parse_mask_argument(argument)
    mask = read_mask(path, label, reference=volume.grid, warn=reporter.note)
    return mask, path, label


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
    Raises: DeviceError: there is no such device, or it cannot compute.
    """
    if model == MODELLED and device == "auto":
        return
    chosen = resolve_device(device, note=reporter.note)
    if device == "auto" and chosen.type == "cpu":
        reporter.note(f"No GPU was found; computing on the CPU ({expected}).")


def organ_of_label(label: int | None) -> str | None:
    """Organ name of a TotalSegmentator v2 number, None if it is none of ours."""
    return next((organ for organ, numbers in ORGAN_LABELS.items() if label in numbers), None)
