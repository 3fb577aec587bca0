"""Figures of the demonstration models on phantoms of unseen seeds (`make evaluate`).

1. Reconstruction: PSNR of the autoencoder in [-175, 250] HU, both sides smoothed by a Gaussian of 1 mm, against the
   phantom without its noise.
2. Lesions: each lesion of a phantom is made again in the same patient without lesions, by the model and by the
   modeling-based baseline (Hu et al. 2023). Contrast and texture of both are compared with the spread (5 to 95 %)
   of the phantoms' own lesions.

Writes evaluation.json and lesions.png into the output folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from lesion_texture import LesionTexture, measure_texture
from numpy.typing import NDArray
from reconstruction import organ_centers, reconstruct, smoothed_psnr_db

from difftumor import phantom
from difftumor.commands.console import say
from difftumor.ellipsoids import ellipsoid_mask
from difftumor.parameters import MODELLED, ORGAN_LABELS, Ellipsoid, SynthesisParameters
from difftumor.synthesis.generators import DiffusionGenerator, load_generator
from difftumor.synthesis.synthesize import SynthesisError, synthesize

DEMO_MODEL = "demo-abdomen-early"
TARGET_DB = 30.0
RADII_MM = (4.0, 13.0)  # lesions that the T = 4 model is for, large enough to measure
OWN, MODEL, BASELINE = "phantom's own", "model", "modelling-based"
PICTURE_EDGE = 64


@dataclass(frozen=True)
class Measured:
    """One lesion, made in three ways."""

    seed: int
    organ: str
    textures: dict[str, LesionTexture]
    views: dict[str, NDArray[np.int16]]


def evaluate_reconstruction(generator: DiffusionGenerator, seeds: list[int]) -> dict:
    """PSNR per phantom and over all of them, crops of 96 mm around the organs."""
    cleans, outputs, rows = [], [], {}
    for seed in seeds:
        made = phantom.make_abdomen(seed, tumors=9)
        crops = reconstruct(generator.networks.vqgan, made, organ_centers(made))
        rows[seed] = smoothed_psnr_db(crops.clean, crops.output)
        say(f"  seed {seed}: {rows[seed]:.2f} dB")
        cleans.append(crops.clean)
        outputs.append(crops.output)
    overall = smoothed_psnr_db(np.concatenate(cleans), np.concatenate(outputs))
    return {"psnr_db": overall, "per_seed": rows, "target_db": TARGET_DB}


def evaluate_lesions(model: str, seeds: list[int], per_phantom: int) -> list[Measured]:
    """Make the phantoms' lesions again in the same patients without lesions."""
    cache: dict = {}
    generators = {
        MODEL: load_generator(model, "cpu", cache, lambda *_: None),
        BASELINE: load_generator(MODELLED, "cpu", {}, lambda *_: None),
    }
    found = []
    for seed in seeds:
        ill = phantom.make_abdomen(seed, tumors=9)
        healthy = phantom.make_abdomen(seed, tumors=0)
        wanted = [
            lesion
            for lesion in ill.lesions
            if RADII_MM[0] <= np.mean(lesion.radii_mm) <= RADII_MM[1]
        ]
        for lesion in wanted[:per_phantom]:
            measured = _make_again(ill, healthy, lesion, generators)
            if measured is not None:
                found.append(measured)
                say(f"  seed {seed}, {lesion.organ}: " + _summary(measured))
    return found


def _make_again(ill, healthy, lesion, generators) -> Measured | None:
    """One lesion in three ways; None where one of them cannot be measured."""
    organ = np.isin(healthy.organs, ORGAN_LABELS[lesion.organ])
    own_mask = ill.tumors == lesion.label
    own_organ = np.isin(ill.organs, ORGAN_LABELS[lesion.organ])
    textures = {OWN: measure_texture(ill.ct, own_mask, own_organ, ill.tumors > 0)}
    images = {"without": healthy.ct, OWN: ill.ct}
    ellipsoid = Ellipsoid(tuple(lesion.center_ras), tuple(lesion.radii_mm))
    inside = (
        ellipsoid_mask(healthy.grid, ellipsoid.center_ras, ellipsoid.radii_mm, (0, 0, 0)) & organ
    )
    if not inside.any():
        return None
    for name, generator in generators.items():
        parameters = SynthesisParameters(ellipsoid=ellipsoid, organ=lesion.organ, seed=lesion.label)
        try:
            result = synthesize(healthy.ct, healthy.grid, organ, parameters, generator)
        except SynthesisError:
            return None
        images[name] = result.applied_to(healthy.ct)
        mask = result.full_mask(healthy.grid.shape) > 0
        textures[name] = measure_texture(images[name], mask, organ, mask)
    if any(texture is None for texture in textures.values()):
        return None
    center = np.round(healthy.grid.to_ijk(np.array(lesion.center_ras))).astype(int)
    views = {name: _view(image, center) for name, image in images.items()}
    return Measured(ill.seed, lesion.organ, textures, views)


def _view(image: NDArray[np.int16], center: NDArray[np.int64]) -> NDArray[np.int16]:
    """Axial slice around a voxel, rows from anterior to posterior."""
    first = np.clip(center[:2] - PICTURE_EDGE // 2, 0, np.array(image.shape[:2]) - PICTURE_EDGE)
    i, j = (slice(int(a), int(a) + PICTURE_EDGE) for a in first)
    return image[i, j, center[2]].T[::-1]


def _summary(measured: Measured) -> str:
    return ", ".join(
        f"{name} {texture.contrast_hu:.0f} HU (sd {texture.sd_hu:.1f})"
        for name, texture in measured.textures.items()
    )


def table(found: list[Measured]) -> dict:
    """For each organ and figure: spread of the phantoms' own, median of the others, share inside."""
    result: dict = {}
    for organ in sorted({item.organ for item in found}):
        items = [item for item in found if item.organ == organ]
        rows: dict = {"lesions": len(items)}
        for figure in items[0].textures[OWN].values():
            values = {
                name: np.array([item.textures[name].values()[figure] for item in items])
                for name in (OWN, MODEL, BASELINE)
            }
            low, high = np.percentile(values[OWN], [5, 95])
            rows[figure] = {"own 5%": low, "own 50%": np.median(values[OWN]), "own 95%": high}
            for name in (MODEL, BASELINE):
                inside = (values[name] >= low) & (values[name] <= high)
                rows[figure][name] = float(np.median(values[name]))
                rows[figure][f"{name} inside"] = float(inside.mean())
        result[organ] = rows
    return result


def print_table(rows: dict) -> None:
    """The table in words and columns."""
    for organ, figures in rows.items():
        say(f"\n{organ}: {figures['lesions']} lesions")
        say(
            f"  {'':22s} {'own 5..50..95 %':>24s} {'model':>8s} {'inside':>7s} {'baseline':>9s} {'inside':>7s}"
        )
        for figure, row in figures.items():
            if figure == "lesions":
                continue
            spread = f"{row['own 5%']:.2f} .. {row['own 50%']:.2f} .. {row['own 95%']:.2f}"
            say(
                f"  {figure:22s} {spread:>24s} {row[MODEL]:8.2f} {row[f'{MODEL} inside']:6.0%} "
                f"{row[BASELINE]:9.2f} {row[f'{BASELINE} inside']:6.0%}"
            )


def picture(found: list[Measured], path: Path, rows: int = 6) -> None:
    """A row per lesion: without, own, model, baseline."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(rows, len(found))).astype(int)]
    names = ["without", OWN, MODEL, BASELINE]
    figure, axes = plt.subplots(
        len(chosen), 4, figsize=(9, 2.3 * len(chosen)), squeeze=False, layout="constrained"
    )
    for line, item in zip(axes, chosen, strict=True):
        for axis, name in zip(line, names, strict=True):
            axis.imshow(item.views[name], cmap="gray", vmin=-60, vmax=220)
            axis.set_title(f"{item.organ}: {name}", fontsize=8)
            axis.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure, print, write; 1 if the reconstruction misses its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEMO_MODEL, help="model id or folder")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"))
    parser.add_argument("--phantoms", type=int, default=4, help="number of phantoms for each part")
    parser.add_argument("--lesions", type=int, default=6, help="most lesions per phantom")
    parser.add_argument(
        "--validation", action="store_true", help="validation seeds, for choices during training"
    )
    chosen = parser.parse_args()
    seeds = list(phantom.VALIDATION_SEEDS if chosen.validation else phantom.TEST_SEEDS)
    seeds = seeds[: chosen.phantoms]
    chosen.out.mkdir(parents=True, exist_ok=True)
    generator = load_generator(chosen.model, "cpu", {}, lambda *_: None)
    say(f"Reconstruction on phantoms {seeds[0]} to {seeds[-1]}")
    reconstruction = evaluate_reconstruction(generator, seeds)
    say(f"PSNR {reconstruction['psnr_db']:.2f} dB (target {TARGET_DB:g})")
    say("\nLesions")
    found = evaluate_lesions(chosen.model, seeds, chosen.lesions)
    rows = table(found)
    print_table(rows)
    picture(found, chosen.out / "lesions.png")
    content = {"model": generator.facts, "reconstruction": reconstruction, "lesions": rows}
    (chosen.out / "evaluation.json").write_text(json.dumps(content, indent=1) + "\n")
    say(f"\nwritten: {chosen.out / 'evaluation.json'}, {chosen.out / 'lesions.png'}")
    return 0 if reconstruction["psnr_db"] >= TARGET_DB else 1


if __name__ == "__main__":
    raise SystemExit(main())
