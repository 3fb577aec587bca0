"""Tasks for a real worker under test; `--tasks fake_tasks` takes the place of difftumor.tasks."""

import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from difftumor.remedies import Remedy, with_remedy
from difftumor.worker.protocol import Cancelled, read_array, write_array, write_partial


class ModelError(Exception):
    """As difftumor.weights.models defines it."""


ModelError.__module__ = "difftumor.weights.models"


class OutOfMemoryError(RuntimeError):
    """As torch defines it."""


class AcceleratorError(RuntimeError):
    """As torch defines it."""


def wait_for(parameters):
    """Until a file is there, if one is wished: what the test has done by then is no matter of time."""
    while "file" in parameters and not Path(parameters["file"]).exists():
        time.sleep(0.01)


def double(parameters, folder, context):
    """Write twice the input, and say what came in."""
    array = read_array(folder, "ct")
    write_array(folder, "out", array * 2)
    return {"shape": list(array.shape), "parameters": parameters, "mean": np.float32(array.mean())}


def echo(parameters, folder, context):
    write_array(folder, "out", read_array(folder, "ct"))
    return {}


def overwrite(parameters, folder, context):
    write_array(folder, "ct", read_array(folder, "ct") + 1)
    return {}


def steps(parameters, folder, context):
    """Many short network evaluations."""
    for i in range(parameters["steps"]):
        for stage in parameters.get("stages", ["denoising"]):
            context.progress(stage, i, parameters["steps"])
        if i == 0:
            wait_for(parameters)
        time.sleep(parameters.get("pause_s", 0.01))
    return {}


def slices(parameters, folder, context):
    """Finishes slice after slice, and leaves each at once; deaf from the third on if so wished."""
    out = np.zeros(10, np.int16)
    for i in range(10):
        out[i] = i + 1
        write_partial(folder, {"slices": i + 1}, {"out": out})
        time.sleep(0.15)  # progress is told eight times a second
        context.progress("slice", i + 1, 10)
        if i == 2:
            while parameters.get("deaf") or not context.cancelled:
                time.sleep(0.01)
            context.check()
    return {"slices": 10}


def stubborn(parameters, folder, context):
    """Never asks whether it should stop."""
    context.progress("deaf", 0, 1)
    wait_for(parameters)
    time.sleep(parameters.get("sleep_s", 600))
    return {}


def busy(parameters, folder, context):
    """Holds the interpreter lock most of the time and never asks."""
    context.progress("busy", 0, 1)
    while True:
        sum(range(100_000))


def ignore_cancel(parameters, folder, context):
    """Sees the cancel and goes on to a result."""
    context.progress("deaf", 0, 1)
    while not context.cancelled:
        time.sleep(0.01)
    write_array(folder, "out", np.zeros(3))
    return {}


def wrap_cancel(parameters, folder, context):
    """A library that wraps the exception of its callback."""
    context.progress("wrapping", 0, 1)
    try:
        while True:
            context.check()
            time.sleep(0.005)
    except Cancelled as error:
        raise RuntimeError("callback failed") from error


def children(parameters, folder, context):
    """Start helpers that print, and one that stays."""
    subprocess.run(["echo", "a child's word on stdout"], check=True)
    subprocess.run(["cat"], check=True)  # would eat the commands if it had our stdin
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    context.progress(f"child {child.pid}", 0, 1)
    if parameters.get("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(parameters.get("sleep_s", 600))
    return {}


def chatter(parameters, folder, context):
    """A library that prints, in each of the ways there are."""
    print("print", '{"type": "result", "id": 1, "metadata": {}, "arrays": [], "elapsed_s": 0}')
    sys.stdout.write("write\n")
    sys.__stdout__.flush()
    os.write(1, b"raw \xff\xfe bytes\n")
    for _ in range(parameters.get("lines", 0)):
        sys.stderr.write("x" * 1000 + "\n")
    return {}


def fail(parameters, folder, context):
    write_array(folder, "half", np.zeros(3))
    name, text = parameters["type"], parameters.get("text", "what, why and what next")
    for scope in (globals(), vars(__import__("builtins"))):
        if name in scope:
            raise with_remedy(scope[name](text), Remedy.from_json(parameters.get("remedy")))
    raise OSError(int(name), os.strerror(int(name)))


def import_missing(parameters, folder, context):
    import torch_that_is_not_there  # noqa: F401


def allocate(parameters, folder, context):
    """Ask for more memory than there is."""
    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    return {"sum": float(np.ones(2**36).sum())}


def die(parameters, folder, context):
    """End the worker in the middle of it."""
    if "signal" in parameters:
        os.kill(os.getpid(), parameters["signal"])
        time.sleep(5)
    os._exit(parameters["code"])


def answer(parameters, folder, context):
    return {"list": [1], "none": None, "set": {1}, "nan": float("nan"), "big": "x" * 5_000_000}[
        parameters["what"]
    ]


def returns(parameters, folder, context):
    return {"value": answer(parameters, folder, context)}


def count(parameters, folder, context):
    """Use the memory between requests."""
    context.cache["count"] = context.cache.get("count", 0) + 1
    return {"count": context.cache["count"], "pid": os.getpid()}


def environment(parameters, folder, context):
    return {
        "environment": dict(os.environ),
        "path": sys.path,
        "folder": str(Path.cwd()),
        "oom_score": Path("/proc/self/oom_score_adj").read_text(),
    }


def write_into_the_channel(parameters, folder, context):
    """A library that writes to descriptors that are not its own."""
    for fd in range(3, 30):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"\xffgarbage\n[1]\n\n")
    return {}


def fill_disk(parameters, folder, context):
    """Write until nothing fits."""
    for i in range(100):
        write_array(folder, f"out_{i}", np.zeros(2**20, np.uint8))
    return {}


TASKS = {
    task.__name__: task
    for task in (
        double,
        echo,
        overwrite,
        steps,
        slices,
        stubborn,
        busy,
        ignore_cancel,
        wrap_cancel,
        children,
        chatter,
        fail,
        import_missing,
        allocate,
        die,
        answer,
        returns,
        count,
        environment,
        fill_disk,
        write_into_the_channel,
    )
}
