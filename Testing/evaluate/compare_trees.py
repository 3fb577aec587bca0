"""Run the same commands with two checkouts of the program, and compare all that they write.

    python Testing/evaluate/compare_trees.py OLD_CHECKOUT [--only WORD]     # each with the Python of its own .venv

Both run in the same folder, one after the other, so that even the paths in side-cars are equal. Files are compared
byte for byte; of those that differ, images voxel for voxel and JSON field by field, and every field that differs is
listed. Exit code 1 if voxels, tables or a field that is not in INTENDED differ.

Commands that read images of ../shared/data are left out, and named, where that folder is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DIFFTUMOR_SHARED", ROOT.parent / "shared")) / "data"
# Fields of a side-car that the rebuilt house changes on purpose: the end of their dotted path, and why.
INTENDED = {
    ".shape": "every input is described alike",
    ".spacing_mm": "every input is described alike",
    ".notes": "side-cars carry every warning that was shown",
    ".left_to_model": "side-cars say which parameters the model's recommendation filled in",
    ".title": "texts are spelled in American English",
    ".description": "texts are spelled in American English",
    ".training_data": "texts are spelled in American English",
    ".advice": "models list says the next step apart from the problem",
    "left_to_model": "tells parameters that were asked for from those that were filled in",
}
PRINTING = ("models", "evaluate", "study")  # commands whose result is what they print


def commands() -> list[str]:
    """The commands that are compared, a line each."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def runs_here(words: str) -> bool:
    """Whether the images of a command are there."""
    needed = {word.split("/")[1] for word in words.split() if word.startswith("DATA/")}
    needed |= {"ct_hcc048"} if "hcc048" in words.split() else set()
    return all((DATA / name).exists() for name in needed)


def prepare(folder: Path) -> None:
    """Inputs that no command makes: the DICOM scan, and labels on three slices of the head."""
    archive = DATA / "ct_hcc048" / "hcc048_dicom.tar.xz"
    if archive.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "hcc048", filter="data")


def three_slices(folder: Path) -> None:
    """`three.nii.gz`: the tumor's labels of the head phantom on three of its slices."""
    import nibabel

    whole = nibabel.load(folder / "h" / "head-tumors.nii.gz")
    labels = np.asarray(whole.dataobj).astype(np.uint8)
    held = np.flatnonzero(labels.any(axis=(0, 1)))
    kept = np.zeros_like(labels)
    for index in held[[len(held) // 5, len(held) // 2, 4 * len(held) // 5]]:
        kept[..., index] = labels[..., index]
    nibabel.save(nibabel.Nifti1Image(kept, whole.affine), folder / "three.nii.gz")


def run_all(checkout: Path, folder: Path, runs: list[str]) -> dict[str, tuple[int, str, float]]:
    """Run every command in `folder`.  Returns: by its words the exit code, what it printed, and the seconds."""
    prepare(folder)
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout / "DiffTumorSlicer"),
        "DIFFTUMOR_HOME": str(folder.parent / "models"),
        "OMP_NUM_THREADS": "2",
    }
    python = checkout / ".venv" / "bin" / "python"
    program = [str(python if python.exists() else sys.executable), "-m", "difftumor"]
    found = {}
    for run in runs:
        if run.startswith("learn") and not (folder / "three.nii.gz").exists():
            three_slices(folder)
        for sub in ("p", "h"):
            (folder / sub).mkdir(exist_ok=True)
        words = [word.replace("DATA", str(DATA)) for word in run.split()]
        start = time.perf_counter()
        done = subprocess.run(
            [*program, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        took = time.perf_counter() - start
        if run.startswith(PRINTING):
            text = done.stdout.replace(str(checkout), "CHECKOUT")
            suffix = "json" if "--json" in run else "txt"
            (folder / f"printed-{len(found)}.{suffix}").write_text(text, encoding="utf-8")
        found[run] = done.returncode, done.stdout + done.stderr, took
        sys.stderr.write(f"{done.returncode} {took:6.1f} s  {run[:90]}\n")
    return found


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths of the fields in which two JSON contents differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(set(old) | set(new))
        absent = object()
        return [
            found
            for name in names
            for found in differences(old.get(name, absent), new.get(name, absent), f"{path}.{name}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            found
            for index, (one, other) in enumerate(zip(old, new, strict=True))
            for found in differences(one, other, f"{path}[{index}]")
        ]
    return [] if old == new else [path]


def compare(old: Path, new: Path) -> list[str]:
    """What differs between two folders of results, a line each; those of INTENDED begin with a star."""
    said = []
    names = {p.relative_to(f) for f in (old, new) for p in f.rglob("*") if p.is_file()}
    for name in sorted(names):
        one, other = old / name, new / name
        if not one.exists() or not other.exists():
            said.append(f"{name}: only in the {'new' if other.exists() else 'old'} tree")
        elif digest(one) == digest(other):
            continue
        elif name.suffix == ".json":
            fields = differences(json.loads(one.read_text()), json.loads(other.read_text()))
            said += [
                f"{'* ' if field.endswith(tuple(INTENDED)) else ''}{name}: {field}"
                for field in fields
            ]
        elif name.name.endswith((".nii.gz", ".nrrd")):
            how = voxels(one, other)
            intended = how.endswith(
                "differs in ITK_FileNotes, descrip"
            )  # spelled in American English
            said.append(f"{'* ' if intended else ''}{name}: {how}")
        else:
            said.append(f"{name}: the bytes differ")
    return said


def digest(path: Path) -> str:
    """Hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def voxels(one: Path, other: Path) -> str:
    """How two images differ."""
    import SimpleITK as sitk

    a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (one, other))
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"shape or type differ ({a.shape} {a.dtype}, {b.shape} {b.dtype})"
    count = int((a != b).sum())
    if count:
        return f"{count} voxels differ"
    differing = header_fields(one) ^ header_fields(other)
    names = sorted({name for name, _ in differing})
    return f"the voxels are equal, the header differs in {', '.join(names)}"


def header_fields(path: Path) -> set[tuple[str, str]]:
    """Name and text of each field of an image's header."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    geometry = [("geometry", str((image.GetOrigin(), image.GetSpacing(), image.GetDirection())))]
    return {(key, image.GetMetaData(key)) for key in image.GetMetaDataKeys()} | set(geometry)


def main() -> int:
    """Run, compare, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path, help="checkout of the older version, with a .venv")
    parser.add_argument("--only", default="", help="only commands that hold this text")
    options = parser.parse_args()
    runs = [run for run in commands() if options.only in run]
    left = [run for run in runs if not runs_here(run)]
    runs = [run for run in runs if run not in left]
    with tempfile.TemporaryDirectory(prefix="difftumor-compare-") as name:
        work = Path(name)
        results = {}
        for kind, checkout in (("old", options.old.resolve()), ("new", ROOT)):
            folder = work / "case"
            folder.mkdir()
            results[kind] = run_all(checkout, folder, runs)
            shutil.move(folder, work / kind)
        codes = [
            f"{words}: exit code {old[0]}, now {results['new'][words][0]}"
            for words, old in results["old"].items()
            if old[0] != results["new"][words][0]
        ]
        failed = [f"{words}: {one[1][-300:]}" for words, one in results["new"].items() if one[0]]
        said = compare(work / "old", work / "new")
    files = "\n".join(said) or "every file is equal, byte for byte"
    print(f"{len(runs)} commands, {len(left)} left out (no ../shared/data)\n{files}")
    print(*(f"exit codes: {line}" for line in codes), sep="\n")
    print(*(f"failed: {line}" for line in failed), sep="\n")
    wrong = [line for line in said if not line.startswith("* ")]
    return 1 if wrong or codes else 0


if __name__ == "__main__":
    sys.exit(main())
