"""Volumes of the scene as files beside each other, with the side-car that says how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.images.staging import staged
from difftumor.provenance import write_json
from DiffTumorSlicerLib.scene.volume_nodes import add_volume_like, remove_node
from DiffTumorSlicerLib.translation import tr as _

SUFFIXES = (".nii.gz", ".nrrd", ".mha")


class ExportError(RuntimeError):
    """Nothing, or not everything, was written; the message says why and what to do."""


def plain_name(node: Any) -> str:
    """The name of a node as every file system takes it."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in node.GetName())
    return "-".join(filter(None, plain.split("-")))


@contextmanager
def mask_beside(scene: Any, node: Any, mask: NDArray[np.uint8]) -> Iterator[Any]:
    """A mask as a hidden volume with the geometry of another, for as long as it is written."""
    volume = add_volume_like(scene, node, f"{node.GetName()} mask", mask)
    volume.SetHideFromEditors(True)
    try:
        yield volume
    finally:
        remove_node(scene, volume)


def write_together(
    scene: Any, path: Path, volumes: Mapping[str, Any], sidecar: Mapping[str, Any]
) -> list[Path]:
    """Write volumes and their side-car beside each other, all of them or none.

    The files have the volumes' own geometry, without the transforms above them, as Slicer saves volumes.

    Args:
        scene: of the volumes.
        path: of the file that was asked for; present files are replaced.
        volumes: what stands between the stem of `path` and its suffix ("" for `path` itself) -> volume node.
        sidecar: goes into the .json.

    Returns:
        the files, the side-car last.

    Raises:
        ExportError: a suffix that is not known, or a file that could not be written.
    """
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    if not suffix:
        raise ExportError(
            _("{name} has no suffix that is known. Use one of {suffixes}.").format(
                name=path.name, suffixes=", ".join(SUFFIXES)
            )
        )
    stem, suffix = path.name[: -len(suffix)], path.name[-len(suffix) :]
    targets = [path.with_name(f"{stem}{part}{suffix}") for part in volumes]
    targets.append(path.with_name(f"{stem}.json"))
    try:
        with staged(targets, overwrite=True) as stand_ins:
            for volume, stand_in in zip(volumes.values(), stand_ins, strict=False):
                write_volume(scene, volume, stand_in)
            write_json(dict(sidecar), stand_ins[-1])
    except OSError as error:
        raise ExportError(
            _(
                "The files could not be written to {folder} ({why}). Choose a folder that is yours, with "
                "enough free space."
            ).format(folder=path.parent, why=error.strerror or error)
        ) from error
    return targets


def write_volume(scene: Any, node: Any, path: Path) -> None:
    """Write a volume with a storage node of its own, so that the scene keeps its file names."""
    kind = (
        "vtkMRMLNRRDStorageNode" if path.suffix == ".nrrd" else "vtkMRMLVolumeArchetypeStorageNode"
    )
    storage = scene.AddNewNodeByClass(kind)
    try:
        storage.SetFileName(str(path))
        storage.SetUseCompression(True)
        if not storage.WriteData(node) or not path.is_file():
            raise OSError(_("Slicer did not write it"))
    finally:
        scene.RemoveNode(storage)
