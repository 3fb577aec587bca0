"""The four MR sequences of the head phantom: tissue signals, texture, receive field, blur and noise."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy import ndimage

from difftumor.phantom.canvas import Box
from difftumor.phantom.head_space import Field
from difftumor.phantom.texture import Axes

SEQUENCES = ("flair", "t1", "t1c", "t2")


class Tissue(IntEnum):
    """What a voxel is mostly made of."""

    OUTSIDE = 0
    CSF = 1
    CORTEX = 2
    WHITE = 3
    STRIATUM = 4
    THALAMUS = 5
    PALLIDUM = 6
    STEM = 7
    CEREBELLUM = 8
    CEREBELLAR_WHITE = 9
    VENTRICLE = 10
    VESSEL = 11
    DURA = 12
    CHOROID_PLEXUS = 13
    GLIOSIS = 14


# tissue: signal in FLAIR, T1, T1c, T2 (cortex = 100 in each), and its spread between patients in percent
SIGNALS = {
    Tissue.OUTSIDE: ((0, 0, 0, 0), 0),
    Tissue.CSF: ((22, 26, 27, 285), 8),
    Tissue.CORTEX: ((100, 100, 103, 100), 0),
    Tissue.WHITE: ((87, 138, 136, 77), 4),
    Tissue.STRIATUM: ((97, 112, 113, 90), 3),
    Tissue.THALAMUS: ((94, 121, 121, 87), 3),
    Tissue.PALLIDUM: ((83, 128, 128, 70), 4),
    Tissue.STEM: ((92, 127, 126, 84), 3),
    Tissue.CEREBELLUM: ((97, 101, 104, 98), 3),
    Tissue.CEREBELLAR_WHITE: ((89, 129, 128, 80), 3),
    Tissue.VENTRICLE: ((15, 23, 24, 310), 8),
    Tissue.VESSEL: ((48, 70, 265, 55), 12),
    Tissue.DURA: ((72, 85, 168, 70), 12),
    Tissue.CHOROID_PLEXUS: ((105, 85, 235, 190), 14),
    Tissue.GLIOSIS: ((178, 108, 106, 150), 6),
}
_TEXTURE = np.array([2.8, 2.2, 2.2, 3.2], np.float32)  # sd of the coarse texture, percent
_FIELD = np.array([0.07, 0.06, 0.06, 0.07])  # typical sd of the receive field


class Tissues:
    """Four images and a map of tissues under construction.

    Attributes:
        images: float32 (4, I, J, K), cortex about 100, in the order of SEQUENCES.
        labels: uint8 (I, J, K), values of `Tissue`: what the voxel mostly consists of.
        signal: float32 (number of tissues, 4), this patient's signals.
    """

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator):
        table = np.array([SIGNALS[t][0] for t in Tissue], np.float32)
        spread = np.array([SIGNALS[t][1] for t in Tissue], np.float32) / 100
        draws = np.clip(rng.standard_normal(table.shape), -2, 2).astype(np.float32)
        # T1 and T1c of one patient agree but for the contrast agent.
        draws[:, 2] = 0.8 * draws[:, 1] + 0.4 * draws[:, 2]
        self.signal = table * (1 + spread[:, None] * draws)
        # Fluid is suppressed more or less well, and white matter contrast depends on the scanner.
        self.signal[[Tissue.CSF, Tissue.VENTRICLE], 0] *= np.float32(rng.uniform(0.6, 1.5))
        contrast = rng.uniform(0.55, 1.05, 4).astype(np.float32)
        contrast[2] = contrast[1] * np.float32(rng.uniform(0.7, 1.0))
        solid = [t for t in Tissue if Tissue.CORTEX < t <= Tissue.CEREBELLAR_WHITE]
        self.signal[solid] = 100 + (self.signal[solid] - 100) * contrast
        self.images = np.zeros((4, *shape), np.float32)
        self.labels = np.zeros(shape, np.uint8)

    def fill(self, tissue: Tissue) -> None:
        """Make everything one tissue."""
        self.images[:] = self.signal[tissue][:, None, None, None]
        self.labels[:] = tissue

    def blend(self, box: Box | None, share: np.ndarray, tissue: Tissue) -> None:
        """Replace a share of every voxel of a box (None: everywhere) by a tissue."""
        self.blend_signal(box, share, self.signal[tissue])
        self.labels[box or ...][share > 0.5] = tissue

    def blend_signal(self, box: Box | None, share: np.ndarray, signal: np.ndarray) -> None:
        """Replace a share of every voxel of a box by signals: (4,), or (4, I, J, K) of the box."""
        for image, value in zip(self.images, signal, strict=True):
            part = image[box or ...]
            part += share * (value - part)


class Scanner:
    """What a scanner does to the images of one patient; every draw belongs to the seed, not to the grid."""

    def __init__(self, rng: np.random.Generator):
        self._fields = [Field.sample(rng, 75.0) for _ in range(3)]
        self._mix = rng.normal(0, 0.5, (4, 2)).astype(np.float32)
        self._strength = _FIELD * np.exp(rng.normal(-0.2, 0.45, 4))
        self._bowl = rng.uniform(-0.06, 0.12)  # surface coils see the surface better
        self._texture = [Field.sample(rng, length) for length in (9.0, 3.2)]
        # Two-dimensional sequences have thick slices, along the body's axis more often than not.
        self.slice_mm = np.array([rng.choice([1.0, 1.5, 3.0, 5.0], p=p) for p in (
            (0.25, 0.25, 0.3, 0.2), (0.5, 0.2, 0.2, 0.1), (0.7, 0.2, 0.1, 0), (0.2, 0.2, 0.35, 0.25))])  # fmt: skip
        self.blur_mm = rng.uniform(0.35, 0.65, 4)
        self.noise_percent = np.clip(np.exp(rng.normal(np.log(3.2), 0.4, 4)), 1.2, 7.0)
        self.scale = np.exp(
            rng.uniform(np.log(1.2), np.log(15.0), 4)
        )  # arbitrary units per percent

    def textured(self, images: np.ndarray, axes: Axes) -> None:
        """Add the tissue's own unevenness, in place; fluid is even."""
        coarse, fine = (f.on(axes) for f in self._texture)
        for c, image in enumerate(images):
            solid = np.clip(image / 60, 0, 1) if c != 3 else np.clip((230 - image) / 100, 0, 1)
            sign = (
                -1 if c in (1, 2) else 1
            )  # water shortens nothing: what is bright in T2 is dark in T1
            image += solid * _TEXTURE[c] * (sign * coarse + 0.6 * fine)

    def scanned(self, images: np.ndarray, axes: Axes, spacing: np.ndarray) -> np.ndarray:
        """Blur and shade: float32 (4, I, J, K), scanner units, without noise."""
        x, y, z = np.ix_(*axes)
        bowl = (x / 65) ** 2 + ((y + 16) / 85) ** 2 + ((z - 7) / 65) ** 2
        shading = np.float32(self._bowl) * (bowl - 0.5)
        fields = [f.on(axes) for f in self._fields]
        out = np.empty_like(images)
        for c, image in enumerate(images):
            # The anatomy is painted with the partial volume of the voxel: only the scanner's own blur is missing.
            along = np.sqrt(
                self.blur_mm[c] ** 2 + max(self.slice_mm[c] ** 2 - spacing[2] ** 2, 0) / 12
            )
            sigma = np.array([self.blur_mm[c], self.blur_mm[c], along]) / spacing
            blurred = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=2.5)
            field = fields[0] + self._mix[c, 0] * fields[1] + self._mix[c, 1] * fields[2]
            gain = np.exp(np.float32(self._strength[c]) * field + shading)
            out[c] = blurred * gain * np.float32(self.scale[c])
        return out

    def noisy(
        self,
        clean: np.ndarray,
        rng: np.random.Generator,
        spacing: np.ndarray,
        percent: float | None,
    ) -> np.ndarray:
        """Magnitude images with Rician noise, float32 (4, I, J, K)."""
        out = np.empty_like(clean)
        # A larger voxel averages more; images on a common grid were interpolated, which smooths their noise.
        thinner = min(1.0, float(np.prod(spacing)) ** -0.3)
        for c, image in enumerate(clean):
            sigma = self.noise_percent[c] * thinner if percent is None else percent
            sd = np.float32(sigma * self.scale[c])
            real, imaginary = (
                self._correlated(rng.standard_normal(image.shape, dtype=np.float32), spacing)
                for _ in range(2)
            )
            out[c] = np.hypot(image + sd * real, sd * imaginary)
        return out

    @staticmethod
    def _correlated(noise: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        sigma = 0.5 / spacing
        if sigma.max() > 0.3:
            noise = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=2.5)
            noise /= noise.std()
        return noise
