"""A wish for a synthetic tumor becomes a job: everything that can be refused is refused before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.ellipsoids import ellipsoid_box, ellipsoid_mask
from difftumor.grids import Grid
from difftumor.parameters import MODELLED, SynthesisParameters, to_dict
from difftumor.synthesis.sites import NEEDED_MEMORY_GB, SynthesisError, sites_of
from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.inputs import as_parameters
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.room import check_free
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.scene.segments import only_segment, organ_mask
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid
from DiffTumorSlicerLib.synthesis.ellipsoid import ellipsoid_of
from DiffTumorSlicerLib.synthesis.results import is_result
from DiffTumorSlicerLib.translation import tr as _

TASK = PANEL = "synthesis"
# Memory of a worker that already holds the networks, or needs none.
WARM_MEMORY = 1_000_000_000
PLAIN_MEMORY = 400_000_000
SPARE_DISK = 64_000_000


@dataclass(frozen=True, eq=False)
class Wish:
    """What is to be made from which nodes.

    Attributes:
        parameters: with an ellipsoid or a random size.
        source: volume whose voxels the worker gets: the input, or the result that gets another tumor.
        into: that result, or None for a new one.
        grid: of the source.
        organ: mask on it, or None.
        segmentation: node of the organ, and `segment_id`.
        device: as the worker names it.
    """

    parameters: SynthesisParameters
    source: Any
    into: Any | None
    grid: Grid
    organ: NDArray[np.bool_] | None
    segmentation: Any | None
    segment_id: str
    device: str


def wish(
    parameters: SynthesisParameters | Mapping[str, Any],
    volume_node: Any,
    *,
    segmentation_node: Any | None = None,
    segment_id: str | None = None,
    roi_node: Any | None = None,
    into: Any | None = None,
    device: str = "auto",
) -> Wish:
    """Check what was asked for against the nodes.

    Args:
        parameters: the pack, or its fields; a ROI replaces its ellipsoid.
        volume_node: the CT.
        segmentation_node: with the organ, optional.
        segment_id: of the organ; the only segment if None.
        roi_node: Box ROI whose inscribed ellipsoid is meant.
        into: result that gets one more tumor.
        device: 'auto', 'cpu', 'cuda', 'mps'.

    Raises: SceneError, SessionError: what is wrong, and the next step.
    """
    source = into if into is not None else volume_node
    if source is None:
        raise SessionError(
            _("There is no volume yet. Load a CT or choose one in the Volumes panel.")
        )
    if into is not None and not is_result(into):
        raise SessionError(
            _(
                '"{name}" was not made by this module, so no tumor can be added to it. Choose a '
                "result, or make a new one."
            ).format(name=into.GetName())
        )
    if into is not None and volume_node not in (None, into, input_of(into)):
        raise SessionError(
            _(
                '"{name}" was made from another volume than "{other}". Choose its own '
                "volume, or make a new result."
            ).format(name=into.GetName(), other=volume_node.GetName())
        )
    if source.IsA("vtkMRMLLabelMapVolumeNode"):
        raise SessionError(
            _('"{name}" is a label map, not an image. Choose the CT itself.').format(
                name=source.GetName()
            )
        )
    array, grid = volume_array(source), volume_grid(source)
    if min(grid.shape) < 2:
        raise SessionError(
            _(
                '"{name}" is a single slice, but a CT volume is needed. Load the whole series.'
            ).format(name=source.GetName())
        )
    if array.dtype.kind not in "iuf":
        raise SessionError(
            _('"{name}" holds no numbers. Choose the CT itself.').format(name=source.GetName())
        )
    resolved = _resolved(parameters, roi_node)
    segment_id = segment_id or only_segment(segmentation_node)
    organ = organ_mask(segmentation_node, segment_id, source) if segmentation_node else None
    asked = Wish(resolved, source, into, grid, organ, segmentation_node, segment_id, device)
    _check_place(asked)
    return asked


def _resolved(
    parameters: SynthesisParameters | Mapping[str, Any], roi_node: Any | None
) -> SynthesisParameters:
    """The parameter pack with the ellipsoid of the ROI; "" and 0 stand for None in panels."""
    plain = parameters if isinstance(parameters, Mapping) else to_dict(parameters)
    values = {k: v for k, v in plain.items() if not (k in ("size", "count") and not v)}
    if roi_node is not None and not values.get("size"):
        values["ellipsoid"] = to_dict(ellipsoid_of(roi_node))
    if not values.get("size") and values.get("ellipsoid") is None:
        raise SessionError(
            _("There is no ellipsoid yet. Press Place and click where the tumor shall be.")
        )
    return as_parameters(SynthesisParameters, values)


def _check_place(asked: Wish) -> None:
    """The questions about place and organ that the worker would only answer later."""
    parameters, organ = asked.parameters, asked.organ
    if parameters.ellipsoid is None and organ is None:
        raise SessionError(
            _(
                "Random placement needs an organ. Choose a segmentation and its segment, or place an ellipsoid."
            )
        )
    needs_organ = parameters.ellipsoid is None or parameters.clip_to_organ
    if organ is not None and needs_organ and not organ.any():
        raise SessionError(
            _(
                "The organ segment has no voxel inside the volume: it is empty or belongs to another scan. "
                "Choose another segment, or none."
            )
        )
    if parameters.ellipsoid is None:
        return
    try:
        sites_of(asked.grid, organ, parameters)
    except SynthesisError as error:
        raise SessionError(sentence_of(error)) from error
    if organ is None or not parameters.clip_to_organ:
        return
    placed = parameters.ellipsoid
    geometry = (placed.center_ras, placed.radii_mm, placed.rotation_deg)
    box = ellipsoid_box(asked.grid, *geometry)
    if not (ellipsoid_mask(asked.grid.cropped(box), *geometry) & organ[box]).any():
        raise SessionError(
            _(
                "The ellipsoid lies entirely outside the organ. Move it into the organ, choose the right "
                "segment, or switch the organ clip off."
            )
        )


def check_room(asked: Wish, host: Host, *, warm: bool) -> None:
    """Compare what is needed with the memory and the disk that are free.

    Args:
        warm: whether the worker holds the model already.

    Raises: SessionError: too little of either.
    """
    scan = volume_array(asked.source)
    # The worker copies the scan and keeps two masks; here the result volume comes on top.
    needed = 2 * scan.nbytes + 3 * scan.size
    if asked.parameters.model == MODELLED:
        needed += PLAIN_MEMORY
    else:
        needed += WARM_MEMORY if warm else int(NEEDED_MEMORY_GB * 1e9)
    check_free(host, needed, 2 * scan.nbytes + scan.size + SPARE_DISK)
