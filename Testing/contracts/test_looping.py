"""A check that loops fails for every thing that fails, and takes fixtures."""

import pytest

from Testing.contracts.looping import ROOT, each


def test_every_thing_that_fails_is_named():
    @each("number", [1, 2, 3, 4])
    def check(number):
        assert number % 2, "even"

    with pytest.raises(pytest.fail.Exception) as failure:
        check()
    said = str(failure.value).splitlines()
    assert said[0] == "2 of 4 fail:"
    assert [line for line in said if "even" in line] == [
        "2: AssertionError: even",
        "4: AssertionError: even",
    ]


def test_an_error_fails_as_a_wrong_answer_does_and_a_path_is_short():
    @each("path", [ROOT / "Makefile"])
    def check(path):
        raise KeyError("name")

    with pytest.raises(pytest.fail.Exception, match=r"Makefile: KeyError: 'name'"):
        check()


def test_a_check_of_nothing_is_refused():
    with pytest.raises(AssertionError, match="nothing"):
        each("path", [])


@each("number", [1, 2])
def test_other_arguments_are_fixtures(tmp_path, number):
    assert tmp_path.is_dir()
    assert number
