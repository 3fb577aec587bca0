"""Loading and saving, as `slicer.util.loadVolume`, `saveNode`, `exportNode` and `saveScene` ask for it."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import slicer
import vtk

# File types by which slicer.util asks, and the node class that holds them.
_NODE_OF_TYPE = {
    "VolumeFile": "vtkMRMLScalarVolumeNode",
    "SegmentationFile": "vtkMRMLSegmentationNode",
    "MarkupsFile": "vtkMRMLMarkupsROINode",
    "TransformFile": "vtkMRMLLinearTransformNode",
}
_TYPE_OF_SUFFIX = {
    ".seg.nrrd": "SegmentationFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".mha": "VolumeFile",
    ".mrk.json": "MarkupsFile",
    ".h5": "TransformFile",
    ".mrb": "SceneFile",
    ".mrml": "SceneFile",
}


class CoreIOManager:
    """`slicer.app.coreIOManager()`, with storage nodes in place of Slicer's reader plug-ins."""

    def fileType(self, name: str) -> str:
        return next((kind for end, kind in _TYPE_OF_SUFFIX.items() if name.endswith(end)), "NoFile")

    def fileWriterFileType(self, node: Any) -> str:
        return next((t for t, c in _NODE_OF_TYPE.items() if node.IsA(c)), "NoFile")

    def extractKnownExtension(self, name: str, node: Any) -> str:
        return next((end for end in _TYPE_OF_SUFFIX if name.endswith(end)), Path(name).suffix)

    def fileWriterExtensions(self, node: Any) -> list[str]:
        return [f"File (*{suffix})" for suffix in _TYPE_OF_SUFFIX]

    def loadNodes(
        self, kind: str, properties: dict[str, Any], loaded: vtk.vtkCollection, messages: Any = None
    ) -> bool:
        scene, name = slicer.mrmlScene, properties["fileName"]
        if not Path(name).exists():
            return False
        if kind == "SceneFile":
            return self._load_scene(name, bool(properties.get("clear")))
        node = slicer.__dict__[_NODE_OF_TYPE[kind]]()
        node.SetName(properties.get("name") or Path(name).name.split(".")[0])
        scene.AddNode(node)
        storage = node.CreateDefaultStorageNode()
        storage.SetFileName(name)
        scene.AddNode(storage)
        node.SetAndObserveStorageNodeID(storage.GetID())
        if not storage.ReadData(node):
            scene.RemoveNode(storage)
            scene.RemoveNode(node)
            return False
        node.CreateDefaultDisplayNodes()
        loaded.AddItem(node)
        if properties.get("show", True) and node.IsA("vtkMRMLVolumeNode"):
            selection = slicer.app.applicationLogic().GetSelectionNode()
            selection.SetActiveVolumeID(node.GetID())
            slicer.app.applicationLogic().PropagateVolumeSelection()
        return True

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any = None) -> bool:
        name = properties["fileName"]
        if kind == "SceneFile":
            return self._save_scene(name)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        storage = node.GetStorageNode()
        if storage is None:
            storage = node.CreateDefaultStorageNode()
            slicer.mrmlScene.AddNode(storage)
            node.SetAndObserveStorageNodeID(storage.GetID())
        storage.SetFileName(name)
        return bool(storage.WriteData(node))

    def exportNodes(
        self,
        node_ids: list[str],
        names: list[str],
        properties: dict[str, Any],
        harden: bool,
        messages: Any = None,
    ) -> bool:
        for node_id, name in zip(node_ids, names, strict=True):
            node = slicer.mrmlScene.GetNodeByID(node_id)
            copy = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName(), "export")
            copy.CopyContent(node)
            copy.SetAndObserveTransformNodeID(node.GetTransformNodeID() if harden else None)
            if harden:
                copy.HardenTransform()
            storage = copy.CreateDefaultStorageNode()
            storage.SetFileName(name)
            done = storage.WriteData(copy)
            slicer.mrmlScene.RemoveNode(copy)
            if not done:
                return False
        return True

    def _load_scene(self, name: str, clear: bool) -> bool:
        scene = slicer.mrmlScene
        with tempfile.TemporaryDirectory() as folder:
            if name.endswith(".mrb"):
                with zipfile.ZipFile(name) as bundle:
                    bundle.extractall(folder)
                name = str(next(Path(folder).rglob("*.mrml")))
            scene.SetURL(name)
            return bool(scene.Connect() if clear else scene.Import())

    def _save_scene(self, name: str) -> bool:
        scene = slicer.mrmlScene
        if name.endswith(".mrb"):
            return bool(scene.WriteToMRB(str(Path(name).resolve())))
        scene.SetURL(name)
        scene.SetRootDirectory(str(Path(name).resolve().parent))
        return bool(scene.Commit())
