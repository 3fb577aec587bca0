"""What keeps the house in order: imports go down only, light modules stay light, packages are complete."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from Testing.contracts.looping import each

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "DiffTumorSlicer" / "difftumor"
LIBRARY = ROOT / "DiffTumorSlicer" / "DiffTumorSlicerLib"

# Slicer's own process imports these; it must never load torch (DESIGN, section 2).
WITHOUT_TORCH = (
    "parameters",
    "worker.protocol",
    "worker.bridge",
    "weights.models",
    "grids",
    "ellipsoids",
    "images.volumes",
    "measuring.lesions",
    "measuring.tables",
    "segmentation.working_grid",
    "measuring.metrics",
    "measuring.evaluation",
    "provenance",
    "phantom",
    "synthesis.sites",
    "synthesis.synthesize",
    "synthesis.shapes",
    "reader_study.session",
    "reader_study.answers",
)


def imports_of(path: Path) -> set[str]:
    """Names of the modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module_name(path).split(".")[: -node.level] if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ENGINE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(ENGINE.rglob("*.py"))}
ROOMS = {module_name(path): path for path in sorted(LIBRARY.rglob("*.py"))}  # of the library
CAPABILITIES = ("synthesis", "anomaly", "segmentation", "reading")
# What each part of the library may import of the others (DESIGN, section 2): what lies below it.
BELOW = {
    "translation": (),
    "scene": ("translation",),
    "jobs": ("scene", "translation"),
    **dict.fromkeys(CAPABILITIES, ("jobs", "scene", "translation")),
    "session": (*CAPABILITIES, "jobs", "scene", "translation"),
    "panels": ("session", *CAPABILITIES, "jobs", "scene", "translation"),
}


@each("name", list(MODULES))
def test_the_engine_knows_neither_slicer_nor_qt_nor_the_training_programs(name):
    roots = {imported.split(".")[0] for imported in imports_of(MODULES[name])}
    assert not roots & {
        "slicer",
        "vtk",
        "qt",
        "ctk",
        "PySide6",
        "training",
        "Testing",
        "DiffTumorSlicerLib",
    }


@each("name", list(ROOMS))
def test_imports_of_the_library_go_down_only(name):
    room = name.split(".")[1:2]
    for imported in imports_of(ROOMS[name]):
        root, *rest = imported.split(".")
        assert root not in {"torch", "monai", "PySide6", "training", "Testing"}, imported
        assert root not in {"qt", "ctk"} or room == ["panels"], imported
        if root == "DiffTumorSlicerLib" and rest and rest[0] not in room:
            assert rest[0] in BELOW[room[0]], imported


def test_the_library_has_no_more_rooms_than_these():
    assert {path.name for path in LIBRARY.iterdir() if any(path.glob("*.py"))} == {
        "jobs", "panels", "scene", *CAPABILITIES,
    }  # fmt: skip
    assert len(list(LIBRARY.glob("*.py"))) <= 4


@pytest.mark.parametrize("modules", [MODULES, ROOMS], ids=["engine", "library"])
def test_no_import_goes_in_a_circle(modules):
    # A package's own __init__ only gathers its modules, so it counts as them.
    edges = {
        name: {
            i
            for i in imports_of(path)
            if i in modules and i != name and not name.startswith(f"{i}.")
        }
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_light_modules_import_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        + "\n".join(f"import difftumor.{name}" for name in WITHOUT_TORCH)
        + "\nassert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ENGINE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_list_of_packages_is_complete():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"]) - {"difftumor.resources"}
    assert listed == {module_name(path) for path in ENGINE.rglob("__init__.py")}


def test_nothing_of_testing_or_training_is_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert all(
        name.split(".")[0] == "difftumor" for name in project["tool"]["setuptools"]["packages"]
    )


def test_files_stay_readable():
    folders = (ENGINE, LIBRARY, ROOT / "training")
    lengths = {p: len(p.read_text("utf-8").splitlines()) for f in folders for p in f.rglob("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > 420} == {}


def test_the_fixtures_that_travel_stay_small():
    size = sum(
        path.stat().st_size for path in (ROOT / "Testing" / "parity").rglob("*") if path.is_file()
    )
    assert size <= 4e6


def test_no_file_of_the_project_is_real_data_or_foreign_weights():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    allowed = ("Testing/parity/", "Testing/saved_by_", "DiffTumorSlicer/Resources/Models/")
    heavy = (
        ".nii",
        ".nii.gz",
        ".dcm",
        ".nrrd",
        ".mha",
        ".pt",
        ".ckpt",
        ".safetensors",
        ".npz",
        ".npy",
    )
    assert [name for name in tracked if name.endswith(heavy) and not name.startswith(allowed)] == []


def test_the_demonstration_models_are_packaged_and_small():
    folders = list((ENGINE.parent / "Resources" / "Models").iterdir())
    assert folders
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.iterdir())
        assert 1e6 < size <= (8e6 if folder.name.endswith("-anomaly") else 18e6), folder.name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "Models/**/*" in project["tool"]["setuptools"]["package-data"]["difftumor.resources"]


FOLDERS = ("DiffTumorSlicer", "training", "release", "Testing")


def pythons() -> list[str]:
    """Interpreters of 3.12 (Slicer's own) and 3.13: on the path, or kept by pyenv."""
    found = {}
    for version in ("3.12", "3.13"):
        kept = (Path.home() / ".pyenv" / "versions").glob(f"{version}*/bin/python")
        for python in (shutil.which(f"python{version}"), *map(str, sorted(kept))):
            if python is None or not Path(python).exists():
                continue
            asked = subprocess.run(
                [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            if asked.stdout.strip() == version:  # a version manager may leave names that do not run
                found.setdefault(version, python)
    return list(found.values())


def test_every_file_compiles_on_the_pythons_of_slicer(tmp_path):
    """Slicer 5.12 brings Python 3.12; the module may be developed on another one."""
    if not (found := pythons()):
        pytest.skip("no Python 3.12 or 3.13 here; CI has one")
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    for python in found:
        done = subprocess.run(
            [python, "-W", "error", "-m", "compileall", "-q", "-f", *FOLDERS],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{python}: {done.stdout}{done.stderr}"


def test_what_slicer_imports_needs_nothing_that_its_python_lacks():
    """The standard-library part of the engine runs on the newer Pythons as it is, without any package."""
    if not (found := pythons()):
        pytest.skip("no Python 3.12 or 3.13 here; CI has one")
    program = (
        "import sys; sys.path.insert(0, 'DiffTumorSlicer'); "
        "from difftumor.parameters import SynthesisParameters, from_dict, to_dict; "
        "from difftumor.weights import registry as model_registry; from difftumor.worker import private_folder; "
        "pack = SynthesisParameters(size='small'); "
        "assert from_dict(SynthesisParameters, to_dict(pack)) == pack; "
        "assert model_registry.registry()"
    )
    for python in found:
        done = subprocess.run(
            [python, "-I", "-W", "error", "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{python}: {done.stderr}"
