"""The tasks of the worker. The command line runs the same records, so both give the same results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from difftumor.anomaly.task import ANOMALY
from difftumor.doctor import examine
from difftumor.learning.task import APPLY, LEARN
from difftumor.segmentation.task import SEGMENTATION
from difftumor.synthesis.task import SYNTHESIS
from difftumor.weights.checkpoints import identify
from difftumor.worker.main import Context
from difftumor.worker.serve import serve


def identify_model(request: dict[str, Any], _folder: Path, _context: Context) -> dict[str, Any]:
    """Worker task: what the file or folder {"path": ...} is (`checkpoints.identify`)."""
    return asdict(identify(request["path"]))


def doctor(_request: dict[str, Any], _folder: Path, _context: Context) -> dict[str, Any]:
    """Worker task: what this interpreter and machine can do (`doctor.examine`)."""
    return examine()


TASKS: dict[str, Callable[[dict[str, Any], Path, Context], dict[str, Any]]] = {
    task.name: partial(serve, task) for task in (SYNTHESIS, ANOMALY, SEGMENTATION, LEARN, APPLY)
} | {"doctor": doctor, "identify_model": identify_model}
