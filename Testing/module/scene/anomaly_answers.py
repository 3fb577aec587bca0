"""Anomaly models that are only listed, and a worker's answers to requests for heat maps, made by the test."""

from __future__ import annotations

import json

import numpy as np

from difftumor.anomaly.layout import slice_axis
from difftumor.grids import Grid
from difftumor.worker.protocol import CancelledEvent, ResultEvent

CT_MODEL, MR_MODEL = "ct-anomaly", "mr-anomaly"
SEQUENCES = ("t1", "t1c", "t2", "flair")


def list_model(home, name=CT_MODEL, **fields):
    """Put a model folder whose weights nobody will open into the models folder `home`."""
    from safetensors.numpy import save_file

    folder = home / name
    folder.mkdir(parents=True)
    card = {
        "schema_version": 1,
        "id": name,
        "title": f"Model {name}",
        "task": "anomaly",
        "organs": ["liver"],
        "modality": "CT",
        "architecture": {"name": "guided_diffusion"},
        "T": 1000,
        "schedule": "linear",
        "spacing_mm": [2.0, 2.0],
        "window_hu": [-100, 200],
        "intensity_range": [0, 1],
        "channel_order": ["ct"],
        "healthy_index": 0,
        "recommended": {
            "noise_level": 180, "guidance_scale": 12.0, "steps": 50, "smoothing_mm": 1.5,
            "map_kind": "guided", "normalisation": "volume",
        },
        "licence": {"name": "Apache-2.0"},
        "sha256": "0" * 64,
        **fields,
    }  # fmt: skip
    if card["modality"] == "MR":
        del card["window_hu"]
    (folder / "model.json").write_text(json.dumps(card), encoding="utf-8")
    save_file({"unet.x": np.zeros(1, np.float32)}, str(folder / "model.safetensors"))
    return name


def list_mr_model(home):
    return list_model(
        home, MR_MODEL, modality="MR", organs=["brain"], channel_order=["T1", "T1ce", "T2", "FLAIR"]
    )


def computed(request, unfinished=0, **facts):
    """What a worker would return: the brighter a voxel of the organ, the hotter.

    Returns: metadata and arrays.
    """
    _task, asked, arrays, _panel = request
    parameters = asked["parameters"]
    images = {k.removeprefix("image_"): a for k, a in arrays.items() if k.startswith("image_")}
    first = next(iter(images.values()))
    grid = Grid(first.shape, np.asarray(asked["affine"]))
    axis = slice_axis(grid, parameters["plane"])
    organ = arrays.get("organ", np.ones(first.shape)).astype(bool)
    span = np.flatnonzero(organ.any(axis=tuple(d for d in range(3) if d != axis)))
    low, high = parameters["slices"] or (span[0], span[-1] + 1)
    indices = [int(k) for k in span if low <= k < high]
    done = indices[: len(indices) - unfinished]
    box = [slice(int(s[0]), int(s[-1]) + 1) for s in map(np.flatnonzero, _spans(organ))]
    box[axis] = slice(indices[0], indices[-1] + 1)
    box = tuple(box)
    part, inside = first[box].astype(float), organ[box]
    heat = np.where(inside, part, part[inside].min())
    heat = (heat - heat.min()) / max(np.ptp(heat), 1e-9)
    gated = facts.pop("gated", ())
    for k in range(box[axis].start, box[axis].stop):
        if k not in done or k in gated:
            at = [slice(None)] * 3
            at[axis] = k - box[axis].start
            heat[tuple(at)] = 0
    middle = (np.array(grid.shape) - 1) / 2
    rows = []
    for k in done:
        at = middle.copy()
        at[axis] = k
        normal = {"axial": 2, "coronal": 1, "sagittal": 0}[parameters["plane"]]
        probability = round(0.05 + 0.9 * (k - indices[0] + 1) / len(indices), 4)
        if facts.get("probability") is not None and k in gated:
            probability = facts["probability"]
        rows.append(
            {
                "index": k, "position_mm": float(grid.to_ras(at)[normal]), "probability": probability,
                "gated": k in gated, "map_max": 0.2, "threshold": 0.35, "area_mm2": 10.0,
            }
        )  # fmt: skip
    asked_for = {name: value for name, value in parameters.items() if value is not None}
    settings = {
        "noise_level": 180, "guidance_scale": 12.0, "steps": 50, "map_kind": "guided",
        "gate_probability": 0.5, "floor": 0.0, "direction": "dark", **asked_for,
    }  # fmt: skip
    metadata = {
        "box": [[s.start, s.stop] for s in box],
        "probability": 0.9,
        "slices": rows,
        "lesions": {"volume_mm3": 100.0, "parts": 1},
        "settings": settings,
        "unfinished": unfinished,
        "notes": [],
        "model": {"id": parameters["model"], "title": "M", "sha256": "0" * 64},
        "device": "cpu",
        "versions": {"torch": "of the worker"},
        "sha256": {name: "s" * 64 for name in (*arrays, "output")},
        **facts,
    }
    result = {"scaled": heat.astype(np.float32), "mask": (heat > 0.35).astype(np.uint8)}
    for name, image in images.items():
        healthy = image[box].copy()
        healthy[inside] -= np.asarray(20).astype(image.dtype)
        result[f"healthy_{name}"] = healthy
    return metadata, result


def answer_map(bridge, number, **facts):
    """Let the worker finish; returns what it has computed."""
    metadata, arrays = computed(bridge.requests[number], **facts)
    bridge.results[number] = arrays
    bridge.events.append(ResultEvent(number, metadata, sorted(arrays), 1.0))
    return metadata, arrays


def stop_map(bridge, number, unfinished):
    """Let the worker tell that it was stopped, and what it had finished by then."""
    metadata, arrays = computed(bridge.requests[number], unfinished)
    bridge.events = [e for e in bridge.events if not isinstance(e, CancelledEvent)]
    bridge.results[number] = arrays
    bridge.events.append(CancelledEvent(number, partial=metadata))
    return metadata, arrays


def _spans(mask):
    return [mask.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
