"""An open weight file: what is in it, and single tensors read on demand.

The structure comes from `weights.inert_pickle`, so nothing in the file is executed; a tensor is a place in the
file until it is read, so nothing is in memory that was not asked for (`weights.layouts` opens files).

Differs from torch.load(weights_only=True): that reads whole files, refuses the published Lightning file,
and still calls a list of functions that the file may choose from.  Here no function can be chosen.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from difftumor.weights.cards import ModelError
from difftumor.weights.inert_pickle import Call, Global, Reference

DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
STORAGES = {f"torch.{name}Storage": dtype for name, dtype in DTYPES.items()}
REBUILD = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
WRAPPERS = frozenset(
    {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that has not been read yet.

    Attributes:
        shape: its sizes, as the file claims them; checked when read.
        read: gives the tensor, contiguous, on the CPU, in memory of its own; raises ModelError.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the numbers of one or several tensors lie: `length` bytes from `start`."""

    start: int
    length: int
    crc: int = 0  # 0: not known


@dataclass
class WeightFile:
    """An open weight file; use it in a `with` statement.

    Attributes:
        container: "torch", "torch-legacy" or "safetensors".
        content: what the file holds, in plain containers; tensors are found by `stored_tensor`.
    """

    path: Path
    container: str = ""
    content: Any = None
    file: BinaryIO | None = None
    storages: dict[str, Storage] = field(default_factory=dict)
    swapped: bool = False
    handle: Any = None
    read_before: dict[Any, Tensor] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.handle = None
        if self.file:
            self.file.close()

    def problem(self, text: str, remedy: str = "Get the file again.") -> ModelError:
        """An error about this file."""
        return ModelError(f"{self.path.name} {text} {remedy}")

    def stored_tensor(self, value: Any) -> StoredTensor | None:
        """The tensor that a value of `content` stands for; None if it is none.

        Unusual tensors (quantized, sparse, subclasses) are recognized but cannot be read.
        """
        if isinstance(value, StoredTensor):
            return value
        while isinstance(value, Call) and value.name in WRAPPERS and value.arguments:
            value = value.arguments[0]
        if not isinstance(value, Call):
            return None
        if value.name in REBUILD and len(value.arguments) >= 4:
            reference, offset, size, stride = value.arguments[:4]
            shape, steps = _plain_integers(size), _plain_integers(stride)
            if shape is None or steps is None or not _is_count(offset):
                raise self.problem("describes a tensor of impossible shape.")
            return StoredTensor(shape, lambda: self._read(reference, offset, shape, steps))
        if value.name.startswith(("torch._utils._rebuild", "torch._tensor._rebuild")):
            return StoredTensor((), lambda: self._refuse(value.name))
        return None

    def _refuse(self, name: str) -> Tensor:
        raise self.problem(
            f"stores a tensor in an unusual way ({name}), which is not read here.",
            "Save the state_dict again with plain dense tensors.",
        )

    def _read(
        self, reference: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """Read one tensor of a torch file, after checking every claim against the file's size."""
        dtype, storage, first = self._locate(reference)
        offset += first
        # DynUNet names its tensors twice: one copy serves both.
        place = (storage.start, dtype, offset, shape, stride)
        if place not in self.read_before:
            self.read_before[place] = self._read_at(storage, dtype, offset, shape, stride)
        return self.read_before[place]

    def _read_at(
        self,
        storage: Storage,
        dtype: torch.dtype,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> Tensor:
        available = storage.length // dtype.itemsize
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=False))
        if len(shape) != len(stride) or count > available or (count and last >= available):
            raise self.problem(
                f"claims a tensor of shape {shape} that its {available} stored numbers cannot hold."
            )
        if not count:
            return torch.empty(shape, dtype=dtype)
        flat = torch.frombuffer(self.bytes_of(storage), dtype=dtype)
        if self.swapped:
            flat.untyped_storage().byteswap(dtype)
        tensor = flat.as_strided(shape, stride, offset)
        # A part of a large storage must not keep the whole alive.
        return tensor.contiguous() if count == available else tensor.clone().contiguous()

    def _locate(self, reference: Any) -> tuple[torch.dtype, Storage, int]:
        """Data type, place, and first element of a storage that the structure refers to."""
        identity = reference.identity if isinstance(reference, Reference) else None
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise self.problem("refers to numbers in a way that torch does not use.")
        _, kind, key, _, count, *view = identity
        dtype = STORAGES.get(kind.name) if isinstance(kind, Global) else None
        if dtype is None:
            name = kind.name if isinstance(kind, Global) else type(kind).__name__
            raise self.problem(f"stores numbers of an unknown type ({name[:80]}).")
        storage = self.storages.get(key) if isinstance(key, str) else None
        if storage is None or not _is_count(count):
            raise self.problem("is damaged: it refers to numbers that are not there.")
        if count * dtype.itemsize != storage.length:
            raise self.problem(
                f"is damaged: storage {key[:40]!r} should hold {count} numbers of {dtype}, "
                f"{storage.length} bytes are there."
            )
        first = 0
        if view and view[0] is not None:
            place = _plain_integers(view[0][1:]) if isinstance(view[0], tuple) else None
            if place is None or len(place) != 2:
                raise self.problem("refers to numbers in a way that torch does not use.")
            first = place[0]
        return dtype, storage, first

    def bytes_of(self, storage: Storage) -> bytearray:
        """The bytes of a storage, in memory of their own."""
        assert self.file is not None
        data = bytearray(storage.length)
        self.file.seek(storage.start)
        if self.file.readinto(data) != storage.length:  # type: ignore[attr-defined]
            raise self.problem("ended while it was read.")
        if storage.crc and zlib.crc32(data) != storage.crc:
            raise self.problem("is damaged: a checksum inside does not match.")
        return data


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _plain_integers(value: Any) -> tuple[int, ...] | None:
    """Sizes or strides as the file gives them: a tuple, or a record of torch.Size."""
    if isinstance(value, Call) and value.name == "torch.Size" and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, (tuple, list)) or len(value) > 32:
        return None
    return tuple(value) if all(_is_count(number) for number in value) else None
