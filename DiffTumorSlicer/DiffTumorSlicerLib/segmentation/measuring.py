"""Measurements of segments: the table of a result that was learned, or that somebody has edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.scene.segments import organ_mask
from DiffTumorSlicerLib.scene.volume_nodes import volume_array, volume_grid
from DiffTumorSlicerLib.segmentation.results import ORGAN, overlay_of, set_rows


def rows_of(
    masks: Mapping[str, NDArray[np.bool_]],
    grid: Grid,
    scan: NDArray[Any],
    organ: NDArray[np.bool_] | None,
    **more: Any,
) -> list[dict[str, Any]]:
    """One row for each mask that is not empty, as `difftumor.measuring.tables.measure_rows` makes them.

    Args:
        masks: name -> bool (I, J, K); they do not overlap.
        grid: of all arrays.
        scan: HU, or the signal of an MR image.
        organ: for the contrast.
        more: further arguments of `measure_rows`.
    """
    from difftumor.measuring.tables import measure_rows  # late, as it brings SciPy along

    numbers = np.zeros(grid.shape, np.int32)
    names = [name for name, mask in masks.items() if mask.any()]
    for number, name in enumerate(names, start=1):
        numbers[masks[name]] = number
    rows = measure_rows(numbers, grid, scan, organ, **more)
    return [{**row.to_dict(), "name": names[row.number - 1]} for row in rows]


def measure_again(node: Any, organ: NDArray[np.bool_] | None) -> int:
    """Measure the segments of a result as they are now, those that were added by hand, too.

    Args:
        node: the result.
        organ: mask on the scan's grid, for the contrast.

    Returns:
        how many segments were measured.

    Raises:
        SceneError: a segment or the scan cannot be read.
    """
    scan = input_of(node)
    segmentation = node.GetSegmentation()
    ids = [i for i in segmentation.GetSegmentIDs() if not segmentation.GetSegment(i).HasTag(ORGAN)]
    masks = {segment_id: organ_mask(node, segment_id, scan) for segment_id in ids}
    taken = np.zeros(volume_array(scan).shape, bool)
    for mask in masks.values():  # where two overlap, the first counts
        mask &= ~taken
        taken |= mask
    grid = volume_grid(scan)
    rows = rows_of(masks, grid, volume_array(scan), organ, probability=_probability(node, scan))
    set_rows(node, [{**row, "segment": row["name"]} for row in rows])
    return len(rows)


def _probability(node: Any, scan: Any) -> NDArray[np.float32] | None:
    """The probability of a result on the scan's whole grid, None without one."""
    overlay = overlay_of(node, "probability")
    if overlay is None:
        return None
    whole = np.zeros(volume_array(scan).shape, np.float32)
    values, grid = volume_array(overlay), volume_grid(overlay)
    first = np.rint(volume_grid(scan).to_ijk(grid.affine[:3, 3])).astype(int)
    box = tuple(slice(f, f + n) for f, n in zip(first, values.shape, strict=True))
    whole[box] = values
    return whole
