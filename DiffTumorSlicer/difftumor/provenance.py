"""Side-cars: every result says how it was made, so that it can be made again.

A side-car is a JSON file beside its result. It carries no clock time: the same request gives the same
bytes. It names the input by path and by a hash of its voxels and geometry; the hash decides.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor import __version__

SCHEMA_VERSION = 1
SYNTHETIC_NOTICE = (
    "This image contains SYNTHETIC tumors made by DiffTumorSlicer. "
    "Research use only: never for diagnosis."
)
LEGAL_NOTICE = (
    "Research use only, not a medical device. DiffTumor's authors mention pending patents; their published "
    "weights are for non-commercial use."
)
VERSIONS_OF = ("torch", "numpy", "scipy", "SimpleITK", "nibabel")


class SidecarError(ValueError):
    """A side-car that cannot be used; the message says why."""


def image_hash(array: NDArray[np.generic], affine: NDArray[np.float64]) -> str:
    """SHA-256 of shape, voxel type, affine (to 1e-4 mm) and voxels, as hexadecimal text."""
    digest = hashlib.sha256()
    digest.update(repr((array.shape, array.dtype.str)).encode())
    digest.update((np.round(np.asarray(affine, float), 4) + 0.0).tobytes())
    # Slice by slice in (I, J, K) order, so that a large scan is never copied as a whole.
    for plane in np.moveaxis(array, 2, 0):
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of the program and of the packages that can change a number."""
    found = {"difftumor": __version__, "python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sidecar_path(output: Path) -> Path:
    """`tumor.nii.gz` -> `tumor.json`."""
    name = output.name
    for suffix in (".nii.gz", output.suffix.lower()):
        if suffix and name.lower().endswith(suffix):
            return output.with_name(name[: -len(suffix)] + ".json")
    return output.with_name(name + ".json")


def describe(
    task: str,
    parameters: dict[str, Any],
    inputs: dict[str, dict[str, Any]],
    model: dict[str, Any],
    result: dict[str, Any],
    device: str,
) -> dict[str, Any]:
    """Contents of a side-car.

    Args:
        task: 'synthesis', later also the other tasks.
        parameters: the resolved parameter pack.
        inputs: by role, each with path, sha256 (of `image_hash`) and what selects a part of it.
        model: id, title, sha256 of the weights.
        result: facts of the task (lesions, notes, hash of the output).
        device: what computed.
    """
    return {
        "schema": "difftumor-result",
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "synthetic": task == "synthesis",
        "notice": SYNTHETIC_NOTICE if task == "synthesis" else "Research use only.",
        "parameters": parameters,
        "inputs": inputs,
        "model": model,
        "device": device,
        "versions": versions(),
        "result": result,
    }


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a JSON file whole or not at all."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a side-car.

    Raises:
        FileNotFoundError: no such file.
        SidecarError: not a side-car, or one of a newer version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}. Give the .json that lies beside a result."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SidecarError(
            f"{path} is not a JSON file ({error}). Give the .json beside a result."
        ) from None
    if not isinstance(content, dict) or content.get("schema") != "difftumor-result":
        raise SidecarError(f"{path} is JSON, but not a side-car of this program.")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise SidecarError(
            f"{path} has side-car version {version!r}; this program reads version {SCHEMA_VERSION}. "
            "Use the program version named in the file."
        )
    wanted = {"task": str, "parameters": dict, "inputs": dict, "model": dict, "result": dict}
    for key, kind in wanted.items():
        if not isinstance(content.get(key), kind):
            raise SidecarError(f"{path} is damaged: '{key}' is missing or of the wrong kind.")
    for role, entry in content["inputs"].items():
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(k), str) for k in ("path", "sha256")
        ):
            raise SidecarError(f"{path} is damaged: the input '{role}' has no path or no SHA-256.")
    # A synthesis has one scan; an anomaly map has its images by name.
    images = {"scan"} if content["task"] == "synthesis" else set(content["inputs"]) - {"organ"}
    if not images & set(content["inputs"]) or not isinstance(
        content["result"].get("output_sha256"), str
    ):
        raise SidecarError(f"{path} is damaged: it names no image or no SHA-256 of the result.")
    return content
