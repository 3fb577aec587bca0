"""Fixtures of the panel tests: one application, an empty scene and settings for each test."""

from __future__ import annotations

import ctypes
import gc
import sys

import pytest

pytest.importorskip("PySide6", reason="needs PySide6 (pip install PySide6-Essentials)")
pytest.importorskip("slicer", reason="needs slicer-core (pip install slicer-core)")


@pytest.fixture(scope="session")
def app():
    from Testing import slicer_stand_in

    _keep_singletons()
    return slicer_stand_in.start()


def _keep_singletons():
    """PySide6 6.12 counts on None, True and False being immortal, as they are from Python 3.12 on.

    Under 3.11 each call that returns one of them takes a reference away, until the interpreter stops
    with "none_dealloc". (Measured with sys.getrefcount; 6.9.3 does not do it.)
    """
    if sys.version_info < (3, 12):
        for value in (None, True, False):
            ctypes.c_ssize_t.from_address(id(value)).value += 1 << 40


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
    from Testing.scene.scenes import FakeBridge

    return FakeBridge()


@pytest.fixture
def bench(app, scene, bridge):
    from Testing.panels.bench import Bench

    made = Bench(app, scene, bridge)
    yield made
    made.close()
