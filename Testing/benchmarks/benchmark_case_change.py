"""How long a reader waits for the next case, and whether memory grows: genuine panel and views, 512 x 512 x 300 voxels.

python Testing/benchmarks/benchmark_case_change.py [--cases 240] [--slices 300] [--look 1.5] [--folder DIR]

The time runs from the key Space to the first picture of the next case in all three views. `--look` is how long the
scripted reader looks at a case, in which the next one is read. Files of cases are links to a few different images,
so that 240 cases need the disk of those few.
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

from Testing.panels.session_script import open_module  # noqa: E402

DIFFERENT = 4


def make_package(folder: Path, cases: int, shape: tuple[int, int, int]) -> None:
    """A package of `cases` cases, which are links to a few images of noise."""
    import nibabel as nib

    from difftumor.reader_study.study import CaseFile, Package, StudyFacts

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
        images.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
    for number in range(cases):
        token = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        path, sha256 = images[number % DIFFERENT]
        os.link(path, folder / "cases" / f"{token}.nii")
        files.append(
            CaseFile(token=token, practice=False, sha256=sha256, start_ras=(0.0, 0.0, 0.0))
        )
    facts = StudyFacts("0123456789ab", "Benchmark", "visual_turing_test", "2026-11-20")
    size = images[0][0].stat().st_size
    package = Package(folder, facts, "R1", "0" * 64, size, tuple(files))
    (folder / "package.json").write_text(json.dumps(package.to_dict()), encoding="utf-8")


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def drawn(session: Any) -> tuple[int, ...]:
    """Numbers that all change when all views have been drawn again."""
    from DiffTumorSlicerLib.reading_views import VIEWS

    return tuple(session.surface(view)._image.cacheKey() for view in VIEWS)


def read(session: Any, cases: int, look_s: float) -> tuple[list[float], list[float], list[float]]:
    """Answer every case with keys; seconds of each change on the wall and of our thread, and memory in MB."""
    from PySide6 import QtCore, QtTest, QtWidgets

    key, panel = QtCore.Qt.Key, session.panels.reader_study
    seconds, own, memory = [], [], []
    for number in range(cases - 1):
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
        seconds.append(time.perf_counter() - began)
        own.append(time.thread_time() - spent)
        memory.append(resident_mb())
    return seconds, own, memory


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
        seconds, own, memory = read(session, options.cases, options.look)
        panel.reading.close()
    print(f"{options.cases} cases of 512 x 512 x {options.slices}, change to the next one:")
    for name, values in (("on the wall", seconds), ("of our thread", own)):
        print(
            f"{name}: median {np.median(values):.3f} s, 95 % {np.percentile(values, 95):.3f} s, "
            f"longest {max(values):.3f} s"
        )
    tenth = max(len(memory) // 10, 1)
    print(
        f"memory: {empty:.0f} MB before, {np.mean(memory[:tenth]):.0f} MB in the first tenth, "
        f"{np.mean(memory[-tenth:]):.0f} MB in the last, {max(memory):.0f} MB at most"
    )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # views that are still there draw once more while Python takes itself apart
