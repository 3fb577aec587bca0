"""The examples in docstrings of the pure rooms are true."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("grids", "images.resampling", "ellipsoids", "diffusion.schedules", "measuring.metrics")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str):
    done = doctest.testmod(import_module(f"difftumor.{name}"))
    assert done.attempted >= 5
    assert done.failed == 0
