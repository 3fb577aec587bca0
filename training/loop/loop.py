"""The one training loop: samples seen, learning rate, averaged weights, reports, checkpoints, a clean stop.

Lightning Fabric runs it on a CPU, one or several GPUs, or several nodes; under torchrun it takes the processes that
torchrun started.  All random draws of a step are functions of (seed, process, step), so what a checkpoint holds is
enough to continue as if the run had never stopped (bit for bit on a CPU).
"""

from __future__ import annotations

import copy
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.devices import DeviceError
from difftumor.weights.cards import ModelError
from training.loop.config import (
    Averaging,
    Optimizer,
    RunConfig,
    Stage,
    as_json,
    stage_at,
)
from training.loop.runs import (
    CHECKPOINT_NAME,
    Reporter,
    RunError,
    open_run,
    write_checkpoint_file,
    write_config,
)

FLOOR = 0.01  # of the learning rate, at the end of the decay

logger = logging.getLogger(__name__)


class Program(Protocol):
    """What differs between the stages of training."""

    modules: dict[str, nn.Module]
    """All trained networks with their buffers, by name; saved in checkpoints."""
    optimizers: dict[str, torch.optim.Optimizer]
    """Saved in checkpoints; their rate follows the schedule."""
    averaged: str
    """The entry of `modules` whose parameters are averaged."""

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:
        """Do one optimizer step after `seen` samples and `step` steps; return facts to report."""

    def picture(self) -> NDArray[np.float32]:
        """Gray image (rows, columns) in [0, 1] that shows what the networks do now."""


@runtime_checkable
class ValidatedProgram(Program, Protocol):
    """A program that is validated as it goes."""

    validated_every: int
    """Samples between two validations."""

    def validate(self, network: nn.Module, seen: int) -> dict[str, float]:
        """Measure the averaged network after `seen` samples, in the first process; return facts to report."""


Build = Callable[[Fabric, Any, Any], Program]
Prepare = Callable[[Any], Any]


def run_program(config: RunConfig, build: Build, prepare: Prepare) -> int:
    """What the programs' `main` do with their configuration (see `train`).

    Returns:
        exit code: 0 complete (or --dry-run), 1 failed or stopped by a signal, 2 settings that do not fit.
    """
    try:
        return exit_code(config, lambda: train(config, build, prepare))
    except torch.OutOfMemoryError as error:
        logger.error(
            "The device ran out of memory (%s). Try --hardware.microbatch 1 or smaller crops in --stages.",
            str(error).splitlines()[0],
        )
    return 1


def exit_code(config: Any, work: Callable[[], bool]) -> int:
    """Do what a configuration asks for, with the log on the terminal; --dry-run only prints it.

    Args:
        config: has `dry_run`.
        work: returns False if a signal stopped it.

    Returns:
        0 complete (or --dry-run), 1 failed or stopped by a signal, 2 settings that do not fit the run.
    """
    if config.dry_run:
        sys.stdout.write(as_json(config))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if work():
            return 0
        logger.warning("stopped by a signal; the same command continues from here")
    except RunError as error:
        logger.error("%s", error)
        return 2
    except (OSError, ValueError, ModelError, DeviceError) as error:
        logger.error("%s", error)
    return 1


def train(config: RunConfig, build: Build, prepare: Prepare) -> bool:
    """Begin or continue a run.

    Args:
        config: of the run; where its folder holds a checkpoint, the run continues there.
        build: (fabric, config, data) -> program.
        prepare: config -> data; the first process does it before the others.

    Returns:
        whether the run is complete; False if a signal stopped it.

    Raises:
        RunError: if the folder holds a run of other settings.
        FileNotFoundError, ValueError: if the data cannot be used.
    """
    fabric = make_fabric(config)
    torch.manual_seed(config.seed)
    stored = open_run(config)
    with fabric.rank_zero_first():
        data = prepare(config)
    program = build(fabric, config, data)
    average = AveragedWeights(program.modules[program.averaged], config.averaging)
    seen, step = 0, 0
    if stored is not None:
        seen, step = _restore(stored, program, average)
        logger.info("resuming %s after %d samples", config.run, seen)
    fabric.barrier()
    if fabric.is_global_zero:
        write_config(config)
    reporter = Reporter(config.run, fabric.is_global_zero, seen)
    progress = _Progress(fabric, reporter)
    saved_at = seen
    try:
        with stop_signals() as stop:
            while seen < config.samples and not _any(fabric, bool(stop)):
                stage = stage_at(config.stages, seen)
                rate = learning_rate(config.optimizer, seen + stage.batch, config.samples)
                for optimizer in program.optimizers.values():
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                progress.add(program.step(seen, step, stage) | {"lr": rate})
                before, seen, step = seen, seen + stage.batch, step + 1
                average.update(before, seen)
                last = seen >= config.samples
                if (
                    isinstance(program, ValidatedProgram)
                    and (last or _crossed(before, seen, program.validated_every))
                    and fabric.is_global_zero
                ):
                    reporter.report({"samples": seen, **program.validate(average.module, seen)})
                if last or _crossed(before, seen, config.reporting.stats):
                    progress.report(seen, step)
                if last or _crossed(before, seen, config.reporting.pictures):
                    image = program.picture()
                    reporter.picture(image, seen)
                if last or _crossed(before, seen, config.reporting.checkpoint):
                    _save(fabric, config, program, average, seen, step)
                    saved_at = seen
            if saved_at != seen:
                _save(fabric, config, program, average, seen, step)
    finally:
        reporter.close()
    return seen >= config.samples


def make_fabric(config: RunConfig) -> Fabric:
    """Start the processes that the configuration or torchrun asks for.

    Raises:
        ValueError: if CUDA is asked for and absent.
    """
    hardware = config.hardware
    if hardware.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "This run asks for a CUDA device and there is none. "
            "Add --hardware.accelerator cpu to train on the processor (very much slower)."
        )
    world = int(os.environ.get("WORLD_SIZE", "1"))
    devices, nodes = hardware.devices, hardware.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        nodes = world // devices
    # Parameters that a part of the run does not use have no gradient to wait for.
    parallel = "ddp_find_unused_parameters_true" if config.leaves_weights_out else "ddp"
    fabric = Fabric(
        accelerator=hardware.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=parallel if devices * nodes > 1 else "auto",
        precision=hardware.precision,
    )
    fabric.launch()
    return fabric


def learning_rate(settings: Optimizer, seen: int, samples: int) -> float:
    """Rate after `seen` of `samples`: linear rise, constant, cosine to 1 % over the last `decay` samples."""
    rise = min(1.0, seen / settings.warmup) if settings.warmup else 1.0
    left = (samples - seen) / settings.decay if settings.decay else 1.0
    left = min(max(left, 0.0), 1.0)
    fall = FLOOR + (1 - FLOOR) * 0.5 * (1 - math.cos(math.pi * left))
    return settings.lr * rise * fall


class AveragedWeights:
    """Exponential moving average of a network's parameters; buffers are copies.

    Args:
        module: the trained network.
        settings: decay and how often.
    """

    def __init__(self, module: nn.Module, settings: Averaging) -> None:
        self.source, self.settings = module, settings
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, before: int, seen: int) -> None:
        """Take account of the step from `before` to `seen` samples."""
        settings = self.settings
        copied = not settings.every or seen <= settings.start
        if not copied and not _crossed(before, seen, settings.every):
            return
        for ours, theirs in zip(self.module.parameters(), self.source.parameters(), strict=True):
            if copied:
                ours.copy_(theirs)
            else:
                ours.lerp_(theirs, 1 - settings.decay)
        for mine, its in zip(self.module.buffers(), self.source.buffers(), strict=True):
            mine.copy_(its)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list instead of dying from them."""
    received: list[int] = []
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = {
        kind: signal.signal(kind, lambda number, _: received.append(number)) for kind in wanted
    }
    try:
        yield received
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class _Progress:
    """Sums facts between two reports."""

    def __init__(self, fabric: Fabric, reporter: Reporter) -> None:
        self.fabric, self.reporter = fabric, reporter
        self.began = time.monotonic()
        self.sums: dict[str, Tensor | float] = {}
        self.count = 0

    def add(self, facts: dict[str, Tensor | float]) -> None:
        """Add one step's facts; tensors stay on their device."""
        for name, value in facts.items():
            value = value.detach().float() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def report(self, seen: int, step: int) -> None:
        """Write the means over steps and processes, and begin anew."""
        names = sorted(self.sums)
        means = torch.tensor([float(self.sums[name]) / self.count for name in names])
        values: Any = self.fabric.all_reduce(means.to(self.fabric.device), reduce_op="mean")
        facts: dict[str, float] = {"samples": seen, "step": step}
        facts["seconds"] = round(time.monotonic() - self.began, 1)
        self.reporter.report(facts | dict(zip(names, values.tolist(), strict=True)))
        self.sums, self.count = {}, 0


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return before // every != after // every


def _any(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum"))


def _save(
    fabric: Fabric,
    config: RunConfig,
    program: Program,
    average: AveragedWeights,
    seen: int,
    step: int,
) -> None:
    """Write the checkpoint from the first process; the others wait."""
    if fabric.is_global_zero:
        content = {
            "model": {name: module.state_dict() for name, module in program.modules.items()},
            "ema": average.module.state_dict(),
            "optimizer": {name: item.state_dict() for name, item in program.optimizers.items()},
            "rng": torch.get_rng_state(),
            "samples": seen,
            "step": step,
        }
        write_checkpoint_file(content, config.run / CHECKPOINT_NAME)
    fabric.barrier()


def _restore(stored: dict[str, Any], program: Program, average: AveragedWeights) -> tuple[int, int]:
    """Put a checkpoint back; returns samples and steps done."""
    for name, module in program.modules.items():
        module.load_state_dict(stored["model"][name])
    for name, optimizer in program.optimizers.items():
        optimizer.load_state_dict(stored["optimizer"][name])
    average.module.load_state_dict(stored["ema"])
    torch.set_rng_state(stored["rng"])
    return stored["samples"], stored["step"]
