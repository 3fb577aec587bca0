"""Write what only the owner knows (owner.json), the version and the lists of files to where they are needed.

    python release/fill_in.py            # after a change of owner.json, of a screenshot, or of which files there are
    python release/fill_in.py --check    # say what is out of date or not filled in yet; exit code 1 if something is

The Extensions Index reads the root CMakeLists.txt as text, so addresses have to stand there in full.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWNER = ROOT / "release" / "owner.json"
PLACEHOLDER = "FILL-IN"
MODULE = "DiffTumorSlicer"
# What Slicer installs. Testing, training and release are never installed: names like theirs would
# collide in Slicer's import path.
SCRIPT_FOLDERS = ("DiffTumorSlicerLib", "difftumor")
RESOURCE_FOLDER = "Resources"

CONTACT = r"<!-- contact -->(.*)<!-- /contact -->"


def owner() -> dict[str, object]:
    """The owner's facts."""
    facts: dict[str, object] = json.loads(OWNER.read_text(encoding="utf-8"))
    return facts


def scripts(root: Path = ROOT) -> list[str]:
    """Python files of the module, relative to its folder."""
    folder = root / MODULE
    found = [folder / f"{MODULE}.py"]
    for name in SCRIPT_FOLDERS:
        found += sorted((folder / name).rglob("*.py"))
    return [path.relative_to(folder).as_posix() for path in found]


def resources(root: Path = ROOT) -> list[str]:
    """All other files of the module, relative to its folder."""
    folder = root / MODULE
    files = sorted(path for path in (folder / RESOURCE_FOLDER).rglob("*") if path.is_file())
    return [
        path.relative_to(folder).as_posix() for path in files if path.suffix not in (".py", ".pyc")
    ]


def screenshots(root: Path = ROOT) -> list[str]:
    """Pictures for the extension's page, relative to the repository."""
    found = sorted((root / "Resources").glob("screenshot-*.png"))
    return [path.relative_to(root).as_posix() for path in found]


def version(root: Path = ROOT) -> str:
    """The version, from the one place where it stands; read as text, so that nothing has to be installed."""
    text = (root / MODULE / "difftumor" / "__init__.py").read_text(encoding="utf-8")
    return str(re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0])


def places(root: Path = ROOT) -> dict[str, list[tuple[str, str]]]:
    """Which line of which file says what: {file: [(pattern with one group, what the group shall be)]}."""
    facts = owner()
    address = str(facts["repository"]).removesuffix("/")
    raw = f"{address.replace('github.com', 'raw.githubusercontent.com')}/{facts['branch']}"
    people = [str(name) for name in facts["contributors"]]  # type: ignore[attr-defined]
    pictures = " ".join(f"{raw}/{name}" for name in screenshots(root)) or f"{raw}/{PLACEHOLDER}.png"
    return {
        "CMakeLists.txt": [
            (r'set\(EXTENSION_HOMEPAGE "(.*)"\)', f"{address}#readme"),
            (r'set\(EXTENSION_CONTRIBUTORS "(.*)"\)', ", ".join(people)),
            (r'set\(EXTENSION_ICONURL "(.*)"\)', f"{raw}/Resources/{MODULE}.png"),
            (r'set\(EXTENSION_SCREENSHOTURLS "(.*)"\)', pictures),
        ],
        f"{MODULE}/CMakeLists.txt": [
            (r"set\(MODULE_PYTHON_SCRIPTS\n((?:.*\n)*?)  \)", _lines(scripts(root))),
            (r"set\(MODULE_PYTHON_RESOURCES\n((?:.*\n)*?)  \)", _lines(resources(root))),
        ],
        f"{MODULE}/{MODULE}.py": [
            (r"^CONTRIBUTORS = (\[.*\])$", json.dumps(people, ensure_ascii=False)),
            (r'^REPOSITORY = "(.*)"$', address),
        ],
        f"release/{MODULE}.json": [
            (r'"scm_url": "(.*)"', f"{address}.git"),
            (r'"scm_revision": "(.*)"', str(facts["branch"])),
        ],
        "README.md": [(CONTACT, str(facts["contact"]))],
        "SECURITY.md": [(CONTACT, str(facts["contact"]))],
        "CITATION.cff": [
            (r"^authors:\n((?:  .*\n)*)", "".join(map(_author, people))),
            (r'^repository-code: "(.*)"$', address),
            (r'^version: "(.*)"$', version(root)),
        ],
        "mkdocs.yml": [(r"^repo_url: (.*)$", address)],
    }


def rendered(root: Path = ROOT) -> dict[Path, str]:
    """Every file as it shall be.

    Raises:
        ValueError: a line is not there any more.
    """
    result = {}
    for name, lines in places(root).items():
        path = root / name
        text = path.read_text(encoding="utf-8")
        for pattern, value in lines:
            found = re.search(pattern, text, re.MULTILINE)
            if found is None:
                raise ValueError(f"{name} has no line like {pattern}")
            text = text[: found.start(1)] + value + text[found.end(1) :]
        result[path] = text
    return result


def not_filled_in(root: Path = ROOT) -> list[str]:
    """What keeps a release: facts of the owner and pictures that are missing."""
    missing = [
        f"release/owner.json: {key}" for key, value in owner().items() if PLACEHOLDER in str(value)
    ]
    if not screenshots(root):
        missing.append("Resources/screenshot-*.png: no screenshot")
    return missing


def main(arguments: list[str]) -> int:
    """Write, or check."""
    outdated = [p for p, text in rendered().items() if p.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        problems = [f"{path.relative_to(ROOT)}: out of date" for path in outdated] + not_filled_in()
        print("\n".join(problems) or "All is filled in.")  # noqa: T201
        return 1 if problems else 0
    for path, text in rendered().items():
        if path in outdated:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(path.relative_to(ROOT))  # noqa: T201
    return 0


def _author(person: str) -> str:
    """An entry of CITATION.cff of "Given Names Family (Organization)"; an organization may stand alone."""
    found = re.fullmatch(r"(.+) (\S+) \((.+)\)", person)
    if found is None or PLACEHOLDER in person:
        return f'  - name: "{person}"\n'
    given, family, organization = found.groups()
    return (
        f'  - given-names: "{given}"\n    family-names: "{family}"\n'
        f'    affiliation: "{organization}"\n'
    )


def _lines(names: list[str]) -> str:
    return "".join(f"  {name}\n" for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
