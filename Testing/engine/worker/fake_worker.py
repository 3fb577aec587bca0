"""A worker that misbehaves on the wire. The first argument is the manner; no difftumor is imported."""

import json
import os
import subprocess
import sys
import time

manner = sys.argv[1]
out = sys.stdout.buffer


def say(line):
    out.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
    out.flush()


READY = {"type": "ready", "protocol": 1, "pid": os.getpid(), "python": "3.11"}


def result(request):
    return {"type": "result", "id": request["id"], "metadata": {}, "arrays": [], "elapsed_s": 0.1}


if manner == "never ready":
    time.sleep(600)
if manner == "dies at once":
    sys.exit("ModuleNotFoundError: No module named 'numpy'")
if manner == "other version":
    say({**READY, "protocol": 99, "novelty": True})
    time.sleep(600)
if manner == "ready and gone":
    say(READY)
    sys.exit(0)
if manner == "launcher":
    # As PythonSlicer: the child has our streams, we only wait for it.
    sys.exit(subprocess.call(sys.argv[2:]))
if manner == "noisy launcher":
    say(b"Found another libstdc++\nLoading the launcher settings ... ")
    sys.exit(subprocess.call(sys.argv[2:]))
say(READY)
for text in sys.stdin:
    request = json.loads(text)
    if request["type"] == "cancel":
        continue
    if manner == "garbage":
        say(b"Loading weights: 100%\n")
        say(b"[1, 2, 3]\n")
        say(b'{"type": "progress", "id": "one"}\n')
        say(b'{"type": "shutdown"}\n')
        say(b"\xff\xfe not UTF-8\n")
        say({**result(request), "id": request["id"] + 100})
        say(result(request))
    elif manner == "garbage flood":
        for _ in range(50_000):
            out.write(b"garbage\n")
        say(result(request))
    elif manner == "progress flood":
        line = {"type": "progress", "id": request["id"], "stage": "s", "done": 1, "total": 2}
        for _ in range(20_000):
            out.write(json.dumps({**line, "elapsed_s": 0.1}).encode() + b"\n")
        say(result(request))
    elif manner == "huge line":
        for _ in range(10):
            out.write(b"x" * 5_000_000)
        out.write(b"\n")
        say(result(request))
    elif manner == "half line":
        say(json.dumps(result(request)).encode()[:-10])
        os._exit(0)
    elif manner == "whole line without end":
        say(json.dumps(result(request)).encode())
        os._exit(0)
    elif manner == "result and gone":
        say(result(request))
        os._exit(3)
    elif manner == "leads outside":
        say({**result(request), "arrays": ["../../secret"]})
    elif manner == "stderr flood":
        # Five files of the log and a bit, wherever it is turned over: the last one is neither empty nor full.
        for _ in range(5_500):
            sys.stderr.write("y" * 1000 + "\n")
        say(result(request))
    elif manner == "deaf":
        time.sleep(600)
    elif manner == "bomb":
        say(b"[" * 100_000 + b"\n")
        say(b"9" * 100_000 + b"\n")
        say(b'{"type": "error", "id": 1, "kind": "unheard of", "message": ""}\n')
        say(b'{"type": "progress", "id": 1, "elapsed_s": NaN}\n')
        say(result(request))
