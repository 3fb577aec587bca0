"""Measurements of segmented tumors: one row per lesion, as a table for people and programs. No torch here."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from difftumor.measuring.lesions import label_components, measure_lesions
from difftumor.provenance import write_json

CONNECTIVITY = 26


@dataclass(frozen=True)
class LesionRow:
    """One lesion.

    Attributes:
        number: 1, 2, ... from the largest.
        name: for a segment, such as "liver tumor 1".
        volume_mm3: voxels times the voxel volume.
        equivalent_diameter_mm: of the sphere of equal volume.
        longest_axial_diameter_mm: greatest extent within one axial slice, to the outer edges of its voxels.
        position_ras: RAS mm of the lesion's voxel nearest to its centroid.
        voxel: the same place as indices of the scan.
        axial_index: index of the slice with the longest diameter, along the scan's axis nearest to S.
        hu_mean, hu_sd: inside.
        organ_hu_mean: mean of the organ without the lesions; None: no organ is known.
        contrast_hu: hu_mean - organ_hu_mean.
        early: the equivalent diameter is at most 20 mm.
        mean_probability, max_probability: of tumor, inside; None: not known.
        agreement: share of the models that see tumor there, mean inside; None: one model.
    """

    number: int
    name: str
    volume_mm3: float
    equivalent_diameter_mm: float
    longest_axial_diameter_mm: float
    position_ras: tuple[float, float, float]
    voxel: tuple[int, int, int]
    axial_index: int
    hu_mean: float
    hu_sd: float
    organ_hu_mean: float | None
    contrast_hu: float | None
    early: bool
    mean_probability: float | None = None
    max_probability: float | None = None
    agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def number_lesions(tumors: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the 26-connected pieces of a mask (I, J, K) from the largest; 0 is background."""
    pieces, count = label_components(tumors, CONNECTIVITY)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    order = np.zeros(count + 1, np.int32)
    order[np.argsort(-sizes, kind="stable") + 1] = np.arange(1, count + 1)
    return order[pieces]


def measure_rows(
    numbers: NDArray[np.integer[Any]],
    grid: Grid,
    scan: NDArray[np.generic],
    organ: NDArray[np.bool_] | None = None,
    *,
    name: str = "tumor",
    probability: NDArray[np.float32] | None = None,
    agreement: NDArray[np.float32] | None = None,
    origin: Sequence[int] = (0, 0, 0),
) -> list[LesionRow]:
    """Measure numbered lesions.

    Args:
        numbers: integers (I, J, K), as of `number_lesions`.
        grid: of all arrays.
        scan: HU.
        organ: with or without the lesions; they are left out of its mean.
        name: what lesions are called.
        probability: of tumor, 0 to 1.
        agreement: share of the models that see tumor.
        origin: index in the scan of the arrays' first voxel, if they are cut out of it.

    Returns:
        rows in the order of the numbers.

    Raises:
        ValueError: arrays of different shape.
    """
    for what, array in (("scan", scan), ("organ", organ), ("probability", probability),
                        ("agreement", agreement)):  # fmt: skip
        if array is not None and array.shape != numbers.shape:
            raise ValueError(f"{what} has shape {array.shape}, the lesions {numbers.shape}")
    organ_mean = None
    if organ is not None and (rest := organ & (numbers == 0)).any():
        organ_mean = round(float(scan[rest].mean(dtype=np.float64)), 2)
    rows = []
    for lesion in measure_lesions(numbers, grid):
        own = np.argwhere(numbers == lesion.label)
        inside = tuple(own.T)
        center = own[np.linalg.norm(grid.to_ras(own) - lesion.centroid_ras, axis=-1).argmin()]
        diameter, at = longest_axial_diameter(own, grid)
        values = scan[inside].astype(np.float64)
        mean = round(float(values.mean()), 2)
        r, a, s = np.round(grid.to_ras(center), 3).tolist()
        i, j, k = (center + np.asarray(origin)).tolist()
        rows.append(
            LesionRow(
                number=lesion.label,
                name=f"{name} {lesion.label}",
                volume_mm3=round(lesion.volume_mm3, 3),
                equivalent_diameter_mm=round(lesion.equivalent_diameter_mm, 3),
                longest_axial_diameter_mm=round(diameter, 3),
                position_ras=(r, a, s),
                voxel=(i, j, k),
                axial_index=at + int(origin[axial_axis(grid)]),
                hu_mean=mean,
                hu_sd=round(float(values.std()), 2),
                organ_hu_mean=organ_mean,
                contrast_hu=None if organ_mean is None else round(mean - organ_mean, 2),
                early=lesion.early,
                mean_probability=_mean(probability, inside),
                max_probability=None
                if probability is None
                else round(float(probability[inside].max()), 4),
                agreement=_mean(agreement, inside),
            )
        )
    return rows


def axial_axis(grid: Grid) -> int:
    """The axis of a grid that is nearest to S."""
    return int(np.abs(grid.affine[2, :3] / grid.spacing).argmax())


def longest_axial_diameter(voxels: NDArray[np.integer[Any]], grid: Grid) -> tuple[float, int]:
    """Greatest extent of a lesion within one axial slice.

    Between centers of voxels, plus the mean size of a voxel in the plane: one voxel has its own size.

    Args:
        voxels: (n, 3) indices.
        grid: where they lie.

    Returns:
        mm, and the index of the slice along `axial_axis`.
    """
    axis = axial_axis(grid)
    first, second = (d for d in range(3) if d != axis)
    best = (-1.0, 0)
    for index in np.unique(voxels[:, axis]):
        plane = voxels[voxels[:, axis] == index]
        # The farthest pair lies among the ends of the rows.
        order = np.lexsort((plane[:, second], plane[:, first]))
        plane = plane[order]
        new_row = np.flatnonzero(np.diff(plane[:, first])) + 1
        ends = np.unique(np.concatenate([[0], new_row, new_row - 1, [len(plane) - 1]]))
        points = grid.to_ras(plane[ends])
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
        best = max(best, (float(apart), int(index)), key=lambda pair: pair[0])
    return best[0] + float(grid.spacing[[first, second]].mean()), best[1]


def write_table(rows: Sequence[LesionRow], path: Path) -> None:
    """Write the rows as CSV or JSON, by the suffix; positions are three columns in CSV."""
    if path.suffix.lower() == ".json":
        write_json({"lesions": [row.to_dict() for row in rows]}, path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table_columns())
        writer.writeheader()
        writer.writerows(map(flat_row, rows))


def table_columns() -> list[str]:
    """Columns of a CSV table."""
    names: list[str] = []
    for item in fields(LesionRow):
        parts = {"position_ras": ["r_mm", "a_mm", "s_mm"], "voxel": ["i", "j", "k"]}
        names += parts.get(item.name, [item.name])
    return names


def flat_row(row: LesionRow) -> dict[str, Any]:
    """One line of a CSV table."""
    values = row.to_dict()
    r, a, s = values.pop("position_ras")
    i, j, k = values.pop("voxel")
    return {**values, "r_mm": r, "a_mm": a, "s_mm": s, "i": i, "j": j, "k": k}


def _mean(array: NDArray[np.float32] | None, inside: Any) -> float | None:
    return None if array is None else round(float(array[inside].mean(dtype=np.float64)), 4)
