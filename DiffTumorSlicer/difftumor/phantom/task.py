"""The phantom as a task of a worker, `--tasks difftumor.phantom.task`: needs numpy and scipy, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from difftumor.phantom.abdomen import make_abdomen
from difftumor.protocol import write_array


def phantom(request: dict[str, Any], folder: Path, context: Any) -> dict[str, Any]:
    """Make an abdomen and write `ct` and, for each label, `organ_<label>`, all with K as the first axis.

    K first, because so the arrays can be shown without another walk through them; each organ is cut
    to the box that it needs.

    Args:
        request: {"seed": number, "spacing_mm": [x, y, z], "labels": [number, ...]}.
        folder: where the arrays are written.
        context: progress and cancel.

    Returns: {"affine": 4 x 4 (IJK to RAS mm), "starts": {label: [i, j, k] of its box}}.
    """
    context.progress("making the phantom", 0, 1)
    made = make_abdomen(
        int(request["seed"]), spacing_mm=tuple(request["spacing_mm"]), orientation="LPS"
    )
    write_array(folder, "ct", np.ascontiguousarray(made.ct.transpose(2, 1, 0)))
    starts = {}
    for label in request["labels"]:
        inside = made.organs == label
        if not inside.any():
            continue
        occupied = [slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(inside)]
        cut = inside[tuple(occupied)].astype(np.uint8)
        write_array(folder, f"organ_{label}", np.ascontiguousarray(cut.transpose(2, 1, 0)))
        starts[str(label)] = [part.start for part in occupied]
    return {"affine": made.grid.affine.tolist(), "starts": starts}


TASKS = {"phantom": phantom}
