"""Anomaly heat maps: from images to maps, marks and healthy versions on the same grid.

Method: Wolleb et al., "Diffusion models for medical anomaly detection", MICCAI 2022; for CT of the pancreas:
Babaei et al., "Pancreatic Tumor Segmentation as Anomaly Detection in CT Images Using Denoising Diffusion
Models". An image is noised deterministically up to a level N and denoised again while a classifier pulls it
towards "healthy" with strength S; what changed is the map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.maps import direction_signs
from difftumor.anomaly.result import AnomalyResult, Canvas
from difftumor.anomaly.rewriting import Callback, check_noise_level, rewrite, store_of
from difftumor.anomaly.settings import resolve_settings
from difftumor.anomaly.slices import AnomalyError, SliceFormat, prepare
from difftumor.grids import Grid
from difftumor.images.sequences import canonical
from difftumor.parameters import AnomalyParameters

if TYPE_CHECKING:
    from difftumor.anomaly.model import AnomalyModel

__all__ = ["AnomalyError", "AnomalyResult", "compute_anomaly"]


def compute_anomaly(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    parameters: AnomalyParameters,
    model: AnomalyModel,
    callback: Callback | None = None,
    cache: MutableMapping[str, Any] | None = None,
    on_partial: Callable[[AnomalyResult], None] | None = None,
) -> AnomalyResult:
    """Make an anomaly heat map.

    Args:
        images: (I, J, K) by name: one CT (any name), or the MR sequences that the model wants; never changed.
        grid: geometry of all of them (`images.mr.check_same_geometry` tells whether they share one).
        organ: bool (I, J, K), organ or brain; None only for skull-stripped MR, and for CT models of no organ.
        parameters: the request.
        model: of `anomaly.models.load_anomaly_model`.
        callback: called with stage, done, total; may raise Cancelled.
        cache: kept between requests: a new S then costs only the decoding, a new kind of map nothing.
        on_partial: called with what is finished after each batch of slices but the last, so that a caller that
            cancels keeps it.

    Returns:
        the result; all slices are finished.

    Raises:
        AnomalyError: no map can be made; says why and what to do.
        Cancelled: from the callback.
    """
    report = callback or (lambda _stage, _done, _total: None)
    made_for = model.slice_format
    check_model(model)
    settings, notes = resolve_settings(parameters, model.recommended, made_for.modality)
    check_noise_level(model, settings)
    if organ is not None and organ.shape != grid.shape:
        raise ValueError(f"the organ mask has shape {organ.shape}, its grid {grid.shape}")
    for name, image in images.items():
        if image.shape != grid.shape and made_for.modality == "CT":
            raise ValueError(f"the image {name} has shape {image.shape}, its grid {grid.shape}")
    organs = model.card.get("organs", [])
    if organ is None and organs and made_for.modality == "CT":
        raise AnomalyError(
            f"the model knows the inside of the {' or '.join(organs)} only and needs its mask. Choose the organ's "
            "segment, or segment it first (for instance with TotalSegmentator)."
        )
    report("preparing the slices", 0, 1)
    stack = prepare(images, grid, organ, made_for, settings.plane, settings.slices)
    notes += stack.notes
    signs = direction_signs(settings.direction, stack.images.shape[1])
    canvas = Canvas(stack, images, _channels(images, made_for), settings, signs)
    store = store_of({} if cache is None else cache, model.device)
    done = 0
    for batch in rewrite(stack.images, model, settings, store, report, notes.append):
        canvas.add(batch.probability, batch.healthy, batch.unguided)
        done += len(batch.healthy)
        if on_partial is not None and done < len(stack):
            on_partial(canvas.result(notes))
    return canvas.result(list(dict.fromkeys(notes)))


def check_model(model: AnomalyModel) -> None:
    """Refuse a model that cannot say which of its labels is healthy.

    Raises:
        AnomalyError: it names no healthy class.
    """
    if getattr(model, "healthy_index", None) is None:
        raise AnomalyError(
            "the model does not say which of its labels is healthy (healthy_index), so the guidance could pull "
            "towards disease. Add healthy_index to its model.json, or choose another model."
        )


def _channels(images: Mapping[str, Any], made_for: SliceFormat) -> list[str]:
    """Name of the input of each channel."""
    if made_for.modality == "CT":
        return list(images)
    names = {canonical(name): name for name in images}
    return [names[canonical(channel)] for channel in made_for.channel_order]
