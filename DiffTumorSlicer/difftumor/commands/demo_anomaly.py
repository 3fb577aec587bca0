"""The part of `difftumor demo` that shows heat maps: the lesions of phantoms that no model was trained on."""

from __future__ import annotations

import html
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.layout import shown_plane
from difftumor.anomaly.sheet import Cell, shown_slice, write_overlay
from difftumor.commands.anomaly import HEALTHY, Anomaly
from difftumor.commands.console import Reporter
from difftumor.commands.phantom import head_paths, phantom_paths, write_head, write_phantom
from difftumor.commands.run import run_one
from difftumor.grids import Grid
from difftumor.images.outputs import staged
from difftumor.images.volumes import read_volume
from difftumor.parameters import ORGAN_LABELS
from difftumor.phantom import make_abdomen, make_head
from difftumor.weights.models import ModelError, find_model
from difftumor.worker.protocol import Cancelled

# Beyond the seeds of training, validation and test.
SEEDS = {"abdomen": 20_011, "head": 20_014}
ABDOMEN, HEAD = "demo-abdomen-anomaly", "demo-head-anomaly"
SEQUENCE_FILES = ("flair", "t1", "t1c", "t2")


@dataclass(frozen=True)
class Trial:
    """One heat map of the demonstration.

    Attributes:
        model: id.
        folder: of the output.
    """

    model: str
    folder: Path

    @property
    def case(self) -> Path:
        """The phantom; of a head the names of its sequences are added."""
        return self.folder / f"{'head' if self.model == HEAD else 'anomaly'}-phantom.nii.gz"

    def place(self, what: str, suffix: str = ".nii.gz") -> Path:
        """A file beside the phantom: its map, mask, report, or its healthy version."""
        return self.folder / f"{self.case.name.removesuffix('.nii.gz')}-{what}{suffix}"

    @property
    def command(self) -> Anomaly:
        """The command that makes the map; images and organ mask are given later."""
        return Anomaly(
            model=self.model,
            out=self.place("map"),
            mask_out=self.place("mask"),
            counterfactual_out=self.place("healthy"),
            report=self.place("report", ".json"),
            quiet=True,
        )

    @property
    def picture(self) -> Path:
        """PNG of the slice with most tumor."""
        return self.case.with_name(self.case.name.removesuffix(".nii.gz") + "-map.png")

    @property
    def files(self) -> list[Path]:
        """All images and JSON files."""
        inputs = head_paths(self.case) if self.model == HEAD else phantom_paths(self.case)
        return [*inputs, *self.command.outputs().values()]


def trials(folder: Path, reporter: Reporter) -> list[Trial]:
    """Heat maps that can be shown: one for each bundled model that is there."""
    found = []
    for model in (ABDOMEN, HEAD):
        try:
            find_model(model)
        except ModelError:
            reporter.note(
                f"The demonstration model {model} is not installed; its heat map is left out."
            )
            continue
        found.append(Trial(model, folder))
    return found


def show(
    trial: Trial,
    device: str,
    cache: MutableMapping[str, Any],
    reporter: Reporter,
    *,
    overwrite: bool,
) -> str:
    """Make the phantom, its heat map and the picture.

    Returns:
        a section of the page.

    Raises:
        Cancelled: nothing of the heat map was written.
    """
    reporter(f"making the phantom for {trial.model}", 0, 1)
    files, organ, truth, title = _phantom(trial, overwrite)
    card = find_model(trial.model).card
    order = list(card["channel_order"])
    command = replace(
        trial.command,
        images=tuple(f"{name}={files[name]}" for name in order),
        organ=organ,
        device=device,
        overwrite=overwrite,
    )
    done = run_one(command, cache, reporter)
    if done.cancelled:
        raise Cancelled
    content = done.content
    shown = "flair" if "flair" in order else order[0]
    healthy = done.request.outputs[HEALTHY + shown]
    marked = _draw(trial, files[shown], healthy, truth, card.get("window_hu"), title)
    return _section(trial, content, truth, marked, title)


def _phantom(trial: Trial, overwrite: bool) -> tuple[dict[str, Path], str, NDArray[np.bool_], str]:
    """Images by channel, organ mask, true lesions inside it, and a title."""
    if trial.model == HEAD:
        paths = head_paths(trial.case)
        head = make_head(
            SEEDS["head"],
            tumors=1,
            spacing_mm=(1.5, 1.5, 4.0),
            orientation="LPS",
            tumor_radius_mm=(10.0, 16.0),
        )
        write_head(head, paths, overwrite=overwrite)
        files = dict(zip(SEQUENCE_FILES, paths, strict=False))
        return files, str(paths[4]), head.tumors > 0, "head of a phantom, FLAIR shown"
    organ = (find_model(trial.model).card.get("organs") or ["liver"])[0]
    phantom = make_abdomen(
        SEEDS["abdomen"],
        tumors=1,
        spacing_mm=(1.5, 1.5, 3.0),
        orientation="LPS",
        tumor_organs=(organ,),
        tumor_radius_mm=(8.0, 14.0),
    )
    case, organs, tumors = phantom_paths(trial.case)
    write_phantom(phantom, [case, organs, tumors], overwrite=overwrite)
    label = max(ORGAN_LABELS[organ], key=lambda n: int(phantom.tumors[phantom.organs == n].sum()))
    truth = (phantom.tumors > 0) & (phantom.organs == label)
    return {"ct": case}, f"{organs}:{label}", truth, f"{organ} of a phantom"


def _draw(
    trial: Trial,
    image: Path,
    healthy: Path,
    truth: NDArray[np.bool_],
    window: Any,
    title: str,
) -> NDArray[np.bool_]:
    """Picture of the slice with most tumor; returns what was marked in the volume."""
    volume = read_volume(image)
    grid: Grid = volume.grid
    scaled = read_volume(trial.place("map")).array
    marked = read_volume(trial.place("mask")).array > 0
    index = int(truth.sum(axis=(0, 1)).argmax())
    inside = (scaled > 0) | truth
    limits = (float(window[0]), float(window[1])) if window else None
    shown = shown_slice(volume.array, grid, "axial", index, inside, limits)

    def plane(array: NDArray[Any]) -> NDArray[Any]:
        return shown_plane(array, grid, "axial", index)[0]

    cell = Cell(plane(scaled), plane(marked), plane(read_volume(healthy).array), 1.0)
    with staged([trial.picture], overwrite=True) as paths:
        write_overlay(
            paths[0], shown, cell, title=f"{title}, axial slice {index}", truth=plane(truth)
        )
    return marked


def _section(
    trial: Trial,
    content: dict[str, Any],
    truth: NDArray[np.bool_],
    marked: NDArray[np.bool_],
    title: str,
) -> str:
    """HTML of one heat map."""
    result, settings = content["result"], content["result"]["settings"]
    both = 2 * (truth & marked).sum() / max(1, truth.sum() + marked.sum())
    return (
        f"<h2>Heat map: {html.escape(title)}</h2>"
        f"<img src='{html.escape(trial.picture.name)}' alt='image, heat map, marks, healthy rewriting'>"
        f"<p>The classifier is {100 * result['probability']:.0f} % sure that the volume is diseased. Marked at "
        f"{100 * settings['threshold']:.0f} % of the map: {result['lesions']['volume_mm3'] / 1000:.2f} ml; overlap "
        f"with the true lesion (Dice) {both:.2f}. N = {settings['noise_level']}, S = {settings['guidance_scale']:g}. "
        f"Model: {html.escape(content['model']['title'])}, trained on phantoms with image labels only. File: "
        f"<code>{html.escape(trial.place('map').name)}</code></p>"
    )
