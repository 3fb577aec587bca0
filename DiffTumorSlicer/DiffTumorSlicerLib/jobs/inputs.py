"""What a job was made from: whether it is still there when the job ends, and how a side-car names it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from difftumor.grids import Grid
from difftumor.parameters import from_dict
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.scene.volume_nodes import changed_since
from DiffTumorSlicerLib.translation import tr as _


def watch(scene: Any, nodes: Iterable[Any], button: str) -> Callable[[], str]:
    """A function that tells when the volumes of a job are not what they were.

    Args:
        scene: of the nodes.
        nodes: volume nodes that the job was made from.
        button: what starts such a job, as it stands on the panel.

    Returns:
        a function without arguments; "" while all is as it was, else a sentence with the next step.
    """
    watched = [(node, node.GetID(), node.GetName(), changed_since(node)) for node in nodes]

    def gone() -> str:
        for node, node_id, name, mark in watched:
            # By identity: after a scene was closed another node can have the same id.
            if scene.GetNodeByID(node_id) is not node:
                return _(
                    '"{name}" was removed from the scene during the computation, so there is nothing to '
                    "show the result in. Choose a volume and press {button} again."
                ).format(name=name, button=button)
            if changed_since(node) != mark:
                return _(
                    'The voxels of "{name}" were changed during the computation, so its result was left '
                    "out. Press {button} again."
                ).format(name=name, button=button)
        return ""

    return gone


def as_parameters(kind: type, values: Mapping[str, Any]) -> Any:
    """A parameter pack of plain values.

    Raises:
        SessionError: a value is out of range, or not known.
    """
    try:
        return from_dict(kind, dict(values))
    except ValueError as error:
        raise SessionError(
            _("This cannot be done: {error}. Change it in the panel.").format(error=error)
        ) from error


def image_facts(node: Any, grid: Grid, sha256: str | None) -> dict[str, Any]:
    """What a side-car tells of an image.

    Args:
        node: volume node.
        grid: of it.
        sha256: of its voxels, as the worker says.
    """
    return {
        **node_facts(node, sha256),
        "shape": list(grid.shape),
        "spacing_mm": np.round(grid.spacing, 4).tolist(),
    }


def segment_facts(node: Any, segment_id: str, sha256: str | None) -> dict[str, Any]:
    """What a side-car tells of a segment that served as a mask."""
    return {**node_facts(node, sha256), "segment": segment_id, "label": None}


def node_facts(node: Any, sha256: str | None) -> dict[str, Any]:
    """What a side-car tells of any node that a result was made from.

    Args:
        node: with a name and perhaps a file, which it was read from or saved to.
        sha256: of its voxels on the grid of the images, as the worker says.
    """
    storage = node.GetStorageNode()
    path = str(storage.GetFullNameFromFileName() or "") if storage is not None else ""
    return {"name": node.GetName(), "path": path, "sha256": sha256}
