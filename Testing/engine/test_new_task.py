"""The example of docs/architecture.md, how to add a task, works as it is printed there."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from difftumor.fields import help_of
from difftumor.grids import Grid
from difftumor.task import Case, run_task
from difftumor.worker.bridge import Bridge
from difftumor.worker.protocol import ErrorEvent, ResultEvent

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
GRID = Grid((4, 5, 6), np.diag([2.0, 2.0, 5.0, 1.0]))


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The blocks of the page as one module, which this process and a worker can import."""
    section = PAGE.read_text(encoding="utf-8").split("## How to add a task")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "new_task.py").write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("new_task")
    yield module
    sys.modules.pop("new_task")


def scan():
    """Air with one bright slice of 4 x 5 voxels."""
    image = np.full(GRID.shape, -1000, np.int16)
    image[:, :, 2] = 300
    return image


def test_the_record_runs(example):
    stages = []
    outcome = run_task(
        example.BRIGHT,
        Case({"scan": scan()}, GRID),
        example.BrightParameters(),
        "cpu",
        {},
        lambda *stage: stages.append(stage),
    )
    assert outcome.result.mask.sum() == 20
    assert outcome.result.volume_ml == pytest.approx(20 * 2 * 2 * 5 / 1000)
    assert stages[-1] == ("marking", 1, 1)


def test_the_parameter_says_what_it_is_and_is_held(example):
    (field,) = example.BrightParameters.__dataclass_fields__.values()
    assert "-1000 to 3000 HU" in help_of(field)
    with pytest.raises(ValueError, match="level_hu"):
        example.BrightParameters(level_hu=5000)


def test_a_worker_serves_it(example, tmp_path):
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    request = {"parameters": {"level_hu": 200}, "affine": GRID.affine.tolist()}
    with Bridge(tasks="new_task", environment={**os.environ, "PYTHONPATH": path},
                log_folder=tmp_path / "logs", temporary_folder=tmp_path) as bridge:  # fmt: skip
        number = bridge.request("bright", request, {"scan": scan()})
        events, limit = [], time.monotonic() + 60
        while not any(isinstance(e, ResultEvent | ErrorEvent) for e in events):
            assert time.monotonic() < limit
            events += bridge.poll()
            time.sleep(0.01)
        (result,) = (e for e in events if isinstance(e, ResultEvent | ErrorEvent))
        assert isinstance(result, ResultEvent), result
        arrays = bridge.take(number)
    assert np.array_equal(arrays["mask"], scan() > 200)
    assert set(result.metadata) >= {"volume_ml", "model", "sha256", "versions"}
