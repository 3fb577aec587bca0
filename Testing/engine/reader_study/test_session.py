"""A reader's session: what comes when, what is stored, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import platform
import random
import shutil

import pytest

from difftumor.reader_study import journal as journal_module
from difftumor.reader_study import locking
from difftumor.reader_study.journal import JournalError, read_journal
from difftumor.reader_study.reading import ReadingState
from difftumor.reader_study.session import Answer, LockedError, ReadingSession, StudyError
from difftumor.reader_study.study import JOURNAL_FILE, LOCK_FILE, PACKAGE_FILE, read_package
from Testing.engine.reader_study.clocks import TestClock
from Testing.engine.reader_study.tiny_package import tiny_package

REAL = Answer("real", 4)


@pytest.fixture
def package(tmp_path):
    return tiny_package(tmp_path / "R1")


def read(session, answer=REAL):
    """Answer the current case."""
    session.shown()
    session.answer(answer)


def events(package):
    return [
        r["event"] for r in read_journal(package.folder / JOURNAL_FILE, digest(package)).records
    ]


def digest(package):
    return read_package(package.folder).digest


def state_of(package):
    read_again = read_package(package.folder)
    records = read_journal(package.folder / JOURNAL_FILE, read_again.digest).records
    return ReadingState.replay(read_again, records)


def test_a_whole_reading(package):
    session = ReadingSession.join(package.folder, " r1 ")
    tokens = [case.token for case in package.cases]
    seen = []
    while not session.finished:
        view = session.current
        assert view.path.is_file()
        after = session.following
        assert after is None or after.token == tokens[len(seen) + 1]
        seen.append((view.token, view.position, view.total, view.practice, session.progress))
        read(session)
    session.close()
    session.close()
    assert [row[0] for row in seen] == tokens
    assert [row[1:] for row in seen] == [
        (1, 2, True, (0, 2)),
        (2, 2, True, (1, 2)),
        (1, 4, False, (0, 4)),
        (2, 4, False, (1, 4)),
        (3, 4, False, (2, 4)),
        (4, 4, False, (3, 4)),
    ]
    assert session.progress == (4, 4)
    assert events(package)[0] == "joined"
    assert events(package)[-1] == "left"
    assert (package.folder / LOCK_FILE).read_bytes() == b""
    again = ReadingSession.join(package.folder, "R1")
    assert again.finished
    assert again.current is None
    with pytest.raises(StudyError, match="Every case is answered"):
        again.shown()
    again.close()


@pytest.mark.parametrize("code", ["R2", "", "R1x", "../R1"])
def test_a_wrong_code_is_refused_and_nothing_is_written(package, code):
    before = sorted(package.folder.iterdir())
    with pytest.raises(StudyError, match="does not belong to this package"):
        ReadingSession.join(package.folder, code)
    assert sorted(package.folder.iterdir()) == before


@pytest.mark.parametrize(
    "answer",
    [
        Answer("maybe", 3),
        Answer("real", None),
        Answer("real", 0),
        Answer("real", 6),
        Answer("real", True),
        Answer("real", 3, (1.0, 2.0, 3.0)),
        Answer("real", 3, None, "x" * 5000),
    ],
)
def test_what_is_no_answer_is_refused_and_not_stored(package, answer):
    session = ReadingSession.join(package.folder, "R1")
    session.shown()
    with pytest.raises(StudyError):
        session.answer(answer)
    assert "answered" not in events(package)
    session.answer(REAL)
    session.close()


def test_a_case_must_be_on_the_screen_to_be_answered(package):
    session = ReadingSession.join(package.folder, "R1")
    with pytest.raises(StudyError, match="not on the screen"):
        session.answer(REAL)
    session.pause()
    for step in (session.shown, lambda: session.answer(REAL), session.forward):
        with pytest.raises(StudyError, match="paused"):
            step()
    session.close()


def test_marks_and_comments_come_back_as_they_were_given(tmp_path):
    package = tiny_package(tmp_path / "R1", ask_mark=True, ask_confidence=False)
    session = ReadingSession.join(package.folder, "R1")
    answer = Answer("synthetic", None, (1.25, -3.5, 0.0), 'Rand zu glatt, "künstlich"\n肝')
    read(session, answer)
    session.close()
    assert state_of(package).given[package.cases[0].token].answer == answer


def test_reading_time_leaves_out_pauses_and_crashes_and_survives_a_moved_clock(package):
    clock = TestClock()
    session = ReadingSession.join(package.folder, "R1", clock=clock)
    clock.wait(50)  # loading the first image does not count
    session.shown()
    clock.wait(10)
    assert session.seconds == pytest.approx(10)
    session.pause()
    clock.wait(3600)
    session.resume()
    session.shown()
    clock.set(-7200)  # summer time, twice
    clock.wait(5)
    session.viewed(400, 40, -10, 20, ("axial", "coronal"))
    crash(session)
    later = TestClock(wall=1.7e9, monotonic=3.0)  # another computer, with a clock of its own
    session = ReadingSession.join(package.folder, "R1", clock=later)
    session.shown()
    later.wait(2)
    session.answer(REAL)
    session.close()
    state = state_of(package)
    assert state.given[package.cases[0].token].seconds == pytest.approx(17)
    assert state.clock_jumps_s == [-7200.0]
    assert state.runs == 2


def test_late_answers_are_taken_and_marked(tmp_path):
    package = tiny_package(tmp_path / "R1", time_limit_s=30)
    clock = TestClock()
    session = ReadingSession.join(package.folder, "R1", clock=clock)
    assert session.remaining_s == 30
    session.shown()
    clock.wait(20)
    assert session.remaining_s == pytest.approx(10)
    session.answer(REAL)
    session.shown()
    clock.wait(31)
    assert session.remaining_s == 0
    session.answer(REAL)
    session.close()
    assert [given.late for given in state_of(package).given.values()] == [False, True]


def test_no_way_back_unless_the_study_allows_it(package):
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    assert not session.can_go_back
    with pytest.raises(StudyError, match="no way back"):
        session.back()
    session.close()


def test_going_back_is_logged_and_the_last_answer_counts(tmp_path):
    package = tiny_package(tmp_path / "R1", allow_back=True)
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    read(session)
    assert not session.can_go_back  # practice is over
    first, second, third = (case.token for case in package.cases[2:5])
    read(session)
    read(session)
    session.back()
    assert session.current.token == second
    assert session.current.answered == REAL
    assert session.following.token == third
    session.back()
    assert session.current.token == first
    read(session, Answer("synthetic", 5))
    assert session.current.token == third
    session.back()
    session.forward()
    assert session.current.token == third
    session.back()
    crash(session)  # goes on at the first case without an answer
    session = ReadingSession.join(package.folder, "R1")
    assert session.current.token == third
    assert session.progress == (2, 4)
    session.close()
    given = state_of(package).given[first]
    assert (given.answer.choice, given.changes) == ("synthetic", 1)
    assert events(package).count("back") == 4


def test_two_sessions_on_one_package(package):
    session = ReadingSession.join(package.folder, "R1")
    for take_over in (False, True):
        with pytest.raises(LockedError, match="open already") as refused:
            ReadingSession.join(package.folder, "R1", take_over=take_over)
        assert refused.value.may_take_over is False
        assert refused.value.holder["process"] == os.getpid()
    session.close()
    ReadingSession.join(package.folder, "R1").close()


def test_a_crash_on_this_computer_locks_nobody_out(package):
    crash(ReadingSession.join(package.folder, "R1"))
    assert (package.folder / LOCK_FILE).stat().st_size > 0
    ReadingSession.join(package.folder, "R1").close()


def test_after_a_crash_on_another_computer_a_person_decides(package, monkeypatch, tmp_path):
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    elsewhere = shutil.copytree(package.folder, tmp_path / "stick")
    session.close()
    monkeypatch.setattr(platform, "node", lambda: "reading-room-2")
    with pytest.raises(LockedError, match="another computer") as refused:
        ReadingSession.join(elsewhere, "R1")
    assert refused.value.may_take_over
    session = ReadingSession.join(elsewhere, "R1", take_over=True)
    assert session.current.token == package.cases[1].token
    session.close()


def test_a_session_that_was_taken_over_stores_nothing_more(package, monkeypatch):
    # A shared folder whose locks do not reach the other computer.
    monkeypatch.setattr(locking, "try_lock", lambda _file: None)
    first = ReadingSession.join(package.folder, "R1")
    read(first)
    with pytest.raises(LockedError):
        ReadingSession.join(package.folder, "R1")
    second = ReadingSession.join(package.folder, "R1", take_over=True)
    first_token = package.cases[1].token
    with pytest.raises(LockedError, match="opened elsewhere"):
        first.shown()
    first.close()
    assert second.current.token == first_token
    read(second)
    second.close()
    assert len(state_of(package).given) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 40, b"[1]", b"\xff\xfe"])
def test_a_torn_lock_file_locks_nobody_out(package, content):
    (package.folder / LOCK_FILE).write_bytes(content)
    ReadingSession.join(package.folder, "R1").close()


@pytest.mark.parametrize(
    "tail", [b'{"n": 3, "ev', b"\0" * 100, b'{"n": 3, "event": "x\n', b"{\n\0\0"]
)
def test_a_torn_last_line_is_dropped_and_said(package, tail):
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    crash(session)
    with (package.folder / JOURNAL_FILE).open("ab") as file:
        file.write(tail)
    session = ReadingSession.join(package.folder, "R1")
    assert session.current.token == package.cases[1].token
    read(session)
    session.close()
    records = read_journal(package.folder / JOURNAL_FILE, digest(package)).records
    assert [r["torn_bytes"] for r in records if r["event"] == "joined"] == [0, len(tail)]
    assert len(state_of(package).given) == 2


def test_an_answer_that_lacks_only_its_newline_counts(package):
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    crash(session)
    path = package.folder / JOURNAL_FILE
    path.write_bytes(path.read_bytes()[:-1])
    session = ReadingSession.join(package.folder, "R1")
    assert session.current.token == package.cases[1].token
    session.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"real"', b'"synthetic"'), (b'"confidence": 4', b'"confidence": 5'), (b"answered", b"answer3d"),
     (b'"event": "shown"', b'"event": "paused"'), (b'"n": 2', b'"n": 7')],
)  # fmt: skip
def test_a_changed_journal_is_refused_and_left_as_it_is(package, old, new):
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    session.close()
    path = package.folder / JOURNAL_FILE
    changed = path.read_bytes().replace(old, new, 1)
    path.write_bytes(changed)
    with pytest.raises(JournalError, match="not as the program wrote it"):
        ReadingSession.join(package.folder, "R1")
    assert path.read_bytes() == changed
    assert (package.folder / LOCK_FILE).read_bytes() == b""


def test_a_line_that_was_taken_out_or_garbled_is_seen(package):
    session = ReadingSession.join(package.folder, "R1")
    read(session)
    session.close()
    path = package.folder / JOURNAL_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (lines[:1] + lines[2:], [lines[0], b"garbage\n", *lines[1:]], lines[1:]):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(JournalError):
            ReadingSession.join(package.folder, "R1")


def test_the_journal_of_another_package_is_refused(package, tmp_path):
    other = tiny_package(tmp_path / "R2", reader="R2")
    ReadingSession.join(other.folder, "R2").close()
    shutil.copy(other.folder / JOURNAL_FILE, package.folder)
    with pytest.raises(JournalError, match="belongs to another package"):
        ReadingSession.join(package.folder, "R1")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_loses_nothing_and_the_same_answer_can_be_given_again(
    package, monkeypatch, number, call
):
    session = ReadingSession.join(package.folder, "R1")
    session.shown()
    before = (package.folder / JOURNAL_FILE).read_bytes()
    with monkeypatch.context() as full:
        really = getattr(os, call)

        def fail(file, *content):
            if content:
                really(file, content[0][:7])  # a part still fits
            raise OSError(number, os.strerror(number))

        full.setattr(journal_module.os, call, fail)
        with pytest.raises(JournalError, match="was not stored"):
            session.answer(REAL)
    assert (package.folder / JOURNAL_FILE).read_bytes() == before
    assert session.current.token == package.cases[0].token
    if (
        call == "fsync"
    ):  # nothing can be taken back safely either, so the session lets go of the file
        with pytest.raises(JournalError, match="Open the study again"):
            session.answer(REAL)
        session.close()
        session = ReadingSession.join(package.folder, "R1")
        session.shown()
    session.answer(REAL)
    session.close()
    assert list(state_of(package).given) == [package.cases[0].token]


def test_an_answer_is_flushed_to_the_disk_before_the_next_case_comes(package, monkeypatch):
    session = ReadingSession.join(package.folder, "R1")
    session.shown()
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    session.answer(REAL)
    assert sizes == [(package.folder / JOURNAL_FILE).stat().st_size]
    session.close()


def test_a_folder_that_cannot_be_written_is_told_before_the_first_case(package, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(locking.os, "open", refuse)
    with pytest.raises(StudyError, match="Copy the package to a folder of your own"):
        ReadingSession.join(package.folder, "R1")


def test_a_folder_that_vanishes_is_told_at_the_next_answer(package, tmp_path):
    session = ReadingSession.join(package.folder, "R1")
    session.shown()
    package.folder.rename(tmp_path / "moved")
    with pytest.raises(JournalError, match="not there any more"):
        session.answer(REAL)
    (tmp_path / "moved").rename(package.folder)
    session.answer(REAL)
    session.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(schema_version=2), "version 2"),
        (lambda c: c.update(schema="other"), "not the file of"),
        (lambda c: c["study"].update(schema_version="1"), "damaged"),
        (lambda c: c["study"].update(type="quiz"), "damaged"),
        (lambda c: c["study"].update(window_hu=[40, -160]), "damaged"),
        (lambda c: c["study"].update(choices=["real"]), "damaged"),
        (lambda c: c["study"].update(answer_key=[1]), "damaged"),
        (lambda c: c.pop("key_sha256"), "damaged"),
        (lambda c: c.update(reader="../R1"), "damaged"),
        (lambda c: c.update(cases=[]), "damaged"),
        (lambda c: c.update(cases="none"), "damaged"),
        (lambda c: c["cases"].append(c["cases"][0]), "damaged"),
        (lambda c: c["cases"][0].update(token="../../etc/passwd"), "damaged"),
        (lambda c: c["cases"][0].update(practice=False), "damaged"),
        (lambda c: c["cases"][0].update(start_ras=[0, 0]), "damaged"),
        (lambda c: c["cases"][0].update(token="abcdef"), "missing"),
        (lambda c: c.update(case_bytes=c["case_bytes"] + 1), "incomplete"),
    ],
)
def test_a_malformed_package_is_refused_with_a_sentence(package, change, said):
    path = package.folder / PACKAGE_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=said):
        ReadingSession.join(package.folder, "R1")
    assert not (package.folder / JOURNAL_FILE).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null"])
def test_a_package_file_that_is_none_is_refused(package, content):
    (package.folder / PACKAGE_FILE).write_bytes(content)
    with pytest.raises(StudyError):
        ReadingSession.join(package.folder, "R1")
    with pytest.raises(StudyError, match=r"package\.json is not there"):
        ReadingSession.join(package.folder / "cases", "R1")


JUNK = [None, True, -1, 0, 1e400, "", "x", [], [1], ["a", "b", "c"], {}, {"a": 1}, 10**30, -0.5]


def spoilt(content, rng):
    """A copy of a JSON value with one thing in it replaced or taken out."""
    content = json.loads(json.dumps(content))
    places = []

    def walk(value, parent=None, name=None):
        if parent is not None:
            places.append((parent, name))
        if isinstance(value, dict | list):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                walk(part, value, key)

    walk(content)
    parent, name = rng.choice(places)
    if rng.random() < 0.2:
        del parent[name]
    else:
        parent[name] = rng.choice(JUNK)
    return content


def test_no_spoilt_file_ends_in_anything_but_a_sentence(tmp_path):
    """Journals that were forged, hashes and all, and packages: refused, or read as they stand."""
    package = tiny_package(tmp_path / "R1", allow_back=True, ask_mark=True, time_limit_s=9)
    session = ReadingSession.join(package.folder, "R1")
    for _ in range(3):
        read(session, Answer("real", 2, (1.0, 2.0, 3.0)))
    session.viewed(400, 40, 0, 1)
    session.pause()
    session.close()
    records = read_journal(package.folder / JOURNAL_FILE, digest(package)).records
    content = json.loads((package.folder / PACKAGE_FILE).read_text())
    own = read_package(package.folder)
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        changed = [*records]
        at = rng.randrange(len(changed))
        changed[at] = spoilt(changed[at], rng)
        (package.folder / PACKAGE_FILE).write_text(json.dumps(spoilt(content, rng)))
        try:
            ReadingState.replay(own, changed)
        except StudyError:
            refused += 1
        try:
            state = ReadingState(read_package(package.folder))
            assert state.current == 0
            assert state.package.facts.time_limit_s is None or state.package.facts.time_limit_s > 0
        except StudyError:
            refused += 1
    assert refused > 400


def crash(session):
    """What the operating system does when a process dies: open files close, nothing else happens."""
    os.close(session._journal._file)
    os.close(session._lock._file)
