"""What a volume is and what the models will do with it, in words for the Volumes panel."""

from __future__ import annotations

from typing import Any

import numpy as np

from difftumor.grids import Grid
from difftumor.images.ct_warnings import ct_warnings
from difftumor.synthesis.blending import WINDOW_HU
from difftumor.synthesis.sites import CROP_MM
from DiffTumorSlicerLib.scene.geometry import SceneError, has_nonlinear_parent
from DiffTumorSlicerLib.scene.volume_nodes import modality_of, volume_array, volume_grid
from DiffTumorSlicerLib.translation import tr as _

OBLIQUE_DEG = 1.0
SHEARED_DEG = 0.1


def volume_facts(node: Any) -> dict[str, str]:
    """Short texts for a table: modality, size, spacing, orientation, range, model.

    Raises:
        SceneError: the volume has no single place in the patient; the message says the remedy.
    """
    grid = volume_grid(node)
    low, high = node.GetImageData().GetScalarRange()
    size = " x ".join(str(n) for n in grid.shape)
    spacing = " x ".join(f"{mm:.3g}" for mm in grid.spacing)
    window = " to ".join(f"{hu:g}" for hu in WINDOW_HU)
    return {
        "modality": modality_of(node.GetScene(), node) or _("not stated"),
        "size": _("{size} voxels").format(size=size),
        "spacing": _("{spacing} mm").format(spacing=spacing),
        "orientation": _orientation(grid),
        "range": _("{low:g} to {high:g}").format(low=low, high=high),
        "model": (
            _(
                "It sees {crop} mm around the tumor, resampled to 1 mm and clipped to {window} HU; "
                "the result keeps this volume's own voxels."
            ).format(crop=CROP_MM, window=window)
        ),
    }


def volume_warnings(node: Any) -> list[str]:
    """What may go wrong with a volume, one sentence or two each; empty for an ordinary CT."""
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return [
            _('"{name}" is a label map, not an image. Choose the CT itself.').format(
                name=node.GetName()
            )
        ]
    try:
        array, grid = volume_array(node), volume_grid(node)
    except SceneError as error:
        return [str(error)]
    if min(grid.shape) < 2:
        return [
            _('"{name}" is a single slice, but a CT volume is needed. Load the series.').format(
                name=node.GetName()
            )
        ]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [
            _(
                '"{name}" has voxels that are not numbers. Repair it first, or load the original.'
            ).format(name=node.GetName())
        ]
    low, high = node.GetImageData().GetScalarRange()
    if low == high:
        return [
            _('"{name}" holds no image: its values are all {low:g}. Load it again.').format(
                name=node.GetName(), low=low
            )
        ]
    warnings = []
    tilt = _shear_deg(grid)
    if tilt > SHEARED_DEG:
        warnings.append(
            _(
                "The slices are shifted against each other as by a gantry tilted by {tilt:.1f} degrees. "
                "Tumors are placed rightly, but the views show the anatomy slanted."
            ).format(tilt=tilt)
        )
    warnings += ct_warnings(low, high, grid, modality_of(node.GetScene(), node))
    return warnings


def volume_notes(node: Any) -> list[str]:
    """All that the panel says of a volume: one sentence of facts where there are any, then warnings."""
    warnings = volume_warnings(node)
    if has_nonlinear_parent(node) or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return warnings
    try:
        facts = volume_facts(node)
    except SceneError:
        return warnings
    told = _("Modality {modality}, {size} of {spacing}, {orientation}, values {range}.").format(
        modality=facts["modality"],
        size=facts["size"],
        spacing=facts["spacing"],
        orientation=facts["orientation"],
        range=facts["range"],
    )
    return [told, *warnings]


def _orientation(grid: Grid) -> str:
    """How the slices (K) lie in the patient."""
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    axis = int(np.abs(normal).argmax())
    angle = float(np.rad2deg(np.arccos(min(abs(normal[axis]), 1.0))))
    # By the patient's axis that the slices follow.
    words = (_("sagittal slices"), _("coronal slices"), _("axial slices"))[axis]
    if angle > OBLIQUE_DEG:
        words += _(", oblique by {angle:.0f} degrees").format(angle=angle)
    return words + (_(", left-handed") if grid.is_left_handed else "")


def _shear_deg(grid: Grid) -> float:
    """Largest departure of the angles between the axes from 90 degrees."""
    axes = grid.affine[:3, :3] / grid.spacing
    cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
    return float(np.rad2deg(np.arcsin(min(cosines.max(), 1.0))))
