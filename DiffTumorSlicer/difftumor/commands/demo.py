"""`difftumor demo`: synthetic tumors in a phantom (and in a CT), and heat maps; a page to look at."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.commands.common import CommonOptions, read_scan, tell_device
from difftumor.commands.console import Reporter, say
from difftumor.commands.demo_anomaly import show, trials
from difftumor.commands.phantom import phantom_paths, write_phantom
from difftumor.commands.run import run_one
from difftumor.commands.synthesize import DEFAULT_MODEL, Synthesize
from difftumor.grids import Grid, crop_grid
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.pictures import before_and_after
from difftumor.images.resampling import resample
from difftumor.images.volumes import read_volume
from difftumor.parameters import MODELLED, ORGAN_LABELS
from difftumor.phantom import make_abdomen
from difftumor.provenance import LEGAL_NOTICE, SYNTHETIC_NOTICE, read_sidecar, sidecar_path
from difftumor.weights.models import ModelError, find_model

PHANTOM_SEED = 7
RADII_MM = (10.0, 8.0, 9.0)
ROTATION_DEG = (10.0, 20.0, 30.0)


@dataclass(kw_only=True)
class Demo(CommonOptions):
    """Synthesize tumors in a phantom and in your CT, and find the lesions of a phantom on heat maps."""

    out: Path = Path("demo-output")
    """Folder for images, side-cars and the page index.html."""
    ct: Annotated[Path | None, tyro.conf.arg(metavar="CT")] = None
    """Your CT of the abdomen; a place in the largest even organ (usually the liver) is chosen for you."""
    center: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="R A S")] = None
    """Another place in your CT, RAS mm."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        self.out.mkdir(parents=True, exist_ok=True)
        cache: dict[str, Any] = {}
        with Reporter(self.quiet) as reporter:
            model = chosen_model(reporter)
            tell_device(self.device, model, reporter)
            wanted = list(self.wanted(model, reporter))
            maps = trials(self.out, reporter)
            pages = [self.out / "index.html", *(picture_of(command.out) for command, _ in wanted)]
            pages += [trial.picture for trial in maps]
            self.check(pages, wanted, [path for trial in maps for path in trial.files])
            reporter("making the phantom", 0, 1)
            phantom = make_abdomen(PHANTOM_SEED, orientation="LPS")
            write_phantom(phantom, phantom_paths(self.case), overwrite=self.overwrite)
            for number, (organ, labels) in enumerate(ORGAN_LABELS.items()):
                place = deepest_point(np.isin(phantom.organs, labels[:1]), phantom.grid)
                command, title = wanted[number]
                mask = f"{phantom_paths(self.case)[1]}:{labels[0]}"
                wanted[number] = (
                    replace(command, center_ras=place, organ=mask, anatomy=organ),
                    title,
                )
            rows = [self.one(command, title, cache, reporter) for command, title in wanted]
            sections = [
                show(trial, self.device, cache, reporter, overwrite=self.overwrite)
                for trial in maps
            ]
        with staged(pages[:1], overwrite=self.overwrite) as paths:
            paths[0].write_text(page_text(rows, sections), encoding="utf-8")
        say(f"Open {pages[0].resolve()} in a browser; images and side-cars lie beside it.")
        return 0

    @property
    def case(self) -> Path:
        """The phantom's image."""
        return self.out / "phantom.nii.gz"

    def wanted(self, model: str, reporter: Reporter) -> Iterator[tuple[Synthesize, str]]:
        """The syntheses and their titles; the user's CT is read here, so that a bad one is told at once."""
        for organ in ORGAN_LABELS:
            name = f"phantom-{organ}-synthetic.nii.gz"
            yield self.command(self.case, name, model, (0.0, 0.0, 0.0)), f"{organ} of the phantom"
        if self.ct is not None:
            volume = read_scan(self.ct, None, reporter)
            place = self.center or even_place(volume.array, volume.grid)
            yield self.command(self.ct, "ct-synthetic.nii.gz", model, place), "your CT"

    def check(
        self, pages: list[Path], wanted: list[tuple[Synthesize, str]], others: list[Path]
    ) -> None:
        """Refuse what cannot be written before anything is computed.

        Raises:
            VolumeError: see `outputs.check_outputs`.
            FileExistsError: likewise.
            FileNotFoundError: likewise.
        """
        for path in pages:
            if path.exists() and not self.overwrite:
                raise FileExistsError(
                    f"{path} exists already. Choose another --out, or add --overwrite."
                )
        images = [path for command, _ in wanted for path in (command.out, command.mask_out)]
        inputs = [self.ct] if self.ct is not None else []
        check_outputs(
            [*images, *phantom_paths(self.case), *others], inputs, overwrite=self.overwrite
        )

    def command(
        self, ct: Path, name: str, model: str, center: tuple[float, float, float]
    ) -> Synthesize:
        """One synthesis of the demonstration."""
        out = self.out / name
        return Synthesize(
            images=(str(ct),),
            out=out,
            mask_out=out.with_name(name.replace("-synthetic", "-synthetic-mask")),
            model=model,
            center_ras=center,
            radii_mm=RADII_MM,
            rotation_deg=ROTATION_DEG,
            device=self.device,
            quiet=self.quiet,
            overwrite=self.overwrite,
        )

    def one(
        self, command: Synthesize, title: str, cache: dict[str, Any], reporter: Reporter
    ) -> dict[str, Any]:
        """Synthesize, draw, and return a row of the page."""
        run_one(command, cache, reporter)
        before, after, mask = (
            read_volume(p) for p in (Path(command.images[0]), command.out, command.mask_out)
        )
        picture = picture_of(command.out)
        facts = read_sidecar(sidecar_path(command.out))
        with staged([picture], overwrite=self.overwrite) as paths:
            before_and_after(
                before.array,
                after.array,
                mask.array,
                after.grid,
                command.center_ras,
                title,
                paths[0],
            )
        return {"title": title, "picture": picture.name, "out": command.out.name, "facts": facts}


def chosen_model(reporter: Reporter) -> str:
    """The bundled demonstration model, or the baseline without weights if it is not there."""
    try:
        find_model(DEFAULT_MODEL)
    except ModelError:
        reporter.note(
            f"The demonstration model {DEFAULT_MODEL} is not installed; the modeling-based baseline is used."
        )
        return MODELLED
    return DEFAULT_MODEL


def picture_of(output: Path) -> Path:
    """`ct-synthetic.nii.gz` -> `ct-synthetic.png`."""
    return output.with_name(sidecar_path(output).stem + ".png")


def deepest_point(mask: NDArray[np.bool_], grid: Grid) -> tuple[float, float, float]:
    """The voxel farthest from the mask's border, RAS mm."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=grid.spacing)
    index = np.array(np.unravel_index(int(depth.argmax()), depth.shape)) - 1
    return tuple(round(float(v), 1) for v in grid.to_ras(index))  # type: ignore[return-value]


def even_place(array: NDArray[np.generic], grid: Grid) -> tuple[float, float, float]:
    """A place deep in the largest even soft tissue of a CT of the abdomen, RAS mm.

    A convenience of the demonstration, not a segmentation: even means 40 to 180 HU and a local standard
    deviation below 25 HU at 4 mm.

    Raises:
        ValueError: no such tissue.
    """
    low, high = grid.bounds_ras
    shape = tuple(int(n) for n in np.maximum((high - low) // 4, 1))
    coarse = crop_grid((low + high) / 2, shape, (4.0, 4.0, 4.0))
    hu = np.clip(resample(array, grid, coarse, order=1, fill=-1024), -200, 300)
    mean = ndimage.uniform_filter(hu, 3)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(hu * hu, 3) - mean * mean, 0))
    even = ndimage.binary_opening((mean > 40) & (mean < 180) & (deviation < 25))
    labels, count = ndimage.label(even)
    if count == 0:
        raise ValueError(
            "no even soft tissue was found in this CT; give the place with --center R A S"
        )
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return deepest_point(largest, coarse)


def page_text(rows: list[dict[str, Any]], heat_maps: list[str]) -> str:
    """The page: one section per synthesis and heat map, without anything loaded from outside."""
    sections = []
    for row in rows:
        lesion = row["facts"]["result"]["lesions"][0]
        before, after = (lesion[f"hu_{when}"] for when in ("before", "after"))
        sections.append(
            f"<h2>{html.escape(row['title'])}</h2>"
            f"<img src='{html.escape(row['picture'])}' alt='before and after'>"
            f"<p>{lesion['equivalent_diameter_mm']:.1f} mm equivalent diameter, {lesion['volume_mm3'] / 1000:.2f} ml; "
            f"inside the mask {before['mean']:.0f} &plusmn; {before['sd']:.0f} HU before, "
            f"{after['mean']:.0f} &plusmn; {after['sd']:.0f} HU after. "
            f"Model: {html.escape(row['facts']['model']['title'])}. File: <code>{html.escape(row['out'])}</code></p>"
        )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>DiffTumorSlicer demonstration</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}"
        "img{width:100%;background:#000}.notice{background:#fff3cd;padding:.7rem 1rem;border-left:4px solid #d39e00}"
        "</style><h1>Synthetic tumors</h1>"
        f"<p class='notice'>{SYNTHETIC_NOTICE} {LEGAL_NOTICE}</p>{''.join(sections)}"
        + (f"<h1>Anomaly heat maps</h1>{''.join(heat_maps)}" if heat_maps else "")
        + "</html>\n"
    )
