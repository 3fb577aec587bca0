"""Crafted weight files: whatever they ask for, nothing is executed, and the answer is a sentence.

Each payload is first given to Python's own unpickler, which must fall for it: otherwise the test would
prove nothing.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from difftumor.weights.checkpoints import identify, read_checkpoint
from difftumor.weights.inert_pickle import Call, Global, PickleError, read_inert
from difftumor.weights.layouts import LEGACY_MAGIC, LEGACY_PROTOCOL
from difftumor.weights.models import ModelError

KEYS = ("model.0.conv.unit0.conv.weight", "model.2.0.conv.weight")  # enough to be a U-Net
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="the payloads run `touch`")


class Reduced:
    """Unpickling it calls `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickles that create the canary when Python's unpickler reads them."""
    command = f"touch {canary}"
    code = f"__import__('os').system({command!r})"
    quoted = repr(command).encode()
    found = {
        f"reduce, protocol {n}": pickle.dumps(Reduced(os.system, command), n) for n in range(6)
    }
    found |= {
        "GLOBAL": b"cos\nsystem\n(S" + quoted + b"\ntR.",
        "GLOBAL posix": b"cposix\nsystem\n(S" + quoted + b"\ntR.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + text(command) + b"\x85R.",
        "INST": b"(S" + quoted + b"\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS" + quoted + b"\no.",
        "eval": pickle.dumps(Reduced(eval, code)),
        "exec": pickle.dumps(Reduced(exec, code)),
        "python 2 builtins": b"c__builtin__\neval\n(" + text(code) + b"tR.",
        "getattr chain": b"cbuiltins\ngetattr\n(cos\n__dict__\nX\x03\0\0\0gettR0"
        + b"cos\nsystem\n(" + text(command) + b"tR.",
        "import_module": b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(X\x02\0\0\0ostR"
        + text("system") + b"tR(" + text(command) + b"tR.",
        "partial": b"cfunctools\npartial\n(cos\nsystem\n" + text(command) + b"tR(tR.",
        "in a dict key": b"}(cos\nsystem\n(S" + quoted + b"\ntRK\x01u.",
        "in a list": b"](cos\nsystem\n(S" + quoted + b"\ntRe.",
        "in an OrderedDict": b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'k'\nacos\nsystem\n(S"
        + quoted + b"\ntRaatR.",
        "as a state": b"ccollections\nOrderedDict\n)R}X\x01\0\0\0acos\nsystem\n(S" + quoted + b"\ntRsb.",
        "memo": b"(S" + quoted + b"\ntp0\n0cos\nsystem\ng0\nR.",
        "numpy": b"cnumpy.f2py.crackfortran\nmyeval\n(" + text(code) + b"tR.",
        "nested torch file": pickle.dumps(
            Reduced(torch.storage._load_from_bytes, pickle.dumps(Reduced(os.system, command)))
        ),
        "Popen": pickle.dumps(Reduced(__import__("subprocess").call, ["touch", str(canary)])),
        "runpy": pickle.dumps(Reduced(exec, f"import pathlib; pathlib.Path({str(canary)!r}).touch()")),
    }  # fmt: skip
    return found


# torch.load adds its own steps, and Fortran tools may be missing: these need not fall here.
WITHOUT_CONTROL = ("nested torch file", "numpy")
PAYLOAD_NAMES = tuple(payloads(Path("canary")))


def zip_file(path: Path, structure: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A torch zip file around any structure."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", structure)
        archive.writestr("x/byteorder", "little")
        for key, data in (storages or {}).items():
            archive.writestr(f"x/data/{key}", data)
        archive.writestr("x/version", "3\n")
    return path


def legacy_file(path: Path, parts: list[bytes], storages: bytes = b"") -> Path:
    """A torch stream of pickles: magic, protocol, system, structure, storage keys."""
    path.write_bytes(b"".join(parts) + storages)
    return path


def tensor_record(
    key=b"0", count=4, kind=b"ctorch\nFloatStorage\n", size=(4,), stride=(1,), offset=0
) -> bytes:
    """Pickle code of one tensor of torch."""
    storage = (
        b"(" + text("storage") + kind + text(key.decode()) + text("cpu") + number(count) + b"tQ"
    )
    shape = b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t"
    tail = b"\x89ccollections\nOrderedDict\n)Rt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + shape + tail + b"R"


def number(value: int) -> bytes:
    return b"I%d\n" % value


def state_dict(record: bytes, more: bytes = b"") -> bytes:
    """A dict of two tensors that looks like a U-Net."""
    entries = b"".join(text(key) + record for key in KEYS)
    return b"\x80\x02}(" + entries + more + b"u."


def refused_or_read(path: Path) -> str:
    """Message of the refusal, or ""; any other exception fails the test."""
    message = ""
    for action in (identify, read_checkpoint):
        try:
            action(path)
        except ModelError as error:
            message = str(error)
    return message


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@posix_only
@pytest.mark.parametrize("name", PAYLOAD_NAMES)
def test_no_payload_runs_in_any_place_of_any_container(name: str, tmp_path: Path, canary: Path):
    payload = payloads(canary)[name]
    if name not in WITHOUT_CONTROL:
        pickle.loads(payload)
        assert canary.exists(), "the payload is a dud: the test would prove nothing"
        canary.unlink()
    body = payload.removesuffix(b".")
    if body[:1] == b"\x80":
        body = body[2:]
    if body[:1] == b"\x95":  # a frame, only possible at the beginning
        body = body[9:]
    legacy = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {}, {}, [])]
    paths = [zip_file(tmp_path / "whole.pt", payload)]
    paths.append(
        zip_file(
            tmp_path / "beside.pt",
            state_dict(tensor_record(), text("hyper_parameters") + body),
            {"0": b"\0" * 16},
        )
    )
    kind = tensor_record(kind=body)
    paths.append(zip_file(tmp_path / "kind.pt", state_dict(kind), {"0": b"\0" * 16}))
    for position in range(5):
        parts = [*legacy[:position], payload, *legacy[position + 1 :]]
        paths.append(legacy_file(tmp_path / f"legacy{position}.pt", parts))
    paths.append(tmp_path / "bare.pkl")
    paths[-1].write_bytes(payload)
    messages = {path.name: refused_or_read(path) for path in paths}
    assert not canary.exists()
    assert not messages.pop("beside.pt"), "good tensors beside bad things are read"
    assert all(messages.values()), messages


@posix_only
def test_a_lightning_file_with_a_payload_in_its_hyper_parameters_gives_its_tensors(
    tmp_path: Path, canary: Path
):
    path = tmp_path / "evil.ckpt"
    state = {key: torch.randn(3, 2) for key in KEYS}
    evil = {"cfg": {"a": [Reduced(os.system, f"touch {canary}")]}}
    for zipped in (True, False):
        torch.save(
            {"state_dict": state, "hyper_parameters": evil},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        found = read_checkpoint(path).tensors
        assert not canary.exists()
        assert all(torch.equal(found[key], state[key]) for key in KEYS)
    torch.load(path, weights_only=False)
    assert canary.exists(), "the payload is a dud"


@posix_only
@pytest.mark.parametrize("opcode", [b"\x81", b"\x92"])  # NEWOBJ, NEWOBJ_EX
def test_objects_are_not_made(opcode: bytes, canary: Path, tmp_path: Path):
    arguments = text(f"touch {canary}") + b"\x85" + (b"}" if opcode == b"\x92" else b"")
    payload = b"\x80\x04csubprocess\nPopen\n" + arguments + opcode + b"."
    value = read_inert(io.BytesIO(payload))
    assert isinstance(value, Call)
    assert value.name == "subprocess.Popen"
    assert refused_or_read(zip_file(tmp_path / "x.pt", payload))
    assert not canary.exists()


def test_extension_codes_and_out_of_band_buffers_are_not_looked_up():
    assert isinstance(read_inert(io.BytesIO(b"\x80\x02\x82\x05.")), Global)
    with pytest.raises(PickleError, match="not used by weight files"):
        read_inert(io.BytesIO(b"\x80\x05\x97."))


def test_setting_state_does_not_touch_anything_real(tmp_path: Path):
    # BUILD on a class would set its attributes in Python's unpickler.
    payload = b"ctorch\nTensor\n}X\x04\0\0\0grewX\x01\0\0\0xsb."
    assert refused_or_read(zip_file(tmp_path / "x.pt", payload))
    assert not hasattr(torch.Tensor, "grew")


LIES = {
    "more numbers than there are": tensor_record(count=4_000_000_000),
    "fewer numbers than there are": tensor_record(count=2, size=(2,)),
    "a negative count": tensor_record(count=-4),
    "a storage that is not there": tensor_record(key=b"7"),
    "a path as storage": tensor_record(key=b"../../etc/passwd"),
    "another data type": tensor_record(kind=b"ctorch\nDoubleStorage\n"),
    "an unknown data type": tensor_record(kind=b"cmy\nStorage\n"),
    "a text as data type": tensor_record(kind=text("FloatStorage")),
    "a shape beyond the storage": tensor_record(size=(5,)),
    "an offset beyond the storage": tensor_record(offset=1),
    "a negative offset": tensor_record(offset=-1),
    "a stride beyond the storage": tensor_record(stride=(2,)),
    "a negative stride": tensor_record(stride=(-1,)),
    "stride 0 for a huge tensor": tensor_record(size=(1 << 40, 1 << 40), stride=(0, 0)),
    "sizes that overflow": tensor_record(size=(1 << 62, 1 << 62), stride=(1, 1)),
    "a negative size": tensor_record(size=(-4,)),
    "sizes without strides": tensor_record(stride=()),
    "a thousand axes": tensor_record(size=(1,) * 1000, stride=(1,) * 1000),
    "no storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0K\x04\x85K\x01\x85tR",
    "a text as persistent id": b"ctorch._utils\n_rebuild_tensor_v2\n(" + text("x") + b"QK\0K\x04\x85K\x01\x85tR",
    "an empty persistent id": b"ctorch._utils\n_rebuild_tensor_v2\n()QK\0K\x04\x85K\x01\x85tR",
    "a list as storage key": tensor_record().replace(text("0"), b"]"),
    "a quantized tensor": b"ctorch._utils\n_rebuild_qtensor\n(NNNtR",
    "a tensor subclass": b"ctorch._tensor\n_rebuild_from_type_v2\n(NNNNtR",
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_tensor_that_lies_about_its_numbers_is_refused(name: str, tmp_path: Path):
    path = zip_file(tmp_path / "lie.pt", state_dict(LIES[name]), {"0": b"\0" * 16})
    with pytest.raises(ModelError, match=r"lie\.pt .*\."):
        read_checkpoint(path)
    legacy = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {})]
    legacy += [state_dict(LIES[name]), pickle.dumps(["0"], 2)]
    stored = struct.pack("<q", 4) + b"\0" * 16
    with pytest.raises(ModelError, match=r"old\.pt .*\."):
        read_checkpoint(legacy_file(tmp_path / "old.pt", legacy, stored))


@pytest.mark.parametrize("count", [1 << 40, -1, (1 << 63) - 1])
def test_a_legacy_storage_of_impossible_size_is_refused(count: int, tmp_path: Path):
    parts = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {})]
    parts += [state_dict(tensor_record()), pickle.dumps(["0"], 2)]
    path = legacy_file(tmp_path / "x.pt", parts, struct.pack("<q", count) + b"\0" * 16)
    with pytest.raises(ModelError, match="incomplete"):
        read_checkpoint(path)


BOMBS = {
    "a text of 2^62 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytes of 4 GB": b"\x80\x03B" + struct.pack("<I", 0xFFFFFFFF) + b"x.",
    "a far place in the memo": b"]r\xff\xff\xff\xff.",
    "a number of 2^31 digits": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "a decimal of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "tuples nested 60 000 deep": b")" + b"\x85" * 60_000 + b".",
    "lists nested 60 000 deep": b"]" * 60_000 + b"a" * 59_999 + b".",
    "a deep tuple as key": b"})" + b"\x85" * 60_000 + b"K\x01s.",
    "calls nested 60 000 deep": b"cx\ny\n" + b")R" * 60_000 + b".",
    "doubling lists": b"]" + b"2a" * 100_000 + b".",
    "endless marks": b"(" * 100_000 + b".",
    "an unknown opcode": b"\xff.",
    "nothing on the stack": b"R.",
    "a call of a number": b"K\x01)R.",
    "items for a number": b"K\x01K\x02a.",
    "state for nothing": b"b.",
    "a key that cannot be hashed": b"}]K\x01s.",
    "an odd number of items": b"}(K\x01u.",
    "no end": b"K\x01",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_structure_made_to_exhaust_the_machine_is_refused(name: str, tmp_path: Path):
    assert refused_or_read(zip_file(tmp_path / "bomb.pt", BOMBS[name]))
    parts = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, {})]
    assert refused_or_read(legacy_file(tmp_path / "old.pt", [*parts, BOMBS[name]]))


def test_many_copies_of_a_large_mapping_are_refused():
    items = b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(50_000))
    mapping = b"}(" + items + b"u"
    code = b"\x80\x02" + mapping + b"q\0" + b"0ccollections\nOrderedDict\nh\0\x85R" * 200 + b"."
    with pytest.raises(PickleError, match="copies"):
        read_inert(io.BytesIO(code))


def test_an_old_tar_checkpoint_is_named_and_not_opened(tmp_path: Path):
    path = tmp_path / "old.pt"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Reduced(os.system, f"touch {tmp_path / 'canary'}"))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(ModelError, match="before 2018"):
        read_checkpoint(path)
    assert not (tmp_path / "canary").exists()


def test_zip_tricks_are_refused(tmp_path: Path):
    good = state_dict(tensor_record())
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", good)
    twice = tmp_path / "twice.pt"
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("x/data.pkl", good)
        archive.writestr("y/data.pkl", good)
    shifted = zip_file(tmp_path / "shifted.pt", good, {"0": b"\0" * 16})
    shifted.write_bytes(shifted.read_bytes().replace(b"PK\x03\x04", b"PK\x03\x05")[4:])
    flipped = zip_file(tmp_path / "flipped.pt", good, {"0": b"\x01\x02\x03\x04" * 4})
    flipped.write_bytes(flipped.read_bytes().replace(b"\x01\x02\x03\x04", b"\x01\x02\x03\x05", 1))
    messages = [refused_or_read(path) for path in (packed, twice, shifted, flipped)]
    assert "compressed" in messages[0]
    assert "several" in messages[1]
    assert all(messages), messages
