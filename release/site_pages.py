"""Hook of MkDocs: pages and pictures that lie outside docs/ belong to the site, and links to them work.

A link in a page leads to a file of the repository, as on the host. In the site it leads to the page or picture if
that is part of it, and otherwise to the file on the host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"
# Beside docs/: (pattern, folder of the site). Those that a page does not show do no harm.
ADDED = ("*.md", "training/*.md", "release/*.md", "Resources/*.png")

_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")


def on_files(files: Any, config: Any) -> Any:
    """Add the files that lie outside docs/."""
    from mkdocs.structure.files import File

    for pattern in ADDED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let the links of a page lead to where things are in the site."""
    source = page.file.src_uri
    here = posixpath.dirname(repository_path(source))

    def replaced(match: re.Match[str]) -> str:
        before, link, anchor, after = match.groups()
        if not link or "://" in link or link.startswith("mailto:"):
            return match.group(0)
        target = posixpath.normpath(posixpath.join(here, link))
        name = site_path(target)
        if files.get_file_from_path(name) is None:
            new = f"{config.repo_url}/blob/main/{target}"
        else:
            new = posixpath.relpath(name, posixpath.dirname(source) or ".")
        return f"{before}{new}{anchor or ''}{after}"

    return _LINK.sub(replaced, markdown)


def repository_path(source: str) -> str:
    """Where a file of the site lies in the repository."""
    return source if (ROOT / source).is_file() else f"{DOCS}/{source}"


def site_path(target: str) -> str:
    """The name in the site of a file of the repository."""
    return target.removeprefix(f"{DOCS}/")
