"""What can be asked of the engine: one frozen dataclass per task, its ranges and defaults.

Panels, the command line and the worker read defaults, limits, units and help texts from these fields
and from nowhere else. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Vector = tuple[float, float, float]
Organ = Literal["liver", "pancreas", "kidney"]
TumorSize = Literal["tiny", "small", "medium", "large"]
Blend = Literal["feather", "paper"]
Grain = Literal["auto", "scan", "model"]
Plane = Literal["axial", "coronal", "sagittal"]
MapKind = Literal["guided", "one-sided", "signed", "absolute"]
Normalisation = Literal["slice", "volume", "none"]
ThresholdRule = Literal["fixed", "otsu"]
KeptParts = Literal["painted", "all"]
P = TypeVar("P")

MODELLED = "modelled"  # model id of the modelling-based baseline, which needs no weights
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


def number(default: Any, low: float, high: float, unit: str, text: str) -> Any:
    """A field with a range, which `check_ranges` knows."""
    return field(default=default, metadata={"min": low, "max": high, "unit": unit, "help": text})


def said(default: Any, text: str) -> Any:
    """A field with a help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in patient space.

    `rotation_deg` is extrinsic about R, then A, then S; the radii lie along the rotated axes.
    """

    center_ras: Vector
    radii_mm: Vector = number((10.0, 10.0, 10.0), 0.5, 200.0, "mm", "Half axes of the ellipsoid.")
    rotation_deg: Vector = number(
        (0.0, 0.0, 0.0), -360.0, 360.0, "degrees", "Turns about R, then A, then S."
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

    model: str = said(MODELLED, "Model id, model folder or published file; 'modelled' needs none.")
    ellipsoid: Ellipsoid | None = said(None, "Where the tumor shall be.")
    size: TumorSize | None = said(None, "Draw random shapes of this size in the organ instead.")
    count: int | None = number(None, 1, 20, "", "Number of random tumors; default: drawn (1 to 3).")
    organ: Organ = said("liver", "Anatomy at the place: decides placement and the paper's blend.")
    clip_to_organ: bool = said(True, "Cut the tumor at the organ's border (needs an organ mask).")
    steps: int = number(50, 1, 200, "steps", "DDIM steps of T = 200 models; T = 4 models take 4.")
    seed: int = number(0, 0, 2**63 - 1, "", "The same seed gives the same tumor.")
    feather_mm: float = number(
        1.5,
        0.0,
        4.0,
        "mm",
        "Width (sigma) of the soft rim between tumor and scan; 0 is a hard edge.",
    )
    blend: Blend = said(
        "feather", "'feather' leaves all outside the rim as it is; 'paper' as published, per organ."
    )
    grain: Grain = said(
        "auto", "'scan' keeps the scan's noise in the tumor, 'model' takes what the model paints."
    )

    def __post_init__(self) -> None:
        if isinstance(self.ellipsoid, Mapping):
            object.__setattr__(self, "ellipsoid", from_dict(Ellipsoid, self.ellipsoid))
        elif self.ellipsoid is not None and not isinstance(self.ellipsoid, Ellipsoid):
            raise ValueError(f"ellipsoid must have a centre and radii, got {self.ellipsoid!r}")
        if (self.ellipsoid is None) == (self.size is None):
            raise ValueError(
                "give either an ellipsoid (centre and radii) or a random size, not "
                + ("both" if self.size else "neither")
            )
        check_ranges(self)


@dataclass(frozen=True)
class AnomalyParameters:
    """One request for an anomaly heat map. None means: as the model recommends."""

    model: str = said("demo-abdomen-anomaly", "Model id or model folder.")
    noise_level: int | None = number(
        None,
        1,
        999,
        "steps",
        "N: how much noise is added before the image is rewritten as healthy.",
    )
    guidance_scale: float | None = number(
        None, 0.0, 10000.0, "", "S: how strongly the classifier pulls the image towards healthy."
    )
    steps: int | None = number(
        None, 2, 1000, "levels", "Levels of the whole noise schedule; more are slower and finer."
    )
    plane: Plane = said("axial", "The plane in which slices are computed.")
    slices: tuple[int, int] | None = said(
        None,
        "First and one past the last voxel index along the plane's normal; default: the organ.",
    )
    map_kind: MapKind | None = said(
        None,
        "'guided' compares with the rewriting at S = 0, 'one-sided' and 'signed' with the input; "
        "'absolute' is the papers' map.",
    )
    smoothing_mm: float | None = number(
        None, 0.0, 20.0, "mm", "Width (sigma) of the smoothing of the map."
    )
    normalisation: Normalisation | None = said(
        None, "What a map is scaled by before the threshold: each slice, the volume, or nothing."
    )
    threshold_rule: ThresholdRule = said("fixed", "A fixed threshold, or Otsu's of each map.")
    threshold: float = number(0.35, 0.0, 1.0, "", "Fixed threshold of the scaled map.")
    gate: bool = said(
        True, "Leave slices unmarked that the classifier calls healthy, or with a faint map."
    )
    largest_component: bool = said(False, "Keep only the largest connected part.")
    guidance_stop: float = number(
        0.0, 0.0, 1.0, "", "Share of the last denoising steps that are left unguided."
    )
    guidance_weighting: Literal["constant", "noise"] = said(
        "constant", "Guidance as published, or scaled by the noise that is still there."
    )
    reference_compat: bool = said(
        False, "Index the steps as the published code does, for comparison with it."
    )
    seed: int = number(0, 0, 2**63 - 1, "", "Of the published code's first noise; else unused.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", checked_slices(self.slices))
        check_ranges(self)


@dataclass(frozen=True)
class SegmentationParameters:
    """One request for a segmentation of tumors in a CT. None means: as the first model recommends."""

    models: tuple[str, ...] = said(
        ("demo-liver-segmenter",),
        "Model ids, model folders or published files; several are combined.",
    )
    overlap: float = number(
        0.75, 0.0, 0.9, "", "Share that neighboring windows have in common; less is faster."
    )
    flips: bool = said(False, "Average over the eight mirror images of each window (8 x slower).")
    clip_to_organ: bool = said(
        True, "Tumor only inside the organ mask, as published; else up to 20 mm beyond it."
    )
    min_diameter_mm: float | None = number(
        None, 0.0, 50.0, "mm", "Connected pieces of a smaller equivalent diameter are removed."
    )
    tumor_threshold: float | None = number(
        None, 0.0, 1.0, "", "Probability from which a voxel is tumor; else the most probable class."
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
    """One request to learn from the labelled slices of a case. None means: as the model recommends."""

    model: str = said(
        "demo-head-anomaly",
        "Diffusion model whose features tell pixels apart: id or folder of an anomaly or representation model.",
    )
    plane: Plane = said("axial", "The plane in which slices were labelled and are segmented.")
    labelled: tuple[int, ...] | None = said(
        None,
        "Slices that are labelled throughout, also those without any label; default: those with a label.",
    )
    slices: tuple[int, int] | None = said(
        None,
        "First and one past the last slice that is segmented; default: the organ.",
    )
    keep: KeptParts = said(
        "painted", "Keep the parts that are connected to a painted voxel, or all that is found."
    )
    members: int = number(
        5, 1, 32, "", "Pixel classifiers of the ensemble; their disagreement is the uncertainty."
    )
    steps: int = number(300, 1, 100000, "steps", "Steps of the training of the classifiers.")
    blocks: tuple[int, ...] | None = said(
        None, "Decoder blocks of the diffusion model whose outputs are the features."
    )
    timesteps: tuple[int, ...] | None = said(
        None, "Noise levels at which features are taken, in steps of the diffusion model."
    )
    seed: int = number(0, 0, 2**63 - 1, "", "Of the noise, of the first weights and of the order.")

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


def checked_slices(slices: Any) -> tuple[int, int] | None:
    """First and end of slices as a pair, or None.  Raises: ValueError: they are none."""
    if slices is None:
        return None
    pair = tuple(slices)
    if len(pair) != 2 or any(type(v) is not int for v in pair) or not 0 <= pair[0] < pair[1]:
        raise ValueError(f"slices must be first and end, 0 <= first < end; got {slices!r}")
    return pair[0], pair[1]


def check_ranges(parameters: Any) -> None:
    """Compare every field with its own `min`, `max` or choices.

    Raises: ValueError: with name, value and what is allowed.
    """
    hints = get_type_hints(type(parameters))
    for item in fields(parameters):
        value = getattr(parameters, item.name)
        if value is None:
            continue
        choices = [c for part in (hints[item.name], *get_args(hints[item.name]))
                   for c in get_args(part) if isinstance(c, str)]  # fmt: skip
        if choices and value not in choices:
            raise ValueError(f"{item.name} must be one of {', '.join(choices)}; got {value!r}")
        if hints[item.name] in (bool, str) and not isinstance(value, hints[item.name]):
            kind = "true or false" if hints[item.name] is bool else "a text"
            raise ValueError(f"{item.name} must be {kind}, got {value!r}")
        if "min" not in item.metadata:
            continue
        low, high, unit = (item.metadata[key] for key in ("min", "max", "unit"))
        several = any(
            get_origin(h) is tuple for h in (hints[item.name], *get_args(hints[item.name]))
        )
        for part in value if several and isinstance(value, tuple) else (value,):
            whole = hints[item.name] in (int, int | None)
            if isinstance(part, bool) or not isinstance(part, int if whole else (int, float)):
                kind = "a whole number" if whole else "a number"
                raise ValueError(f"{item.name} must be {kind}, got {part!r}")
            if not low <= part <= high:
                raise ValueError(
                    f"{item.name} must be {low:g} to {high:g} {unit}".rstrip() + f", got {part:g}"
                )


def to_dict(parameters: Any) -> dict[str, Any]:
    """JSON-ready dictionary of a parameter pack."""
    return asdict(parameters)


def from_dict(kind: type[P], values: Mapping[str, Any]) -> P:
    """Parameter pack from a dictionary that came over the wire or from a side-car.

    Raises: ValueError: unknown or missing names, values out of range.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{kind.__name__} does not know {', '.join(unknown)}")
    needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{kind.__name__} needs {', '.join(missing)}")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
