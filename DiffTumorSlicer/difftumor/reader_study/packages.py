"""Make a study: the sealed key, and for each reader a package of neutral copies in an order of their own.

Nothing in a package depends on the truth: files are alike in size and time, are written in the order of their names,
and the names come from the key's salt. The study appears as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from difftumor.images.resampling import resample
from difftumor.images.volumes import read_volume
from difftumor.reader_study.choosing import Choice, Plan, Showing, choose, order_for, truth_of
from difftumor.reader_study.key import KEY_FILE, READERS, Key, KeyCase, KeyShowing, Study
from difftumor.reader_study.neutral import (
    ORGAN_CROP_MM,
    Frame,
    common_frame,
    neutral_copy,
    packed_mask,
    place,
    write_case,
)
from difftumor.reader_study.sources import Candidate, Note, lesions_of, twins
from difftumor.reader_study.study import (
    NOTICE,
    PACKAGE_FILE,
    STUDY_FILE,
    CaseFile,
    Package,
    StudyError,
    StudyFacts,
    case_sha256,
)

Callback = Callable[[str, int, int], None]
README = "README.txt"
_INSTRUCTIONS = """{notice}

{title}, package of reader {reader}

Open 3D Slicer, module DiffTumorSlicer, panel Reader study. Choose this folder and enter your code. You may stop at
any time: every answer is stored at once, and you go on at the next case, on another computer too if you take the whole
folder with you. When you have finished, give the folder back (the file journal.jsonl is enough).
"""


@dataclass
class _Making:
    """What grows while a study is made."""

    frame: Frame
    facts: StudyFacts
    plan: Plan
    ids: dict[str, str]  # case ids by the scans' hashes
    copies: dict[str, Path] = field(default_factory=dict)
    starts: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    cases: dict[str, KeyCase] = field(default_factory=dict)


def create_study(
    folder: Path,
    facts: StudyFacts,
    candidates: Sequence[Candidate],
    plan: Plan,
    *,
    callback: Callback | None = None,
    note: Note | None = None,
    salt: str | None = None,
) -> tuple[Study, tuple[str, ...]]:
    """Choose cases, copy them, and write study, key and packages.

    Args:
        folder: to be made; must not exist.
        facts: of the study.
        candidates: measured sources.
        plan: how many, for whom, on which grid.
        callback: called with stage, done, total; may raise Cancelled.
        note: receives sentences of the readers of images.
        salt: 64 hexadecimal digits, for tests; else random.

    Returns:
        the study, and sentences for the coordinator.

    Raises:
        StudyError: too few cases, no common field, not enough room on the disk.
        FileExistsError: the folder is there.
        OSError: it could not be written; nothing is left behind.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise FileExistsError(
            f"{folder} exists already, and a study may hold answers. Choose another folder."
        )
    notes = twins(candidates)
    choice = choose(candidates, facts.type, plan)
    notes += choice.notes
    shown = [*choice.practice, *choice.counted]
    frame = common_frame(
        [one.grid for one in shown],
        plan.spacing_mm,
        plan.field_mm,
        crop_mm=ORGAN_CROP_MM if facts.type == "organ_recognition" else None,
    )
    notes += _frame_notes(frame, shown)
    orders = {reader: order_for(reader, choice, plan.seed) for reader in plan.readers}
    _check_room(folder.parent, frame, sum(map(len, orders.values())))
    salt = salt or secrets.token_hex(32)
    making = _Making(frame, facts, plan, _ids(choice))
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:50]}."))
    try:
        tokens = {reader: _tokens(salt, reader, len(order)) for reader, order in orders.items()}
        for reader, order in orders.items():

            def report(done: int, total: int, reader: str = reader) -> None:
                if callback is not None:
                    callback(f"writing the package of {reader}", done, total)

            _write_cases(
                partial / READERS / reader, order, tokens[reader], making, report, note or _silent
            )
        key = Key(
            facts.study_id,
            salt,
            plan.seed,
            dict(sorted(making.cases.items())),
            {reader: _showings(orders[reader], tokens[reader], making) for reader in orders},
            tuple(notes),
        )
        key_bytes = _json_bytes(key.to_dict())
        _write_secret(partial / KEY_FILE, key_bytes)
        key_sha256 = hashlib.sha256(key_bytes).hexdigest()
        digests = {
            reader: _write_package(
                partial / READERS / reader,
                orders[reader],
                tokens[reader],
                making,
                reader,
                key_sha256,
            )
            for reader in orders
        }
        study = Study(folder, facts, key_sha256, asdict(frame), digests)
        (partial / STUDY_FILE).write_bytes(_json_bytes(study.to_dict()))
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return study, tuple(notes)


def new_study_id() -> str:
    """A random name for a study."""
    return secrets.token_hex(6)


def today() -> str:
    """The day, UTC."""
    return datetime.now(UTC).date().isoformat()


def _write_cases(
    folder: Path,
    order: Sequence[Showing],
    tokens: Sequence[str],
    making: _Making,
    report: Callable[[int, int], None],
    note: Note,
) -> None:
    """Write the images of a package in the order of their names, which tells nothing."""
    (folder / "cases").mkdir(parents=True)
    for done, (token, showing) in enumerate(sorted(zip(tokens, order, strict=True), key=_first)):
        report(done, len(order))
        path = folder / CaseFile(token, False, (0, 0, 0), "").file
        digest = showing.case.sha256
        if digest in making.copies:
            shutil.copyfile(making.copies[digest], path)
        else:
            _make_copy(showing.case, path, making, note)
            making.copies[digest] = path
    report(len(order), len(order))


def _make_copy(one: Candidate, path: Path, making: _Making, note: Note) -> None:
    """Write the neutral copy of a case, and remember its truth."""
    volume = read_volume(one.source.image)
    start = np.asarray(one.center_ras) + _jitter(one, making.plan)
    target, begin = place(making.frame, volume.grid, start)
    hu = neutral_copy(volume.array, volume.grid, target, exact=making.frame.exact)
    lesions = None
    if one.source.lesions is not None:
        mask = resample(lesions_of(one.source, volume, note), volume.grid, target, order=0)
        if not mask.any():
            raise StudyError(
                f"The lesion of {one.source.image} is not within the common field of all cases. Choose a larger "
                "field, or leave this case out."
            )
        lesions = packed_mask(mask, making.frame.spacing_mm)
    write_case(hu, making.frame.spacing_mm, path)
    if making.facts.type == "detection":
        begin = np.zeros(3)  # a start at the lesion would be the answer
    r, a, s = (float(v) for v in begin)
    making.starts[one.sha256] = (r, a, s)
    case_id = making.ids[one.sha256]
    x, y, z = np.round(target.center_ras, 3).tolist()
    making.cases[case_id] = KeyCase(
        case_id,
        one.source.kind,
        one.organ,
        one.size_mm,
        truth_of(one, making.facts.type),
        {"path": str(one.source.image.resolve()), "sha256": one.sha256},
        (x, y, z),
        lesions,
        one.sidecar,
    )


def _write_package(
    folder: Path,
    order: Sequence[Showing],
    tokens: Sequence[str],
    making: _Making,
    reader: str,
    key_sha256: str,
) -> str:
    """Write package.json, set all file times alike; returns the hash of package.json."""
    cases = []
    for token, showing in zip(tokens, order, strict=True):
        case = CaseFile(token, showing.practice, making.starts[showing.case.sha256], "")
        digest = case_sha256(token, folder / case.file)
        cases.append(CaseFile(token, showing.practice, case.start_ras, digest))
    size = (folder / cases[0].file).stat().st_size
    package = Package(folder, making.facts, reader, key_sha256, size, tuple(cases))
    content = _json_bytes(package.to_dict())
    (folder / PACKAGE_FILE).write_bytes(content)
    text = _INSTRUCTIONS.format(notice=NOTICE, title=making.facts.title, reader=reader)
    (folder / README).write_text(text, encoding="utf-8")
    day = datetime.fromisoformat(f"{making.facts.created}T12:00:00+00:00").timestamp()
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (day, day))
    return hashlib.sha256(content).hexdigest()


def _showings(
    order: Sequence[Showing], tokens: Sequence[str], making: _Making
) -> tuple[KeyShowing, ...]:
    first: dict[str, str] = {}
    result = []
    for token, showing in zip(tokens, order, strict=True):
        case_id = making.ids[showing.case.sha256]
        repeat_of = first.get(case_id) if showing.repeat else None
        first.setdefault(case_id, token)
        result.append(KeyShowing(token, case_id, showing.practice, repeat_of))
    return tuple(result)


def _ids(choice: Choice) -> dict[str, str]:
    digests = sorted(one.sha256 for one in (*choice.practice, *choice.counted))
    return {digest: f"case-{number:03}" for number, digest in enumerate(digests, start=1)}


def _tokens(salt: str, reader: str, count: int) -> list[str]:
    """Opaque names of a reader's showings: a keyed hash, so that they follow from nothing one could know."""
    key = bytes.fromhex(salt)
    named = [
        hmac.new(key, f"{reader}/{n}".encode(), hashlib.sha256).hexdigest()[:12]
        for n in range(count)
    ]
    assert len(set(named)) == count
    return named


def _jitter(one: Candidate, plan: Plan) -> np.ndarray:
    """A shift of at most `plan.jitter_mm`, from seed and image: hides how exactly a center is known."""
    rng = np.random.default_rng([plan.seed, int(one.sha256[:16], 16)])
    direction = rng.standard_normal(3)
    return direction / np.linalg.norm(direction) * rng.uniform(0, plan.jitter_mm)


def _frame_notes(frame: Frame, shown: Sequence[Candidate]) -> list[str]:
    size = " x ".join(f"{v:.0f}" for v in frame.size_mm)
    spacing = " x ".join(f"{v:g}" for v in frame.spacing_mm)
    notes = [f"every case shows {size} mm with voxels of {spacing} mm"]
    if not frame.exact:
        notes.append(
            "the scans have different voxels: all cases are interpolated to the coarsest of them along each axis"
        )
    short = sum(
        bool((np.diff(one.grid.bounds_ras, axis=0)[0] < frame.size_mm - 0.01).any())
        for one in shown
    )
    if short:
        notes.append(
            f"{short} of {len(shown)} scans are smaller than the field of all cases; the rest of it is air"
        )
    return notes


def _check_room(folder: Path, frame: Frame, count: int) -> None:
    if not folder.is_dir():
        raise StudyError(f"The folder {folder} for the study does not exist. Create it.")
    need = count * (int(np.prod(frame.shape)) * 2 + 352)
    free = shutil.disk_usage(folder).free
    if need * 1.02 + 1e7 > free:
        raise StudyError(
            f"The packages need {need / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} GB. Choose another "
            "disk, a smaller field, larger voxels, fewer cases or fewer readers at a time."
        )


def _json_bytes(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _first(pair: tuple[str, Showing]) -> str:
    return pair[0]


def _silent(_sentence: str) -> None:
    """Default of `note`."""
