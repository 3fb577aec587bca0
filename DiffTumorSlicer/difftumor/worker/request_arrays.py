"""What a request to the worker brings along: images on one grid, and the organ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid, GridError
from difftumor.images.mr import check_same_geometry
from difftumor.provenance import image_hash
from difftumor.worker.protocol import read_array

SCAN, IMAGE = "scan", "image_"  # the one image of a task, or of each channel


@dataclass(frozen=True, eq=False)
class RequestArrays:
    """Images and organ of a request.

    Attributes:
        arrays: by the names of the request ("scan", or "image_" and the channel), mapped from disk.
        grid: of all of them.
        organ: mask on it, or None.
    """

    arrays: dict[str, NDArray[np.generic]]
    grid: Grid
    organ: NDArray[np.bool_] | None

    @property
    def images(self) -> dict[str, NDArray[np.generic]]:
        """By channel."""
        return {name.removeprefix(IMAGE): array for name, array in self.arrays.items()}

    def hashes(self, output: NDArray[np.generic]) -> dict[str, str]:
        """`provenance.image_hash` of all that came in, and of "output", the result on the whole grid."""
        hashed = {**self.arrays, "output": output}
        if self.organ is not None:
            hashed["organ"] = self.organ
        return {name: image_hash(array, self.grid.affine) for name, array in hashed.items()}


def read_request(request: dict[str, Any], folder: Path) -> RequestArrays:
    """Read what lies in the folder of a request.

    Args:
        request: {"affine": 4 x 4 (IJK to RAS mm)}, optionally "affines": {channel: 4 x 4}, checked to be one
            geometry.
        folder: with `scan.npy` or `image_<channel>.npy`, and optionally `organ.npy`.

    Raises: GridError: no image, or no grid. AnomalyError: the images lie on different grids.
    """
    paths = {path.stem: path for path in sorted(folder.glob(f"{IMAGE}*.npy"))}
    if (folder / f"{SCAN}.npy").is_file():
        paths = {SCAN: folder / f"{SCAN}.npy"}
    if not paths:
        raise GridError("the request has no image. Choose a CT, or the sequences of the model.")
    arrays = {name: np.asarray(read_array(folder, name, mapped=True)) for name in paths}
    affines = request.get("affines", {})
    grids = {
        channel: Grid(array.shape, np.asarray(affines.get(channel, request["affine"]), float))  # type: ignore[arg-type]
        for channel, array in ((name.removeprefix(IMAGE), array) for name, array in arrays.items())
    }
    check_same_geometry(grids)
    organ = None
    if (folder / "organ.npy").is_file():
        organ = read_array(folder, "organ", mapped=True).astype(bool)
    return RequestArrays(arrays, next(iter(grids.values())), organ)
