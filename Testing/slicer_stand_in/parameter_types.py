"""The annotations of `slicer.parameterNodeWrapper`, and what it tells about a parameter's type."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import slicer


class Validator:
    """Base of the annotations that refuse values."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


class WithinRange(Validator):
    def __init__(self, minimum: Any, maximum: Any) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(
                f"Value must be within range [{self.minimum}, {self.maximum}], is {value}"
            )


class Minimum(Validator):
    def __init__(self, minimum: Any) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum: Any) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices: Any) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be one of {self.choices}")


class Default:
    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


@dataclass
class Decimals:
    value: int


@dataclass
class SingleStep:
    value: float


def splitAnnotations(kind: Any) -> tuple[Any, list[Any]]:
    if typing.get_origin(kind) is Annotated:
        inner, *annotations = typing.get_args(kind)
        return inner, annotations
    return kind, []


def unannotatedType(kind: Any) -> Any:
    return splitAnnotations(kind)[0]


def findFirstAnnotation(annotations: list[Any], kind: type) -> Any:
    return next((one for one in annotations if isinstance(one, kind)), None)


def isParameterPack(thing: Any) -> bool:
    return getattr(thing, "_is_parameterPack", False)


def isParameterNodeWrapper(thing: Any) -> bool:
    return getattr(thing, "_is_parameter_node_wrapper", False)


def isNodeOrUnionOfNodes(kind: Any) -> bool:
    kind = unannotatedType(kind)
    parts = [part for part in typing.get_args(kind) if part is not type(None)] or [kind]
    return all(isinstance(part, type) and issubclass(part, slicer.vtkMRMLNode) for part in parts)


def getNodeTypes(kind: Any) -> list[str]:
    kind = unannotatedType(kind)
    parts = [part for part in typing.get_args(kind) if part is not type(None)] or [kind]
    return [part.__name__ for part in parts]


def nestedParameterNames(pack: Any) -> list[str]:
    names = []
    for name, parameter in pack.allParameters.items():
        kind = unannotatedType(parameter.unalteredType)
        names += (
            [f"{name}.{n}" for n in nestedParameterNames(kind)] if isParameterPack(kind) else [name]
        )
    return names
