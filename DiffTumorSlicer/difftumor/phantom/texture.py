"""Random fields of the phantom: smooth lattices, point spread, and noise with a CT-like spectrum.

Everything here is a pure function of coordinates and a generator. Smooth fields are cubic B-splines on a
coarse lattice of white noise; the tensor product is three matrix products, which is far cheaper than
filtering the full grid.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Coordinates of the voxel centers along each axis, mm, float32, each (n,)."""

# Standard deviation of a tensor product of cubic B-splines over white noise: the mean over one cell of
# the sum of squared basis values is 151/315 along each axis.
_LATTICE_SD = (151 / 315) ** 1.5


def bspline_weights(
    coordinates: np.ndarray, length_mm: float, start_mm: float, n: int
) -> np.ndarray:
    """Weights of uniform cubic B-splines at some coordinates.

    Args:
        coordinates: (m,) positions in mm; beyond the lattice the last cell is continued.
        length_mm: distance of the lattice nodes.
        start_mm: position of lattice node 1 (node 0 lies one cell before it).
        n: number of nodes, at least 4.

    Returns:
        float32 (m, n), each row sums to 1.
    """
    u = np.clip((np.asarray(coordinates, np.float64) - start_mm) / length_mm, 0, n - 3 - 1e-6)
    cell = np.floor(u).astype(int)
    f = u - cell
    pieces = (
        (1 - f) ** 3 / 6,
        (3 * f**3 - 6 * f**2 + 4) / 6,
        (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6,
        f**3 / 6,
    )
    weights = np.zeros((len(u), n), np.float32)
    rows = np.arange(len(u))
    for offset, piece in enumerate(pieces):
        weights[rows, cell + offset] = piece
    return weights


def smooth_field(
    rng: np.random.Generator, axes: Axes, length_mm: float | tuple[float, ...]
) -> np.ndarray:
    """Zero-mean, unit-variance smooth random field on a box of voxels.

    Args:
        rng: source of the lattice values; a child of it is drawn from, so that the parent's next draw does not depend
            on the size of the box.
        axes: coordinates of the voxel centers, mm.
        length_mm: lattice distance, one number or one per axis; the correlation length is about the same.

    Returns:
        float32 (I, J, K).
    """
    source = rng.spawn(1)[0]
    if any(
        len(coordinates) == 0 for coordinates in axes
    ):  # a part that lies outside the field of view
        return np.zeros([len(coordinates) for coordinates in axes], np.float32)
    lengths = np.broadcast_to(np.asarray(length_mm, float), 3)
    weights = []
    for coordinates, length in zip(axes, lengths, strict=True):
        n = int(np.ceil((coordinates[-1] - coordinates[0]) / length)) + 4
        weights.append(bspline_weights(coordinates, length, float(coordinates[0]), n))
    lattice = source.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    return evaluate_lattice(lattice / np.float32(_LATTICE_SD), weights)


def evaluate_lattice(lattice: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Tensor-product spline on a box.

    Args:
        lattice: (a, b, c) node values.
        weights: three arrays (I, a), (J, b), (K, c) of `bspline_weights`.

    Returns:
        float32 (I, J, K).
    """
    wx, wy, wz = weights
    out = np.tensordot(wx, lattice, axes=(1, 0))  # (I, b, c): smallest product first
    out = np.matmul(wy, out)  # (I, J, c)
    spline: np.ndarray = out @ wz.T
    return spline


def blur_point_spread(image: np.ndarray, spacing_mm: np.ndarray, psf_mm: float) -> np.ndarray:
    """Scanner blur: Gaussian point spread, widened where a voxel is longer than the spread.

    Args:
        image: float32 (I, J, K), HU.
        spacing_mm: (3,) voxel size.
        psf_mm: standard deviation of the in-plane point spread, mm.

    Returns:
        float32 (I, J, K).
    """
    # A box of width s has standard deviation s / sqrt(12): this is the partial volume of the voxel itself.
    sigma = np.sqrt(psf_mm**2 + np.asarray(spacing_mm) ** 2 / 12) / np.asarray(spacing_mm)
    blurred: np.ndarray = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)
    return blurred


def ct_noise(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_mm: np.ndarray,
    *,
    peak_per_mm: float = 0.22,
    slice_correlation_mm: float = 0.7,
) -> np.ndarray:
    """Unit-variance noise with the spectrum of filtered back-projection.

    In-plane power is f exp(-f^2 / (2 p^2)): the ramp filter makes it rise from zero, apodization makes it fall;
    the maximum lies at f = p (Riederer, Pelc and Chesler 1978: noise power of CT is ramp x apodization^2).

    Args:
        rng: source of the white noise.
        shape: (I, J, K); axes I and J are in-plane.
        spacing_mm: (3,) voxel size.
        peak_per_mm: spatial frequency p of the maximum, cycles per mm.
        slice_correlation_mm: standard deviation of the correlation kernel along K.

    Returns:
        float32 (I, J, K).
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = slice_correlation_mm / spacing_mm[2]
    if sigma > 0.15:
        noise = ndimage.gaussian_filter1d(noise, sigma, axis=2, mode="wrap", truncate=3.0)
    fx = fft.fftfreq(shape[0], spacing_mm[0])[:, None]
    fy = fft.rfftfreq(shape[1], spacing_mm[1])[None, :]
    f = np.hypot(fx, fy)
    # The small floor stands for what scatter and beam hardening leave at the lowest frequencies.
    amplitude = np.sqrt((f + 0.01) * np.exp(-(f**2) / (2 * peak_per_mm**2))).astype(np.float32)
    spectrum = fft.rfftn(noise, axes=(0, 1))
    spectrum *= amplitude[:, :, None]
    noise = fft.irfftn(spectrum, s=shape[:2], axes=(0, 1)).astype(np.float32, copy=False)
    scaled: np.ndarray = noise / np.float32(noise.std())
    return scaled
