"""What a training run is: frozen dataclasses, and the command line that fills them.

Lengths are counted in samples (crops) seen, so that they mean the same for any batch size and any number of
devices.  The presets are in training/synthesis/presets.py.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import tyro

CONFIG_VERSION = 1


def limited(default: Any, low: float, high: float, unit: str = "", *, lasting: bool = True) -> Any:
    """Dataclass field with a range.

    Args:
        default: its value unless the user says otherwise.
        low: smallest allowed value.
        high: largest allowed value.
        unit: of the number, for help texts.
        lasting: whether a resumed run must keep the value.
    """
    metadata = {"min": low, "max": high, "unit": unit, "lasting": lasting}
    return field(default=default, metadata=metadata)


def changeable(default: Any) -> Any:
    """Dataclass field without a range that may change when a run is resumed."""
    return field(default=default, metadata={"lasting": False})


def check_ranges(settings: Any) -> None:
    """Raise ValueError if a field of a dataclass lies outside the range in its metadata."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if "min" in item.metadata and not item.metadata["min"] <= value <= item.metadata["max"]:
            raise ValueError(
                f"{item.name} must lie in [{item.metadata['min']}, {item.metadata['max']}]"
                f" {item.metadata['unit']}; got {value}."
            )


class Stage(NamedTuple):
    """From `start` samples on, crops of `edge` mm in batches of `batch`, all processes together."""

    start: int
    edge: int
    batch: int


@dataclass(frozen=True)
class Data:
    """Where crops come from."""

    datalist: Path | None = None
    """JSON list of cases, as `python -m training.data.datalists` writes it from a folder."""
    phantoms: int = limited(0, 0, 10000)
    """Number of generated phantoms used beside the datalist."""
    phantom_tumors: int = limited(12, 0, 200)
    """Lesions per generated phantom."""
    phantom_share: float = limited(1.0, 0, 1)
    """Share of the crops cut from phantoms where there are also other cases; the rest is spread evenly."""
    cache: Path = changeable(Path("runs/cache"))
    """Folder for resampled volumes and generated phantoms."""
    positive_share: float = limited(20 / 21, 0, 1)
    """Stage 1: share of the crops centred on a labelled voxel (published ratio 20:1)."""
    rotate_probability: float = limited(0.1, 0, 1)
    """Chance that a crop is turned by a multiple of 90 degrees about the S axis."""
    early_only: bool = False
    """Stage 2: tumors above 10 mm radius (sphere of the same volume) count as organ."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Optimizer:
    """Adam, a warm-up, a constant rate, and a cosine decay over the last samples."""

    lr: float = limited(3e-4, 0, 1, lasting=False)
    """Learning rate."""
    beta1: float = limited(0.9, 0, 1)
    """Decay of the first moment."""
    beta2: float = limited(0.999, 0, 1)
    """Decay of the second moment."""
    warmup: int = limited(0, 0, 10**12, "samples", lasting=False)
    """Samples over which the rate rises linearly from 0."""
    decay: int = limited(0, 0, 10**12, "samples", lasting=False)
    """Last samples of the run over which the rate falls to 1 % of lr."""
    clip: float = limited(1.0, 0, 1e9, lasting=False)
    """Largest norm of the gradient; 0 switches clipping off."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Averaging:
    """Exponential moving average of the weights."""

    decay: float = limited(0.995, 0, 1, lasting=False)
    """Share of the old average that is kept at each update."""
    every: int = limited(200, 0, 10**12, "samples", lasting=False)
    """Samples between two updates; 0 keeps no average."""
    start: int = limited(40_000, 0, 10**12, "samples", lasting=False)
    """Until then the average is a copy of the weights."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Hardware:
    """Where the run computes.  Under torchrun the processes are those that it started."""

    accelerator: Literal["cpu", "cuda"] = changeable("cpu")
    """Kind of device; there is no quiet change to another one."""
    devices: int = limited(1, 1, 1024, lasting=False)
    """Devices (CPU: processes) per node."""
    nodes: int = limited(1, 1, 4096, lasting=False)
    """Number of machines."""
    precision: Literal["32-true", "bf16-mixed"] = changeable("32-true")
    """Numbers in which the networks compute."""
    microbatch: int = limited(0, 0, 65536, "crops", lasting=False)
    """Most crops in one pass of one device; more are done one after another. 0: no limit."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Reporting:
    """How often the run speaks and saves."""

    stats: int = limited(1000, 1, 10**12, "samples", lasting=False)
    """Samples between two lines of stats.jsonl."""
    checkpoint: int = limited(20_000, 1, 10**12, "samples", lasting=False)
    """Samples between two checkpoints."""
    pictures: int = limited(20_000, 1, 10**12, "samples", lasting=False)
    """Samples between two sample pictures."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AutoencoderNetwork:
    """Arguments of difftumor.networks.vqgan.VQGAN."""

    hidden: int = limited(16, 1, 1024)
    """Channels after the first convolution."""
    embedding_dim: int = limited(8, 1, 1024)
    """Channels of the latent."""
    codes: int = limited(16384, 2, 10**6)
    """Vectors in the codebook."""
    groups: int = limited(32, 1, 1024)
    """Groups of the group norms."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class CodebookTraining:
    """How the quantiser learns."""

    start: int = limited(0, 0, 10**12, "samples", lasting=False)
    """Samples after which latents are quantised and the codes are set from them (published: 0)."""
    decay: float = limited(0.99, 0, 1)
    """Moving average of counts and sums."""
    restart_below: float = limited(1.0, 0, 1e9)
    """A code used less often than this (moving count per step) is replaced by a vector of the batch."""
    limit: float = limited(0.0, 0, 1e9, lasting=False)
    """Codes are kept within +-limit, so that the few extreme ones do not squeeze the normalised latent; 0:
    no limit (published)."""
    commitment: float = limited(0.25, 0, 1e9)
    """Weight of the commitment loss."""
    noise: float = limited(0.0, 0, 10)
    """Before `start`: standard deviation of noise on the latent, standing in for the quantiser."""
    shrink: float = limited(0.0, 0, 10)
    """Before `start`: weight of the mean square of the latent, which the noise would else let grow."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AutoencoderLosses:
    """Weights of the terms of stage 1; 0 leaves a term out."""

    l1: float = limited(4.0, 0, 1e9)
    """Mean absolute difference."""
    mse: float = limited(0.0, 0, 1e9)
    """Mean square difference (not in the paper)."""
    perceptual: float = limited(4.0, 0, 1e9)
    """LPIPS on one axial, sagittal and coronal slice; needs `perceptual_weights`."""
    perceptual_weights: Path | None = None
    """VGG16 of ImageNet with the LPIPS weights, from the user; without it the term is left out."""
    adversarial: float = limited(1.0, 0, 1e9)
    """Generator term and hinge loss of the two discriminators."""
    features: float = limited(4.0, 0, 1e9)
    """Matching of the discriminators' features."""
    discriminator_start: int = limited(80_000, 0, 10**12, "samples")
    """Samples after which the discriminators join."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AutoencoderConfig:
    """A run of stage 1, the autoencoder."""

    run: Path = Path("runs/autoencoder")
    """Folder of the run; the same command resumes what is there."""
    seed: int = limited(1234, 0, 2**31)
    """Seed of weights, crops and noise."""
    samples: int = limited(3_200_000, 1, 10**12, "samples", lasting=False)
    """Length of the run."""
    stages: tuple[tuple[int, int, int], ...] = changeable(((0, 96, 16),))
    """Triples: from so many samples on, crops of this edge (mm, a multiple of 4) in batches of so many."""
    full_depth_from: int = limited(0, 0, 10**12, "samples", lasting=False)
    """Samples after which the decoder's residual blocks at full resolution join, which cost more than half
    of a step; they begin as the identity (published: 0)."""
    network: AutoencoderNetwork = field(default_factory=AutoencoderNetwork)
    codebook: CodebookTraining = field(default_factory=CodebookTraining)
    losses: AutoencoderLosses = field(default_factory=AutoencoderLosses)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    averaging: Averaging = field(default_factory=lambda: Averaging(every=0))
    hardware: Hardware = field(default_factory=Hardware)
    reporting: Reporting = field(default_factory=Reporting)
    dry_run: bool = changeable(False)
    """Print the resolved configuration and stop."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_stages(self.stages, multiple=4)


@dataclass(frozen=True)
class DenoiserNetwork:
    """Arguments of difftumor.networks.latent_unet.LatentUNet, and its schedule."""

    dim: int = limited(24, 8, 1024)
    """Channels at the finest level."""
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of the levels, in units of dim."""
    steps: int = limited(4, 1, 10000)
    """Diffusion steps T of the cosine schedule: 4 (early tumors) or 200 (medium and large)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DiffusionConfig:
    """A run of stage 2, the latent diffusion model."""

    autoencoder: Path = Path("runs/autoencoder")
    """Run folder of stage 1, or a published AutoencoderModel.ckpt."""
    run: Path = Path("runs/latent_diffusion")
    """Folder of the run; the same command resumes what is there."""
    seed: int = limited(1234, 0, 2**31)
    """Seed of weights, crops and noise."""
    samples: int = limited(1_200_000, 1, 10**12, "samples", lasting=False)
    """Length of the run."""
    stages: tuple[tuple[int, int, int], ...] = changeable(((0, 96, 20),))
    """Triples: from so many samples on, crops of this edge (mm, a multiple of 32) in batches of so many; with
    a pool, windows of its latents."""
    pool: int = limited(0, 0, 10**7, "crops")
    """Encode this many crops once and train on windows of their latents; 0 encodes each crop anew."""
    pool_edge: int = limited(96, 32, 512, "mm")
    """Edge of the crops in the pool."""
    mask_weight: float = limited(0.0, 0, 1e6)
    """Extra weight of the loss inside the tumor mask (not in the paper)."""
    own_states: float = limited(0.0, 0, 1, lasting=False)
    """Share of x_t made by the sampler's step from the denoiser's own x_0 at t + 1, not from the true one
    (not in the paper). With T = 4 a step multiplies the error of eps by 263: short training does not get
    it small enough, and the next step must cope with what comes."""
    own_states_from: int = limited(0, 0, 10**12, "samples", lasting=False)
    """Samples after which `own_states` holds."""
    network: DenoiserNetwork = field(default_factory=DenoiserNetwork)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, clip=0.0))
    averaging: Averaging = field(default_factory=Averaging)
    hardware: Hardware = field(default_factory=Hardware)
    reporting: Reporting = field(default_factory=Reporting)
    dry_run: bool = changeable(False)
    """Print the resolved configuration and stop."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_stages(self.stages, multiple=32)


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


class RunConfig(Protocol):
    """What the loop reads of any program's configuration."""

    @property
    def run(self) -> Path:
        """Folder of the run."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def samples(self) -> int:
        """Length of the run."""

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """See `stage_at`."""

    @property
    def optimizer(self) -> Optimizer:
        """Learning rate and its course."""

    @property
    def averaging(self) -> Averaging:
        """Of the weights."""

    @property
    def hardware(self) -> Hardware:
        """Where the run computes."""

    @property
    def reporting(self) -> Reporting:
        """How often it speaks and saves."""

    @property
    def dry_run(self) -> bool:
        """Print the configuration and stop."""


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
        return tyro.extras.overridable_config_cli(presets, args=words, prog=program)
    except ValueError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(2) from error


def as_json(config: RunConfig) -> str:
    """A configuration as indented JSON text."""
    content = {"version": CONFIG_VERSION, **dataclasses.asdict(config)}  # type: ignore[call-overload]
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
