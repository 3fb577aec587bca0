"""Runs inside Slicer (ctest): the built package is complete, and the real parameterNodeWrapper takes our classes."""

from __future__ import annotations

import importlib
import json
import unittest
from pathlib import Path

import slicer


class DiffTumorSlicerPackageTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(slicer.modules.difftumorslicer.path).parent

    def test_library_engine_and_resources_lie_beside_the_module(self):
        for name in ("DiffTumorSlicerLib", "difftumor", "Resources"):
            assert (self.folder / name).is_dir(), f"{name} is not in {self.folder}"
        for name in (
            "UI/DiffTumorSlicer.ui",
            "models.json",
            "requirements.txt",
            "Icons/DiffTumorSlicer.png",
        ):
            assert (self.folder / "Resources" / name).is_file(), (
                f"Resources/{name} is not installed"
            )
        json.loads((self.folder / "Resources" / "models.json").read_text(encoding="utf-8"))

    def test_neither_tests_nor_training_are_installed(self):
        for name in ("Testing", "training", "release"):
            assert not (self.folder / name).exists()

    def test_the_worker_is_there(self):
        spec = importlib.util.find_spec("difftumor.worker")
        assert Path(spec.origin).is_relative_to(self.folder), spec.origin

    def test_the_real_wrapper_keeps_our_parameters(self):
        from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters, open_parameters

        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "parameters")
        parameters, sentence = open_parameters(node)
        assert isinstance(parameters, ModuleParameters)
        assert sentence == ""
        parameters.synthesis.seed = 2**63 - 1
        assert open_parameters(node)[0].synthesis.seed == 2**63 - 1
        with self.assertRaises(ValueError):  # noqa: PT027 -- Slicer has no pytest
            parameters.synthesis.feather_mm = 99.0
        slicer.mrmlScene.RemoveNode(node)

    def test_the_panel_opens_and_closes(self):
        widget = slicer.util.getNewModuleWidget("DiffTumorSlicer")
        widget.enter()
        slicer.app.processEvents()
        widget.exit()
        widget.cleanup()
