"""Files and headers: all cases must be alike in everything but their voxels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from difftumor.reader_study.audit.findings import Finding, listed
from difftumor.reader_study.audit.showings import Showing
from difftumor.reader_study.key import Key
from difftumor.reader_study.packages import README
from difftumor.reader_study.study import JOURNAL_FILE, LOCK_FILE, PACKAGE_FILE, Package

HEADER_BYTES = 348
OWN_FILES = {PACKAGE_FILE, README, JOURNAL_FILE, LOCK_FILE}
_DTYPE = {"datatype", "bitpix", "scl_slope", "scl_inter", "sizeof_hdr", "magic"}
_GRID = {"dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
         "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"}  # fmt: skip
_BLOCK = 2**22
# Names of sources that cannot stand in a text by chance, as "case" and "2026" can.
_TELLING_NAME = re.compile(r"(?=.*[A-Za-z])(?=.*\d).{4,}|.{10,}")


def form_findings(
    packages: Sequence[Package], showings: Sequence[Showing], key: Key
) -> list[Finding]:
    """Everything that differs between files and should not, and every text that should not be there."""
    headers = {showing.token: header_fields(showing.path) for showing in showings}
    found = [*_content(packages, showings, key)]
    stats = {showing.token: showing.path.stat() for showing in showings}
    sizes = {token: one.st_size for token, one in stats.items()}
    times = {token: one.st_mtime_ns for token, one in stats.items()}
    modes = {token: one.st_mode for token, one in stats.items()}
    found += _differing("file size", "file size", showings, sizes, "{} bytes".format)
    found += _differing("file time", "time of the last change", showings, times, _clock)
    found += _differing("header", "permission of the file", showings, modes, oct)
    names = dict.fromkeys(name for fields in headers.values() for name in fields)
    for name in names:
        kind = "dtype" if name in _DTYPE else "spacing" if name in _GRID else "header"
        values = {token: fields.get(name, "missing") for token, fields in headers.items()}
        found += _differing(kind, f"header field {name}", showings, values, str)
    return [*found, *_copies(showings)]


def header_fields(path: Path) -> dict[str, str]:
    """Each field of a NIfTI-1 header as text, and what lies between header and voxels."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        try:
            header = nib.Nifti1Header(head, check=False)
            offset = int(header["vox_offset"])
        except (HeaderDataError, ValueError, nib.wrapstruct.WrapStructError):
            return {"magic": "no NIfTI-1 header"}
        between = file.read(max(0, min(offset - HEADER_BYTES, _BLOCK)))
    fields = {name: _told(header[name]) for name in header.keys()}  # noqa: SIM118 (no mapping)
    return fields | {"extension": between.hex()[:64] + ("..." if len(between) > 32 else "")}


def _clock(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(" ", "microseconds")


def _told(value: np.ndarray) -> str:
    if value.dtype.kind == "S":
        return value.tobytes().rstrip(b"\0").decode("latin-1") or "empty"
    return str(value.tolist())


def _differing(
    kind: str,
    name: str,
    showings: Sequence[Showing],
    values: Mapping[str, Any],
    tell: Callable[[Any], str],
) -> Iterator[Finding]:
    """A finding if not all values are equal, telling how they go with the truth."""
    if len(set(values.values())) < 2:
        return
    by_truth: dict[str, Counter[str]] = {}
    for showing in showings:
        by_truth.setdefault(showing.truth, Counter())[tell(values[showing.token])] += 1
    words = [
        f"{truth}: {listed([f'{value} ({count})' for value, count in counts.most_common()], 3)}"
        for truth, counts in sorted(by_truth.items())
    ]
    yield Finding(kind, "leak", f"The {name} is not the same in all files: {'; '.join(words)}.")


def _content(
    packages: Sequence[Package], showings: Sequence[Showing], key: Key
) -> Iterator[Finding]:
    """Files that do not belong there, and names, ids or the salt of the key in texts and headers."""
    secrets = _secrets(key)
    for package in packages:
        wanted = OWN_FILES | {case.file for case in package.cases}
        there = [p for p in sorted(package.folder.rglob("*")) if p.is_file()]
        strange = [str(p.relative_to(package.folder)) for p in there]
        if strange := [name for name in strange if name not in wanted]:
            yield Finding(
                "content",
                "leak",
                f"{package.folder} holds files that are none of a package's: {listed(strange)}.",
            )
        texts = [package.folder / name for name in (PACKAGE_FILE, README)]
        files = texts + [one.path for one in showings if one.reader == package.reader]
        for path in files:
            if path.is_file() and (told := _secrets_in(path, secrets)):
                yield Finding(
                    "content", "leak", f"{path} contains {listed(told)}, which is in the key."
                )


def _secrets(key: Key) -> dict[bytes, str]:
    """Texts of the key that no package may contain, and what they are."""
    found = {key.salt.encode(): "the key's salt"}
    for case in key.cases.values():
        found[case.id.encode()] = f"the case id {case.id}"
        path = Path(str(case.source["path"]))
        name = re.sub(r"\.(nii|nrrd|mha|nhdr|mhd)(\.gz)?$", "", path.name)
        if _TELLING_NAME.fullmatch(name):
            found[name.encode()] = f"the source name {name}"
        found[str(case.source["sha256"]).encode()] = "the hash of a source"
    return found


def _secrets_in(path: Path, secrets: Mapping[bytes, str]) -> list[str]:
    """What a text, or the header of an image, tells of the key."""
    with path.open("rb") as file:
        head = file.read(_BLOCK if path.suffix != ".nii" else 4096)
    return [
        words
        for text, words in secrets.items()
        if text in head and re.search(rb"(?<!\w)" + re.escape(text) + rb"(?!\w)", head)
    ]


def _copies(showings: Sequence[Showing]) -> Iterator[Finding]:
    """The files of a case must be equal for all readers, byte by byte."""
    first: dict[str, Path] = {}
    for showing in showings:
        other = first.setdefault(showing.case_id, showing.path)
        if other != showing.path and not _equal(other, showing.path):
            yield Finding(
                "copies", "leak", f"{showing.path} and {other} are the same case, but differ."
            )


def _equal(first: Path, second: Path) -> bool:
    with first.open("rb") as one, second.open("rb") as two:
        while True:
            a, b = one.read(_BLOCK), two.read(_BLOCK)
            if a != b:
                return False
            if not a:
                return True
