"""Whether a case was computed before: its side-car names the same inputs, parameters and model."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

from difftumor.commands.inputs import CaseImages
from difftumor.commands.run import SIDECAR, Request
from difftumor.parameters import ANOMALY_RECOMMENDED, from_dict, to_dict
from difftumor.provenance import SidecarError, read_sidecar
from difftumor.weights.models import file_sha256, find_model


class ChangedCase(ValueError):
    """A result is there that was made from something else."""


def sidecar_of(request: Request) -> dict[str, Any] | None:
    """The side-car of an earlier result, or None.  Raises: ChangedCase: the file is something else."""
    path = request.outputs[SIDECAR]
    if not path.exists():
        return None
    try:
        return read_sidecar(path)
    except (SidecarError, OSError) as error:
        raise ChangedCase(f"{path} is in the way: {error}") from None


def changed_request(
    content: Mapping[str, Any], request: Request, hashes: MutableMapping[str, str | None]
) -> str:
    """What a side-car's request says otherwise than this one; "" if nothing.

    Args:
        hashes: of the models' weights by name, computed once.
    """
    if content["task"] != request.command.task_name:
        return f"it is a result of the task {content['task']}"
    try:
        before = _asked_before(content, type(request.parameters))
    except ValueError as error:
        return f"its parameters cannot be read ({error})"
    now = json.loads(json.dumps(to_dict(request.parameters)))
    recommended = ANOMALY_RECOMMENDED | _recommended(request)
    for name, value in now.items():
        old = before.get(name)
        # An older side-car does not tell what was left to the model.
        left = value is None and "left_to_model" not in content
        if old != value and not (left and old == recommended.get(name, old)):
            return f"{name} was {_told(old)} and is {_told(value)} now"
    members = content["model"].get("members", [content["model"]])
    if [member.get("sha256") for member in members] != _hashes(request, hashes):
        return "the model has other weights"
    return ""


def changed_inputs(content: Mapping[str, Any], images: CaseImages, request: Request) -> str:
    """Which input is not the one of a side-car; "" if all are."""
    before = {role: entry["sha256"] for role, entry in content["inputs"].items()}
    now = {role: entry["sha256"] for role, entry in request.command.inputs(images).items()}
    for role in [*now, *before]:
        if before.get(role) != now.get(role):
            what = {"organ": "the organ mask", "labels": "the labels"}.get(
                role, f"the image {role}" if role in images.volumes else role
            )
            return f"{what} is another one"
    return ""


def is_whole(content: Mapping[str, Any], request: Request) -> bool:
    """Whether all files are there, and no slice is missing."""
    there = all(path.exists() for path in request.outputs.values())
    return there and not content["result"].get("unfinished", 0)


def _asked_before(content: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The parameters as they were asked for.  Raises: ValueError."""
    left = dict.fromkeys(content.get("left_to_model", ()))
    values = to_dict(from_dict(kind, content["parameters"]))
    return {**json.loads(json.dumps(values)), **left}


def _recommended(request: Request) -> dict[str, Any]:
    (name, *_) = request.command.model_names() or ("",)
    card = find_model(name).card if name else {}
    return {k: v for k, v in (card.get("recommended") or {}).items() if v is not None}


def _hashes(request: Request, known: MutableMapping[str, str | None]) -> list[str | None]:
    """SHA-256 of the weights of each model; None for what needs no weights."""
    names = request.command.model_names()
    for name in names:
        if name not in known:
            model = find_model(name)
            known[name] = model.card.get("sha256") or file_sha256(model.path)
    return [known[name] for name in names] or [None]


def _told(value: Any) -> str:
    return "left to the model" if value is None else json.dumps(value)
