"""The layouts of weight files: torch's zip (since 1.6), its older stream of pickles, safetensors.

Each is opened without executing anything and without reading the weights.
"""

from __future__ import annotations

import io
import mmap
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from difftumor.remedies import with_remedy
from difftumor.weights.cards import ModelError
from difftumor.weights.files import STORAGES, Storage, StoredTensor, WeightFile
from difftumor.weights.foreign_files import describe_foreign
from difftumor.weights.inert_pickle import Call, Global, PickleError, Reference, read_inert

NATIVE = sys.byteorder.encode()
LARGEST_STRUCTURE = 64 << 20  # bytes of pickle; the published files have about 0.1 MB
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
LEGACY_PROTOCOL = 1001
UNKNOWN_PICKLE = (
    "is a Python pickle, but not one that torch.save wrote; it is not opened, because pickles can "
    "run programs.",
    "Ask its maker for a file of torch.save(model.state_dict(), ...) or for safetensors.",
)
UNKNOWN_BYTES = (
    "is not a weight file that this program knows (PyTorch .pt, .pth, .ckpt, or .safetensors).",
    "Check that it is the right file, and that the download is complete.",
)


def open_weights(path: Path) -> WeightFile:
    """Open a weight file of any known layout; nothing in it is executed.

    Args:
        path: a file; folders are model folders and read elsewhere.

    Raises:
        ModelError: says what the file is instead, or what is wrong with it.
    """
    try:
        if not path.is_file():
            raise ModelError(f"There is no file at {path}. Check the path.")
        foreign = describe_foreign(path)
        if foreign:
            raise with_remedy(ModelError(f"{path.name} {foreign.message}"), foreign.remedy)
        opened = WeightFile(path)
        with path.open("rb") as file:
            head = file.read(9)
        if head[:4] == b"PK\x03\x04":
            return _open_zip(opened)
        if head[8:9] == b"{":
            return _open_safetensors(opened)
        return _open_legacy(opened)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror or error}). Check that the disk is there and "
            "that you may read the file."
        ) from error


def _open_safetensors(opened: WeightFile) -> WeightFile:
    """Names and shapes of a safetensors file."""
    try:
        handle: Any = safetensors.safe_open(str(opened.path), framework="pt")
        opened.content = {
            name: StoredTensor(
                tuple(handle.get_slice(name).get_shape()), partial(_safe_tensor, opened, name)
            )
            for name in handle.keys()  # noqa: SIM118 (not a dict)
        }
    except safetensors.SafetensorError as error:
        raise opened.problem(f"is a damaged or incomplete safetensors file ({error}).") from error
    opened.container, opened.handle = "safetensors", handle
    return opened


def _safe_tensor(opened: WeightFile, name: str) -> Tensor:
    """A tensor in memory of its own; the library's would keep the file open."""
    tensor: Tensor = opened.handle.get_tensor(name).clone()
    return tensor


def _open_zip(opened: WeightFile) -> WeightFile:
    """Structure of a zip file of torch: <name>/data.pkl, and <name>/data/<key> for each storage."""
    with zipfile.ZipFile(opened.path) as archive:
        listed = archive.infolist()
    members = {member.filename: member for member in listed}
    structures = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(structures) != 1 or len(members) < len(listed):
        raise opened.problem("holds several checkpoints; one was expected.", "Unpack it first.")
    root = structures[0].removesuffix("data.pkl")
    opened.container, opened.file = "torch", opened.path.open("rb")
    try:
        size = members[structures[0]].file_size
        if size > LARGEST_STRUCTURE:
            raise opened.problem(f"has a structure of {size} bytes, too large for a model.")
        places = {name: _place(opened, member) for name, member in members.items()}
        structure = bytes(opened.bytes_of(places[structures[0]]))
        opened.content = _read_structure(opened, io.BytesIO(structure))
        order = places.get(f"{root}byteorder")
        opened.swapped = order is not None and bytes(opened.bytes_of(order)) != NATIVE
        folder = f"{root}data/"
        opened.storages = {
            name.removeprefix(folder): place
            for name, place in places.items()
            if name.startswith(folder)
        }
    except BaseException:
        opened.file.close()
        raise
    return opened


def _place(opened: WeightFile, member: zipfile.ZipInfo) -> Storage:
    """Where the bytes of an uncompressed zip member begin; torch writes no others."""
    assert opened.file is not None
    opened.file.seek(member.header_offset)
    local = opened.file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise opened.problem("is damaged: its table of contents does not fit.")
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise opened.problem(
            "was packed again (its parts are compressed or encrypted).", "Use the original file."
        )
    extra = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    start = member.header_offset + 30 + extra
    if start + member.file_size > opened.path.stat().st_size:
        raise opened.problem("is incomplete: the download was cut off.")
    return Storage(start, member.file_size, member.CRC)


def _open_legacy(opened: WeightFile) -> WeightFile:
    """Structure of a torch file before 1.6: five pickles, then the storages one after another."""
    opened.container, opened.file = "torch-legacy", opened.path.open("rb")
    try:
        with mmap.mmap(opened.file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            stream: Any = mapped
            try:
                magic = read_inert(stream) if stream[:1] == b"\x80" else None
            except PickleError:
                magic = None
            if magic != LEGACY_MAGIC:
                raise opened.problem(*UNKNOWN_PICKLE if stream[:1] == b"\x80" else UNKNOWN_BYTES)
            protocol, system, opened.content, keys = (
                _read_structure(opened, stream) for _ in range(4)
            )
            start = stream.tell()
        if protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
            raise opened.problem("was written by an unknown version of PyTorch.")
        opened.swapped = system.get("little_endian", True) != (sys.byteorder == "little")
        _index_storages(opened, keys, start)
    except BaseException:
        opened.file.close()
        raise
    return opened


def _index_storages(opened: WeightFile, keys: Any, start: int) -> None:
    """Find the storages behind the structure: each is a count of elements and the elements."""
    assert opened.file is not None
    sizes = _element_sizes(opened.content)
    end = opened.path.stat().st_size
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise opened.problem("is damaged: it has no list of its parts.")
    for key in keys:
        opened.file.seek(start)
        count = int.from_bytes(opened.file.read(8), "little", signed=True)
        length = count * sizes.get(key, 1)
        if count < 0 or start + 8 + length > end:
            raise opened.problem("is incomplete: the download was cut off.")
        opened.storages[key] = Storage(start + 8, length)
        start += 8 + length


def _element_sizes(content: Any) -> dict[str, int]:
    """Bytes per element of every storage that the structure refers to, by key."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, (dict, list, tuple, Call, Reference)):
            seen.add(id(value))
        if isinstance(value, Reference):
            identity = value.identity
            if isinstance(identity, tuple) and len(identity) > 2 and isinstance(identity[2], str):
                kind = identity[1]
                dtype = STORAGES.get(kind.name) if isinstance(kind, Global) else None
                sizes[identity[2]] = dtype.itemsize if dtype else 1
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif isinstance(value, Call):
            waiting.extend((value.arguments, value.state))
    return sizes


def _read_structure(opened: WeightFile, stream: Any) -> Any:
    try:
        return read_inert(stream)
    except PickleError as error:
        raise opened.problem(f"is damaged or incomplete ({str(error)[:200]}).") from error
