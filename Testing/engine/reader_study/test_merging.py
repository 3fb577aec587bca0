"""What readers did comes back: verified, counted once, beside the truth."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from difftumor.cli import main, parsed
from difftumor.commands.phantom import phantom_paths, write_phantom
from difftumor.phantom import make_abdomen
from difftumor.reader_study.answers import answer_columns, read_answers
from difftumor.reader_study.choosing import Plan
from difftumor.reader_study.journal import JournalError
from difftumor.reader_study.key import READERS, read_key, read_study
from difftumor.reader_study.merging import merge, package_folders
from difftumor.reader_study.neutral import distance_to_lesion
from difftumor.reader_study.packages import create_study
from difftumor.reader_study.session import Answer, ReadingSession
from difftumor.reader_study.sources import measure, sources_in
from difftumor.reader_study.study import JOURNAL_FILE, PACKAGE_FILE, StudyError, StudyFacts
from Testing.engine.reader_study.clocks import TestClock
from Testing.engine.reader_study.scans import folders_of_scans

ROOT = Path(__file__).resolve().parents[3]
FACTS = StudyFacts("0123456789ab", "Tumors", "visual_turing_test", "2026-11-20")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return folders_of_scans(tmp_path_factory.mktemp("scans"), each=2)


@pytest.fixture(scope="module")
def issued(scans, tmp_path_factory):
    """A study nobody has read yet."""
    candidates = [
        measure(s, pytest.fail) for k in ("real", "synthetic") for s in sources_in(scans[k], k)
    ]
    folder = tmp_path_factory.mktemp("made") / "study"
    plan = Plan(("R1", "R2"), practice=2, repeats=2, balanced=False)
    return create_study(folder, FACTS, candidates, plan)[0].folder


@pytest.fixture
def study(issued, tmp_path):
    return read_study(shutil.copytree(issued, tmp_path / "study"))


def read_some(folder, reader, count=99, choice="real", mark=None):
    clock = TestClock()
    session = ReadingSession.join(folder, reader, clock=clock)
    for number in range(count):
        if session.finished:
            break
        session.shown()
        clock.wait(2 + number)
        asked = session.facts.ask_mark
        session.answer(Answer(choice, 1 + number % 5, mark if asked else None, "=1+1"))
    session.close()


def test_answers_come_back_beside_the_truth(study):
    folders = package_folders(study)
    read_some(folders[0], "R1")
    read_some(folders[1], "R2", 5, "synthetic")
    answers, notes = merge(study, folders)
    assert notes == ("R2 has not answered 9 of 14 cases yet",)
    key = read_key(study)
    assert [len([r for r in answers.rows if r.reader == code]) for code in ("R1", "R2")] == [14, 5]
    for code in ("R1", "R2"):
        rows = [row for row in answers.rows if row.reader == code]
        assert [row.token for row in rows] == [s.token for s in key.readers[code]][: len(rows)]
        assert [row.position for row in rows] == [1, 2, *range(1, len(rows) - 1)]
        assert [row.practice for row in rows] == [True] * 2 + [False] * (len(rows) - 2)
        assert [row.seconds for row in rows] == [2 + n for n in range(len(rows))]
        for row in rows:
            case = key.cases[row.case_id]
            assert (row.truth, row.kind, row.organ) == (case.kind, case.kind, case.organ)
            assert row.organ in case.source["path"]
            assert row.correct == (row.choice == row.kind)
    repeats = [row for row in answers.rows if row.repeat_of is not None and row.reader == "R1"]
    by_token = {row.token: row for row in answers.rows}
    assert len(repeats) == 2
    for row in repeats:
        assert by_token[row.repeat_of].case_id == row.case_id
        assert by_token[row.repeat_of].position < row.position


def test_the_command_merges_into_files_that_can_be_read_again(study, capsys):
    assert main(["study", "merge", str(study.folder)]) == 1
    assert "no answer yet" in capsys.readouterr().err
    read_some(package_folders(study)[0], "R1", 6)
    assert main(["study", "status", str(study.folder)]) == 0
    said = capsys.readouterr().out
    assert "R1         4 of 12 cases, 2 for practice" in said
    assert "R2         not begun" in said
    assert main(["study", "merge", str(study.folder)]) == 0
    assert "R2 has not answered 14 of 14" in capsys.readouterr().err
    answers = read_answers(study.folder)
    with (study.folder / "answers.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == answer_columns()
    assert len(table) == len(answers.rows) == 6
    assert {row["comment"] for row in table} == {"'=1+1"}  # no formula for a spreadsheet
    assert {row.comment for row in answers.rows} == {"=1+1"}
    assert [row["correct"] for row in table] == [str(r.correct).lower() for r in answers.rows]
    assert main(["study", "merge", str(study.folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    read_some(package_folders(study)[0], "R1")
    assert main(["study", "merge", str(study.folder), "--overwrite"]) == 0
    assert len(read_answers(study.folder).rows) == 14


def test_a_package_may_come_back_without_its_images(study, tmp_path):
    folder = package_folders(study)[0]
    read_some(folder, "R1", 3)
    back = tmp_path / "mail"
    back.mkdir()
    for name in (PACKAGE_FILE, JOURNAL_FILE):
        shutil.copy(folder / name, back)
    answers, notes = merge(study, [back])
    assert len(answers.rows) == 3
    assert "no package was given of R2" in notes


def test_packages_of_one_reader_twice_or_of_another_study_are_refused(study, scans, tmp_path):
    first = package_folders(study)[0]
    read_some(first, "R1", 3)
    copy = shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(StudyError, match="both of reader R1"):
        merge(study, [first, copy])
    candidates = [
        measure(s, pytest.fail) for k in ("real", "synthetic") for s in sources_in(scans[k], k)
    ]
    facts = replace(FACTS, study_id="ba9876543210", title="Other")
    other, _ = create_study(tmp_path / "other", facts, candidates, Plan(("R1",), practice=0))
    with pytest.raises(StudyError, match="belongs to another study"):
        merge(study, package_folders(other))
    # A study of the same name, made again.
    again, _ = create_study(tmp_path / "again", FACTS, candidates, Plan(("R1",), practice=0))
    with pytest.raises(StudyError, match="not as it was given"):
        merge(study, package_folders(again))


def test_a_changed_package_or_journal_is_refused_and_told(study, capsys):
    folder = package_folders(study)[0]
    read_some(folder, "R1", 5)
    journal = folder / JOURNAL_FILE
    before = journal.read_bytes()
    journal.write_bytes(before.replace(b'"choice": "real"', b'"choice": "synthetic"', 1))
    with pytest.raises(JournalError, match="changed after it was written"):
        merge(study, [folder])
    assert main(["study", "status", str(study.folder)]) == 1
    assert "cannot be used" in capsys.readouterr().err
    journal.write_bytes(before)
    assert main(["study", "status", str(study.folder), "--verify"]) == 0
    image = next((folder / "cases").iterdir())
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    assert main(["study", "status", str(study.folder), "--verify"]) == 1
    assert "is damaged" in capsys.readouterr().err
    text = (folder / PACKAGE_FILE).read_text()
    (folder / PACKAGE_FILE).write_text(text.replace('"practice": true', '"practice": false'))
    with pytest.raises(StudyError, match="not as it was given"):
        merge(study, [folder])


def test_a_journal_that_was_cut_since_the_last_merge_is_refused(study):
    folder = package_folders(study)[0]
    read_some(folder, "R1", 5)
    assert main(["study", "merge", str(study.folder)]) == 0
    lines = (folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL_FILE).write_bytes(b"".join(lines[:-4]))
    with pytest.raises(JournalError, match="not a continuation"):
        merge(study, [folder])
    read_some(folder, "R1", 5, "synthetic")
    with pytest.raises(JournalError, match="not a continuation"):
        merge(study, [folder])


def test_a_moved_clock_is_told(study):
    clock = TestClock()
    session = ReadingSession.join(package_folders(study)[0], "R1", clock=clock)
    session.shown()
    clock.set(86400)
    clock.wait(3)
    session.answer(Answer("real", 3))
    session.close()
    answers, notes = merge(study, package_folders(study))
    assert answers.rows[0].seconds == 3
    assert any("clock of R1's computer was moved (+86400" in note for note in notes)


def test_marks_of_a_detection_are_measured_from_the_lesion(scans, tmp_path):
    candidates = [
        measure(s, pytest.fail) for k in ("real", "healthy") for s in sources_in(scans[k], k)
    ]
    facts = StudyFacts(
        "0123456789ab", "Find", "detection", "2026-11-20", ask_mark=True, mark_tolerance_mm=3
    )
    study, _ = create_study(tmp_path / "study", facts, candidates, Plan(("R1", "R2"), practice=0))
    center, corner = (0.0, 0.0, 0.0), (23.0, 19.0, 15.0)
    read_some(package_folders(study)[0], "R1", choice="lesion", mark=center)
    read_some(package_folders(study)[1], "R2", choice="lesion", mark=corner)
    answers, _ = merge(study, package_folders(study))
    key = read_key(study)
    for row in answers.rows:
        if row.truth == "none":
            assert (row.found, row.mark_mm_from_lesion) == (None, None)
            continue
        expected = distance_to_lesion(key.cases[row.case_id].lesions, row.mark_ras)
        assert row.mark_mm_from_lesion == pytest.approx(expected, abs=0.01)
        assert row.found == (row.reader == "R1")
    assert {row.found for row in answers.rows} == {None, True, False}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("study.json", lambda c: c.update(schema_version=9), "version 9"),
        ("study.json", lambda c: c.update(schema="difftumor-reader-package"), "not the file of"),
        ("study.json", lambda c: c.pop("packages"), "damaged"),
        ("key.json", lambda c: c.update(schema_version=9), "version 9"),
        ("key.json", lambda c: c["cases"].pop(), "not the key that was sealed"),
        ("answers.json", lambda c: c.update(schema_version=9), "version 9"),
        ("answers.json", lambda c: c["answers"][0].update(score=1), "damaged"),
    ],
)
def test_malformed_files_of_a_study_are_told(study, name, change, said, capsys):
    read_some(package_folders(study)[0], "R1", 2)
    assert main(["study", "merge", str(study.folder)]) == 0
    capsys.readouterr()
    path = study.folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert main(["study", "merge", str(study.folder), "--overwrite"]) == 1
    assert said in capsys.readouterr().err


def example_of_the_documentation() -> list[list[str]]:
    """The `difftumor study` commands of the documented example, as words."""
    page = ROOT / "docs" / "command-line.md"
    text = page.read_text(encoding="utf-8").split("## Reader studies")[1]
    block = text.split("```")[1].replace("\\\n", " ")
    return [
        shlex.split(line, comments=True)[1:]
        for line in block.splitlines()
        if line.startswith("difftumor study")
    ]


def test_the_example_of_the_documentation_on_phantoms(tmp_path, monkeypatch, capsys):
    """Its commands as they stand, on coarser phantoms, with the generator that needs no weights."""
    monkeypatch.chdir(tmp_path)
    for kind in ("real", "healthy"):
        Path(kind).mkdir()
        for number, organ in enumerate(("liver", "kidney")):
            phantom = make_abdomen(
                20000 + number + 50 * (kind == "real"),
                tumors=int(kind == "real"),
                tumor_organs=(organ,),
                tumor_radius_mm=(5.0, 9.0),
                spacing_mm=(4.0, 4.0, 4.0),
                orientation="LPS",
            )
            write_phantom(phantom, phantom_paths(Path(kind) / f"p{number}.nii.gz"), overwrite=False)
    create, *others = example_of_the_documentation()
    create += ["--models", "modelled", "--practice", "0", "--organs", "liver", "kidney"]
    assert main(create) == 0, capsys.readouterr().err
    cases = read_key(read_study(Path("study"))).cases.values()
    assert sorted((case.kind, case.organ) for case in cases) == sorted(
        (kind, organ) for kind in ("real", "synthetic") for organ in ("liver", "kidney")
    )
    assert {case.sidecar["model"]["id"] for case in cases if case.sidecar} == {"modelled"}
    for reader in ("R1", "R2"):
        read_some(Path("study") / READERS / reader, reader)
    for words in others:
        if words[1] in ("status", "merge"):
            assert main(words) == 0, capsys.readouterr().err
        else:  # these have tests of their own
            parsed(words)
    assert [words[1] for words in others] == ["audit", "status", "merge", "summarize"]
    said = capsys.readouterr().out
    assert "R2         5 of 5 cases" in said
    assert "10 answers of 2 readers" in said
    # Made once: another study takes the tumors that are there.
    made = {path: path.stat().st_mtime_ns for path in Path("made").iterdir()}
    create[create.index("--out") + 1] = "second"
    assert main(create) == 0
    assert made == {path: path.stat().st_mtime_ns for path in Path("made").iterdir()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--readers", "R1"], "give scans"),
        (["--readers", "Anna B."], "no reader code"),
        (["--readers", "R1", "--practice", "-1"], "practice must be"),
        (["--readers", "R1", "--window", "5", "5"], "window_hu"),
        (["--readers", "R1", "--synthesize-in", "x"], "--synthesized"),
        (["--readers", "R1", "--synthesized", "x"], "--synthesize-in"),
    ],
)
def test_wrong_usage(tmp_path, words, said, capsys):
    assert main(["study", "create", "--out", str(tmp_path / "study"), *words]) in (1, 2)
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
