"""`difftumor study summarize`, `audit` and `power`: files, pages, exit codes."""

from __future__ import annotations

import csv
import json
import re

import pytest

pytest.importorskip("statsmodels", reason="needs the extra 'study'")

from difftumor.cli import main
from difftumor.commands import study_packages
from difftumor.provenance import write_json
from difftumor.reader_study.audit.auditing import audit_study
from difftumor.reader_study.audit.page import audit_content, audit_page
from difftumor.reader_study.statistics.published import published_rows
from difftumor.reader_study.statistics.report import report_files, write_report
from difftumor.reader_study.statistics.study_figures import study_figures
from difftumor.reader_study.statistics.tables import paper_table
from Testing.engine.reader_study.small_study import small_study
from Testing.engine.reader_study.test_study_figures import merged, row


@pytest.fixture(scope="module")
def answers():
    rows = [row(reader, n, "real" if (n * step) % 5 else "synthetic", comment="=1+1 <b>")
            for reader, step in (("A", 2), ("B", 3)) for n in range(24)]  # fmt: skip
    return merged(rows)


def test_summarize_writes_a_page_tables_and_plots_together(answers, tmp_path, capsys):
    write_json(answers.to_dict(), tmp_path / "answers.json")
    arguments = [
        "study",
        "summarize",
        str(tmp_path),
        "--out",
        str(tmp_path / "report"),
        "--draws",
        "100",
        "--quiet",
    ]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "A answered" in told
    report = tmp_path / "report"
    assert {path.name for path in report.iterdir()} == {
        "index.html", "figures.json", "figures.csv", "table1.csv", "answers.csv", "intervals.png", "roc.png",
        "confusion.png", "times.png",
    }  # fmt: skip
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "SYNTHETIC" in text
    assert "Research use only" in text
    assert not re.findall(r"(?:src|href)=['\"](?!data:)", text)  # nothing is loaded
    assert text.count("data:image/png") == 4
    content = json.loads((report / "figures.json").read_text())
    assert content["schema"] == "difftumor-study-report"
    assert content["figures"]["groups"][0]["reader"] == "all readers"
    with (report / "figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_name = {(r["reader"], r["group"], r["figure"]): r for r in rows}
    assert by_name["A", "all", "accuracy"]["cases"] == "24"
    assert ("A", "liver", "auc") in by_name
    assert main(arguments) == 1  # there is a report
    assert "exists already" in capsys.readouterr().err


def test_the_table_stands_beside_the_papers(answers):
    rows = paper_table(study_figures(answers, draws=50))
    paper = [cells for cells in rows if cells[1].endswith("(paper)")]
    assert len(paper) == len(published_rows())
    assert ["liver", "R2 (paper)", "99.2", "53.3", "76.3", "119/120, 64/120"] in rows
    assert any("not from 120 + 120 cases" in cells[-1] for cells in paper)
    assert {cells[1] for cells in rows if cells[0] == "liver"} == {
        "R1 (paper)",
        "R2 (paper)",
        "A",
        "B",
    }


@pytest.mark.parametrize("kind", ["detection", "organ_recognition"])
def test_other_studies_have_their_own_report(tmp_path, kind):
    words = {"detection": ("lesion", "none"), "organ_recognition": ("liver", "pancreas", "kidney")}[
        kind
    ]
    rows = [row("A", n, words[n % 2], truth=words[n % len(words)], found=None if kind != "detection" else n % 4 == 0,
                mark_ras=(0.0, 0.0, 0.0)) for n in range(9)]  # fmt: skip
    figures = study_figures(merged(rows, kind), draws=50)
    write_report(merged(rows, kind), figures, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(report_files(figures))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Table 1" not in text
    assert ("lesions marked" in text) == (kind == "detection")
    assert ("precision" in text) == (kind == "organ_recognition")


def test_a_study_without_answers_has_a_report(tmp_path):
    write_report(merged([]), study_figures(merged([]), draws=50), tmp_path)
    assert "0 answers of 0 readers" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_nothing_is_left_of_a_report_that_fails(answers, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("difftumor.reader_study.statistics.report.plot_all", lambda *_: None)
    monkeypatch.setattr("difftumor.reader_study.statistics.report.write_answers_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(answers, study_figures(answers, draws=50), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_audit_tells_by_exit_code_page_and_json(tmp_path, capsys):
    study = small_study(tmp_path, cases=3)
    assert main(["study", "audit", str(study.folder), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "Nothing but the lesion was found" in told
    assert "Note: With 3 cases of a kind" in told
    packages = study.folder / "readers"
    assert main(["study", "audit", str(study.folder), "--out", str(packages / "R1")]) == 2
    next((packages / "R1" / "cases").iterdir()).touch()
    assert main(["study", "audit", str(study.folder), "--overwrite", "--quiet"]) == 1
    told = capsys.readouterr().out
    assert "LEAK  file time" in told
    assert "Set one time for all files" in told
    content = json.loads((study.folder / "audit.json").read_text())
    assert content["clean"] is False
    assert content["findings"][0]["remedy"]
    text = (study.folder / "audit.html").read_text(encoding="utf-8")
    assert "Do not release this study" in text
    assert "never goes to a reader" in text


def test_a_clean_report_reads_so(tmp_path):
    report = audit_study(small_study(tmp_path, cases=3), permutations=100)
    assert "class='good'" in audit_page(report)
    json.dumps(audit_content(report), allow_nan=False)


def test_power_tells_numbers_of_cases(capsys):
    assert main(["study", "power", "--expected", "0.75", "--width", "0.2"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("70 cases")
    assert "75 % right is told from 50 %" in told
    assert main(["study", "power", "--width", "2"]) == 2


def test_missing_packages_are_named_before_anything_is_computed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(study_packages, "find_spec", lambda name: None)
    for command in (
        ["summarize", str(tmp_path), "--out", "x"],
        ["audit", str(tmp_path)],
        ["power"],
    ):
        assert main(["study", *command]) == 1
        assert "pip install 'difftumor[study]'" in capsys.readouterr().err
