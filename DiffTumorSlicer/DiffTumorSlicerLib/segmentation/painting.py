"""Labels that a person paints on a few slices: made, opened in the Segment Editor, and read back.  MRML only.

A slice counts as labeled throughout if something is painted on it, or if the person has marked it as showing no
tumor; the marks are kept with the labels, as positions: Slicer reverses an axis of a left-handed volume when it reads
its file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from numpy.typing import NDArray

from difftumor.anomaly.layout import slice_axis
from difftumor.grids import Grid
from DiffTumorSlicerLib.scene.geometry import SceneError, to_array, to_world
from DiffTumorSlicerLib.scene.results import INPUT_ROLE, input_of
from DiffTumorSlicerLib.scene.segments import LABELMAP, organ_mask, terminology
from DiffTumorSlicerLib.scene.slice_ranges import position_of, slice_at
from DiffTumorSlicerLib.scene.volume_nodes import own_affine, place_beside, unique_name, volume_grid
from DiffTumorSlicerLib.translation import tr as _

LABELS = "DiffTumor.PaintedLabels"  # attribute of a segmentation that this module made for painting
EMPTY = "DiffTumor.NoTumor"  # positions of slices without tumor, by plane
EDITOR = "SegmentEditor"  # module, and singleton tag of its parameter node
NAME = "{input} painted slices{number}"
TUMOR = {"tumor": (0.96, 0.49, 0.13)}
# Labels of brain tumors in the order of the engine's numbers (`learning.result.BRAIN_LABELS`).
BRAIN = {
    "edema": (0.36, 0.80, 0.42),
    "necrotic core": (0.85, 0.27, 0.30),
    "enhancing tumor": (1.0, 0.85, 0.25),
}
OUTERMOST = "edema"  # of these, what the others lie in


@dataclass(frozen=True, eq=False)
class Painted:
    """What is on the slices.

    Attributes:
        labels: uint8 (I, J, K) on the scan's grid, 0 is not painted.
        names, colors: label -> of its segment.
        slices: voxel indices with something painted.
        empty: voxel indices that are marked as showing no tumor.
    """

    labels: NDArray[np.uint8]
    names: dict[int, str]
    colors: dict[int, tuple[float, float, float]]
    slices: tuple[int, ...]
    empty: tuple[int, ...]

    @property
    def labelled(self) -> tuple[int, ...]:
        """All slices that can be learned from."""
        return tuple(sorted({*self.slices, *self.empty}))


def is_labels(node: Any) -> bool:
    """Whether a segmentation was made for painting."""
    return node is not None and node.GetAttribute(LABELS) is not None


def labels_of(scene: Any, scan: Any) -> list[Any]:
    """Segmentations for painting on a scan, oldest first."""
    name = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(n, name) for n in range(scene.GetNumberOfNodesByClass(name))]
    return [node for node in nodes if is_labels(node) and input_of(node) is scan]


def add_labels(scene: Any, scan: Any, *, brain: bool, organ: str = "") -> Any:
    """Add an empty segmentation for painting, on the voxels of a scan.

    Args:
        scene: of the scan.
        scan: what is painted on.
        brain: whether edema, necrotic core and enhancing tumor are told apart.
        organ: anatomy for the terminology.
    """
    pattern = NAME.replace("{input}", scan.GetName().replace("{", "").replace("}", ""))
    name = unique_name(scene, pattern.replace("{number}", "{}"))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
    node.SetAndObserveTransformNodeID(scan.GetTransformNodeID())
    node.SetAttribute(LABELS, "1")
    node.SetNodeReferenceID(INPUT_ROLE, scan.GetID())
    for title, color in (BRAIN if brain else TUMOR).items():
        segment_id = node.GetSegmentation().AddEmptySegment("", title, color)
        segment = node.GetSegmentation().GetSegment(segment_id)
        segment.SetTag(
            segment.GetTerminologyEntryTagName(), terminology("brain" if brain else organ)
        )
    place_beside(scene, node, scan)
    return node


def prepare_editor(scene: Any, labels: Any, scan: Any) -> None:
    """Let the Segment Editor open with these labels on this scan, the brush in hand."""
    node = scene.GetSingletonNode(EDITOR, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(EDITOR)
        node = scene.AddNode(node)
    node.SetAndObserveSegmentationNode(labels)
    node.SetAndObserveSourceVolumeNode(scan)
    segmentation = labels.GetSegmentation()
    chosen = segmentation.GetSegment(node.GetSelectedSegmentID() or "")
    if chosen is None and segmentation.GetNumberOfSegments():
        node.SetSelectedSegmentID(segmentation.GetNthSegmentID(0))
    node.SetActiveEffectName("Paint")
    # What is painted over goes to the newer label, as one voxel has one label.
    node.SetOverwriteMode(node.OverwriteAllSegments)
    labels.SetDisplayVisibility(True)
    if labels.GetDisplayNode() is not None:
        labels.GetDisplayNode().SetVisibility2DFill(True)


def state_of(labels: Any) -> tuple[Any, ...]:
    """Changes when somebody paints, adds or removes a segment, or marks a slice."""
    segmentation = labels.GetSegmentation()
    times = []
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        image = segment.GetRepresentation(LABELMAP)
        times.append((segment_id, segment.GetName(), image.GetMTime() if image else 0))
    return labels.GetID(), labels.GetTransformNodeID(), labels.GetAttribute(EMPTY), *times


def read_painted(labels: Any, scan: Any, plane: Any) -> Painted:
    """Read labels on the voxels of a scan.

    Args:
        labels: segmentation with one segment per label.
        scan: volume node.
        plane: 'axial', 'coronal' or 'sagittal': the slices that were painted.

    Raises:
        SceneError: painted on another grid, or a segment cannot be read.
    """
    grid = volume_grid(scan)
    found = np.zeros(grid.shape, np.uint8)
    names, colors = {}, {}
    segmentation = labels.GetSegmentation()
    for number, segment_id in _numbered(segmentation):
        segment = segmentation.GetSegment(segment_id)
        check_grid(labels, segment_id, scan)
        mask = organ_mask(labels, segment_id, scan)
        if not mask.any():
            continue
        found[mask] = number
        names[number], colors[number] = segment.GetName(), tuple(segment.GetColor())
    axis = slice_axis(grid, plane)
    others = tuple(d for d in range(3) if d != axis)
    painted = tuple(np.flatnonzero(found.any(axis=others)).tolist())
    marked = {slice_at(grid, plane, position) for position in _marks(labels).get(plane, [])}
    return Painted(found, names, colors, painted, tuple(sorted(marked - set(painted))))


def check_grid(labels: Any, segment_id: str, scan: Any) -> None:
    """Refuse labels that lie between the voxels of a scan, since slices would be half painted.

    Raises:
        SceneError: says so, and what to do.
    """
    image = labels.GetSegmentation().GetSegment(segment_id).GetRepresentation(LABELMAP)
    if image is None or image.GetNumberOfPoints() == 0:
        return
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ours = to_world(scan) @ own_affine(scan)
    painted = to_world(labels) @ to_array(matrix)
    relative = np.linalg.inv(ours) @ painted
    steps = relative[:3, 3] - np.rint(relative[:3, 3])
    if np.allclose(relative[:3, :3], np.eye(3), atol=0.01) and np.abs(steps).max() < 0.1:
        return
    raise SceneError(
        _(
            '"{labels}" was painted on another grid than that of "{scan}": its voxels do not lie on the voxels of '
            "the scan. Choose the scan that it was painted on, or take other labels and press Paint."
        ).format(labels=labels.GetName(), scan=scan.GetName())
    )


def check_painted(painted: Painted) -> None:
    """Refuse labels of which nothing is painted (SceneError)."""
    if not painted.slices:
        raise SceneError(
            _(
                "Nothing is painted yet. Press Paint, outline the tumor on one or more slices, and come back to "
                "learn from them."
            )
        )


def mark_empty(labels: Any, grid: Grid, plane: Any, index: int, on: bool) -> None:
    """Remember that a slice shows no tumor, or forget it."""
    marks = _marks(labels)
    kept = [p for p in marks.get(plane, []) if slice_at(grid, plane, p) != index]
    if on:
        kept.append(round(position_of(grid, plane, index), 3))
    labels.SetAttribute(EMPTY, json.dumps({**marks, plane: sorted(kept)}))


def _marks(labels: Any) -> dict[str, list[float]]:
    return dict(json.loads(labels.GetAttribute(EMPTY) or "{}"))


def _numbered(segmentation: Any) -> list[tuple[int, str]]:
    """Label and id of each segment: names of brain tumor parts have their own label, others count on."""
    known = {name: number for number, name in enumerate(BRAIN, start=1)}
    ids = list(segmentation.GetSegmentIDs())
    names = {i: (segmentation.GetSegment(i).GetName() or "").strip().lower() for i in ids}
    if len(set(names.values())) == len(ids) and set(names.values()) <= set(known):
        return [(known[names[i]], i) for i in ids]
    return list(enumerate(ids, start=1))
