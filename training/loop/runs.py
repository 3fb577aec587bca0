"""What a run leaves on disk: configuration, checkpoints, statistics, pictures.

run/config.json            the resolved configuration
run/checkpoint.pt          {version, model, ema, optimizer, rng, samples, step}; replaced atomically
run/stats.jsonl            one object per report; run/log.txt the same for people
run/tensorboard/           the same for TensorBoard
run/pictures/000001600.png input and output after so many samples
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from training.loop.config import RunConfig, as_json, lasting_values

CHECKPOINT_VERSION = 1
CHECKPOINT_NAME = "checkpoint.pt"

logger = logging.getLogger(__name__)


class RunError(ValueError):
    """A run folder that does not fit the command."""


def open_run(config: RunConfig) -> dict[str, Any] | None:
    """Make the run folder, or find what is to be resumed in it.

    Returns:
        the checkpoint (see above), or None for a new run.

    Raises:
        RunError: if the folder holds a run of other settings.
    """
    folder = config.run
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "config.json"
    if stored.is_file() and (folder / CHECKPOINT_NAME).is_file():
        _check_same(config, stored)
        return read_checkpoint_file(folder / CHECKPOINT_NAME)
    return None


def write_config(config: RunConfig) -> None:
    """Write run/config.json."""
    replace_text(config.run / "config.json", as_json(config))


def _check_same(config: RunConfig, stored: Path) -> None:
    """Compare what must not change between the parts of a run."""
    before = json.loads(stored.read_text(encoding="utf-8"))
    for name, now in lasting_values(config).items():
        value: Any = before
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if json.dumps(value) != now:
            raise RunError(
                f"{config.run} holds a run with {name} = {json.dumps(value)}, but the command says {now}. "
                "Give the same settings to resume it, or another --run folder to begin anew."
            )


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Read one of our own checkpoints on the CPU; nothing in it is executed.

    Raises:
        FileNotFoundError: if it does not exist.
        RunError: if it is damaged or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}. Train that stage first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it to begin anew.") from error
    if not isinstance(content, dict) or content.get("version") != CHECKPOINT_VERSION:
        raise RunError(f"{path} is not a checkpoint of this version ({CHECKPOINT_VERSION}).")
    return content


def write_checkpoint_file(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place, flush it to disk, and move it there."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        torch.save({"version": CHECKPOINT_VERSION, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def replace_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class Reporter:
    """Statistics, log and pictures of the first process; the others' Reporter does nothing.

    Args:
        folder: of the run.
        active: whether this is the first process.
        samples: where the run resumes; later lines of stats.jsonl are dropped.
    """

    def __init__(self, folder: Path, active: bool, samples: int) -> None:
        self.folder, self.active = folder, active
        if not active:
            return
        (folder / "pictures").mkdir(exist_ok=True)
        self.stats = folder / "stats.jsonl"
        lines = self.stats.read_text(encoding="utf-8").splitlines() if self.stats.is_file() else []
        kept = [line for line in lines if json.loads(line)["samples"] <= samples]
        replace_text(self.stats, "".join(line + "\n" for line in kept))
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=samples)
        handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.handler = handler
        logging.getLogger("training").addHandler(handler)

    def report(self, facts: dict[str, float]) -> None:
        """Append one line of statistics; `facts` holds "samples" and numbers by name."""
        if not self.active:
            return
        with self.stats.open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: _short(value) for name, value in facts.items()}) + "\n")
        for name, value in facts.items():
            self.tensorboard.add_scalar(name, value, int(facts["samples"]))
        logger.info("  ".join(f"{name} {_short(value)}" for name, value in facts.items()))

    def picture(self, image: NDArray[np.float32], samples: int) -> None:
        """Save a gray image (rows, columns), 0 black to 1 white."""
        if not self.active:
            return
        path = self.folder / "pictures" / f"{samples:09d}.png"
        pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        matplotlib.image.imsave(path, pixels, cmap="gray", vmin=0, vmax=255)
        self.tensorboard.add_image("sample", pixels, samples, dataformats="HW")

    def close(self) -> None:
        """Flush and release files."""
        if self.active:
            self.tensorboard.close()
            logging.getLogger("training").removeHandler(self.handler)
            self.handler.close()


def _short(value: float) -> float:
    """Six significant digits; whole numbers stay whole."""
    return value if isinstance(value, int) else float(f"{value:.6g}")
