"""Result volumes with synthetic tumors: made beside the input, and taken back tumor by tumor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.ellipsoids import Box
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import (
    INPUT_ROLE,
    SEGMENTATION_ROLE,
    SIDECAR,
    SYNTHETIC,
    input_of,
    segmentation_of,
)
from DiffTumorSlicerLib.scene.segments import add_tumor_segment
from DiffTumorSlicerLib.scene.volume_nodes import (
    add_volume_like,
    place_beside,
    remove_node,
    set_patch,
    unique_name,
    volume_array,
)
from DiffTumorSlicerLib.synthesis.history import (
    TUMOR,
    forget_last,
    read_history,
    remember,
    tumors_of,
    undo,
)
from DiffTumorSlicerLib.translation import tr as _

VARIANTS = "DiffTumor.Variants"  # the same text on volumes that are to be chosen from
NAME = "{input} (synthetic{number})"
VARIANT_NAME = "{input} (synthetic, variant {variant}{number})"


@dataclass(frozen=True, eq=False)
class Tumor:
    """What one request made.

    Attributes:
        box: the changed box of the volume.
        patch: its voxels with the tumor, in the volume's voxel type.
        mask: the tumor in the box, bool.
        lesions: how many tumors that are (random ones come together).
        organ: the anatomy at the place.
        sidecar: how it was made (`provenance.describe`).
    """

    box: Box
    patch: NDArray[Any]
    mask: NDArray[np.bool_]
    lesions: int
    organ: str
    sidecar: dict[str, Any]


def is_result(node: Any) -> bool:
    """Whether a volume holds tumors of this module that can be removed again."""
    return node is not None and node.GetAttribute(TUMOR + "1") is not None


def add_synthetic_volume(
    scene: Any,
    input_node: Any,
    array: NDArray[Any],
    sidecar: dict[str, Any],
    name: str = NAME,
) -> Any:
    """Add a volume beside the input that says in name and attributes that it is synthetic.

    Args:
        scene: of the input.
        input_node: gives geometry, parent transform, look and place in the subject hierarchy.
        array: (I, J, K), copied.
        sidecar: JSON-ready facts of how it was made.
        name: pattern of the name.
    """
    pattern = name.replace("{input}", input_node.GetName().replace("{", "").replace("}", ""))
    node = add_volume_like(
        scene, input_node, unique_name(scene, pattern.replace("{number}", "{}")), array
    )
    node.SetAttribute(SYNTHETIC, "1")
    node.SetAttribute(SIDECAR, json.dumps(sidecar))
    node.SetNodeReferenceID(INPUT_ROLE, input_node.GetID())
    return node


def add_tumor(
    scene: Any, source: Any, tumor: Tumor, *, into: Any | None = None, name: str = NAME
) -> Any:
    """Show a new tumor: in a new result beside `source`, or in the result `into`.

    The scene stays as it was if anything fails.

    Returns:
        the result volume.

    Raises:
        SceneError: the tumor does not fit the volume any more.
    """
    result = into
    added: list[Any] = []
    try:
        if result is None:
            result = add_synthetic_volume(scene, source, volume_array(source), {}, name)
            added.append(result)
        before = volume_array(result)[tumor.box].copy()
        lesions = sum(entry["lesions"] for entry in read_history(result))
        shown = segmentation_of(result)
        set_patch(result, tumor.box, tumor.patch)
        try:
            segmentation, segment_id = add_tumor_segment(
                scene,
                result,
                shown,
                tumor.box,
                tumor.mask,
                organ=tumor.organ,
                name=_segment_name(lesions, tumor.lesions),
            )
        except SceneError:
            set_patch(result, tumor.box, before)
            raise
        if shown is None:
            added.append(segmentation)
    except Exception:
        for node in reversed(added):
            remove_node(scene, node)
        raise
    result.SetNodeReferenceID(SEGMENTATION_ROLE, segmentation.GetID())
    facts = {"segment": segment_id, "lesions": tumor.lesions, "sidecar": tumor.sidecar}
    remember(result, facts, tumor.box, before, tumor.patch)
    _tell_sidecar(result)
    return result


def remove_last(scene: Any, node: Any) -> int:
    """Take the last tumor out of a result.

    Returns:
        how many are left; with the last one the result and its segmentation leave the scene.

    Raises:
        SceneError: no tumor of this module in it, or its voxels are not those of the result any more.
    """
    history = read_history(node)
    if not history:
        raise SceneError(
            _('"{name}" holds no tumor of this module. Choose a result volume.').format(
                name=node.GetName()
            )
        )
    last, segmentation = history[-1], segmentation_of(node)
    if len(history) == 1:
        _remove_segments(segmentation, history)
        if segmentation is not None and segmentation.GetSegmentation().GetNumberOfSegments() == 0:
            remove_node(scene, segmentation)
        remove_node(scene, node)
        return 0
    undo(node, last)
    _remove_segments(segmentation, [last])
    forget_last(node)
    _tell_sidecar(node)
    return len(history) - 1


def copy_result(scene: Any, node: Any, name: str) -> Any:
    """Copy a result with its history and a segmentation of its own; `name` as in `add_synthetic_volume`."""
    source = input_of(node) or node
    copy = add_synthetic_volume(scene, node, volume_array(node), {}, _for_input(name, source))
    for number in range(1, tumors_of(node) + 1):
        copy.SetAttribute(f"{TUMOR}{number}", node.GetAttribute(f"{TUMOR}{number}"))
    copy.SetNodeReferenceID(INPUT_ROLE, source.GetID())
    _tell_sidecar(copy)
    shown = segmentation_of(node)
    if shown is not None:
        segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentation.CopyContent(shown)
        segmentation.SetName(f"{copy.GetName()} tumors")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.GetDisplayNode().SetVisibility2DFill(False)
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(copy)
        segmentation.SetAndObserveTransformNodeID(copy.GetTransformNodeID())
        segmentation.SetAttribute(SYNTHETIC, "1")
        place_beside(scene, segmentation, copy)
        copy.SetNodeReferenceID(SEGMENTATION_ROLE, segmentation.GetID())
    return copy


def remove_result(scene: Any, node: Any) -> None:
    """Remove a result and its segmentation."""
    segmentation = segmentation_of(node)
    if segmentation is not None:
        remove_node(scene, segmentation)
    remove_node(scene, node)


def keep_variant(scene: Any, node: Any) -> int:
    """Keep one of several variants and remove the others.

    Returns:
        how many were removed.

    Raises:
        SceneError: the volume is not one of several variants.
    """
    group = node.GetAttribute(VARIANTS)
    if not group:
        raise SceneError(
            _('"{name}" is not one of several variants. Choose a variant.').format(
                name=node.GetName()
            )
        )
    count = scene.GetNumberOfNodesByClass(node.GetClassName())
    nodes = [scene.GetNthNodeByClass(i, node.GetClassName()) for i in range(count)]
    others = [n for n in nodes if n is not node and n.GetAttribute(VARIANTS) == group]
    for other in others:
        remove_result(scene, other)
    node.RemoveAttribute(VARIANTS)
    source = input_of(node)
    if source is not None:
        name = _for_input(NAME, source).replace("{number}", "{}")
        node.SetName(unique_name(scene, name))
    return len(others)


def _for_input(name: str, source: Any) -> str:
    return name.replace("{input}", source.GetName().replace("{", "").replace("}", ""))


def _segment_name(earlier: int, lesions: int) -> str:
    first = earlier + 1
    if lesions == 1:
        return f"Synthetic tumor {first}"
    return f"Synthetic tumors {first} to {earlier + lesions}"


def _tell_sidecar(node: Any) -> None:
    """Write the side-car of the result as a whole."""
    steps = [entry["sidecar"] for entry in read_history(node)]
    content = dict(steps[-1]) if steps else {}
    if len(steps) > 1:
        content["earlier"] = steps[:-1]
    node.SetAttribute(SIDECAR, json.dumps(content))
    node.Modified()


def _remove_segments(segmentation: Any | None, entries: list[dict[str, Any]]) -> None:
    """Remove tumors from their segmentation; what the person has removed already is no error."""
    if segmentation is None:
        return
    for entry in entries:
        if segmentation.GetSegmentation().GetSegment(entry["segment"]) is not None:
            segmentation.GetSegmentation().RemoveSegment(entry["segment"])
