"""Scenes for tests: real MRML nodes of slicer-core, and a bridge whose worker is the test."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install slicer-core)")

import vtk  # noqa: E402
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy  # noqa: E402

from difftumor.worker.protocol import CancelledEvent, ErrorEvent, ProgressEvent, ResultEvent  # noqa: E402

SHAPE = (60, 52, 44)


def make_scene(folder=None):
    """An empty scene that knows segmentations and, given a folder, reads MRB files."""
    scene = slicer.vtkMRMLScene()
    selection = slicer.vtkMRMLSelectionNode()  # markups look for it
    selection.SetSingletonTag("Singleton")
    scene.AddNode(selection)
    # They register nodes, their files and the converters of segments.
    scene.logics = [slicer.vtkSlicerSegmentationsModuleLogic(), slicer.vtkSlicerMarkupsLogic()]
    for logic in scene.logics:
        logic.SetMRMLScene(scene)
    if folder is not None:
        cache = slicer.vtkCacheManager()
        cache.SetRemoteCacheDirectory(str(folder))
        files = slicer.vtkDataIOManager()
        files.SetCacheManager(cache)
        scene.SetDataIOManager(files)
    return scene


def matrix_of(array):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def turned(degrees, axis="xyz", shift=(0, 0, 0)):
    """A rigid affine, made by SciPy and not by the code under test."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    affine[:3, 3] = shift
    return affine


def oblique_affine(spacing=(0.8, 1.1, 2.3), left_handed=True, seed=3):
    """Turned, anisotropic, left-handed IJK to RAS."""
    affine = turned((17, -23, 31), shift=(-20.0, 35.0, -60.0))
    affine[:3, :3] *= np.asarray(spacing) * (1, 1, -1 if left_handed else 1)
    return affine


def add_ct(scene, name="CT", shape=SHAPE, affine=None, dtype=np.int16, seed=0):
    """A volume of noisy soft tissue with fat, bone and air in it."""
    rng = np.random.default_rng(seed)
    array = rng.normal(60, 12, shape)
    array[:4] = -1000
    array[-6:, :8] = 700
    array[:, -6:] = -110
    return add_volume(scene, name, array.astype(dtype), affine)


def add_volume(scene, name, array, affine=None, kind="vtkMRMLScalarVolumeNode"):
    types = {
        "int16": vtk.VTK_SHORT, "float32": vtk.VTK_FLOAT, "float64": vtk.VTK_DOUBLE,
        "uint8": vtk.VTK_UNSIGNED_CHAR, "uint16": vtk.VTK_UNSIGNED_SHORT,
    }  # fmt: skip
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape)
    image.AllocateScalars(types[array.dtype.name], 1)
    # By VTK's rule the first index runs fastest; written out here, not taken from the code under test.
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.ravel(order="F")
    node = scene.AddNewNodeByClass(kind, name)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(matrix_of(np.eye(4) if affine is None else affine))
    node.CreateDefaultDisplayNodes()
    return node


def voxels(node):
    """Copy of a volume's voxels (I, J, K), read by VTK's rule."""
    image = node.GetImageData()
    flat = vtk_to_numpy(image.GetPointData().GetScalars())
    return flat.reshape(image.GetDimensions(), order="F").copy()


def add_transform(scene, affine, name="moved", child=None):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(matrix_of(affine))
    if child is not None:
        child.SetAndObserveTransformNodeID(node.GetID())
    return node


def add_bend(scene, displacement, child=None, half_width=120.0, step=20.0):
    """A grid transform, as Slicer makes one for a tilted gantry; displacement(points) -> mm, to parent."""
    count = int(2 * half_width / step) + 1
    grid = vtk.vtkImageData()
    grid.SetDimensions(count, count, count)
    grid.SetOrigin(-half_width, -half_width, -half_width)
    grid.SetSpacing(step, step, step)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    points = (indices((count, count, count)) * step - half_width).reshape(-1, 3, order="F")
    vtk_to_numpy(grid.GetPointData().GetScalars())[:] = displacement(points)
    bend = vtk.vtkGridTransform()
    bend.SetDisplacementGridData(grid)
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Acquisition transform")
    node.SetAndObserveTransformToParent(bend)
    if child is not None:
        child.SetAndObserveTransformNodeID(node.GetID())
    return node


def gantry(points, slope=0.3):
    """Slices shifted against each other."""
    shift = np.zeros_like(points)
    shift[:, 1] = slope * points[:, 2]
    return shift


def add_roi(scene, center, size, turn=None, name="R"):
    """A Box ROI; `turn` is an affine whose rotation turns it about its center."""
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    roi.CreateDefaultDisplayNodes()
    roi.SetCenter(*center)
    roi.SetSize(*size)
    if turn is not None:
        matrix = np.array(turn, float)
        matrix[:3, 3] = center
        roi.SetAndObserveObjectToNodeMatrix(matrix_of(matrix))
    return roi


def add_segmentation(scene, volume, masks, transform=None):
    """A segmentation with one segment per name -> bool mask on the grid of `volume`."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "organs")
    node.CreateDefaultDisplayNodes()
    ids = {}
    for name, mask in masks.items():
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(mask.shape)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel(order="F")
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        image.SetImageToWorldMatrix(matrix)
        ids[name] = node.AddSegmentFromBinaryLabelmapRepresentation(image, name, (0.5, 0.5, 0.1))
    if transform is not None:
        node.SetAndObserveTransformNodeID(transform.GetID())
    return node, ids


def carried(transform, points):
    """Points (..., 3) through a VTK transform."""
    inside, outside = vtk.vtkPoints(), vtk.vtkPoints()
    outside.SetDataTypeToDouble()
    flat = np.ascontiguousarray(np.reshape(points, (-1, 3)), float)
    inside.SetData(numpy_to_vtk(flat, deep=True))
    transform.TransformPoints(inside, outside)
    return vtk_to_numpy(outside.GetData()).copy().reshape(np.shape(points))


def between(source, target):
    """VTK's transform between two transform nodes; None is the patient's space."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def by_matrix(matrix):
    transform = vtk.vtkTransform()
    transform.SetMatrix(matrix)
    return transform


def world_of(node, points):
    """RAS points (..., 3) of a node's own space in the patient's, by VTK's transforms."""
    return carried(between(node.GetParentTransformNode(), None), points)


def indices(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)


def voxel_centers_in_world(volume):
    """RAS mm (I, J, K, 3) of all voxel centers in the patient, by VTK."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    index = indices(volume.GetImageData().GetDimensions())
    return world_of(volume, carried(by_matrix(matrix), index))


def index_in(volume, world):
    """Fractional voxel indices of a volume at points (..., 3) of the patient, by VTK."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    return carried(
        by_matrix(matrix), carried(between(None, volume.GetParentTransformNode()), world)
    )


def roi_distance(roi, world):
    """How far points (..., 3) lie from the ROI's center, in radii of the inscribed ellipsoid, by VTK."""
    inverse = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(roi.GetObjectToNodeMatrix(), inverse)
    own = carried(by_matrix(inverse), carried(between(None, roi.GetParentTransformNode()), world))
    return np.linalg.norm(own / (np.array(roi.GetSize()) / 2), axis=-1)


def segment_voxels(segmentation, segment_id, shape):
    """Bool (I, J, K): the voxels of a segment in a volume that it was made on."""
    image = slicer.vtkOrientedImageData()
    assert segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    extent = image.GetExtent()
    flat = vtk_to_numpy(image.GetPointData().GetScalars())
    part = flat.reshape(image.GetDimensions(), order="F") != 0
    mask = np.zeros(shape, bool)
    mask[extent[0] : extent[1] + 1, extent[2] : extent[3] + 1, extent[4] : extent[5] + 1] = part
    return mask


class FakeBridge:
    """A bridge whose worker is the test: what is asked waits in `requests` until it is answered."""

    log_path = "/somewhere/worker.log"

    def __init__(self):
        self.requests, self.events, self.results = {}, [], {}
        self.stopped, self.closed = [], False

    def request(self, task, parameters, arrays=None, *, panel=None):
        number = len(self.requests) + 1
        copies = {name: np.array(a) for name, a in (arrays or {}).items()}
        self.requests[number] = (task, parameters, copies, panel)
        return number

    def cancel(self, number):
        self.stopped.append(number)
        self.events.append(CancelledEvent(number))
        return True

    def take(self, number):
        return self.results.pop(number)

    def poll(self):
        events, self.events = self.events, []
        return events

    def close(self):
        self.closed = True

    # ------------------------------------------------------------------------- what the worker says

    def progress(self, number, stage, done, total, remaining_s=None):
        self.events.append(ProgressEvent(number, stage, done, total, 0.1, remaining_s))

    def answer(self, number, box=((10, 20), (12, 22), (8, 14)), add=-40, **facts):
        """A tumor: the box darker by `add` in its middle, in the type of the scan that came."""
        scan = self.requests[number][2]["scan"]
        slices = tuple(slice(*edges) for edges in box)
        patch = scan[slices].copy()
        mask = np.zeros(patch.shape, np.uint8)
        mask[2:-2, 2:-2, 1:-1] = 1
        patch[mask > 0] += np.asarray(add).astype(patch.dtype)
        metadata = {
            "box": [list(edges) for edges in box],
            "lesions": [{"volume_mm3": 500.0}],
            "notes": [],
            "model": {"id": "modelled", "title": "M", "sha256": None},
            "device": "cpu",
            "versions": {"torch": "of the worker"},
            "sha256": {"scan": "s" * 64, "output": "o" * 64},
            **facts,
        }
        self.results[number] = {"patch": patch, "mask": mask}
        self.events.append(ResultEvent(number, metadata, ["mask", "patch"], 1.0))
        return slices, patch

    def fail(self, number, kind="crashed", message="The worker ended.", hint="Try again."):
        self.events.append(ErrorEvent(number, kind, message, hint, "Traceback ...", "/log"))
