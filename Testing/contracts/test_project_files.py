"""What a person meets first says the same everywhere: version, addresses, links, documentation."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from Testing.contracts.looping import ROOT, each

PAGES = [
    *(path for folder in (ROOT, ROOT / "training", ROOT / "release") for path in sorted(folder.glob("*.md"))),
    *sorted((ROOT / "docs").rglob("*.md")),
]  # fmt: skip
ENGINE = ROOT / "DiffTumorSlicer"
SOURCES = [
    p
    for name in ("DiffTumorSlicer", "training", "release")
    for p in sorted((ROOT / name).rglob("*.py"))
]


def anchors(page: Path) -> set[str]:
    """Names of the sections of a page, as hosts and the site make them."""
    found: set[str] = set()
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\]\(.*?\)", "", heading)).strip().lower()
        found.add(re.sub(r"\s", "-", words))
    return found


@each("page", PAGES)
def test_every_link_leads_to_a_file_and_to_a_section_of_it(page):
    wrong = []
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@each("page", PAGES)
def test_no_merge_is_left_half_done(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^(?:<<<<<<<|>>>>>>>) .*$", text, flags=re.MULTILINE) == []


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    module, _, name = project["tool"]["setuptools"]["dynamic"]["version"]["attr"].partition(".")
    text = (ENGINE / module / "__init__.py").read_text(encoding="utf-8")
    assert re.search(rf'^{name} = "\d+\.\d+\.\d+"$', text, re.MULTILINE)


def test_the_changelog_is_grouped():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[0] == "Unreleased"
    groups = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= groups


def test_a_contributor_finds_the_door():
    for name in (
        "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "TECH_DEBT.md", ".pre-commit-config.yaml",
        ".github/dependabot.yml", ".github/pull_request_template.md", ".github/ISSUE_TEMPLATE/bug.yml",
    ):  # fmt: skip
        assert (ROOT / name).is_file(), name


def test_contributing_names_only_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in ("CONTRIBUTING.md", "README.md", "docs/architecture.md"):
        named = set(
            re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        )
        assert named <= targets, page


def test_the_fast_tests_leave_out_only_what_exists():
    lines = (ROOT / "Testing" / "slow.txt").read_text(encoding="utf-8").splitlines()
    named = [line.split()[0] for line in lines if not line.startswith("#")]
    assert named == sorted(set(named))
    for name in named:
        path, _, test = name.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")  # a file that is gone raises
        assert test.split("::")[-1] in text


@each("page", sorted((ROOT / "docs" / "api").glob("*.md")))
def test_the_api_reference_names_modules_and_members_that_exist(page):
    named = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    for name in named:
        parts = name.split(".")
        files = [ENGINE.joinpath(*parts[: n + 1]).with_suffix(".py") for n in range(len(parts))]
        files += [ENGINE.joinpath(*parts) / "__init__.py"]
        file = next((f for f in reversed(files) if f.is_file()), None)
        assert file is not None, name
        if file.stem not in (parts[-1], "__init__"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            assert parts[-1] in {getattr(node, "name", "") for node in tree.body}, name


def test_the_site_lists_every_page():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, re.MULTILINE))
    assert listed == {
        p.relative_to(ROOT / "docs" if "docs" in p.parts else ROOT).as_posix() for p in PAGES
    }


# The other way to write docstrings, which no generator of documentation reads.
ONE_LINE_SECTION = re.compile(r"^\s*(?:Returns|Raises|Yields|Args)(?:, \w+)?: +\S", re.MULTILINE)


@each("path", SOURCES)
def test_sections_of_docstrings_are_sections(path):
    documented = ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef | ast.Module
    wrong = [
        getattr(node, "name", "the file")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and ONE_LINE_SECTION.search(ast.get_docstring(node) or "")
    ]
    assert wrong == []
