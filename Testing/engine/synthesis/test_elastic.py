"""Elastic deformation against B-splines written out in plain loops (no interpolation library)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from difftumor.synthesis.elastic import deform, displacement_field

PLANES = ((0, 1), (1, 2), (0, 2))  # in this order, from the specification
# Values of the cubic B-spline at the whole numbers -1, 0, 1.
B_SPLINE = (1 / 6, 4 / 6, 1 / 6)


def basis(u: float) -> float:
    """Cubic B-spline of width 4 around 0."""
    u = abs(u)
    if u < 1:
        return 2 / 3 - u * u + u**3 / 2
    return (2 - u) ** 3 / 6 if u < 2 else 0.0


def mirrored(index: int, count: int) -> int:
    """Index of a sequence that is mirrored about its first and last point: ... 2 1 0 1 2 1 0 ..."""
    index = abs(index) % (2 * (count - 1))
    return min(index, 2 * (count - 1) - index)


def coefficients(values: np.ndarray) -> np.ndarray:
    """Solve for the B-spline coefficients (P,) whose spline passes through the values (P,)."""
    count = len(values)
    matrix = np.zeros((count, count))
    for row in range(count):
        for step, weight in zip((-1, 0, 1), B_SPLINE, strict=True):
            matrix[row, mirrored(row + step, count)] += weight
    return np.linalg.solve(matrix, values)


def slow_field(control: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Displacements (N, M) of one component, from control points (P, Q)."""
    grid = np.stack([coefficients(row) for row in control])
    grid = np.stack([coefficients(column) for column in grid.T]).T
    result = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            u = i * (control.shape[0] - 1) / (shape[0] - 1)
            v = j * (control.shape[1] - 1) / (shape[1] - 1)
            for k in range(math.floor(u) - 1, math.floor(u) + 3):
                for m in range(math.floor(v) - 1, math.floor(v) + 3):
                    value = grid[mirrored(k, control.shape[0]), mirrored(m, control.shape[1])]
                    result[i, j] += value * basis(u - k) * basis(v - m)
    return result


def slow_deform(mask: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    """Deform voxel by voxel."""
    for (first, second), control in zip(PLANES, displacements, strict=True):
        shape = (mask.shape[first], mask.shape[second])
        move = [slow_field(component, shape) for component in control]
        result = np.zeros_like(mask)
        for index in np.ndindex(*mask.shape):
            here = (index[first], index[second])
            source = [here[axis] + move[axis][here] for axis in (0, 1)]
            if all(0 <= source[axis] <= shape[axis] - 1 for axis in (0, 1)):
                fetched = list(index)
                fetched[first] = math.floor(source[0] + 0.5)
                fetched[second] = math.floor(source[1] + 0.5)
                result[index] = mask[tuple(fetched)]
        mask = result
    return mask


def uniform(*moves: tuple[float, float]) -> np.ndarray:
    """Control points (3, 2, 3, 3) that move whole planes."""
    return np.array(moves)[:, :, None, None] * np.ones((3, 2, 3, 3))


@pytest.mark.parametrize("shape", [(7, 5), (4, 9), (2, 3), (20, 12)])
def test_field_is_the_interpolating_b_spline(shape):
    control = np.random.default_rng(1).normal(0, 3, (2, 3, 3))
    expected = np.stack([slow_field(component, shape) for component in control])
    np.testing.assert_allclose(displacement_field(control, shape), expected, atol=1e-9)


def test_field_passes_through_its_control_points_from_corner_to_corner():
    control = np.arange(18.0).reshape(2, 3, 3) ** 1.5
    field = displacement_field(control, (9, 5))
    np.testing.assert_allclose(field[:, ::4, ::2], control, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_deformation_equals_the_loops_voxel_by_voxel(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((8, 7, 9)) < 0.5
    displacements = rng.normal(0, rng.uniform(0.5, 3), (3, 2, 3, 3))
    np.testing.assert_array_equal(deform(mask, displacements), slow_deform(mask, displacements))


def test_no_displacement_is_the_identity():
    mask = np.random.default_rng(0).random((5, 6, 4)) < 0.5
    np.testing.assert_array_equal(deform(mask, np.zeros((3, 2, 3, 3))), mask)


def test_a_constant_displacement_fetches_from_higher_indices():
    mask = np.zeros((6, 5, 4), bool)
    mask[4, 1, 2] = True
    # plane (0, 1): x from 2 higher, y from 1 lower; plane (1, 2): z from 1 higher; plane (0, 2): x again
    moved = deform(mask, uniform((2, -1), (0, 1), (1, 0)))
    assert np.argwhere(moved).tolist() == [[1, 2, 1]]


def test_half_a_voxel_rounds_up_and_beyond_the_last_voxel_is_background():
    mask = np.ones((4, 3, 3), bool)
    mask[0] = False
    up = deform(mask, uniform((0.5, 0), (0, 0), (0, 0)))
    # sources 0.5, 1.5, 2.5 are the voxels 1, 2, 3; 3.5 lies beyond the last voxel center, 3
    assert up[:, 0, 0].tolist() == [True, True, True, False]
    down = deform(np.ones((4, 3, 3), bool), uniform((-0.25, 0), (0, 0), (0, 0)))
    # sources -0.25, 0.75, ...: the first lies outside although voxel 0 is the nearest
    assert down[:, 0, 0].tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("mask", "displacements"),
    [
        (np.ones((4, 4), bool), np.zeros((3, 2, 3, 3))),
        (np.ones((4, 1, 4), bool), np.zeros((3, 2, 3, 3))),
        (np.ones((4, 4, 4), bool), np.zeros((2, 2, 3, 3))),
        (np.ones((4, 4, 4), bool), np.zeros((3, 3, 3))),
    ],
)
def test_other_forms_are_refused(mask, displacements):
    with pytest.raises(ValueError, match="shape"):
        deform(mask, displacements)
