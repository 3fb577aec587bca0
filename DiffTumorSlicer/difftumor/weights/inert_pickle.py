"""A pickle reader without the instructions that run code.

Python's unpickler imports what a file names and calls it; that is how a weight file takes over a machine.
This one interprets the same opcodes, but *nothing is ever imported or called*: a class or function
becomes a `Global` (its name), a call becomes a `Call` (a record of name and arguments), a persistent id a
`Reference`.  Whoever wants tensors looks for the records of torch's rebuild functions (`weights.files`).

Opcodes are taken apart by `pickletools` of the standard library; no torch, no omegaconf, no Lightning.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_OPCODES = 5_000_000  # the published files have some ten thousand
SCALARS = (str, int, float, bytes, type(None))


class PickleError(ValueError):
    """The bytes are no pickle, a damaged one, or one beyond the limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A class or function that the file names; here it stays a name."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """What the file wanted to have called or built, and with what."""

    target: Any
    arguments: tuple[Any, ...]
    state: Any = None

    @property
    def name(self) -> str:
        """Dotted name of the callable, "" if it is no plain name."""
        return self.target.name if isinstance(self.target, Global) else ""

    def __repr__(self) -> str:
        # Short: a file decides how deep these nest.
        return f"Call({self.name or type(self.target).__name__}, {len(self.arguments)} arguments)"


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A persistent id: in torch files a storage."""

    identity: Any


# Containers whose content matters; anything else that is called stays a record.
MAPPINGS = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.Counter",
        "builtins.dict",
        "__builtin__.dict",
    }
)
LITERALS = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT
    BINFLOAT""".split()  # noqa: SIM905 (one per line would fill a page)
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
FACTORIES: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # a set's members may be records; their order is the file's
}


def read_inert(stream: BinaryIO) -> Any:
    """Read one pickle and leave the stream behind its end.

    Args:
        stream: with read, readline and tell (BytesIO, mmap, a binary file), at the first byte.

    Returns:
        None, bool, int, float, str, bytes, list, tuple, dict, and records of all else.

    Raises:
        PickleError: truncated, unknown opcode, unsound, or too long.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MOST_OPCODES:
                raise PickleError(f"more than {MOST_OPCODES} instructions")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    # Whatever a crafted or broken stream provokes in plain containers; nothing else runs in here.
    except (ArithmeticError, AssertionError, AttributeError, EOFError) as error:
        raise PickleError(str(error) or type(error).__name__) from error
    except (LookupError, MemoryError, TypeError, ValueError) as error:
        raise PickleError(str(error) or type(error).__name__) from error
    raise PickleError("no end")


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def step(self, name: str, argument: Any) -> None:
        """Interpret one opcode."""
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in FACTORIES:
            self.stack.append(FACTORIES[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            handler = getattr(self, f"op_{name.lower()}", None)
            if handler is None:
                raise PickleError(f"instruction {name} is not used by weight files")
            handler(argument)

    def pop_mark(self) -> list[Any]:
        """Everything since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def op_mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def op_pop_mark(self, _: Any) -> None:
        self.pop_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_tuple(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def op_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self, _: Any) -> None:
        second, first = self.stack.pop(), self.stack.pop()
        self.stack.append((first, second))

    def op_tuple3(self, _: Any) -> None:
        third, second, first = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append((first, second, third))

    def op_list(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    op_frozenset = op_list

    def op_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set_items(items)

    def op_append(self, _: Any) -> None:
        value = self.stack.pop()
        self._extend([value])

    def op_appends(self, _: Any) -> None:
        self._extend(self.pop_mark())

    op_additems = op_appends

    def op_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def op_setitems(self, _: Any) -> None:
        self._set_items(self.pop_mark())

    def op_global(self, argument: str) -> None:
        self.stack.append(Global(argument.replace(" ", ".", 1)))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleError("a class is named by something that is no text")
        self.stack.append(Global(f"{module}.{name}"))

    def op_ext1(self, code: int) -> None:
        self.stack.append(Global(f"copyreg extension {code}"))

    op_ext2 = op_ext4 = op_ext1

    def op_reduce(self, _: Any) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        self._record(target, arguments)

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        self.stack.pop()  # keyword arguments
        self.op_reduce(None)

    def op_obj(self, _: Any) -> None:
        target, *arguments = self.pop_mark()
        self._record(target, tuple(arguments))

    def op_inst(self, argument: str) -> None:
        arguments = self.pop_mark()
        self._record(Global(argument.replace(" ", ".", 1)), tuple(arguments))

    def op_build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def op_persid(self, argument: str) -> None:
        self.stack.append(Reference(argument))

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(Reference(self.stack.pop()))

    def _record(self, target: Any, arguments: Any) -> None:
        """Keep a call as a record; the mappings of the standard library become dicts."""
        if not isinstance(arguments, tuple):
            raise PickleError("the arguments of a call are no tuple")
        if isinstance(target, Global) and target.name in MAPPINGS:
            self.stack.append({})
            for given in arguments:
                if isinstance(given, (dict, list)):
                    self.copied += len(given)  # a few bytes can ask for a large copy, often
                    if self.copied > MOST_OPCODES:
                        raise PickleError("too many copies of mappings")
                if isinstance(given, dict):
                    self.stack[-1].update(given)
                elif isinstance(given, list):
                    self._set_items([part for pair in given for part in pair[:2]])
        else:
            self.stack.append(Call(target, arguments))

    def _extend(self, values: list[Any]) -> None:
        """Append to a list; what goes into a record of an unknown class is of no use."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
        elif not isinstance(self.stack[-1], Call):
            raise PickleError("items are appended to something that is no list")

    def _set_items(self, flat: list[Any]) -> None:
        """Add [key, value, key, value, ...] to the mapping on the stack.

        Only plain keys are kept: state dicts have no others, and hashing a deep tuple can crash Python.
        """
        mapping = self.stack[-1]
        if isinstance(mapping, dict):
            for key, value in zip(flat[::2], flat[1::2], strict=True):
                if isinstance(key, SCALARS):
                    mapping[key] = value
        elif not isinstance(mapping, Call):
            raise PickleError("items are set in something that is no mapping")
