"""Fixtures of the scene tests."""

from __future__ import annotations

import pytest

from difftumor.parameters import Ellipsoid, SynthesisParameters


@pytest.fixture
def scene(tmp_path):
    from Testing.module.scene.scenes import make_scene

    return make_scene(tmp_path)


@pytest.fixture
def bridge():
    from Testing.module.scene.scenes import FakeBridge

    return FakeBridge()


@pytest.fixture
def session(scene, bridge):
    from DiffTumorSlicerLib.jobs.host import Host
    from DiffTumorSlicerLib.session import Session

    made = Session(
        scene, bridge=bridge, host=Host(free_memory=lambda: 64 * 10**9, free_disk=lambda _: 10**12)
    )
    yield made
    made.close()


@pytest.fixture
def parameters():
    """An ellipsoid in the middle of `scenes.add_ct`."""
    return SynthesisParameters(ellipsoid=Ellipsoid((30.0, 26.0, 22.0), (8.0, 6.0, 7.0)))
