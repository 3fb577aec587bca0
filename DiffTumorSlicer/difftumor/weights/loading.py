"""Opened models, kept between requests: one cache for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import torch

from difftumor.devices import resolve_device
from difftumor.weights.models import InstalledModel, file_sha256, find_model

Callback = Callable[[str, int, int], None]
M = TypeVar("M")


def cached(
    kind: str,
    models: Sequence[str],
    device: str,
    cache: MutableMapping[str, Any],
    callback: Callback,
    build: Callable[[InstalledModel, torch.device], M],
) -> list[M]:
    """Open models, or take them from the cache; a file that has changed is opened again.

    Args:
        kind: what they are used for; the cache holds the models of the last request of a kind.
        models: ids of the registry, model folders, or files.
        device: see `devices.resolve_device`.
        cache: kept between requests.
        callback: called as callback(stage, done, total).
        build: opens one of them.

    Raises:
        ModelError: not installed, or from `build`.
        DeviceError: no such device.
    """
    resolved = resolve_device(device)
    installed = [find_model(model) for model in models]
    keys = [f"{kind}:{i.path}:{i.path.stat().st_mtime_ns}:{resolved}" for i in installed]
    for old in [key for key in cache if key.startswith(f"{kind}:") and key not in keys]:
        del cache[old]  # before the memory of the new ones is needed
    for number, (key, model) in enumerate(zip(keys, installed, strict=True)):
        if key not in cache:
            callback("loading the model", number, len(keys))
            cache[key] = build(model, resolved)
    return [cache[key] for key in keys]


def facts_of(installed: InstalledModel, card: Mapping[str, Any]) -> dict[str, Any]:
    """What every side-car says of a model: id, title, sha256, license; JSON-ready."""
    return {
        "id": installed.id,
        "title": card.get("title", installed.id),
        "sha256": card.get("sha256") or file_sha256(installed.path),
        "licence": card.get("licence"),
    }
