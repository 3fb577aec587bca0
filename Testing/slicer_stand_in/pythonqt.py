"""PySide6 classes that behave as PythonQt presents them in Slicer.

PythonQt in short: a property is an attribute (`button.text = "Go"`; `button.text()` fails), a slot is a
method, a signal is connected by its signature (`button.connect("clicked(bool)", f)`), and a C++ object
takes no attribute that it does not have. `python_class` gives a PySide6 class these manners, and hides
what Slicer's Qt does not have where the real class is known (api.json).
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtWidgets

from Testing.slicer_stand_in import api

# Exceptions of slots. PythonQt prints them and goes on; tests want them empty at the end.
slot_errors: list[BaseException] = []

# While PySide6 reads a .ui file it hangs each child on the widget as an attribute; PythonQt does not.
reading_ui_file: list[str] = []

# Qt calls these while it lays out and draws; as attributes they would be found instead of C++'s own.
_LEFT_AS_METHODS = frozenset({"sizeHint", "minimumSizeHint"})
_CALLED_BY_QT = frozenset(
    {"connectNotify", "disconnectNotify", "event", "eventFilter", "initViewItemOption",
     "itemDelegateForIndex", "painters", "skipData"}
)  # fmt: skip
_CALLED_BY_PYSIDE = frozenset({"emit", "receivers", "staticMetaObject"})
_NEVER_HIDDEN = _CALLED_BY_QT | _CALLED_BY_PYSIDE
_METHOD = type(QtCore.QObject.objectName)


class BoundSignal:
    """A signal of one object: `connect`, `disconnect`, and emitted by a call, as in PythonQt."""

    def __init__(self, owner: QtCore.QObject, name: str) -> None:
        self._owner, self._name = owner, name

    def connect(self, function: Callable[..., Any]) -> bool:
        return connect(self._owner, self._signature(), function)

    def disconnect(self, function: Callable[..., Any] | None = None) -> bool:
        return disconnect(self._owner, self._signature(), function)

    def __call__(self, *values: Any) -> None:
        native_signal(self._owner, self._signature()).emit(*values)

    def _signature(self) -> str:
        """Of overloads the first; PythonQt does the same."""
        for signature in type(self._owner).signal_signatures_:
            if signature.split("(")[0] == self._name:
                return signature
        raise AttributeError(self._name)


class _SignalAttribute:
    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: QtCore.QObject | None, kind: type) -> Any:
        return self if owner is None else BoundSignal(owner, self.name)

    def __set__(self, owner: QtCore.QObject, value: Any) -> None:
        raise AttributeError(f"{self.name} is a signal")


class _Hidden:
    """A member that PySide6 has and Slicer's Qt 5 has not."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name

    def __get__(self, owner: object, kind: type) -> Any:
        raise AttributeError(f"Slicer's {self.kind} has no '{self.name}' (see api.json)")

    def __set__(self, owner: object, value: Any) -> None:
        raise AttributeError(f"Slicer's {self.kind} has no '{self.name}' (see api.json)")


def _argument_count(function: Callable[..., Any]) -> int | None:
    """How many values PythonQt hands to a callable: all, where it cannot count. Defaults count too."""
    if inspect.isfunction(function):
        code, bound = function.__code__, 0
    elif inspect.ismethod(function) and inspect.isfunction(function.__func__):
        code, bound = function.__func__.__code__, 1
    else:
        return None
    return None if code.co_flags & inspect.CO_VARARGS else code.co_argcount - bound


def _relay(function: Callable[..., Any], arity: int) -> Callable[..., None]:
    """A function of exactly `arity` values that calls `function` as PythonQt would."""
    wanted = _argument_count(function)

    def call(*values: Any) -> None:
        try:
            function(*(values if wanted is None else values[:wanted]))
        except Exception as error:  # noqa: BLE001 -- PythonQt, too, prints it and goes on
            slot_errors.append(error)
            traceback.print_exc()

    fixed = {
        0: lambda: call(),
        1: lambda a: call(a),
        2: lambda a, b: call(a, b),
        3: lambda a, b, c: call(a, b, c),
        4: lambda a, b, c, d: call(a, b, c, d),
    }
    return fixed[arity]


def emit(owner: QtCore.QObject, signature: str, *values: Any) -> None:
    """Emit a signal from inside a stand-in."""
    native_signal(owner, signature).emit(*values)


def _split(signature: str) -> tuple[str, list[str]]:
    name, _, rest = signature.partition("(")
    inside = rest.rstrip(")")
    return name, inside.split(",") if inside else []


def native_signal(owner: QtCore.QObject, signature: str) -> Any:
    """PySide6's signal of a signature of Qt 5."""
    name, types = _split(signature)
    signal = inspect.getattr_static(type(owner).native_, name, None)
    if signal is None:
        raise NotImplementedError(
            f"{signature} exists in Slicer; the stand-in (Qt 6) does not have it"
        )
    bound = owner.__dict__.get("_native_signals", {}).get(name) or signal.__get__(
        owner, type(owner)
    )
    by_python = {"bool": bool, "int": int, "QString": str}
    # Overloads of our own signals: the plain one takes a Python object, others are asked by type.
    overloads = str(signal).split(";")
    if len(overloads) > 1 and len(types) == 1 and types[0] in by_python:
        return bound[by_python[types[0]]]
    return bound


def connect(owner: QtCore.QObject, signature: str, *target: Any) -> bool:
    """`owner.connect("signal(type)", function)` or `owner.connect("signal(type)", object, "slot(type)")`.

    Raises: ValueError: where PythonQt would print a warning and return False.
    """
    kind = type(owner)
    signature = signature.replace(" ", "")
    if signature not in kind.signal_signatures_:
        raise ValueError(f"{kind.__name__} has no signal {signature!r}")
    function = target[0] if len(target) == 1 else getattr(target[0], _split(target[1])[0])
    if not callable(function):
        raise TypeError(f"{function!r} cannot be connected to {signature}")
    native = native_signal(owner, signature)
    arity = len(_split(signature)[1])
    relay = _relay(function, arity)
    native.connect(relay)
    owner.__dict__.setdefault("_connections", []).append((signature, function, relay))
    return True


def disconnect(owner: QtCore.QObject, signature: str, *target: Any) -> bool:
    """Undo `connect`; without a function all of the signature's connections."""
    signature = signature.replace(" ", "")
    kept, done = [], False
    function = None
    if target and target[0] is not None:
        function = target[0] if len(target) == 1 else getattr(target[0], _split(target[1])[0])
    for connection in owner.__dict__.get("_connections", []):
        if connection[0] == signature and (function is None or connection[1] == function):
            native_signal(owner, signature).disconnect(connection[2])
            done = True
        else:
            kept.append(connection)
    owner.__dict__["_connections"] = kept
    return done


def _connect_any(owner: QtCore.QObject, *arguments: Any) -> bool:
    if (native := _of_pyside(owner, arguments)) is not None:
        return QtCore.QObject.connect(*native)
    return connect(owner, *arguments)


def _disconnect_any(owner: QtCore.QObject, *arguments: Any) -> bool:
    if (native := _of_pyside(owner, arguments)) is not None:
        return QtCore.QObject.disconnect(*native)
    return disconnect(owner, *arguments)


def _of_pyside(owner: QtCore.QObject, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Arguments for QObject's own function where PySide6's SignalInstance calls `owner.connect`."""
    if not isinstance(arguments[0], str):
        return arguments  # PySide6 6.8: the sender comes first
    return (owner, *arguments) if arguments[0][:1] in ("1", "2") else None


class _Manners:
    """What PythonQt adds to every QObject."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        # Shiboken answers `connect`, `disconnect` and signals itself, unless they lie on the object.
        self.__dict__["connect"] = functools.partial(_connect_any, self)
        self.__dict__["disconnect"] = functools.partial(_disconnect_any, self)
        names = {_split(signature)[0] for signature in type(self).signal_signatures_}
        native = {name: getattr(self, name, None) for name in names}
        self.__dict__["_native_signals"] = native
        self.__dict__.update({name: BoundSignal(self, name) for name in names})

    def className(self) -> str:
        return type(self).__name__

    def delete(self) -> None:
        QtCore.QObject.deleteLater(self)

    @property
    def name(self) -> str:
        return QtCore.QObject.objectName(self)

    @name.setter
    def name(self, value: str) -> None:
        QtCore.QObject.setObjectName(self, value)

    def findChild(self, kind: type | str, name: str = "") -> Any:
        found = self.findChildren(kind, name)
        return found[0] if found else None

    def findChildren(self, kind: type | str = QtCore.QObject, name: str = "") -> list[Any]:
        if isinstance(kind, str):
            every = QtCore.QObject.findChildren(self, QtCore.QObject)
            found = [child for child in every if QtCore.QObject.inherits(child, kind)]
        else:
            found = QtCore.QObject.findChildren(self, getattr(kind, "native_", kind))
        return [child for child in found if not name or QtCore.QObject.objectName(child) == name]

    def raise_(self) -> None:
        QtWidgets.QWidget.raise_(self)

    def __setattr__(self, key: str, value: Any) -> None:
        attribute = inspect.getattr_static(type(self), key, None)
        if key.startswith("_"):
            self.__dict__[key] = value
        elif isinstance(attribute, QtCore.Property):
            super().__setattr__(key, value)
        elif hasattr(type(attribute), "__set__"):
            attribute.__set__(self, value)
        elif (
            type(self).__dict__.get("native_") is None
        ):  # a Python class of its own, derived from ours
            self.__dict__[key] = value
        elif not reading_ui_file:
            raise AttributeError(
                f"{type(self).__name__} has no property '{key}', and C++ objects take no new attributes"
            )


class _PropertyAttribute:
    """A property of a PySide6 class; on the class itself the function of that name is found."""

    def __init__(self, native: type, name: str) -> None:
        capital = name[0].upper() + name[1:]
        getters = (getattr(native, key, None) for key in (name, f"is{capital}", f"has{capital}"))
        index = native.staticMetaObject.indexOfProperty(name)
        settable = index >= 0 and native.staticMetaObject.property(index).isWritable()
        self._native, self._name, self._settable = native, name, settable
        self._get = next((g for g in getters if isinstance(g, _METHOD)), None)
        self._set = getattr(native, f"set{capital}", None)

    def __get__(self, owner: QtCore.QObject | None, kind: type) -> Any:
        if owner is None:
            return getattr(self._native, self._name, self)
        return self._get(owner) if self._get else QtCore.QObject.property(owner, self._name)

    def __set__(self, owner: QtCore.QObject, value: Any) -> None:
        if not self._settable:
            raise AttributeError(f"{self._name} is read only")
        if self._set:
            self._set(owner, value)
        else:
            QtCore.QObject.setProperty(owner, self._name, value)


@functools.cache
def python_class(native: type, name: str | None = None) -> type:
    """The class as PythonQt presents it.

    Args:
        native: a PySide6 class derived from QObject, or one of ours derived from such a class.
        name: its name in Slicer, under which api.json describes it.
    """
    name = name or native.__name__
    meta = native.staticMetaObject
    in_qt = {meta.property(i).name() for i in range(meta.propertyCount())}
    own_signals = [
        bytes(meta.method(i).methodSignature()).decode()
        for i in range(meta.methodCount())
        if meta.method(i).methodType() == QtCore.QMetaMethod.MethodType.Signal
    ]
    allowed = api.allowed_names(name)
    described = api.described(name) is not None
    members: dict[str, Any] = {
        "native_": native,
        "signal_signatures_": api.signal_signatures(name) if described else tuple(own_signals),
        "__module__": native.__module__,
        "__doc__": native.__doc__,
    }
    if allowed is not None:
        shown = allowed | _NEVER_HIDDEN
        for key in dir(native):
            if not key.startswith("_") and not key.endswith("Event") and key not in shown:
                members[key] = _Hidden(name, key)
    for signature in members["signal_signatures_"]:
        members[_split(signature)[0]] = _SignalAttribute(_split(signature)[0])
    properties = (api.property_names(name) & (in_qt | set(dir(native)))) if described else in_qt
    for key in properties - _LEFT_AS_METHODS:
        if not isinstance(inspect.getattr_static(native, key, None), QtCore.Property):
            members[key] = _PropertyAttribute(native, key)
    if "name" in (api.property_names(name) if described else ()):
        members["name"] = inspect.getattr_static(native, "name")  # its own, not the object's name
    return type(name, (_Manners, native), members)
