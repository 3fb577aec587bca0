"""Runs inside Slicer: the module's self-test and the tests of Testing/InSlicer; the exit code is 0 if all passed.

The job `slicer` of .github/workflows/test.yml shows how Slicer is started with it.
"""

import sys
import traceback
import unittest
from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[1]


def run() -> bool:
    """Whether everything passed; Slicer itself would go on after a failure."""
    import DiffTumorSlicer

    DiffTumorSlicer.DiffTumorSlicerTest().runTest()
    suite = unittest.TestLoader().discover(str(ROOT / "Testing" / "InSlicer"), pattern="*Test.py")
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    return result.wasSuccessful() and result.testsRun > 0


try:
    passed = run()
except Exception:  # noqa: BLE001 (whatever it is, it has failed)
    traceback.print_exc()
    passed = False
slicer.util.exit(0 if passed else 1)
