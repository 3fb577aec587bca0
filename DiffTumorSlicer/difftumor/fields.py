"""One parameter, one line: a dataclass field that holds default, range, unit and help text.

    noise_level: int = number(250, 1, 999, "steps", "N: how much noise is added.")
    blend: Blend = option("feather", "'feather' leaves all outside the rim as it is.")

The command line, tool tips, the documentation, side-cars and the training programs read these lines; `check_ranges`
holds them. Standard library only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import Field, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def number(
    default: Any,
    low: float,
    high: float,
    unit: str = "",
    help: str = "",
    *,
    aliases: tuple[str, ...] = (),
    lasting: bool = True,
) -> Any:
    """A field with a range.

    Args:
        default: its value unless the user says otherwise; None where a model recommends it.
        low: smallest allowed value.
        high: largest allowed value.
        unit: of the number, "" for none.
        help: what it is, as a sentence.
        aliases: further names of its option on the command line, without dashes.
        lasting: whether a training run that is resumed must keep the value.
    """
    metadata = {"min": low, "max": high, "unit": unit, "help": help, "aliases": aliases}
    return field(default=default, metadata={**metadata, "lasting": lasting})


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    factory: Any = dataclasses.MISSING,
    aliases: tuple[str, ...] = (),
    lasting: bool = True,
) -> Any:
    """A field without a range; its type may name the choices. Arguments as of `number`.

    Args:
        factory: makes the default, where that is a dataclass of its own.
    """
    metadata = {"help": help, "aliases": aliases, "lasting": lasting}
    if factory is not dataclasses.MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def inherited(kind: type, name: str, default: Any) -> Any:
    """A field of a base class with another default; help, range and unit stay.

    samples: int = inherited(RunConfig, "samples", 800_000)
    """
    metadata = next(item.metadata for item in fields(kind) if item.name == name)
    return field(default=default, metadata=metadata)


def range_of(item: Field[Any]) -> str:
    """The range of a field in words, as in "1 to 999 steps"; "" if it has none."""
    if "min" not in item.metadata:
        return ""
    low, high, unit = (item.metadata[key] for key in ("min", "max", "unit"))
    return f"{_plain(low)} to {_plain(high)} {unit}".rstrip()


def help_of(item: Field[Any]) -> str:
    """What every face shows of a field: its help text and its range."""
    text, limits = str(item.metadata.get("help", "")), range_of(item)
    return f"{text} ({limits})" if text and limits else text or limits


def choices_of(hint: Any) -> tuple[str, ...]:
    """Words that a type allows: those of a Literal, also of one that may be None."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))


def check_ranges(settings: Any) -> None:
    """Compare every field of a dataclass with its own range, choices and type.

    None is allowed where it is the default or part of the type. Of a tuple each number is compared.

    Raises:
        ValueError: with name, value and what is allowed.
    """
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value is not None:
            _check(item, hints[item.name], value)


def _check(item: Field[Any], hint: Any, value: Any) -> None:
    choices = choices_of(hint)
    if choices and value not in choices:
        raise ValueError(f"{item.name} must be one of {', '.join(choices)}; got {value!r}")
    if hint in (bool, str) and not isinstance(value, hint):
        kind = "true or false" if hint is bool else "a text"
        raise ValueError(f"{item.name} must be {kind}, got {value!r}")
    if "min" not in item.metadata:
        return
    whole = hint in (int, int | None)
    several = any(get_origin(part) is tuple for part in (hint, *get_args(hint)))
    for part in value if several and isinstance(value, tuple) else (value,):
        if isinstance(part, bool) or not isinstance(part, int if whole else (int, float)):
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{item.name} must be {kind}, got {part!r}")
        if not item.metadata["min"] <= part <= item.metadata["max"]:
            raise ValueError(f"{item.name} must be {range_of(item)}, got {part:g}")


def _plain(value: float) -> str:
    """A limit as people write it: 1000000 and 2**63 - 1 in full, 0.05 as it is."""
    return f"{value:g}" if abs(value) < 1e6 or value != int(value) else str(int(value))
