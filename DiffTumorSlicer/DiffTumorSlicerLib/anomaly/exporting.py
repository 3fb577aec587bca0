"""Heat maps as files: the map, the mask above the threshold, the healthy version, and the side-car."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from DiffTumorSlicerLib.anomaly.results import healthy_of
from DiffTumorSlicerLib.anomaly.segments import map_mask
from DiffTumorSlicerLib.scene.results import input_of, sidecar_of
from DiffTumorSlicerLib.scene.volume_files import mask_beside, plain_name, write_together


def save_map_files(
    scene: Any, node: Any, path: Path, threshold: float, *, largest: bool = False
) -> list[Path]:
    """Write a map, its mask (0 and 1), its healthy version and its side-car.

    Args:
        scene: of the map.
        node: the map.
        path: of the map; the others get its name with "-mask", "-healthy" and ".json".
        threshold: of the mask.
        largest: whether the mask keeps its largest part only.

    Returns and raises as `scene.volume_files.write_together`.
    """
    healthy = healthy_of(node)
    sidecar = sidecar_of(node)
    sidecar["files"] = {"threshold": threshold, "largest_component": largest}
    values = map_mask(node, threshold, largest=largest).astype(np.uint8)
    with mask_beside(scene, node, values) as mask:
        volumes = {"": node, "-mask": mask}
        for number, one in enumerate(healthy, start=1):
            # Several sequences: each file says whose version it is.
            whose = f"-{plain_name(input_of(one))}" if len(healthy) > 1 and input_of(one) else ""
            volumes[f"-healthy{whose or (number > 1 and f'-{number}') or ''}"] = one
        return write_together(scene, path, volumes, sidecar)


def map_file_stem(node: Any) -> str:
    """Name for the files of a map, without a suffix; it says what it is."""
    name = plain_name(node)
    return name if "anomaly" in name.lower() else f"{name}-anomaly-map"
