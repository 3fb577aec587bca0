"""The images of a case with the organ in them, checked and read: what tasks on whole cases begin with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from DiffTumorSlicerLib.jobs.case_images import check_images
from DiffTumorSlicerLib.jobs.case_models import CaseModel
from DiffTumorSlicerLib.jobs.inputs import image_facts, segment_facts
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.scene.segments import only_segment, organ_mask
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid
from DiffTumorSlicerLib.translation import tr as _


@dataclass(frozen=True, eq=False)
class Case:
    """Images and organ.

    Attributes:
        images: channel -> volume node, in the model's order.
        grid: of all of them.
        organ: mask on it, or None.
        segmentation_node: that holds the organ or brain, and `segment_id`.
    """

    images: Mapping[str, Any]
    grid: Grid
    organ: NDArray[np.bool_] | None
    segmentation_node: Any | None
    segment_id: str

    @property
    def voxels(self) -> int:
        """Of each image."""
        return math.prod(self.grid.shape)

    @property
    def nbytes(self) -> int:
        """Of all images."""
        return sum(volume_array(node).nbytes for node in self.images.values())

    @property
    def source(self) -> Any:
        """The image that a result is laid over: the CT, or the last sequence (FLAIR where there is one)."""
        return list(self.images.values())[-1]

    def arrays(self, *, alone: str = "") -> dict[str, NDArray[Any]]:
        """What the worker gets.

        Args:
            alone: name of the image for a task that knows one only; else "image_" and the channel.
        """
        arrays = {
            alone or f"image_{name}": volume_array(node) for name, node in self.images.items()
        }
        if self.organ is not None:
            arrays["organ"] = self.organ.astype(np.uint8)
        return arrays

    def inputs(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        """What a side-car says of images and organ; `hashes` are the worker's, by the names of the arrays."""
        facts = {
            name: image_facts(
                node,
                self.grid,
                hashes.get(f"image_{name}") or hashes.get(name) or hashes.get("scan"),
            )
            for name, node in self.images.items()
        }
        if self.segmentation_node is not None:
            facts["organ"] = segment_facts(
                self.segmentation_node, self.segment_id, hashes.get("organ")
            )
        return facts


def read_case(
    model: CaseModel, images: Any, segmentation_node: Any | None, segment_id: str | None
) -> Case:
    """Check images and organ against what a model wants.

    Args:
        model: facts of the model.
        images: a CT volume node, or sequence ('t1', 't1c', 't2', 'flair') -> volume node.
        segmentation_node: segmentation with the organ or the brain, optional.
        segment_id: of the organ; the only segment if None.

    Raises:
        SceneError: what is wrong, and the next step.
        SessionError: likewise.
    """
    given = dict(images) if isinstance(images, Mapping) else {model.channels[0]: images}
    check_images(given, model)
    wanted = {name: given[name] for name in model.channels}
    first = next(iter(wanted.values()))
    grid = volume_grid(first)
    if min(grid.shape[:2]) < 2:
        raise SessionError(
            _(
                '"{name}" has no slices to look at. Load the whole series, or choose another image.'
            ).format(name=first.GetName())
        )
    segment = segment_id or only_segment(segmentation_node)
    organ = organ_mask(segmentation_node, segment, first) if segmentation_node is not None else None
    if organ is not None and not organ.any():
        raise SessionError(
            _(
                "The segment of the organ or the brain has no voxel inside the image: it is empty or belongs "
                "to another scan. Choose another segment."
            )
        )
    return Case(wanted, grid, organ, segmentation_node, segment)
