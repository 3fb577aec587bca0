"""A parameter is one line: its field holds default, range, unit and help, and every face reads them there."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Literal

import pytest
import tyro

from difftumor.fields import check_ranges, choices_of, help_of, number, option, range_of
from difftumor.options import UsageError, further_names, options_of, parameters_of, registry
from difftumor.parameters import (
    AnomalyParameters,
    Ellipsoid,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
)

PACKS = (
    AnomalyParameters,
    LearningParameters,
    SegmentationParameters,
    SynthesisParameters,
    Ellipsoid,
)


@dataclass(frozen=True)
class Inner:
    rate: float = number(0.5, 0, 1, "", "How fast.")

    def __post_init__(self):
        check_ranges(self)


@dataclass(frozen=True)
class Settings:
    steps: int = number(4, 1, 200, "steps", "How long.", aliases=("length",))
    inner: Inner = option(factory=Inner, help="What is inside.")
    pair: tuple[int, int] | None = option(None, "Half open.")

    def __post_init__(self):
        check_ranges(self)


def test_help_and_range_of_a_field_are_its_own_words():
    steps = fields(Settings)[0]
    assert range_of(steps) == "1 to 200 steps"
    assert help_of(steps) == "How long. (1 to 200 steps)"


def test_every_field_of_a_parameter_pack_has_a_help_text():
    for pack in PACKS:
        for item in fields(pack):
            assert item.metadata["help"].endswith("."), (pack.__name__, item.name)


@pytest.mark.parametrize("bad", [0, 201, 1.5, True, "4"])
def test_what_is_out_of_range_is_refused_with_name_value_and_range(bad):
    with pytest.raises(ValueError, match=r"steps must be (1 to 200 steps|a whole number), got"):
        Settings(steps=bad)


def test_tyro_shows_help_and_range_of_nested_fields(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Settings, args=["--help"], registry=registry())
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert "How long. (1 to 200 steps)" in shown
    assert "How fast. (0 to 1)" in shown
    made = tyro.cli(
        Settings,
        args=["--length", "7", "--inner.rate", "1", "--pair", "3", "5"],
        registry=registry(),
    )
    assert made == Settings(7, Inner(1.0), (3, 5))


def test_options_are_the_fields_of_the_pack_and_become_one():
    @dataclass(kw_only=True)
    class Command(options_of(Settings, without=("inner",), defaults={"steps": None})):  # type: ignore[misc]
        out: str = ""

    read = tyro.cli(Command, args=["--pair", "4"])
    assert (read.steps, read.pair) == (None, (4, 5))
    read.steps = 9
    assert parameters_of(Settings, read, inner=Inner()) == Settings(9, Inner(), (4, 5))
    read.steps = 999
    with pytest.raises(UsageError, match="steps must be 1 to 200 steps, got 999"):
        parameters_of(Settings, read, inner=Inner())


def test_further_names_lead_to_the_field():
    assert further_names(Settings) == {"length": "steps"}
    assert further_names(Ellipsoid)["radii"] == "radii_mm"


def test_choices_are_those_of_the_type():
    assert choices_of(Literal["axial", "coronal"] | None) == ("axial", "coronal")
    assert choices_of(int) == ()
