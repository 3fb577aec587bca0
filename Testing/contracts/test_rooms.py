"""The house keeps its order: few files at the top, and rooms import only rooms below them."""

from __future__ import annotations

import importlib.util

import pytest

from Testing.contracts.looping import ROOT

spec = importlib.util.spec_from_file_location("rooms", ROOT / "release" / "rooms.py")
assert spec is not None
assert spec.loader is not None
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)

ENGINE = ROOT / rooms.PACKAGES["difftumor"]
LIBRARY = ROOT / rooms.PACKAGES["DiffTumorSlicerLib"]
TRAINING = ROOT / rooms.PACKAGES["training"]
# From the top down: a room may import those that stand further on in its list.
ORDER = {
    ENGINE: (
        "__main__", "cli", "commands", "phantom", "worker", "doctor", "learning", "reader_study", "segmentation",
        "synthesis", "anomaly", "measuring", "weights", "images", "options", "parameters", "task", "ellipsoids",
        "devices", "provenance", "networks", "diffusion", "grids", "fields", "remedies", "locks", "__init__",
    ),
    LIBRARY: (
        "panels", "session", "anomaly", "segmentation", "synthesis", "jobs", "reading", "scene", "translation",
        "__init__",
    ),
    TRAINING: ("learning", "anomaly", "segmentation", "synthesis", "data", "loop", "__init__"),
}  # fmt: skip


@pytest.mark.parametrize("folder", ORDER, ids=lambda folder: folder.name)
def test_a_room_imports_only_rooms_below_it(folder):
    order = ORDER[folder]
    assert set(rooms.lines_of(folder)) <= set(order), "give the new room its place in ORDER"
    upward = {
        f"{here} -> {there}": files
        for (here, there), files in rooms.arrows(folder).items()
        if order.index(there) <= order.index(here)
    }
    assert upward == {}


@pytest.mark.parametrize("folder", [ENGINE, LIBRARY, TRAINING], ids=lambda folder: folder.name)
def test_rooms_stand_in_no_circle(folder):
    assert max(rooms.floors(folder).values()) < 12


def test_little_stands_beside_the_rooms():
    for folder, most in ((ENGINE, 13), (LIBRARY, 2), (TRAINING, 0)):
        files = [path.name for path in folder.glob("*.py") if not path.name.startswith("__init__")]
        assert len(files) <= most, files


def test_a_circle_is_found(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    (package / "a.py").write_text("from house import b\n")
    (package / "b.py").write_text("import house.a\n")
    with pytest.raises(ValueError, match="a -> b -> a"):
        rooms.floors(package)
