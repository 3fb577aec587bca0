"""What a training run is: frozen dataclasses, and the command line that fills them.

Lengths are counted in samples (crops) seen, so that they mean the same for any batch size and any number of
devices.  What a program alone needs is in its folder's config.py, its presets in presets.py.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import tyro

from difftumor.fields import check_ranges, number, option
from difftumor.options import registry

CONFIG_VERSION = 1


class Stage(NamedTuple):
    """From `start` samples on, crops of `edge` mm in batches of `batch`, all processes together."""

    start: int
    edge: int
    batch: int


@dataclass(frozen=True)
class Checked:
    """Settings whose fields are compared with their ranges when they are made."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Optimizer(Checked):
    """Adam, a warm-up, a constant rate, and a cosine decay over the last samples."""

    lr: float = number(3e-4, 0, 1, "", "Learning rate.", lasting=False)
    beta1: float = number(0.9, 0, 1, "", "Decay of the first moment.")
    beta2: float = number(0.999, 0, 1, "", "Decay of the second moment.")
    warmup: int = number(
        0, 0, 10**12, "samples", "Samples over which the rate rises linearly from 0.", lasting=False
    )
    decay: int = number(
        *(0, 0, 10**12, "samples"),
        "Last samples of the run over which the rate falls to 1 % of lr.",
        lasting=False,
    )
    clip: float = number(
        1.0, 0, 1e9, "", "Largest norm of the gradient; 0 switches clipping off.", lasting=False
    )


@dataclass(frozen=True)
class Averaging(Checked):
    """Exponential moving average of the weights."""

    decay: float = number(
        0.995, 0, 1, "", "Share of the old average that is kept at each update.", lasting=False
    )
    every: int = number(
        200, 0, 10**12, "samples", "Samples between two updates; 0 keeps no average.", lasting=False
    )
    start: int = number(
        *(40_000, 0, 10**12, "samples"),
        "Until then the average is a copy of the weights.",
        lasting=False,
    )


@dataclass(frozen=True)
class Hardware(Checked):
    """Where the run computes.  Under torchrun the processes are those that it started."""

    accelerator: Literal["cpu", "cuda"] = option(
        "cpu", "Kind of device; there is no quiet change to another one.", lasting=False
    )
    devices: int = number(1, 1, 1024, "", "Devices (CPU: processes) per node.", lasting=False)
    nodes: int = number(1, 1, 4096, "", "Number of machines.", lasting=False)
    precision: Literal["32-true", "bf16-mixed"] = option(
        "32-true", "Numbers in which the networks compute.", lasting=False
    )
    microbatch: int = number(
        *(0, 0, 65536, "crops"),
        "Most crops in one pass of one device; more are done one after another. 0: no limit.",
        lasting=False,
    )


@dataclass(frozen=True)
class Reporting(Checked):
    """How often the run speaks and saves."""

    stats: int = number(
        1000, 1, 10**12, "samples", "Samples between two lines of stats.jsonl.", lasting=False
    )
    checkpoint: int = number(
        20_000, 1, 10**12, "samples", "Samples between two checkpoints.", lasting=False
    )
    pictures: int = number(
        20_000, 1, 10**12, "samples", "Samples between two sample pictures.", lasting=False
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked):
    """What every program asks for; a program's own configuration adds to it."""

    run: Path = option(
        Path("runs/run"), "Folder of the run; the same command resumes what is there."
    )
    seed: int = number(
        1234, 0, 2**31, "", "Seed of the weights, of the noise and of what is drawn."
    )
    samples: int = number(1_000_000, 1, 10**12, "samples", "Length of the run.", lasting=False)
    optimizer: Optimizer = Optimizer()
    averaging: Averaging = Averaging(every=0)
    hardware: Hardware = Hardware()
    reporting: Reporting = Reporting()
    dry_run: bool = option(False, "Print the resolved configuration and stop.", lasting=False)

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """Triples of start, edge and batch, see `stage_at`."""
        raise NotImplementedError

    @property
    def leaves_weights_out(self) -> bool:
        """Whether a part of the run does not use some of the trained parameters."""
        return False


@dataclass(frozen=True, kw_only=True)
class SliceRun(RunConfig):
    """A run on slices, whose size is that of the slice set."""

    batch: int = number(
        10, 1, 65536, "slices", "Slices per step, all processes together.", lasting=False
    )

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """One stage; the edge does not matter."""
        return ((0, 0, self.batch),)


def check_stages(stages: tuple[tuple[int, int, int], ...], multiple: int) -> None:
    """Raise ValueError unless stages begin at 0, follow each other, and fit the networks."""
    starts = [start for start, _, _ in stages]
    if not stages or starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(f"Stages begin at 0 samples and follow each other; got starts {starts}.")
    for _, edge, batch in stages:
        if edge % multiple or edge <= 0:
            raise ValueError(f"A crop edge in --stages is a multiple of {multiple} mm; got {edge}.")
        if batch < 1:
            raise ValueError(f"A batch in --stages has at least 1 crop; got {batch}.")


def stage_at(stages: tuple[tuple[int, int, int], ...], seen: int) -> Stage:
    """The stage that holds after `seen` samples."""
    return max(Stage(*stage) for stage in stages if stage[0] <= seen)


ConfigT = TypeVar("ConfigT", bound=RunConfig)


def read_command_line(
    presets: dict[str, tuple[str, ConfigT]], program: str, args: list[str] | None = None
) -> ConfigT:
    """Configuration that a command line asks for: a preset's name, then what differs from it.

    Args:
        presets: name -> (one line of help, configuration).
        program: as typed, for usage texts.
        args: words after the program's name; default those of this process. A "--" before them is left out:
            `torchrun -m training.synthesis.autoencoder -- demo --run ...` needs one, as it would take --run for an
            option of its own.

    Raises:
        SystemExit: 2 on usage errors, 0 after --help.
    """
    words = sys.argv[1:] if args is None else args
    words = words[1:] if words[:1] == ["--"] else words
    try:
        return tyro.extras.overridable_config_cli(
            presets, args=words, prog=program, registry=registry()
        )
    except ValueError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(2) from error


def as_json(config: RunConfig) -> str:
    """A configuration as indented JSON text."""
    content = {"version": CONFIG_VERSION, **dataclasses.asdict(config)}
    return json.dumps(content, indent=2, default=str) + "\n"


def lasting_values(config: Any, prefix: str = "") -> dict[str, str]:
    """The values that a resumed run must keep, as dotted names -> JSON text."""
    values: dict[str, str] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if not item.metadata.get("lasting", True) or item.name == "run":
            continue
        if dataclasses.is_dataclass(value):
            values |= lasting_values(value, f"{prefix}{item.name}.")
        else:
            values[f"{prefix}{item.name}"] = json.dumps(value, default=str)
    return values
