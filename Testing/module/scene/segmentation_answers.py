"""Segmentation models that are only listed, and a worker's answers to requests for segmentations, made by the test."""

from __future__ import annotations

import numpy as np

from difftumor.anomaly.layout import slice_axis
from difftumor.grids import Grid
from difftumor.measuring.tables import measure_rows
from difftumor.worker.protocol import ResultEvent
from Testing.module.scene.anomaly_answers import list_model

SEGMENTER, PARTNER, LEARNED = "liver-segmenter", "liver-partner", "learned-before"
LESIONS = (((24, 20, 14), (34, 30, 24)), ((38, 30, 26), (43, 35, 31)))  # boxes, the larger first


def list_segmenter(home, name=SEGMENTER, **fields):
    """Put a segmentation model whose weights nobody will open into the models folder `home`."""
    card = {
        "task": "segmentation",
        "architecture": {"name": "segmentation_unet"},
        "spacing_mm": [1.0, 1.0, 1.0],
        "crop_voxels": [96, 96, 96],
        "label_names": {"0": "background", "1": "organ", "2": "tumor"},
        "recommended": {"min_diameter_mm": 4.0, "tumor_threshold": 0.4},
        **fields,
    }
    return list_model(home, name, **card)


def list_learned(home):
    """What was learned before, for a CT of the liver."""
    return list_segmenter(
        home,
        LEARNED,
        architecture={"name": "pixel_classifiers"},
        label_names={"0": "background", "1": "tumor"},
        recommended={},
    )


def answer_segmentation(bridge, number, lesions=LESIONS, **facts):
    """Let the worker find boxes in the organ's box; returns what it says."""
    _task, request, arrays, _panel = bridge.requests[number]
    scan = arrays["scan"]
    grid = Grid(scan.shape, np.asarray(request["affine"]))
    organ = arrays.get("organ", np.ones(scan.shape)).astype(bool)
    box = tuple(
        slice(int(i.min()), int(i.max()) + 1) for i in (np.asarray(a) for a in organ.nonzero())
    )
    whole = np.zeros(scan.shape, np.int32)
    for label, (low, high) in enumerate(lesions, start=1):
        whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = label
    numbers = np.where(organ, whole, 0)[box]
    probability = np.where(numbers > 0, 0.9, 0.1).astype(np.float32)
    result = {
        "labels": np.where(numbers > 0, 2, organ[box]).astype(np.uint8),
        "numbers": numbers,
        "probability": probability,
    }
    several = len(request["parameters"]["models"]) > 1
    if several:
        result["agreement"] = np.where(numbers == 2, 0.5, 1.0).astype(np.float32)
    rows = measure_rows(numbers, grid.cropped(box), scan[box], organ[box], name="liver tumor",
                        probability=probability, agreement=result.get("agreement"),
                        origin=[part.start for part in box])  # fmt: skip
    metadata = {
        "box": [[part.start, part.stop] for part in box],
        "lesions": [row.to_dict() for row in rows],
        "settings": request["parameters"],
        "windows": {"computed": 8, "of": 27},
        "notes": [],
        "model": {"id": SEGMENTER, "title": "A segmenter", "sha256": "0" * 64},
        "device": "cpu",
        "versions": {"torch": "of the worker"},
        "sha256": {name: "s" * 64 for name in (*arrays, "output")},
        **facts,
    }
    bridge.results[number] = result
    bridge.events.append(ResultEvent(number, metadata, sorted(result), 1.0))
    return metadata, result


def answer_learning(bridge, number, names=None, **facts):
    """Let the worker find what was painted, on every slice of the organ; returns what it says."""
    _task, request, arrays, _panel = bridge.requests[number]
    first = next(a for n, a in arrays.items() if n.startswith("image_"))
    grid = Grid(first.shape, np.asarray(request["affine"]))
    plane = request["parameters"].get("plane", "axial")
    axis = slice_axis(grid, plane)
    labels = arrays.get("labels")
    if labels is None:
        labels = np.zeros(first.shape, np.uint8)
        labels[24:34, 20:30, 14:24] = 1
    flat = labels.max(axis=axis, keepdims=True)
    organ = arrays.get("organ", np.ones(first.shape)).astype(bool)
    found = np.where(organ, flat, 0).astype(np.uint8)
    box = tuple(slice(0, n) for n in first.shape)
    indices = np.flatnonzero(organ.any(axis=tuple(d for d in range(3) if d != axis))).tolist()
    middle = (np.asarray(grid.shape) - 1) / 2

    def position(index):
        at = middle.copy()
        at[axis] = index
        return float(grid.to_ras(at)[{"axial": 2, "coronal": 1, "sagittal": 0}[plane]])

    labelled = list(request["parameters"].get("labelled") or [])
    following = next(k for k in reversed(indices) if k not in labelled)
    values = [int(v) for v in np.unique(found) if v]
    metadata = {
        "box": [[part.start, part.stop] for part in box],
        "label_names": {str(v): (names or {}).get(v, "tumor") for v in values},
        "labelled": labelled,
        "next_slice": following,
        "slices": [{"index": k, "position_mm": position(k), "labelled": k in labelled,
                    "area_mm2": {}, "disagreement_mm2": 1.0} for k in indices],
        "volumes_mm3": {"tumor": float((found > 0).sum())},
        "left_out": {"parts": 0, "volume_mm3": 0.0},
        "training": {"slices": len(labelled)},
        "settings": request["parameters"],
        "notes": [],
        "model": {"id": "m", "title": "M", "sha256": "0" * 64},
        "device": "cpu",
        "versions": {},
        "sha256": {name: "s" * 64 for name in (*arrays, "output")},
        "learned": {"id": "learned"},
        **facts,
    }  # fmt: skip
    uncertainty = np.zeros(first.shape, np.float32)
    uncertainty[organ] = 0.3
    result = {"segmentation": found, "uncertainty": uncertainty}
    bridge.results[number] = result
    bridge.events.append(ResultEvent(number, metadata, sorted(result), 1.0))
    return metadata, result
