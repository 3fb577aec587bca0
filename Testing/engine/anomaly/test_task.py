"""The worker's task `anomaly`: arrays in and out, hashes, partial results, a real worker that is cancelled."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from difftumor.anomaly.compute import AnomalyError
from difftumor.ellipsoids import ellipsoid_mask
from difftumor.grids import Grid, GridError
from difftumor.images.mr import CaseError
from difftumor.parameters import AnomalyParameters, from_dict, to_dict
from difftumor.provenance import describe, image_hash, read_sidecar, write_json
from difftumor.worker.bridge import Bridge
from difftumor.worker.protocol import (
    Cancelled,
    CancelledEvent,
    ErrorEvent,
    ProgressEvent,
    ResultEvent,
    read_array,
    read_partial,
    write_array,
)
from difftumor.worker.tasks import TASKS
from Testing.tiny_anomaly import MR, write_tiny_model

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
SHAPE = (30, 28, 12)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    ct = write_tiny_model(folder / "ct")
    mr = write_tiny_model(folder / "mr", id="tiny-head", **MR)
    return SimpleNamespace(ct=str(ct), mr=str(mr))


def a_case():
    """A noisy CT and a round organ."""
    grid = Grid(SHAPE, AFFINE)
    rng = np.random.default_rng(0)
    scan = rng.normal(60, 20, SHAPE).astype(np.int16)
    return scan, ellipsoid_mask(grid, grid.center_ras, (20.0, 20.0, 20.0))


def ask(model, **wishes):
    pack = {"noise_level": 100, "guidance_scale": 5.0, "steps": 20, "gate": False} | wishes
    return {
        "parameters": to_dict(AnomalyParameters(model=model, **pack)),
        "affine": AFFINE.tolist(),
        "device": "cpu",
    }


def put(folder, **arrays):
    folder.mkdir()
    for name, array in arrays.items():
        write_array(folder, name, array)
    return folder


def a_context(progress=lambda *_: None, cache=None):
    return SimpleNamespace(cache={} if cache is None else cache, progress=progress)


def test_the_answer_holds_maps_of_a_box_the_table_and_the_hashes(models, tmp_path):
    scan, organ = a_case()
    folder = put(tmp_path / "1", image_ct=scan, organ=organ.astype(np.uint8))
    answer = TASKS["anomaly"](ask(models.ct, slices=(4, 7)), folder, a_context())
    box = tuple(slice(*span) for span in answer["box"])
    assert box[2] == slice(4, 7)
    for name, dtype in (
        ("map", np.float32),
        ("scaled", np.float32),
        ("mask", np.uint8),
        ("healthy_ct", np.int16),
    ):
        array = read_array(folder, name)
        assert array.dtype == dtype
        assert array.shape == scan[box].shape
    scaled = np.zeros(SHAPE, np.float32)
    scaled[box] = read_array(folder, "scaled")
    assert answer["sha256"]["output"] == image_hash(scaled, AFFINE)
    assert answer["sha256"]["image_ct"] == image_hash(scan, AFFINE)
    assert answer["sha256"]["organ"] == image_hash(organ, AFFINE)
    assert [row["index"] for row in answer["slices"]] == [4, 5, 6]
    assert answer["model"]["id"] == "tiny-anomaly"
    assert answer["settings"]["smoothing_mm"] > 0
    assert answer["unfinished"] == 0
    healthy = read_array(folder, "healthy_ct")
    assert np.array_equal(healthy[~organ[box]], scan[box][~organ[box]])
    assert (healthy != scan[box]).any()


def test_the_side_car_of_a_map_is_read_again_and_makes_the_same_map(models, tmp_path):
    scan, organ = a_case()
    request = ask(models.ct, slices=(5, 7))
    answers = []
    for number in ("1", "2"):
        folder = put(tmp_path / number, image_ct=scan, organ=organ.astype(np.uint8))
        answers.append(TASKS["anomaly"](request, folder, a_context()))
    first, second = answers
    assert first["sha256"] == second["sha256"]
    inputs = {"image_ct": {"path": "ct.nii.gz", "sha256": first["sha256"]["image_ct"]}}
    told = {"output_sha256": first["sha256"]["output"], "slices": first["slices"]}
    content = describe(
        "anomaly", request["parameters"], inputs, first["model"], told, first["device"]
    )
    write_json(content, tmp_path / "map.json")
    again = read_sidecar(tmp_path / "map.json")
    assert from_dict(AnomalyParameters, again["parameters"]) == AnomalyParameters(
        **request["parameters"]
    )
    assert again["result"]["output_sha256"] == second["sha256"]["output"]
    assert content["synthetic"] is False


def test_four_sequences_travel_by_name(models, tmp_path):
    rng = np.random.default_rng(0)
    _, brain = a_case()
    names = ("t1", "t1c", "t2", "flair")
    arrays = {
        f"image_{n}": np.where(brain, rng.normal(200, 30, SHAPE), 0).astype(np.float32)
        for n in names
    }
    folder = put(tmp_path / "1", **arrays)
    answer = TASKS["anomaly"](ask(models.mr, slices=(5, 7)), folder, a_context())
    assert {path.stem for path in folder.glob("healthy_*.npy")} == {f"healthy_{n}" for n in names}
    assert any("skull-stripped" in note for note in answer["notes"])


def test_sequences_of_another_geometry_are_refused_before_anything_is_computed(models, tmp_path):
    _, brain = a_case()
    folder = put(tmp_path / "1", image_t1=brain * 100, image_flair=brain * 50)
    moved = AFFINE.copy()
    moved[2, 3] = 9
    request = ask(models.mr) | {"affines": {"t1": moved.tolist()}}
    with pytest.raises(CaseError, match="different geometry"):
        TASKS["anomaly"](request, folder, a_context())
    assert sorted(path.name for path in folder.iterdir()) == ["image_flair.npy", "image_t1.npy"]


def test_a_request_without_images_or_with_a_refusal_leaves_nothing_behind(models, tmp_path):
    with pytest.raises(GridError, match="no image"):
        TASKS["anomaly"](ask(models.ct), put(tmp_path / "1"), a_context())
    scan, organ = a_case()
    folder = put(tmp_path / "2", image_ct=scan, organ=np.zeros_like(organ, np.uint8))
    with pytest.raises(AnomalyError, match="empty"):
        TASKS["anomaly"](ask(models.ct), folder, a_context())
    assert sorted(path.name for path in folder.iterdir()) == ["image_ct.npy", "organ.npy"]


def test_finished_slices_are_left_behind_when_the_task_is_cancelled(models, tmp_path, monkeypatch):
    monkeypatch.setattr("difftumor.anomaly.rewriting.CPU_BATCH", 2)
    scan, organ = a_case()
    folder = put(tmp_path / "1", image_ct=scan, organ=organ.astype(np.uint8))

    def stop(stage, done, total):
        if stage.startswith("rewriting") and done > total / 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        TASKS["anomaly"](ask(models.ct), folder, a_context(stop))
    told, arrays = read_partial(folder)
    assert arrays == ["healthy_ct", "map", "mask", "scaled"]
    assert told["unfinished"] > 0
    assert len(told["slices"]) >= 2
    box = tuple(slice(*span) for span in told["box"])
    scaled = np.zeros(SHAPE, np.float32)
    scaled[box] = read_array(folder, "scaled")
    done = [row["index"] for row in told["slices"]]
    assert scaled[:, :, done].any(axis=(0, 1)).all()
    rest = np.setdiff1d(np.arange(SHAPE[2]), done)
    assert not scaled[:, :, rest].any()


def test_a_real_worker_keeps_finished_slices_at_a_cancel_and_computes_again(models, tmp_path):
    scan, organ = a_case()
    arrays = {"image_ct": scan, "organ": organ.astype(np.uint8)}
    options = {"log_folder": tmp_path / "logs", "temporary_folder": tmp_path}
    with Bridge(**options) as bridge:

        def wait(condition):
            limit = time.monotonic() + 300
            while time.monotonic() < limit:
                for event in bridge.poll():
                    if isinstance(event, ErrorEvent):
                        raise AssertionError(event.message + event.details)
                    if condition(event):
                        return event
                time.sleep(0.01)
            raise AssertionError("timed out")

        # More slices than one batch holds, and enough steps to be caught in the middle; a busy machine may look
        # away until the end all the same.
        for steps in range(50, 55):
            asked = {"steps": steps, "noise_level": 60, "plane": "coronal", "slices": (6, 22)}
            number = bridge.request("anomaly", ask(models.ct, **asked), arrays)
            wait(
                lambda e: (
                    isinstance(e, ResultEvent)
                    or (
                        isinstance(e, ProgressEvent)
                        and e.stage.startswith("rewriting")
                        and e.done > 0.5 * e.total
                    )
                )
            )
            if not bridge.cancel(number):
                continue
            end = wait(lambda e: isinstance(e, CancelledEvent))
            if end.partial["unfinished"]:
                break
        assert end.partial["slices"]
        assert end.partial["unfinished"] > 0
        kept = bridge.take(number)
        assert kept["scaled"].max() > 0.9
        number = bridge.request("anomaly", ask(models.ct, slices=(5, 6)), arrays)
        result = wait(lambda e: isinstance(e, ResultEvent))
        assert set(result.arrays) == {"map", "scaled", "mask", "healthy_ct"}
    assert not list(tmp_path.glob("difftumor-session-*"))
