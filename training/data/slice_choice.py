"""Which slices of a patient join a slice set, what they are called, and their masks on the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.anomaly.slices import SliceFormat, prepare_ct, prepare_mr
from difftumor.anomaly.stack import SliceStack
from difftumor.fields import number
from difftumor.grids import Grid
from difftumor.images.resampling import resample
from training.data.slice_sets import PatientSlices
from training.data.slice_sources import Patient
from training.loop.config import Checked

# A slice shows look-alikes from this area on: a cyst of 3 mm radius.
LOOK_ALIKES_MM2 = 28.0


@dataclass(frozen=True)
class Rules(Checked):
    """Which slices of a patient are taken, and what they are called."""

    per_patient: int = number(
        12, 1, 1000, "slices", "Most slices of one patient, both labels together."
    )
    least_lesion_mm2: float = number(
        *(80.0, 0, 1e5, "mm2"),
        "A slice with a lesion of this area is diseased; with less than it, it is left out. 0: "
        "any voxel of tumor.",
    )
    least_organ_mm2: float = number(
        300.0, 0, 1e6, "mm2", "Slices that show less of the organ are left out."
    )
    least_contrast: float = number(
        *(0.0, 0, 2, ""),
        "Paper A leaves diseased slices out of training whose tumor and organ differ by less than "
        "0.1 of the intensity range on average; 0 keeps all. It reads the masks, so it goes "
        "beyond image labels.",
    )
    every: int = number(
        *(0, 0, 1000, "slices"),
        "Take every n-th slice of the span that shows the organ, whatever else it shows "
        "(Alshenoudy et al.: 5); 0 chooses by the rules above.",
    )
    look_alike_share: float = number(
        *(0.6, 0, 1, ""),
        "Phantoms: share of the slices, of both labels alike, that are taken from those with "
        "healthy look-alikes.",
    )
    seed: int = number(0, 0, 2**31, "", "Of the choice among a patient's slices, and of the split.")


def patient_slices(
    patient: Patient,
    made_for: SliceFormat,
    rules: Rules,
    *,
    surplus: int = 0,
    span: tuple[int, int] | None = None,
) -> PatientSlices | None:
    """Choose and prepare the slices of one patient.

    A patient with tumors gives up to half of `per_patient` diseased slices and half as many healthy ones, one
    without tumors as many healthy ones as the set lacks, so that both labels stay level.

    Args:
        patient: read or generated.
        made_for: how the images are prepared.
        rules: which slices are taken.
        surplus: diseased less healthy slices in the set so far.
        span: first and one past the last slice that may be taken.

    Returns:
        the slices, or None if the patient has none to give.

    Raises:
        AnomalyError: the images cannot be prepared.
    """
    stack = prepare(patient, made_for, span)
    axis = stack.axis
    areas = [
        [_largest_mm2(part, patient.grid, axis) if d == 0 else _mm2(part, patient.grid, axis)
         for d, part in enumerate(_planes(patient, axis, index))]
        for index in stack.indices
    ]  # fmt: skip
    lesion, organ, similar = np.array(areas).T
    any_tumor = np.array([patient.tumor.take(i, axis).any() for i in stack.indices])
    shown = organ >= rules.least_organ_mm2
    diseased = shown & any_tumor & (lesion >= rules.least_lesion_mm2)
    tumor, images = _carried(stack, patient.tumor), stack.images
    diseased &= tumor.any(axis=(1, 2))  # the crop may miss a lesion at the organ's edge
    if rules.least_contrast:
        width = made_for.intensity_range[1] - made_for.intensity_range[0]
        diseased &= _contrast(images, stack.organ, tumor) >= rules.least_contrast * width
    healthy = shown & ~any_tumor

    rng = np.random.default_rng([rules.seed, *patient.name.encode()])
    half = max(1, rules.per_patient // 2)
    if rules.every:
        steps = (np.array(stack.indices) - (span or (0,))[0]) % rules.every
        rows = np.flatnonzero(shown & (steps == 0))[: rules.per_patient]
        return _joined(patient, stack, rows, any_tumor, tumor) if len(rows) else None
    chosen = _choose(rng, diseased, similar, half, rules.look_alike_share)
    # Without any tumor in the patient, the healthy slices make up for those of the others.
    wanted = max(1, len(chosen) // 2) if any_tumor.any() else max(2, surplus)
    room = rules.per_patient - len(chosen)
    chosen += _choose(rng, healthy, similar, min(wanted, room), rules.look_alike_share)
    if not chosen:
        return None
    rows = np.sort(np.array(chosen))
    return _joined(patient, stack, rows, diseased, tumor)


def _joined(
    patient: Patient,
    stack: SliceStack,
    rows: NDArray[np.integer],
    diseased: NDArray[np.bool_],
    tumor: NDArray[np.bool_],
) -> PatientSlices:
    """Some rows of the stack, with all that is known of them."""
    marks, labels = patient.look_alikes, patient.labels
    return PatientSlices(
        stack.images[rows],
        diseased[rows],
        np.array(stack.indices)[rows],
        stack.organ[rows],
        tumor[rows],
        np.zeros(tumor[rows].shape, np.uint8) if marks is None else _carried(stack, marks)[rows],
        None if labels is None else _carried(stack, labels)[rows],
    )


def prepare(
    patient: Patient, made_for: SliceFormat, span: tuple[int, int] | None = None
) -> SliceStack:
    """Cut all axial slices of a patient as the engine does."""
    if made_for.modality == "CT":
        scan = patient.images["ct"]
        return prepare_ct(scan, patient.grid, patient.organ, made_for, "axial", span)
    return prepare_mr(patient.images, patient.grid, patient.organ, made_for, "axial", span)


def _planes(patient: Patient, axis: int, index: int) -> list[NDArray[np.bool_]]:
    """Tumor, organ and look-alikes of one slice on the input grid."""
    marks = patient.look_alikes
    tumor: NDArray[np.bool_] = np.take(patient.tumor, index, axis)
    organ: NDArray[np.bool_] = np.take(patient.organ, index, axis)
    alike: NDArray[np.bool_] = (
        np.zeros_like(organ) if marks is None else np.take(marks, index, axis) > 0
    )
    return [tumor, organ, alike]


def _mm2(mask: NDArray[np.bool_], grid: Grid, axis: int) -> float:
    """Area of a mask of one slice."""
    first, second = np.delete(grid.affine[:3, :3], axis, axis=1).T
    return float(mask.sum() * np.linalg.norm(np.cross(first, second)))


def _largest_mm2(mask: NDArray[np.bool_], grid: Grid, axis: int) -> float:
    """Area of the largest connected part of a mask of one slice."""
    pieces, count = ndimage.label(mask)
    if count == 0:
        return 0.0
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return _mm2(pieces == largest, grid, axis)


def _carried(stack: SliceStack, labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (I, J, K) of the input on the pixels of the slices, nearest neighbor; (n, H, W)."""
    planes = []
    for index, crop in zip(stack.indices, stack.grids, strict=True):
        box = [slice(0, n) for n in stack.grid.shape]
        box[stack.axis] = slice(index, index + 1)
        part = (box[0], box[1], box[2])
        plane = resample(labels[part], stack.grid.cropped(part), crop, order=0)[..., 0]
        planes.append(plane.T if stack.transposed else plane)
    return np.stack(planes)


def _contrast(
    images: NDArray[np.float32], organ: NDArray[np.bool_], tumor: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Difference between the means of tumor and healthy organ in each slice, largest over channels; (n,)."""
    found = np.zeros(len(images))
    for k, (image, inside, sick) in enumerate(zip(images, organ, tumor, strict=True)):
        well = inside & ~sick
        if sick.any() and well.any():
            found[k] = np.abs(image[:, sick].mean(1) - image[:, well].mean(1)).max()
    return found


def _choose(
    rng: np.random.Generator,
    usable: NDArray[np.bool_],
    similar_mm2: NDArray[np.float64],
    count: int,
    share: float,
) -> list[int]:
    """Draw slices, a share of them from those with look-alikes as far as there are any."""
    order = rng.permutation(np.flatnonzero(usable))
    rich = [int(k) for k in order if similar_mm2[k] >= LOOK_ALIKES_MM2]
    poor = [int(k) for k in order if similar_mm2[k] < LOOK_ALIKES_MM2]
    first = rich[: round(share * count)]
    return (first + poor + rich[len(first) :])[:count]
