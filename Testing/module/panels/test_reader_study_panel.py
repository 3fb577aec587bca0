"""The Reader study panel: from joining to the end with keys, and what of it a person can see or keep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from difftumor.reader_study.session import Clock
from Testing.module.panels.bench import ROOT, ends_in_next_step
from Testing.module.panels.study_bench import Key, StudyBench, state_of, words_of

R, S, SPACE = Key.Key_R, Key.Key_S, Key.Key_Space
SURE = {n: getattr(Key, f"Key_{n}") for n in range(1, 6)}


@pytest.fixture
def make(app, scene, bridge, tmp_path):
    """A bench with a study of these facts."""
    made = []

    def build(**facts):
        made.append(StudyBench(app, scene, bridge, tmp_path / "package", **facts))
        return made[-1]

    yield build
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make):
    return make()


# ------------------------------------------------------------------------------------------ reading


def test_a_study_is_read_with_keys_alone(bench):
    bench.join()
    assert "practice: 2;" in bench.ui.studyFactsLabel.text
    assert "that count: 4." in bench.ui.studyFactsLabel.text
    bench.begin()
    assert bench.ui.caseLabel.text == "Practice 1 of 2"
    bench.keys(R, SURE[5], SPACE, S, SURE[1], SPACE)
    # Practice is over: a word about it before it counts.
    assert bench.reading.stage == "ready"
    assert "practice is over" in bench.ui.studyFactsLabel.text
    assert not bench.reading.shown
    bench.keys(SPACE)
    assert bench.ui.caseLabel.text == "1 of 4"
    bench.keys(S, SURE[2], SPACE, R, SURE[3], SPACE, S, SURE[4], SPACE, R, SURE[5], SPACE)
    assert bench.reading.stage == "finished"
    assert not bench.panel.in_room
    assert bench.answers() == [
        (1, "real", 5),
        (2, "synthetic", 1),
        (3, "synthetic", 2),
        (4, "real", 3),
        (5, "synthetic", 4),
        (6, "real", 5),
    ]
    assert [r["event"] for r in bench.journal() if r["event"] != "viewed"] == [
        "joined", *["shown", "answered"] * 6
    ]  # fmt: skip
    assert str(bench.folder) in bench.ui.doneLabel.text


def test_an_answer_is_whole_before_it_is_stored_and_can_be_changed_until_then(bench):
    bench.join()
    bench.begin()
    bench.keys(SPACE)
    assert "Answer the question" in bench.message
    assert not bench.ui.nextCaseButton.enabled
    bench.keys(R, SPACE)
    assert "how sure" in bench.message
    assert bench.answers() == []
    bench.keys(S, SURE[2], SURE[4])
    assert bench.message == ""
    assert bench.ui.choice2Button.checked
    assert not bench.ui.choice1Button.checked
    bench.press(bench.ui.nextCaseButton)
    assert bench.answers() == [(1, "synthetic", 4)]


def test_buttons_show_their_keys_and_do_the_same(bench):
    bench.join()
    bench.begin()
    ui = bench.ui
    assert [b.text for b in (ui.choice1Button, ui.choice2Button, ui.nextCaseButton, ui.pauseButton)] == [
        "Real (R)", "Synthetic (S)", "Next (Space)", "Pause (Esc)"
    ]  # fmt: skip
    assert not ui.choice3Button.visible
    bench.press(ui.choice2Button)
    bench.press(ui.confidence3Button)
    bench.press(ui.nextCaseButton)
    assert bench.answers() == [(1, "synthetic", 3)]


def test_words_go_into_the_comment_and_return_wakes_the_keys(bench):
    bench.join()
    bench.begin()
    bench.ui.commentEdit.setFocus()
    bench.keys(Key.Key_R, Key.Key_I, Key.Key_M, SPACE, Key.Key_1, Key.Key_Return)
    assert bench.ui.commentEdit.text == "rim 1"
    assert bench.reading.draft.choice == ""
    bench.keys(S, SURE[3], SPACE)
    assert bench.journal("answered")[0]["comment"] == "rim 1"
    assert bench.ui.commentEdit.text == ""


def test_organ_recognition_has_keys_of_its_own(make):
    bench = make(type="organ_recognition", practice=0, cases=3)
    bench.join()
    bench.begin()
    assert bench.ui.choice2Button.text == "Pancreas (P)"
    bench.keys(Key.Key_P, SURE[1], SPACE, Key.Key_K, SURE[2], SPACE, Key.Key_L, SURE[3], SPACE)
    assert [choice for _, choice, _ in bench.answers()] == ["pancreas", "kidney", "liver"]


def test_in_detection_a_mark_is_the_answer_and_none_takes_it_away(make):
    bench = make(type="detection", practice=0, cases=2, ask_mark=True)
    bench.join()
    bench.begin()
    bench.keys(Key.Key_L, SURE[2], SPACE)
    assert "Click on the lesion" in bench.message
    bench.panel.answer.mark((1.0, 2.0, 3.0))
    bench.keys(Key.Key_N)
    assert bench.reading.draft.mark_ras is None
    bench.panel.answer.mark((1.5, -2.0, 3.0))
    assert bench.reading.draft.choice == "lesion"
    bench.keys(SPACE)
    bench.keys(Key.Key_N, SURE[5], SPACE)
    assert [r["mark_ras"] for r in bench.journal("answered")] == [[1.5, -2.0, 3.0], None]


def test_back_is_there_where_the_study_allows_it(make):
    bench = make(allow_back=True, practice=0, cases=3)
    bench.join()
    bench.begin()
    assert not bench.ui.previousCaseButton.enabled
    bench.keys(R, SURE[4], SPACE, Key.Key_Backspace)
    assert bench.ui.caseLabel.text == "1 of 3"
    assert bench.ui.choice1Button.checked
    assert bench.ui.confidence4Button.checked
    bench.keys(S, SPACE)
    assert bench.ui.caseLabel.text == "2 of 3"
    assert bench.answers() == [(1, "real", 4), (1, "synthetic", 4)]


def test_there_is_no_way_back_where_it_is_not_allowed(bench):
    bench.join()
    bench.begin()
    bench.keys(R, SURE[4], SPACE, Key.Key_Backspace)
    assert bench.ui.caseLabel.text == "Practice 2 of 2"
    assert not bench.ui.previousCaseButton.visible


def test_the_image_goes_when_its_time_is_over_and_the_answer_still_counts(make, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(Clock, "monotonic", lambda _self: now_s[0])
    bench = make(time_limit_s=1.0, practice=0, cases=2)
    bench.join()
    assert "1 s" in bench.ui.studyFactsLabel.text
    bench.begin()
    assert bench.ui.caseTimeLabel.text == "1 s left"
    now_s[0] += 0.9
    bench.turn()
    assert bench.reading.shown
    now_s[0] += 0.2
    bench.turn()
    assert bench.reading.time_over
    assert not bench.reading.shown
    assert "time for this image is over" in bench.ui.lackingLabel.text
    bench.keys(R, SURE[1], SPACE)
    assert bench.answers() == [(1, "real", 1)]
    assert bench.reading.shown


# ------------------------------------------------------------------------------ pause, leave, go on


def test_a_pause_hides_the_image_stops_the_time_and_keeps_what_was_begun(bench):
    bench.join()
    bench.begin()
    bench.keys(S, Key.Key_Escape)
    assert bench.reading.stage == "ready"
    assert bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert bench.reading.session.paused
    bench.keys(R, SURE[3], SPACE)  # nobody reads: keys of Slicer again
    assert bench.answers() == []
    assert bench.ui.beginButton.text == "Continue"
    bench.begin()
    assert bench.ui.choice2Button.checked
    bench.keys(SURE[3], SPACE)
    assert bench.answers() == [(1, "synthetic", 3)]


def test_another_module_a_dialog_and_closing_the_scene_pause(bench):
    import qt

    dialog = qt.QDialog()
    dialog.modal = True
    bench.join()
    for leave in (bench.panels.exit, dialog.show, lambda: bench.scene.Clear(0)):
        bench.begin()
        leave()
        bench.turn()
        dialog.hide()
        assert bench.reading.stage == "ready"
        assert not bench.panel.in_room
        bench.panels.enter()
        bench.turn()
    bench.begin()
    bench.keys(R, SURE[1], SPACE)
    assert bench.answers() == [(1, "real", 1)]


def test_continue_opens_the_last_study_and_reads_on(bench, make):
    bench.join()
    bench.begin()
    bench.keys(R, SURE[1], SPACE)
    bench.close()
    again = make()
    assert "R1" in again.ui.rememberedLabel.text
    again.widget.activateWindow()
    again.press(again.ui.continueStudyButton)
    again.wait()
    assert again.ui.caseLabel.text == "Practice 2 of 2"
    again.keys(S, SURE[2], SPACE)
    assert again.answers() == [(1, "real", 1), (2, "synthetic", 2)]
    again.press(again.ui.leaveStudyButton)
    assert again.ui.joinPage.visible


KILLED = """
import os, signal, sys
from pathlib import Path
from Testing import slicer_stand_in
app = slicer_stand_in.start()
import slicer
from Testing.module.panels.study_bench import Key, StudyBench
from Testing.module.scene.scenes import FakeBridge
bench = StudyBench(app, slicer.mrmlScene, FakeBridge(), Path(sys.argv[1]))
bench.join()
bench.begin()
bench.keys(Key.Key_R, Key.Key_2, Key.Key_Space, Key.Key_S)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_in_the_middle_of_a_case_that_case_comes_again(bench):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(bench.folder)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "DiffTumorSlicer"), str(ROOT))),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert bench.answers() == [(1, "real", 2)]
    bench.join()
    bench.begin()
    assert bench.ui.caseLabel.text == "Practice 2 of 2"
    assert bench.reading.draft.choice == ""


# ------------------------------------------------------------------------------------------ blinding


def test_nothing_in_the_scene_tells_more_than_the_image(bench):
    bench.join()
    bench.begin()
    tokens = [case.token for case in bench.reading.session.package.cases]
    text = words_of(bench.scene)
    for word in (*tokens, str(bench.folder), "synthetic", "Synthetic", ".nii"):
        assert word not in text
    volume = bench.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert volume.GetName() == "Case"
    assert volume.GetStorageNode() is None
    assert volume.GetDescription() in (None, "")
    assert not volume.GetAttributeNames()
    for panel, name in ((bench.volumes, "volumeSelector"),):
        assert getattr(panel, name).nodeCount() == 0
    hierarchy = bench.scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    assert hierarchy is None or not hierarchy.GetItemByDataNode(volume)


def test_other_panels_are_out_of_sight_while_somebody_reads(bench):
    bench.join()
    names = [n for n in vars(bench.sections) if n.endswith("Section") and n != "readerStudySection"]
    assert len(names) >= 4
    bench.begin()
    assert not any(getattr(bench.sections, name).visible for name in names)
    bench.keys(Key.Key_Escape)
    assert all(getattr(bench.sections, name).visible for name in names)


def test_the_persons_scene_is_hidden_while_reading_and_as_it_was_afterwards(bench, tmp_path):
    import slicer

    ct = bench.load_ct()
    before_hu = np.array(slicer.util.arrayFromVolume(ct))
    bench.place()
    point = bench.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "My point")
    point.CreateDefaultDisplayNodes()
    hidden = bench.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Hidden before")
    hidden.CreateDefaultDisplayNodes()
    hidden.GetDisplayNode().SetVisibility(False)
    crosshair = bench.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCrosshairMode(crosshair.ShowBasic)
    bench.join()
    bench.turn()
    before = state_of(bench.scene)
    bench.begin()
    assert not point.GetDisplayNode().GetVisibility()
    assert not bench.parameters.roi.GetDisplayNode().GetVisibility()
    assert crosshair.GetCrosshairMode() == crosshair.NoCrosshair
    assert bench.parameters.volume is ct
    bench.keys(R, SURE[1], SPACE, Key.Key_Escape)
    assert state_of(bench.scene) == before
    assert crosshair.GetCrosshairMode() == crosshair.ShowBasic
    assert bench.parameters.volume is ct
    assert np.array_equal(slicer.util.arrayFromVolume(ct), before_hu)


def test_a_scene_saved_in_the_middle_holds_nothing_of_the_study(bench, tmp_path):
    import zipfile

    bench.load_ct()
    bench.join()
    bench.begin()
    bench.panel.answer.mark((0.0, 0.0, 0.0))
    assert bench.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    tokens = [case.token for case in bench.reading.session.package.cases]
    with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
        names = "\n".join(bundle.namelist())
        scene = next(bundle.read(n) for n in bundle.namelist() if n.endswith(".mrml")).decode()
    for word in (*tokens, 'name="Case"', 'name="Mark"', "Reading", "package", "R1"):
        assert word not in names + scene, word


# -------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("fault", ["code", "folder", "damaged", "elsewhere", "open"])
def test_what_keeps_a_study_from_opening_is_said_in_words(bench, tmp_path, fault):
    from difftumor.reader_study.session import ReadingSession

    code, folder, other = "R1", bench.folder, None
    if fault == "code":
        code = "R2"
    elif fault == "folder":
        folder = tmp_path
    elif fault == "damaged":
        next((bench.folder / "cases").iterdir()).unlink()
    elif fault == "elsewhere":
        holder = {"session": "x", "computer": "reading-room-2", "process": 7, "since": "noon"}
        (bench.folder / "lock").write_text(json.dumps(holder))
    else:
        other = ReadingSession.join(bench.folder, "R1")
    bench.join(code, folder)
    assert ends_in_next_step(bench.message)
    assert bench.reading.stage == "outside"
    assert bench.ui.takeOverButton.visible == (fault == "elsewhere")
    if fault == "elsewhere":
        assert "reading-room-2" in bench.message
        bench.press(bench.ui.takeOverButton)
        assert bench.reading.stage == "ready"
    if other is not None:
        other.close()
        bench.join()
        assert bench.reading.stage == "ready"


def test_a_full_disk_keeps_the_case_and_the_answer_until_it_has_room(bench, monkeypatch):
    bench.join()
    bench.begin()
    session = bench.reading.session
    append = session._journal.append

    def full(record):
        if record["event"] == "answered":
            from difftumor.reader_study.journal import JournalError

            raise JournalError(
                "The journal could not be written: no space left. Free some space, then try again."
            )
        return append(record)

    monkeypatch.setattr(session._journal, "append", full)
    bench.keys(R, SURE[2], SPACE)
    assert "Free some space" in bench.message
    assert bench.ui.caseLabel.text == "Practice 1 of 2"
    assert bench.reading.shown
    monkeypatch.undo()
    bench.keys(SPACE)
    assert bench.answers() == [(1, "real", 2)]
    assert bench.message == ""


def test_a_damaged_image_stops_the_reading_and_a_good_copy_lets_it_go_on(bench):
    listed = json.loads((bench.folder / "package.json").read_text())["cases"]
    path = bench.folder / "cases" / f"{listed[1]['token']}.nii"
    good = path.read_bytes()
    path.write_bytes(good[:-4] + b"\1\1\1\1")
    bench.join()
    bench.begin()
    bench.keys(R, SURE[2], SPACE)
    assert bench.reading.stage == "ready"
    assert not bench.panel.in_room
    assert "new copy" in bench.message
    path.write_bytes(good)
    bench.begin()
    assert bench.ui.caseLabel.text == "Practice 2 of 2"
    assert bench.answers() == [(1, "real", 2)]


def test_a_package_that_was_taken_over_takes_no_answer_here(bench):
    bench.join()
    bench.begin()
    holder = json.loads((bench.folder / "lock").read_text())
    (bench.folder / "lock").write_text(json.dumps({**holder, "session": "another"}))
    bench.keys(R, SURE[2], SPACE)
    assert "opened elsewhere" in bench.message
    assert bench.answers() == []
