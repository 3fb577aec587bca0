"""What a scene keeps of the module: the chosen nodes, and one pack of parameters per task.

Packs are made from the engine's dataclasses, so defaults, ranges and choices stand there and nowhere
else. Where the engine says None for "not given", a parameter node has no word; 0 and "" say it here.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLScriptedModuleNode,
    vtkMRMLSegmentationNode,
)
from slicer.parameterNodeWrapper import (
    Choice,
    Default,
    WithinRange,
    parameterNodeWrapper,
    parameterPack,
)

from difftumor.parameters import (
    AnomalyParameters,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
)
from DiffTumorSlicerLib.scene.heat_display import TABLES
from DiffTumorSlicerLib.scene.results import OVERLAYS
from DiffTumorSlicerLib.translation import tr as _

SLICE_RANGES = ("slice", "visible", "organ")
WAYS = (
    "trained",
    "learned",
)  # of segmenting: with a trained model, or learning from painted slices
SCHEMA_VERSION = 1  # of what a scene keeps; larger ones come from a newer module
NOT_GIVEN: dict[type, Any] = {int: 0, float: 0.0, str: ""}


def pack_of(
    dataclass: type,
    defaults: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
    more: Mapping[str, Any] | None = None,
) -> type:
    """Parameter pack with the simple fields of an engine dataclass.

    Ranges become `WithinRange`, choices `Choice`. Fields that are packs themselves are left out: a place
    is a node's, not a number's.

    Args:
        dataclass: its fields carry `min` and `max` in their metadata (`difftumor.parameters`).
        defaults: where a panel starts from another value than the engine does.
        without: fields that a panel keeps in another way.
        more: name -> annotated type, of what a panel keeps in their place.

    Returns:
        a new class; its names are the dataclass's.
    """
    hints = get_type_hints(dataclass)
    annotations = {
        item.name: declared
        for item in fields(dataclass)
        if item.name not in without
        and (declared := _annotated(item, hints[item.name], (defaults or {}).get(item.name)))
    }
    annotations |= more or {}
    name = dataclass.__name__.removesuffix("Parameters") + "Pack"
    return parameterPack(
        type(name, (), {"__annotations__": annotations, "__doc__": dataclass.__doc__})
    )


def _annotated(item: Field[Any], hint: Any, default: Any) -> Any:
    """A field as `Annotated[type, range or choice, Default]`; None for one that is a pack itself."""
    parts = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    optional = type(None) in parts
    (plain,) = (part for part in parts if part is not type(None))
    if is_dataclass(plain):
        return None
    rules: list[Any] = []
    if get_origin(plain) is Literal:
        choices = get_args(plain)
        rules.append(Choice((*choices, "") if optional else choices))
        plain = str
    empty = NOT_GIVEN.get(plain)
    if "min" in item.metadata:
        low, high = item.metadata["min"], item.metadata["max"]
        rules.append(WithinRange(min(low, empty) if optional else low, high))
    if default is None:
        default = empty if item.default in (None, MISSING) else item.default
    return Annotated[(plain, *rules, Default(default))]


SynthesisPack: Any = pack_of(SynthesisParameters, {"size": "small"})
# Which slices are meant follows from the views, `slice_range` says how.
AnomalyPack: Any = pack_of(AnomalyParameters, without=("slices",))
# `others` are the further models of an ensemble, one per line.
SegmentationPack: Any = pack_of(
    SegmentationParameters,
    without=("models",),
    more={
        "model": Annotated[str, Default("demo-liver-segmenter")],
        "others": Annotated[str, Default("")],
    },
)
# Which slices are labeled stands with the labels; features are the model's own choice.
LearningPack: Any = pack_of(
    LearningParameters, without=("labelled", "slices", "blocks", "timesteps")
)


@parameterNodeWrapper
class ModuleParameters:
    """The module's parameter node."""

    schema_version: int = SCHEMA_VERSION
    volume: vtkMRMLScalarVolumeNode
    roi: vtkMRMLMarkupsROINode
    segmentation: vtkMRMLSegmentationNode
    segment_id: str = ""
    result: vtkMRMLScalarVolumeNode
    random_placement: bool = False
    synthesis: SynthesisPack
    sequence_t1: vtkMRMLScalarVolumeNode
    sequence_t1c: vtkMRMLScalarVolumeNode
    sequence_t2: vtkMRMLScalarVolumeNode
    sequence_flair: vtkMRMLScalarVolumeNode
    area: vtkMRMLSegmentationNode
    area_segment_id: str = ""
    slice_range: Annotated[str, Choice(SLICE_RANGES), Default("organ")]
    values_of: str = ""  # the model whose recommended values `anomaly` was filled with
    map: vtkMRMLScalarVolumeNode
    other_map: vtkMRMLScalarVolumeNode
    map_colors: Annotated[str, Choice(tuple(TABLES)), Default("inferno")]
    map_opacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.6)]
    anomaly: AnomalyPack
    segmenting_way: Annotated[str, Choice(WAYS), Default("trained")]
    segmented_organ: vtkMRMLSegmentationNode
    segmented_organ_id: str = ""
    segmenter_values_of: str = ""  # the model whose recommended values `segmenting` was filled with
    painted: vtkMRMLSegmentationNode
    segmented: vtkMRMLSegmentationNode
    keep_probability: bool = True
    overlay: Annotated[str, Choice(("", *OVERLAYS)), Default("")]
    overlay_opacity: Annotated[float, WithinRange(0.0, 1.0), Default(0.5)]
    segmenting: SegmentationPack
    learning: LearningPack


def open_parameters(node: vtkMRMLScriptedModuleNode) -> tuple[ModuleParameters, str]:
    """Typed access to a parameter node, also one that another version of the module has written.

    Args:
        node: of the scene; given the defaults of what it lacks.

    Returns:
        the wrapper, and a sentence for the person if the node's values could not be used.
    """
    wrap: Any = ModuleParameters  # the decorator gives it a constructor
    version = node.GetParameter("schema_version")
    newer = version.isdecimal() and int(version) > SCHEMA_VERSION
    if not newer:
        try:
            return wrap(node), ""
        except (ValueError, TypeError, KeyError):
            pass  # a value that is no number or no choice: told below
    node.UnsetAllParameters()
    node.RemoveNodeReferenceIDs(None)
    if newer:
        return wrap(node), _(
            "The scene's settings of this module were saved by a newer version of it and cannot be used; they "
            "start from their defaults. Volumes, segmentations and results are as they were."
        )
    return wrap(node), _(
        "The scene's settings of this module are damaged and cannot be used; they start from their defaults. "
        "Volumes, segmentations and results are as they were."
    )


def synthesis_request(parameters: ModuleParameters) -> dict[str, Any]:
    """The parameters as fields of `SynthesisParameters`, without a place.

    Returns:
        a dictionary; with random placement a size (and a count if one was given), else neither.
    """
    pack: Any = parameters.synthesis
    request = {name: pack.getValue(name) for name in pack.allParameters}
    random = parameters.random_placement
    request["size"] = request["size"] if random else None
    request["count"] = (request["count"] or None) if random else None
    return request


# None in a request: the model's recommendation counts.
RECOMMENDED = (
    "noise_level", "guidance_scale", "steps", "map_kind", "smoothing_mm", "normalisation",
)  # fmt: skip


def anomaly_request(parameters: ModuleParameters) -> dict[str, Any]:
    """The parameters as fields of `AnomalyParameters`, without slices.

    Returns:
        a dictionary; what the model recommends is None as long as no panel has filled it in.
    """
    pack: Any = parameters.anomaly
    request = {name: pack.getValue(name) for name in pack.allParameters}
    if parameters.values_of != request["model"]:
        return {**request, **dict.fromkeys(RECOMMENDED)}
    # 0 is a value of its own for a scale and a width, and "not given" for the others.
    empty = [
        name for name in ("noise_level", "steps", "map_kind", "normalisation") if not request[name]
    ]
    return {**request, **dict.fromkeys(empty)}


def segmentation_request(parameters: ModuleParameters) -> dict[str, Any]:
    """The parameters as fields of `SegmentationParameters`; what a model recommends is None until it was filled in."""
    pack: Any = parameters.segmenting
    request = {name: pack.getValue(name) for name in pack.allParameters}
    model, others = request.pop("model"), request.pop("others").split("\n")
    request["models"] = tuple(dict.fromkeys(filter(None, [model, *others])))
    request["tumor_threshold"] = request["tumor_threshold"] or None
    if parameters.segmenter_values_of != model:
        request |= {"min_diameter_mm": None, "tumor_threshold": None}
    return request


def learning_request(parameters: ModuleParameters) -> dict[str, Any]:
    """The parameters as fields of `LearningParameters`, without the labeled slices."""
    pack: Any = parameters.learning
    return {name: pack.getValue(name) for name in pack.allParameters}
