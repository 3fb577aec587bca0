"""What a result remembers of each tumor: where it is, how it was made, and the voxels before it.

Each tumor is a node attribute of its own, JSON with the voxels compressed. So the last tumor can also be
removed in a scene that was saved and loaded again, without the input volume, and bit for bit.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.volume_nodes import own_affine, tell_changed, volume_array
from DiffTumorSlicerLib.translation import tr as _

TUMOR = "DiffTumor.Tumor."  # and the number of the tumor, from 1
VERSION = 1


def tumors_of(node: Any) -> int:
    """How many requests went into a result; `remove_last` takes back one."""
    count = 0
    while node.GetAttribute(f"{TUMOR}{count + 1}") is not None:
        count += 1
    return count


def read_history(node: Any) -> list[dict[str, Any]]:
    """The tumors of a result, oldest first.  Raises: SceneError: written by another version."""
    entries = []
    for number in range(1, tumors_of(node) + 1):
        try:
            entry = json.loads(node.GetAttribute(f"{TUMOR}{number}"))
        except ValueError as error:
            raise _damaged() from error
        if not isinstance(entry, dict) or entry.get("version") != VERSION:
            raise SceneError(
                _(
                    'The tumors of "{name}" were recorded by another version of this module. '
                    "Update DiffTumorSlicer, or synthesize again from the original."
                ).format(name=node.GetName())
            )
        entries.append(entry)
    return entries


def remember(
    node: Any, facts: dict[str, Any], box: Any, before: NDArray[Any], after: NDArray[Any]
) -> None:
    """Add a tumor to the history of a result.

    Args:
        node: the result, with the tumor in it.
        facts: segment, lesions, side-car.
        box: slices of the tumor.
        before: voxels in the box without the tumor.
        after: with it.
    """
    entry = {
        "version": VERSION,
        "shape": list(volume_array(node).shape),
        "affine": own_affine(node).tolist(),
        "box": [[part.start, part.stop] for part in box],
        **facts,
        **_packed(before, after),
    }
    node.SetAttribute(f"{TUMOR}{tumors_of(node) + 1}", json.dumps(entry))


def undo(node: Any, entry: dict[str, Any]) -> None:
    """Put the voxels back that were there before the newest tumor.

    Raises:
        SceneError: the volume is not what it was, or the record is damaged.
    """
    array = _as_recorded(node, entry)
    i, j, k = (slice(*edges) for edges in entry["box"])
    here = array[i, j, k]
    changed, before = _unpacked(entry, here.shape)
    if zlib.crc32(here[changed].tobytes()) != entry.get("checksum"):
        raise SceneError(
            _(
                'The voxels of the tumor in "{name}" have been changed since it was made, so what was '
                "there before does not fit any more. Delete the volume and synthesize again from the original."
            ).format(name=node.GetName())
        )
    here[changed] = before  # a view: this writes into the node
    tell_changed(node)


def _as_recorded(node: Any, entry: dict[str, Any]) -> NDArray[Any]:
    """The voxels, as a view in the order that they had when the tumor was made.

    Slicer reverses an axis of a left-handed volume when it reads its file.
    """
    array = volume_array(node)
    if list(array.shape) == entry.get("shape") and array.dtype.str == entry.get("dtype"):
        then, now = np.array(entry["affine"]), own_affine(node)
        index = np.linalg.inv(now) @ then  # recorded to present indices
        signs = np.sign(np.diag(index)[:3])
        offset = np.where(signs < 0, np.array(array.shape) - 1, 0)
        wanted = np.eye(4)
        wanted[:3] = np.column_stack([np.diag(signs), offset])
        if np.allclose(index, wanted, rtol=0, atol=0.01):
            i, j, k = (slice(None, None, int(sign)) for sign in signs)
            return array[i, j, k]
        # A hardened transform moves the volume and leaves the order of its voxels.
        if np.linalg.det(then[:3, :3]) * np.linalg.det(now[:3, :3]) > 0:
            return array
    raise SceneError(
        _(
            '"{name}" has been cropped, resampled or converted since the tumor was made, so it '
            "cannot be removed from it. Delete the volume and synthesize again from the original."
        ).format(name=node.GetName())
    )


def forget_last(node: Any) -> None:
    """Drop the newest tumor from the history."""
    node.RemoveAttribute(f"{TUMOR}{tumors_of(node)}")


def _packed(before: NDArray[Any], after: NDArray[Any]) -> dict[str, Any]:
    """What is needed to undo a patch: which voxels changed, and their values before."""
    # Bytes, not values: a NaN is unequal to itself, and -0.0 equals 0.0.
    one = np.ascontiguousarray(before).view(np.uint8).reshape(*before.shape, -1)
    two = np.ascontiguousarray(after).view(np.uint8).reshape(*after.shape, -1)
    changed = (one != two).any(axis=-1)
    return {
        "dtype": before.dtype.str,
        "changed": _to_text(np.packbits(changed).tobytes()),
        "before": _to_text(before[changed].tobytes()),
        "checksum": zlib.crc32(after[changed].tobytes()),
    }


def _unpacked(
    entry: dict[str, Any], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which voxels of the box to restore, and their values.  Raises: SceneError: damaged."""
    try:
        count = int(np.prod(shape))
        bits = np.frombuffer(_to_bytes(entry["changed"]), np.uint8)
        changed = np.unpackbits(bits, count=count).astype(bool).reshape(shape)
        before = np.frombuffer(_to_bytes(entry["before"]), np.dtype(entry["dtype"]))
        if len(before) != changed.sum():
            raise ValueError("lengths differ")
    except (binascii.Error, zlib.error, KeyError, ValueError) as error:
        raise _damaged() from error
    return changed, before


def _damaged() -> SceneError:
    return SceneError(
        _(
            "The record of the tumor is damaged, so it cannot be removed. Delete the volume and "
            "synthesize again from the original."
        )
    )


def _to_text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 3)).decode("ascii")


def _to_bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True))
