"""What the four computing commands do alike with many cases: go on, resume, refuse, tell, and read the same masks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from difftumor.commands import loop, run
from difftumor.locks import try_lock
from difftumor.provenance import image_hash, read_sidecar
from Testing.engine.commands.four_tasks import COMMANDS, LIVER, NAMES, Command, Place, make_place

four = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("four"))


@pytest.fixture
def own(place, tmp_path) -> Place:
    """A copy whose files a test may change."""
    for part in ("scans", "painted"):
        shutil.copytree(place.folder / part, tmp_path / "mine" / part)
    for model in ("slices", "segmenter"):
        (tmp_path / "mine" / model).symlink_to(place.folder / model)
    return Place(tmp_path / "mine")


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the images of the cases that are computed."""
    names: list[str] = []
    once = run._compute

    def counted(record, case, *rest):
        names.append(record.name)
        return once(record, case, *rest)

    monkeypatch.setattr(run, "_compute", counted)
    return names


def table(out: Path, command: Command) -> list[dict[str, str]]:
    with (out / command.table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def statuses(out: Path, command: Command) -> dict[str, str]:
    return {row["case"]: row["status"] for row in table(out, command)}


def result(out: Path, name: str, command: Command) -> Path:
    return out / f"{name}-{command.ending}.nii.gz"


@four
def test_a_folder_is_computed_once_and_taken_up_again(own, command, tmp_path, capsys, computed):
    out = tmp_path / "out"
    assert own.run(own.many(command, out)) == 0
    assert "3 of 3 cases are done" in capsys.readouterr().out
    assert statuses(out, command) == dict.fromkeys(NAMES, "done")
    assert len(computed) == 3
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix != ".csv"}
    rows = table(out, command)
    # The same command has nothing to do, and says so by its exit code.
    assert own.run(own.many(command, out)) == 0
    assert len(computed) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = table(out, command)
    assert statuses(out, command) == dict.fromkeys(NAMES, "kept")
    assert [row | {"status": ""} for row in again] == [row | {"status": ""} for row in rows]
    # A case that is missing is computed, and one of which a file is missing.
    result(out, "anna", command).with_name(f"anna-{command.ending}.json").unlink()
    result(out, "anna", command).unlink()
    for path in out.glob("anna-*-mask.nii.gz"):
        path.unlink()
    result(out, "ben", command).unlink()
    assert own.run(own.many(command, out)) == 0
    assert statuses(out, command) == {"anna": "done", "ben": "done", "carl": "kept"}
    # Other parameters are refused, and told; --overwrite replaces what differs.
    assert own.run(own.many(command, out, *command.other)) == 1
    said = capsys.readouterr().err
    assert command.other[0].strip("-").replace("-", "_") in said
    assert "--overwrite" in said
    assert set(statuses(out, command).values()) == {"failed"}
    assert own.run(own.many(command, out, *command.other, "--overwrite")) == 0
    assert set(statuses(out, command).values()) == {"done"}
    count = len(computed)
    assert own.run(own.many(command, out, *command.other, "--overwrite")) == 0
    assert len(computed) == count, "what is the same already is not computed again"
    # So is another image.
    image = nib.load(own.image("ben"))
    nib.save(
        nib.Nifti1Image(np.asarray(image.dataobj) + np.int16(1), image.affine), own.image("ben")
    )
    assert own.run(own.many(command, out, *command.other)) == 1
    assert f"the image {command.image} is another one" in capsys.readouterr().err
    assert statuses(out, command)["anna"] == "kept"


@four
def test_a_failed_case_is_told_and_the_rest_goes_on(own, command, tmp_path, capsys):
    own.image("ben").write_bytes(b"no image")
    out = tmp_path / "out"
    assert own.run(own.many(command, out)) == 1
    said = capsys.readouterr()
    assert "2 of 3 cases are done" in said.out
    assert "case 2 of 3 (ben) failed" in said.err
    assert "failed cases (1):\n  ben  " in said.err
    rows = table(out, command)
    assert statuses(out, command) == {"anna": "done", "ben": "failed", "carl": "done"}
    assert all(bool(row["error"]) == (row["case"] == "ben") for row in rows)
    assert "Traceback" not in said.err


@four
def test_a_bug_in_one_case_stops_no_other(place, command, tmp_path, capsys, monkeypatch):
    once, calls = run._compute, []

    def broken(record, *rest):
        calls.append(record.name)
        if len(calls) == 2:
            raise KeyError("a bug")
        return once(record, *rest)

    monkeypatch.setattr(run, "_compute", broken)
    assert place.run(place.many(command, tmp_path / "out")) == 1
    assert statuses(tmp_path / "out", command)["ben"] == "failed"
    assert statuses(tmp_path / "out", command)["carl"] == "done"


@four
def test_a_full_disk_stops(place, command, tmp_path, capsys, monkeypatch):
    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_json", full)
    assert place.run(place.many(command, tmp_path / "out")) == 1
    assert "disk is full" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))


@four
@pytest.mark.parametrize(
    ("words", "said"),
    [(("--model", "not-there"), "not-there"), (("--device", "banana"), "banana")],
    ids=["model", "device"],
)
def test_a_missing_model_or_device_is_said_once(place, command, words, said, tmp_path, capsys):
    out = tmp_path / "out"
    assert place.run(place.many(command, out, *words)) == 1
    told = capsys.readouterr().err
    assert told.count(said) == 1, told
    assert not list(out.glob("*")) if out.exists() else True


@four
def test_a_damaged_model_is_said_once(own, command, tmp_path, capsys):
    if command.model == "modelled":
        pytest.skip("needs no weights")
    shutil.copytree(own.folder / command.model, own.folder / "bad")
    weights = own.folder / "bad" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert own.run(own.many(command, tmp_path / "out", model="bad")) == 1
    assert capsys.readouterr().err.count("bad") <= 2
    assert not list((tmp_path / "out").glob("*.nii.gz"))


@four
def test_a_list_knows_every_option_of_the_command(place, command, tmp_path, capsys):
    option, value = command.other
    name = option.strip("-").replace("-", "_")
    changes = {
        "anna": {"name": "first"},
        "ben": {name: float(value) if "diameter" in name else int(value)},
        "carl": {"out": "third.nii.gz"},
    }
    if command.name != "learn":  # a model of one image, as a list and by its channel
        changes["anna"] |= {"images": [str(place.image("anna"))]}
        changes["carl"] |= {"images": {command.image: str(place.image("carl"))}}
    datalist = place.listed(command, tmp_path / "list.json", **changes)
    content = json.loads(datalist.read_text())
    for case in content["cases"]:
        if "images" in case:
            del case["image"]
    datalist.write_text(json.dumps(content))
    out = tmp_path / "out"
    assert place.run(place.words(command, "--datalist", datalist, "--out", out)) == 0
    assert statuses(out, command) == {"first": "done", "ben": "done", "third": "done"}
    assert (out / "third.json").is_file()
    told = read_sidecar(out / f"ben-{command.ending}.json")["parameters"]
    fields = {"min_diameter": "min_diameter_mm"}
    assert told[fields.get(name, name)] == float(value)
    assert read_sidecar(out / "third.json")["parameters"] != told
    assert place.run(place.words(command, "--datalist", datalist, "--out", out)) == 0
    assert set(statuses(out, command).values()) == {"kept"}


@four
@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"name": "../x"}, "no file name"),
        ({"name": "ben"}, "are called ben"),
        ({"out": "../x.nii.gz"}, "outside"),
        ({"unknown": 1}, "unknown options: unknown"),
        ({"organ": 7}, "organ must be a text"),
        ({"overwrite": "no"}, "overwrite must be true or false"),
        ({"image": None}, "must be texts"),
        ({"seed": -1, "overlap": 5}, ""),
    ],
)
def test_a_wrong_list_is_refused_before_anything_is_done(
    place, command, case, why, tmp_path, capsys
):
    datalist = place.listed(command, tmp_path / "list.json", anna=case)
    out = tmp_path / "out"
    assert place.run(place.words(command, "--datalist", datalist, "--out", out)) == 2
    assert why in capsys.readouterr().err
    assert not out.exists()


@four
def test_images_of_one_name_are_told_apart_by_their_folders(place, command, tmp_path):
    cases = {}
    for name in NAMES:
        (tmp_path / name).mkdir()
        shutil.copy(place.image(name), tmp_path / name / "ct.nii.gz")
        cases[name] = {"image": f"{name}/ct.nii.gz"}
    datalist = place.listed(command, tmp_path / "list.json", **cases)
    out = tmp_path / "out"
    assert place.run(place.words(command, "--datalist", datalist, "--out", out)) == 0
    assert statuses(out, command) == {f"{name}-ct": "done" for name in NAMES}


@four
def test_json_is_one_object_for_one_case_and_for_many(own, command, tmp_path, capsys):
    own.image("ben").write_bytes(b"no image")
    assert own.run(own.many(command, tmp_path / "out", "--json")) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["kept"], told["failed"]) == (2, 0, 1)
    assert told["table"] == str(tmp_path / "out" / command.table)
    assert [case["status"] for case in told["cases"]] == ["done", "failed", "done"]
    assert Path(told["cases"][0]["outputs"]["sidecar"]).is_file()
    assert told["cases"][1]["error"]
    for name, code, status in (("anna", 0, "done"), ("ben", 1, "failed")):
        words = [own.image(name), "--organ", own.mask(name), "--out", tmp_path / f"{name}.nii.gz"]
        words += ["--labels", own.labels(name)] if command.name == "learn" else []
        assert own.run(own.words(command, "--json", *words)) == code
        (case,) = json.loads(capsys.readouterr().out)["cases"]
        assert case["status"] == status


@four
def test_a_model_takes_its_organ_of_a_map_and_says_so(own, command, tmp_path, capsys):
    def alone(mask: str, out: str) -> tuple[int, str]:
        words = [own.image("anna"), "--organ", mask, "--out", tmp_path / out]
        words += ["--labels", own.labels("anna")] if command.name == "learn" else []
        code = own.run([w for w in own.words(command, *words) if w != "--quiet"])
        return code, capsys.readouterr().err

    path = own.mask("anna")
    code, said = alone(str(path), "map.nii.gz")
    assert code == 0
    note = (
        f"{path} holds several labels; 5, the liver, was taken. Write {path}:LABEL for another one."
    )
    assert note in said
    content = read_sidecar(tmp_path / "map.json")
    assert note in content["result"]["notes"]
    image = nib.load(path)
    organs = np.asarray(image.dataobj)
    entry = content["inputs"]["organ"]
    assert (entry["label"], entry["chosen_by"]) == (LIVER, "model")
    assert entry["sha256"] == image_hash(organs == LIVER, image.affine)
    assert alone(f"{path}:{LIVER}", "said.nii.gz")[0] == 0
    assert (tmp_path / "said.nii.gz").read_bytes() == (tmp_path / "map.nii.gz").read_bytes()
    # One value is taken as it is; a map without the organ is refused.
    nib.save(nib.Nifti1Image((organs == LIVER).astype(np.uint8), image.affine), path)
    code, said = alone(str(path), "one.nii.gz")
    assert code == 0
    assert "holds several" not in said
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "map.nii.gz").read_bytes()
    nib.save(nib.Nifti1Image(np.where(organs == LIVER, 9, organs), image.affine), path)
    code, said = alone(str(path), "none.nii.gz")
    assert code == 1
    assert "not the liver (5)" in said
    assert f"{path}:1" in said


@four
def test_side_cars_describe_inputs_alike_and_carry_what_was_shown(own, command, tmp_path, capsys):
    # The mask on a grid of its own.
    image = nib.load(own.mask("anna"))
    affine = image.affine.copy()
    affine[2, 3] += 1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), own.mask("anna"))
    words = [own.image("anna"), "--organ", f"{own.mask('anna')}:5", "--out", tmp_path / "a.nii.gz"]
    words += ["--labels", own.labels("anna")] if command.name == "learn" else []
    assert own.run([w for w in own.words(command, *words) if w != "--quiet"]) == 0
    content = read_sidecar(tmp_path / "a.json")
    entry = content["inputs"][command.image]
    assert set(entry) == {"path", "sha256", "shape", "spacing_mm"}
    assert entry["spacing_mm"] == [2, 2, 4]
    assert set(content["inputs"]["organ"]) == {"path", "label", "sha256"}
    shown = [
        line.removeprefix("Note: ")
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("Note: ")
    ]
    assert any("another grid" in note for note in shown)
    assert content["result"]["notes"] == shown


@four
def test_a_replay_makes_the_same_again(own, command, tmp_path, capsys):
    words = [own.image("anna"), "--organ", own.mask("anna"), "--out", tmp_path / "a.nii.gz"]
    words += ["--labels", own.labels("anna")] if command.name == "learn" else []
    assert own.run(own.words(command, *words)) == 0
    replay = ["replay", str(tmp_path / "a.json"), "--out", str(tmp_path / "b.nii.gz"), "--quiet"]
    assert own.run([*replay, "--device", "cpu"]) == 0
    assert "voxel for voxel" in capsys.readouterr().out
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "a.nii.gz").read_bytes()
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


@four
def test_two_runs_do_not_write_into_one_folder(place, command, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with (out / loop.LOCK).open("ab") as file:
        if try_lock(file.fileno()) is None:
            pytest.skip("this disk has no locks")
        assert place.run(place.many(command, out)) == 1
        assert "Another run" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [loop.LOCK]
    assert place.run(place.many(command, out)) == 0


@four
def test_what_belongs_to_a_single_case_is_refused_for_many(place, command, tmp_path, capsys):
    option = {"synthesize": "--mask-out", "learn": "--uncertainty-out"}.get(
        command.name, "--report"
    )
    words = place.many(command, tmp_path / "out", option, tmp_path / "x.json")
    assert place.run(words) == 2
    assert f"{option} is of a single case" in capsys.readouterr().err
    assert place.run(place.words(command, "--out", tmp_path / "out")) == 2
