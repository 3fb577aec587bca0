"""One test item for a check of many things: it goes through all of them and names each that fails."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def label(thing: object) -> str:
    """How a failing message names a thing; a path, from the root of the project."""
    return str(thing.relative_to(ROOT)) if isinstance(thing, Path) else str(thing)


def each(argument: str, things: Sequence, name: Callable[[object], str] = label) -> Callable:
    """As `pytest.mark.parametrize(argument, things)`, in one item instead of one for each thing.

    Checks that only read sources take a millisecond each; as items of their own, a thousand of them would hide
    how many tests there are. Further arguments of the check are fixtures, as always.
    """
    assert len(things) > 0, "nothing to check"

    def decorate(check: Callable) -> Callable:
        @functools.wraps(check)
        def test(**fixtures: object) -> None:
            failures = []
            for thing in things:
                try:
                    check(**{argument: thing}, **fixtures)
                except Exception as error:  # noqa: BLE001 (whatever it is, it is reported)
                    failures.append(f"{name(thing)}: {type(error).__name__}: {error}")
            if failures:
                pytest.fail(
                    f"{len(failures)} of {len(things)} fail:\n" + "\n".join(failures), pytrace=False
                )

        signature = inspect.signature(check)
        rest = [p for p in signature.parameters.values() if p.name != argument]
        test.__signature__ = signature.replace(parameters=rest)
        return test

    return decorate
