"""The images of a case: one CT, or the sequences of an MR examination, found by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import slicer

from difftumor.images.mr import CaseError, check_same_geometry
from difftumor.images.sequences import SEQUENCES, TITLES, sequence_of
from DiffTumorSlicerLib.jobs.case_models import CaseModel
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.scene.geometry import has_nonlinear_parent
from DiffTumorSlicerLib.scene.results import GENERATED, MAP
from DiffTumorSlicerLib.scene.volume_nodes import modality_of, volume_array, volume_grid
from DiffTumorSlicerLib.translation import tr as _

# No MR image has values like air in a CT.
CT_AIR = -500.0


def find_sequence_nodes(scene: Any, near: Any | None) -> dict[str, Any]:
    """Which volumes of the scene are T1, T1 with contrast, T2 and FLAIR, by their names.

    Args:
        scene: of the volumes.
        near: the scan that was chosen; volumes of its study come first, and it counts for itself.

    Returns:
        sequence -> node; what was not found is left out.
    """
    name = "vtkMRMLScalarVolumeNode"
    nodes = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    nodes = [node for node in nodes if is_image(node)]
    found: dict[str, Any] = {}
    for node in _nearest_first(scene, nodes, near):
        sequence = sequence_of(node.GetName() or "")
        if sequence:
            found.setdefault(sequence, node)
    return found


def is_image(node: Any) -> bool:
    """Whether a volume can be an input: no label map, and nothing that this module made of one."""
    return not (
        node.IsA("vtkMRMLLabelMapVolumeNode")
        or node.GetAttribute(MAP)
        or node.GetAttribute(GENERATED)
    )


def check_images(images: Mapping[str, Any], model: CaseModel) -> None:
    """Refuse images that the model cannot look at.

    Args:
        images: channel -> volume node or None.
        model: what is wanted.

    Raises:
        SessionError: what is missing or does not fit, and the next step.
        SceneError: likewise.
    """
    missing = [TITLES.get(name, name) for name in model.channels if images.get(name) is None]
    if missing and not model.of_brain:
        raise SessionError(_("There is no scan yet. Load a CT or choose one in the Volumes panel."))
    if missing:
        wanted = ", ".join(TITLES.get(name, name) for name in model.channels)
        raise SessionError(
            _(
                '"{title}" looks at {wanted}. Not chosen yet: {missing}. Load what is missing and '
                "press Find by name, or choose another model."
            ).format(title=model.title, wanted=wanted, missing=", ".join(missing))
        )
    nodes = [images[name] for name in model.channels]
    for node in nodes:
        _check_image(node, model)
    if len({node.GetID() for node in nodes}) < len(nodes):
        raise SessionError(
            _("The same volume is chosen for two sequences. Choose the right one for each of them.")
        )
    try:
        check_same_geometry({f'"{node.GetName()}"': volume_grid(node) for node in nodes})
    except CaseError as error:
        raise SessionError(sentence_of(error)) from error


def bent(images: Iterable[Any]) -> list[Any]:
    """Those of the images that lie under a transform that bends space."""
    return [node for node in images if node is not None and has_nonlinear_parent(node)]


def chosen_sequences(parameters: Any) -> dict[str, Any]:
    """The volumes that the parameter node names for the sequences."""
    return {name: getattr(parameters, f"sequence_{name}") for name in SEQUENCES}


def _check_image(node: Any, model: CaseModel) -> None:
    name = node.GetName()
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise SessionError(
            _('"{name}" is a label map, not an image. Choose the image itself.').format(name=name)
        )
    if not is_image(node):
        raise SessionError(
            _(
                '"{name}" was made by this module from another image. Choose the image itself.'
            ).format(name=name)
        )
    array = volume_array(node)
    volume_grid(node)  # refuses what has no place in the patient
    if array.dtype.kind not in "iuf":
        raise SessionError(
            _('"{name}" holds no numbers. Choose the image itself.').format(name=name)
        )
    stated = modality_of(node.GetScene(), node)
    seen = stated or ("CT" if float(node.GetImageData().GetScalarRange()[0]) < CT_AIR else "")
    if seen in ("CT", "MR") and seen != model.modality:
        words = (
            _(
                '"{name}" is a CT, but "{title}" is a model for MR images. Choose another model, or '
                "another image."
            )
            if seen == "CT"
            else _(
                '"{name}" is an MR image, but "{title}" is a model for CT. Choose another model, or '
                "another image."
            )
        )
        raise SessionError(words.format(name=name, title=model.title))


def _nearest_first(scene: Any, nodes: list[Any], near: Any | None) -> list[Any]:
    """The chosen scan, then its neighbors in the subject hierarchy, then the rest."""
    if near is None:
        return nodes
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

    def parent(node: Any) -> int:
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
        return int(hierarchy.GetItemParent(item)) if item else -1

    home = parent(near)
    return sorted(nodes, key=lambda node: (node is not near, parent(node) != home))
