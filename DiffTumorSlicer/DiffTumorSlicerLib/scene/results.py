"""Marks of the nodes that this module makes: what they are, what they were made from, and how."""

from __future__ import annotations

import json
from typing import Any

SYNTHETIC = "DiffTumor.Synthetic"
MAP = "DiffTumor.Anomaly"
GENERATED = "DiffTumor.Generated"
SIDECAR = "DiffTumor.Sidecar"
INPUT_ROLE = "DiffTumor.Input"
SEGMENTATION_ROLE = "DiffTumor.Segmentation"
OVERLAYS = ("probability", "agreement", "uncertainty")  # kinds of a segmentation's overlays


def input_of(node: Any) -> Any | None:
    """The volume that a result was made from, if it is still in the scene."""
    return node.GetNodeReference(INPUT_ROLE)


def segmentation_of(node: Any) -> Any | None:
    """The segmentation that belongs to a result (tumors, or the segment of a map), if it is still in the scene."""
    return node.GetNodeReference(SEGMENTATION_ROLE)


def sidecar_of(node: Any) -> dict[str, Any]:
    """How a result was made: the side-car of its last step, earlier ones under "earlier"."""
    return dict(json.loads(node.GetAttribute(SIDECAR) or "{}"))
