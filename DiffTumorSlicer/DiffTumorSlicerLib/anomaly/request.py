"""A wish for a heat map becomes a job: everything that can be refused is refused before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from difftumor.anomaly.layout import slice_axis
from difftumor.parameters import AnomalyParameters, to_dict
from DiffTumorSlicerLib.jobs.case_models import CaseModel, model_facts
from DiffTumorSlicerLib.jobs.cases import Case, read_case
from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.inputs import as_parameters
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.models import check_model
from DiffTumorSlicerLib.jobs.room import check_free
from DiffTumorSlicerLib.scene.slice_ranges import organ_slices
from DiffTumorSlicerLib.scene.volume_nodes import volume_array
from DiffTumorSlicerLib.translation import tr as _

TASK = PANEL = "anomaly"
# A worker with networks of slices at its peak, and one that already holds them.
MODEL_MEMORY = 2_500_000_000
WARM_MEMORY = 1_000_000_000
SPARE_DISK = 64_000_000
SWEEP_LIMIT = 25  # pictures of a sheet


@dataclass(frozen=True, eq=False)
class AnomalyWish:
    """What is to be mapped from which nodes.

    Attributes:
        parameters: with the slices that are meant.
        model: facts of the model.
        case: images and organ.
        device: as the worker names it.
        into: map that the result replaces, or None for a new one.
    """

    parameters: AnomalyParameters
    model: CaseModel
    case: Case
    device: str
    into: Any | None = None

    @property
    def axis(self) -> int:
        """Voxel axis of the slices."""
        return slice_axis(self.case.grid, self.parameters.plane)

    @property
    def indices(self) -> list[int]:
        """The slices that will be computed, as far as it can be known before."""
        first, end = self.parameters.slices or organ_slices(
            self.case.organ, self.case.grid, self.parameters.plane
        )
        if self.case.organ is None:
            return list(range(first, end))
        held = self.case.organ.any(axis=tuple(d for d in range(3) if d != self.axis))
        return [index for index in range(first, end) if held[index]]


def anomaly_wish(
    parameters: AnomalyParameters | Mapping[str, Any],
    images: Any,
    *,
    area_node: Any | None = None,
    segment_id: str | None = None,
    into: Any | None = None,
    device: str = "auto",
) -> AnomalyWish:
    """Check what was asked for against the nodes.

    Args:
        parameters: the pack, or its fields.
        images: a CT volume node, or sequence ('t1', 't1c', 't2', 'flair') -> volume node.
        area_node: segmentation with the organ or the brain, optional.
        segment_id: of the organ; the only segment if None.
        into: map that the result replaces.
        device: 'auto', 'cpu', 'cuda', 'mps'.

    Raises: SceneError, SessionError: what is wrong, and the next step.
    """
    plain = parameters if isinstance(parameters, Mapping) else to_dict(parameters)
    asked = as_parameters(AnomalyParameters, plain)
    check_model(asked.model, TASK, _("anomaly maps"))
    model = model_facts(asked.model)
    wish = AnomalyWish(asked, model, read_case(model, images, area_node, segment_id), device, into)
    _check_slices(wish)
    return wish


def with_slices(wish: AnomalyWish, first: int, end: int) -> AnomalyWish:
    """The same wish for other slices."""
    return replace(wish, parameters=replace(wish.parameters, slices=(first, end)))


def sweep_of(
    wish: AnomalyWish, noise_levels: list[int], guidance_scales: list[float]
) -> list[AnomalyParameters]:
    """One request for each pair of N and S, for the first slice of a wish.

    The largest N comes first, as its encoding serves all the others.

    Raises: SessionError: nothing to try, too much of it, or a value out of range.
    """
    count = len(noise_levels) * len(guidance_scales)
    if not count:
        raise SessionError(
            _("Nothing is to be tried. Write one noise level and one scale or more.")
        )
    if count > SWEEP_LIMIT:
        raise SessionError(
            _(
                "{count} pairs of N and S are too many for one sheet. Write at most {most} pairs."
            ).format(count=count, most=SWEEP_LIMIT)
        )
    index = wish.indices[0]
    base = {**to_dict(wish.parameters), "slices": (index, index + 1)}
    return [
        as_parameters(AnomalyParameters, {**base, "noise_level": noise, "guidance_scale": scale})
        for noise in sorted(set(noise_levels), reverse=True)
        for scale in sorted(set(guidance_scales))
    ]


def _check_slices(wish: AnomalyWish) -> None:
    """The questions about organ and slices that the worker would only answer later."""
    plane, asked = wish.parameters.plane, wish.parameters.slices
    last = wish.case.grid.shape[wish.axis]
    if asked is not None and asked[1] > last:
        raise SessionError(
            _(
                "Slices {first} to {last} are not all in the image, whose {plane} slices are 0 to {end}. "
                "Choose slices of the image."
            ).format(first=asked[0], last=asked[1] - 1, plane=plane, end=last - 1)
        )
    if not wish.indices:
        first, end = organ_slices(wish.case.organ, wish.case.grid, plane)
        raise SessionError(
            _(
                "There is nothing of the chosen segment in these slices: it lies in the {plane} slices "
                "{first} to {last}. Move to one of them, or let all slices of the organ count."
            ).format(plane=plane, first=first, last=end - 1)
        )


def check_anomaly_room(wish: AnomalyWish, host: Host, *, warm: bool) -> None:
    """Compare what is needed with the memory and the disk that are free.

    Args:
        warm: whether the worker holds the model already.

    Raises: SessionError: too little of either.
    """
    arrays = [volume_array(node) for node in wish.case.images.values()]
    size, scans = arrays[0].size, sum(array.nbytes for array in arrays)
    # The worker copies the images; map (float32), mask and healthy version are there and here.
    needed = 2 * scans + 12 * size + (WARM_MEMORY if warm else MODEL_MEMORY)
    check_free(host, needed, 2 * scans + 6 * size + SPARE_DISK)
