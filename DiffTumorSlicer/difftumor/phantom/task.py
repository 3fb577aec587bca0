"""The phantom as a task of a worker, `--tasks difftumor.phantom.task`: needs numpy and scipy, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.phantom.abdomen import make_abdomen
from difftumor.phantom.head import make_head
from difftumor.worker.protocol import write_array


def phantom(request: dict[str, Any], folder: Path, context: Any) -> dict[str, Any]:
    """Make a phantom of the kind that is asked for; arguments and return values as of `abdomen` and `head`."""
    context.progress("making the phantom", 0, 1)
    make = head if request.get("kind") == "head" else abdomen
    return make(request, folder)


def abdomen(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make an abdomen and write `ct` and, for each label, `organ_<label>`, all with K as the first axis.

    K first, because so the arrays can be shown without another walk through them; each organ is cut
    to the box that it needs.

    Args:
        request: {"seed": number, "spacing_mm": [x, y, z], "labels": [number, ...]}, and for one with lesions
            {"tumors": number, "tumor_organs": [name, ...], "tumor_radius_mm": [least, most]}; a lesion belongs to
            the organ that is nearest to it.
        folder: where the arrays are written.

    Returns:
        {"affine": 4 x 4 (IJK to RAS mm), "starts": {label: [i, j, k] of its box}}.
    """
    count = int(request.get("tumors", 0))
    names = ("tumor_organs", "tumor_radius_mm") if count else ()
    more: dict[str, Any] = {name: tuple(request[name]) for name in names}
    made = make_abdomen(
        int(request["seed"]),
        tumors=count,
        spacing_mm=tuple(request["spacing_mm"]),
        orientation="LPS",
        **more,
    )
    whole = _with_lesions(made.organs, made.tumors) if count else made.organs
    write_array(folder, "ct", np.ascontiguousarray(made.ct.transpose(2, 1, 0)))
    starts = {}
    for label in request["labels"]:
        inside = whole == label
        if not inside.any():
            continue
        occupied = [slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(inside)]
        cut = inside[tuple(occupied)].astype(np.uint8)
        write_array(folder, f"organ_{label}", np.ascontiguousarray(cut.transpose(2, 1, 0)))
        starts[str(label)] = [part.start for part in occupied]
    return {"affine": made.grid.affine.tolist(), "starts": starts}


def head(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make a head and write `image_<sequence>` for each sequence and `brain`, all with K as the first axis.

    Args:
        request: {"seed": number, "spacing_mm": [x, y, z], "tumors": number}.
        folder: where the arrays are written.

    Returns:
        {"affine": 4 x 4 (IJK to RAS mm)}.
    """
    made = make_head(
        int(request["seed"]),
        tumors=int(request.get("tumors", 0)),
        spacing_mm=tuple(request["spacing_mm"]),
        orientation="LPS",
    )
    for name, image in made.images.items():
        write_array(folder, f"image_{name}", np.ascontiguousarray(image.transpose(2, 1, 0)))
    brain = made.brain.astype(np.uint8)
    write_array(folder, "brain", np.ascontiguousarray(brain.transpose(2, 1, 0)))
    return {"affine": made.grid.affine.tolist()}


def _with_lesions(organs: NDArray[Any], tumors: NDArray[Any]) -> NDArray[Any]:
    """Labels of the organs with each lesion given to the organ around it, as a person would outline it."""
    nearest = ndimage.distance_transform_edt(
        organs == 0, return_distances=False, return_indices=True
    )
    filled = organs.copy()
    lesion = (tumors > 0) & (organs == 0)
    filled[lesion] = organs[tuple(axis[lesion] for axis in nearest)]
    return filled


TASKS = {"phantom": phantom}
