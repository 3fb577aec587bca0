"""What the programs of paper B share: a run for each number of labeled slices and each seed, and the table of all.

    run/n010_s16/        a run of training.loop.loop (see training/loop/runs.py), and figures.json when it is measured
    run/results.json     all figures; run/results.md the table for people

The same command continues: runs that are measured are not done again, an interrupted one goes on bit for bit.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difftumor.anomaly.layout import SliceFormat
from difftumor.learning.result import REGIONS
from training.learning.config import FinetuneConfig, PixelClassifierConfig
from training.learning.labelled_slices import (
    MEASURES,
    LabelledSlices,
    Split,
    mean_of,
    measure,
    split_of,
)
from training.loop.config import lasting_values
from training.loop.loop import Build, exit_code, train
from training.loop.runs import CHECKPOINT_NAME, RunError, read_checkpoint_file, replace_text

MEASURED_AT_ONCE = 32
FIGURES, RESULTS, TABLE = "figures.json", "results.json", "results.md"

ConfigT = TypeVar("ConfigT", PixelClassifierConfig, FinetuneConfig)
# Slices (n, C, H, W) -> predicted labels uint8 (n, H, W).
Predict = Callable[[NDArray[np.float32]], NDArray[np.uint8]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method(Generic[ConfigT]):
    """What differs between the programs.

    Attributes:
        units: what is drawn for a step, per labeled slice: its pixels, or 1.
        build: the Program of a run (see training.loop.loop).
        prepare: (configuration of one run, labeled slices, their format) -> data of the run.
        predictor: (configuration of one run, trained weights, format) -> what labels slices.
        saw_tests: (configuration) -> whether what it starts from has seen the slices that are measured on.
    """

    units: Callable[[SliceFormat], int]
    build: Build
    prepare: Callable[[ConfigT, LabelledSlices, SliceFormat], Any]
    predictor: Callable[[ConfigT, dict[str, dict[str, Tensor]], SliceFormat], Predict]
    saw_tests: Callable[[ConfigT], bool]


def run_table(config: ConfigT, method: Method[ConfigT]) -> int:
    """Do all runs of a configuration and write the table.

    Returns:
        exit code: 0 complete (or --dry-run), 1 failed or stopped by a signal, 2 settings that do not fit.
    """
    return exit_code(config, lambda: fill_table(config, method))


def fill_table(config: ConfigT, method: Method[ConfigT]) -> bool:
    """The same without exit codes.

    Returns:
        whether all runs are complete; False if a signal stopped one.

    Raises:
        RunError: as `training.loop.loop.train`; also several devices.
        FileNotFoundError: likewise.
        ValueError: likewise.
    """
    if (
        config.hardware.devices * config.hardware.nodes > 1
        or int(os.environ.get("WORLD_SIZE", 1)) > 1
    ):
        raise RunError(
            "these runs are small and each takes one device. To use several, start the command once for each, with "
            "other --counts or --seeds and the same --run."
        )
    split = split_of(config.data)
    made_for = split.pool.format
    told = split.leak | {"features_saw_tests": method.saw_tests(config)}
    for one in cells(config, method.units(made_for)):
        done = one.run / FIGURES
        wanted = lasting_values(one) | {"samples": str(one.samples)}
        if done.is_file():
            stored = json.loads(done.read_text(encoding="utf-8"))["settings"]
            if stored == wanted:
                logger.info("%s is done", one.run)
                continue
        slices: LabelledSlices = split.labeled(one.count, one.seed, one.data.with_tumor)

        def prepare(one: ConfigT, labelled: LabelledSlices = slices) -> Any:
            return method.prepare(one, labelled, made_for)

        if not train(one, method.build, prepare):
            return False
        weights = read_checkpoint_file(one.run / CHECKPOINT_NAME)["model"]
        figures = measured(split, method.predictor(one, weights, made_for))
        facts = {
            "count": one.count,
            "seed": one.seed,
            "slices": len(split.test_rows),
            "figures": figures,
            "leak": told,
            "settings": wanted,
        }
        replace_text(done, json.dumps(facts, indent=1) + "\n")
        write_results(config.run)
    write_results(config.run)
    return True


def cells(config: ConfigT, units: int) -> Iterator[ConfigT]:
    """Configuration of each run, with its length.

    Args:
        config: of the table.
        units: what is drawn for a step, per labeled slice.
    """
    for count in config.counts:
        batch = min(config.batch, count * units)
        steps = config.epochs * -(-count * units // batch)
        for seed in config.seeds:
            folder = config.run / f"n{count:03d}_s{seed}"
            yield replace(
                config, count=count, seed=seed, run=folder, batch=batch, samples=steps * batch
            )


class Epochs:
    """Which rows a step takes: each epoch shuffles all, and its last batch is filled up with its first rows.

    Args:
        rows: how many there are.
        batch: taken in a step.
        seed: of the order.
        members: each has an order of its own.
    """

    def __init__(self, rows: int, batch: int, seed: int, members: int = 1) -> None:
        self.rows, self.batch, self.seed, self.members = rows, batch, seed, members
        self.steps = -(-rows // batch)
        self._epoch, self._order = -1, np.zeros((0, 0), np.int64)

    def at(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """Number of the epoch, and rows (members, batch); a function of the step only."""
        epoch, place = divmod(step, self.steps)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, 5100, epoch])
            orders = [rng.permutation(self.rows) for _ in range(self.members)]
            self._order = np.stack([np.resize(each, self.steps * self.batch) for each in orders])
            self._epoch = epoch
        return epoch, self._order[:, place * self.batch : (place + 1) * self.batch]


def class_weights(weights: tuple[float, ...], labels: NDArray[np.uint8]) -> Tensor:
    """Weights of the labels in the loss.  Raises: ValueError: there are more labels than weights."""
    if labels.size and int(labels.max()) >= len(weights):
        raise ValueError(
            f"the slices have labels up to {labels.max()}, but --weights names {len(weights)}, background first. "
            "Give one for each."
        )
    return torch.tensor(weights, dtype=torch.float32)


def label_picture(
    images: NDArray[np.float32],
    truth: NDArray[np.integer],
    found: NDArray[np.integer],
    made_for: SliceFormat,
    classes: int,
) -> NDArray[np.float32]:
    """Slices side by side over their labels and what was found; values in [0, 1]."""
    low, high = made_for.intensity_range
    rows = [(images[:, -1] - low) / (high - low), truth / (classes - 1), found / (classes - 1)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows]).astype(np.float32)


def measured(split: Split, predict: Predict) -> dict[str, Any]:
    """Figures on all slices that are measured on."""
    found = []
    for first in range(0, len(split.test_rows), MEASURED_AT_ONCE):
        slices = split.measured(first, MEASURED_AT_ONCE)
        found += [
            measure(prediction, truth)
            for prediction, truth in zip(predict(slices.images), slices.labels, strict=True)
        ]
    return mean_of(found)


def write_results(folder: Path) -> None:
    """All figures in a folder as JSON, and the table: mean and standard deviation over the seeds.

    Raises:
        RunError: the folder holds runs of different settings.
    """
    rows = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{FIGURES}"))
    ]
    own = ("count", "seed", "samples", "batch")
    kinds = {json.dumps({k: v for k, v in row["settings"].items() if k not in own}) for row in rows}
    if len(kinds) > 1:
        raise RunError(
            f"{folder} holds runs of different settings, which make no table. Give another --run folder, or remove "
            "those that you do not want."
        )
    replace_text(folder / RESULTS, json.dumps({"version": 1, "runs": rows}, indent=1) + "\n")
    lines = [
        f"Mean over {rows[0]['slices']} slices, then mean (standard deviation) over the seeds. "
        + leaked(rows[0]["leak"]),
        "",
        "| labeled slices | seeds | "
        + " | ".join(f"{region} {name}" for region in REGIONS for name in MEASURES)
        + " |",
        "|---" * (2 + len(REGIONS) * len(MEASURES)) + "|",
    ]
    for count in sorted({row["count"] for row in rows}):
        here = [row["figures"] for row in rows if row["count"] == count]
        values = [[each[region][name] for each in here] for region in REGIONS for name in MEASURES]
        lines.append(f"| {count} | {len(here)} | " + " | ".join(map(_spread, values)) + " |")
    replace_text(folder / TABLE, "\n".join(lines) + "\n")


def leaked(leak: dict[str, Any]) -> str:
    """What a split gives away, in sentences."""
    text = "Split by patients: none is in both parts."
    if leak["split"] == "slices":
        text = (
            f"Split by slices: {leak['test_slices_of_shared_patients']:.0%} of the slices come from "
            f"{leak['shared_patients']} patients who also gave slices to learn from, so the figures are too good."
        )
    if leak["features_saw_tests"]:
        text += " The diffusion model has seen these slices, without their labels."
    return text


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ({np.std(known, ddof=1):.3f})" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"
