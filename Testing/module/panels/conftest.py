"""Fixtures of the panel tests: one application, an empty scene and settings for each test."""

from __future__ import annotations

import gc

import pytest

pytest.importorskip("PySide6", reason="needs PySide6 (pip install PySide6-Essentials)")
pytest.importorskip("slicer", reason="needs slicer-core (pip install slicer-core)")


@pytest.fixture(scope="session")
def app():
    from Testing import slicer_stand_in

    return slicer_stand_in.start()


@pytest.fixture
def scene(app):
    """The application's scene, empty; what slots raised in a test fails it."""
    import qt
    import slicer

    from Testing import slicer_stand_in

    slicer.mrmlScene.Clear(0)
    qt.QSettings().clear()
    slicer_stand_in.slot_errors()
    yield slicer.mrmlScene
    app.processEvents()
    slicer.mrmlScene.Clear(0)
    gc.collect()
    assert slicer_stand_in.slot_errors() == []


@pytest.fixture
def bridge():
    from Testing.module.scene.scenes import FakeBridge

    return FakeBridge()


@pytest.fixture
def bench(app, scene, bridge):
    from Testing.module.panels.bench import Bench

    made = Bench(app, scene, bridge)
    yield made
    made.close()


@pytest.fixture
def anomaly_bench(app, scene, bridge, tmp_path, monkeypatch):
    from Testing.module.panels.anomaly_bench import AnomalyBench

    yield from _with_models(AnomalyBench, app, scene, bridge, tmp_path, monkeypatch)


@pytest.fixture
def segmentation_bench(app, scene, bridge, tmp_path, monkeypatch):
    from Testing.module.panels.segmentation_bench import SegmentationBench

    yield from _with_models(SegmentationBench, app, scene, bridge, tmp_path, monkeypatch)


def _with_models(kind, app, scene, bridge, tmp_path, monkeypatch):
    """A bench whose models are listed in a folder of its own."""
    monkeypatch.setenv("DIFFTUMOR_HOME", str(tmp_path / "models"))
    made = kind(app, scene, bridge, tmp_path / "models")
    yield made
    made.close()
