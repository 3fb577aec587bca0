"""The program as a person uses it: commands, exit codes, side-cars, replay."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import difftumor
from difftumor.cli import main
from difftumor.images.outputs import staged

ENGINE = Path(difftumor.__file__).parents[1]


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    """A coarse phantom on disk: case.nii.gz with its organs and tumors."""
    path = tmp_path_factory.mktemp("phantom") / "case.nii.gz"
    assert main(["phantom", str(path), "--spacing", "2", "2", "3", "--seed", "3"]) == 0
    return path


@pytest.fixture
def organs(case) -> Path:
    return case.with_name("case-organs.nii.gz")


def liver_center(organs: Path) -> list[str]:
    image = nib.load(organs)
    inside = np.argwhere(np.asarray(image.dataobj) == 5)
    middle = inside[len(inside) // 2]
    return [f"{v:.2f}" for v in nib.affines.apply_affine(image.affine, middle)]


def synthesize(case, out, *more: str) -> int:
    return main(
        ["synthesize", str(case), "--out", str(out), "--quiet", "--model", "modelled", *more]
    )


def test_phantom_writes_image_organs_and_tumors(case, organs):
    ct, labels = nib.load(case), nib.load(organs)
    assert ct.get_data_dtype() == np.int16
    assert np.allclose(ct.affine, labels.affine)
    assert {2, 3, 5, 7} <= set(np.unique(np.asarray(labels.dataobj)).tolist())


def test_phantom_writes_a_head_in_four_sequences_on_one_grid(tmp_path):
    case = tmp_path / "case.nii.gz"
    command = ["phantom", str(case), "--kind", "head", "--tumors", "1", "--seed", "4"]
    assert main([*command, "--spacing", "4", "4", "5"]) == 0
    names = [f"case-{part}.nii.gz" for part in ("brain", "flair", "t1", "t1c", "t2", "tumors")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    images = {name: nib.load(tmp_path / name) for name in names}
    brain = np.asarray(images["case-brain.nii.gz"].dataobj)
    tumors = np.asarray(images["case-tumors.nii.gz"].dataobj)
    assert set(np.unique(brain)) == {0, 1}
    assert tumors.any()
    assert not tumors[brain == 0].any()
    for name, image in images.items():
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S"), name
        assert np.allclose(image.affine, images[names[0]].affine), name
        assert not np.asarray(image.dataobj)[brain == 0].any(), name
    assert images["case-flair.nii.gz"].get_data_dtype() == np.int16
    assert "PHANTOM" in str(images["case-t2.nii.gz"].header["descrip"])
    assert main(command) == 1, "outputs are not replaced without being told"


def test_an_ellipsoid_becomes_a_tumor_with_mask_and_side_car(case, organs, tmp_path):
    out, mask = tmp_path / "t.nii.gz", tmp_path / "m.nii.gz"
    center = liver_center(organs)
    code = synthesize(case, out, "--center", *center, "--radii", "9", "8", "10",
                      "--organ", f"{organs}:5", "--mask-out", str(mask))  # fmt: skip
    assert code == 0
    before, after = (np.asarray(nib.load(p).dataobj) for p in (case, out))
    tumor = np.asarray(nib.load(mask).dataobj)
    assert set(np.unique(tumor)) == {0, 1}
    assert after.dtype == before.dtype
    assert after[tumor == 1].mean() < before[tumor == 1].mean() - 10
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["synthetic"] is True
    assert content["parameters"]["organ"] == "liver"
    assert "SYNTHETIC" in content["notice"]
    assert "SYNTHETIC" in str(nib.load(out).header["descrip"])


def test_random_tumors_replay_to_the_last_voxel(case, organs, tmp_path):
    out = tmp_path / "r.nii.gz"
    assert synthesize(case, out, "--random", "small", "--count", "2", "--seed", "5",
                      "--organ", f"{organs}:5") == 0  # fmt: skip
    again = tmp_path / "again.nii.gz"
    assert main(["replay", str(tmp_path / "r.json"), "--out", str(again), "--quiet"]) == 0
    assert again.read_bytes() == out.read_bytes()
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "r.json").read_bytes()


def test_replay_refuses_another_scan(case, organs, tmp_path, capsys):
    out = tmp_path / "r.nii.gz"
    assert synthesize(case, out, "--random", "tiny", "--organ", f"{organs}:5") == 0
    code = main(["replay", str(tmp_path / "r.json"), "--out", str(tmp_path / "x.nii.gz"),
                 "--scan", str(organs)])  # fmt: skip
    assert code == 1
    assert "not the one" in capsys.readouterr().err
    assert not (tmp_path / "x.nii.gz").exists()


def test_a_side_car_of_slicer_asks_for_the_files_that_it_cannot_name(
    case, organs, tmp_path, capsys
):
    out, again = tmp_path / "r.nii.gz", tmp_path / "again.nii.gz"
    assert synthesize(case, out, "--random", "tiny", "--organ", f"{organs}:5") == 0
    content = json.loads((tmp_path / "r.json").read_text())
    # As DiffTumorSlicerLib writes it of nodes that were never saved.
    content["inputs"]["scan"].update(path="", name="CT 1")
    content["inputs"]["organ"].update(path="", name="Organs", segment="liver", label=None)
    (tmp_path / "s.json").write_text(json.dumps(content))
    replay = ["replay", str(tmp_path / "s.json"), "--out", str(again), "--quiet"]
    assert main(replay) == 1
    said = capsys.readouterr().err
    assert "CT 1" in said
    assert "--scan FILE" in said
    assert main([*replay, "--scan", str(case)]) == 1
    assert "--organ MASK:label" in capsys.readouterr().err
    assert not again.exists()
    assert main([*replay, "--scan", str(case), "--organ", f"{organs}:5"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_datalist_makes_many_cases_and_one_bad_case_does_not_stop_it(case, organs, tmp_path):
    center = [float(v) for v in liver_center(organs)]
    cases = [
        {"image": str(case), "center": center, "radii": [8, 8, 8], "out": "one.nii.gz"},
        {"image": str(tmp_path / "missing.nii.gz"), "center": center, "radii": [8, 8, 8]},
        {"image": str(case), "random": "tiny", "organ": f"{organs}:5", "out": "three.nii.gz",
         "mask_out": "three-mask.nii.gz"},
    ]  # fmt: skip
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"cases": cases}))
    folder = tmp_path / "out"
    code = main(["synthesize", "--datalist", str(datalist), "--out", str(folder),
                 "--model", "modelled", "--quiet"])  # fmt: skip
    assert code == 1
    assert (folder / "one.nii.gz").is_file()
    assert (folder / "three.nii.gz").is_file()


def test_an_existing_output_is_kept_unless_overwrite_is_said(case, organs, tmp_path, capsys):
    out = tmp_path / "t.nii.gz"
    out.write_text("precious")
    arguments = ("--random", "tiny", "--organ", f"{organs}:5")
    assert synthesize(case, out, *arguments) == 1
    assert out.read_text() == "precious"
    assert "--overwrite" in capsys.readouterr().err
    assert synthesize(case, out, *arguments, "--overwrite") == 0


def test_a_crash_while_writing_leaves_nothing(case, organs, tmp_path, monkeypatch):
    def broken(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("difftumor.commands.run.write_json", broken)
    before = set(tmp_path.iterdir())
    assert (
        synthesize(case, tmp_path / "t.nii.gz", "--random", "tiny", "--organ", f"{organs}:5") == 1
    )
    assert set(tmp_path.iterdir()) == before


def test_images_of_one_name_in_two_folders_do_not_share_a_result(case, organs, tmp_path):
    listed = []
    for patient in ("pa", "pb"):
        (tmp_path / patient).mkdir()
        shutil.copy(case, tmp_path / patient / "ct.nii.gz")
        listed.append({"image": f"{patient}/ct.nii.gz", "random": "tiny", "organ": f"{organs}:5"})
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"cases": listed}))
    out = tmp_path / "out"
    assert main(["synthesize", "--datalist", str(datalist), "--out", str(out), "--model", "modelled",
                 "--quiet"]) == 0  # fmt: skip
    assert (out / "pa-ct-synthetic.nii.gz").is_file()
    assert (out / "pb-ct-synthetic.nii.gz").is_file()


@pytest.mark.parametrize(
    "cases",
    [
        5,
        [{"image": 5}],
        [{"image": "ct.nii.gz", "organ": 7}],
        [{"image": "ct.nii.gz", "overwrite": "no"}],
        [{"image": "ct.nii.gz", "out": "../evil.nii.gz"}],
        [{"image": "ct.nii.gz", "unknown": 1}],
        [{"image": "a.nii.gz", "out": "x.nii.gz"}, {"image": "b.nii.gz", "out": "x.nii.gz"}],
        [],
    ],
)
def test_a_damaged_datalist_is_wrong_usage(cases, tmp_path, capsys):
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"cases": cases}))
    code = main(
        ["synthesize", "--datalist", str(datalist), "--out", str(tmp_path / "o"), "--quiet"]
    )
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").iterdir())


def test_one_missing_model_does_not_stop_the_other_cases(case, organs, tmp_path):
    more = {"image": str(case), "random": "tiny", "organ": f"{organs}:5"}
    cases = [{**more, "out": "a.nii.gz", "model": "nothere", "anatomy": "liver"},
             {**more, "out": "b.nii.gz"}]  # fmt: skip
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"cases": cases}))
    assert main(["synthesize", "--datalist", str(datalist), "--out", str(tmp_path / "o"), "--model",
                 "modelled", "--quiet"]) == 1  # fmt: skip
    assert (tmp_path / "o" / "b.nii.gz").is_file()


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["inputs"].pop("scan"),
        lambda c: c["inputs"].update(scan="text"),
        lambda c: c["inputs"]["scan"].pop("path"),
        lambda c: c["inputs"]["organ"].pop("sha256"),
        lambda c: c["result"].pop("output_sha256"),
        lambda c: c["result"].update(lesions=5),
        lambda c: c["result"]["lesions"][0].pop("displacements"),
        lambda c: c["parameters"].update(model=5),
        lambda c: c["parameters"].update(ellipsoid={"center_ras": 5}),
        lambda c: c["parameters"].update(clip_to_organ="false"),
        lambda c: c.update(schema_version=99),
    ],
)
def test_a_damaged_side_car_is_refused_in_a_sentence(case, organs, tmp_path, capsys, damage):
    out = tmp_path / "r.nii.gz"
    assert synthesize(case, out, "--random", "tiny", "--organ", f"{organs}:5") == 0
    content = json.loads((tmp_path / "r.json").read_text())
    damage(content)
    (tmp_path / "bad.json").write_text(json.dumps(content))
    code = main(
        ["replay", str(tmp_path / "bad.json"), "--out", str(tmp_path / "x.nii.gz"), "--quiet"]
    )
    assert code == 1
    said = capsys.readouterr().err
    assert said.startswith("difftumor: ")
    assert "Traceback" not in said
    assert not (tmp_path / "x.nii.gz").exists()


def test_a_folder_in_the_side_cars_place_leaves_no_image(case, organs, tmp_path):
    (tmp_path / "t.json").mkdir()
    out = tmp_path / "t.nii.gz"
    assert synthesize(case, out, "--random", "tiny", "--organ", f"{organs}:5", "--overwrite") == 1
    assert not out.exists()


def test_what_another_program_wrote_meanwhile_is_kept(tmp_path):
    outputs = [tmp_path / "a.nii.gz", tmp_path / "a.json"]
    with pytest.raises(FileExistsError), staged(outputs, overwrite=False) as paths:  # noqa: PT012
        for path in paths:
            path.write_text("ours")
        outputs[1].write_text("theirs")
    assert not outputs[0].exists()
    assert outputs[1].read_text() == "theirs"


def test_a_failed_overwrite_brings_the_old_results_back(tmp_path):
    outputs = [tmp_path / "a.nii.gz", tmp_path / "a.json"]
    for path in outputs:
        path.write_text("old")
    with pytest.raises(FileNotFoundError), staged(outputs, overwrite=True) as paths:
        paths[0].write_text("new")  # the second was never written
    assert [path.read_text() for path in outputs] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == sorted(outputs)


def test_side_cars_can_be_read_by_whoever_can_read_the_image(case, organs, tmp_path):
    out = tmp_path / "r.nii.gz"
    assert synthesize(case, out, "--random", "tiny", "--organ", f"{organs}:5") == 0
    assert (tmp_path / "r.json").stat().st_mode == out.stat().st_mode


# What a line on stderr holds when the program is in the middle of something.
MOMENTS = {"importing": " tyro.conf", "working": "making the phantom"}


@pytest.mark.parametrize(
    ("signal_number", "moment"),
    [
        (signal.SIGINT, "importing"),
        (signal.SIGTERM, "importing"),
        (signal.SIGTERM, "working"),
    ],
)
def test_an_interrupt_ends_with_exit_code_1_and_leaves_nothing(tmp_path, signal_number, moment):
    arguments = ["demo", "--out", str(tmp_path / "demo")]
    program = [sys.executable, "-X", "importtime", "-m", "difftumor", *arguments]
    process = subprocess.Popen(program, cwd=ENGINE, stderr=subprocess.PIPE, text=True)
    seen = ""
    while MOMENTS[moment] not in seen:
        seen = process.stderr.readline()
        assert seen, process.wait()
    process.send_signal(signal_number)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "cancelled" in said
    assert not list(tmp_path.rglob(".difftumor-*"))


@pytest.mark.parametrize("during", ["interrupted", "computing"])
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_string_is_executed_ends_with_exit_code_1(
    tmp_path, signal_number, during
):
    """Importing dataclasses executes strings; after a KeyboardInterrupt in one `python -m` ends by SIGINT.

    While a computation is asked to stop, it is the second interrupt that ends the program.
    """
    program = f"""
import os, sys, types, difftumor
from difftumor.commands.stopping import Stopping
from difftumor.commands.console import Reporter
cli = difftumor.cli = sys.modules["difftumor.cli"] = types.ModuleType("cli")
def interrupted():
    exec("import time; os.kill(os.getpid(), {int(signal_number)}); time.sleep(10)", globals())
def computing():
    with Stopping(Reporter(quiet=True)):
        os.kill(os.getpid(), {int(signal_number)})
        interrupted()
cli.main = {during}
from difftumor.__main__ import main
sys.exit(main())
"""
    (tmp_path / "interrupted.py").write_text(program)
    paths = os.pathsep.join([str(ENGINE), str(tmp_path)])
    ended = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, text=True, timeout=60,
                           stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths})  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == "difftumor: cancelled\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["synthesize"], 2),
        (["synthesize", "--out", "x.nii.gz"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--random", "tiny", "--center", "0", "0", "0"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--random", "huge"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--center", "0", "0", "0", "--radii", "8", "8", "8",
          "--seed", "-1"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--center", "0", "0", "0", "--radii", "0", "8", "8"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--center", "0", "0", "0", "--radii", "8", "8", "8",
          "--count", "3"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--random", "tiny"], 2),
        (["phantom", "x.nii.gz", "--tumors", "-1"], 2),
        (["synthesize", "a.nii.gz", "--out", "x.nii.gz", "--model", "modelled", "--device", "banana",
          "--center", "0", "0", "0", "--radii", "8", "8", "8"], 1),
        (["nonsense"], 2),
        (["models", "list", "--json"], 0),
        (["models", "path"], 0),
        (["doctor", "--json"], 0),
        (["--help"], 0),
    ],
)  # fmt: skip
def test_exit_codes(arguments, code, capsys):
    assert main(arguments) == code
    capsys.readouterr()


def test_doctor_and_list_print_json(capsys):
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["devices"][-1]["device"] == "cpu"
    assert report["devices"][-1]["ok"]
    main(["models", "list", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {"id", "task", "organ", "modality", "installed", "bytes", "licence"} <= set(rows[0])
    assert sum(row["id"].startswith("difftumor-") for row in rows) == 16
