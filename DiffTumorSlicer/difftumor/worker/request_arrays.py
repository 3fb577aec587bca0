"""What a request to the worker brings along: images on one grid, the organ, and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid, GridError
from difftumor.images.mr import check_same_geometry
from difftumor.learning.labels import check_labels_grid
from difftumor.provenance import image_hash
from difftumor.task import SCAN, Case
from difftumor.worker.protocol import read_array

IMAGE = "image_"  # before the name of each channel


def read_request(request: dict[str, Any], folder: Path) -> Case:
    """Read what lies in the folder of a request; the arrays are mapped from disk.

    Args:
        request: {"affine": 4 x 4 (IJK to RAS mm)}, optionally "affines": {channel or "labels": 4 x 4}, checked to be
            one geometry.
        folder: with `scan.npy` or `image_<channel>.npy`, and optionally `organ.npy` and `labels.npy`.

    Raises:
        GridError: no image, or no grid.
        AnomalyError: the images lie on different grids.
        LearningError: the labels do.
    """
    paths = {path.stem.removeprefix(IMAGE): path for path in sorted(folder.glob(f"{IMAGE}*.npy"))}
    if (folder / f"{SCAN}.npy").is_file():
        paths = {SCAN: folder / f"{SCAN}.npy"}
    if not paths:
        raise GridError("the request has no image. Choose a CT, or the sequences of the model.")
    affines = request.get("affines", {})

    def grid_of(name: str, array: NDArray[np.generic]) -> Grid:
        return Grid(array.shape, np.asarray(affines.get(name, request["affine"]), float))

    def read(name: str) -> NDArray[np.generic]:
        return np.asarray(read_array(folder, name, mapped=True))

    images = {name: read(path.stem) for name, path in paths.items()}
    grids = {name: grid_of(name, array) for name, array in images.items()}
    check_same_geometry(grids)
    grid = next(iter(grids.values()))
    organ = read("organ").astype(bool) if (folder / "organ.npy").is_file() else None
    labels = read("labels") if (folder / "labels.npy").is_file() else None
    if labels is not None:
        check_labels_grid(grid_of("labels", labels), grid)
    return Case(images, grid, organ, labels)


def hashes_of(case: Case, output: NDArray[np.generic]) -> dict[str, str]:
    """`provenance.image_hash` of all that came in by its name on disk, and of "output"."""
    hashed = {name if name == SCAN else IMAGE + name: image for name, image in case.images.items()}
    hashed["output"] = output
    for name, mask in (("organ", case.organ), ("labels", case.labels)):
        if mask is not None:
            hashed[name] = mask
    return {name: image_hash(array, case.grid.affine) for name, array in hashed.items()}
