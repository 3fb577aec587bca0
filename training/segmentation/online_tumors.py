"""Tumors synthesized in the crops that a segmenter learns from, by stages 1 and 2 or by the modeling-based baseline.

Chen et al., CVPR 2024, stage 3.  Shapes are drawn by the threads that prepare crops (`plan`); the networks, loaded
once for a whole run, paint them on the training device (`paint`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.ellipsoids import Box
from difftumor.parameters import SynthesisParameters, TumorSize
from difftumor.synthesis.blending import TRUNCATE, blend_as_published, from_unit
from difftumor.synthesis.generators import load_generator
from difftumor.synthesis.shapes import SIZES, TumorShapeError, sample_lesions, tumor_mask
from difftumor.synthesis.synthesize import Generated, Generator
from training.data.scans import ORGAN, TUMOR
from training.segmentation.config import Organ, Synthesis
from training.segmentation.data import Crop

EARLY = ("tiny", "small")
HU_AT_0, HU_AT_1 = (float(hu) for hu in from_unit(np.array([0, 1], np.float32)))
HU_PER_UNIT = HU_AT_1 - HU_AT_0


@dataclass(frozen=True, eq=False)
class Tumors:
    """Tumors that are to be painted into a crop.

    Attributes:
        size: one of `synthesis.shapes.SIZES`.
        masks: bool (X, Y, Z) each; painted one after the other.
        seed: of the noise.
        feather: sigma of the rim, mm.
    """

    size: TumorSize
    masks: tuple[NDArray[np.bool_], ...]
    seed: int
    feather: float


class TumorPainter:
    """Draws and paints tumors of one organ.

    Args:
        settings: which models, sizes, rims.
        organ: of the scans.
        device: where the models compute, as `devices.resolve_device` takes it.

    Raises:
        ModelError: a model is not installed or is none of synthesis.
        DeviceError: no such device.
    """

    def __init__(self, settings: Synthesis, organ: Organ, device: str) -> None:
        self.settings, self.organ = settings, organ
        source = settings.source or organ
        names = {
            "early": settings.early or f"difftumor-{source}-early",
            "late": settings.late or f"difftumor-{source}-noearly",
        }
        tiny, small, medium, large = settings.sizes
        chances = {"early": tiny + small, "late": medium + large}
        # A cache of its own each: `load_generator` keeps one model per cache.
        self.generators: dict[str, Generator] = {
            kind: load_generator(names[kind], device, {}, _silent)
            for kind, chance in chances.items()
            if chance > 0
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What paints what; JSON-ready."""
        return {kind: generator.facts for kind, generator in self.generators.items()}

    def plan(self, rng: np.random.Generator, labels: NDArray[np.uint8]) -> Tumors | None:
        """Draw tumors for the organ in a crop of 1 mm voxels; None where the organ there has no room."""
        size: Any = str(
            rng.choice(list(SIZES), p=np.divide(self.settings.sizes, sum(self.settings.sizes)))
        )
        seed, feather = int(rng.integers(2**62)), float(rng.uniform(*self.settings.feather))
        organ = labels == ORGAN
        try:
            lesions = sample_lesions(rng, size, organ, self.organ)
            groups = [[lesion] for lesion in lesions] if self.settings.window else [lesions]
            masks = tuple(tumor_mask(organ, group) for group in groups)
        except TumorShapeError:
            return None
        return Tumors(size, masks, seed, feather)

    def paint(self, crop: Crop, tumors: Tumors) -> Crop:
        """Put tumors into a crop of 1 mm voxels; the label is the hard mask (spec section 3.2)."""
        generator = self.generators["early" if tumors.size in EARLY else "late"]
        parameters = SynthesisParameters(
            size=tumors.size, organ=self.organ, steps=self.settings.steps, seed=tumors.seed
        )
        image, labels = crop.image.copy(), crop.labels.copy()
        for number, mask in enumerate(tumors.masks):
            box = self._box(mask)
            made = generator.generate(
                from_unit(image[box]), mask[box], parameters, tumors.seed + number, _silent
            )
            image[box] = self._blended(image[box], crop.labels[box] > 0, mask[box], made, tumors)
            labels[mask] = TUMOR
        return Crop(image, labels)

    def _box(self, mask: NDArray[np.bool_]) -> Box:
        """The cube around a tumor that is painted; the whole crop where it does not fit."""
        edge = self.settings.window
        spans = ndimage.find_objects(mask.view(np.uint8))[0]
        margin = 2 * TRUNCATE
        fits = all(
            s.stop - s.start + margin <= edge <= n for s, n in zip(spans, mask.shape, strict=True)
        )
        x, y, z = (
            slice(first, first + edge) if fits else slice(0, n)
            for first, n in zip(_firsts(spans, mask.shape, edge), mask.shape, strict=True)
        )
        return x, y, z

    def _blended(
        self,
        image: NDArray[np.float32],
        organ: NDArray[np.bool_],
        mask: NDArray[np.bool_],
        made: Generated,
        tumors: Tumors,
    ) -> NDArray[np.float32]:
        """A crop with what was painted, by the published rule where the model paints the crop itself."""
        sigma = tumors.feather if made.feather_mm is None else made.feather_mm
        if made.reference is None:
            painted = (made.hu - np.float32(HU_AT_0)) / HU_PER_UNIT
            return blend_as_published(image, painted, mask, self.organ, sigma)
        weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=TRUNCATE)
        if made.feather_mm is not None:
            weight *= organ  # Hu et al. darken nothing beyond the organ
        return np.clip(image + weight * (made.hu - made.reference) / HU_PER_UNIT, 0, 1)


def _firsts(spans: tuple[slice, ...], shape: tuple[int, ...], edge: int) -> Iterator[int]:
    """First voxels of a cube around a box, moved into the crop."""
    for span, n in zip(spans, shape, strict=True):
        yield int(np.clip((span.start + span.stop - edge) // 2, 0, max(n - edge, 0)))


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""
