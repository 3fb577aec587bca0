"""Learning from a few labeled slices of the case on screen: the rest of the volume is segmented.

Method: pixel classifiers on the features of a diffusion model (Baranchuk et al., ICLR 2022; for brain tumors
Alshenoudy et al., "Semi-supervised brain tumor segmentation using diffusion models", whose patient-level use this
is). The diffusion model has seen many unlabeled slices; the classifiers see the painted ones only, and train in
seconds. Where the classifiers of the ensemble disagree, the segmentation is uncertain.

Nothing depends on what was asked before: one more painted slice trains the classifiers anew, on features that are
still there, so the same labels give the same segmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from difftumor.anomaly.layout import slice_axis
from difftumor.grids import Grid
from difftumor.learning.canvas import Canvas
from difftumor.learning.ensemble import train_ensemble
from difftumor.learning.feature_slices import FeatureSlices, feature_slices, settled
from difftumor.learning.labels import (
    LearningError,
    checked_labels,
    labelled_slices,
    labels_of_pixels,
    many_slices_note,
)
from difftumor.learning.learned import LearnedModel, described
from difftumor.learning.result import LearnedResult, label_names
from difftumor.networks.pixel_classifiers import PixelEnsemble
from difftumor.parameters import LearningParameters, Plane, to_dict

if TYPE_CHECKING:
    from difftumor.learning.features_model import FeatureModel

__all__ = ["LearnedResult", "LearningError", "apply_learned", "learn", "segment_slices"]

Callback = Callable[[str, int, int], None]


def learn(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    labels: NDArray[np.generic],
    parameters: LearningParameters,
    model: FeatureModel,
    callback: Callback | None = None,
    cache: MutableMapping[str, Any] | None = None,
) -> tuple[LearnedResult, LearnedModel]:
    """Learn from the labeled slices of a case, and segment the others.

    Args:
        images: (I, J, K) by name: one CT (any name), or the MR sequences that the model wants; never changed.
        grid: geometry of all of them.
        organ: bool (I, J, K), organ or brain; None only for skull-stripped MR, and for CT models of no organ.
        labels: (I, J, K) whole numbers, 0 where nothing is painted; unpainted parts of a labeled slice are
            background.
        parameters: the request.
        model: of `learning.features_model.load_feature_model`.
        callback: called with stage, done, total; may raise Cancelled.
        cache: kept between requests: with one more painted slice only the classifiers are trained again.

    Returns:
        the segmentation, and what was learned.

    Raises:
        LearningError: nothing can be learned; says why and what to do.
        AnomalyError: likewise.
        Cancelled: from the callback.
    """
    report = callback or (lambda _stage, _done, _total: None)
    painted = checked_labels(labels, grid)
    if organ is not None and organ.shape != grid.shape:
        raise ValueError(f"the organ mask has shape {organ.shape}, its grid {grid.shape}")
    needs_organ(model, organ)
    axis = slice_axis(grid, parameters.plane)
    asked = labelled_slices(painted, grid, axis, parameters.labelled)
    choice = _choice(model, parameters)
    span = parameters.slices
    if span is not None:
        span = min(span[0], *asked), max(span[1], *(index + 1 for index in asked))
    slices = feature_slices(
        images, grid, organ, model, choice, parameters.plane, span,
        {} if cache is None else cache, report,
    )  # fmt: skip
    notes = [*slices.notes, *filter(None, [many_slices_note(len(asked), parameters.plane)])]
    labelled, values = _usable(slices, painted, asked, notes)
    positions = [slices.fine.indices.index(index) for index in labelled]
    report("collecting the painted pixels", 0, 1)
    pixels = torch.cat([slices.pixels(position) for position in positions]).to(model.device)
    truth = torch.from_numpy(
        np.concatenate(
            [
                labels_of_pixels(painted, values, slices.fine, position)[
                    slices.fine.organ[position]
                ]
                for position in positions
            ]
        )
    ).to(model.device)
    _check_pixels(truth, values)
    ensemble = train_ensemble(
        pixels,
        truth,
        len(values) + 1,
        members=parameters.members,
        steps=parameters.steps,
        seed=parameters.seed,
        learned=slices.learned,
        callback=lambda done, total: report("learning from the painted slices", done, total),
    )
    votes, disagreement = segment_slices(slices, ensemble, report)
    report("laying the result on the images", 0, 1)
    shown = range(*parameters.slices) if parameters.slices else range(grid.shape[axis])
    canvas = Canvas(slices, painted, tuple(labelled), values, shown)
    names = label_names(values, model.card.get("organs", []))
    result = canvas.result(votes, disagreement, names, parameters.keep, notes)
    fineness = slices.fine.images.shape[-1] // model.slice_format.image_size
    settings = to_dict(parameters) | {"blocks": choice.blocks, "timesteps": choice.timesteps}
    settings |= {"fineness": fineness, "labelled": tuple(labelled)}
    training = {
        "slices": len(labelled),
        "pixels": len(truth),
        "features": slices.count,
        "members": parameters.members,
        "steps": parameters.steps,
    }
    learned = described("learned", model, ensemble, names, choice, fineness, training)
    return replace(result, training=training, settings=_listed(settings)), learned


def apply_learned(
    images: Mapping[str, NDArray[np.generic]],
    grid: Grid,
    organ: NDArray[np.bool_] | None,
    learned: LearnedModel,
    model: FeatureModel,
    plane: Plane = "axial",
    slices: tuple[int, int] | None = None,
    callback: Callback | None = None,
    cache: MutableMapping[str, Any] | None = None,
) -> LearnedResult:
    """Segment a case with what was learned before, from this case or another.

    Args:
        images: as of `learn`.
        grid: likewise.
        organ: likewise.
        callback: likewise.
        cache: likewise.
        learned: of `learn` or `learning.learned.read_learned_model`.
        model: the diffusion model that it was learned with.
        plane: in which slices are segmented.
        slices: first and one past the last; None: all of the organ.

    Raises:
        AnomalyError: it cannot be applied.
        LearningError: likewise.
        ModelError: likewise.
        Cancelled: from the callback.
    """
    report = callback or (lambda _stage, _done, _total: None)
    learned.check(model)
    needs_organ(model, organ)
    seen = feature_slices(
        images, grid, organ, model, learned.choice, plane, slices,
        {} if cache is None else cache, report, learned.fineness,
    )  # fmt: skip
    ensemble = learned.ensemble.to(model.device)
    votes, disagreement = segment_slices(seen, ensemble, report)
    canvas = Canvas(seen, np.zeros(grid.shape, np.uint8), (), learned.labels, seen.fine.indices)
    result = canvas.result(votes, disagreement, learned.names, "all", seen.notes)
    settings = {"plane": plane, "slices": slices, "learned": learned.card["id"]}
    return replace(result, settings=_listed(settings))


def _listed(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists for tuples, as JSON reads them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def needs_organ(model: FeatureModel, organ: NDArray[np.bool_] | None) -> None:
    """Refuse a CT without the organ that the model was made for.  Raises: LearningError."""
    organs = model.card.get("organs", [])
    if organ is None and organs and model.slice_format.modality == "CT":
        raise LearningError(
            f"the model knows the inside of the {' or '.join(organs)} only and needs its mask. Choose the organ's "
            "segment, or segment it first (for instance with TotalSegmentator)."
        )


@torch.no_grad()
def segment_slices(
    slices: FeatureSlices, ensemble: PixelEnsemble, callback: Callback
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ask the classifiers about all pixels of the slices.

    Returns:
        share of the votes for each class but the background (classes - 1, n, H, W), and the disagreement (n, H,
        W); both float32, 0 outside the organ.
    """
    organ = slices.fine.organ
    votes = np.zeros((ensemble.classes - 1, *organ.shape), np.float32)
    disagreement = np.zeros(organ.shape, np.float32)
    device = ensemble.weights[0].device
    for position in range(len(organ)):
        callback("segmenting the other slices", position, len(organ))
        verdict = ensemble.judge(slices.pixels(position).to(device))
        inside = organ[position]
        votes[:, position][:, inside] = verdict.votes[:, 1:].T.cpu().numpy()
        disagreement[position][inside] = verdict.disagreement.cpu().numpy()
    callback("segmenting the other slices", len(organ), len(organ))
    return votes, disagreement


def _choice(model: FeatureModel, parameters: LearningParameters) -> Any:
    """The features that were asked for, else the recommended ones.  Raises: LearningError."""
    try:
        return settled(
            model, blocks=parameters.blocks, timesteps=parameters.timesteps, seed=parameters.seed
        )
    except ValueError as error:
        raise LearningError(f"this model cannot do that: {error}. Choose others.") from None


def _usable(
    slices: FeatureSlices, painted: NDArray[np.uint8], asked: list[int], notes: list[str]
) -> tuple[list[int], list[int]]:
    """Labeled slices that the model sees, and the labels on them; says what is lost.

    Raises:
        LearningError: nothing is left.
    """
    stack = slices.fine
    seen = [index for index in asked if index in stack.indices]
    if not seen:
        raise LearningError(
            f"the labeled slices ({', '.join(map(str, asked[:8]))}) show too little of the organ: the model sees the "
            f"slices {min(stack.indices)} to {max(stack.indices)}. Label slices there, or check the organ mask."
        )
    if lost := sorted(set(asked) - set(seen)):
        notes.append(
            f"Slices {', '.join(map(str, lost))} show too little of the organ and were not learned from."
        )
    part = np.moveaxis(painted, stack.axis, 0)[seen]
    values = [int(value) for value in np.unique(part) if value]
    if stack.inside is not None:
        inside = np.moveaxis(stack.inside, stack.axis, 0)[seen]
        outside = float((part[~inside] > 0).sum()) / max(float((part > 0).sum()), 1)
        if outside > 0.02:
            notes.append(
                f"{outside:.0%} of what was painted lie outside the organ mask, where the model sees nothing."
            )
    if not values:
        raise LearningError(
            "the slices that the model sees have no label. Paint the tumor on a slice that shows the organ."
        )
    return seen, values


def _check_pixels(truth: torch.Tensor, values: list[int]) -> None:
    """Raise LearningError unless there are painted and unpainted pixels in the organ."""
    counts = torch.bincount(truth, minlength=len(values) + 1)
    if not counts[1:].any():
        raise LearningError(
            "what was painted lies outside the organ mask or is smaller than a pixel of the model, so there is "
            "nothing to learn from. Paint inside the organ, or check its mask."
        )
    if not counts[0]:
        raise LearningError(
            "the whole organ is painted on the labeled slices, so nothing shows what healthy tissue looks like. "
            "Label a slice that shows some of it."
        )
