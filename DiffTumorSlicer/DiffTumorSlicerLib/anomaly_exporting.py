"""Heat maps as files: the map, the mask above the threshold, the healthy version, and the side-car."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from difftumor.provenance import write_json
from DiffTumorSlicerLib.anomaly_results import healthy_of
from DiffTumorSlicerLib.anomaly_segments import map_mask
from DiffTumorSlicerLib.exporting import SUFFIXES, ExportError, write_volume
from DiffTumorSlicerLib.results import input_of, sidecar_of
from DiffTumorSlicerLib.translation import tr as _
from DiffTumorSlicerLib.volume_nodes import add_volume_like, remove_node


def save_map_files(
    scene: Any, node: Any, path: Path, threshold: float, *, largest: bool = False
) -> list[Path]:
    """Write a map, its mask (0 and 1), its healthy version and its side-car.

    The files have the scan's own geometry, without the transforms above it, as Slicer saves volumes.

    Args:
        scene: of the map.
        node: the map.
        path: of the map; the others get its name with "-mask", "-healthy" and ".json". Present files are
            replaced.
        threshold: of the mask.
        largest: whether the mask keeps its largest part only.

    Returns: the files.
    Raises: ExportError: a suffix that is not known, or a file that could not be written.
    """
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    if not suffix:
        raise ExportError(
            _("{name} has no suffix that is known. Use one of {suffixes}.").format(
                name=path.name, suffixes=", ".join(SUFFIXES)
            )
        )
    stem = path.name[: -len(suffix)]
    mask = map_mask(node, threshold, largest=largest).astype(np.uint8)
    mask_node = add_volume_like(scene, node, f"{node.GetName()} mask", mask)
    mask_node.SetHideFromEditors(True)
    volumes = {path.name: node, f"{stem}-mask{suffix}": mask_node}
    healthy = healthy_of(node)
    for number, one in enumerate(healthy, start=1):
        # Several sequences: each file says whose version it is.
        whose = f"-{_plain(input_of(one).GetName())}" if len(healthy) > 1 and input_of(one) else ""
        volumes[f"{stem}-healthy{whose or (number > 1 and f'-{number}') or ''}{suffix}"] = one
    sidecar = sidecar_of(node)
    sidecar["files"] = {"threshold": threshold, "largest_component": largest}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".difftumor-") as folder:
            for name, volume in volumes.items():
                write_volume(scene, volume, Path(folder) / name)
            write_json(sidecar, Path(folder) / f"{stem}.json")
            targets = [path.with_name(name) for name in (*volumes, f"{stem}.json")]
            for target in targets:
                shutil.move(Path(folder) / target.name, target)
    except OSError as error:
        raise ExportError(
            _(
                "The map could not be written to {folder} ({why}). Choose a folder that is yours, with "
                "enough free space."
            ).format(folder=path.parent, why=error.strerror or error)
        ) from error
    finally:
        remove_node(scene, mask_node)
    return targets


def map_file_stem(node: Any) -> str:
    """Name for the files of a map, without a suffix; it says what it is."""
    name = _plain(node.GetName())
    return name if "anomaly" in name.lower() else f"{name}-anomaly-map"


def _plain(name: str) -> str:
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return "-".join(filter(None, plain.split("-")))
