"""The panels have words for every remedy, and none of a terminal."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("slicer", reason="needs slicer-core (pip install slicer-core)")

from difftumor import remedies
from difftumor.remedies import KINDS, Advice, Remedy, places, with_remedy
from difftumor.worker import protocol
from DiffTumorSlicerLib.jobs import wording
from DiffTumorSlicerLib.jobs.wording import capitalized, doctor_line, sentence_of

TERMINAL = re.compile(r"\bdifftumor \w|--\w|\bpip\b|DIFFTUMOR_|TMPDIR|python -m|\bgit\b|`")


def test_the_panels_have_words_for_every_kind_and_for_no_other():
    assert set(wording._WORDS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_words_name_what_the_remedy_carries_and_nothing_of_a_terminal(kind):
    values = {name: 12.5 for name in places(remedies._WORDS[kind])}
    told = sentence_of(Advice("It is so.", Remedy(kind, values)))
    assert re.fullmatch(r"It is so\. [A-Z].*\.", told)
    assert not TERMINAL.search(told)
    assert places(wording._WORDS[kind]) <= set(values)


def test_some_sentences_as_the_person_reads_them():
    assert capitalized("the ellipsoid's center lies outside. Move it.") == (
        "The ellipsoid's center lies outside. Move it."
    )
    assert capitalized("difftumor-liver-early is not here.").startswith("difftumor-liver")
    error = with_remedy(
        ValueError("random placement needs an organ mask with voxels in it."),
        Remedy("give_organ"),
    )
    assert sentence_of(error) == (
        "Random placement needs an organ mask with voxels in it. "
        "Choose an organ segment, or place an ellipsoid yourself."
    )
    values = {"model": "my-liver", "megabytes": 800.4, "licence": "X"}
    assert sentence_of(Advice("my-liver is not installed.", Remedy("download", values))) == (
        "my-liver is not installed. Press Download in the Models panel (about 800 MB, license X)."
    )


def test_an_error_event_becomes_what_happened_and_what_to_do():
    event = protocol.ErrorEvent(
        1, "refused", "it has changed.", "Run: this", remedy={"kind": "verify", "model": "mine"}
    )
    assert sentence_of(event) == "It has changed. Press Verify in the Models panel."


@pytest.mark.parametrize("remedy", [None, {"kind": "of_tomorrow"}])
def test_the_words_of_a_worker_of_another_version_are_taken(remedy):
    event = protocol.ErrorEvent(1, "crashed", "it ended.", "Try again.", remedy=remedy)
    assert sentence_of(event) == "It ended. Try again."


def test_the_doctors_line():
    report = {
        "versions": {"torch": "2.13.0"},
        "devices": [
            {"device": "cuda:0", "ok": False, "reason": "no kernels"},
            {"device": "cpu", "ok": True},
        ],
        "memory_gb": {"free": 12.5, "total": 16.0},
        "disk_free_gb": 99.0,
        "problems": ["Only 1 GB is free. Set it elsewhere."],
        "advice": [Advice("Only 1 GB is free.", Remedy("models_disk")).to_json()],
    }
    facts = "CPU computes, PyTorch 2.13.0, 12.5 of 16 GB memory free, 99 GB disk free."
    assert doctor_line(report) == (
        f"{facts} Only 1 GB is free. Free some space, or choose a models folder on a larger disk, and "
        "start again."
    )
    report["devices"][0] |= {"ok": True, "name": "H200"}
    assert doctor_line({**report, "advice": []}).startswith("H200 computes, PyTorch 2.13.0")
    del report["advice"]  # as an older worker answers
    assert doctor_line(report).endswith("99 GB disk free. Only 1 GB is free. Set it elsewhere.")
