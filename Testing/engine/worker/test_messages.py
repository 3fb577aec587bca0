"""Lines: what goes in comes out, and nothing else comes in."""

import contextlib
import json
import math
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difftumor.worker import protocol
from difftumor.worker.protocol import (
    Cancel,
    CancelledEvent,
    ErrorEvent,
    ProgressEvent,
    ProtocolError,
    ReadyEvent,
    Request,
    ResultEvent,
    decode_command,
    decode_event,
    encode,
)

MESSAGES = [
    Request(1, "synthesis", {"center_ras": [1.5, -2.0, 3.0], "organ": None}, "/tmp/ä/漢字 folder"),
    Cancel(7),
    ReadyEvent(1, 4711, "3.12.10"),
    ProgressEvent(1, "denoising", 3, 4, 0.25, 0.1),
    ProgressEvent(1, "decoding", 0, 0, 0.0),
    ResultEvent(2, {"seed": 5, "nested": {"a": [1, 2.5, "x"]}}, ["ct", "mask"], 0.3),
    ErrorEvent(3, "refused", "what\nwhy", "next", "trace", "/log", "ValueError"),
    ErrorEvent(None, "protocol", "odd"),
    ErrorEvent(3, "refused", "what", remedy={"kind": "verify", "model": "mine"}),
    CancelledEvent(4, True, 5),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.type)
def test_a_message_survives_the_journey(message):
    line = encode(message)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    decode = decode_command if isinstance(message, Request | Cancel) else decode_event
    assert decode(line) == message


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates are what Python makes of file names that are not UTF-8.
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(parameters=st.dictionaries(st.text(), json_values), folder=st.text())
@settings(max_examples=60, deadline=None)
def test_any_parameters_survive_the_journey(parameters, folder):
    request = Request(1, "task", parameters, folder)
    assert decode_command(encode(request)) == request


@given(line=st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_message_or_a_protocol_error(line):
    for decode in (decode_command, decode_event):
        with contextlib.suppress(ProtocolError):
            decode(line)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.type)
def test_each_field_is_needed_and_has_its_type(message):
    decode = decode_command if isinstance(message, Request | Cancel) else decode_event
    content = json.loads(encode(message))
    for field in fields(message):
        for wrong in (object, True, 1, 1.5, "x", None, [1], {"a": 1}):
            changed = dict(content)
            if wrong is object:
                del changed[field.name]
                fits = field.default is not MISSING
            else:
                changed[field.name] = wrong
                fits = protocol._FITS[field.type](wrong)
            if fits and (field.name, wrong) != ("kind", "x"):
                decode(json.dumps(changed).encode())
            else:
                with pytest.raises(ProtocolError):
                    decode(json.dumps(changed).encode())


def test_unknown_fields_are_left_out_so_that_versions_can_be_compared():
    event = decode_event(b'{"type":"ready","protocol":2,"pid":1,"python":"4","new":[1]}')
    assert event == ReadyEvent(2, 1, "4")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"Epoch 1: 100%|####|",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"type": 1}',
        b'{"type": ["ready"]}',
        b'{"type": "exited", "code": 1, "message": ""}',
        b'{"type": "superseded", "id": 1, "by": 2}',
        b'{"type": "progress", "id": 1, "stage": "", "done": 0, "total": 1, "elapsed_s": NaN}',
        b'{"type": "error", "id": 1, "kind": "unheard of", "message": ""}',
        b"[" * 100_000,
        b"9" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(ProtocolError):
        decode_event(line)


def test_a_refusal_repeats_no_values_because_it_ends_in_a_log():
    line = b'{"type": "request", "id": "Jane Doe", "task": "t", "parameters": {}, "folder": ""}'
    with pytest.raises(ProtocolError) as caught:
        decode_command(line)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"bytes", object(), np.zeros(3)])
def test_parameters_that_are_no_json_are_refused_with_the_remedy(value):
    with pytest.raises(ProtocolError, match="arrays"):
        encode(Request(1, "t", {"x": value}, ""))


def test_parameters_that_refer_to_themselves_are_refused():
    parameters = {}
    parameters["self"] = parameters
    with pytest.raises(ProtocolError):
        encode(Request(1, "t", parameters, ""))


def test_numpy_scalars_and_paths_become_plain_values():
    parameters = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": Path("x")}
    request = decode_command(encode(Request(1, "t", parameters, "")))
    assert request.parameters == {"a": 0.5, "b": 3, "c": True, "d": "x"}


def test_a_command_fits_into_an_empty_pipe():
    assert protocol.MAX_COMMAND_BYTES < 65536
    with pytest.raises(ProtocolError, match="too long"):
        encode(Request(1, "t", {"x": "y" * protocol.MAX_COMMAND_BYTES}, ""))


def test_every_field_type_has_its_check():
    for message_type in (*protocol.COMMANDS.values(), *protocol.EVENTS.values()):
        assert {field.type for field in fields(message_type)} <= set(protocol._FITS)


def test_bridge_and_protocol_are_importable_without_torch_and_qt():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'qt', 'slicer', 'scipy', 'psutil']));"
        "import difftumor.worker.bridge, difftumor.worker.main; print(sorted(sys.modules).count('torch'))"
    )
    folder = Path(protocol.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
