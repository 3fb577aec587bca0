"""Heat maps as nodes: the map, the healthy version, the curve; made beside the scan and found again.

A map is a volume of 0 to 1 on the scan's own voxels. Everything that belongs to it is referenced from it, and its
side-car says how it was made, so that a scene that was saved and opened again is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.layout import slice_axis
from difftumor.ellipsoids import Box
from DiffTumorSlicerLib.anomaly.probability import add_curve, remove_curve
from DiffTumorSlicerLib.scene.results import (
    GENERATED,
    INPUT_ROLE,
    MAP,
    SIDECAR,
    input_of,
    segmentation_of,
    sidecar_of,
)
from DiffTumorSlicerLib.scene.volume_nodes import (
    add_volume_like,
    remove_node,
    tell_changed,
    unique_name,
    volume_array,
    volume_grid,
)

HEALTHY_ROLE = "DiffTumor.Healthy"
LIVE = "DiffTumor.Live"  # the one map that follows the sliders
MAP_NAME = "{input} anomaly map{number}, {settings} (research only)"
LIVE_NAME = "{input} anomaly map{number}, live (research only)"
HEALTHY_NAME = "{input} rewritten as healthy{number}, {settings} (generated)"


@dataclass(frozen=True, eq=False)
class HeatMap:
    """What one request made.

    Attributes:
        box: voxels of the scan that something is said about.
        values: map in the box, 0 to 1, float32; slices that the gate leaves empty hold 0.
        healthy: channel -> the rewritten image in the box, in the scan's own units.
        slices: facts of each slice that was computed: index, position_mm, probability, gated ...
        sidecar: how it was made (`provenance.describe`).
        normal: the patient's axis (0, 1, 2 for R, A, S) that the positions are along.
        limit: least probability of a slice that is marked, None without a gate.
    """

    box: Box
    values: NDArray[np.float32]
    healthy: Mapping[str, NDArray[Any]]
    slices: list[dict[str, Any]]
    sidecar: dict[str, Any]
    normal: int = 2
    limit: float | None = None
    images: Mapping[str, Any] = field(default_factory=dict)


def is_map(node: Any) -> bool:
    """Whether a volume is a heat map of this module."""
    return node is not None and node.GetAttribute(MAP) is not None


def maps_of(scene: Any, scan: Any | None = None) -> list[Any]:
    """All heat maps of a scene, or those of one scan; oldest first."""
    name = "vtkMRMLScalarVolumeNode"
    nodes = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    return [node for node in nodes if is_map(node) and (scan is None or input_of(node) is scan)]


def live_map_of(scene: Any, scan: Any) -> Any | None:
    """The map of a scan that follows the sliders, if there is one."""
    return next((node for node in maps_of(scene, scan) if node.GetAttribute(LIVE)), None)


def healthy_of(map_node: Any) -> list[Any]:
    """The healthy version of each image of a map; first that of the image that it is laid over."""
    count = map_node.GetNumberOfNodeReferences(HEALTHY_ROLE)
    nodes = [map_node.GetNthNodeReference(HEALTHY_ROLE, n) for n in range(count)]
    return [node for node in nodes if node is not None]


def slices_of(map_node: Any) -> list[dict[str, Any]]:
    """Facts of the slices of a map."""
    return list(sidecar_of(map_node).get("result", {}).get("slices", []))


def add_map(
    scene: Any, source: Any, heat: HeatMap, *, into: Any | None = None, live: bool = False
) -> Any:
    """Show a new map as nodes beside the scan, or in place of the map `into`.

    Args:
        scene: of the scan.
        source: the image that the map is laid over; gives geometry, parent transform and place.
        heat: what was computed.
        into: map of the same scan whose values, curve and healthy version are replaced.
        live: whether it is the one that follows the sliders.

    Returns:
        the map. The scene stays as it was if anything fails.
    """
    shape = volume_array(source).shape
    settings = settings_text(heat.sidecar)
    if into is not None and volume_array(into).shape == shape:
        shown = volume_array(into)
        shown[:] = 0
        shown[heat.box] = heat.values
        tell_changed(into)
        _replace_healthy(scene, into, heat, settings)
        _describe(scene, into, heat)
        return into
    values = np.zeros(shape, np.float32)
    values[heat.box] = heat.values
    pattern = LIVE_NAME if live else MAP_NAME
    node = add_volume_like(scene, source, _name(scene, pattern, source, settings), values)
    try:
        node.SetAttribute(MAP, "1")
        if live:
            node.SetAttribute(LIVE, "1")
        node.SetNodeReferenceID(INPUT_ROLE, source.GetID())
        _replace_healthy(scene, node, heat, settings)
        _describe(scene, node, heat)
    except Exception:
        remove_map(scene, node)
        raise
    return node


def remove_map(scene: Any, node: Any) -> None:
    """Remove a map with its healthy version, its curve and its segmentation."""
    remove_curve(scene, node)
    segmentation = segmentation_of(node)
    for other in (*healthy_of(node), segmentation, node):
        if other is not None:
            remove_node(scene, other)


def settings_text(sidecar: Mapping[str, Any]) -> str:
    """N and S of a map for its name."""
    settings = resolved(sidecar)
    return f"N {settings.get('noise_level', '?')} S {float(settings.get('guidance_scale') or 0):g}"


def resolved(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a map with the model's recommendations filled in, and the model's `organs`."""
    result = sidecar.get("result", {})
    asked = dict(sidecar.get("parameters", {}))
    return {**asked, **result.get("settings", {}), "organs": result.get("organs", [])}


def plane_of(map_node: Any) -> Any:
    """The plane that the slices of a map were cut in."""
    return resolved(sidecar_of(map_node)).get("plane", "axial")


def axis_of(map_node: Any) -> int:
    """Voxel axis of the slices of a map."""
    return slice_axis(volume_grid(map_node), plane_of(map_node))


def _describe(scene: Any, node: Any, heat: HeatMap) -> None:
    node.SetAttribute(SIDECAR, json.dumps(heat.sidecar))
    add_curve(
        scene,
        node,
        heat.slices,
        {
            "axis": heat.normal,
            "limit": heat.limit,
        },
    )


def _replace_healthy(scene: Any, node: Any, heat: HeatMap, settings: str) -> None:
    """Show the rewritten images, in the nodes that are there or in new ones."""
    before = healthy_of(node)
    if len(before) != len(heat.healthy):
        for other in before:
            remove_node(scene, other)
        before = []
        node.RemoveNodeReferenceIDs(HEALTHY_ROLE)
    source: Any = input_of(node)
    # The image that the map is laid over comes first.
    names = sorted(heat.healthy, key=lambda name: heat.images.get(name) is not source)
    for index, name in enumerate(names):
        image = heat.images.get(name) or source
        scan = volume_array(image)
        if before:
            shown = volume_array(before[index])
            shown[:] = scan
            shown[heat.box] = heat.healthy[name]
            tell_changed(before[index])
            continue
        array = np.array(scan)
        array[heat.box] = heat.healthy[name]
        healthy = add_volume_like(scene, image, _name(scene, HEALTHY_NAME, image, settings), array)
        healthy.SetAttribute(GENERATED, "1")
        healthy.SetAttribute(SIDECAR, json.dumps(heat.sidecar))
        healthy.SetNodeReferenceID(INPUT_ROLE, image.GetID())
        node.AddNodeReferenceID(HEALTHY_ROLE, healthy.GetID())


def _name(scene: Any, pattern: str, source: Any, settings: str) -> str:
    plain = source.GetName().replace("{", "").replace("}", "")
    name = pattern.replace("{input}", plain).replace("{settings}", settings)
    return unique_name(scene, name.replace("{number}", "{}"))
