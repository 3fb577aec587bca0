"""What a job was made from: whether it is still there when the job ends, and how a side-car names it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from difftumor.grids import Grid
from difftumor.parameters import from_dict
from difftumor.provenance import describe
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.scene.volume_nodes import changed_since
from DiffTumorSlicerLib.translation import tr as _


def watch(scene: Any, nodes: Iterable[Any], button: str) -> Callable[[], str]:
    """A function that tells when the volumes of a job are not what they were.

    Args:
        scene: of the nodes.
        nodes: volume nodes that the job was made from.
        button: what starts such a job, as it stands on the panel.

    Returns: a function without arguments; "" while all is as it was, else a sentence with the next step.
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

    Raises: SessionError: a value is out of range, or not known.
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
        "name": node.GetName(),
        "path": _stored_path(node),
        "sha256": sha256,
        "shape": list(grid.shape),
        "spacing_mm": np.round(grid.spacing, 4).tolist(),
    }


def segment_facts(node: Any, segment_id: str, sha256: str | None) -> dict[str, Any]:
    """What a side-car tells of a segment that served as a mask."""
    return {
        "name": node.GetName(),
        "path": _stored_path(node),
        "segment": segment_id,
        "label": None,
        "sha256": sha256,
    }


def sidecar(
    task: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Any],
    result: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """How a result of the worker was made (docs/formats.md).

    Args:
        task: of the request.
        parameters: of the request, as plain values.
        inputs: role -> `image_facts` or `segment_facts`.
        result: what came out.
        facts: metadata of the worker's answer, with "model", "device" and, from another Python, "versions".
    """
    made = describe(
        task, dict(parameters), dict(inputs), facts["model"], dict(result), facts["device"]
    )
    made["versions"] = facts.get("versions", made["versions"])  # of the Python that computed
    return made


def _stored_path(node: Any) -> str:
    """The file that a node was read from or saved to, or ""."""
    storage = node.GetStorageNode()
    return str(storage.GetFullNameFromFileName() or "") if storage is not None else ""
