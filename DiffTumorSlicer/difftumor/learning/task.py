"""The worker tasks `learn` and `apply_learned`; the command line calls the same functions."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.grids import Grid
from difftumor.learning.features_model import load_feature_model
from difftumor.learning.labels import LearningError
from difftumor.learning.learn import Callback, LearnedResult, apply_learned, learn
from difftumor.learning.learned import LearnedModel, read_learned_model, write_learned_model
from difftumor.parameters import LearningParameters, from_dict
from difftumor.provenance import image_hash, versions
from difftumor.weights.models import find_model
from difftumor.worker.main import Context
from difftumor.worker.protocol import read_array, write_array
from difftumor.worker.request_arrays import RequestArrays, read_request


def run_learning(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    labels: NDArray[np.generic],
    parameters: LearningParameters,
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callback,
) -> tuple[LearnedResult, LearnedModel, dict[str, Any], str]:
    """Load the diffusion model (or take it from the cache) and learn; arguments as of `learning.learn`.

    Returns: the result, what was learned, the facts of the diffusion model, and the device that computed.
    """
    model = load_feature_model(parameters.model, device, cache, callback)
    result, learned = learn(images, grid, organ, labels, parameters, model, callback, cache)
    return result, learned, model.facts, model.device_name


def run_learned(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    folder: str,
    parameters: LearningParameters,
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callback,
) -> tuple[LearnedResult, dict[str, Any], str]:
    """Segment with what was learned before; of the parameters the model, the plane and the slices are used.

    Returns: the result, the facts of the diffusion model, and the device that computed.
    """
    learned = read_learned_model(folder)
    model = load_feature_model(parameters.model, device, cache, callback)
    plane, slices = parameters.plane, parameters.slices
    result = apply_learned(images, grid, organ, learned, model, plane, slices, callback, cache)
    return result, model.facts, model.device_name


def learn_task(request: dict[str, Any], folder: Path, context: Context) -> dict[str, Any]:
    """Worker task: arrays `image_<name>`, `labels` and (optionally) `organ` in; of a box `segmentation` and
    `uncertainty` out, as `LearnedResult` describes them.

    Args:
        request: {"parameters": LearningParameters as a dictionary, "affine": 4 x 4 (IJK to RAS mm), "device": name},
            optionally "affines": {name: 4 x 4} of images and "labels", checked to be one geometry, and
            "model_folder": where to write what was learned.
        folder: where the arrays lie.
        context: progress, cancel, and the cache that keeps the diffusion model and the features between requests.

    Returns: what `LearnedResult.facts` says, and "model", "device", "versions", "learned" (the card of the model
        folder, or None), "sha256" of "image_<name>", "organ", "labels" and "output" (the segmentation on the whole
        grid).
    """
    given = read_request(request, folder)
    if not (folder / "labels.npy").is_file():
        raise LearningError("the request has no labels. Paint the tumor on at least one slice.")
    labels = np.asarray(read_array(folder, "labels", mapped=True))
    affines = request.get("affines", {})
    check_labels_grid(
        Grid(labels.shape, np.asarray(affines.get("labels", request["affine"]), float)),  # type: ignore[arg-type]
        given.grid,
    )
    result, learned, model, device = run_learning(
        given.images,
        given.grid,
        given.organ,
        labels,
        from_dict(LearningParameters, request["parameters"]),
        request.get("device", "auto"),
        context.cache,
        context.progress,
    )
    told = _written(folder, context, result, given)
    told["sha256"]["labels"] = image_hash(labels, given.grid.affine)
    card = None
    if request.get("model_folder"):
        card = write_learned_model(request["model_folder"], learned, overwrite=True)
    return {**told, "model": model, "device": device, "learned": card}


def apply_task(request: dict[str, Any], folder: Path, context: Context) -> dict[str, Any]:
    """Worker task: segment a case with what was learned before; arrays in and out as of `learn_task`, but no labels.

    Args:
        request: {"parameters": {"model": id or folder of what was learned, "plane": optional}, "affine": 4 x 4,
            "device": name}, optionally "affines".
        folder: where the arrays lie.
        context: as of `learn_task`.

    Returns: as of `learn_task`, without "learned"; "model" names what was learned, and its "features_of".
    """
    given = read_request(request, folder)
    asked, device = request["parameters"], request.get("device", "auto")
    installed = find_model(asked["model"])
    learned = read_learned_model(installed.path)
    source = str(learned.features_of["id"])
    model = load_feature_model(source, device, context.cache, context.progress)
    plane = asked.get("plane", "axial")
    result = apply_learned(
        given.images,
        given.grid,
        given.organ,
        learned,
        model,
        plane,
        None,
        context.progress,
        context.cache,
    )
    told = _written(folder, context, result, given)
    card = learned.card
    facts = {"id": installed.id, "title": card["title"], "sha256": card.get("sha256")}
    return {**told, "model": {**facts, "features_of": model.facts}, "device": model.device_name}


def _written(
    folder: Path, context: Context, result: LearnedResult, given: RequestArrays
) -> dict[str, Any]:
    """Write the arrays of a result.  Returns: its facts, versions and hashes."""
    context.progress("describing the result", 0, 1)
    write_array(folder, "segmentation", result.labels_box)
    write_array(folder, "uncertainty", result.uncertainty_box)
    return {**result.facts(), "versions": versions(), "sha256": given.hashes(result.segmentation)}


def check_labels_grid(labels: Grid, images: Grid) -> None:
    """Refuse labels that were painted on another grid than the images.

    Raises: LearningError: says how they differ and what to do.
    """
    near = 0.1 * float(images.spacing.min())
    if labels.shape == images.shape and labels.same_as(images, tolerance_mm=near):
        return
    how = f"{labels} against {images}"
    if labels.shape == images.shape:
        corners = np.asarray([[0, 0, 0], np.asarray(images.shape) - 1])
        apart = np.linalg.norm(labels.to_ras(corners) - images.to_ras(corners), axis=1).max()
        how = f"their voxels lie up to {apart:.3g} mm apart"
    raise LearningError(
        f"the labels lie on another grid than the images ({how}). Labels are learned from voxel by voxel: paint them "
        "on one of these images, or export the segmentation with one of them as reference."
    )
