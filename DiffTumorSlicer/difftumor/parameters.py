"""What can be asked of the engine: one frozen dataclass per task, its ranges and defaults.

Panels, the command line, the worker and the documentation read defaults, limits, units and help texts from these
fields and from nowhere else. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, TypeVar

from difftumor.fields import check_ranges, number, option

Vector = tuple[float, float, float]
Organ = Literal["liver", "pancreas", "kidney"]
TumorSize = Literal["tiny", "small", "medium", "large"]
Blend = Literal["feather", "paper"]
Grain = Literal["auto", "scan", "model"]
Plane = Literal["axial", "coronal", "sagittal"]
MapKind = Literal["guided", "one-sided", "signed", "absolute"]
Normalization = Literal["slice", "volume", "none"]
ThresholdRule = Literal["fixed", "otsu"]
KeptParts = Literal["painted", "all"]
P = TypeVar("P")

MODELLED = "modelled"  # model id of the modeling-based baseline, which needs no weights
# TotalSegmentator v2 numbers, in which organ maps are read and written.
ORGAN_LABELS: dict[str, tuple[int, ...]] = {"liver": (5,), "pancreas": (7,), "kidney": (2, 3)}

# What the card of an anomaly model that recommends nothing is taken to mean.
ANOMALY_RECOMMENDED: dict[str, Any] = {
    "noise_level": 250,
    "guidance_scale": 10.0,
    "steps": 100,
    "floor": 0.0,
    "map_kind": "guided",
    "smoothing_mm": 1.0,
    "normalisation": "slice",
    "gate_probability": 0.5,
}


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in patient space.

    `rotation_deg` is extrinsic about R, then A, then S; the radii lie along the rotated axes.
    """

    center_ras: Vector = option(help="Center of the ellipsoid, RAS mm.", aliases=("center",))
    radii_mm: Vector = number(
        (10.0, 10.0, 10.0), 0.5, 200.0, "mm", "Half axes of the ellipsoid.", aliases=("radii",)
    )
    rotation_deg: Vector = number(
        *((0.0, 0.0, 0.0), -360.0, 360.0, "degrees"),
        "Rotation of the ellipsoid about R, then A, then S.",
        aliases=("rotation",),
    )

    def __post_init__(self) -> None:
        for name in ("center_ras", "radii_mm", "rotation_deg"):
            given = getattr(self, name)
            try:
                value = tuple(float(v) for v in given)
            except (TypeError, ValueError):
                value = ()
            if len(value) != 3 or not all(math.isfinite(v) for v in value):
                raise ValueError(f"{name} must be three finite numbers, got {given!r}")
            object.__setattr__(self, name, value)
        check_ranges(self)


@dataclass(frozen=True)
class SynthesisParameters:
    """One request for synthetic tumors: either an ellipsoid or random shapes in an organ."""

    model: str = option(
        MODELLED,
        "What paints the tumor: model id, model folder or published file; 'modelled' needs no weights.",
    )
    ellipsoid: Ellipsoid | None = option(None, "Where the tumor is placed.")
    size: TumorSize | None = option(
        None,
        "Size of the tumor; without an ellipsoid, shape and place in the organ are drawn.",
        aliases=("random",),
    )
    count: int | None = number(
        *(None, 1, 20, ""),
        "Number of random tumors; default: 1 to 3, drawn, if tiny or small, else 1.",
    )
    organ: Organ = option(
        "liver",
        "Organ that the tumor is in; decides placement and the paper's blend.",
    )
    clip_to_organ: bool = option(True, "Cut the tumor at the organ's border; needs an organ mask.")
    steps: int = number(
        *(50, 1, 200, "steps"),
        "Sampling steps of T = 200 models, more are finer and slower; T = 4 models always take 4.",
    )
    seed: int = number(
        0, 0, 2**63 - 1, "", "The same seed, place and settings give the same tumor again."
    )
    feather_mm: float = number(
        *(1.5, 0.0, 4.0, "mm"),
        "Width (sigma) of the soft rim between tumor and scan: 0 is a hard edge, 4 blurs small tumors.",
        aliases=("feather",),
    )
    blend: Blend = option(
        "feather",
        "'feather' changes nothing outside the rim; 'paper' blends as published, per organ.",
    )
    grain: Grain = option(
        "auto",
        "'scan' keeps the scan's noise in the tumor, 'model' takes what the model paints; 'auto' is the model's own.",
    )

    def __post_init__(self) -> None:
        if isinstance(self.ellipsoid, Mapping):
            object.__setattr__(self, "ellipsoid", from_dict(Ellipsoid, self.ellipsoid))
        elif self.ellipsoid is not None and not isinstance(self.ellipsoid, Ellipsoid):
            raise ValueError(f"ellipsoid must have a center and radii, got {self.ellipsoid!r}")
        if (self.ellipsoid is None) == (self.size is None):
            raise ValueError(
                "give either an ellipsoid (center and radii) or a random size, not "
                + ("both" if self.size else "neither")
            )
        check_ranges(self)


@dataclass(frozen=True)
class AnomalyParameters:
    """One request for an anomaly heat map. None means: as the model recommends."""

    model: str = option(
        "demo-abdomen-anomaly",
        "The model that knows what healthy looks like: model id or model folder.",
    )
    noise_level: int | None = number(
        *(None, 1, 999, "steps"),
        "N: noise added before the image is rewritten as healthy; more lets larger things change and takes "
        "longer, too much forgets the anatomy.",
    )
    guidance_scale: float | None = number(
        None,
        0.0,
        10000.0,
        "",
        "S: how strongly the classifier pulls the image toward healthy; 0 only adds and removes noise, too much "
        "destroys the organ.",
    )
    steps: int | None = number(
        None, 2, 1000, "levels", "Levels of the whole noise schedule; more are slower and finer."
    )
    plane: Plane = option("axial", "Plane of the slices.")
    slices: tuple[int, int] | None = option(
        None,
        "Voxel indices along the plane's normal, half open, or one index; default: all of the organ.",
    )
    map_kind: MapKind | None = option(
        None,
        "'guided' compares with the rewriting at S = 0, 'one-sided' and 'signed' with the input; "
        "'absolute' is the papers' map.",
        aliases=("map",),
    )
    smoothing_mm: float | None = number(
        *(None, 0.0, 20.0, "mm"),
        "Width (sigma) of the smoothing of the map within a slice; larger merges spots and blurs small lesions.",
        aliases=("smoothing",),
    )
    normalisation: Normalization | None = option(
        None,
        "What a map is scaled by before the threshold: the maximum of each slice, that of all slices, or nothing.",
    )
    threshold_rule: ThresholdRule = option("fixed", "A fixed threshold, or Otsu's of each map.")
    threshold: float = number(
        0.35, 0.0, 1.0, "", "Value of the scaled map above which a voxel is marked."
    )
    gate: bool = option(
        True, "Leave slices unmarked that the classifier calls healthy, or whose map is faint."
    )
    largest_component: bool = option(
        False, "Keep only the largest connected part of what is marked."
    )
    guidance_stop: float = number(
        0.0,
        0.0,
        1.0,
        "",
        "Share of the last denoising steps that are left unguided; 0 as published.",
    )
    guidance_weighting: Literal["constant", "noise"] = option(
        "constant", "Guidance as published, or scaled by the noise that is still there."
    )
    reference_compat: bool = option(
        False, "Index the steps as the published code does, for comparison with it."
    )
    seed: int = number(
        0,
        0,
        2**63 - 1,
        "",
        "Of the first noise of the published code (reference_compat); else unused.",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", checked_slices(self.slices))
        check_ranges(self)


@dataclass(frozen=True)
class SegmentationParameters:
    """One request for a segmentation of tumors in a CT. None means: as the first model recommends."""

    models: tuple[str, ...] = option(
        ("demo-liver-segmenter",),
        "What segments: model ids, model folders or published files; the probabilities of several are averaged.",
        aliases=("model",),
    )
    overlap: float = number(
        0.75,
        0.0,
        0.9,
        "",
        "Share that neighboring windows have in common; 0.5 needs an eighth of the windows of 0.75.",
    )
    flips: bool = option(
        False, "Average over the eight mirror images of each window; 8 times slower."
    )
    clip_to_organ: bool = option(
        True, "Tumor only inside the organ mask, as published; else up to 20 mm beyond it."
    )
    min_diameter_mm: float | None = number(
        *(None, 0.0, 50.0, "mm"),
        "Connected pieces of a smaller equivalent diameter are removed, 0 keeps all; default: as the model recommends.",
        aliases=("min-diameter",),
    )
    tumor_threshold: float | None = number(
        *(None, 0.0, 1.0, ""),
        "Probability from which a voxel is tumor, lower finds more, also what is none; default: the most probable "
        "class.",
        aliases=("threshold",),
    )

    def __post_init__(self) -> None:
        given = self.models
        if (
            not isinstance(given, tuple | list)
            or not given
            or not all(isinstance(model, str) and model for model in given)
        ):
            raise ValueError(f"models must be one or several names of models, got {given!r}")
        object.__setattr__(self, "models", tuple(given))
        if len(set(given)) < len(given):
            raise ValueError(f"a model is named twice: {', '.join(given)}")
        check_ranges(self)


@dataclass(frozen=True)
class LearningParameters:
    """One request to learn from the labeled slices of a case. None means: as the model recommends."""

    model: str = option(
        "demo-head-anomaly",
        "Diffusion model whose features tell pixels apart: id or folder of an anomaly or representation model.",
    )
    plane: Plane = option("axial", "Plane of the slices, labeled and segmented.")
    labelled: tuple[int, ...] | None = option(
        None,
        "Voxel indices of the slices that are labeled throughout, also those with no tumor; default: those with a "
        "label.",
    )
    slices: tuple[int, int] | None = option(
        None,
        "Segment only these voxel indices along the plane's normal, half open; default: all of the organ.",
    )
    keep: KeptParts = option(
        "painted",
        "'painted' keeps the parts that are connected to something painted, 'all' keeps all that is found.",
    )
    members: int = number(
        5, 1, 32, "", "Pixel classifiers of the ensemble; their disagreement is the uncertainty."
    )
    steps: int = number(
        300,
        1,
        100000,
        "steps",
        "Training steps of the classifiers; more are slower and follow the labels more closely.",
    )
    blocks: tuple[int, ...] | None = option(
        None,
        "Decoder blocks of the diffusion model that give features; default: as the model recommends.",
    )
    timesteps: tuple[int, ...] | None = option(
        None,
        "Noise levels at which features are taken, in diffusion steps; default: as the model recommends.",
    )
    seed: int = number(0, 0, 2**63 - 1, "", "Of the noise, the first weights and the order.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", checked_slices(self.slices))
        for name in ("labelled", "blocks", "timesteps"):
            given = getattr(self, name)
            if given is None:
                continue
            value = tuple(given)
            if not value or any(type(v) is not int or v < 0 for v in value):
                raise ValueError(f"{name} must be whole numbers of 0 or more; got {given!r}")
            object.__setattr__(self, name, tuple(sorted(set(value))))
        check_ranges(self)


@dataclass(frozen=True)
class AppliedParameters:
    """One request to segment a case with what was learned before, from this case or another."""

    model: str = option(help="What was learned: id of an installed model, or its folder.")
    plane: Plane = option("axial", "Plane of the slices.")
    slices: tuple[int, int] | None = option(
        None, "Voxel indices along the plane's normal, half open; default: all of the organ."
    )
    features: str | None = option(
        None, "Diffusion model whose features are used; default: the one it was learned with."
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", checked_slices(self.slices))
        check_ranges(self)


def checked_slices(slices: Any) -> tuple[int, int] | None:
    """First and end of slices as a pair, or None.  Raises: ValueError: they are none."""
    if slices is None:
        return None
    pair = tuple(slices)
    if len(pair) != 2 or any(type(v) is not int for v in pair) or not 0 <= pair[0] < pair[1]:
        raise ValueError(f"slices must be first and end, 0 <= first < end; got {slices!r}")
    return pair[0], pair[1]


def to_dict(parameters: Any) -> dict[str, Any]:
    """JSON-ready dictionary of a parameter pack."""
    return asdict(parameters)


def from_dict(kind: type[P], values: Mapping[str, Any]) -> P:
    """Parameter pack from a dictionary that came over the wire or from a side-car.

    Raises:
        ValueError: unknown or missing names, values out of range.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{kind.__name__} does not know {', '.join(unknown)}")
    needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{kind.__name__} needs {', '.join(missing)}")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
