"""Options of a command line from the fields of dataclasses (`difftumor.fields`), by tyro."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from difftumor.fields import help_of

P = TypeVar("P")


class UsageError(ValueError):
    """Options that do not go together, or are out of range (exit code 2)."""


@dataclass(frozen=True)
class Syntax:
    """How a value that is no single word is written on a command line, for example slices as `40:60`."""

    metavar: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]

    def spec(self) -> PrimitiveConstructorSpec[Any]:
        """For tyro; None is written as such and stays the default."""
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=self.metavar,
            instance_from_str=lambda words: self.read(words[0]),
            is_instance=lambda value: value is None or isinstance(value, tuple | str),
            str_from_instance=lambda value: ["None" if value is None else self.write(value)],
        )


def read_slices(text: str) -> Any:
    """`10:20` -> (10, 20), `10` -> (10, 11); all else as it is, for the parameter pack to refuse."""
    first, colon, end = text.partition(":")
    try:
        return (int(first), int(end)) if colon else (int(first), int(first) + 1)
    except ValueError:
        return text


def read_numbers(text: str) -> Any:
    """`3,9` -> (3, 9); all else as it is, for the parameter pack to refuse."""
    try:
        return tuple(int(word) for word in text.replace(" ", "").split(","))
    except ValueError:
        return text


def _written(values: Any) -> str:
    return ",".join(str(value) for value in values)


SLICES = Syntax("A:B", read_slices, lambda pair: f"{pair[0]}:{pair[1]}")
NUMBERS = Syntax("K,K,...", read_numbers, _written)
_SYNTAX = {tuple[int, int] | None: SLICES, tuple[int, ...] | None: NUMBERS}


def options_of(
    kind: type, without: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Any:
    """A base class for commands: the fields of a parameter pack as options, not checked yet.

    Args:
        kind: dataclass whose fields are made by `fields.number` and `fields.option`.
        without: fields that the command asks for in another way.
        defaults: where the command starts from another value than the pack; None where it finds one out.

    Returns:
        a keyword-only dataclass; see `parameters_of`.
    """
    hints = get_type_hints(kind)
    name = kind.__name__.removesuffix("Parameters") + "Options"
    declared = []
    for item in fields(kind):
        if item.name in without:
            continue
        default = (defaults or {}).get(item.name, item.default)
        hint = hints[item.name] if default is not None else hints[item.name] | None
        declared.append(
            (item.name, argument(item, hint, _SYNTAX.get(hint)), field(default=default))
        )
    return make_dataclass(name, declared, kw_only=True)


def parameters_of(kind: type[P], command: Any, **others: Any) -> P:
    """The parameter pack that a command's options describe.

    Args:
        kind: as of `options_of`.
        command: has the fields of `kind` as attributes.
        others: fields that it has not, or that are changed on the way.

    Raises:
        UsageError: out of range, or they do not go together.
    """
    values = {
        item.name: getattr(command, item.name)
        for item in fields(kind)  # type: ignore[arg-type]
        if item.name not in others
    }
    try:
        return kind(**values, **others)
    except ValueError as error:
        raise UsageError(str(error)) from None


def further_names(*kinds: type) -> dict[str, str]:
    """Field by each further name of its option, with underscores: as datalists may write it."""
    return {
        alias.replace("-", "_"): item.name
        for kind in kinds
        for item in fields(kind)
        for alias in item.metadata.get("aliases", ())
    }


def argument(item: Field[Any], hint: Any, syntax: Syntax | None = None) -> Any:
    """The type of a field with what tyro shall show of it: help, range, unit, further names."""
    aliases = tuple(f"--{name}" for name in item.metadata.get("aliases", ()))
    shown = tyro.conf.arg(help=help_of(item) or None, aliases=aliases or None)
    return Annotated[(hint, shown, syntax.spec())] if syntax else Annotated[hint, shown]


def registry() -> ConstructorRegistry:
    """What makes tyro read help, range and unit of nested dataclasses from their fields, too.

    Several values are written as several words, as tyro does.

    tyro.cli(Config, registry=registry())
    """
    made = ConstructorRegistry()
    made.struct_rule(_described)
    return made


def _described(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Rule for dataclasses whose fields carry help texts; None leaves the others to tyro."""
    kind = info.type
    if not is_dataclass(kind) or not any("help" in item.metadata for item in fields(kind)):
        return None
    hints = get_type_hints(kind, include_extras=True)
    given = info.default if isinstance(info.default, kind) else None
    return StructConstructorSpec(
        kind,
        tuple(
            StructFieldSpec(
                item.name,
                argument(item, hints[item.name]),
                _default(item, given),
                help_of(item) or None,
            )
            for item in fields(kind)
            if item.init
        ),
    )


def _default(item: Field[Any], given: Any) -> Any:
    if given is not None:
        return getattr(given, item.name)
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return tyro.MISSING if item.default is dataclasses.MISSING else item.default
