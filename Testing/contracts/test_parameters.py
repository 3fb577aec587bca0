"""A parameter is one line: its text stands in --help and in the documentation, its range holds in every face."""

from __future__ import annotations

import importlib.util
import io
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from difftumor import cli
from difftumor.fields import choices_of, help_of, range_of
from difftumor.parameters import (
    AnomalyParameters,
    Ellipsoid,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
    from_dict,
)
from difftumor.worker.failures import explain_failure
from difftumor.worker.serve import serve
from difftumor.worker.tasks import ANOMALY, LEARN, SEGMENTATION, SYNTHESIS
from Testing.contracts.looping import ROOT, each

# Command, its task, the parameter packs it asks for, and words that come before an option.
FACES = (
    (
        *("synthesize", SYNTHESIS, (SynthesisParameters,)),
        ["scan.nii", "--out", "out.nii", "--organ", "organ.nii", "--random", "small"],
    ),
    (
        *("synthesize", SYNTHESIS, (Ellipsoid,)),
        ["scan.nii", "--out", "out.nii", "--center", "0", "0", "0"],
    ),
    ("anomaly", ANOMALY, (AnomalyParameters,), ["scan.nii", "--out", "out.nii"]),
    ("segment", SEGMENTATION, (SegmentationParameters,), ["scan.nii", "--out", "out.nii"]),
    (
        *("learn", LEARN, (LearningParameters,)),
        ["scan.nii", "--labels", "labels.nii", "--out", "out.nii"],
    ),
)
FIELDS = [(face, kind, item) for face in FACES for kind in face[2] for item in fields(kind)]
# Asked for in another way: an ellipsoid by its own fields, the organ also by the label of its mask.
NO_OPTION = {(SynthesisParameters, "ellipsoid"), (SynthesisParameters, "organ")}
# What makes a pack complete.
NEEDED = {SynthesisParameters: {"size": "small"}, Ellipsoid: {"center_ras": (0, 0, 0)}}
REFUSED = [
    (face, kind, item, bad)
    for face, kind, item in FIELDS
    if "min" in item.metadata
    for bad in (item.metadata["min"] - 1, item.metadata["max"] + 1)
]


def named(field):
    """A field, as a failing message names it."""
    return f"{field[1].__name__}.{field[2].name}"


def page():
    """The program that writes docs/parameters.md."""
    path = ROOT / "release" / "write_parameters.py"
    spec = importlib.util.spec_from_file_location("write_parameters", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said_by(words):
    """Exit code of a command line, and what it says, as one line of words."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(told):
        patch.setenv("COLUMNS", "200")
        code = cli.main(words)
    return code, " ".join(re.sub(r"[│╭╮╰╯─]", " ", told.getvalue()).split())


@pytest.fixture(scope="module")
def helps():
    """What --help shows, by command."""
    return {command: said_by([command, "--help"])[1] for command in {face[0] for face in FACES}}


def sentence_of(kind, values):
    """Why the dataclass refuses values."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the message is what is tested)
        kind(**values)
    return str(refused.value)


@each("field", FIELDS, named)
def test_help_shows_the_text_and_the_range_of_every_field(field, helps):
    (command, *_), kind, item = field
    if (kind, item.name) not in NO_OPTION:
        assert help_of(item) in helps[command]
        assert f"--{item.name.replace('_', '-')}" in helps[command]


def test_the_page_of_parameters_is_what_the_fields_say():
    told = page()
    stored = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert stored == told.page(), "run: python release/write_parameters.py"
    rows = [[cell.strip() for cell in line.split(" | ")] for line in stored.splitlines()]
    for _face, kind, item in FIELDS:
        row = next(
            row for row in rows if f"`{item.name}`" in row[0] and item.metadata["help"] in row[-1]
        )
        unit = item.metadata.get("unit", "")
        allowed = range_of(item) or ", ".join(choices_of(get_type_hints(kind)[item.name]))
        assert f"{row[3]} {row[4]}".strip() == allowed
        assert row[4] == unit


@each("refusal", REFUSED, lambda refusal: f"{named(refusal[:3])} = {refusal[3]}")
def test_a_range_is_refused_alike_by_dataclass_worker_and_command_line(refusal, monkeypatch):
    (command, task, _packs, words), kind, item, bad = refusal
    several = item.name in ("radii_mm", "rotation_deg")
    value = (bad,) * 3 if several else bad
    values = {**NEEDED.get(kind, {}), item.name: value}
    sentence = sentence_of(kind, values)
    assert sentence == f"{item.name} must be {range_of(item)}, got {bad:g}"

    request = {"ellipsoid": values} if kind is Ellipsoid else values
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        from_dict(task.parameters, request)
    assert str(refused.value) == sentence
    monkeypatch.setattr("difftumor.worker.serve.read_request", lambda *_: None)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        serve(task, {"parameters": request}, Path(), None)
    assert explain_failure(refused.value).message == sentence

    option = f"--{item.name.replace('_', '-')}"
    written = [str(bad)] * (3 if several else 1)
    if item.name == "rotation_deg":
        words = [*words, "--radii", "9", "9", "9"]  # an ellipsoid has some
    code, told = said_by([command, *words, option, *written, "--device", "cpu"])
    assert code == 2
    assert sentence in told


@each("refusal", REFUSED, lambda refusal: f"{named(refusal[:3])} = {refusal[3]}")
def test_a_panel_refuses_a_range_with_the_same_sentence(refusal):
    pytest.importorskip("slicer", reason="needs slicer-core")
    from Testing import slicer_stand_in

    slicer_stand_in.start()
    from DiffTumorSlicerLib.jobs.inputs import as_parameters
    from DiffTumorSlicerLib.jobs.jobs import SessionError

    (_command, task, _packs, _words), kind, item, bad = refusal
    value = (bad,) * 3 if item.name in ("radii_mm", "rotation_deg") else bad
    values = {**NEEDED.get(kind, {}), item.name: value}
    with pytest.raises(SessionError) as refused:
        as_parameters(task.parameters, {"ellipsoid": values} if kind is Ellipsoid else values)
    assert sentence_of(kind, values) in str(refused.value)
