"""`slicer.parameterNodeWrapper`: typed parameters in a vtkMRMLScriptedModuleNode, the part that is used.

int, float, str, bool, enumerations, node references and packs of these; `Annotated` with WithinRange,
Minimum, Maximum, Choice, Default, Decimals, SingleStep; `connectGui` and `disconnectGui`. Values are
written as Slicer writes them: numbers and strings as text, "True"/"False", an enumeration by its name,
a node as an empty parameter and a node reference, a pack's member as "pack.member".
"""

from __future__ import annotations

import enum
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import slicer
import vtk

from Testing.slicer_stand_in import parameter_types
from Testing.slicer_stand_in.parameter_types import (
    Default,
    Validator,
    findFirstAnnotation,
    isNodeOrUnionOfNodes,
    isParameterPack,
    splitAnnotations,
    unannotatedType,
)

PROPERTY_NAME = "SlicerParameterName"

_EMPTY = {int: 0, float: 0, str: "", bool: False}


class Parameter:
    """One declared parameter: its type, its default, and how it is written."""

    def __init__(self, name: str, declared: Any, given: Any) -> None:
        self.basename, self.unalteredType = name, declared
        self.kind, annotations = splitAnnotations(declared)
        self.validators = [one for one in annotations if isinstance(one, Validator)]
        default = findFirstAnnotation(annotations, Default)
        if given is not None:
            self.default = given
        elif default is not None:
            self.default = default.value
        elif isinstance(self.kind, type) and issubclass(self.kind, enum.Enum):
            self.default = next(iter(self.kind))
        elif isParameterPack(self.kind):
            self.default = self.kind()
        elif isNodeOrUnionOfNodes(self.kind):
            self.default = None
        elif self.kind in _EMPTY:
            self.default = _EMPTY[self.kind]
        else:
            raise TypeError(f"the stand-in cannot keep {name}: {declared}")
        self.validate(self.default)

    def validate(self, value: Any) -> None:
        if isNodeOrUnionOfNodes(self.kind):
            parts = typing.get_args(self.kind) or (self.kind,)
            if value is not None and not isinstance(value, parts):
                raise TypeError(f"Value must be of type {self.kind}, is {value.GetClassName()}")
            return
        if value is None:
            raise ValueError("Value must not be None")
        wanted = (int, float) if self.kind is float else self.kind
        if not isinstance(value, wanted):
            raise TypeError(f"Value must be of type {wanted}, is {type(value)} value '{value}'")
        for validator in self.validators:
            validator.validate(value)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        if isParameterPack(self.kind):
            for member, parameter in self.kind.allParameters.items():
                parameter.write(node, f"{name}.{member}", value.getValue(member))
        elif isNodeOrUnionOfNodes(self.kind):
            node.SetParameter(name, "")
            node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
        elif isinstance(value, enum.Enum):
            node.SetParameter(name, value.name)
        else:
            node.SetParameter(name, str(value))

    def is_in(self, node: Any, name: str) -> bool:
        if isParameterPack(self.kind):
            first = next(iter(self.kind.allParameters))
            return self.kind.allParameters[first].is_in(node, f"{name}.{first}")
        return bool(node.HasParameter(name))

    def read(self, node: Any, name: str) -> Any:
        if not self.is_in(node, name):
            self.write(node, name, self.default)
        if isParameterPack(self.kind):
            return _observed(self.kind, node, name)
        if isNodeOrUnionOfNodes(self.kind):
            return node.GetNodeReference(name)
        text = node.GetParameter(name)
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)


def _declared(kind: type) -> dict[str, Parameter]:
    hints = typing.get_type_hints(kind, include_extras=True)
    if not hints:
        raise ValueError(f"{kind.__name__} declares no parameters")
    return {name: Parameter(name, hint, getattr(kind, name, None)) for name, hint in hints.items()}


def _top(parameters: dict[str, Parameter], name: str) -> tuple[str, str]:
    first, _, rest = name.partition(".")
    if first not in parameters:
        raise ValueError(
            f"Cannot find a parameter named {first}; there are {', '.join(parameters)}"
        )
    return first, rest


# ------------------------------------------------------------------------------------------- packs


def parameterPack(kind: type | None = None) -> Any:
    """Class decorator: a group of parameters."""
    return _make_pack if kind is None else _make_pack(kind)


def _make_pack(kind: type) -> type:
    parameters = _declared(kind)

    def init(self: Any, *values: Any, **named: Any) -> None:
        named = dict(zip(parameters, values, strict=False)) | named
        if unknown := set(named) - set(parameters):
            raise TypeError(f"__init__() got an unexpected keyword argument '{unknown.pop()}'")
        self.__dict__["_values"] = {n: named.get(n, p.default) for n, p in parameters.items()}
        for name, parameter in parameters.items():
            parameter.validate(self._values[name])

    def member(name: str) -> property:
        def put(self: Any, value: Any) -> None:
            parameters[name].validate(value)
            self._values[name] = value

        return property(lambda self: self._values[name], put)

    def get_value(self: Any, name: str) -> Any:
        first, rest = _top(parameters, name)
        value = getattr(self, first)
        return value.getValue(rest) if rest else value

    def set_value(self: Any, name: str, value: Any) -> None:
        first, rest = _top(parameters, name)
        if rest:
            getattr(self, first).setValue(rest, value)
        else:
            setattr(self, first, value)

    def data_type(name: str) -> Any:
        first, rest = _top(parameters, name)
        kind = parameters[first].unalteredType
        return unannotatedType(kind).dataType(rest) if rest else kind

    def equal(self: Any, other: Any) -> bool:
        return isParameterPack(other) and all(
            getattr(self, name) == getattr(other, name, None) for name in parameters
        )

    for name in parameters:
        setattr(kind, name, member(name))
    for name, function in (
        ("__init__", init), ("__eq__", equal), ("getValue", get_value), ("setValue", set_value),
        ("dataType", staticmethod(data_type)), ("allParameters", parameters), ("_is_parameterPack", True),
    ):  # fmt: skip
        setattr(kind, name, function)
    kind.__repr__ = lambda self: f"{kind.__name__}({self._values})"
    return kind


def _observed(kind: type, node: Any, prefix: str) -> Any:
    """A pack that reads and writes its node."""

    def member(name: str, parameter: Parameter) -> property:
        return property(
            lambda self: parameter.read(node, f"{prefix}.{name}"),
            lambda self, value: parameter.write(node, f"{prefix}.{name}", value),
        )

    def refuse(self: Any, key: str, value: Any) -> None:
        if key not in kind.allParameters:
            raise AttributeError(f"{kind.__name__} has no attribute '{key}'")
        object.__setattr__(self, key, value)

    members: dict[str, Any] = {name: member(name, p) for name, p in kind.allParameters.items()}
    members |= {"__init__": lambda self: None, "__setattr__": refuse}
    pack = type(f"Observed{kind.__name__}", (kind,), members)()
    pack.__dict__["_values"] = {name: getattr(pack, name) for name in kind.allParameters}
    return pack


# ----------------------------------------------------------------------------------------- wrapper


def parameterNodeWrapper(kind: type | None = None) -> Any:
    """Class decorator: typed access to a parameter node."""
    return _make_wrapper if kind is None else _make_wrapper(kind)


class _Wrapper:
    """The methods that every wrapper has."""

    _is_parameter_node_wrapper = True
    allParameters: dict[str, Parameter]

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, dict[str, Any]] = {}
        self._next_tag = 0
        self._updating = False
        for name, parameter in self.allParameters.items():
            parameter.read(parameterNode, name)  # which writes the default

    @classmethod
    def dataType(cls, name: str) -> Any:
        first, rest = _top(cls.allParameters, name)
        kind = cls.allParameters[first].unalteredType
        return unannotatedType(kind).dataType(rest) if rest else kind

    def default(self, name: str) -> Default:
        return Default(self.allParameters[_top(self.allParameters, name)[0]].default)

    def getValue(self, name: str) -> Any:
        first, rest = _top(self.allParameters, name)
        value = getattr(self, first)
        return value.getValue(rest) if rest else value

    def setValue(self, name: str, value: Any) -> None:
        first, rest = _top(self.allParameters, name)
        if rest:
            getattr(self, first).setValue(rest, value)
        else:
            setattr(self, first, value)

    def connectGui(self, gui: Any) -> int:
        widgets = (
            gui.findChildren(sys.modules["qt"].QWidget)
            if hasattr(gui, "findChildren")
            else vars(gui).values()
        )
        named = {w.property(PROPERTY_NAME): w for w in widgets if w.property(PROPERTY_NAME)}
        return self.connectParametersToGui(named)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        from Testing.slicer_stand_in.gui_connectors import make_connector

        for name in mapping:
            self.dataType(name)
        connectors = {name: make_connector(w, self.dataType(name)) for name, w in mapping.items()}
        tag = self._next_tag
        self._next_tag += 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.on_changed(self._to_parameter(name, connector))
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._to_gui())
        return tag

    def _to_parameter(self, name: str, connector: Any) -> Callable[[], None]:
        def changed() -> None:
            if not self._updating:
                with slicer.util.NodeModify(self):
                    self.setValue(name, connector.read())

        return changed

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def disconnectGui(self, tag: int) -> None:
        for connector in self._guis.pop(tag, {}).values():
            connector.on_changed(None)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was_modified: int) -> int:
        return self.parameterNode.EndModify(was_modified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def _make_wrapper(kind: type) -> type:
    parameters = _declared(kind)
    if taken := [name for name in parameters if hasattr(_Wrapper, name)]:
        raise ValueError(f"Cannot use reserved name '{taken[0]}' in a parameterNodeWrapper")

    def member(name: str) -> property:
        return property(
            lambda self: parameters[name].read(self.parameterNode, name),
            lambda self, value: parameters[name].write(self.parameterNode, name, value),
        )

    members = {name: member(name) for name in parameters}
    return type(
        kind.__name__,
        (_Wrapper,),
        {
            **members,
            "allParameters": parameters,
            "__module__": kind.__module__,
            "__doc__": kind.__doc__,
        },
    )


NAMES = (
    "Choice", "Decimals", "Default", "Maximum", "Minimum", "SingleStep", "Validator", "WithinRange",
    "findFirstAnnotation", "getNodeTypes", "isNodeOrUnionOfNodes", "isParameterNodeWrapper",
    "isParameterPack", "nestedParameterNames", "parameterNodeWrapper", "parameterPack",
    "splitAnnotations", "unannotatedType",
)  # fmt: skip


def install() -> None:
    """Put the names where `from slicer.parameterNodeWrapper import ...` finds them."""
    module = types.ModuleType("slicer.parameterNodeWrapper")
    module.__all__ = list(NAMES)
    for name in NAMES:
        setattr(module, name, globals().get(name) or getattr(parameter_types, name))
    sys.modules["slicer.parameterNodeWrapper"] = slicer.parameterNodeWrapper = module
