"""How long a reader waits for the next case, and whether memory grows: genuine panel and views, 512 x 512 x 300 voxels.

python Testing/benchmarks/benchmark_case_change.py [--cases 240] [--slices 300] [--look 1.5] [--folder DIR]

The time runs from the key Space to the first picture of the next case in all three views. The scripted reader looks at
a case for `--look` seconds, and on until the next one was read in the background; how long that takes is told, too.
Files of cases are links to a few different images, so that 240 cases need the disk of those few.
"""

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "DiffTumorSlicer")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from Testing.module.panels.session_script import open_module  # noqa: E402

DIFFERENT = 4


def make_package(folder: Path, cases: int, shape: tuple[int, int, int]) -> None:
    """A package of `cases` cases, which are links to a few images of noise."""
    import nibabel as nib

    from difftumor.reader_study.study import CaseFile, Package, StudyFacts, case_sha256

    (folder / "cases").mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.diag([0.7, 0.7, 1.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * (0.7, 0.7, 1.0)
    images, files = [], []
    for number in range(DIFFERENT):
        path = folder / f"image{number}.nii"
        slices = rng.integers(-100, 200, (*shape[:2], 8), np.int16)
        hu = np.asfortranarray(np.tile(slices, (1, 1, -(-shape[2] // 8)))[..., : shape[2]])
        nib.save(nib.Nifti1Image(hu, affine), path)
        images.append(path)
    for number in range(cases):
        token = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        path = folder / "cases" / f"{token}.nii"
        os.link(images[number % DIFFERENT], path)
        files.append(CaseFile(token, False, (0.0, 0.0, 0.0), case_sha256(token, path)))
    facts = StudyFacts("0123456789ab", "Benchmark", "visual_turing_test", "2026-11-20")
    size = images[0].stat().st_size
    package = Package(folder, facts, "R1", "0" * 64, size, tuple(files))
    (folder / "package.json").write_text(json.dumps(package.to_dict()), encoding="utf-8")


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def drawn(session: Any) -> tuple[int, ...]:
    """Numbers that all change when all views have been drawn again."""
    from DiffTumorSlicerLib.reading.views import VIEWS

    return tuple(session.surface(view)._image.cacheKey() for view in VIEWS)


def read(session: Any, cases: int, look_s: float) -> dict[str, list[float]]:
    """Answer every case with keys; seconds of each change (wall, own thread), of each reading ahead, and MB."""
    from PySide6 import QtCore, QtTest, QtWidgets

    key, panel = QtCore.Qt.Key, session.panels.reader_study
    found: dict[str, list[float]] = {"wall": [], "own": [], "ahead": [], "memory": []}
    loader = panel.reading._loader
    for number in range(cases - 1):
        began = time.perf_counter()
        session.turn(until=lambda: panel.reading.session.visible)
        session.turn(until=lambda: len(loader._read) == len(loader._wanted))
        found["ahead"].append(time.perf_counter() - began)
        session.turn(look_s)
        for one in (key.Key_R if number % 2 else key.Key_S, key.Key_3):
            QtTest.QTest.keyClick(QtWidgets.QApplication.focusWidget(), one)
        session.turn()
        case, before = panel.reading.case.position, drawn(session)
        began, spent = time.perf_counter(), time.thread_time()
        QtTest.QTest.keyClick(QtWidgets.QApplication.focusWidget(), key.Key_Space)
        session.turn(
            until=lambda case=case, before=before: (
                panel.reading.shown
                and panel.reading.case.position > case
                and all(a != b for a, b in zip(before, drawn(session), strict=True))
            )
        )
        found["wall"].append(time.perf_counter() - began)
        found["own"].append(time.thread_time() - spent)
        found["memory"].append(resident_mb())
    return found


def main() -> None:
    """Print the times of the case changes and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--look", type=float, default=1.5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made) / "package"
        make_package(folder, options.cases, (512, 512, options.slices))
        session = open_module()
        panel = session.panels.reader_study
        session.panel.findChild("ctkCollapsibleButton", "readerStudySection").collapsed = False
        empty = resident_mb()
        panel.reading.join(folder, "R1")
        panel.answer.set_study(panel.reading.facts)
        session.window.activateWindow()
        panel.begin()
        session.turn(until=lambda: panel.reading.shown)
        found = read(session, options.cases, options.look)
        panel.reading.close()
    print(f"{options.cases} cases of 512 x 512 x {options.slices}, change to the next one:")
    for name, values in (
        ("on the wall", found["wall"]), ("of our thread", found["own"]), ("read ahead in", found["ahead"])
    ):  # fmt: skip
        print(
            f"{name}: median {np.median(values):.3f} s, 95 % {np.percentile(values, 95):.3f} s, "
            f"longest {max(values):.3f} s"
        )
    memory = found["memory"]
    tenth = max(len(memory) // 10, 1)
    print(
        f"memory: {empty:.0f} MB before, {np.mean(memory[:tenth]):.0f} MB in the first tenth, "
        f"{np.mean(memory[-tenth:]):.0f} MB in the last, {max(memory):.0f} MB at most"
    )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # views that are still there draw once more while Python takes itself apart
