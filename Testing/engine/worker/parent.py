"""A parent to be killed: asks for a computation, prints the worker's number, and goes on polling."""

import sys
import time
from pathlib import Path

import numpy as np

from difftumor.worker.bridge import Bridge
from difftumor.worker.protocol import ProgressEvent, ReadyEvent

folder, task, *command = sys.argv[1:]
bridge = Bridge(
    tasks="fake_tasks",
    command=command or None,
    temporary_folder=Path(folder),
    log_folder=Path(folder) / "logs",
)
bridge.request(task, {"steps": 100_000}, {"ct": np.zeros((64, 64, 64), np.int16)})
told = False
while True:
    for event in bridge.poll():
        if isinstance(event, ReadyEvent):
            print("worker", event.pid, flush=True)
        elif (
            isinstance(event, ProgressEvent) and not told
        ):  # the very first may have been passed by
            told = True
            print("stage", event.stage, flush=True)
    time.sleep(0.01)
