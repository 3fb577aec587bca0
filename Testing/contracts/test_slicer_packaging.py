"""What Slicer installs, and what the Extensions Index checks, is there and agrees with the tree."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from Testing.contracts.looping import each

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DiffTumorSlicer"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
INDEX = ROOT / "release" / "DiffTumorSlicer.json"

spec = importlib.util.spec_from_file_location("fill_in", ROOT / "release" / "fill_in.py")
fill_in = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fill_in)

# Extensions Index: ACCEPTED_EXTENSION_CATEGORIES of check_description_files.py has this one (specs/slicer.md 1.1).
CATEGORY = "Image Synthesis"
# Schema v1.0.2, specs/slicer.md 1.5.
INDEX_KEYS = {
    "$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies",
    "build_subdirectory", "enabled", "tier", "dicom_support_rule",
}  # fmt: skip

STUB = {
    # A Slicer that installs what a scripted module lists, to where Slicer installs it.
    "SlicerConfig.cmake": """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake")
""",
    "Nothing.cmake": "",
    "UseSlicer.cmake": """
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_WITH_GENERIC_TESTS)
    message(FATAL_ERROR "unexpected: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "nonexistent file ${file}")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION lib/qt-scripted-modules/${folder})
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  get_filename_component(script ${MY_SCRIPT} ABSOLUTE)
  if(NOT EXISTS ${script})
    message(FATAL_ERROR "nonexistent test ${script}")
  endif()
  get_filename_component(name ${MY_SCRIPT} NAME_WE)
  add_test(NAME py_${name} COMMAND ${CMAKE_COMMAND} -E true)
endmacro()
enable_testing()
""",
}


def variable(name: str) -> str:
    # As the index's own check reads it.
    found = re.findall(rf'set\s*\({name}\s*"([^"]+)"\)', CMAKE)
    assert len(found) == 1, name
    return found[0]


def listed(name: str) -> list[str]:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(rf"set\({name}\n((?:.*\n)*?)  \)", text)[1].split()


# ----------------------------------------------------------------------------------------- the files


def test_the_module_lists_every_python_file_and_no_other():
    hint = "run: python release/fill_in.py"
    assert listed("MODULE_PYTHON_SCRIPTS") == fill_in.scripts(), hint


def test_the_module_lists_every_resource_and_no_other():
    assert listed("MODULE_PYTHON_RESOURCES") == fill_in.resources(), (
        "run: python release/fill_in.py"
    )


def test_lists_hold_only_what_git_knows_or_will_know():
    ignored = subprocess.run(
        ["git", "check-ignore", *(f"DiffTumorSlicer/{name}" for name in [*fill_in.scripts(), *fill_in.resources()])],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ignored.stdout.split() == []


def test_nothing_of_testing_training_or_release_is_installed():
    files = listed("MODULE_PYTHON_SCRIPTS") + listed("MODULE_PYTHON_RESOURCES")
    roots = {name.split("/")[0] for name in files}
    assert roots == {"DiffTumorSlicer.py", "DiffTumorSlicerLib", "difftumor", "Resources"}


def test_any_python_file_in_the_module_folder_is_the_module():
    # Slicer takes each .py there for a module.
    assert [path.name for path in MODULE.glob("*.py")] == ["DiffTumorSlicer.py"]


def test_a_package_of_ours_has_an_init_file_everywhere():
    for name in fill_in.SCRIPT_FOLDERS:
        folders = {path.parent for path in (MODULE / name).rglob("*.py")}
        assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def _cmake_version() -> tuple[int, int] | None:
    if shutil.which("cmake") is None or not any(map(shutil.which, ("cc", "gcc", "clang", "cl"))):
        return None
    said = subprocess.run(
        ["cmake", "--version"], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


@pytest.mark.skipif(_cmake_version() is None, reason="needs cmake and a C compiler")
def test_the_package_holds_exactly_the_files_of_the_tree(tmp_path):
    source, stub, build, prefix = (tmp_path / n for n in ("source", "stub", "build", "prefix"))
    shutil.copytree(
        ROOT / "DiffTumorSlicer",
        source / "DiffTumorSlicer",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (source / "Testing").mkdir()
    shutil.copytree(ROOT / "Testing" / "InSlicer", source / "Testing" / "InSlicer")
    shutil.copy(ROOT / "Testing" / "CMakeLists.txt", source / "Testing")
    # Slicer 5.12 asks for CMake 3.28; what is used here is older than that.
    major, minor = _cmake_version()
    asked = "3.28.0...3.28.0"
    assert asked in CMAKE
    text = CMAKE if (major, minor) >= (3, 28) else CMAKE.replace(asked, f"{major}.{minor}")
    (source / "CMakeLists.txt").write_text(text, encoding="utf-8")
    stub.mkdir()
    for name, content in STUB.items():
        (stub / name).write_text(content, encoding="utf-8")
    for command in (
        ["cmake", "-S", source, "-B", build, f"-DSlicer_DIR={stub}", "-DBUILD_TESTING=ON"],
        ["cmake", "--install", build, "--prefix", prefix],
        ["ctest", "--test-dir", build, "--show-only=json-v1"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tests = {test["name"] for test in json.loads(done.stdout)["tests"]}
    assert tests == {"py_DiffTumorSlicer", "py_DiffTumorSlicerPackageTest"}
    target = prefix / "lib" / "qt-scripted-modules"
    installed = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert installed == set(fill_in.scripts() + fill_in.resources())
    everything = {p for p in prefix.rglob("*") if p.is_file()}
    assert len(everything) == len(installed)


# ------------------------------------------------------------------------------------ the index's rules


def test_the_project_has_the_name_of_its_index_entry():
    assert re.search(r"project\s*\(\s*([^\s\)]+)", CMAKE)[1] == INDEX.stem == "DiffTumorSlicer"
    assert not INDEX.stem.lower().startswith("slicer")


def test_the_index_entry_follows_the_schema():
    raw = INDEX.read_bytes()
    assert b"\r" not in raw
    entry = json.loads(raw)
    assert set(entry) <= INDEX_KEYS
    assert set(entry) >= {"$schema", "category", "scm_url"}
    assert entry["category"] == CATEGORY
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["build_subdirectory"] == "."
    assert entry["scm_type"] == "git"
    assert entry["tier"] in range(1, 6)
    assert isinstance(entry["enabled"], bool)


def test_dependencies_are_the_same_in_cmake_and_in_the_index_entry():
    assert (
        variable("EXTENSION_DEPENDS").split() == json.loads(INDEX.read_text())["build_dependencies"]
    )


def test_the_repository_has_a_name_that_the_index_takes():
    url = json.loads(INDEX.read_text())["scm_url"]
    assert url.startswith("https://")
    assert url.removesuffix(".git").rsplit("/", 1)[1].lower().startswith("slicer")


def test_addresses_of_pictures_can_be_read_by_the_index():
    for name in ("EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        for url in variable(name).split():
            assert url.startswith("https://raw.githubusercontent.com/")
            assert url.endswith(".png")


def test_the_description_is_one_line_that_says_what_it_does_and_that_it_is_for_research():
    text = variable("EXTENSION_DESCRIPTION")
    assert 60 < len(text) < 250
    assert "Research use only" in text


def test_metadata_that_left_the_template_is_not_there():
    assert "EXTENSION_CATEGORY" not in CMAKE
    assert "EXTENSION_STATUS" not in CMAKE
    assert "## NEXT_MODULE" in CMAKE


@each(
    "path", ["Resources/DiffTumorSlicer.png", "DiffTumorSlicer/Resources/Icons/DiffTumorSlicer.png"]
)
def test_the_icon_is_a_png_of_128_by_128(path):
    header = (ROOT / path).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")) == (
        128,
        128,
    )


def test_the_tutorial_shows_every_picture_and_all_are_small():
    pictures = [
        *fill_in.screenshots(),
        *sorted(p.name for p in (ROOT / "Resources").glob("tutorial-*.png")),
    ]
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert 3 <= len(pictures) <= 26
    for name in (Path(picture).name for picture in pictures):
        assert f"../Resources/{name}" in tutorial, name
        assert (ROOT / "Resources" / name).stat().st_size <= 150_000, name


@each(
    "words",
    [
        # Extensions Index, questions of the review (specs/slicer.md 1.1) and sections of 1.4.
        "Research use only, not a medical device", "patents", "non-commercial use", "## Cite", "## Privacy",
        "## Where things lie, and how to remove them", "## Offline and behind a proxy", "## Licenses",
        "## Contact", "Sample Data", "*Volumes*", "*Synthesis*", "*Models*", "docs/tutorial.md",
    ],
)  # fmt: skip
def test_the_readme_answers_what_reviewers_ask(words):
    assert words in (ROOT / "README.md").read_text(encoding="utf-8")


@each(
    "file",
    [
        "README.md",
        "docs/tutorial.md",
        "DiffTumorSlicer/Resources/UI/DiffTumorSlicer.ui",
        "DiffTumorSlicer/difftumor/provenance.py",  # the notice of the report page
    ],
)
def test_panel_report_and_tutorial_say_what_the_module_is_not(file):
    text = (ROOT / file).read_text(encoding="utf-8").lower()
    assert "research use only, not a medical device" in text
    assert "patents" in text
    assert "commercial" in text


def test_there_is_a_licence_file_that_the_index_finds():
    names = (
        "LICENSE",
        "LICENCE",
        "License.txt",
        "license.txt",
        "LICENSE.txt",
        "COPYING",
        "COPYING.txt",
    )
    assert any((ROOT / name).is_file() for name in names)


def test_hosted_tests_run_on_three_systems():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    for words in ("ubuntu-", "windows-", "macos-", "make test", "python -m pytest", "permissions:"):
        assert words in text


def test_hosted_tests_meet_new_releases_and_a_real_slicer():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    jobs = dict(re.findall(r"^  ([a-z-]+):\n((?:    .*\n|\n)+)", text, re.MULTILINE))
    assert "constraints.txt" not in jobs["newest"]
    assert "DIFFTUMOR_APT" in jobs["linux"]  # the pinned one is what a developer runs
    assert "https://download.pytorch.org/whl/cpu" in text
    assert "mkdocs build --strict" in jobs["docs"]
    script = re.findall(r"--python-script \$PWD/(\S+)", jobs["slicer"])[0]
    assert (ROOT / script).is_file()


# -------------------------------------------------------------------------- what only the owner knows


def test_every_place_says_what_the_owner_wrote_down():
    outdated = [
        path.relative_to(ROOT).as_posix()
        for path, text in fill_in.rendered().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert outdated == [], "run: python release/fill_in.py"


def test_the_owners_facts_stand_in_no_other_place():
    places = {ROOT / name for name in fill_in.places()} | {
        fill_in.OWNER,
        ROOT / "release" / "fill_in.py",
    }
    others = [
        path.relative_to(ROOT).as_posix()
        for folder in ("DiffTumorSlicer", "docs", "release")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".json", ".ui", ".txt") and path not in places
        and fill_in.PLACEHOLDER in path.read_text(encoding="utf-8")
    ]  # fmt: skip
    assert others == []


def test_before_a_release_everything_is_filled_in():
    missing = fill_in.not_filled_in()
    if missing:
        pytest.xfail("to be filled in by the owner before a release: " + "; ".join(missing))
    for path in (ROOT / name for name in fill_in.places()):
        assert fill_in.PLACEHOLDER not in path.read_text(encoding="utf-8"), path
