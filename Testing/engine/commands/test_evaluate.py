"""`difftumor evaluate`: files that belong together, groups, tables in the paper's layout, reports."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.cli import main
from difftumor.measuring.evaluation import case_name, published_figures

SHAPE = (30, 30, 30)


def box(*spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(*span) for span in spans)] = 1
    return mask


TUMOR = box((5, 13), (5, 13), (5, 13))
HALF = box((5, 9), (5, 13), (5, 13))
NOTHING = np.zeros(SHAPE, np.uint8)
ALARM = box((20, 22), (20, 22), (20, 22))


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 1, 1])), path)


@pytest.fixture
def folders(tmp_path) -> list[str]:
    """Four cases: found, half found, false alarm, clean."""
    pairs = {"a": (TUMOR, TUMOR), "b": (HALF, TUMOR), "c": (ALARM, NOTHING), "d": (NOTHING,) * 2}
    for name, (prediction, reference) in pairs.items():
        labels = 1 + prediction  # 1 organ, 2 tumor
        write(tmp_path / "predictions" / f"{name}-segmentation.nii.gz", labels)
        write(tmp_path / "predictions" / f"{name}-probability.nii.gz", prediction)
        write(tmp_path / "references" / f"{name}-tumors.nii.gz", reference)
    return [str(tmp_path / "predictions"), str(tmp_path / "references")]


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "cases.csv"
    path.write_text("case,fold,age,sex\na,0,67,F\nb,0,61,M\nc,1,45,F\nd,1,,M\n", encoding="utf-8")
    return path


def report_of(tmp_path: Path, *words: str) -> dict:
    path = tmp_path / "report.json"
    assert main(["evaluate", *words, "--report", str(path), "--quiet", "--overwrite"]) == 0
    return json.loads(path.read_text())


def test_figures_of_four_cases(folders, tmp_path, capsys):
    content = report_of(tmp_path, *folders)
    figures = content["groups"]["all"]["all"]
    assert figures["DSC"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["DSC"]["cases"] == 2
    assert figures["tumor-wise sensitivity"]["value"] == 1
    assert figures["false positives per scan"]["value"] == 0.25
    assert figures["patient-level sensitivity"]["value"] == 1
    assert figures["patient-level specificity"]["value"] == 0.5
    assert [case["case"] for case in content["cases"]] == ["a", "b", "c", "d"]
    assert content["cases"][3]["dice"] is None
    assert any("any voxel" in rule for rule in content["rules"])
    assert content["paper_tables"] == {}
    shown = capsys.readouterr().out
    assert "83.3 %" in shown
    assert "false positives per scan" in shown


def test_the_rule_of_overlap_can_be_stricter(folders, tmp_path):
    content = report_of(tmp_path, *folders, "--covered", "0.5")
    assert content["groups"]["all"]["all"]["tumor-wise sensitivity"]["value"] == 0.5
    assert content["options"]["covered"] == 0.5


def test_groups_of_a_metadata_table(folders, table, tmp_path):
    groups = report_of(tmp_path, *folders, "--metadata", str(table))["groups"]
    assert set(groups) == {"all", "fold", "age", "sex"}
    assert set(groups["age"]) == {"60-69", "40-49", "not known"}
    assert groups["fold"]["0"]["DSC"]["cases"] == 2
    assert groups["fold"]["1"]["DSC"]["value"] is None
    assert groups["sex"]["M"]["DSC"]["value"] == pytest.approx(2 / 3)
    only = report_of(tmp_path, *folders, "--metadata", str(table), "--by", "sex")["groups"]
    assert set(only) == {"all", "sex"}


def test_tables_in_the_layout_of_the_paper(folders, table, tmp_path, capsys):
    content = report_of(tmp_path, *folders, "--organ", "liver", "--metadata", str(table))
    early, overlap, dsc_folds, _ = content["paper_tables"].values()
    assert early[0] == ["segmenter", "trained with", "liver"]
    assert ["U-Net", "DiffTumor", "82.2"] in early
    assert ["U-Net", "real", "75.6"] in early
    assert early[-1][0] == "this evaluation"
    assert early[-1][2].startswith("100.0 (")
    assert ["Swin UNETR", "DiffTumor", "71.4 ± 19.1"] in overlap
    assert overlap[-1][2] == "83.3 ± 23.6"
    assert dsc_folds[-1] == ["this evaluation", "", "83.3", "-", "-", "-", "-", "83.3"]
    assert "71.2" not in str(dsc_folds)  # that is NSD
    assert "not a comparison" in capsys.readouterr().out
    assert published_figures()["source"].startswith("Chen Q")


def test_organs_of_the_metadata_make_the_columns(folders, tmp_path):
    table = tmp_path / "organs.csv"
    table.write_text("case,organ\na,liver\nb,kidney\nc,liver\nd,kidney\n", encoding="utf-8")
    tables = report_of(tmp_path, *folders, "--metadata", str(table))["paper_tables"]
    early = next(iter(tables.values()))
    assert early[0][2:] == ["liver", "kidney"]
    assert ["U-Net", "DiffTumor", "82.2", "78.6"] in early  # each organ by its own segmenter


def test_a_csv_has_one_row_per_case(folders, table, tmp_path):
    path = tmp_path / "cases-report.csv"
    command = ["evaluate", *folders, "--report", str(path), "--quiet"]
    assert main([*command, "--metadata", str(table)]) == 0
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert [row["case"] for row in rows] == ["a", "b", "c", "d"]
    assert (rows[0]["dsc"], rows[1]["tumors_found"], rows[2]["false_positives"]) == (
        "1.0",
        "1",
        "1",
    )
    assert (rows[0]["age"], rows[3]["dsc"]) == ("60-69", "")
    assert main(command) == 1  # it exists


def test_two_files(folders, tmp_path):
    files = [f"{folders[0]}/b-segmentation.nii.gz", f"{folders[1]}/b-tumors.nii.gz"]
    content = report_of(tmp_path, *files)
    assert [case["case"] for case in content["cases"]] == ["b"]


def test_several_labels_are_taken_together(tmp_path):
    write(tmp_path / "p" / "x.nii.gz", TUMOR + HALF)  # 1 and 2
    write(tmp_path / "r" / "x.nii.gz", TUMOR * 3)
    words = [str(tmp_path / "p"), str(tmp_path / "r"), "--reference-label", "3"]
    one = report_of(tmp_path, *words)
    both = report_of(tmp_path, *words, "--label", "1", "2")
    assert one["cases"][0]["dice"] == pytest.approx(2 / 3)
    assert both["cases"][0]["dice"] == 1


def test_a_prediction_on_another_grid_is_carried_over(tmp_path):
    write(tmp_path / "r" / "x.nii.gz", TUMOR)
    (tmp_path / "p").mkdir()
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = 29
    nib.save(nib.Nifti1Image(2 * TUMOR[::-1], affine), tmp_path / "p" / "x.nii.gz")
    content = report_of(tmp_path, str(tmp_path / "p"), str(tmp_path / "r"))
    assert content["cases"][0]["dice"] == 1


def test_what_does_not_go_together_is_refused(folders, table, tmp_path, capsys):
    def refused(*words: str) -> str:
        assert main(["evaluate", *words, "--quiet"]) == 2
        return capsys.readouterr().err

    predictions, references = folders
    Path(predictions, "a-segmentation.nii.gz").unlink()
    assert "no prediction for 1 of 4" in refused(*folders)
    assert main(["evaluate", *folders, "--partial", "--quiet"]) == 0
    write(Path(predictions) / "z-segmentation.nii.gz", TUMOR)
    assert "no reference for 1 of 4" in refused(*folders)
    Path(predictions, "z-segmentation.nii.gz").unlink()
    table.write_text("case,sex\nb,F\n", encoding="utf-8")
    assert "no row for 2 of 3" in refused(*folders, "--partial", "--metadata", str(table))
    table.write_text("name,sex\nb,F\n", encoding="utf-8")
    assert 'column "case"' in refused(*folders, "--partial", "--metadata", str(table))
    assert "no column 'sex'" in refused(*folders, "--partial", "--by", "sex")
    assert "--covered" in refused(*folders, "--covered", "1")
    assert "JSON or CSV" in refused(*folders, "--report", str(tmp_path / "x.txt"))
    assert "a file and a folder" in refused(f"{references}/a-tumors.nii.gz", references)
    write(Path(references) / "b-seg.nii.gz", TUMOR)
    assert "are both the case 'b'" in refused(*folders)
    assert main(["evaluate", str(tmp_path / "nowhere"), references, "--quiet"]) == 1


def test_a_tumor_under_another_label_is_pointed_out(tmp_path, capsys):
    write(tmp_path / "p.nii.gz", TUMOR)
    write(tmp_path / "r.nii.gz", TUMOR)
    assert main(["evaluate", str(tmp_path / "p.nii.gz"), str(tmp_path / "r.nii.gz")]) == 0
    assert "give --label 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("anna-segmentation.nii.gz", "anna"),
        ("anna_1-tumors.nrrd", "anna_1"),
        ("liver_12_label.nii", "liver_12"),
        ("labels.nii.gz", "labels"),
        ("a.b-seg.mha", "a.b"),
    ],
)
def test_names_of_cases(name, case):
    assert case_name(Path(name)) == case
