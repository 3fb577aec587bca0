"""Quick disks: a killed process loses nothing that it wrote, so these tests need not wait for the platters."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made, and do nothing; a test that looks at them brings its own."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)
