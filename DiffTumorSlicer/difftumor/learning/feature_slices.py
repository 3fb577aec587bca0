"""The slices of a case with the features of their pixels, which are computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difftumor.anomaly.layout import slice_axis
from difftumor.anomaly.rewriting import store_of
from difftumor.anomaly.slices import prepare
from difftumor.anomaly.stack import SliceStack
from difftumor.grids import Grid
from difftumor.learning.features_model import STAGE, Callback, FeatureModel
from difftumor.learning.pixel_features import FeatureChoice, enlarged
from difftumor.parameters import Plane

# A pixel is also known by the means of the organ around it, in squares of these sides.
AROUND_MM = (10.0, 16.0, 30.0)
# Pixels are divided until they are about this wide, but never below the voxels of the image.
FINE_MM = 1.6
MOST_FINENESS = 4


@dataclass(frozen=True, eq=False)
class FeatureSlices:
    """Slices on two grids of pixels, coarse ones for the diffusion model and finer ones that are classified.

    The features of a fine pixel are those of the diffusion model, bilinearly enlarged as in the paper, then its own
    values, and the means of the organ around it.  Differs from the paper, which classifies the pixels of the
    diffusion model by its features only.

    Attributes:
        fine: slices on fine pixels.
        pixel_mm: size of a fine pixel.
        maps: for each timestep and block (n, channels, h, w), of the same slices.
        notes: sentences for the user.
    """

    fine: SliceStack
    pixel_mm: float
    maps: list[Tensor]
    notes: list[str]

    @property
    def learned(self) -> int:
        """Number of features of the diffusion model, which come first."""
        return sum(int(each.shape[1]) for each in self.maps)

    @property
    def count(self) -> int:
        """Number of features F of a pixel."""
        return self.learned + int(self.fine.images.shape[1]) * (1 + len(AROUND_MM))

    def pixels(self, position: int) -> Tensor:
        """Features of the organ's pixels of a slice, float32 (N, F); N in the order of `organ`."""
        height, width = self.fine.organ.shape[1:]
        large = enlarged([each[position : position + 1] for each in self.maps], (height, width))[0]
        organ = torch.from_numpy(self.fine.organ[position])
        own = torch.from_numpy(self.fine.images[position])
        sides = [2 * round((side / self.pixel_mm - 1) / 2) + 1 for side in AROUND_MM]
        means = [local_means(own, organ, side) for side in sides]
        return torch.cat([each[:, organ] for each in (large, own, *means)]).T.contiguous()


def local_means(image: Tensor, organ: Tensor, side: int) -> Tensor:
    """Mean of the organ's pixels in a square around each pixel.

    Args:
        image: (C, H, W).
        organ: bool (H, W).
        side: of the square in pixels, odd.

    Returns:
        (C, H, W); 0 where the square holds nothing of the organ.
    """
    weight = organ.to(image.dtype)[None]
    sums = torch.cat([image * weight, weight])[None]
    for shape in ((side, 1), (1, side)):
        sums = F.avg_pool2d(sums, shape, 1, (shape[0] // 2, shape[1] // 2))
    return sums[0, :-1] / sums[0, -1:].clamp(min=1e-6)


def feature_slices(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    model: FeatureModel,
    choice: FeatureChoice,
    plane: Plane,
    slices: tuple[int, int] | None,
    cache: MutableMapping[str, Any],
    callback: Callback,
    fineness: int | None = None,
) -> FeatureSlices:
    """Prepare the slices of a case and compute their features, or take them from the cache.

    Args:
        images: as of `anomaly.slices.prepare`.
        grid: likewise.
        organ: likewise.
        plane: likewise.
        slices: likewise.
        model: whose features.
        choice: which features.
        cache: kept between requests.
        callback: called with stage, done, total; may raise Cancelled.
        fineness: fine pixels per pixel along a side; None: by the voxels.

    Raises:
        AnomalyError: the images do not suit the model.
        ValueError: the choice does not.
    """
    made_for = model.slice_format
    if fineness is None:
        fineness = fineness_for(grid, plane, made_for.spacing_mm[0])
    callback("preparing the slices", 0, 1)
    coarse = prepare(images, grid, organ, made_for, plane, slices)
    fine = coarse
    if fineness > 1:
        fine = prepare(images, grid, organ, made_for, plane, slices, fineness)
        # A slice with a few large pixels of the organ may have fewer or more small ones.
        common = [index for index in coarse.indices if index in set(fine.indices)]
        coarse, fine = coarse.chosen(common), fine.chosen(common)
    pixels = torch.from_numpy(coarse.images)
    mark = hashlib.sha256(np.ascontiguousarray(coarse.images).data).hexdigest()
    key = ("features", model.facts.get("sha256"), model.device_name, choice, pixels.shape, mark)
    store = store_of(cache, model.device)
    maps = store.get(key)
    if maps is None:
        maps = model.maps(pixels, choice, lambda done, total: callback(STAGE, done, total))
        store.put(key, maps)
    pixel_mm = made_for.spacing_mm[0] / fineness
    return FeatureSlices(fine, pixel_mm, maps, list(coarse.notes))


def fineness_for(grid: Grid, plane: Plane, pixel_mm: float) -> int:
    """How finely pixels are divided: to about `FINE_MM`, but not below the voxels in the plane."""
    axis = slice_axis(grid, plane)
    voxel = min(float(grid.spacing[d]) for d in range(3) if d != axis)
    return int(np.clip(round(pixel_mm / max(voxel, FINE_MM)), 1, MOST_FINENESS))


def settled(
    model: FeatureModel, choice: FeatureChoice | None = None, **wishes: Any
) -> FeatureChoice:
    """The recommended choice of features with what was asked for instead.

    Raises:
        ValueError: the network has no such block or timestep.
    """
    made = replace(
        choice or model.recommended, **{k: v for k, v in wishes.items() if v is not None}
    )
    made.check(model.unet, model.schedule.length)
    return made
